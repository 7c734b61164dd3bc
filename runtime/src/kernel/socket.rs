//! Sockets of a namespace: opened inside it by the namespace thread, used anywhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

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
pub fn icmp(netns: &NetnsFd, op: &'static str, address: IpAddr) -> Result<Socket> {
    let protocol = if address.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    open(netns, op, address, Type::RAW, protocol)
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
        socket.bind(&SocketAddr::new(address, port).into()).map_err(failed)?;
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
