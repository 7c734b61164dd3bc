//! Entering network namespaces: a visit is as long as a closure, on the thread that asks for it, and ends where it began,
//! also by a panic. Outside of visits every thread is in the host's, so a socket opened or a file read there is the host's.
//! (`ip-netns(8)`, `setns(2)`.) Namespaces with a name are in [`named`].

pub mod ahead;
pub mod defaults;
pub mod named;
pub mod stand_in;

pub use named::nsid;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result};

/// An open network namespace. Cheap to clone; the kernel keeps the namespace while one is held.
#[derive(Debug, Clone)]
pub struct NetnsFd(Arc<OwnedFd>);

impl NetnsFd {
    pub fn new(fd: OwnedFd) -> Self {
        NetnsFd(Arc::new(fd))
    }

    /// The namespace that this process was started in.
    pub fn host() -> Result<&'static NetnsFd> {
        static HOST: OnceLock<std::result::Result<NetnsFd, Error>> = OnceLock::new();
        HOST.get_or_init(|| {
            std::fs::File::open("/proc/self/ns/net")
                .map(|file| NetnsFd::new(file.into()))
                .map_err(|e| Error::io("netns.host", &e).subject("/proc/self/ns/net"))
        })
        .as_ref()
        .map_err(Clone::clone)
    }

    /// Runs `work` inside this namespace. Inside `work` it may be called again; it starts no thread and no process, which
    /// would stay.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, and whatever `work` returns.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let visit = Visit::begin(self)?;
        let result = work();
        drop(visit);
        result
    }
}

/// The calling thread in another namespace, until this is dropped.
struct Visit {
    /// Where it was before, itself on a visit; else it was in the host's.
    before: Option<NetnsFd>,
}

thread_local! {
    /// Where this thread visits.
    static VISITED: RefCell<Option<NetnsFd>> = const { RefCell::new(None) };
}

impl Visit {
    fn begin(netns: &NetnsFd) -> Result<Visit> {
        // The host's descriptor must be taken before any switch.
        NetnsFd::host()?;
        enter(netns.as_fd())?;
        Ok(Visit { before: VISITED.replace(Some(netns.clone())) })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let before = self.before.take();
        let back = match &before {
            Some(netns) => enter(netns.as_fd()),
            None => NetnsFd::host().and_then(|host| enter(host.as_fd())),
        };
        VISITED.set(before);
        if let Err(error) = back {
            // Whatever it did next would be done to somebody else's network.
            eprintln!("error: {error}");
            std::process::abort();
        }
    }
}

impl NetnsFd {
    /// The namespace's cookie: the one identity the kernel never reuses before the next boot (`SO_NETNS_COOKIE`, Linux
    /// 5.14). Inode numbers are reused at once.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, ENOPROTOOPT before Linux 5.14.
    pub fn cookie(&self) -> Result<u64> {
        self.within(|| {
            let socket = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Unix,
                nix::sys::socket::SockType::Datagram,
                nix::sys::socket::SockFlag::SOCK_CLOEXEC,
                None,
            )
            .map_err(|e| Error::errno("netns.cookie", e))?;
            socket_cookie(socket.as_fd()).map_err(|e| Error::io("netns.cookie", &e))
        })
    }

    /// Whether both are the same namespace. Certain while both are held, since a held inode is not reused.
    pub fn same(&self, other: &NetnsFd) -> bool {
        use nix::sys::stat::fstat;
        match (fstat(self), fstat(other)) {
            (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
            _ => false,
        }
    }
}

/// The cookie of the namespace that a socket belongs to (`include/uapi/asm-generic/socket.h`).
pub(in crate::kernel) fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: socket is open; the kernel writes at most `length` bytes, the size of `cookie`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

impl AsFd for NetnsFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn enter(fd: BorrowedFd<'_>) -> Result<()> {
    setns(fd, CloneFlags::CLONE_NEWNET).map_err(|e| {
        Error::errno("netns.enter", e).hint("entering a network namespace needs CAP_SYS_ADMIN")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::link::tests::Scratch;

    fn here() -> std::path::PathBuf {
        std::fs::read_link("/proc/thread-self/ns/net").unwrap()
    }

    #[test]
    fn visits_nest_and_end() {
        let (a, b) = (Scratch::new("nesta"), Scratch::new("nestb"));
        let start = here();
        let seen = a.0.fd.within(|| {
            let inner = b.0.fd.within(|| Ok(here()))?;
            Ok((here(), inner))
        });
        let (outer, inner) = seen.unwrap();
        assert!(outer != inner && outer != start && inner != start);
        assert_eq!(here(), start);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            a.0.fd.within::<()>(|| panic!("in a namespace"))
        }));
        assert!(panicked.is_err());
        assert_eq!(here(), start);
        assert_eq!(NetnsFd::host().unwrap().within(|| Ok(here())).unwrap(), start);
    }
}
