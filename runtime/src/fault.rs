//! Dying on purpose: with `CNFSCRIPT_DIE_AT=n` in the environment the process kills itself at its n-th step.
//!
//! A step is every place where it matters how far the process got: before and after a line of the journal is written, a
//! request sent to the kernel, a file made. Tests count through all of them and look at what the next command makes of
//! what is left.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static STEPS: AtomicU64 = AtomicU64::new(0);

/// One step. Without the variable this is one load.
pub fn point() {
    static DIE_AT: OnceLock<Option<u64>> = OnceLock::new();
    let die_at =
        DIE_AT.get_or_init(|| std::env::var("CNFSCRIPT_DIE_AT").ok().and_then(|n| n.parse().ok()));
    if let Some(die_at) = die_at
        && STEPS.fetch_add(1, Ordering::Relaxed) + 1 == *die_at
    {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
