//! `probe`: the few clients and servers that prove a path: ping, TCP, UDP.

use std::cell::Cell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Lua, Table};
use socket2::{Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::handle::{Class, Handle, Returned};
use super::host::Host;
use super::link::local_link;
use super::module::{Args, Module};
use super::netns::{Net, NetOption};
use super::option::Options;
use super::ping;
use super::value::Data;
use crate::kernel::socket;
use crate::own::Owned;
use crate::record;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "probe")
        .async_function("ping", ping::ping)
        .async_function("tcp", tcp)
        .async_function("udp", udp)
        .function("serve", serve)
        .build()
}

/// The most that is read of an answer, in bytes.
const MOST: u64 = 1 << 20;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// `"10.0.0.1:80"`, `"[fd00::1]:80"`.
fn endpoint(args: &mut Args) -> Result<SocketAddr> {
    let text: String = args.required("address")?;
    text.parse().map_err(|_| {
        Error::invalid(args.op().to_owned(), format!("\"{text}\" is not an address with a port"))
            .hint("write \"10.0.0.1:80\" or \"[fd00::1]:80\"")
    })
}

struct Exchange {
    timeout: Duration,
    send: Option<Vec<u8>>,
    leaving: Leaving,
}

/// How packets leave the namespace, when not as its routes say.
pub struct Leaving {
    source: Option<IpAddr>,
    /// A link, or a vrf: only its routes are looked at (SO_BINDTODEVICE of socket(7)).
    dev: Option<String>,
}

impl Leaving {
    pub fn read(options: &mut Options, net: &Net) -> Result<Leaving> {
        let dev = local_link(options, net, "dev")?.map(|link| link.name());
        Ok(Leaving { source: options.get("source")?, dev })
    }

    pub fn apply(&self, op: &'static str, socket: &Socket) -> Result<()> {
        if let Some(dev) = &self.dev {
            socket
                .bind_device(Some(dev.as_bytes()))
                .map_err(|e| Error::io(op, &e).subject(dev.clone()))?;
        }
        let Some(source) = self.source else { return Ok(()) };
        socket
            .bind(&SocketAddr::new(source, 0).into())
            .map_err(|e| Error::io(op, &e).subject(source.to_string()))
    }
}

fn exchange(args: &mut Args, net: &Net, target: &SocketAddr) -> Result<Exchange> {
    let mut options = args.options()?;
    options.set_subject(target.to_string());
    let exchange = Exchange {
        timeout: options.get("timeout")?.unwrap_or(DEFAULT_TIMEOUT),
        send: options.get("send")?,
        leaving: Leaving::read(&mut options, net)?,
    };
    options.finish()?;
    Ok(exchange)
}

fn timed_out(op: &'static str, target: SocketAddr, limit: Duration) -> Error {
    Error::new(op, "ETIMEDOUT", format!("no answer within {limit:?}")).subject(target.to_string())
}

/// Connects, sends, ends its half, reads to the end.
fn tcp(
    _: &Lua,
    host: &Rc<Host>,
    mut args: Args,
) -> Result<impl Future<Output = Result<Data>> + use<>> {
    const OP: &str = "probe.tcp";
    let net = NetOption::argument(&mut args, host)?;
    let target = endpoint(&mut args)?;
    let Exchange { timeout, send, leaving } = exchange(&mut args, &net, &target)?;
    let raw = socket::open(&net.open()?.netns.fd, OP, target.ip(), Type::STREAM, Protocol::TCP)?;
    leaving.apply(OP, &raw)?;
    Ok(async move {
        let failed = |e: std::io::Error| Error::io(OP, &e).subject(target.to_string());
        let start = Instant::now();
        let work = async {
            let mut stream =
                TcpSocket::from_std_stream(raw.into()).connect(target).await.map_err(failed)?;
            let connect = start.elapsed();
            stream.write_all(&send.unwrap_or_default()).await.map_err(failed)?;
            // A server that has reset the connection by now has its reason read below.
            let _ = stream.shutdown().await;
            let mut reply = Vec::new();
            stream.take(MOST).read_to_end(&mut reply).await.map_err(failed)?;
            Ok(record! { reply: Data::Str(reply), connect: connect, total: start.elapsed() })
        };
        tokio::time::timeout(timeout, work).await.map_err(|_| timed_out(OP, target, timeout))?
    })
}

