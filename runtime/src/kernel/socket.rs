//! Sockets of a namespace: opened inside it by the namespace thread, used anywhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::NetnsFd;
use crate::{Error, Result};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A non-blocking socket inside `netns`, for the family of `address`.
///
/// # Errors
/// EPERM for raw sockets without CAP_NET_RAW, EAFNOSUPPORT when the kernel has no IPv6, EMFILE.
pub fn open(
    netns: &NetnsFd,
    op: &'static str,
    address: IpAddr,
    kind: Type,
    protocol: Protocol,
) -> Result<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    netns.within(|| {
        let socket = Socket::new(domain, kind, Some(protocol)).map_err(|e| Error::io(op, &e))?;
        socket.set_nonblocking(true).map_err(|e| Error::io(op, &e))?;
        Ok(socket)
    })
}

/// A raw ICMP or ICMPv6 socket: unlike a ping socket it needs no `ping_group_range`, which is empty in a new namespace.
/// It has room for replies while its reader is busy: native XDP hands over a page for each, 48 of them fill the default.
pub fn icmp(netns: &NetnsFd, op: &'static str, address: IpAddr) -> Result<Socket> {
    let protocol = if address.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let socket = open(netns, op, address, Type::RAW, protocol)?;
    // Beyond the system's limit where that is permitted; else as much as it gives.
    if setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).is_err() {
        let _ = socket.set_recv_buffer_size(4 << 20);
    }
    Ok(socket)
}

/// A socket bound to `port` on `address`, or on every address of both families.
///
/// # Errors
/// EADDRINUSE, EADDRNOTAVAIL.
pub fn listen(
    netns: &NetnsFd,
    op: &'static str,
    address: Option<IpAddr>,
    port: u16,
    tcp: bool,
) -> Result<Socket> {
    let (kind, protocol) =
        if tcp { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
    let any = address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let attempt = |address: IpAddr| -> Result<Socket> {
        let socket = open(netns, op, address, kind, protocol)?;
        let failed =
            |e: io::Error| Error::io(op, &e).subject(SocketAddr::new(address, port).to_string());
        if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            socket.set_only_v6(false).map_err(failed)?;
        }
        if tcp {
            socket.set_reuse_address(true).map_err(failed)?;
        }
        socket.bind(&SocketAddr::new(address, port).into()).map_err(|e| {
            let missing = e.raw_os_error() == Some(libc::EADDRNOTAVAIL);
            let error = failed(e);
            if missing {
                error.because("no link of this namespace has that address")
            } else {
                error
            }
        })?;
        if tcp {
            socket.listen(BACKLOG).map_err(failed)?;
        }
        Ok(socket)
    };
    match attempt(any) {
        // A kernel without IPv6 still has the other family.
        Err(e) if address.is_none() && e.is("EAFNOSUPPORT") => {
            attempt(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        }
        other => other,
    }
}

/// Sends whole frames out of a link, as they are: its egress hooks see them, and whatever is at its other end receives
/// them. `mark` is theirs in the kernel. (`packet(7)`)
///
/// # Errors
/// ENODEV, ENETDOWN when the link is down, EMSGSIZE for one longer than its MTU allows, EPERM without CAP_NET_RAW.
pub fn send_frames<'a>(
    netns: &NetnsFd,
    op: &'static str,
    index: u32,
    frames: impl IntoIterator<Item = &'a [u8]>,
    mark: Option<u32>,
) -> Result<()> {
    let failed = |e: io::Error| Error::io(op, &e);
    let socket = netns.within(|| Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed))?;
    if let Some(mark) = mark {
        socket.set_mark(mark).map_err(failed)?;
    }
    // SAFETY: the storage is larger than a sockaddr_ll and zeroed, which is a valid one; its length is told.
    let (_, address) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_ifindex = index as i32;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .map_err(failed)?;
    for frame in frames {
        match socket.send_to(frame, &address) {
            // A program on the link's egress hook dropped it.
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
            sent => drop(sent.map_err(failed)?),
        }
    }
    Ok(())
}

/// Sets an integer option that the socket crates have no name for (`ip(7)`).
pub fn set_option(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the socket is open, and the kernel reads the four bytes of `value`.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a datagram socket of [`listen`] say which of the box's addresses each datagram came to ([`receive_at`]).
pub fn tell_destination(socket: &Socket) -> io::Result<()> {
    match socket.domain()? {
        Domain::IPV4 => set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        _ => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Who sent a datagram, and the address of ours that it came to.
#[derive(Debug, Clone, Copy)]
pub struct Between {
    from: SockaddrStorage,
    to: Option<PacketInfo>,
}

#[derive(Debug, Clone, Copy)]
enum PacketInfo {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// Receives a datagram: its length, and where the answer has to go ([`answer`]).
pub fn receive_at(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Between)> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let to = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(PacketInfo::V4(info)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(PacketInfo::V6(info)),
        _ => None,
    });
    let from = received.address.ok_or_else(|| io::Error::from_raw_os_error(libc::EDESTADDRREQ))?;
    Ok((received.bytes, Between { from, to }))
}

/// Answers from the address that was asked: a client that connected its socket hears no other, and routing alone would choose
/// the first address of the link that leads back.
pub fn answer(socket: &impl AsFd, bytes: &[u8], between: &Between) -> io::Result<usize> {
    let parts = [io::IoSlice::new(bytes)];
    let send = |control: &[ControlMessage<'_>]| {
        let socket = socket.as_fd().as_raw_fd();
        Ok(sendmsg(socket, &parts, control, MsgFlags::empty(), Some(&between.from))?)
    };
    match between.to {
        Some(PacketInfo::V4(mut info)) => {
            info.ipi_ifindex = 0;
            // The address the sender used; ipi_spec_dst would be the same but for broadcasts.
            info.ipi_spec_dst = info.ipi_addr;
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(PacketInfo::V6(mut info)) => {
            // Only a link-local address needs its link; any other is routed.
            let link_local = info.ipi6_addr.s6_addr[..2] == [0xfe, 0x80];
            info.ipi6_ifindex = if link_local { info.ipi6_ifindex } else { 0 };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
        None => send(&[]),
    }
}
