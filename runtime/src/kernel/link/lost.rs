//! Addresses, neighbours, routes and settings that the kernel takes away along with something else, kept as the messages
//! in which it showed them: sent back, they are what they were, with every attribute (as `ip route save` does it).

use std::collections::HashSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::RouteMessage;
use nix::errno::Errno;

use crate::Result;
use crate::kernel::netlink::attribute::{attributes, find};
use crate::kernel::netlink::{Netlink, NetlinkError, Raw};
use crate::kernel::{neigh, route, sysctl};

/// What went away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    addresses: Vec<Saved>,
    neighbours: Vec<Saved>,
    routes: Vec<Saved>,
    /// Of IPv6 on one link, by their keys.
    settings: Vec<(String, String)>,
}

/// Addresses, neighbours and routes of one namespace, by what tells each from others.
#[derive(Debug, Default)]
pub struct Things(HashSet<Vec<u8>>);

impl Things {
    pub fn add_address(&mut self, index: u32, address: IpNetwork) {
        let mut key = vec![b'a', family(address.ip()), address.prefix()];
        key.extend(index.to_ne_bytes());
        key.extend(bytes(address.ip()));
        self.0.insert(key);
    }

    pub fn add_neighbour(&mut self, neigh: &neigh::Options) {
        let proxy = if neigh.proxy { NTF_PROXY } else { 0 };
        let mut key = vec![b'n', family(neigh.dst), proxy];
        key.extend(neigh.dev.to_ne_bytes());
        key.extend(bytes(neigh.dst));
        self.0.insert(key);
    }

