//! Programs inside a namespace: `ns:exec`, `ns:spawn` and the handle of what was spawned.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, Table, Value};
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, Notify};

use super::error::{from_lua, site};
use super::handle::{Class, Handle, Returned};
use super::host::Host;
use super::module::Args;
use super::netns::Net;
use super::option::{Options, expected};
use super::task::{EndsWithTask, end_with_task};
use super::value::Data;
use super::waited::Waited;
use crate::kernel::process::{self, Reach};
use crate::own::stage::Staged;
use crate::own::{Ledger, MARK, Owned};
use crate::record;
use crate::{Error, Result, fault};

/// What `Netns` handles get from here.
pub fn methods(class: &mut Class<'_, Net>) {
    class.async_method("exec", exec).method("spawn", spawn);
}

/// A program with its arguments, or a line for the shell.
struct CommandLine {
    argv: Vec<String>,
    /// As a person would have typed it, shortened for errors.
    shown: String,
}

fn command_line(args: &mut Args) -> Result<CommandLine> {
    let op = args.op().to_owned();
    let bad = |got: String| {
        Error::invalid(op.clone(), format!("takes an array of words or a shell line, got {got}"))
    };
    let (argv, text) = match args.any() {
        Value::String(line) => {
            let line = line.to_string_lossy();
            (vec!["/bin/sh".into(), "-c".into(), line.clone()], line)
        }
        Value::Table(words) => {
            let words: Vec<String> = words
                .sequence_values::<Value>()
                .map(|word| match word.map_err(from_lua)? {
                    Value::String(s) => Ok(s.to_string_lossy()),
                    Value::Integer(i) => Ok(i.to_string()),
                    Value::Number(n) => Ok(n.to_string()),
                    other => Err(bad(format!("{} among the words", expected::describe(&other)))),
                })
                .collect::<Result<_>>()?;
            let text = words.join(" ");
            (words, text)
        }
        other => return Err(bad(expected::describe(&other))),
    };
    if argv.is_empty() {
        return Err(bad("an empty array".into()));
    }
    let shown = text.chars().take(60).collect::<String>();
    let shown = if shown.len() < text.len() { format!("{shown}...") } else { shown };
    Ok(CommandLine { argv, shown })
}

fn environment(options: &mut Options) -> Result<BTreeMap<String, String>> {
    let Some(table) = options.get::<Table>("env")? else { return Ok(BTreeMap::new()) };
    table
        .pairs::<String, Value>()
        .map(|pair| {
            let (key, value) = pair.map_err(from_lua)?;
            Ok((key, value.to_string().map_err(from_lua)?))
        })
        .collect()
}

fn prepare(
    net: &Net,
    line: &CommandLine,
    environment: &BTreeMap<String, String>,
) -> Result<Command> {
    let open = net.open()?;
    let name = (!net.name().is_empty()).then(|| net.name());
    let mut command = process::command(&open.netns.fd, name, &line.argv[0])?;
    command.args(&line.argv[1..]).envs(environment);
    Ok(Command::from(command))
}

fn start(op: &str, command: &mut Command, line: &CommandLine) -> Result<Child> {
    command.spawn().map_err(|e| {
        let error = Error::io(op.to_owned(), &e).subject(line.shown.clone());
        match e.kind() {
            std::io::ErrorKind::NotFound => {
                let program = &line.argv[0];
                let error = error.because(format!("there is no program \"{program}\""));
                match program.contains(char::is_whitespace) {
                    true => {
                        error.hint(format!("a shell line is a string, not a table: {program:?}"))
                    }
                    false => error,
                }
            }
            _ if e.raw_os_error() == Some(libc::EINVAL) => error
                .because(
                    "it cannot have mounts of its own: the root directory is not a mount point",
                )
                .hint("in a chroot: mount --bind DIRECTORY DIRECTORY, then chroot"),
            _ => error,
        }
    })
}

/// Runs a program to its end. With `check` (the default) a failing one raises.
fn exec(
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

/// As a shell counts: 128 and the signal for one that was killed.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
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

/// What a program has printed and nobody has read yet. Read all the time: a full pipe would stop the program.
#[derive(Default)]
struct Output {
    lines: RefCell<VecDeque<Vec<u8>>>,
    bytes: Cell<usize>,
    ended: Cell<bool>,
    more: Notify,
}

/// Bytes that are kept of what nobody reads; the oldest lines go first.
const KEPT: usize = 1 << 20;

async fn collect(stdout: ChildStdout, output: Rc<Output>, shown: String) {
    let mut reader = BufReader::new(stdout);
    let mut lost = false;
    loop {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        output.bytes.set(output.bytes.get() + line.len());
        output.lines.borrow_mut().push_back(line);
        while output.bytes.get() > KEPT {
            let Some(oldest) = output.lines.borrow_mut().pop_front() else { break };
            output.bytes.set(output.bytes.get() - oldest.len());
            if !std::mem::replace(&mut lost, true) {
                tracing::warn!(
                    "{shown}: nobody reads its output; only the last {KEPT} bytes are kept"
                );
            }
        }
        output.more.notify_one();
    }
    output.ended.set(true);
    output.more.notify_waiters();
    output.more.notify_one();
}

impl Output {
    async fn next(&self) -> Option<Vec<u8>> {
        loop {
            let line = self.lines.borrow_mut().pop_front();
            if let Some(line) = line {
                self.bytes.set(self.bytes.get() - line.len());
                return Some(line);
            }
            if self.ended.get() {
                // Another reader may wait too.
                self.more.notify_one();
                return None;
            }
            self.more.notified().await;
        }
    }
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
