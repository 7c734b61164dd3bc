//! Routes (`ip-route(8)`, net/ipv4/fib_frontend.c, net/ipv6/route.c).

mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub use words::{kind, kind_name, protocol, protocol_name, scope, scope_name, table};

use crate::kernel::address::family;
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::{Error, Result};

/// One way of several.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NextHop {
    pub via: Option<IpAddr>,
    /// Link index.
    pub dev: Option<u32>,
    /// 1 to 256; 0 means 1.
    pub weight: u16,
    pub onlink: bool,
}

/// A route to be added, or deleted: then only what is given must match.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Options {
    /// `None` is the default route; then `family6` says which.
    pub dst: Option<IpNetwork>,
    /// IPv6's default route, when neither `dst`, `via` nor `src` tells the family.
    pub family6: bool,
    /// The gateway; an IPv6 one for an IPv4 route is fine.
    pub via: Option<IpAddr>,
    /// Link index.
    pub dev: Option<u32>,
    /// Source address for what the box itself sends.
    pub src: Option<IpAddr>,
    /// 254 (main) when not given.
    pub table: Option<u32>,
    pub metric: Option<u32>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// RT_SCOPE_*, see [`scope`]; as `ip` chooses when not given.
    pub scope: Option<u8>,
    /// RTPROT_*, see [`protocol`]; boot when not given, as with `ip`.
    pub protocol: Option<u8>,
    /// RTN_*, see [`kind`]; unicast when not given.
    pub kind: Option<u8>,
    pub nexthops: Vec<NextHop>,
    /// The gateway is on the link though no route says so.
    pub onlink: bool,
    pub tos: u8,
}

/// A route as it is now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RouteInfo {
    /// `None` is the default route.
    pub dst: Option<IpNetwork>,
    pub ipv6: bool,
    pub via: Option<IpAddr>,
    pub dev: Option<u32>,
    pub src: Option<IpAddr>,
    pub table: u32,
    pub metric: Option<u32>,
    pub mtu: Option<u32>,
    pub scope: u8,
    pub protocol: u8,
    pub kind: u8,
    pub nexthops: Vec<NextHop>,
    pub onlink: bool,
    pub tos: u8,
    /// The link is down or has no carrier.
    pub linkdown: bool,
}

pub const TABLE_MAIN: u32 = 254;
/// Of IPv6 routes that are given none (IP6_RT_PRIO_USER).
const IPV6_METRIC: u32 = 1024;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const SCOPE_NOWHERE: u8 = 255;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTPROT_BOOT: u8 = 3;

/// Adds the route.
///
/// # Errors
/// EEXIST when table, destination, tos and metric are taken, ENETUNREACH or EHOSTUNREACH when no link reaches the gateway,
/// ENODEV when the link is gone.
pub fn add(netlink: &Netlink, options: &Options) -> Result<()> {
    run(netlink, RouteNetlinkMessage::NewRoute(message(options, true)?), options, ADD)
}

/// Adds the route, or puts it in the place of the one with equal table, destination, tos and metric.
pub fn replace(netlink: &Netlink, options: &Options) -> Result<()> {
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    run(netlink, RouteNetlinkMessage::NewRoute(message(options, true)?), options, flags)
}

/// Deletes the first route that matches all that is given.
///
/// # Errors
/// ESRCH when none does.
pub fn delete(netlink: &Netlink, options: &Options) -> Result<()> {
    run(netlink, RouteNetlinkMessage::DelRoute(message(options, false)?), options, 0)
}

const ADD: u16 = NLM_F_CREATE | NLM_F_EXCL;

fn run(
    netlink: &Netlink,
    message: RouteNetlinkMessage,
    options: &Options,
    flags: u16,
) -> Result<()> {
    let op = match (&message, flags) {
        (RouteNetlinkMessage::DelRoute(_), _) => "route.delete",
        (_, ADD) => "route.add",
        _ => "route.replace",
    };
    netlink.request(message, flags).map_err(|e| explain(e, op, options))
}

