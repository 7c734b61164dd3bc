//! `probe`: the few clients that prove a path: ping, TCP, UDP. Servers are in `serve`.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Lua, Table};
use socket2::{Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

use super::host::Host;
use super::link::local_link;
use super::module::{Args, Module};
use super::netns::{Net, NetOption};
use super::option::Options;
use super::ping;
use super::value::Data;
use crate::kernel::socket;
use crate::record;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "probe")
        .async_function("ping", ping::ping)
        .async_function("tcp", tcp)
        .async_function("udp", udp)
        .function("serve", super::serve::serve)
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

/// What `tcp` and `udp` are asked for.
struct Exchange {
    /// Bound, and not connected yet.
    socket: Socket,
    target: SocketAddr,
    timeout: Duration,
    send: Option<Vec<u8>>,
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

fn exchange(
    args: &mut Args,
    host: &Rc<Host>,
    op: &'static str,
    (kind, protocol): (Type, Protocol),
) -> Result<Exchange> {
    let net = NetOption::argument(args, host)?;
    let target = endpoint(args)?;
    let mut options = args.options()?;
    options.set_subject(target.to_string());
    let timeout = options.get("timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    let send = options.get("send")?;
    let leaving = Leaving::read(&mut options, &net)?;
    options.finish()?;
    let socket = socket::open(&net.open()?.netns.fd, op, target.ip(), kind, protocol)?;
    leaving.apply(op, &socket)?;
    Ok(Exchange { socket, target, timeout, send })
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
    let Exchange { socket, target, timeout, send } =
        exchange(&mut args, host, OP, (Type::STREAM, Protocol::TCP))?;
    Ok(async move {
        let failed = |e: std::io::Error| Error::io(OP, &e).subject(target.to_string());
        let start = Instant::now();
        let work = async {
            let mut stream =
                TcpSocket::from_std_stream(socket.into()).connect(target).await.map_err(failed)?;
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
    let Exchange { socket, target, timeout, send } =
        exchange(&mut args, host, OP, (Type::DGRAM, Protocol::UDP))?;
    Ok(async move {
        let failed = |e: std::io::Error| Error::io(OP, &e).subject(target.to_string());
        let start = Instant::now();
        let work = async {
            let socket = UdpSocket::from_std(socket.into()).map_err(failed)?;
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
