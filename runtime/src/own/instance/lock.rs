//! The lock of an instance: an open file description lock, which the kernel drops with the process and which can be
//! asked about without being taken (F_OFD_GETLK, `fcntl_locking(2)`): a `status` never stands in the way of an `up`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

pub enum Taken {
    /// Held while the descriptor lives.
    Ours(OwnedFd),
    /// Another process has it.
    Theirs,
    /// The file was removed meanwhile: whoever had it is gone.
    Gone,
}

/// Takes the lock at `path`, making the file.
pub fn take(path: &Path) -> io::Result<Taken> {
    let open = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    let file = match open {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Taken::Gone),
        file => file?,
    };
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => return Ok(Taken::Theirs),
        Err(e) => return Err(e.into()),
    }
    // The file that is locked must be the one that others will find.
    match path.metadata() {
        Ok(found) if found.ino() == file.metadata()?.ino() => Ok(Taken::Ours(file.into())),
        Ok(_) => Ok(Taken::Gone),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Taken::Gone),
        Err(e) => Err(e),
    }
}

/// Whether a process holds it. No file: nobody.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::options().read(true).write(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let mut lock = whole_file();
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