fn explain(error: NetlinkError, op: &'static str, options: &Options) -> Error {
    let errno = error.errno;
    let error = error.into_error(op).subject(options.subject());
    let nowhere = options.dev.is_none() && options.via.is_none() && options.nexthops.is_empty();
    match errno {
        Errno::ENODEV if nowhere => error.because("it does not say where to go").hint(
            "give via, dev or nexthops, or a type that needs none: blackhole, unreachable, prohibit, throw",
        ),
        Errno::EEXIST => error
            .because("the table has a route with this destination and metric already")
            .hint("give it another metric"),
        Errno::ESRCH => error.because("the table has no such route"),
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => {
            error.hint("the gateway must lie in a subnet of that link, or use onlink=true")
        }
        _ => error,
    }
}

impl Options {
    /// `10.1.0.0/16 via 10.0.0.2`: what errors are about.
    pub fn subject(&self) -> String {
        let dst = self.dst.map_or_else(|| "default".to_owned(), |dst| dst.to_string());
        match self.via {
            Some(via) => format!("{dst} via {via}"),
            None => dst,
        }
    }

    /// Whether that is the route which adding this one makes: by what tells routes apart.
    pub fn is(&self, there: &RouteInfo) -> bool {
        let ipv6 = self.dst.map_or(self.family6, |dst| dst.is_ipv6());
        let metric = self.metric.filter(|metric| *metric > 0).or(ipv6.then_some(IPV6_METRIC));
        (self.dst, ipv6, self.table.unwrap_or(254), self.tos, metric)
            == (there.dst, there.ipv6, there.table, there.tos, there.metric)
            && self.via.is_none_or(|via| there.via == Some(via))
            && self.dev.is_none_or(|dev| there.dev == Some(dev))
    }

    /// As the kernel keeps it: without host bits, without the zero prefix, which is the default route, and without the metric
    /// that it would have anyway.
    pub fn normalised(mut self) -> Self {
        self.family6 = is_ipv6(&self);
        let usual = if self.family6 { IPV6_METRIC } else { 0 };
        self.metric = self.metric.filter(|metric| *metric > 0 && *metric != usual);
        self.dst = self
            .dst
            .filter(|dst| dst.prefix() > 0)
            .and_then(|dst| IpNetwork::new(dst.network(), dst.prefix()).ok());
        self
    }
}

/// Whether it is an IPv6 route.
fn is_ipv6(options: &Options) -> bool {
    let from = options.dst.map(|d| d.is_ipv6()).or(options.src.map(|s| s.is_ipv6()));
    let via = options.via.or_else(|| options.nexthops.iter().find_map(|hop| hop.via));
    from.or(via.map(|v| v.is_ipv6())).unwrap_or(options.family6)
}

