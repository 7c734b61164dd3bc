//! Entering network namespaces: one dedicated thread switches, works there, and hands the results back.
//!
//! No other thread of the process ever changes its namespace, so a socket opened or a file read elsewhere is always the
//! host's. (`ip-netns(8)`, `setns(2)`.) Namespaces with a name are in [`named`].

pub mod ahead;
pub mod defaults;
pub mod named;
pub mod stand_in;

pub use named::nsid;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Sender, channel};
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

    /// Runs `work` on the namespace thread, inside this namespace. Inside `work` it may be called again.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, and whatever `work` returns.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if ON_THREAD.get() {
            // Waiting for ourselves would be forever.
            let before = std::fs::File::open("/proc/thread-self/ns/net")
                .map_err(|e| Error::io("netns.enter", &e))?;
            enter(self.as_fd())?;
            let result = work();
            enter(before.as_fd())?;
            return result;
        }
        let host = NetnsFd::host()?;
        let mut outcome: Option<std::thread::Result<Result<T>>> = None;
        {
            let outcome = &mut outcome;
            let job = move || {
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
                    enter(self.as_fd())?;
                    work()
                }));
                // Back even after a panic: the thread must not keep a namespace alive.
                let back = enter(host.as_fd());
                *outcome = Some(result.map(|result| back.and(result)));
            };
            run_on_thread(Box::new(job));
        }
        match outcome.expect("the namespace thread ran the job") {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
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

thread_local! {
    /// Whether this is the namespace thread.
    static ON_THREAD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Hands `job` to the namespace thread and waits for it, so borrowed data in it stays valid.
fn run_on_thread(job: Job<'_>) {
    static THREAD: OnceLock<Sender<(Job<'static>, Sender<()>)>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, receiver) = channel::<(Job<'static>, Sender<()>)>();
        // The host's descriptor must be taken before any switch.
        let _ = NetnsFd::host();
        std::thread::Builder::new()
            .name("netns".into())
            .spawn(move || {
                ON_THREAD.set(true);
                for (job, done) in receiver {
                    job();
                    let _ = done.send(());
                }
            })
            .expect("the system has a thread left");
        sender
    });
    // SAFETY: this function returns only after the job has run or been dropped, so nothing the job borrows is gone
    // before; the lifetime is erased only to pass through the channel.
    let job: Job<'static> = unsafe { std::mem::transmute(job) };
    let (done, finished) = channel();
    thread.send((job, done)).expect("the namespace thread lives as long as the process");
    finished.recv().expect("the namespace thread finishes every job");
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
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            a.0.fd.within::<()>(|| panic!("in a namespace"))
        }));
        assert!(panicked.is_err());
        assert_eq!(NetnsFd::host().unwrap().within(|| Ok(here())).unwrap(), start);
    }
}
