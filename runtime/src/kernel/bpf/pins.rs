//! Pins: names on a bpffs that keep bpf objects alive without a process.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::probe::on_bpffs;
use super::sys;
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

/// A path as bpf(2) takes it.
pub(super) fn path_string(op: &'static str, path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        Error::invalid(op, "a path cannot hold a NUL").subject(path.display().to_string())
    })
}

/// Pins any object; says what a bpffs is when there is none.
pub(super) fn pin(fd: BorrowedFd<'_>, op: &'static str, path: &Path) -> Result<()> {
    sys::obj_pin(fd, &path_string(op, path)?).map_err(|errno| {
        let error = Error::errno(op, errno).subject(path.display().to_string());
        match on_bpffs(path) {
            true => error,
            false => error
                .because("the path is not on a bpf file system")
                .hint("mount one: mount -t bpf bpffs /sys/fs/bpf"),
        }
    })
}
