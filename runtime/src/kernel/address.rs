//! IP addresses of links (`ip-address(8)`, net/ipv4/devinet.c, net/ipv6/addrconf.c).

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::kernel::netlink::{Batch, Netlink, NetlinkError};

pub(in crate::kernel) const ADD: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// An address to be added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    pub address: IpNetwork,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// IPv4 only; as with `ip`, there is none unless given.
    pub broadcast: Option<Ipv4Addr>,
    /// Wait for IPv6's duplicate address detection (a second) before the address is usable.
    pub detect_duplicates: bool,
    /// Metric of the route to its subnet.
    pub metric: Option<u32>,
    /// Without the route to its subnet.
    pub no_prefix_route: bool,
}

impl Options {
    pub fn new(address: IpNetwork) -> Self {
        Options {
            address,
            peer: None,
            broadcast: None,
            detect_duplicates: false,
            metric: None,
            no_prefix_route: false,
        }
    }
}

/// An address as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddressInfo {
    pub address: IpNetwork,
    /// Link index.
    pub index: u32,
    pub peer: Option<IpAddr>,
    pub broadcast: Option<IpAddr>,
    /// "global", "link", "host", "site"
    pub scope: String,
    pub secondary: bool,
    /// Not usable yet: duplicate address detection runs.
    pub tentative: bool,
    pub dad_failed: bool,
    /// Not from a router advertisement or DHCP.
    pub permanent: bool,
    /// Its subnet has no route by it.
    pub no_prefix_route: bool,
}

pub(in crate::kernel) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub(in crate::kernel) fn new_message(index: u32, options: &Options) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(message(index, options))
}

fn message(index: u32, options: &Options) -> AddressMessage {
    let ip = options.address.ip();
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = options.address.prefix();
    message.header.index = index;
    // As iproute2: addresses of 127/8 have host scope.
    if ip.is_loopback() {
        message.header.scope = AddressScope::Host;
    }
    let attributes = &mut message.attributes;
    attributes.push(AddressAttribute::Local(ip));
    attributes.push(AddressAttribute::Address(options.peer.unwrap_or(ip)));
    attributes.extend(options.broadcast.map(AddressAttribute::Broadcast));
    attributes.extend(options.metric.map(AddressAttribute::RoutePriority));
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Nodad, ip.is_ipv6() && !options.detect_duplicates);
    flags.set(AddressFlags::Noprefixroute, options.no_prefix_route);
    if !flags.is_empty() {
        attributes.push(AddressAttribute::Flags(flags));
    }
    message
}

/// Adds an address to the link with that index.
///
/// # Errors
/// EEXIST when the link has it, ENODEV when the link is gone, EACCES where IPv6 is disabled, EINVAL for IPv6 on an MTU
/// below 1280.
pub fn add(netlink: &Netlink, index: u32, options: &Options) -> Result<()> {
    netlink
        .request(new_message(index, options), ADD)
        .map_err(|e| explain(e, "link.add_address", &options.address))?;
    if !options.detect_duplicates {
        wait_usable(netlink, [options.address.ip()]);
    }
    Ok(())
}

/// Waits until IPv6 addresses that were added without duplicate address detection are heard: the kernel joins their multicast
/// groups and adds their local routes in a work of its own (`addrconf_dad_work`), a moment after it has agreed. What comes
/// before is lost: a datagram for good, a neighbour's question for a second. At most 0.1 s: then the link itself is not ready.
pub(in crate::kernel) fn wait_usable(netlink: &Netlink, all: impl IntoIterator<Item = IpAddr>) {
    const RTN_LOCAL: u8 = 2;
    let start = Instant::now();
    for ip in all.into_iter().filter(IpAddr::is_ipv6) {
        let heard = || super::route::get(netlink, ip, None).is_ok_and(|r| r.kind == RTN_LOCAL);
        while !heard() && start.elapsed() < Duration::from_millis(100) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Adds several in one send; the first refusal is reported, the others are added.
pub fn add_many(netlink: &Netlink, index: u32, all: &[Options]) -> Result<()> {
    let mut batch = Batch::new();
    for options in all {
        batch.push(new_message(index, options), ADD);
    }
    batch.run_all(netlink).map_err(|e| {
        let address = all[e.index].address;
        explain(e, "link.add_address", &address)
    })
}

/// Deletes an address. Deleting a primary IPv4 address deletes its secondaries, unless `promote_secondaries` is set.
///
/// # Errors
/// EADDRNOTAVAIL when the link does not have it.
pub fn delete(netlink: &Netlink, index: u32, address: IpNetwork) -> Result<()> {
    let message = message(index, &Options::new(address));
    netlink
        .request(RouteNetlinkMessage::DelAddress(message), 0)
        .map_err(|e| explain(e, "link.delete_address", &address))
}

fn explain(error: NetlinkError, op: &'static str, address: &IpNetwork) -> crate::Error {
    let errno = error.errno;
    let error = error.into_error(op).subject(address.to_string());
    match errno {
        Errno::EEXIST => error.because("the link has this address already"),
        Errno::EADDRNOTAVAIL => error.because("the link does not have this address"),
        Errno::EACCES if address.is_ipv6() => {
            error.hint("IPv6 may be off here: net.ipv6.conf.all.disable_ipv6")
        }
        Errno::EINVAL if address.is_ipv6() => {
            error.hint("IPv6 needs an MTU of at least 1280 and a prefix of at most 128")
        }
        _ => error,
    }
}

/// The addresses of one link, or of all.
pub fn list(netlink: &Netlink, index: Option<u32>) -> Result<Vec<AddressInfo>> {
    let mut request = AddressMessage::default();
    // With strict checking the kernel filters by index itself.
    request.header.index = index.unwrap_or(0);
    let found = netlink
        .dump_parsed(&RouteNetlinkMessage::GetAddress(request))
        .map_err(|e| e.into_error("link.addresses"))?;
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => decode(&message),
            _ => None,
        })
        .filter(|address| index.is_none_or(|index| address.index == index))
        .collect())
}

/// Reads RTM_NEWADDR and RTM_DELADDR.
pub(in crate::kernel) fn decode(message: &AddressMessage) -> Option<AddressInfo> {
    let (mut local, mut address, mut broadcast) = (None, None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(IpAddr::V4(*ip)),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // IPv6 without a peer has only the one.
    let ip = local.or(address)?;
    let secondary = AddressHeaderFlags::Secondary.bits().into();
    Some(AddressInfo {
        address: IpNetwork::new(ip, message.header.prefix_len).ok()?,
        index: message.header.index,
        peer: address.filter(|peer| *peer != ip),
        broadcast,
        scope: match message.header.scope {
            AddressScope::Universe => "global".to_owned(),
            AddressScope::Site => "site".to_owned(),
            AddressScope::Link => "link".to_owned(),
            AddressScope::Host => "host".to_owned(),
            AddressScope::Nowhere => "nowhere".to_owned(),
            other => u8::from(other).to_string(),
        },
        secondary: ip.is_ipv4() && flags.contains(AddressFlags::from_bits_retain(secondary)),
        tentative: flags.contains(AddressFlags::Tentative),
        no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
        permanent: flags.contains(AddressFlags::Permanent),
    })
}
