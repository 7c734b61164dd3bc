//! What this instance owns, in order, and how each thing is undone.

mod ledger;

pub use ledger::Ledger;
