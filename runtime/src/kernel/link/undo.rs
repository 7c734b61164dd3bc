//! Changing a link that is not ours so that it can be as it was: attributes, and what the kernel took away with them.
//!
//! A link that goes down loses its IPv6 addresses and its routes, an MTU below 1280 the IPv6 ones, a primary address its
//! secondaries (`addrconf_ifdown`, `fib_sync_down_dev`, `inet_del_ifa`): one undo is not one inverse.

use super::{Change, LinkInfo, info, parse_mac, set};
use crate::Result;
use crate::kernel::address::{self, AddressInfo};
use crate::kernel::netlink::Netlink;
use crate::kernel::route::{self, RouteInfo};
use serde::{Deserialize, Serialize};

/// How to put a link back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Undo {
    index: u32,
    /// Attributes as they were, and as they were made.
    before: Change,
    after: Change,
    lost: Lost,
}

/// Changes the link as [`set`] does.
///
/// # Errors
/// As [`set`]; then nothing was changed.
#[cfg(test)]
fn change(netlink: &Netlink, index: u32, wanted: &Change) -> Result<Undo> {
    let mut undo = Undo::snapshot(netlink, index, wanted, true)?;
    set(netlink, index, wanted)?;
    undo.settle(netlink)?;
    Ok(undo)
}

impl Undo {
    /// What the link has now of what `wanted` speaks of, taken before the change; with `whole`, its addresses and routes
    /// too, which the change may take away.
    ///
    /// # Errors
    /// ENODEV when the link is gone.
    pub fn snapshot(netlink: &Netlink, index: u32, wanted: &Change, whole: bool) -> Result<Undo> {
        let before = attributes(&info(netlink, index)?, wanted);
        let lost = if whole { Lost::snapshot(netlink, Some(index))? } else { Lost::default() };
        Ok(Undo { index, before, after: wanted.clone(), lost })
    }

    /// After the change: what the link has become, and of the snapshot only what is gone.
    ///
    /// # Errors
    /// ENODEV when the link is gone.
    pub fn settle(&mut self, netlink: &Netlink) -> Result<()> {
        self.after = attributes(&info(netlink, self.index)?, &self.after);
        self.lost.settle(netlink, Some(self.index))
    }

    /// This change comes after `first`: where both speak of something, what stood before the first counts; and what
    /// that one took away is not forgotten.
    #[must_use]
    pub fn after(mut self, first: &Undo, wanted: &Change) -> Undo {
        self.before = self.before.overlaid(&first.before.only(wanted));
        self.lost.extend(&first.lost);
        self
    }

    /// What the change took away.
    pub fn lost(&self) -> &Lost {
        &self.lost
    }

    /// The attributes as they were.
    pub fn before(&self) -> &Change {
        &self.before
    }

    /// Puts back every attribute that still is as it was made, and what was lost. Called again, it does what is left.
    ///
    /// # Errors
    /// What the kernel refuses; the rest is done all the same.
    pub fn restore(&self, netlink: &Netlink) -> Result<()> {
        let now = attributes(&info(netlink, self.index)?, &self.after);
        let mut left = Vec::new();
        macro_rules! mine {
            ($($field:ident),*) => {
                Change {
                    addrgenmode: None,
                    $($field: if now.$field == self.before.$field {
                        None
                    } else if now.$field == self.after.$field {
                        self.before.$field.clone()
                    } else {
                        left.push(stringify!($field));
                        None
                    }),*
                }
            };
        }
        let back = mine!(mtu, mac, master, alias, txqueuelen, group, promiscuous, up);
        if !left.is_empty() {
            let words = left.join(", ");
            tracing::warn!("{words} of link index {} left: changed by someone else", self.index);
        }
        let outcome =
            if back == Change::default() { Ok(()) } else { set(netlink, self.index, &back) };
        outcome.and(self.lost.restore(netlink))
    }
}

/// The attributes of a link that `wanted` speaks of.
fn attributes(now: &LinkInfo, wanted: &Change) -> Change {
    Change {
        mtu: wanted.mtu.map(|_| now.mtu),
        mac: wanted.mac.and(now.mac.as_deref()).and_then(|mac| parse_mac(mac).ok()),
        master: wanted.master.map(|_| now.master.unwrap_or(0)),
        alias: wanted.alias.as_ref().map(|_| now.alias.clone().unwrap_or_default()),
        txqueuelen: wanted.txqueuelen.map(|_| now.txqueuelen),
        group: wanted.group.map(|_| now.group),
        addrgenmode: None,
        promiscuous: wanted.promiscuous.map(|_| now.flags & libc::IFF_PROMISC as u32 != 0),
        up: wanted.up.map(|_| now.up),
    }
}

/// Addresses and routes that went away with something else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    addresses: Vec<AddressInfo>,
    routes: Vec<RouteInfo>,
}

/// What a person or a program put there; the kernel's own comes back by itself.
fn present(netlink: &Netlink, index: Option<u32>) -> Result<Lost> {
    const RTPROT_KERNEL: u8 = 2;
    let mut addresses = address::list(netlink, index)?;
    addresses.retain(|a| a.permanent && !(a.address.is_ipv6() && a.scope == "link"));
    let all = route::Filter { table: Some(route::ALL_TABLES), dev: index, ..Default::default() };
    let mut routes = route::list(netlink, &all)?;
    routes.retain(|route| route.protocol != RTPROT_KERNEL);
    Ok(Lost { addresses, routes })
}

