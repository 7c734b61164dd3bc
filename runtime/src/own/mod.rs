//! What an instance owns: the ledger with its undo for each thing, the journal that keeps it on disk, and the stage on
//! which a later generation prepares its changes; and the instance itself, on disk.

mod deed;
mod hooks;
pub mod instance;
pub mod journal;
mod ledger;
mod owned;
pub mod stage;

pub use deed::keep_pinned;
pub use ledger::{Ledger, Mark, Removed, clean, counted, undo_recovered};
pub use owned::{AttachmentPlace, LinkEnd, LinkPlace, MARK, Mounted, Owned, Trace, Undo, link_key};
pub use stage::Stage;
