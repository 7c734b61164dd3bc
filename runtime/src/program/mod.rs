//! The host halves of the embedded eBPF programs: they turn what a script says into map contents.

use std::path::PathBuf;

use crate::Result;

/// The object of an embedded program.
pub fn embedded(_name: &str) -> Option<&'static [u8]> {
    None
}

/// The embedded programs.
pub fn names() -> Vec<&'static str> {
    Vec::new()
}

/// Where the library's headers lie, for programs that scripts compile.
pub fn headers() -> Result<Vec<PathBuf>> {
    Ok(Vec::new())
}
