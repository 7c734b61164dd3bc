//! Sockets as maps take them: by descriptor going in, by the kernel's cookie coming out.
//!
//! A map of sockets keeps none of them open: whoever serves does, and when it stops the kernel takes the socket out of
//! every map.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::{Rc, Weak};

use socket2::SockRef;

thread_local! {
    /// What has been put into maps, by cookie: a commit that goes back puts it there again.
    static PUT: RefCell<HashMap<u64, Weak<dyn AsFd>>> = RefCell::default();
}

/// A socket that is open as long as this is held.
#[derive(Clone)]
pub struct MapSocket(Rc<dyn AsFd>);

impl MapSocket {
    pub fn new(socket: Rc<dyn AsFd>) -> MapSocket {
        MapSocket(socket)
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }

    /// The kernel's name for it, never given twice in a boot (`SO_COOKIE`, socket(7)).
    pub fn cookie(&self) -> u64 {
        SockRef::from(&self.0.as_fd()).cookie().unwrap_or_default()
    }

    /// Lets [`MapSocket::known`] find it, while it is open.
    pub fn remember(&self) {
        PUT.with_borrow_mut(|put| {
            put.retain(|_, socket| socket.strong_count() > 0);
            put.insert(self.cookie(), Rc::downgrade(&self.0));
        });
    }

    /// The socket of this cookie, if it was put into a map and is open still.
    pub fn known(cookie: u64) -> Option<MapSocket> {
        PUT.with_borrow(|put| put.get(&cookie)?.upgrade().map(MapSocket))
    }
}

impl fmt::Debug for MapSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapSocket({})", self.cookie())
    }
}
