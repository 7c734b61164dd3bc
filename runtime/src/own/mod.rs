//! What this instance owns, in order, and how each thing is undone.

mod ledger;
mod owned;

pub use ledger::{Ledger, Mark, Removed};
pub use owned::Owned;
