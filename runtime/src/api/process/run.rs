//! `ns:exec`: a program from its start to its end, with all that it prints.

use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use mlua::Lua;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::code;
use super::command::{command_line, environment, prepare, start};
use crate::api::host::Host;
use crate::api::module::Args;
use crate::api::netns::Net;
use crate::api::task::{EndsWithTask, end_with_task};
use crate::api::value::Data;
use crate::api::waited::Waited;
use crate::kernel::process::Reach;
use crate::record;
use crate::{Error, Result};

/// Runs a program to its end. With `check` (the default) a failing one raises.
pub fn exec(
    _: &Lua,
    _: &Rc<Host>,
    this: &Net,
    mut args: Args,
) -> Result<impl Future<Output = Result<Data>> + use<>> {
    let op = args.op().to_owned();
    let line = command_line(&mut args)?;
    let mut options = args.options()?;
    options.set_subject(line.shown.clone());
    let timeout: Option<Duration> = options.get("timeout")?;
    let stdin: Option<Vec<u8>> = options.get("stdin")?;
    let check = options.get("check")?.unwrap_or(true);
    let environment = environment(&mut options)?;
    options.finish()?;
    let mut command = prepare(this, &line, &environment)?;
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(&op, &mut command, &line)?;
    let group = Rc::new(Waited::new(child.id(), Reach::Group));
    end_with_task(Rc::downgrade(&(Rc::clone(&group) as Rc<dyn EndsWithTask>)));
    Ok(async move {
        let failed = |e: std::io::Error| Error::io(op.clone(), &e).subject(line.shown.clone());
        let mut pipe = child.stdin.take();
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let work = async {
            let feed = async {
                if let (Some(mut pipe), Some(bytes)) = (pipe.take(), stdin) {
                    // A program that does not read all of it is its own business.
                    let _ = pipe.write_all(&bytes).await;
                }
                Ok(0)
            };
            let read_out = async {
                match &mut out {
                    Some(p) => p.read_to_end(&mut stdout).await,
                    None => Ok(0),
                }
            };
            let read_err = async {
                match &mut err {
                    Some(p) => p.read_to_end(&mut stderr).await,
                    None => Ok(0),
                }
            };
            tokio::try_join!(feed, read_out, read_err)?;
            child.wait().await
        };
        let status = match timeout {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| {
                Error::new(op.clone(), "ETIMEDOUT", format!("not done within {limit:?}"))
                    .subject(line.shown.clone())
            })?,
        }
        .map_err(failed)?;
        group.leave();
        if check && !status.success() {
            let error = Error::new(op, "EXIT", ended(status)).subject(line.shown);
            let said = if stderr.is_empty() { &stdout } else { &stderr };
            return Err(error.detail(tail(&String::from_utf8_lossy(said))));
        }
        Ok(record! { code: code(status), stdout: Data::Str(stdout), stderr: Data::Str(stderr) })
    })
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => format!("ended by {signal}"),
        _ => format!("exited with status {}", code(status)),
    }
}

/// The last lines of what a program said: enough to see why.
fn tail(text: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