/// Sends one datagram and waits for one.
fn udp(
    _: &Lua,
    host: &Rc<Host>,
    mut args: Args,
) -> Result<impl Future<Output = Result<Data>> + use<>> {
    const OP: &str = "probe.udp";
    let net = NetOption::argument(&mut args, host)?;
    let target = endpoint(&mut args)?;
    let Exchange { timeout, send, leaving } = exchange(&mut args, &net, &target)?;
    let raw = socket::open(&net.open()?.netns.fd, OP, target.ip(), Type::DGRAM, Protocol::UDP)?;
    leaving.apply(OP, &raw)?;
    Ok(async move {
        let failed = |e: std::io::Error| Error::io(OP, &e).subject(target.to_string());
        let start = Instant::now();
        let work = async {
            let socket = UdpSocket::from_std(raw.into()).map_err(failed)?;
            // Connected, so that "port unreachable" comes back as ECONNREFUSED.
            socket.connect(target).await.map_err(failed)?;
            socket.send(send.as_deref().unwrap_or(b"probe")).await.map_err(failed)?;
            let mut reply = vec![0; 65536];
            let length = socket.recv(&mut reply).await.map_err(failed)?;
            reply.truncate(length);
            Ok(record! { reply: Data::Str(reply), total: start.elapsed() })
        };
        tokio::time::timeout(timeout, work).await.map_err(|_| timed_out(OP, target, timeout))?
    })
}

/// A server of the host: it goes on while no Lua runs.
#[derive(Clone)]
pub struct Server(Rc<Serving>);

struct Serving {
    net: Net,
    protocol: &'static str,
    port: u16,
    served: Rc<Served>,
    task: tokio::task::AbortHandle,
    number: u64,
}

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
fn serve(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Server>> {
    const OP: &str = "probe.serve";
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
    let listening = socket::listen(&net.open()?.netns.fd, OP, address, port, protocol == "tcp")?;
    let port = listening.local_addr().ok().and_then(|a| a.as_socket()).map_or(port, |a| a.port());
    let served = Rc::new(Served::default());
    let failed = |e: std::io::Error| Error::io(OP, &e).subject(format!("port {port}"));
    let task = match protocol {
        "tcp" => {
            let listener = TcpListener::from_std(listening.into()).map_err(failed)?;
            tokio::task::spawn_local(serve_tcp(listener, reply.map(Rc::from), Rc::clone(&served)))
        }
        _ => {
            socket::tell_destination(&listening).map_err(failed)?;
            let socket = UdpSocket::from_std(listening.into()).map_err(failed)?;
            tokio::task::spawn_local(serve_udp(socket, reply, Rc::clone(&served)))
        }
    };
    let task = task.abort_handle();
    let stop = task.clone();
    let number = host.ledger.add(Owned::Other {
        netns: Some(net.netns()?),
        kind: "server",
        name: format!("{protocol} {port}"),
        undo: Arc::new(move || {
            stop.abort();
            Ok(())
        }),
    })?;
    Ok(Returned(Server(Rc::new(Serving { net, protocol, port, served, task, number }))))
}

async fn serve_tcp(listener: TcpListener, reply: Option<Rc<[u8]>>, served: Rc<Served>) {
    // Connections end with their server.
    let mut open = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while open.try_join_next().is_some() {}
        let (reply, served) = (reply.clone(), Rc::clone(&served));
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

async fn serve_udp(server: UdpSocket, reply: Option<Vec<u8>>, served: Rc<Served>) {
    use tokio::io::Interest;
    let mut buffer = vec![0; 65536];
    loop {
        // Errors here are about earlier answers (ICMP): the next datagram is served all the same.
        let receive = || socket::receive_at(&server, &mut buffer);
        if let Ok((length, between)) = server.async_io(Interest::READABLE, receive).await {
            let answer = reply.as_deref().unwrap_or(&buffer[..length]);
            let send = || socket::answer(&server, answer, &between);
            let _ = server.async_io(Interest::WRITABLE, send).await;
            served.count(answer.len());
        }
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
            .method("stop", |_, host, this, _| {
                this.0.task.abort();
                host.ledger.forget(this.0.number);
                Ok(())
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!("Server({} {} in {})", self.0.protocol, self.0.port, self.0.net.display())
    }
}
