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

    pub fn tear_down(&self) {
        self.entries.lock().expect("no panic while held").clear();
    }
}
