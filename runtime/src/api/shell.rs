//! `_shell`: what Lua's own `os.execute`, `io.popen` and reads of standard input would do while every task stands still.
//!
//! The Lua half, `lua-stdlib/files.lua`, gives these the faces that Lua's manual describes.

use std::cell::RefCell;
use std::future::Future;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use mlua::{Lua, Table};
use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Interest,
    ReadBuf,
};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;

use super::handle::{Class, Handle, Returned};
use super::host::Host;
use super::module::{Args, Module};
use super::task::{EndsWithTask, end_with_task};
use super::value::Data;
use super::waited::Waited;
use crate::kernel::process::Reach;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "_shell")
        .async_function("execute", execute)
        .function("popen", popen)
        .function("stdin", |_, _, _| Ok(Returned(Stream::stdin())))
        .build()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]);
    shell
}

/// Starts a command, which ends with all it has started when nobody waits for it any more: its task was cancelled, or the
/// script ends. At a terminal it stays in the terminal's group, as an editor needs, and Ctrl-C reaches it there.
fn start(shell: &mut Command) -> std::io::Result<(Child, Waited)> {
    let reach = match std::io::stdin().is_terminal() {
        true => Reach::Tree,
        false => Reach::Group,
    };
    if reach == Reach::Group {
        shell.process_group(0);
    }
    let child = shell.spawn()?;
    let waited = Waited::new(child.id(), reach);
    Ok((child, waited))
}

/// "exit" or "signal", and its number, as Lua's manual has it.
fn ended(status: ExitStatus) -> (&'static str, i32) {
    match status.signal() {
        Some(signal) => ("signal", signal),
        None => ("exit", status.code().unwrap_or(0)),
    }
}

fn failed(op: &'static str, command: &str, error: &std::io::Error) -> Error {
    Error::io(op, error).subject(command.to_owned())
}

fn execute(
    _: &Lua,
    _: &Rc<Host>,
    mut args: Args,
) -> Result<impl Future<Output = Result<(&'static str, i32)>> + use<>> {
    let command: String = args.required("command")?;
    let failed = |e: std::io::Error| failed("os.execute", &command, &e);
    let (mut child, waited) = start(&mut shell(&command)).map_err(failed)?;
    let waited = Rc::new(waited);
    end_with_task(Rc::downgrade(&(Rc::clone(&waited) as Rc<dyn EndsWithTask>)));
    Ok(async move {
        let status = child.wait().await.map_err(|e| Error::io("os.execute", &e))?;
        waited.leave();
        Ok(ended(status))
    })
}