fn message(options: &Options, new: bool) -> Result<RouteMessage> {
    let ipv6 = is_ipv6(options);
    let wrong = |text: &str| Err(Error::invalid("route", text));
    if options.src.is_some_and(|src| src.is_ipv6() != ipv6) {
        return wrong("src and dst are of different families");
    }
    if ipv6 && options.via.is_some_and(|via| via.is_ipv4()) {
        return wrong("an IPv6 route cannot have an IPv4 gateway");
    }
    if !options.nexthops.is_empty() && (options.via.is_some() || options.dev.is_some()) {
        return wrong("a route has either nexthops or one via and dev");
    }
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let kind = options.kind.unwrap_or(if new { RTN_UNICAST } else { 0 });
    header.kind = kind.into();
    header.protocol = options.protocol.unwrap_or(if new { RTPROT_BOOT } else { 0 }).into();
    header.scope = options.scope.unwrap_or_else(|| default_scope(options, kind, new, ipv6)).into();
    header.tos = options.tos;
    if options.onlink {
        header.flags |= RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    if let Some(dst) = options.dst {
        header.destination_prefix_length = dst.prefix();
        // The kernel refuses host bits in an IPv4 destination; a network is what a route is about.
        attributes.push(RouteAttribute::Destination(dst.network().into()));
    }
    let table = options.table.unwrap_or(TABLE_MAIN);
    match u8::try_from(table) {
        Ok(small) => header.table = small,
        Err(_) => attributes.push(RouteAttribute::Table(table)),
    }
    attributes.extend(options.via.map(|via| gateway(via, ipv6)));
    attributes.extend(options.dev.map(RouteAttribute::Oif));
    attributes.extend(options.src.map(|src| RouteAttribute::PrefSource(src.into())));
    attributes.extend(options.metric.map(RouteAttribute::Priority));
    attributes.extend(options.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    if !options.nexthops.is_empty() {
        let hops: Result<Vec<_>> = options.nexthops.iter().map(|hop| nexthop(hop, ipv6)).collect();
        attributes.push(RouteAttribute::MultiPath(hops?));
    }
    Ok(message)
}

/// As iproute2: local routes are of host scope, routes without a gateway of link scope; deleting leaves it open.
fn default_scope(options: &Options, kind: u8, new: bool, ipv6: bool) -> u8 {
    let direct = options.via.is_none() && options.nexthops.iter().all(|hop| hop.via.is_none());
    match kind {
        _ if !new => SCOPE_NOWHERE,
        _ if ipv6 => SCOPE_UNIVERSE,
        RTN_LOCAL => SCOPE_HOST,
        RTN_UNICAST if direct => SCOPE_LINK,
        _ => SCOPE_UNIVERSE,
    }
}

fn gateway(via: IpAddr, ipv6: bool) -> RouteAttribute {
    if via.is_ipv6() == ipv6 {
        RouteAttribute::Gateway(via.into())
    } else {
        RouteAttribute::Via(via.into())
    }
}

fn nexthop(hop: &NextHop, ipv6: bool) -> Result<RouteNextHop> {
    let mut message = RouteNextHop::default();
    message.interface_index = hop.dev.unwrap_or(0);
    message.hops = match hop.weight {
        0 | 1 => 0,
        weight => u8::try_from(weight - 1)
            .map_err(|_| Error::invalid("route", "a weight is from 1 to 256"))?,
    };
    if hop.onlink {
        message.flags |= RouteNextHopFlags::Onlink;
    }
    message.attributes.extend(hop.via.map(|via| gateway(via, ipv6)));
    Ok(message)
}

/// What to list; what is `None` matches all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// 254 (main) when not given; [`ALL_TABLES`] for all.
    pub table: Option<u32>,
    pub ipv6: Option<bool>,
    pub dev: Option<u32>,
    pub protocol: Option<u8>,
    pub kind: Option<u8>,
    /// Exactly this destination; `Some(None)` is the default route.
    pub dst: Option<Option<IpNetwork>>,
    pub via: Option<IpAddr>,
}

pub const ALL_TABLES: u32 = 0;

/// The routes of a namespace that match.
pub fn list(netlink: &Netlink, filter: &Filter) -> Result<Vec<RouteInfo>> {
    let table = filter.table.unwrap_or(TABLE_MAIN);
    let mut routes = Vec::new();
    for ipv6 in [false, true] {
        if filter.ipv6.is_some_and(|wanted| wanted != ipv6) {
            continue;
        }
        let mut request = RouteMessage::default();
        request.header.address_family =
            if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        // The kernel filters by table where it can; a table that was never used is not there.
        if table != ALL_TABLES {
            request.attributes.push(RouteAttribute::Table(table));
        }
        match netlink.dump_parsed(&RouteNetlinkMessage::GetRoute(request)) {
            Ok(found) => routes.extend(found.iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(message) => decode(message),
                _ => None,
            })),
            Err(e) if e.errno == Errno::ENOENT => {}
            Err(e) => return Err(e.into_error("netns.routes")),
        }
    }
    routes.retain(|route| {
        (table == ALL_TABLES || route.table == table)
            && filter.dev.is_none_or(|dev| route.uses(dev))
            && filter.protocol.is_none_or(|protocol| route.protocol == protocol)
            && filter.kind.is_none_or(|kind| route.kind == kind)
            && filter.dst.is_none_or(|dst| route.dst == dst)
            && filter.via.is_none_or(|via| route.via == Some(via))
    });
    Ok(routes)
}

