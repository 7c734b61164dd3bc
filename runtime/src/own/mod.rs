//! What this instance owns, in order, and how each thing is undone; and the instance itself, on disk.

pub mod instance;
mod ledger;
mod owned;

pub use ledger::{Ledger, Mark, Removed};
pub use owned::Owned;
