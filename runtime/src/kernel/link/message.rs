//! RTM_NEWLINK and RTM_SETLINK messages for links (`rtnetlink(7)`, net/core/rtnetlink.c).

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::Emitable;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};

use super::kinds::Kind;
use super::value::Value;
use super::{AddrGenMode, Created, End, NewLink, check_name};
use crate::kernel::netlink::Netlink;
use crate::kernel::netlink::attribute::Writer;
use crate::nearest::nearest;
use crate::{Error, Result};

/// VETH_INFO_PEER and IFLA_NETKIT_PEER_INFO.
const PEER_INFO: u16 = 1;

/// The request to `sender`'s namespace that makes `link` with those indexes.
///
/// # Errors
/// EINVAL for a bad name, an unknown option or a wrong value.
pub fn creation(link: &NewLink<'_>, sender: &Netlink, made: Created) -> Result<LinkMessage> {
    check(link)?;
    let how = if link.is_moved(sender) { Made::Late } else { Made::Whole };
    let mut message = end(&link.end, made.index, how);
    if link.is_moved(sender) {
        let fd = link.netlink.netns().as_fd().as_raw_fd();
        message.attributes.push(LinkAttribute::NetNsFd(fd));
    }
    if let Some(below) = link.link {
        message.attributes.push(LinkAttribute::Link(below));
    }
    let mut data = Writer::new();
    if let (Some((netlink, peer)), Some(index)) = (&link.peer, made.peer_index) {
        let mut peer = end(peer, index, Made::Late);
        if !std::ptr::eq(*netlink, link.netlink) {
            let fd = netlink.netns().as_fd().as_raw_fd();
            peer.attributes.push(LinkAttribute::NetNsFd(fd));
        }
        let mut bytes = vec![0; peer.buffer_len()];
        peer.emit(&mut bytes);
        data.put(PEER_INFO, &bytes);
    }
    write_values(link.kind, &link.values, &mut data)?;
    let mut info = vec![LinkInfo::Kind(InfoKind::Other(link.kind.name.to_owned()))];
    let data = data.into_bytes();
    if !data.is_empty() {
        info.push(LinkInfo::Data(InfoData::Other(data)));
    }
    message.attributes.push(LinkAttribute::LinkInfo(info));
    Ok(message)
}

fn check(link: &NewLink<'_>) -> Result<()> {
    check_name(&link.end.name)?;
    let kind = link.kind.name;
    match &link.peer {
        Some(_) if !link.kind.is_pair() => {
            return Err(Error::invalid("link", format!("a {kind} has no peer")));
        }
        None if link.kind.is_pair() => {
            return Err(Error::invalid("link", format!("a {kind} needs a peer"))
                .hint("peer={name=\"...\", netns=...}"));
        }
        Some((_, peer)) => check_name(&peer.name)?,
        None => {}
    }
    if link.kind.on_link && link.link.is_none() {
        return Err(Error::invalid("link", format!("a {kind} needs the link it stands on"))
            .hint("link=another link of the same namespace"));
    }
    let wants_mac = link.end.mac.or(link.peer.as_ref().and_then(|(_, end)| end.mac)).is_some();
    let l2 = link
        .values
        .iter()
        .any(|(word, value)| word == "mode" && matches!(value, Value::Text(t) if t == "l2"));
    if kind == "netkit" && wants_mac && !l2 {
        return Err(Error::invalid("link", "a netkit pair in l3 mode has no MAC addresses")
            .hint("mode=\"l2\", or leave mac out"));
    }
    Ok(())
}

/// Appends the kind's options.
fn write_values(kind: &Kind, values: &[(String, Value)], data: &mut Writer) -> Result<()> {
    for (word, value) in values {
        let field = kind.field(word).ok_or_else(|| {
            let error = Error::invalid("link", format!("a {} has no option {word:?}", kind.name));
            match nearest(word, kind.fields.iter().map(|field| field.word)) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error,
            }
        })?;
        field.write(data, value)?;
    }
    Ok(())
}

/// What `rtnl_create_link` takes for either end. Master, alias and IPv6 settings come after ([`remaining`]).
fn end(end: &End, index: u32, how: Made) -> LinkMessage {
    let mut message = change(index);
    if end.up && !how.late_up(end) {
        up(&mut message, true);
    }
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(end.name.clone()));
    attributes.extend(plain(end));
    attributes.extend(end.num_tx_queues.map(LinkAttribute::NumTxQueues));
    attributes.extend(end.num_rx_queues.map(LinkAttribute::NumRxQueues));
    message
}

/// What any request about a link can set.
fn plain(end: &End) -> impl Iterator<Item = LinkAttribute> {
    let mac = end.mac.map(|mac| LinkAttribute::Address(mac.to_vec()));
    let mtu = end.mtu.map(LinkAttribute::Mtu);
    let group = end.group.map(LinkAttribute::Group);
    mac.into_iter().chain(mtu).chain(group).chain(end.txqueuelen.map(LinkAttribute::TxQueueLen))
}

/// How an end came to be, which decides what is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// By a request that took its attributes and flags.
    Whole,
    /// As the second end of a pair, which cannot go up before the first is there (ENOTCONN from `veth_open`), or moved at the
    /// end of its creation, which takes it down.
    Late,
    /// With a name and index only (tun).
    Bare,
}

impl Made {
    fn late_up(self, end: &End) -> bool {
        // IPv6's address mode must be set before.
        self != Made::Whole || end.addrgenmode.is_some()
    }
}

/// The settings that creation left out.
pub fn remaining(end: &End, index: u32, how: Made) -> Option<LinkMessage> {
    let mut message = change(index);
    let attributes = &mut message.attributes;
    attributes.extend(end.alias.clone().map(LinkAttribute::IfAlias));
    attributes.extend(end.master.map(LinkAttribute::Controller));
    if how == Made::Bare {
        attributes.extend(plain(end));
    }
    let late_up = end.up && how.late_up(end);
    if late_up {
        up(&mut message, true);
    }
    (late_up || !message.attributes.is_empty()).then_some(message)
}

/// A message about the link with that index.
pub fn change(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Makes `port` a port of `master`; 0 frees it.
pub fn master(port: u32, master: u32) -> LinkMessage {
    let mut message = change(port);
    message.attributes.push(LinkAttribute::Controller(master));
    message
}

pub fn up(message: &mut LinkMessage, up: bool) {
    message.header.flags.set(LinkFlags::Up, up);
    message.header.change_mask = LinkFlags::Up;
}

pub fn addrgenmode(index: u32, mode: AddrGenMode) -> LinkMessage {
    let mut message = change(index);
    let mode = match mode {
        AddrGenMode::Eui64 => In6AddrGenMode::Eui64,
        AddrGenMode::None => In6AddrGenMode::None,
        AddrGenMode::StablePrivacy => In6AddrGenMode::StablePrivacy,
        AddrGenMode::Random => In6AddrGenMode::Random,
    };
    let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)]);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![inet6]));
    message
}
