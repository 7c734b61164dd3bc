//! A run directory for tests that need no room: what they kill leaves nothing among the instances of this machine. The
//! directory itself stays, empty, for the next run.

use std::path::PathBuf;

pub use cnfscript::own::instance::DIRECTORY_VARIABLE;

pub fn place() -> PathBuf {
    std::env::temp_dir().join(format!("cnfscript-tests-{}", nix::unistd::geteuid()))
}
