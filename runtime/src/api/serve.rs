//! `probe.serve`: servers of the host, which go on while no Lua runs and from one load of the script to the next.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mlua::Lua;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::error::site;
use super::handle::{Class, Handle, Returned};
use super::host::Host;
use super::map_stage::MapSocket;
use super::module::Args;
use super::netns::NetOption;
use crate::kernel::socket;
use crate::own::Owned;
use crate::own::stage::Staged;
use crate::record;
use crate::{Error, Result};

const OP: &str = "probe.serve";

/// A server of the host: it goes on while no Lua runs.
#[derive(Clone)]
pub struct Server(Rc<Serving>);

struct Serving {
    /// `tcp 80 in netns a`
    shown: String,
    port: u16,
    served: Rc<Served>,
    reply: Reply,
    task: tokio::task::AbortHandle,
    /// Of the task that serves: closed with it.
    socket: Weak<dyn AsFd>,
    number: u64,
    /// Under which the next load finds it.
    shelf: String,
}

/// What a server answers; none: what it was sent.
type Reply = Rc<RefCell<Option<Rc<[u8]>>>>;

#[derive(Default)]
struct Served {
    requests: Cell<u64>,
    bytes: Cell<u64>,
}

impl Served {
    fn count(&self, bytes: usize) {
        self.requests.set(self.requests.get() + 1);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}

/// `serve(ns, {tcp=port | udp=port, reply=})`: answers with `reply`, or with what it was sent.
pub fn serve(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Server>> {
    let net = NetOption::argument(&mut args, host)?;
    let mut options = args.options()?;
    let tcp: Option<u16> = options.get("tcp")?;
    let udp: Option<u16> = options.get("udp")?;
    let address: Option<IpAddr> = options.get("address")?;
    let reply: Option<Vec<u8>> = options.get("reply")?;
    let (protocol, port) = match (tcp, udp) {
        (Some(port), None) => ("tcp", port),
        (None, Some(port)) => ("udp", port),
        _ => return Err(options.bad("takes one of tcp and udp: the port to serve")),
    };
    options.finish()?;
    host.stage.check()?;
    let reply: Option<Rc<[u8]>> = reply.map(Rc::from);
    let place = address.map_or(port.to_string(), |a| format!("{a}, {port}"));
    let shelf = format!("server/{}/{protocol} {place}", net.cookie());
    let shelf = format!("{shelf}#{}", host.stage.ordinal(&shelf));
    if let Some(serving) = adopt(host, &shelf) {
        let swap =
            Swap { reply: Rc::clone(&serving.reply), other: reply, of: serving.shown.clone() };
        host.stage.change(true, Box::new(swap), site(lua, 1))?;
        host.stage.shelve(&shelf, Rc::clone(&serving) as _);
        return Ok(Returned(Server(serving)));
    }
    let listening = socket::listen(&net.open()?.netns.fd, OP, address, port, protocol == "tcp")?;
    let port = listening.local_addr().ok().and_then(|a| a.as_socket()).map_or(port, |a| a.port());
    let (served, reply) = (Rc::new(Served::default()), Rc::new(RefCell::new(reply)));
    let failed = |e: std::io::Error| Error::io(OP, &e).subject(format!("port {port}"));
    let (task, socket): (_, Weak<dyn AsFd>) = match protocol {
        "tcp" => {
            let listener = Rc::new(TcpListener::from_std(listening.into()).map_err(failed)?);
            let weak = Rc::downgrade(&listener);
            let serving = serve_tcp(listener, Rc::clone(&reply), Rc::clone(&served));
            (tokio::task::spawn_local(serving), weak)
        }
        _ => {
            socket::tell_destination(&listening).map_err(failed)?;
            let socket = Rc::new(UdpSocket::from_std(listening.into()).map_err(failed)?);
            let weak = Rc::downgrade(&socket);
            let serving = serve_udp(socket, Rc::clone(&reply), Rc::clone(&served));
            (tokio::task::spawn_local(serving), weak)
        }
    };
    let task = task.abort_handle();
    let stop = task.clone();
    let number = host.ledger.add(Owned::Other {
        netns: Some(net.netns()?),
        kind: "server",
        name: address.map_or(format!("{protocol} {port}"), |a| format!("{protocol} {a}, {port}")),
        undo: Arc::new(move || {
            stop.abort();
            Ok(())
        }),
    })?;
    let shown = format!("{protocol} {port} in {}", net.display());
    let serving = Rc::new(Serving { shown, port, served, reply, task, socket, number, shelf });
    host.stage.shelve(&serving.shelf, Rc::clone(&serving) as _);
    Ok(Returned(Server(serving)))
}

/// The server that the load before started under this key, if it still serves.
fn adopt(host: &Host, shelf: &str) -> Option<Rc<Serving>> {
    if !host.stage.is_loading() {
        return None;
    }
    let serving = host.stage.take::<Serving>(shelf)?;
    let key = host.ledger.get(serving.number)?.key();
    let (number, _) = host.stage.adopt(&key)?;
    (number == serving.number && !serving.task.is_finished()).then_some(serving)
}

/// Another reply, at the commit.
struct Swap {
    reply: Reply,
    other: Option<Rc<[u8]>>,
    of: String,
}

impl Staged for Swap {
    fn key(&self) -> String {
        format!("reply/{:p}", Rc::as_ptr(&self.reply))
    }
    fn text(&self) -> String {
        format!("reply of server {}", self.of)
    }
    fn is_void(&self) -> bool {
        *self.reply.borrow() == self.other
    }
    fn apply(&mut self) -> Result<()> {
        std::mem::swap(&mut *self.reply.borrow_mut(), &mut self.other);
        Ok(())
    }
    fn revert(&mut self) -> Result<()> {
        self.apply()
    }
}

async fn serve_tcp(listener: Rc<TcpListener>, reply: Reply, served: Rc<Served>) {
    // Connections end with their server.
    let mut open = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while open.try_join_next().is_some() {}
        let (reply, served) = (reply.borrow().clone(), Rc::clone(&served));
        open.spawn_local(async move {
            let _ = answer(stream, reply, served).await;
        });
    }
}

async fn answer(
    mut stream: TcpStream,
    reply: Option<Rc<[u8]>>,
    served: Rc<Served>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16384];
    match reply {
        Some(reply) => {
            stream.write_all(&reply).await?;
            stream.shutdown().await?;
            served.count(reply.len());
            // What the client says is read to its end: closing before would reset the connection under the reply.
            while stream.read(&mut buffer).await? > 0 {}
        }
        None => {
            let mut sent = 0;
            loop {
                let length = stream.read(&mut buffer).await?;
                if length == 0 {
                    break;
                }
                stream.write_all(&buffer[..length]).await?;
                sent += length;
            }
            served.count(sent);
        }
    }
    Ok(())
}

