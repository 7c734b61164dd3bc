//! The log of a background instance: its standard output and error, in a file that never grows long.
//!
//! The process and its children write to the file itself, so that nothing is lost when it is killed. A thread is told of
//! each write by inotify; when the file is longer than [`LONGEST`] its content becomes `log.1`, in the place of what was
//! there, and it begins anew. Whoever writes appends (O_APPEND), so it goes on at the start.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::own::instance::Paths;
use crate::{Error, Result};

/// Bytes in the log, and as many in the one before. It is memory: /run is a tmpfs.
pub const LONGEST: u64 = 1 << 20;

/// From now on what this process says goes to the instance's log. Returns what its standard output was.
pub fn take_over(paths: &Paths) -> Result<File> {
    let path = paths.log();
    let about = |e: io::Error| Error::io("log", &e).subject(path.display().to_string());
    let log = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(about)?;
    keep_short(paths)?;
    let before = nix::unistd::dup(io::stdout()).map_err(|e| about(e.into()))?;
    // The script's children must not hold the pipe open.
    let close = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&before, close).map_err(|e| about(e.into()))?;
    nix::unistd::dup2_stdout(&log).map_err(|e| about(e.into()))?;
    nix::unistd::dup2_stderr(&log).map_err(|e| about(e.into()))?;
    // C's stdout, in which Lua writes, would keep what goes to a file for itself until it has 4 KiB. It is one for all
    // VMs of the process.
    let _ = mlua::Lua::new().load("io.stdout:setvbuf('line')").exec();
    Ok(before.into())
}

/// Starts the thread. It ends with the process.
fn keep_short(paths: &Paths) -> Result<()> {
    let (log, old) = (paths.log(), paths.old_log());
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).map_err(|e| Error::errno("log", e))?;
    inotify.add_watch(&log, AddWatchFlags::IN_MODIFY).map_err(|e| Error::errno("log", e))?;
    let keep = move || {
        // Events of the same kind are one until they are read: a flood of lines is a few turns.
        while inotify.read_events().is_ok() {
            if log.metadata().is_ok_and(|found| found.len() > LONGEST) {
                // A full /run: it is shorter next time.
                let _ = turn(&log, &old);
            }
        }
    };
    let thread = std::thread::Builder::new().name("log".into()).spawn(keep);
    thread.map(drop).map_err(|e| Error::io("thread", &e))
}

/// Moves the content. What is written between the last read and the cut is lost: nothing, or a line.
fn turn(log: &Path, old: &Path) -> io::Result<()> {
    let mut from = File::options().read(true).write(true).open(log)?;
    let new = old.with_extension("new");
    let mut to = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    // A writer that is faster than this thread does not make the old log longer than the bound either.
    let length = from.metadata()?.len();
    from.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
    let copied = io::copy(&mut io::Read::take(&mut from, 2 * LONGEST), &mut to);
    from.set_len(0)?;
    copied?;
    fs::rename(new, old)
}