    pub fn add_route(&mut self, route: &route::Options) {
        let ipv6 = route.dst.map_or(route.family6, |dst| dst.is_ipv6());
        // IP6_RT_PRIO_USER
        let metric = route.metric.unwrap_or(if ipv6 { 1024 } else { 0 });
        let dst = route.dst.filter(|dst| dst.prefix() > 0);
        let mut key = vec![b'r', if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8];
        key.extend([dst.map_or(0, |dst| dst.prefix()), route.tos]);
        key.extend(route.table.unwrap_or(route::TABLE_MAIN).to_ne_bytes());
        key.extend(metric.to_ne_bytes());
        key.extend(dst.map(|dst| bytes(dst.ip())).unwrap_or_default());
        self.0.insert(key);
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv6() { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The body of a message: its fixed header, of `header` bytes, and attributes.
#[derive(Debug, Clone, PartialEq)]
struct Saved(Vec<u8>);

/// struct ifaddrmsg, ndmsg, rtmsg: all have 12 bytes but the first, which has 8.
const ADDRESS_HEADER: usize = 8;
const HEADER: usize = 12;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const IFAPROT_KERNEL_LL: u8 = 3;
/// Of IPv6, where it is IFA_F_TEMPORARY: the kernel makes those itself.
const IFA_F_SECONDARY: u32 = 1;
const SCOPE_LINK: u8 = 253;

const NDA_DST: u16 = 1;
const NUD_PERMANENT: u16 = 0x80;
const NTF_PROXY: u8 = 0x08;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_EXPIRES: u16 = 23;
const RTA_NH_ID: u16 = 30;
const RTPROT_KERNEL: u8 = 2;
const RTM_F_CLONED: u32 = 0x200;
/// The one flag of a next hop that is a person's.
const RTNH_F_ONLINK: u8 = 4;

impl Lost {
    /// All that one link, or the whole namespace, could lose: what a person or a program put there. The kernel's own comes
    /// back by itself. Routes from an address of the link that go over other links count.
    ///
    /// # Errors
    /// What the kernel refuses to list.
    pub fn snapshot(netlink: &Netlink, index: Option<u32>) -> Result<Lost> {
        let here = |saved: &Saved, at: usize| index.is_none_or(|index| saved.word(at) == index);
        let mut addresses =
            dump(netlink, RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        addresses.retain(|a| here(a, 4));
        let sources: Vec<Vec<u8>> =
            addresses.iter().filter_map(|a| a.attribute(ADDRESS_HEADER, IFA_LOCAL)).collect();
        addresses.retain(Saved::is_persons_address);
        let mut neighbours = Vec::new();
        for proxy in [false, true] {
            let mut request = NeighbourMessage::default();
            request.header.flags.set(NeighbourFlags::Proxy, proxy);
            neighbours.extend(dump(netlink, RouteNetlinkMessage::GetNeighbour(request))?);
        }
        neighbours.retain(|n| here(n, 4) && n.is_persons_neighbour());
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            routes.extend(dump(netlink, RouteNetlinkMessage::GetRoute(request))?);
        }
        routes.retain(|route| {
            let source = route.attribute(HEADER, RTA_PREFSRC);
            route.is_persons_route()
                && (index.is_none_or(|index| route.uses(index))
                    || source.is_some_and(|source| sources.contains(&source)))
        });
        routes.iter_mut().for_each(Saved::make_request);
        Ok(Lost { addresses, neighbours, routes, settings: Vec::new() })
    }

    /// The link's IPv6 settings too: they go when IPv6 does.
    ///
    /// # Errors
    /// ENODEV when the link is gone.
    pub fn with_settings(mut self, netlink: &Netlink, index: u32) -> Result<Lost> {
        let name = super::info(netlink, index)?.name;
        self.settings = sysctl::of_link(netlink.netns(), "ipv6", &name)?;
        Ok(self)
    }

    /// Keeps only what is gone by now.
    ///
    /// # Errors
    /// As [`Lost::snapshot`].
    pub fn settle(&mut self, netlink: &Netlink) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let now = Lost::snapshot(netlink, None)?;
        let gone = |all: &mut Vec<Saved>, now: &[Saved], key: fn(&Saved) -> Vec<u8>| {
            let now: HashSet<Vec<u8>> = now.iter().map(key).collect();
            all.retain(|one| !now.contains(&key(one)));
        };
        gone(&mut self.addresses, &now.addresses, Saved::address_key);
        gone(&mut self.neighbours, &now.neighbours, Saved::neighbour_key);
        gone(&mut self.routes, &now.routes, Saved::route_key);
        Ok(())
    }

    /// Takes in what an earlier change took away.
    pub fn extend(&mut self, earlier: &Lost) {
        self.addresses.splice(0..0, earlier.addresses.iter().cloned());
        self.neighbours.splice(0..0, earlier.neighbours.iter().cloned());
        self.routes.splice(0..0, earlier.routes.iter().cloned());
        self.settings.retain(|(key, _)| earlier.settings.iter().all(|(known, _)| known != key));
        self.settings.splice(0..0, earlier.settings.iter().cloned());
    }

    pub fn is_empty(&self) -> bool {
        *self == Lost::default()
    }

    /// The settings have been put back: what is older may change them now.
    pub fn forget_settings(&mut self) {
        self.settings.clear();
    }

    /// Forgets what is not to come back.
    pub fn drop_all(&mut self, these: &Things) {
        self.addresses.retain(|a| !these.0.contains(&a.address_key()));
        self.neighbours.retain(|n| !these.0.contains(&n.neighbour_key()));
        self.routes.retain(|r| !these.0.contains(&r.short_route_key()));
    }

    /// Puts back what is still missing: settings, addresses in their order (the first of a subnet is its primary one),
    /// neighbours, routes.
    ///
    /// # Errors
    /// The first refusal; the rest is put back all the same.
    pub fn restore(&self, netlink: &Netlink) -> Result<()> {
        let mut outcome = Ok(());
        // Before an address: it can depend on them.
        for (key, value) in &self.settings {
            // One whose link is gone, or down on IPv6, has none.
            if sysctl::read(netlink.netns(), key).is_ok_and(|now| now != *value) {
                outcome = outcome.and(sysctl::write(netlink.netns(), key, value).map(drop));
            }
        }
        let put = |kind: u16, all: &[Saved]| -> Result<()> {
            all.iter().map(|one| one.put(netlink, kind)).fold(Ok(()), Result::and)
        };
        outcome = outcome.and(put(libc::RTM_NEWADDR, &self.addresses));
        outcome = outcome.and(put(libc::RTM_NEWNEIGH, &self.neighbours));
        // A gateway can be reached by a route that comes later in the list.
        let mut left: Vec<&Saved> = self.routes.iter().collect();
        loop {
            let before = left.len();
            left.retain(|route| route.put(netlink, libc::RTM_NEWROUTE).is_err());
            if left.is_empty() || left.len() == before {
                break;
            }
        }
        left.first()
            .map_or(outcome.clone(), |route| outcome.and(route.put(netlink, libc::RTM_NEWROUTE)))
    }
}

fn dump(netlink: &Netlink, request: RouteNetlinkMessage) -> Result<Vec<Saved>> {
    let found = netlink.dump(&request).map_err(|e| e.into_error("link.info"))?;
    Ok(found.into_iter().map(|Raw { body, .. }| Saved(body)).filter(|s| s.0.len() >= 8).collect())
}

impl Saved {
    /// One that is there already is as good.
    fn put(&self, netlink: &Netlink, kind: u16) -> Result<()> {
        let raw = Raw { kind, body: self.0.clone() };
        match netlink.request_raw(&raw, NLM_F_CREATE | NLM_F_EXCL) {
            Err(NetlinkError { errno: Errno::EEXIST, .. }) => Ok(()),
            other => other.map_err(|e| e.into_error("restore").subject(self.words(kind))),
        }
    }

    /// For people, when it is refused.
    fn words(&self, kind: u16) -> String {
        let words = Raw { kind, body: self.0.clone() }.parse();
        match words {
            Some(RouteNetlinkMessage::NewRoute(message)) => {
                let route = crate::kernel::route::decode(&message);
                let dst = route.and_then(|route| route.dst);
                dst.map_or("route default".into(), |dst| format!("route {dst}"))
            }
            Some(RouteNetlinkMessage::NewAddress(message)) => {
                let address = crate::kernel::address::decode(&message);
                address.map_or("address".into(), |a| format!("address {}", a.address))
            }
            _ => "neighbour".into(),
        }
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn attribute(&self, header: usize, kind: u16) -> Option<Vec<u8>> {
        find(self.0.get(header..)?, kind).map(<[u8]>::to_vec)
    }

    fn is_ipv6(&self) -> bool {
        i32::from(self.byte(0)) == libc::AF_INET6
    }

    fn is_persons_address(&self) -> bool {
        let flags = self.attribute(ADDRESS_HEADER, IFA_FLAGS);
        let flags = flags.and_then(|f| f.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let kernels = match self.attribute(ADDRESS_HEADER, IFA_PROTO) {
            Some(proto) => proto.first() == Some(&IFAPROT_KERNEL_LL),
            // Before Linux 5.18 nobody says whose it is.
            None => self.byte(3) == SCOPE_LINK,
        };
        !self.is_ipv6() || (flags & IFA_F_SECONDARY == 0 && !kernels)
    }

    fn address_key(&self) -> Vec<u8> {
        let mut key = vec![b'a', self.byte(0), self.byte(1)];
        key.extend(self.word(4).to_ne_bytes());
        let ip = [IFA_LOCAL, IFA_ADDRESS].iter().find_map(|k| self.attribute(ADDRESS_HEADER, *k));
        key.extend(ip.unwrap_or_default());
        key
    }

    fn is_persons_neighbour(&self) -> bool {
        let state = u16::from_ne_bytes([self.byte(8), self.byte(9)]);
        state & NUD_PERMANENT != 0 || self.byte(10) & NTF_PROXY != 0
    }

    fn neighbour_key(&self) -> Vec<u8> {
        let mut key = vec![b'n', self.byte(0), self.byte(10) & NTF_PROXY];
        key.extend(self.word(4).to_ne_bytes());
        key.extend(self.attribute(HEADER, NDA_DST).unwrap_or_default());
        key
    }

    fn is_persons_route(&self) -> bool {
        self.byte(5) != RTPROT_KERNEL && self.word(8) & RTM_F_CLONED == 0
    }

    /// Whether it goes over that link, one of its next hops does.
    fn uses(&self, index: u32) -> bool {
        let is = |value: &[u8]| value == index.to_ne_bytes();
        let hops = self.attribute(HEADER, RTA_MULTIPATH).unwrap_or_default();
        self.attribute(HEADER, RTA_OIF).is_some_and(|oif| is(&oif))
            || next_hops(&hops).any(|(at, _)| hops.get(at + 4..at + 8).is_some_and(is))
    }

    /// What the kernel has but one route of.
    fn short_route_key(&self) -> Vec<u8> {
        let mut key = vec![b'r', self.byte(0), self.byte(1), self.byte(3)];
        let table = u32::from(self.byte(4)).to_ne_bytes().to_vec();
        key.extend(self.attribute(HEADER, RTA_TABLE).unwrap_or(table));
        key.extend(self.attribute(HEADER, RTA_PRIORITY).unwrap_or(vec![0; 4]));
        key.extend(self.attribute(HEADER, RTA_DST).unwrap_or_default());
        key
    }

    /// All that a request could say of it.
    fn route_key(&self) -> Vec<u8> {
        let mut key = self.0.get(..8).unwrap_or_default().to_vec();
        let mut all: Vec<_> = attributes(self.0.get(HEADER..).unwrap_or_default())
            .map(|a| (a.kind, a.value))
            .collect();
        all.retain(|(kind, _)| *kind != RTA_METRICS);
        all.sort();
        for (kind, value) in all {
            key.extend(kind.to_ne_bytes());
            key.extend(value);
        }
        key
    }

    /// Without what the kernel tells of a route and does not take: that its link is down, when it was used; the hops of a
    /// next hop object, which are the object's.
    fn make_request(&mut self) {
        let object = self.attribute(HEADER, RTA_NH_ID).is_some();
        let mut made = self.0.get(..HEADER).unwrap_or_default().to_vec();
        // rtm_flags
        made.splice(8..12, u32::from(self.byte(8) & RTNH_F_ONLINK).to_ne_bytes());
        for one in attributes(self.0.get(HEADER..).unwrap_or_default()) {
            let of_object = [RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA].contains(&one.kind);
            if (object && of_object) || [RTA_CACHEINFO, RTA_EXPIRES].contains(&one.kind) {
                continue;
            }
            let mut value = one.value.to_vec();
            if one.kind == RTA_MULTIPATH {
                let places: Vec<usize> = next_hops(&value).map(|(at, _)| at).collect();
                // rtnh_flags
                places.iter().for_each(|at| value[at + 2] &= RTNH_F_ONLINK);
            }
            made.extend((value.len() as u16 + 4).to_ne_bytes());
            made.extend(one.kind.to_ne_bytes());
            made.extend(&value);
            made.resize(made.len().next_multiple_of(4), 0);
        }
        self.0 = made;
    }
}

/// Where each struct rtnexthop begins, and its length.
fn next_hops(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let found = (length >= 8 && bytes.len() >= at + 8).then_some((at, length))?;
        at += length.next_multiple_of(4);
        Some(found)
    })
}

/// In a journal: hexadecimal.
impl Serialize for Saved {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Saved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("not hexadecimal");
        let pairs = text.as_bytes().chunks(2);
        let bytes = pairs.map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            u8::from_str_radix(pair, 16).map_err(|_| wrong())
        });
        Ok(Saved(bytes.collect::<std::result::Result<_, _>>()?))
    }
}
