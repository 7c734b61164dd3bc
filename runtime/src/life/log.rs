//! The log of a background instance: its standard output and error, in a file that never grows long.
//!
//! The process and its children write to the file itself, so that nothing is lost when it is killed. A thread is told of
//! each write by inotify, and notes when that was ([`times`]); when the file is longer than [`LONGEST`] its content becomes
//! `log.1`, in the place of what was there, and it begins anew. Whoever writes appends (O_APPEND), so it goes on at the start.

pub mod times;

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::own::instance::Paths;
use crate::{Error, Result};

/// Bytes in the log, and as many in the one before. It is memory: /run is a tmpfs.
pub const LONGEST: u64 = 1 << 20;

/// How exact the times of lines are: what is written within it has one.
const EXACT: Duration = Duration::from_millis(1);

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
    let (times, old_times) = (paths.log_times(), paths.old_log_times());
    let before = log.metadata().map_err(|e| Error::io("log", &e))?;
    let changed = before.modified().map_err(|e| Error::io("log", &e))?;
    let mut writer = times::Writer::open(&times, before.len(), changed)
        .map_err(|e| Error::io("log", &e).subject(times.display().to_string()))?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).map_err(|e| Error::errno("log", e))?;
    inotify.add_watch(&log, AddWatchFlags::IN_MODIFY).map_err(|e| Error::errno("log", e))?;
    let keep = move || {
        // Events of the same kind are one until they are read: a flood of lines is a few turns.
        while inotify.read_events().is_ok() {
            let Ok(length) = log.metadata().map(|found| found.len()) else { continue };
            // A full /run: lines without a time, and a log that is shorter next time.
            let _ = writer.mark(length);
            if length > LONGEST
                && let Ok(cut) = turn(&log, &old)
            {
                let _ = writer.turn(&times, &old_times, cut);
            }
            std::thread::sleep(EXACT);
        }
    };
    let thread = std::thread::Builder::new().name("log".into()).spawn(keep);
    thread.map(drop).map_err(|e| Error::io("thread", &e))
}

/// Moves the content, but for the bytes at its beginning whose number it returns. What is written between the last read and the cut is lost: nothing, or a line.
fn turn(log: &Path, old: &Path) -> io::Result<u64> {
    let mut from = File::options().read(true).write(true).open(log)?;
    let new = old.with_extension("new");
    let mut to = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    // A writer that is faster than this thread does not make the old log longer than the bound either.
    let length = from.metadata()?.len();
    let cut = from.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
    let copied = io::copy(&mut io::Read::take(&mut from, 2 * LONGEST), &mut to);
    from.set_len(0)?;
    copied?;
    fs::rename(new, old)?;
    Ok(cut)
}