impl Lost {
    /// All that one link, or the whole namespace, could lose.
    ///
    /// # Errors
    /// What the kernel refuses to list.
    pub fn snapshot(netlink: &Netlink, index: Option<u32>) -> Result<Lost> {
        present(netlink, index)
    }

    /// Keeps only what is gone by now.
    ///
    /// # Errors
    /// As [`Lost::snapshot`].
    pub fn settle(&mut self, netlink: &Netlink, index: Option<u32>) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let now = present(netlink, index)?;
        self.addresses.retain(|a| !now.has_address(a));
        self.routes.retain(|r| !now.has_route(r));
        Ok(())
    }

    /// Takes in what an earlier change took away.
    pub fn extend(&mut self, earlier: &Lost) {
        self.addresses.splice(0..0, earlier.addresses.iter().cloned());
        self.routes.splice(0..0, earlier.routes.iter().cloned());
    }

    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.routes.is_empty()
    }

    fn has_address(&self, wanted: &AddressInfo) -> bool {
        self.addresses.iter().any(|a| a.index == wanted.index && a.address == wanted.address)
    }

    fn has_route(&self, wanted: &RouteInfo) -> bool {
        let key = |r: &RouteInfo| (r.table, r.dst, r.ipv6, r.tos, r.metric, r.via, r.dev);
        self.routes.iter().any(|r| key(r) == key(wanted))
    }

    /// Puts back what is still missing, addresses first, in their order: the first of a subnet is its primary one.
    ///
    /// # Errors
    /// The first refusal; the rest is put back all the same.
    pub fn restore(&self, netlink: &Netlink) -> Result<()> {
        let mut outcome = Ok(());
        for a in &self.addresses {
            let options = address::Options {
                peer: a.peer,
                broadcast: match a.broadcast {
                    Some(std::net::IpAddr::V4(ip)) => Some(ip),
                    _ => None,
                },
                ..address::Options::new(a.address)
            };
            outcome = outcome.and(there_is_done(address::add(netlink, a.index, &options)));
        }
        for route in &self.routes {
            outcome = outcome.and(there_is_done(route::add(netlink, &route.options())));
        }
        outcome
    }
}

fn there_is_done(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.is("EEXIST") => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::link::tests::Scratch;
    use crate::kernel::link::{self, End, NewLink};

    fn pair(scratch: &Scratch) -> u32 {
        let mut new = NewLink::new(&scratch.1, link::kinds::find("veth").unwrap(), End::named("a"));
        new.end.addresses = ["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        new.peer = Some((&scratch.1, End::named("b")));
        link::create(&new).unwrap().index
    }

    #[test]
    fn a_link_that_was_down_has_its_addresses_and_routes_again() {
        let scratch = Scratch::new("undo");
        let netlink = &scratch.1;
        let index = pair(&scratch);
        for (dst, via) in [("10.9.0.0/16", "10.0.0.7"), ("fd09::/48", "fd00::7")] {
            let route = route::Options {
                dst: Some(dst.parse().unwrap()),
                via: Some(via.parse().unwrap()),
                dev: Some(index),
                ..Default::default()
            };
            route::add(netlink, &route).unwrap();
        }
        let before = present(netlink, Some(index)).unwrap();
        assert_eq!((before.addresses.len(), before.routes.len()), (3, 2));
        let wanted = Change { up: Some(false), mtu: Some(1200), ..Change::default() };
        let undo = change(netlink, index, &wanted).unwrap();
        assert!(!undo.lost.is_empty());
        undo.restore(netlink).unwrap();
        let now = info(netlink, index).unwrap();
        assert_eq!((now.up, now.mtu), (true, 1500));
        let after = present(netlink, Some(index)).unwrap();
        assert!(before.addresses.iter().all(|a| after.has_address(a)), "{after:?}");
        assert!(before.routes.iter().all(|r| after.has_route(r)), "{after:?}");
    }

    #[test]
    fn what_someone_else_changed_since_is_left() {
        let scratch = Scratch::new("undo2");
        let netlink = &scratch.1;
        let index = pair(&scratch);
        let wanted = Change { mtu: Some(1400), alias: Some("ours".into()), ..Change::default() };
        let undo = change(netlink, index, &wanted).unwrap();
        set(netlink, index, &Change { mtu: Some(1300), ..Change::default() }).unwrap();
        undo.restore(netlink).unwrap();
        let now = info(netlink, index).unwrap();
        assert_eq!((now.mtu, now.alias), (1300, None));
    }

    #[test]
    fn secondaries_come_back_behind_their_primary() {
        let scratch = Scratch::new("undo3");
        let netlink = &scratch.1;
        let index = pair(&scratch);
        let first = "10.0.0.1/24".parse().unwrap();
        let mut lost = Lost::snapshot(netlink, Some(index)).unwrap();
        address::delete(netlink, index, first).unwrap();
        lost.settle(netlink, Some(index)).unwrap();
        assert_eq!(lost.addresses.len(), 2);
        lost.restore(netlink).unwrap();
        let v4: Vec<_> = address::list(netlink, Some(index)).unwrap();
        let v4: Vec<_> = v4.iter().filter(|a| a.address.is_ipv4()).collect();
        assert_eq!(v4[0].address, first);
        assert_eq!((v4[0].secondary, v4[1].secondary), (false, true));
    }
}
