//! Programs inside a namespace: `ns:exec`, `ns:spawn` and the handle of what was spawned.

mod command;
mod output;
mod run;

use std::cell::Cell;
use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, Value};
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::Mutex;

use command::{command_line, environment, prepare, start};
use output::{Output, collect};

use super::error::{from_lua, site};
use super::handle::{Class, Handle, Returned};
use super::host::Host;
use super::module::Args;
use super::netns::Net;
use super::option::expected;
use super::value::Data;
use crate::kernel::process;
use crate::own::stage::Staged;
use crate::own::{Ledger, MARK, Owned};
use crate::record;
use crate::{Error, Result, fault};

/// What `Netns` handles get from here.
pub fn methods(class: &mut Class<'_, Net>) {
    class.async_method("exec", run::exec).method("spawn", spawn);
}

/// A program that runs beside the script.
#[derive(Clone)]
pub struct Process(Rc<Inner>);

struct Inner {
    pid: u32,
    shown: String,
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    output: Rc<Output>,
    status: Cell<Option<ExitStatus>>,
    number: u64,
    ledger: Arc<Ledger>,
    /// Under which the next load finds it.
    shelf: String,
}

/// Starts a program, or goes on with the one that the load before started with the same words and environment.
fn spawn(_: &Lua, host: &Rc<Host>, this: &Net, mut args: Args) -> Result<Returned<Process>> {
    let op = args.op().to_owned();
    let line = command_line(&mut args)?;
    let mut options = args.options()?;
    options.set_subject(line.shown.clone());
    let environment = environment(&mut options)?;
    options.finish()?;
    host.stage.check()?;
    let shelf = format!("process/{}/{:?}/{environment:?}", this.cookie(), line.argv);
    let shelf = format!("{shelf}#{}", host.stage.ordinal(&shelf));
    if let Some(process) = Process::adopt(host, &shelf) {
        return Ok(Returned(process));
    }
    let mut command = prepare(this, &line, &environment)?;
    let number = host.ledger.reserve();
    let mark = format!("{}.{number}", std::process::id());
    command.env(MARK, &mark);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let netns = this.netns()?;
    let owned = |pid, started| Owned::Process {
        netns: netns.clone(),
        pid,
        started,
        mark: mark.clone(),
        text: line.shown.clone(),
    };
    // What it starts does not die with us: it has to be found even if nobody has written down its number.
    host.ledger.foresee(number, &owned(0, 0))?;
    let started = start(&op, &mut command, &line);
    fault::point();
    let mut child = started.inspect_err(|_| drop(host.ledger.forget(number)))?;
    let pid = child.id().unwrap_or_default();
    let output = Rc::new(Output::default());
    if let Some(stdout) = child.stdout.take() {
        tokio::task::spawn_local(collect(stdout, Rc::clone(&output), line.shown.clone()));
    }
    let inner = Rc::new(Inner {
        pid,
        shown: line.shown.clone(),
        stdin: Mutex::new(child.stdin.take()),
        output,
        child: Mutex::new(child),
        status: Cell::new(None),
        number,
        ledger: Arc::clone(&host.ledger),
        shelf,
    });
    // The pid is ours until the child is reaped, and then the entry is gone.
    host.ledger.settle(number, owned(pid, process::started(pid).unwrap_or_default()));
    host.stage.shelve(&inner.shelf, Rc::clone(&inner) as _);
    Ok(Returned(Process(inner)))
}

impl Process {
    /// The one that the load before started under this key, if it still runs.
    fn adopt(host: &Host, shelf: &str) -> Option<Process> {
        if !host.stage.is_loading() {
            return None;
        }
        let inner = host.stage.take::<Inner>(shelf)?;
        let reaped = inner.child.try_lock().is_ok_and(|mut child| {
            let status = child.try_wait().ok().flatten();
            inner.status.set(status.or(inner.status.get()));
            inner.status.get().is_some()
        });
        if reaped {
            host.ledger.forget(inner.number);
            return None;
        }
        let key = host.ledger.get(inner.number)?.key();
        host.stage.adopt(&key)?;
        host.stage.shelve(shelf, Rc::clone(&inner) as _);
        Some(Process(inner))
    }

    async fn wait(&self) -> std::io::Result<ExitStatus> {
        if let Some(status) = self.0.status.get() {
            return Ok(status);
        }
        let status = self.0.child.lock().await.wait().await?;
        self.0.status.set(Some(status));
        self.0.ledger.forget(self.0.number);
        Ok(status)
    }
}

