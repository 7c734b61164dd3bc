//! `probe.ping`: ICMP and ICMPv6 echo over a raw socket inside a namespace.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::Lua;
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::host::Host;
use super::module::Args;
use super::netns::NetOption;
use super::probe::Leaving;
use super::value::Data;
use crate::kernel::socket;
use crate::record;
use crate::{Error, Result};

const OP: &str = "probe.ping";

/// Sends `count` echo requests, one every `interval`, and waits `timeout` for the last reply. Loss is a result, not an error.
pub fn ping(
    _: &Lua,
    host: &Rc<Host>,
    mut args: Args,
) -> Result<impl Future<Output = Result<Data>> + use<>> {
    let net = NetOption::argument(&mut args, host)?;
    let target: IpAddr = args.required("address")?;
    let mut options = args.options()?;
    options.set_subject(target.to_string());
    let plan = Plan {
        count: options.get("count")?.unwrap_or(3),
        interval: options.get("interval")?.unwrap_or(Duration::from_millis(100)),
        timeout: options.get("timeout")?.unwrap_or(Duration::from_secs(1)),
        size: options.get("size")?.unwrap_or(56),
    };
    let leaving = Leaving::read(&mut options, &net)?;
    let dont_fragment = options.flag("df")?;
    if plan.count == 0 || plan.size > 65_000 {
        return Err(options.bad("count must be at least 1, and size at most 65000 bytes"));
    }
    options.finish()?;
    let socket = socket::icmp(&net.open()?.netns.fd, OP, target)?;
    let failed = move |e: io::Error| Error::io(OP, &e).subject(target.to_string());
    leaving.apply(OP, &socket)?;
    if dont_fragment {
        forbid_fragments(&socket, target).map_err(failed)?;
    }
    // SAFETY: a Socket owns its descriptor and does not change it.
    let socket = unsafe { AsyncFd::register(socket) }.map_err(|e| failed(e.into()))?;
    let mut echo = Echo::new(socket, target, plan);
    Ok(async move { echo.run().await.map_err(failed) })
}

/// IP_PMTUDISC_DO: a packet that is too big is refused, here or by whoever cannot forward it.
fn forbid_fragments(socket: &Socket, target: IpAddr) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    match target {
        IpAddr::V6(_) => setsockopt(socket, sockopt::Ipv6DontFrag, &true)?,
        IpAddr::V4(_) => socket::set_option(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DO,
        )?,
    }
    Ok(())
}

struct Plan {
    count: u16,
    interval: Duration,
    timeout: Duration,
    /// Bytes after the ICMP header.
    size: usize,
}

struct Echo {
    socket: AsyncFd<Socket>,
    target: IpAddr,
    plan: Plan,
    /// Tells our replies from those of other pings: a raw socket hears them all.
    id: u16,
    sent: Vec<Instant>,
    rtt: Vec<Option<Duration>>,
    /// Why the last request could not be sent, or was answered with an error.
    problem: Option<&'static str>,
}

impl Echo {
    fn new(socket: AsyncFd<Socket>, target: IpAddr, plan: Plan) -> Self {
        use std::hash::{BuildHasher, Hasher};
        let id = std::collections::hash_map::RandomState::new().build_hasher().finish() as u16;
        Echo { socket, target, plan, id, sent: Vec::new(), rtt: Vec::new(), problem: None }
    }

    async fn run(&mut self) -> io::Result<Data> {
        let start = Instant::now();
        for number in 0..self.plan.count {
            self.send(number).await?;
            let last = number + 1 == self.plan.count;
            let until = match last {
                true => Instant::now() + self.plan.timeout,
                false => start + self.plan.interval * u32::from(number + 1),
            };
            self.receive(until, last).await?;
        }
        Ok(self.result())
    }

    async fn send(&mut self, number: u16) -> io::Result<()> {
        let packet = request(self.target, self.id, number, self.plan.size);
        let to = SocketAddr::new(self.target, 0).into();
        self.sent.push(Instant::now());
        self.rtt.push(None);
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| socket.get_ref().send_to(&packet, &to)) {
                Ok(Ok(_)) => return Ok(()),
                // No route, no neighbour, refused by a hook: a lost packet.
                Ok(Err(e)) => {
                    self.problem = e.raw_os_error().map(name_of);
                    return Ok(());
                }
                Err(_) => {}
            }
        }
    }

    /// Takes replies until the moment comes, or until all have come if these are the `last`.
    async fn receive(&mut self, until: Instant, last: bool) -> io::Result<()> {
        let mut buffer = vec![MaybeUninit::uninit(); self.plan.size + 256];
        while !(last && self.rtt.iter().all(Option::is_some)) {
            let Ok(ready) = tokio::time::timeout_at(until.into(), self.socket.readable()).await
            else {
                break;
            };
            match ready?.try_io(|socket| socket.get_ref().recv(&mut buffer)) {
                Ok(Ok(length)) => {
                    // SAFETY: recv(2) has filled that many bytes.
                    let bytes =
                        unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length) };
                    self.take(bytes);
                }
                Ok(Err(e)) => self.problem = e.raw_os_error().map(name_of),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, packet: &[u8]) {
        let Some((id, number)) = reply(self.target, packet) else { return };
        let number = usize::from(number);
        if id == self.id && number < self.sent.len() && self.rtt[number].is_none() {
            self.rtt[number] = Some(self.sent[number].elapsed());
        }
    }

    fn result(&self) -> Data {
        let rtt: Vec<Duration> = self.rtt.iter().flatten().copied().collect();
        let (sent, received) = (self.sent.len(), rtt.len());
        let times = match (rtt.iter().min(), rtt.iter().max()) {
            (Some(min), Some(max)) => {
                let average = rtt.iter().sum::<Duration>() / received as u32;
                record! { min: *min, avg: average, max: *max }
            }
            _ => Data::Record(Vec::new()),
        };
        let problem = self.problem.filter(|_| received < sent);
        record! {
            sent: sent, received: received, loss: (sent - received) as f64 / sent as f64, rtt: times, error: problem,
        }
    }
}

fn name_of(errno: i32) -> &'static str {
    // nix spells an errno's name as its Debug; few enough are seen to keep them.
    Box::leak(format!("{:?}", nix::errno::Errno::from_raw(errno)).into_boxed_str())
}

/// ICMP types (RFC 792, RFC 4443): request and reply.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);
const HEADER: usize = 8;

fn request(target: IpAddr, id: u16, number: u16, size: usize) -> Vec<u8> {
    let mut packet = vec![0u8; HEADER + size];
    packet[0] = if target.is_ipv4() { V4.0 } else { V6.0 };
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    for (position, byte) in packet[HEADER..].iter_mut().enumerate() {
        *byte = position as u8;
    }
    // The kernel fills in ICMPv6's, which covers addresses it chooses.
    if target.is_ipv4() {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Id and number of an echo reply. IPv4 raw sockets deliver the IP header too.
fn reply(target: IpAddr, packet: &[u8]) -> Option<(u16, u16)> {
    let (icmp, expected) = match target {
        IpAddr::V4(_) => (packet.get(usize::from(packet.first()? & 0xf) * 4..)?, V4.1),
        IpAddr::V6(_) => (packet, V6.1),
    };
    if icmp.len() < HEADER || icmp[0] != expected {
        return None;
    }
    Some((u16::from_be_bytes([icmp[4], icmp[5]]), u16::from_be_bytes([icmp[6], icmp[7]])))
}
