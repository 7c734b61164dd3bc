//! What stands in the way of something that a load asks for, and goes with the same load: it makes room.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::commit::{Done, Sockets};
use super::ways::{Going, RTPROT_KERNEL};
use super::{Action, Deed, Stage};
use crate::kernel::netlink::Netlink;
use crate::kernel::route::{self, RouteInfo};
use crate::kernel::{address, link};
use crate::own::owned::{LinkPlace, Owned};
use crate::{Error, Result};

/// The metric of the kernel's own IPv6 routes (IP6_RT_PRIO_ADDRCONF).
const ADDRCONF_METRIC: u32 = 256;

/// IPv6 addresses that wait for a commit: a link has each only once, whatever its prefix (`ipv6_add_addr`,
/// net/ipv6/addrconf.c).
pub(super) struct Alone(HashSet<(LinkPlace, IpAddr)>);

impl Alone {
    pub(super) fn of(actions: &[Action]) -> Alone {
        let waiting = actions.iter().filter_map(|action| match &action.deed {
            Deed::Put { new, .. } => Some(&**new),
            Deed::Other(_) => None,
        });
        let asked = waiting.filter_map(|new| match new {
            Owned::Link { end, .. } => Some((new.link()?, end.addresses.as_slice())),
            Owned::Address { address, .. } => Some((new.link()?, std::slice::from_ref(address))),
            _ => None,
        });
        let each = asked.flat_map(|(place, all)| all.iter().map(move |one| (place, one.ip())));
        Alone(each.filter(|(_, ip)| ip.is_ipv6()).collect())
    }
}

impl Stage {
    /// The addresses that a link's constructor does not say any more stay until all has been made: nothing needs to come
    /// back when it is refused, and a path by another link is there first. What the entry is to be then, if any do.
    pub(super) fn keep_addresses(&self, deed: &mut Deed, alone: &Alone) -> Option<(u64, Owned)> {
        let Deed::Put { number, new, old: Some(old) } = deed else { return None };
        let place = new.link()?;
        let less = (**new).clone();
        let Owned::Link { end: before, .. } = self.ledger.get(*old)? else { return None };
        let Owned::Link { end, .. } = &mut **new else { return None };
        let mut kept = before.addresses;
        kept.retain(|a| !end.addresses.contains(a) && !alone.0.contains(&(place, a.ip())));
        end.addresses.extend(&kept);
        (!kept.is_empty()).then_some((*number, less))
    }

    /// Undoes now what is to be undone last, if it can be what something was refused for. Whether there was any.
    pub(super) fn make_room(&self, error: &Error, deed: &Deed, done: &mut Vec<Done>) -> bool {
        let Deed::Put { new, .. } = deed else { return false };
        let named = self.named.borrow();
        let entries = self.ledger.entries(|number, owned| {
            let goes = self.is_older(number) && !named.contains(&number);
            goes && is_in_the_way(owned, new, error)
        });
        let before = done.len();
        for (number, owned) in entries.into_iter().rev() {
            // One that cannot be is told of when it is tried again, last.
            if owned.undo().is_ok() {
                self.shake(&owned);
                self.ledger.forget(number);
                done.push(Done::Unset { number, owned: Box::new(owned) });
            }
        }
        done.len() > before
    }
}

fn is_in_the_way(owned: &Owned, new: &Owned, error: &Error) -> bool {
    match (owned, new) {
        // A link is needed up again, or its MTU, or IPv6.
        (
            Owned::LinkSetting { .. },
            Owned::Route { .. } | Owned::Neigh { .. } | Owned::Address { .. },
        ) => {
            let cookie = |owned: &Owned| owned.netns().map(|netns| netns.cookie);
            !error.is("EEXIST") && cookie(owned) == cookie(new)
        }
        (Owned::Address { address: there, .. }, Owned::Address { .. } | Owned::Link { .. }) => {
            let wanted = match new {
                Owned::Link { end, .. } => end.addresses.as_slice(),
                Owned::Address { address, .. } => std::slice::from_ref(address),
                _ => &[],
            };
            let again = |wanted: &IpNetwork| there.is_ipv6() && wanted.ip() == there.ip();
            error.is("EEXIST") && owned.link() == new.link() && wanted.iter().any(again)
        }
        _ => false,
    }
}

