//! Namespaces made ahead. Making one takes the kernel as long as making the links that go into it: while a script that
//! makes many is busy with one, a second thread makes the next, still without a name. A script that makes few never
//! gets there, and one that stops leaves nothing: what is not taken soon is let go.

use std::os::fd::AsFd as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::{NetnsFd, defaults, enter};
use crate::kernel::netlink::Netlink;
use crate::{Error, Result};

/// So many in a row, each so soon after the one before, are many.
const MANY: u32 = 3;
const SOON: Duration = Duration::from_millis(20);
/// How long one waits to be taken.
const KEPT: Duration = Duration::from_millis(100);

struct Ahead {
    slot: Slot,
    /// How many came in a row, and when the last one did.
    row: u32,
    last: Option<Instant>,
    /// The thread that makes them runs.
    running: bool,
}

enum Slot {
    Empty,
    Wanted,
    Ready(Netlink),
}

static AHEAD: Mutex<Ahead> =
    Mutex::new(Ahead { slot: Slot::Empty, row: 0, last: None, running: false });
static CHANGED: Condvar = Condvar::new();

fn ahead() -> MutexGuard<'static, Ahead> {
    AHEAD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A namespace without a name, set up as [`defaults`] says, by a netlink socket in it.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, ENOSPC at the limit of namespaces.
pub fn blank() -> Result<Netlink> {
    let mut state = ahead();
    let soon = state.last.replace(Instant::now()).is_some_and(|last| last.elapsed() < SOON);
    state.row = if soon { state.row.saturating_add(1) } else { 1 };
    let many = state.row >= MANY;
    while matches!(state.slot, Slot::Wanted) {
        state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    let made = match std::mem::replace(&mut state.slot, Slot::Empty) {
        Slot::Ready(netlink) => Some(netlink),
        _ => None,
    };
    if many {
        want(&mut state);
    }
    drop(state);
    match made {
        Some(netlink) => Ok(netlink),
        None => NetnsFd::host()?.within(make_here),
    }
}

/// Lets go of what was made ahead: the host's settings, which a new namespace starts with, have changed.
pub fn forget() {
    let mut state = ahead();
    while matches!(state.slot, Slot::Wanted) {
        state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.slot = Slot::Empty;
}

fn want(state: &mut Ahead) {
    if !state.running {
        let worker = std::thread::Builder::new().name("netns-ahead".into());
        // Without a thread for it none is made ahead.
        if worker.spawn(work).is_err() {
            return;
        }
        state.running = true;
    }
    state.slot = Slot::Wanted;
    CHANGED.notify_all();
}

/// Makes one whenever one is wanted, until none has been for a while.
fn work() {
    let mut state = ahead();
    loop {
        if matches!(state.slot, Slot::Wanted) {
            drop(state);
            let made = make_and_return();
            state = ahead();
            // A refusal is told to whoever asks for the next one.
            state.slot = made.map_or(Slot::Empty, Slot::Ready);
            CHANGED.notify_all();
        }
        let idle = CHANGED.wait_timeout_while(state, KEPT, |s| !matches!(s.slot, Slot::Wanted));
        let (next, waited) = idle.unwrap_or_else(PoisonError::into_inner);
        state = next;
        if waited.timed_out() {
            state.slot = Slot::Empty;
            state.running = false;
            return;
        }
    }
}

fn make_and_return() -> Result<Netlink> {
    let host = NetnsFd::host()?;
    let made = make_here();
    // This thread must not keep the namespace alive.
    enter(host.as_fd())?;
    made
}

/// Leaves the calling thread in the new namespace.
fn make_here() -> Result<Netlink> {
    let origin = defaults::Origin::get();
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| {
        let error = Error::errno("unshare", e);
        match e {
            Errno::EPERM => error.hint("making a network namespace needs CAP_SYS_ADMIN"),
            Errno::ENOSPC => error.hint("the limit is /proc/sys/user/max_net_namespaces"),
            _ => error,
        }
    })?;
    let own = "/proc/thread-self/ns/net";
    let file = std::fs::File::open(own).map_err(|e| Error::io("netns.open", &e))?;
    let netlink = Netlink::open_here(&NetnsFd::new(file.into()))?;
    defaults::apply_here(&netlink, origin)?;
    Ok(netlink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_goes() {
        let mut made = Vec::new();
        for _ in 0..8 {
            made.push(blank().unwrap());
        }
        let mut cookies: Vec<u64> = made.iter().map(Netlink::cookie).collect();
        cookies.sort_unstable();
        cookies.dedup();
        assert_eq!(cookies.len(), 8, "each is another one");
        let start = Instant::now();
        while ahead().running {
            assert!(start.elapsed() < Duration::from_secs(10), "the thread ends");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(matches!(ahead().slot, Slot::Empty));
    }
}
