//! NETLINK_ROUTE, synchronously: one socket per namespace, many messages per send, every answer read.
//!
//! The kernel executes rtnetlink requests inside `sendmsg(2)`, so waiting asynchronously for the answers gains nothing
//! (`rtnetlink(7)`, `net/netlink/af_netlink.c`).

pub mod attribute;
mod batch;
mod error;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Mutex;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

pub use batch::Batch;
pub use error::NetlinkError;

use crate::kernel::netns::{NetnsFd, socket_cookie};
use crate::{Error, Result, fault};

/// Bytes: room for the acknowledgements of [`batch::PER_SEND`] messages and for a page of any dump.
const RECEIVE_BUFFER: i32 = 8 << 20;
const SEND_BUFFER: i32 = 1 << 20;
/// Bytes of one read; dumps come in pieces of at most 32 KiB (`netlink_dump`).
const READ: usize = 64 << 10;
const HEADER: usize = 16;
/// Until [`Netlink::with_label`] says better.
const LABEL: &str = "this namespace";

/// A message as it came: type and what follows the netlink header.
#[derive(Debug, Clone)]
pub struct Raw {
    pub kind: u16,
    pub body: Vec<u8>,
}

/// An rtnetlink socket inside one namespace. The namespace stays alive as long as this does.
#[derive(Debug)]
pub struct Netlink {
    netns: NetnsFd,
    label: String,
    cookie: u64,
    socket: Socket,
    /// The next sequence number; the lock is held over a whole exchange.
    sequence: Mutex<u32>,
}

impl Netlink {
    /// Opens a socket inside `netns`.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN (unless `netns` is the host's), EMFILE.
    pub fn open(netns: &NetnsFd) -> Result<Self> {
        netns.within(|| Self::open_here(netns))
    }

    /// As [`Netlink::open`], for a caller whose thread is inside `netns` already.
    pub fn open_here(netns: &NetnsFd) -> Result<Self> {
        let (socket, cookie) = open_socket().map_err(|e| Error::io("netlink.open", &e))?;
        Ok(Netlink {
            netns: netns.clone(),
            label: LABEL.to_owned(),
            cookie,
            socket,
            sequence: Mutex::new(1),
        })
    }

    /// The namespace this socket works in.
    pub fn netns(&self) -> &NetnsFd {
        &self.netns
    }

    /// What messages call the namespace: `namespace "red"`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Names the namespace for messages.
    pub fn with_label(self, name: &str) -> Self {
        Netlink { label: format!("namespace {name:?}"), ..self }
    }

    /// The namespace's cookie (`SO_NETNS_COOKIE`): never reused until the next boot.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// For what a socket of the namespace is good for besides messages: netdevice(7).
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    /// One request that changes something; `flags` besides REQUEST and ACK.
    pub fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> std::result::Result<(), NetlinkError> {
        fault::point();
        let mut bytes = Vec::new();
        let mut sequence = self.lock();
        let seq = take(&mut sequence, 1);
        serialize(&mut bytes, message, flags | NLM_F_REQUEST | NLM_F_ACK, seq);
        self.send(&bytes)?;
        let answer = self.collect(seq);
        fault::point();
        answer.map(drop)
    }

