//! What the kernel knows about a router's next hops and the box's own addresses.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkLayerType, LinkMessage};

use rustc_hash::{FxHashMap, FxHashSet};

use super::policy::{Action, Device, Policy, Prefix};
use crate::kernel::link::{self, LinkInfo};
use crate::kernel::netlink::Netlink;
use crate::kernel::route::{self, RouteInfo};
use crate::{Error, Result};

const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTN_ANYCAST: u8 = 4;
const TABLE_LOCAL: u32 = 255;

/// The links of a namespace, and which next hops their routes reach directly.
pub struct Neighbourhood<'a> {
    netlink: &'a Netlink,
    links: FxHashMap<u32, LinkInfo>,
    /// Read when first asked for.
    direct: Option<FxHashMap<u32, Vec<Prefix>>>,
    reached: FxHashSet<(u32, IpAddr)>,
    /// The devices of the routes to next hops, asked for once each.
    towards: FxHashMap<IpAddr, Device>,
}

impl<'a> Neighbourhood<'a> {
    pub fn new(netlink: &'a Netlink) -> Result<Self> {
        let links = link::list(netlink)?.into_iter().map(|link| (link.index, link)).collect();
        let (reached, towards) = (FxHashSet::default(), FxHashMap::default());
        Ok(Neighbourhood { netlink, links, direct: None, reached, towards })
    }

    /// Fills in the devices that the policy leaves to the kernel's routes, and refuses what cannot be reached.
    ///
    /// # Errors
    /// ENODEV: a device does not exist. ENETUNREACH: no route on the device reaches the next hop.
    pub fn resolve(&mut self, policy: &mut Policy) -> Result<()> {
        self.find(policy).map_err(|e| e.subject(policy.to_string()))
    }

    fn find(&mut self, policy: &mut Policy) -> Result<()> {
        if let Some(device) = &policy.mirror {
            self.exists(device)?;
        }
        let Action::Route(hops) = &mut policy.action else { return Ok(()) };
        for hop in hops {
            match (&hop.dev, hop.via) {
                (None, None) => {}
                (None, Some(via)) => hop.dev = Some(self.device_towards(via)?),
                (Some(device), via) => {
                    self.exists(device)?;
                    if let Some(via) = via.filter(|_| !hop.onlink) {
                        self.reaches(device, via)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn exists(&self, device: &Device) -> Result<()> {
        match self.links.contains_key(&device.index) {
            true => Ok(()),
            false => Err(Error::new(
                "router:set",
                "ENODEV",
                format!("there is no link {} in the router's namespace", device.name),
            )),
        }
    }

    fn device_towards(&mut self, via: IpAddr) -> Result<Device> {
        if let Some(device) = self.towards.get(&via) {
            return Ok(device.clone());
        }
        let unreachable = |text: String| {
            Error::new("router:set", "ENETUNREACH", text)
                .hint("name the device: dev=, with onlink=true if no route reaches the next hop")
        };
        let route = route::get(self.netlink, via, None)
            .map_err(|_| unreachable(format!("no route reaches the next hop {via}")))?;
        if route.kind != RTN_UNICAST || route.via.is_some() {
            return Err(unreachable(format!("the next hop {via} is not on a link of its own")));
        }
        let link = route.dev.and_then(|index| self.links.get(&index));
        let device = link
            .map(|link| Device { index: link.index, name: link.name.as_str().into() })
            .ok_or_else(|| unreachable(format!("no route reaches the next hop {via}")))?;
        self.towards.insert(via, device.clone());
        Ok(device)
    }

    fn reaches(&mut self, device: &Device, via: IpAddr) -> Result<()> {
        if self.reached.contains(&(device.index, via)) {
            return Ok(());
        }
        if self.direct.is_none() {
            self.direct = Some(direct_routes(self.netlink)?);
        }
        let routes = self.direct.as_ref().and_then(|all| all.get(&device.index));
        if routes.is_some_and(|routes| routes.iter().any(|prefix| prefix.contains(via))) {
            self.reached.insert((device.index, via));
            return Ok(());
        }
        Err(Error::new(
            "router:set",
            "ENETUNREACH",
            format!("no route on {} reaches the next hop {via}", device.name),
        )
        .hint("give the device an address in the next hop's network, or say onlink=true"))
    }
}

fn direct_routes(netlink: &Netlink) -> Result<FxHashMap<u32, Vec<Prefix>>> {
    let filter = route::Filter { table: Some(route::ALL_TABLES), ..route::Filter::default() };
    let mut direct: FxHashMap<u32, Vec<Prefix>> = FxHashMap::default();
    for route in route::list(netlink, &filter)? {
        if let (RTN_UNICAST, None, Some(device)) = (route.kind, route.via, route.dev) {
            direct.entry(device).or_default().extend(destination(&route));
        }
    }
    Ok(direct)
}

fn destination(route: &RouteInfo) -> Option<Prefix> {
    match route.dst {
        Some(net) => Prefix::new(net.ip(), net.prefix()).ok(),
        None if route.ipv6 => Prefix::new(IpAddr::from([0u8; 16]), 0).ok(),
        None => Prefix::new(IpAddr::from([0u8; 4]), 0).ok(),
    }
}

/// What of the box's own addresses this route tells: local, broadcast, anycast. In other tables than `local` (a VRF's)
/// only single addresses: wider ones are there for transparent proxies, and chosen by rules.
pub fn local_prefix(route: &RouteInfo) -> Option<Prefix> {
    if ![RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST].contains(&route.kind) {
        return None;
    }
    destination(route).filter(|prefix| {
        prefix.length() == prefix.family().bits()
            || (route.table == TABLE_LOCAL && prefix.length() > 0)
    })
}

pub fn local_prefixes(netlink: &Netlink) -> Result<FxHashSet<Prefix>> {
    let filter = route::Filter { table: Some(route::ALL_TABLES), ..route::Filter::default() };
    Ok(route::list(netlink, &filter)?.iter().filter_map(local_prefix).collect())
}

/// Whether packets of the link come without a link-layer header (tun, ipip, wireguard).
pub fn is_headerless(netlink: &Netlink, index: u32) -> Result<bool> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let found = netlink
        .answer(RouteNetlinkMessage::GetLink(message))
        .map_err(|e| e.into_error("policy.router").subject(format!("index {index}")))?;
    Ok(matches!(found.parse(), Some(RouteNetlinkMessage::NewLink(link)) if !matches!(
        link.header.link_layer_type,
        LinkLayerType::Ether | LinkLayerType::Loopback
    )))
}

/// Whether the link can send: administratively up, and operational.
pub fn is_up(link: &LinkInfo) -> bool {
    link.up && link.running
}
