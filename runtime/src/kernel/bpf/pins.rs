//! Pins: names on a bpffs that keep bpf objects alive without a process.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::probe::on_bpffs;
use crate::{Error, Result};

/// Where every tool expects the bpffs.
const BPFFS: &str = "/sys/fs/bpf";

/// Makes a directory for pins. A bpffs that is not mounted yet is mounted first, as `bpftool` and `tc` do; it stays.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; ENOENT on a kernel without bpffs.
pub fn make_directory(path: &Path) -> Result<()> {
    let about = |e: Error| e.operation("pin").about(path.display().to_string());
    if path.starts_with(BPFFS) && !on_bpffs(&Path::new(BPFFS).join("x")) {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|e| about(Error::errno("pin", e)).hint("mount -t bpf bpf /sys/fs/bpf"))?;
        tracing::info!("mounted a bpffs at {BPFFS}, for what is to outlive its process");
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| about(Error::io("pin", &e)))
}

/// Removes a pin, and the directories of [`make_directory`] that are empty then.
pub fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
    for directory in path.ancestors().skip(1).take_while(|above| *above != Path::new(BPFFS)).take(2)
    {
        let _ = std::fs::remove_dir(directory);
    }
}