/// A signal that waits for the commit. It cannot be taken back, so a commit that fails later has sent it.
struct Signalled {
    process: Process,
    signal: Signal,
}

impl Staged for Signalled {
    fn key(&self) -> String {
        format!("signal/{}/{}", self.process.0.pid, self.signal)
    }
    fn text(&self) -> String {
        format!("process {} ({}): {}", self.process.0.pid, self.process.0.shown, self.signal)
    }
    fn apply(&mut self) -> Result<()> {
        match self.process.0.status.get() {
            Some(_) => Ok(()),
            None => process::kill_group(self.process.0.pid, self.signal),
        }
    }
    fn revert(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Handle for Process {
    const TYPE: &'static str = "Process";
    const WORD: &'static str = "process";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("pid", |_, this| Ok(this.0.pid))
            .async_method("wait", wait)
            .method("kill", kill)
            .method("lines", lines)
            .async_method("write", write);
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!("Process({}, {})", self.0.pid, self.0.shown)
    }
}

fn wait(
    _: &Lua,
    _: &Rc<Host>,
    this: &Process,
    mut args: Args,
) -> Result<impl Future<Output = Result<Data>> + use<>> {
    let limit: Option<Duration> = args.optional("timeout")?;
    let this = this.clone();
    let op = args.op().to_owned();
    Ok(async move {
        let waited = match limit {
            None => this.wait().await,
            Some(limit) => tokio::time::timeout(limit, this.wait()).await.map_err(|_| {
                Error::new(op.clone(), "ETIMEDOUT", format!("still running after {limit:?}"))
                    .subject(this.0.shown.clone())
            })?,
        };
        let status = waited.map_err(|e| Error::io(op, &e))?;
        Ok(record! { code: code(status) })
    })
}

/// As a shell counts: 128 and the signal for one that was killed.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn kill(lua: &Lua, host: &Rc<Host>, this: &Process, mut args: Args) -> Result<()> {
    let signal = match args.any() {
        Value::Nil => Ok(Signal::SIGTERM),
        Value::Integer(number) => i32::try_from(number)
            .ok()
            .and_then(|n| Signal::try_from(n).ok())
            .ok_or(number.to_string()),
        Value::String(name) => {
            let name = name.to_string_lossy().to_uppercase();
            let full = if name.starts_with("SIG") { name.clone() } else { format!("SIG{name}") };
            full.parse().map_err(|_| name)
        }
        other => Err(expected::describe(&other)),
    };
    let signal = signal.map_err(|got| {
        Error::invalid(args.op().to_owned(), format!("there is no signal {got}"))
            .hint("\"TERM\", \"KILL\", \"STOP\" or a number")
    })?;
    let older = host.stage.is_older(this.0.number);
    let signalled = Signalled { process: this.clone(), signal };
    host.stage.change(older, Box::new(signalled), site(lua, 1))
}

/// `for line in p:lines() do`: what the program prints, as it comes.
fn lines(lua: &Lua, _: &Rc<Host>, this: &Process, _: Args) -> Result<mlua::Function> {
    let output = Rc::clone(&this.0.output);
    lua.create_async_function(move |_, _: Value| {
        let output = Rc::clone(&output);
        async move { Ok(output.next().await.map(Data::Str)) }
    })
    .map_err(from_lua)
}

/// Writes to the program's standard input; nil ends it.
fn write(
    _: &Lua,
    host: &Rc<Host>,
    this: &Process,
    mut args: Args,
) -> Result<impl Future<Output = Result<()>> + use<>> {
    let bytes: Option<Vec<u8>> = args.optional("text")?;
    host.stage.check()?;
    if host.stage.is_older(this.0.number) {
        return Err(Error::new(
            args.op().to_owned(),
            "EAGAIN",
            "a program that runs already is not written to while the script loads",
        )
        .subject(this.0.shown.clone())
        .hint("write after cnf.wait(), or in a task"));
    }
    let this = this.clone();
    let op = args.op().to_owned();
    Ok(async move {
        let mut stdin = this.0.stdin.lock().await;
        let Some(bytes) = bytes else {
            stdin.take();
            return Ok(());
        };
        let closed = || {
            Error::new(op.clone(), "EPIPE", "its standard input is closed")
                .subject(this.0.shown.clone())
        };
        let pipe = stdin.as_mut().ok_or_else(closed)?;
        pipe.write_all(&bytes).await.map_err(|_| closed())
    })
}
