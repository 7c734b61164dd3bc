//! Why the process is to end, known to every thread: the first reason given is the one that counts.

use std::sync::Mutex;

use tokio::sync::Notify;

/// A reason to tear down and leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ctrl-C or SIGTERM, by signal number.
    Signal(i32),
    /// `cnf.exit(code)`; without a code, what the tasks have come to decides.
    Exit(Option<u8>),
    /// The script used more memory than it may.
    Memory,
}

/// Set once, seen by all threads.
#[derive(Default)]
pub struct StopFlag {
    reason: Mutex<Option<Stop>>,
    changed: Notify,
}

impl StopFlag {
    /// Asks for the end. A later reason does not replace an earlier one.
    pub fn stop(&self, reason: Stop) {
        self.reason.lock().expect("no panic while held").get_or_insert(reason);
        self.changed.notify_waiters();
    }

    pub fn reason(&self) -> Option<Stop> {
        *self.reason.lock().expect("no panic while held")
    }

    /// Waits until somebody asks for the end.
    pub async fn stopped(&self) -> Stop {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(reason) = self.reason() {
                return reason;
            }
            changed.await;
        }
    }
}
