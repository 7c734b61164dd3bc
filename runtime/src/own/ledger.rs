//! The ledger: the list of what this instance created or changed.

use std::sync::Mutex;

/// Placeholder until kernel objects exist.
#[derive(Default)]
pub struct Ledger {
    entries: Mutex<Vec<String>>,
}

impl Ledger {
    pub fn is_empty(&self) -> bool {
        self.entries.lock().expect("no panic while held").is_empty()
    }

    /// Where the ledger stands: what is entered from now on is undone by [`Ledger::tear_down_to`].
    pub fn mark(&self) -> usize {
        self.entries.lock().expect("no panic while held").len()
    }

    /// Undoes what was entered since `mark`, the last first.
    pub fn tear_down_to(&self, mark: usize) {
        self.entries.lock().expect("no panic while held").truncate(mark);
    }

    pub fn tear_down(&self) {
        self.entries.lock().expect("no panic while held").clear();
    }
}