impl RouteInfo {
    fn uses(&self, dev: u32) -> bool {
        self.dev == Some(dev) || self.nexthops.iter().any(|hop| hop.dev == Some(dev))
    }

    /// Deletes or restores exactly this route.
    pub fn options(&self) -> Options {
        Options {
            dst: self.dst,
            family6: self.ipv6,
            via: self.via,
            // With nexthops the kernel repeats the first one's link.
            dev: self.dev.filter(|_| self.nexthops.is_empty()),
            src: self.src,
            table: Some(self.table),
            metric: self.metric,
            mtu: self.mtu,
            scope: Some(self.scope),
            protocol: Some(self.protocol),
            kind: Some(self.kind),
            nexthops: self.nexthops.clone(),
            onlink: self.onlink,
            tos: self.tos,
        }
    }
}

/// Reads RTM_NEWROUTE and RTM_DELROUTE; cached copies of routes are none.
pub(in crate::kernel) fn decode(message: &RouteMessage) -> Option<RouteInfo> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let ipv6 = header.address_family == AddressFamily::Inet6;
    let mut route = RouteInfo {
        ipv6,
        table: header.table.into(),
        scope: header.scope.into(),
        protocol: header.protocol.into(),
        kind: header.kind.into(),
        tos: header.tos,
        onlink: header.flags.contains(RouteFlags::Onlink),
        linkdown: header.flags.contains(RouteFlags::Linkdown),
        ..RouteInfo::default()
    };
    // A prefix without an address is the zero one (224.0.0.0/0 never, ::/8 possible).
    let mut dst = (header.destination_prefix_length > 0).then(|| unspecified(ipv6));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => dst = address(ip),
            RouteAttribute::Gateway(ip) => route.via = address(ip),
            RouteAttribute::Via(via) => route.via = via_address(via),
            RouteAttribute::Oif(index) => route.dev = Some(*index),
            RouteAttribute::PrefSource(ip) => route.src = address(ip),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::MultiPath(hops) => {
                route.nexthops = hops.iter().map(decode_hop).collect();
            }
            _ => {}
        }
    }
    route.dst = match dst {
        Some(ip) if header.destination_prefix_length > 0 => {
            IpNetwork::new(ip, header.destination_prefix_length).ok()
        }
        _ => None,
    };
    Some(route)
}

fn decode_hop(hop: &RouteNextHop) -> NextHop {
    let via = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(ip) => address(ip),
        RouteAttribute::Via(via) => via_address(via),
        _ => None,
    });
    NextHop {
        via,
        dev: Some(hop.interface_index).filter(|index| *index != 0),
        weight: u16::from(hop.hops) + 1,
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
    }
}

fn unspecified(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn address(ip: &RouteAddress) -> Option<IpAddr> {
    match ip {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn via_address(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(ip) => Some((*ip).into()),
        RouteVia::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// The route the kernel would take to `to`.
///
/// # Errors
/// ENETUNREACH when there is none.
pub fn get(netlink: &Netlink, to: IpAddr, from: Option<IpAddr>) -> Result<RouteInfo> {
    const OP: &str = "route.get";
    let mut request = RouteMessage::default();
    request.header.address_family = family(to);
    request.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
    request.attributes.push(RouteAttribute::Destination(to.into()));
    if let Some(from) = from {
        request.header.source_prefix_length = request.header.destination_prefix_length;
        request.attributes.push(RouteAttribute::Source(from.into()));
    }
    let found = netlink
        .answer(RouteNetlinkMessage::GetRoute(request))
        .map_err(|e| e.into_error(OP).subject(to.to_string()))?;
    let route = match found.parse() {
        Some(RouteNetlinkMessage::NewRoute(mut message)) => {
            message.header.flags.remove(RouteFlags::Cloned);
            decode(&message)
        }
        _ => None,
    };
    route.ok_or_else(|| Error::new(OP, "EBADMSG", "the kernel's answer holds no route"))
}

#[cfg(test)]
mod tests;
