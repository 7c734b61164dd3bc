//! Programs that somebody waits for: they end, with all that they have started, when the wait is given up or this process
//! ends.

use std::cell::Cell;

use super::task::EndsWithTask;
use crate::kernel::process::{self, Reach};

/// A child until it has been waited for.
pub struct Waited {
    pid: Cell<Option<u32>>,
    reach: Reach,
}

impl Waited {
    /// `reach` tells how to find what it starts: by its group, if it leads one.
    pub fn new(pid: Option<u32>, reach: Reach) -> Self {
        if let Some(pid) = pid {
            process::enlist(pid, reach);
        }
        Waited { pid: Cell::new(pid), reach }
    }

    /// It has ended by itself; what it left running stays.
    pub fn leave(&self) {
        if let Some(pid) = self.pid.take() {
            process::dismiss(pid);
        }
    }
}

impl EndsWithTask for Waited {
    fn end(&self) {
        if let Some(pid) = self.pid.take() {
            process::dismiss(pid);
            process::end(pid, self.reach);
        }
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        self.end();
    }
}
