//! `cnfscript down NAME`: asks the instance to tear down, waits until its process has ended, and shows what it said.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{next, reach, status};
use crate::life::socket::wire::Command;
use crate::own::instance::{Found, Instances};
use crate::{Error, Result};

const OP: &str = "down";
/// How long a process may take to answer before it is sent SIGTERM.
const ANSWERS: Duration = Duration::from_secs(3);

#[derive(Args, Debug)]
pub struct DownArgs {
    /// The instance, or its script
    #[arg(value_name = "NAME")]
    name: String,
    /// How many seconds to wait for its end
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

pub fn down(args: &DownArgs) -> Result<u8> {
    let found = reach::find(OP, &args.name)?;
    if !found.alive {
        return forget(&found);
    }
    let limit = Instant::now() + Duration::from_secs(args.timeout);
    let log = File::open(found.paths.log()).ok().map(|mut log| {
        let _ = log.seek(SeekFrom::End(0));
        log
    });
    let left = |limit: Instant| limit.saturating_duration_since(Instant::now());
    match reach::Connection::open(OP, &found, Some(ANSWERS)).and_then(|mut connection| {
        connection.ask(&Command::Down)?;
        Ok(connection)
    }) {
        Ok(connection) => drop(connection.wait_for_end(left(limit))),
        Err(error) => {
            tracing::debug!("{error}; sending SIGTERM");
            terminate(&found)?;
        }
    }
    let ended = wait_for_lock(&found, limit);
    if let Some(mut log) = log {
        let mut said = Vec::new();
        let _ = log.read_to_end(&mut said);
        let _ = io::stderr().write_all(&said);
    }
    ended?;
    // Its log is not needed any more. One that could not clean up keeps its journal.
    if let Some(now) = Instances::here().get(&found.name)?.filter(|now| !now.alive) {
        if now.paths.left_something() {
            return Err(Error::new(OP, "ENOTEMPTY", "it ended and left things behind")
                .subject(&found.name)
                .hint(format!("{} removes them", next::clean(&found.name))));
        }
        now.remove()?;
    }
    let _ = writeln!(io::stdout(), "{} is down", found.name);
    Ok(status::DONE)
}

/// One that has ended already: its log goes.
fn forget(found: &Found) -> Result<u8> {
    if found.paths.left_something() {
        return reach::alive(OP, found).map(|()| status::DONE);
    }
    found.remove()?;
    let how = match found.record.as_ref().and_then(|record| record.ended) {
        Some(end) => format!("had ended with status {}", end.status),
        None => "had died".to_owned(),
    };
    let _ = writeln!(io::stdout(), "{} {how}", found.name);
    Ok(status::DONE)
}

/// The lock is held, so the process that the record names is the one.
fn terminate(found: &Found) -> Result<()> {
    let unknown = || {
        Error::new(OP, "EPROTO", "it does not answer, and which process it is cannot be read")
            .subject(&found.name)
            .hint(format!("fuser {}", found.paths.directory().join("lock").display()))
    };
    let record = found.record.as_ref().ok_or_else(unknown)?;
    let pid = i32::try_from(record.pid).ok().filter(|pid| *pid > 1).ok_or_else(unknown)?;
    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|e| Error::errno(OP, e).subject(&found.name))
}

/// The kernel frees the lock when the process is gone for good.
fn wait_for_lock(found: &Found, limit: Instant) -> Result<()> {
    while matches!(Instances::here().get(&found.name)?, Some(now) if now.alive) {
        if Instant::now() > limit {
            let error = Error::new(OP, "ETIMEDOUT", "it does not end").subject(&found.name);
            return Err(match &found.record {
                Some(record) => {
                    error.hint(format!("kill -9 {}, then {}", record.pid, next::clean(&found.name)))
                }
                None => error,
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
