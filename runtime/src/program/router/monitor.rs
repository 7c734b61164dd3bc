//! One thread that follows the links, addresses and routes of every router's namespace, whatever Lua does.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::kernel::netns::NetnsFd;
use crate::kernel::notify::{Event, Notifications, Topics};
use crate::{Error, Result};

/// Who is told.
pub trait Follower: Send + Sync {
    fn event(&self, event: &Event);
}

struct Watch {
    notifications: Mutex<Notifications>,
    /// Polled: stays open as long as a poll may use it.
    fd: OwnedFd,
    follower: Weak<dyn Follower>,
}

struct Monitor {
    watches: Mutex<Vec<Arc<Watch>>>,
    wake: EventFd,
}

/// Tells `follower` about its namespace until it is dropped. What happens after the return is not missed.
///
/// # Errors
/// EMFILE, and what entering the namespace gives.
pub fn follow(netns: &NetnsFd, follower: Weak<dyn Follower>) -> Result<()> {
    let topics = Topics { link: true, address: true, route: true, neigh: false };
    let notifications = Notifications::open(netns, topics)?;
    let fd = notifications.as_fd().try_clone_to_owned().map_err(|e| Error::io("router", &e))?;
    let watch = Watch { notifications: Mutex::new(notifications), fd, follower };
    let monitor = monitor()?;
    monitor.watches.lock().expect("the monitor").push(Arc::new(watch));
    let _ = monitor.wake.write(1);
    Ok(())
}

fn monitor() -> Result<&'static Arc<Monitor>> {
    static MONITOR: OnceLock<std::result::Result<Arc<Monitor>, Error>> = OnceLock::new();
    let made = MONITOR.get_or_init(|| {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags).map_err(|e| Error::errno("router.monitor", e))?;
        let monitor = Arc::new(Monitor { watches: Mutex::default(), wake });
        let running = monitor.clone();
        std::thread::Builder::new()
            .name("router-monitor".into())
            .spawn(move || running.run())
            .map_err(|e| Error::io("router.monitor", &e))?;
        Ok(monitor)
    });
    made.as_ref().map_err(Clone::clone)
}

impl Monitor {
    fn run(&self) {
        loop {
            let watches: Vec<_> = {
                let mut watches = self.watches.lock().expect("the monitor");
                watches.retain(|watch| watch.follower.strong_count() > 0);
                watches.clone()
            };
            let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            fds.extend(watches.iter().map(|w| PollFd::new(w.fd.as_fd(), PollFlags::POLLIN)));
            // A second at most, so that namespaces of dropped routers are let go.
            let _ = poll(&mut fds, PollTimeout::from(1000u16));
            let _ = self.wake.read();
            for watch in &watches {
                watch.drain();
            }
        }
    }
}

impl Watch {
    fn drain(&self) {
        let mut notifications = self.notifications.lock().expect("the monitor's own");
        // An error here is a broken socket: nothing more will come from it.
        while let Ok(Some(event)) = notifications.receive() {
            match self.follower.upgrade() {
                Some(follower) => follower.event(&event),
                None => return,
            }
        }
    }
}
