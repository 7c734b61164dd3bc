//! The life of an instance: loading a script, parking, ending; signals and deadlines from a second thread.

mod attached;
pub mod control;
pub mod generation;
mod lines;
pub mod log;
pub mod outside;
pub mod rehearsal;
pub mod script;
pub mod socket;
mod told;
pub mod watch;
