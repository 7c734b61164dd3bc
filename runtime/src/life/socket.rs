//! The control socket: how `status`, `reload`, `down` and attached prompts reach a running instance.
//!
//! A unix stream at [`Paths::socket`](crate::own::instance::Paths::socket), for root and the instance's own user: the
//! directory has mode 0700, the socket 0600, and each peer's credentials are looked at (SO_PEERCRED, `unix(7)`). One
//! request a line, one answer a line ([`wire`]). It has a thread of its own, which answers without Lua what it can: a
//! script that hangs still has a status and still goes down. What needs Lua goes to the event loop as a [`Request`].

mod attend;
pub mod session;
#[cfg(test)]
mod tests;
pub mod wire;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::{Error, Result};
use session::Session;
use wire::Command;

/// The longest request, in bytes.
pub const LONGEST: usize = 64 << 10;
/// How long a client may take for a request, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long Lua may take for its part of a status. A script that computes for longer is told as busy.
const LUA_STATUS: Duration = Duration::from_millis(250);
/// How long Lua may take to answer at all before a request that needs it is refused.
const LUA_ANSWERS: Duration = Duration::from_secs(5);
/// So many clients at once; a further one is told to come again.
const CLIENTS: usize = 32;
/// So many attached prompts beside them, which stay for as long as they like.
const SESSIONS: usize = 16;

/// Something that only the thread of Lua can do.
pub struct Request {
    pub what: What,
    pub reply: oneshot::Sender<Result<Map<String, Value>>>,
}

pub enum What {
    /// What only Lua knows: `generation`, `tasks`. To be answered at once, also while a script loads.
    Status,
    /// Load the script again. The answer's `text` is what a person reads, the rest is data.
    Reload,
    /// What a reload would do, `script` in the place of the own one if given; nothing is applied.
    Actions { script: Option<PathBuf> },
    /// A prompt is there. The answer is what it begins with: `generation`, none while nothing is loaded.
    Attach(Arc<Session>),
    /// It has gone.
    Detach(Arc<Session>),
    /// A line of one: it is told what comes of it, and not by the answer.
    Typed { session: Arc<Session>, line: u64, typed: Typed },
    /// As [`What::Typed`]; nobody waits for it for long.
    Complete { session: Arc<Session>, text: String },
}

/// What was typed at an attached prompt.
pub enum Typed {
    /// For a terminal of so many columns.
    Chunk {
        text: String,
        width: i64,
    },
    Reload,
}

impl Request {
    /// The answer. A client that has gone meanwhile does not get it.
    pub fn answer(self, answer: Result<Map<String, Value>>) {
        let _ = self.reply.send(answer);
    }
}

/// What the socket's own thread can answer.
pub struct Local {
    /// What is known without Lua.
    pub status: Box<dyn Fn() -> Map<String, Value> + Send + Sync>,
    /// Begins the end.
    pub down: Box<dyn Fn() + Send + Sync>,
    /// A line that runs is to be ended: looks at limits.
    pub hasten: Box<dyn Fn() + Send + Sync>,
}

/// Listens until it is dropped; then its clients are at the end of their streams.
pub struct Socket {
    path: PathBuf,
    service: Arc<Mutex<Service>>,
}

/// Its thread begins with the first client: most scripts never have one.
enum Service {
    Bound(StdListener, Arc<Server>),
    Serving { stop: oneshot::Sender<()>, thread: JoinHandle<()> },
    Over,
}

impl Socket {
    /// Listens at `path`, whose directory the caller has to itself: what an earlier process left there is replaced.
    /// `attend` is given a descriptor that becomes readable with the first client, and what is to be called then.
    pub fn start(
        path: &Path,
        local: Local,
        lua: mpsc::Sender<Request>,
        attend: impl FnOnce(OwnedFd, Box<dyn FnOnce() + Send>),
    ) -> Result<Socket> {
        let about = |e: &std::io::Error| Error::io("socket", e).subject(path.display().to_string());
        let listener = bind(path).map_err(|e| about(&e))?;
        let copy = listener.try_clone().map_err(|e| about(&e))?;
        let (clients, sessions) = (Semaphore::new(CLIENTS), Semaphore::new(SESSIONS));
        let ending = watch::Sender::new(false);
        let server = Arc::new(Server { local, lua, clients, sessions, ending });
        let service = Arc::new(Mutex::new(Service::Bound(listener, server)));
        let begins = Arc::clone(&service);
        attend(copy.into(), Box::new(move || Service::begin(&begins)));
        Ok(Socket { path: path.to_owned(), service })
    }
}

impl Service {
    fn begin(service: &Mutex<Service>) {
        let mut service = service.lock().expect("no panic while held");
        if !matches!(*service, Service::Bound(..)) {
            return;
        }
        if let Service::Bound(listener, server) = std::mem::replace(&mut *service, Service::Over) {
            match Service::serve(listener, server) {
                Ok(serving) => *service = serving,
                Err(error) => tracing::warn!("no control socket: {error}"),
            }
        }
    }

    fn serve(listener: StdListener, server: Arc<Server>) -> Result<Service> {
        let (stop, stopped) = oneshot::channel();
        let runtime = super::generation::runtime()?;
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => farewell().await,
                        _ = Arc::clone(&server).listen(listener) => {}
                    }
                    server.take_leave().await;
                });
                runtime.shutdown_background();
            })
            .map_err(|e| Error::io("thread", &e))?;
        Ok(Service::Serving { stop, thread })
    }
}

