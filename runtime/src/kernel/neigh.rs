//! Neighbours: which MAC an address on a link has (`ip-neighbour(8)`, net/core/neighbour.c).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::address::family;
use super::link::name::format_mac;
use crate::kernel::netlink::Netlink;
use crate::{Error, Result};

/// A neighbour to be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    pub dst: IpAddr,
    /// Link index.
    pub dev: u32,
    pub lladdr: Option<Vec<u8>>,
    /// NUD_*, see [`state`]; permanent when not given.
    pub state: Option<u16>,
    /// Answer for it instead of knowing it.
    pub proxy: bool,
}

/// A neighbour as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct NeighInfo {
    pub dst: IpAddr,
    pub dev: u32,
    pub lladdr: Option<String>,
    /// "reachable", "stale", "permanent" ...
    pub state: String,
    pub router: bool,
    pub proxy: bool,
}

const STATES: &[(&str, u16)] = &[
    ("none", 0),
    ("incomplete", 0x01),
    ("reachable", 0x02),
    ("stale", 0x04),
    ("delay", 0x08),
    ("probe", 0x10),
    ("failed", 0x20),
    ("noarp", 0x40),
    ("permanent", PERMANENT),
];
const PERMANENT: u16 = 0x80;

/// "permanent" -> 0x80
pub fn state(word: &str) -> Result<u16> {
    STATES.iter().find(|(w, _)| *w == word).map(|(_, n)| *n).ok_or_else(|| {
        let all: Vec<_> = STATES.iter().map(|(w, _)| *w).collect();
        Error::invalid("neigh", format!("state cannot be {word:?}"))
            .hint(format!("one of {}", all.join(", ")))
    })
}

/// Adds the neighbour.
///
/// # Errors
/// EEXIST when the link has one with this address, ENODEV when the link is gone, EINVAL for a MAC of the wrong length.
pub fn add(netlink: &Netlink, options: &Options) -> Result<()> {
    set(netlink, options, "neigh.add", NLM_F_CREATE | NLM_F_EXCL)
}

/// Adds the neighbour or changes the one that is there.
pub fn replace(netlink: &Netlink, options: &Options) -> Result<()> {
    set(netlink, options, "neigh.replace", NLM_F_CREATE | NLM_F_REPLACE)
}

fn set(netlink: &Netlink, options: &Options, op: &'static str, flags: u16) -> Result<()> {
    netlink.request(RouteNetlinkMessage::NewNeighbour(message(options)), flags).map_err(|e| {
        let errno = e.errno;
        let error = e.into_error(op).subject(options.dst.to_string());
        match errno {
            Errno::EEXIST => error.because("the link has a neighbour of this address already"),
            _ => error,
        }
    })
}

/// Deletes the neighbour of that address on that link.
///
/// # Errors
/// ENOENT when there is none.
pub fn delete(netlink: &Netlink, options: &Options) -> Result<()> {
    netlink.request(RouteNetlinkMessage::DelNeighbour(message(options)), 0).map_err(|e| {
        let errno = e.errno;
        let error = e.into_error("neigh.delete").subject(options.dst.to_string());
        match errno {
            Errno::ENOENT => error.because("the link has no such neighbour"),
            _ => error,
        }
    })
}

fn message(options: &Options) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(options.dst);
    message.header.ifindex = options.dev;
    message.header.state = NeighbourState::from(options.state.unwrap_or(PERMANENT));
    message.header.flags.set(NeighbourFlags::Proxy, options.proxy);
    message.attributes.push(NeighbourAttribute::Destination(options.dst.into()));
    message.attributes.extend(options.lladdr.clone().map(NeighbourAttribute::LinkLayerAddress));
    message
}

/// The neighbours of one link, or of all. Entries that need no resolution (multicast, loopback) are left out, as by `ip`.
pub fn list(netlink: &Netlink, dev: Option<u32>) -> Result<Vec<NeighInfo>> {
    let request = NeighbourMessage::default();
    let found = netlink
        .dump_parsed(&RouteNetlinkMessage::GetNeighbour(request))
        .map_err(|e| e.into_error("netns.neighs"))?;
    Ok(found
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => decode(message),
            _ => None,
        })
        .filter(|neigh| dev.is_none_or(|dev| neigh.dev == dev) && neigh.state != "noarp")
        .collect())
}

/// Reads RTM_NEWNEIGH and RTM_DELNEIGH; bridge forwarding entries are none.
pub(in crate::kernel) fn decode(message: &NeighbourMessage) -> Option<NeighInfo> {
    let mut dst = None;
    let mut lladdr = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => dst = Some((*ip).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                dst = Some((*ip).into());
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = Some(format_mac(bytes)),
            _ => {}
        }
    }
    let state = u16::from(message.header.state);
    let known = STATES.iter().find(|(_, number)| *number == state);
    Some(NeighInfo {
        dst: dst?,
        dev: message.header.ifindex,
        lladdr,
        state: known.map_or_else(|| format!("{state:#x}"), |(word, _)| (*word).to_owned()),
        router: message.header.flags.contains(NeighbourFlags::Router),
        proxy: message.header.flags.contains(NeighbourFlags::Proxy),
    })
}