/// `popen(command, writes) -> Stream`
fn popen(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Returned<Stream>> {
    let command: String = args.required("command")?;
    let writes: bool = args.required("writes")?;
    let mut shell = shell(&command);
    match writes {
        true => shell.stdin(Stdio::piped()),
        false => shell.stdout(Stdio::piped()),
    };
    let (mut child, waited) = start(&mut shell).map_err(|e| failed("io.popen", &command, &e))?;
    let output = child.stdout.take();
    let stream = Stream(Rc::new(Inner {
        name: command,
        input: Mutex::new(child.stdin.take()),
        output: Mutex::new(output.map(|output| -> Reader { Box::new(BufReader::new(output)) })),
        child: RefCell::new(Some((child, waited))),
    }));
    Ok(Returned(stream))
}

type Reader = Box<dyn AsyncBufRead + Unpin>;

/// Standard input, waited for before each read: a blocking read on another thread could not be taken back, and would
/// swallow what the next reader, the prompt, should get.
#[derive(Default)]
struct Stdin {
    waiting: Option<AsyncFd<OwnedFd>>,
}

impl AsyncRead for Stdin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            let stdin = std::io::stdin();
            if self.waiting.is_none() {
                let copy = stdin.as_fd().try_clone_to_owned()?;
                // Registered anew for each read: readiness is told once, and a read may leave something. Files are always
                // ready, and epoll(7) refuses them.
                // SAFETY: the descriptor is the AsyncFd's own and is open until it is dropped.
                let registered =
                    unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) };
                self.waiting = registered.ok();
            }
            if let Some(waiting) = &self.waiting {
                ready!(waiting.poll_read_ready(context))?.retain_ready();
                self.waiting = None;
            }
            match nix::unistd::read(&stdin, buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

/// One end of a pipe to a command, or standard input.
#[derive(Clone)]
struct Stream(Rc<Inner>);

struct Inner {
    name: String,
    input: Mutex<Option<ChildStdin>>,
    output: Mutex<Option<Reader>>,
    child: RefCell<Option<(Child, Waited)>>,
}

impl Stream {
    /// The same one each time: what it has read ahead is kept.
    fn stdin() -> Stream {
        thread_local!(static STDIN: Stream = Stream(Rc::new(Inner {
            name: "stdin".into(),
            input: Mutex::new(None),
            output: Mutex::new(Some(Box::new(BufReader::new(Stdin::default())))),
            child: RefCell::new(None),
        })));
        STDIN.with(Clone::clone)
    }

    fn error(&self, op: &'static str, error: &std::io::Error) -> Error {
        failed(op, &self.0.name, error)
    }

    /// A line with its end, all that is left, or up to `count` bytes; nothing at the end.
    async fn read(&self, what: What) -> Result<Option<Vec<u8>>> {
        let mut output = self.0.output.lock().await;
        let Some(reader) = output.as_mut() else {
            return Err(
                Error::new("read", "EBADF", "not open for reading").subject(self.0.name.clone())
            );
        };
        let mut bytes = Vec::new();
        let read = match what {
            What::Line => reader.read_until(b'\n', &mut bytes).await,
            What::All => reader.read_to_end(&mut bytes).await,
            What::Count(count) => reader.take(count).read_to_end(&mut bytes).await,
        };
        read.map_err(|e| self.error("read", &e))?;
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    async fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut input = self.0.input.lock().await;
        let Some(pipe) = input.as_mut() else {
            return Err(
                Error::new("write", "EBADF", "not open for writing").subject(self.0.name.clone())
            );
        };
        pipe.write_all(bytes).await.map_err(|e| self.error("write", &e))
    }

    /// Ends both directions and waits for the command, if there is one.
    async fn close(&self) -> Result<Option<(&'static str, i32)>> {
        self.0.input.lock().await.take();
        self.0.output.lock().await.take();
        let child = self.0.child.borrow_mut().take();
        let Some((mut child, waited)) = child else { return Ok(None) };
        let status = child.wait().await.map_err(|e| self.error("close", &e))?;
        waited.leave();
        Ok(Some(ended(status)))
    }
}

enum What {
    Line,
    All,
    Count(u64),
}

impl Handle for Stream {
    const TYPE: &'static str = "Stream";
    const WORD: &'static str = "stream";

    fn class(class: &mut Class<'_, Self>) {
        class
            .async_method("line", |_, _, this, _| {
                let this = this.clone();
                Ok(async move { this.read(What::Line).await.map(data) })
            })
            .async_method("all", |_, _, this, _| {
                let this = this.clone();
                Ok(async move { this.read(What::All).await.map(data) })
            })
            .async_method("bytes", |_, _, this, mut args| {
                let (this, count) = (this.clone(), args.required("count")?);
                Ok(async move { this.read(What::Count(count)).await.map(data) })
            })
            .async_method("put", |_, _, this, mut args| {
                let (this, bytes) = (this.clone(), args.required::<Vec<u8>>("bytes")?);
                Ok(async move { this.write(&bytes).await })
            })
            .async_method("finish", |_, _, this, _| {
                let this = this.clone();
                Ok(async move {
                    let ended = this.close().await?;
                    Ok((ended.map(|(how, _)| how), ended.map(|(_, code)| code)))
                })
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!("Stream({})", self.0.name)
    }
}

fn data(bytes: Option<Vec<u8>>) -> Data {
    bytes.map_or(Data::Nil, Data::Str)
}
