//! Traffic that notices: a sequence-numbered UDP flow and a TCP stream between two namespaces, bounded in time.

#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cnfscript::kernel::netns::NetnsFd;
use cnfscript::{Error, Result};

/// No flow lasts longer, whoever forgets it.
const LONGEST: Duration = Duration::from_secs(300);

/// What a flow has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub sent: u64,
    pub received: u64,
    pub reordered: u64,
    /// Between arrivals, in seconds, in order of size.
    pub gaps: Vec<f64>,
    /// When each datagram came, and what it said.
    pub bytes: u64,
}

impl Seen {
    /// The gap that this share of all gaps does not exceed.
    pub fn gap(&self, share: f64) -> f64 {
        let last = self.gaps.len().saturating_sub(1);
        self.gaps.get(((self.gaps.len() as f64 * share) as usize).min(last)).copied().unwrap_or(0.0)
    }
}

/// Datagrams that carry their number.
pub struct Datagrams {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Seen>,
}

fn io(error: std::io::Error) -> Error {
    Error::io("flow", &error)
}

impl Datagrams {
    /// One every `every` from `from` to `address` in `to`.
    ///
    /// # Errors
    /// What keeps the sockets from being opened.
    pub fn start(
        from: &NetnsFd,
        to: &NetnsFd,
        address: SocketAddr,
        every: Duration,
    ) -> Result<Datagrams> {
        let receiver = to.within(|| UdpSocket::bind(address).map_err(io))?;
        let any: SocketAddr =
            if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
        let sender = from.within(|| UdpSocket::bind(any).map_err(io))?;
        sender.connect(address).map_err(io)?;
        receiver.set_read_timeout(Some(Duration::from_millis(300))).map_err(io)?;
        // A receiver that is kept waiting by others is no loss on the path.
        nix::sys::socket::setsockopt(&receiver, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20))
            .map_err(|e| Error::errno("flow", e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            go_first();
            let start = Instant::now();
            let mut number = 0u64;
            let mut next = start;
            while !stopped.load(Ordering::Relaxed) && start.elapsed() < LONGEST {
                if sender.send(&number.to_be_bytes()).is_ok() {
                    number += 1;
                }
                // One that comes late is not made up for: a burst would overrun the receiver, and not the path.
                next = (next + every).max(Instant::now());
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            number
        });
        let stopped = Arc::clone(&stop);
        let receiver = std::thread::spawn(move || {
            go_first();
            receive(&receiver, &stopped)
        });
        Ok(Datagrams { stop, sender, receiver })
    }

    /// Stops sending, waits for what is under way.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender ends");
        let mut seen = self.receiver.join().expect("the receiver ends");
        seen.sent = sent;
        seen.gaps.sort_by(f64::total_cmp);
        seen
    }
}

/// The calling thread runs whenever it can, as if on a machine of its own: what it sees is the path, not the wait for a
/// processor that others use, too. Without the permission it waits like them (`sched(7)`, SCHED_FIFO).
pub fn go_first() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: sched_setscheduler(2) on the calling thread reads the parameter.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) };
}

/// Until nothing has come for a while after the stop.
fn receive(socket: &UdpSocket, stopped: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let (mut next, mut last) = (0u64, None::<Instant>);
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(8) => {
                let now = Instant::now();
                let number = u64::from_be_bytes(buffer[..8].try_into().expect("eight bytes"));
                seen.received += 1;
                seen.reordered += u64::from(number < next);
                next = next.max(number + 1);
                if let Some(last) = last.replace(now) {
                    seen.gaps.push((now - last).as_secs_f64());
                }
            }
            Ok(_) => {}
            Err(_) if stopped.load(Ordering::Relaxed) => return seen,
            Err(_) => {}
        }
    }
}

/// A TCP connection over which one side sends for as long as it lasts.
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<std::io::Result<u64>>,
    receiver: JoinHandle<std::io::Result<u64>>,
}

impl Stream {
    /// # Errors
    /// What keeps the connection from being made.
    pub fn start(from: &NetnsFd, to: &NetnsFd, address: SocketAddr) -> Result<Stream> {
        let listener = to.within(|| TcpListener::bind(address).map_err(io))?;
        let mut client = from
            .within(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(io))?;
        let (mut server, _) = listener.accept().map_err(io)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            let start = Instant::now();
            let mut sent = 0u64;
            while !stopped.load(Ordering::Relaxed) && start.elapsed() < LONGEST {
                client.write_all(&sent.to_be_bytes())?;
                sent += 8;
                if sent.is_multiple_of(4096) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(sent)
        });
        let receiver = std::thread::spawn(move || {
            let (mut received, mut word) = (0u64, [0; 8]);
            loop {
                match server.read_exact(&mut word) {
                    Ok(()) if u64::from_be_bytes(word) == received => received += 8,
                    Ok(()) => return Err(std::io::Error::other("other bytes than were sent")),
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(received),
                    Err(e) => return Err(e),
                }
            }
        });
        Ok(Stream { stop, sender, receiver })
    }

    /// Bytes sent and received; the connection ends in order.
    ///
    /// # Errors
    /// What broke it.
    pub fn stop(self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender ends").map_err(io)?;
        let received = self.receiver.join().expect("the receiver ends").map_err(io)?;
        Ok((sent, received))
    }
}
