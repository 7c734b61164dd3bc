//! One rtnetlink request on a socket of its own, in the calling thread's namespace: what hooks need of netlink.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLMSG_ERROR, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use crate::{Error, Result};

/// `NLM_F_CAPPED` and `NLMSGERR_ATTR_MSG` of `linux/netlink.h`.
const F_CAPPED: u16 = 0x100;
const ATTR_MSG: u16 = 1;

/// Sends `message` and gives all replies up to the acknowledgement or the end of a dump.
///
/// # Errors
/// The kernel's errno with its extended acknowledgement.
pub(in crate::kernel::bpf) fn request(
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let failed = |e: io::Error| Error::io("netlink", &e);
    let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    let socket = open().map_err(failed)?;
    let mut header = NetlinkHeader::default();
    header.flags = if dump { flags } else { flags | NLM_F_ACK };
    header.sequence_number = 1;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(failed)?;
    let mut replies = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().map_err(failed)?;
        if collect(&datagram, &mut replies)? {
            return Ok(replies);
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Splits a datagram into messages; true when it holds the end.
fn collect(
    datagram: &[u8],
    replies: &mut Vec<NetlinkMessage<RouteNetlinkMessage>>,
) -> Result<bool> {
    let mut at = 0;
    while let Some(length) = word(datagram, at).map(|l| l as usize) {
        let Some(bytes) = datagram.get(at..at + length).filter(|_| length >= 16) else { break };
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        if kind == NLMSG_ERROR {
            return acknowledgement(bytes).map(|()| true);
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
            .map_err(|e| Error::new("netlink", "EIO", format!("an unreadable reply: {e}")))?;
        if let NetlinkPayload::Done(done) = &message.payload {
            return match done.code {
                0.. => Ok(true),
                code => Err(Error::errno("netlink", Errno::from_raw(-code))),
            };
        }
        replies.push(message);
        at += length.next_multiple_of(4);
    }
    Ok(false)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// An error message: errno (0 is success), the header of the request, then attributes with the kernel's sentence.
fn acknowledgement(bytes: &[u8]) -> Result<()> {
    let code = word(bytes, 16).unwrap_or(0) as i32;
    if code == 0 {
        return Ok(());
    }
    let flags = u16::from_ne_bytes([bytes[6], bytes[7]]);
    let echoed = match flags & F_CAPPED {
        0 => word(bytes, 20).unwrap_or(16) as usize,
        _ => 16,
    };
    let error = Error::errno("netlink", Errno::from_raw(-code));
    match extended_ack(bytes, 20 + echoed.next_multiple_of(4)) {
        Some(text) => Err(error.extended_ack(text)),
        None => Err(error),
    }
}

fn extended_ack(bytes: &[u8], mut at: usize) -> Option<String> {
    while let Some(head) = word(bytes, at) {
        // struct nlattr: length, then type, 16 bits each.
        let raw = head.to_ne_bytes();
        let length = u16::from_ne_bytes([raw[0], raw[1]]) as usize;
        let kind = u16::from_ne_bytes([raw[2], raw[3]]);
        if length < 4 {
            return None;
        }
        if kind == ATTR_MSG {
            let text = bytes.get(at + 4..at + length)?;
            return Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        }
        at += length.next_multiple_of(4);
    }
    None
}