async fn serve_udp(server: Rc<UdpSocket>, reply: Reply, served: Rc<Served>) {
    use tokio::io::Interest;
    let mut buffer = vec![0; 65536];
    loop {
        // Errors here are about earlier answers (ICMP): the next datagram is served all the same.
        let receive = || socket::receive_at(&*server, &mut buffer);
        if let Ok((length, between)) = server.async_io(Interest::READABLE, receive).await {
            let reply = reply.borrow().clone();
            let answer = reply.as_deref().unwrap_or(&buffer[..length]);
            let send = || socket::answer(&*server, answer, &between);
            let _ = server.async_io(Interest::WRITABLE, send).await;
            served.count(answer.len());
        }
    }
}

impl Server {
    /// What it serves with, for maps that hold sockets.
    ///
    /// # Errors
    /// ENODEV when it has been stopped.
    pub fn socket(&self) -> Result<MapSocket> {
        let open = self.0.socket.upgrade().filter(|_| !self.0.task.is_finished());
        open.map(MapSocket::new).ok_or_else(|| {
            Error::new("map", "ENODEV", format!("server {} was stopped", self.0.shown))
        })
    }
}

impl Handle for Server {
    const TYPE: &'static str = "Server";
    const WORD: &'static str = "server";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("port", |_, this| Ok(this.0.port))
            .method("stats", |_, _, this, _| {
                let served = &this.0.served;
                Ok(record! { requests: served.requests.get(), bytes: served.bytes.get() })
            })
            .async_method("stop", |_, host, this, _| {
                host.stage.unshelve(&this.0.shelf);
                let now = !host.stage.disown(this.0.number)?;
                if now {
                    this.0.task.abort();
                    host.ledger.forget(this.0.number);
                }
                let socket = this.0.socket.clone();
                Ok(async move {
                    // A task that was cancelled lets go of its socket when its turn comes.
                    while now && socket.strong_count() > 0 {
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                })
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!("Server({})", self.0.shown)
    }
}