impl Going {
    /// The route of the kernel's own that stands where this one is wanted, if nothing else does and it goes: with its link,
    /// or with the last address of its subnet.
    ///
    /// # Errors
    /// What the kernel refuses to list.
    pub(super) fn gives_way(
        &self,
        wanted: &Owned,
        sockets: &mut Sockets,
    ) -> Result<Option<route::Options>> {
        let Owned::Route { netns, route, .. } = wanted else { return Ok(None) };
        if self.is_empty() {
            return Ok(None);
        }
        let netlink = sockets.of(wanted)?;
        let addresses = address::list(netlink, None)?;
        let place = |index: u32| LinkPlace { cookie: netns.cookie, index };
        let stays = |dev: u32, dst: &IpNetwork| {
            addresses.iter().any(|there| {
                let address = there.address;
                there.index == dev
                    && !self.addresses.contains_key(&(place(dev), address))
                    && (address.network(), address.prefix()) == (dst.network(), dst.prefix())
            })
        };
        let goes = |there: &RouteInfo| {
            let (Some(dev), Some(dst), RTPROT_KERNEL) = (there.dev, there.dst, there.protocol)
            else {
                return false;
            };
            self.links.contains_key(&place(dev))
                || (self.with_address(place(dev), there).is_some() && !stays(dev, &dst))
        };
        let same = standing(route, netlink)?;
        Ok(same.first().filter(|_| same.iter().all(goes)).map(RouteInfo::options))
    }
}

impl Stage {
    /// Whether only the kernel's own routes stand where this one is wanted, and these could go with what a load before this one
    /// has made.
    pub(super) fn could_get_room(&self, wanted: &Owned, netlink: &Netlink) -> Result<bool> {
        let Owned::Route { netns, route, .. } = wanted else { return Ok(false) };
        let cookie = netns.cookie;
        let could_go = |there: &RouteInfo| {
            let place = there.dev.map(|index| LinkPlace { cookie, index });
            let older = |number: u64, owned: &Owned| self.is_older(number) && owned.link() == place;
            there.protocol == RTPROT_KERNEL && !self.ledger.entries(older).is_empty()
        };
        Ok(standing(route, netlink)?.iter().all(could_go))
    }
}

/// The routes where this one is wanted, whoever they are from.
fn standing(wanted: &route::Options, netlink: &Netlink) -> Result<Vec<RouteInfo>> {
    let bare = route::Options { via: None, dev: None, ..wanted.clone() };
    let table = Some(wanted.table.unwrap_or(route::TABLE_MAIN));
    let mut there = route::list(netlink, &route::Filter { table, ..Default::default() })?;
    there.retain(|there| bare.is(there));
    Ok(there)
}

/// Gives IPv6 addresses the route of their subnet where the script had one in its place, which has gone: the kernel made none
/// then (`fib6_add_rt2node`, net/ipv6/ip6_fib.c).
pub(super) fn connect(gone: &[(u64, Owned)], sockets: &mut Sockets) {
    for (_, owned) in gone {
        let Owned::Route { route, .. } = owned else { continue };
        let (Some(dst), Some(dev), None) = (route.dst, route.dev, route.via) else { continue };
        let is_main = route.table.is_none_or(|table| table == route::TABLE_MAIN);
        if !dst.is_ipv6() || route.metric != Some(ADDRCONF_METRIC) || !is_main {
            continue;
        }
        let connected = sockets.of(owned).and_then(|netlink| {
            let there = address::list(netlink, Some(dev))?;
            let of = |a: IpNetwork| (a.network(), a.prefix()) == (dst.network(), dst.prefix());
            let connects = |a: &address::AddressInfo| of(a.address) && !a.no_prefix_route;
            let link = link::info(netlink, dev)?;
            // In a VRF it is in another table.
            let in_vrf = |master| link::info(netlink, master).is_ok_and(|it| it.kind == "vrf");
            if !there.iter().any(connects) || !link.up || link.master.is_some_and(in_vrf) {
                return Ok(());
            }
            let own = route::Options {
                dst: Some(dst),
                dev: Some(dev),
                metric: route.metric,
                protocol: Some(RTPROT_KERNEL),
                ..route::Options::default()
            };
            route::add(netlink, &own)
        });
        if let Err(error) = connected
            && !error.is("EEXIST")
        {
            tracing::warn!("{dst}: {error}");
        }
    }
}