/// What clients have been sent is on its way to tasks that are woken already: lets those have their turns.
async fn farewell() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let mut service = self.service.lock().expect("no panic while held");
        match std::mem::replace(&mut *service, Service::Over) {
            // Whoever attends to it has a copy: this ends them all.
            Service::Bound(listener, _) => {
                let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
            }
            Service::Serving { stop, thread } => {
                // The sender goes first, or the thread would never end.
                drop(stop);
                let _ = thread.join();
            }
            Service::Over => {}
        }
    }
}

fn bind(path: &Path) -> std::io::Result<StdListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (_held, short) = address(path)?;
    let listener = StdListener::bind(short)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A path to the socket that fits the 108 bytes of `sun_path` however deep its directory is, while the descriptor lives.
pub fn address(path: &Path) -> std::io::Result<(OwnedFd, PathBuf)> {
    let (directory, name) = path.parent().zip(path.file_name()).expect("a file in a directory");
    let directory = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(directory)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((directory.into(), short))
}

/// The thread's own.
struct Server {
    local: Local,
    lua: mpsc::Sender<Request>,
    clients: Semaphore,
    sessions: Semaphore,
    /// Attached prompts are told what is left to tell, and no more.
    ending: watch::Sender<bool>,
}

impl Server {
    async fn listen(self: Arc<Server>, listener: StdListener) {
        let listener = match UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!("no control socket: {error}"),
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        // A client that is gone or too slow is nobody to tell.
                        let _ = server.serve(stream).await;
                    });
                }
                // No descriptor is left: some client will go.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn serve(self: Arc<Server>, stream: UnixStream) -> std::io::Result<()> {
        let peer = stream.peer_cred()?.uid();
        let (reader, mut writer) = stream.into_split();
        let us = nix::unistd::geteuid().as_raw();
        if peer != 0 && peer != us {
            let refused =
                Error::new("socket", "EPERM", "only root and the instance's user may ask");
            return send(&mut writer, &wire::answer(Err(refused))).await;
        }
        let Ok(place) = self.clients.try_acquire() else {
            let full =
                Error::new("socket", "EAGAIN", format!("{CLIENTS} clients are being served"));
            return send(&mut writer, &wire::answer(Err(full))).await;
        };
        let mut reader = BufReader::new(reader);
        while let Some(line) = timeout(PATIENCE, request_line(&mut reader)).await?? {
            let command = line.and_then(|line| wire::command(&line));
            // What comes after a line that is too long is not the start of another.
            let in_step = !matches!(&command, Err(e) if e.is("EMSGSIZE"));
            if matches!(command, Ok(Command::Attach)) {
                drop(place);
                return self.attend(reader, writer).await;
            }
            let down = matches!(command, Ok(Command::Down));
            let answer = match command {
                Ok(command) => self.answer(command).await,
                Err(error) => Err(error),
            };
            send(&mut writer, &wire::answer(answer)).await?;
            if down {
                (self.local.down)();
                // Held open: the client sees the process end by the end of this stream.
                return std::future::pending().await;
            }
            if !in_step {
                break;
            }
        }
        Ok(())
    }

    async fn answer(&self, command: Command) -> Result<Map<String, Value>> {
        match command {
            Command::Status => {
                let mut status = (self.local.status)();
                let lua = timeout(LUA_STATUS, self.ask(What::Status)).await;
                status.insert("busy".into(), json!(lua.is_err()));
                if let Ok(Ok(known)) = lua {
                    status.extend(known);
                }
                Ok(status)
            }
            // What happens then, happens after the answer.
            Command::Down | Command::Attach => Ok(Map::new()),
            Command::Reload => self.ask_one_that_answers(What::Reload).await,
            Command::Actions { script } => {
                self.ask_one_that_answers(What::Actions { script }).await
            }
        }
    }

    /// Loading may take its time; a script that never comes back to its event loop is told so.
    async fn ask_one_that_answers(&self, what: What) -> Result<Map<String, Value>> {
        self.lua_answers().await?;
        self.ask(what).await
    }

    async fn lua_answers(&self) -> Result<()> {
        match timeout(LUA_ANSWERS, self.ask(What::Status)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => {
                let computes = "the script computes and does not wait for anything";
                Err(Error::new("", "EBUSY", computes).hint("cnfscript down ends it"))
            }
        }
    }

    async fn ask(&self, what: What) -> Result<Map<String, Value>> {
        let ending = || Error::new("", "ESHUTDOWN", "the instance is ending");
        let (reply, answer) = oneshot::channel();
        self.lua.send(Request { what, reply }).await.map_err(|_| ending())?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }
}

/// One line without its end; none at the end of the stream.
async fn request_line(
    reader: &mut (impl tokio::io::AsyncBufRead + Unpin),
) -> std::io::Result<Option<Result<Vec<u8>>>> {
    let mut line = Vec::new();
    reader.take(LONGEST as u64 + 1).read_until(b'\n', &mut line).await?;
    Ok(match line.pop() {
        Some(b'\n') => Some(Ok(line)),
        Some(_) if line.len() >= LONGEST => {
            let message = format!("a request has at most {LONGEST} bytes");
            Some(Err(Error::new("socket", "EMSGSIZE", message)))
        }
        _ => None,
    })
}

async fn send(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    line: &str,
) -> std::io::Result<()> {
    timeout(PATIENCE, writer.write_all(format!("{line}\n").as_bytes())).await?
}