    /// As [`Netlink::request`], of a message as it came.
    pub fn request_raw(&self, message: &Raw, flags: u16) -> std::result::Result<(), NetlinkError> {
        const HEADER: usize = 16;
        fault::point();
        let mut sequence = self.lock();
        let seq = take(&mut sequence, 1);
        let mut bytes = Vec::with_capacity(HEADER + message.body.len());
        bytes.extend(((HEADER + message.body.len()) as u32).to_ne_bytes());
        bytes.extend(message.kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend(seq.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(&message.body);
        self.send(&bytes)?;
        let answer = self.collect(seq);
        fault::point();
        answer.map(drop)
    }

    /// One question and the message that answers it, which is the acknowledgement too.
    pub fn answer(&self, message: RouteNetlinkMessage) -> std::result::Result<Raw, NetlinkError> {
        let mut bytes = Vec::new();
        let mut sequence = self.lock();
        let seq = take(&mut sequence, 1);
        serialize(&mut bytes, message, NLM_F_REQUEST, seq);
        self.send(&bytes)?;
        self.read_until(|header, body| {
            if header.sequence_number != seq {
                return None;
            }
            let kind = header.message_type;
            Some(match i32::from(kind) {
                libc::NLMSG_ERROR => {
                    NetlinkError::from_answer(kind, i32::from(header.flags), body, 0)
                        .and(Err(NetlinkError::new(Errno::EBADMSG)))
                }
                _ => Ok(Raw { kind, body: body.to_vec() }),
            })
        })?
    }

    /// Every object the kernel lists for `message`, as it came. Repeats a listing that changed under it.
    pub fn dump(
        &self,
        message: &RouteNetlinkMessage,
    ) -> std::result::Result<Vec<Raw>, NetlinkError> {
        loop {
            let mut bytes = Vec::new();
            let mut sequence = self.lock();
            let seq = take(&mut sequence, 1);
            serialize(&mut bytes, message.clone(), NLM_F_REQUEST | NLM_F_DUMP, seq);
            self.send(&bytes)?;
            match self.collect(seq) {
                Err(e) if e.errno == Errno::EINTR => continue,
                other => return other,
            }
        }
    }

    /// As [`Netlink::dump`], decoded. A message of a kind this version does not understand is left out.
    pub fn dump_parsed(
        &self,
        message: &RouteNetlinkMessage,
    ) -> std::result::Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        Ok(self.dump(message)?.iter().filter_map(Raw::parse).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, u32> {
        // A panic while holding it leaves only unread answers of an old sequence number, which are skipped.
        self.sequence.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn send(&self, bytes: &[u8]) -> std::result::Result<(), NetlinkError> {
        match self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0) {
            Ok(_) => Ok(()),
            Err(e) => Err(NetlinkError::transport(&e)),
        }
    }

    /// Reads until the request `seq` is acknowledged, refused or done.
    fn collect(&self, seq: u32) -> std::result::Result<Vec<Raw>, NetlinkError> {
        let mut found = Vec::new();
        let mut interrupted = false;
        self.read_until(|header, body| {
            if header.sequence_number != seq {
                return None;
            }
            interrupted |= i32::from(header.flags) & libc::NLM_F_DUMP_INTR != 0;
            match i32::from(header.message_type) {
                libc::NLMSG_ERROR | libc::NLMSG_DONE => Some(NetlinkError::from_answer(
                    header.message_type,
                    i32::from(header.flags),
                    body,
                    0,
                )),
                _ => {
                    found.push(Raw { kind: header.message_type, body: body.to_vec() });
                    None
                }
            }
        })??;
        if interrupted {
            return Err(NetlinkError::new(Errno::EINTR));
        }
        Ok(found)
    }

    /// Hands each received message to `each` until it returns something.
    fn read_until<T>(
        &self,
        mut each: impl FnMut(&NetlinkHeader, &[u8]) -> Option<T>,
    ) -> std::result::Result<T, NetlinkError> {
        thread_local! {
            /// One for all sockets: a fresh one for each exchange is most of what an exchange costs this process.
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let mut buffer = BUFFER.take();
        buffer.clear();
        buffer.reserve(READ);
        let outcome = loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => break Err(NetlinkError::transport(&e)),
            }
            if let Some(outcome) = messages(&buffer).find_map(|(header, body)| each(&header, body))
            {
                break Ok(outcome);
            }
        };
        BUFFER.set(buffer);
        outcome
    }
}

impl Raw {
    /// Decoded, or nothing when this version does not understand it.
    pub fn parse(&self) -> Option<RouteNetlinkMessage> {
        use netlink_packet_core::NetlinkDeserializable;
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        RouteNetlinkMessage::deserialize(&header, &self.body).ok()
    }
}

/// A blocking rtnetlink socket of the calling thread's namespace, and that namespace's cookie.
pub(in crate::kernel) fn open_socket() -> io::Result<(Socket, u64)> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    // Old kernels without it filter dumps less; nothing depends on it.
    let _ = socket.set_netlink_get_strict_chk(true);
    // SAFETY: the socket outlives this borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    set_buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER);
    set_buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
    let cookie = socket_cookie(fd)?;
    Ok((socket, cookie))
}

/// Beyond the system's limit when that is permitted, else as much as it gives.
fn set_buffer(fd: BorrowedFd<'_>, force: i32, plain: i32, bytes: i32) {
    for option in [force, plain] {
        // SAFETY: fd is open, and the value is an int as socket(7) asks.
        let done = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of::<i32>() as u32,
            )
        };
        if done == 0 {
            return;
        }
    }
}

/// Reserves `count` sequence numbers.
fn take(sequence: &mut u32, count: u32) -> u32 {
    let first = *sequence;
    *sequence = first.checked_add(count).unwrap_or(1).max(1);
    first
}

fn serialize(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, seq: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = seq;
    header.message_type = message.message_type();
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// The messages of one datagram; what is malformed ends it.
pub(in crate::kernel) fn messages(
    mut buffer: &[u8],
) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
    std::iter::from_fn(move || {
        let number = |at: usize| Some(u32::from_ne_bytes(buffer.get(at..at + 4)?.try_into().ok()?));
        let short = |at: usize| Some(u16::from_ne_bytes(buffer.get(at..at + 2)?.try_into().ok()?));
        let length = number(0)? as usize;
        let mut header = NetlinkHeader::default();
        header.length = length as u32;
        header.message_type = short(4)?;
        header.flags = short(6)?;
        header.sequence_number = number(8)?;
        header.port_number = number(12)?;
        let body = buffer.get(HEADER..length)?;
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    })
}
