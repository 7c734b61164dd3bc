//! Changing a link that is not ours so that it can be as it was: attributes, and what the kernel took away with them.
//!
//! A link that goes down loses its IPv6 addresses, its neighbours and its routes, an MTU below 1280 all of IPv6, a primary address its
//! secondaries (`addrconf_ifdown`, `fib_sync_down_dev`, `inet_del_ifa`): one undo is not one inverse.

use super::{AddrGenMode, Change, LinkInfo, Lost, info, parse_mac, set};
use crate::Result;
use crate::kernel::netlink::Netlink;
use crate::kernel::sysctl;
use serde::{Deserialize, Serialize};

/// Below it a link has no IPv6 (IPV6_MIN_MTU).
const IPV6_MTU: u32 = 1280;

/// How to put a link back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Undo {
    index: u32,
    /// Attributes as they were, and as they were made.
    before: Change,
    after: Change,
    /// What an earlier change of ours had made of it: it is that until this one has happened.
    until_then: Change,
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
        let now = info(netlink, index)?;
        let before = attributes(netlink, &now, wanted);
        let mut lost = if whole { Lost::snapshot(netlink, Some(index))? } else { Lost::default() };
        if whole && now.mtu >= IPV6_MTU && wanted.mtu.is_some_and(|mtu| mtu < IPV6_MTU) {
            lost = lost.with_settings(netlink, index)?;
        }
        Ok(Undo { index, before, after: wanted.clone(), until_then: Change::default(), lost })
    }

    /// After the change: what the link has become, and of the snapshot only what is gone.
    ///
    /// # Errors
    /// ENODEV when the link is gone.
    pub fn settle(&mut self, netlink: &Netlink) -> Result<()> {
        self.after = attributes(netlink, &info(netlink, self.index)?, &self.after);
        self.until_then = Change::default();
        self.lost.settle(netlink)
    }

    /// This change comes after `first`: where both speak of something, what stood before the first counts; and what
    /// that one took away is not forgotten.
    #[must_use]
    pub fn after(mut self, first: &Undo, wanted: &Change) -> Undo {
        self.before = self.before.overlaid(&first.before.only(wanted));
        self.until_then = first.after.clone();
        self.lost.extend(&first.lost);
        self
    }

    /// What the change took away.
    pub fn lost(&self) -> &Lost {
        &self.lost
    }

    /// As [`Undo::lost`], to be altered.
    pub fn lost_mut(&mut self) -> &mut Lost {
        &mut self.lost
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
        let now = attributes(netlink, &info(netlink, self.index)?, &self.after);
        let mut left = Vec::new();
        macro_rules! mine {
            ($($field:ident),*) => {
                Change {
                    $($field: if now.$field == self.before.$field {
                        None
                    } else if now.$field == self.after.$field
                        || now.$field == self.until_then.$field
                    {
                        self.before.$field.clone()
                    } else {
                        left.push(stringify!($field));
                        None
                    }),*
                }
            };
        }
        let back = mine!(mtu, mac, master, alias, txqueuelen, group, addrgenmode, promiscuous, up);
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
fn attributes(netlink: &Netlink, now: &LinkInfo, wanted: &Change) -> Change {
    Change {
        mtu: wanted.mtu.map(|_| now.mtu),
        mac: wanted.mac.and(now.mac.as_deref()).and_then(|mac| parse_mac(mac).ok()),
        master: wanted.master.map(|_| now.master.unwrap_or(0)),
        alias: wanted.alias.as_ref().map(|_| now.alias.clone().unwrap_or_default()),
        txqueuelen: wanted.txqueuelen.map(|_| now.txqueuelen),
        group: wanted.group.map(|_| now.group),
        addrgenmode: wanted.addrgenmode.and_then(|_| addrgenmode(netlink, &now.name)),
        promiscuous: wanted.promiscuous.map(|_| now.flags & libc::IFF_PROMISC as u32 != 0),
        up: wanted.up.map(|_| now.up),
    }
}

/// None where the link has no IPv6.
fn addrgenmode(netlink: &Netlink, link: &str) -> Option<AddrGenMode> {
    let number = sysctl::read(netlink.netns(), &format!("net/ipv6/conf/{link}/addr_gen_mode"));
    match number.ok()?.as_str() {
        "0" => Some(AddrGenMode::Eui64),
        "1" => Some(AddrGenMode::None),
        "2" => Some(AddrGenMode::StablePrivacy),
        "3" => Some(AddrGenMode::Random),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::link::tests::Scratch;
    use crate::kernel::{address, route};

    fn pair(scratch: &Scratch) -> u32 {
        scratch.veth(&["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"]).index
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
        let before = Lost::snapshot(netlink, Some(index)).unwrap();
        let wanted = Change { up: Some(false), mtu: Some(1200), ..Change::default() };
        let undo = change(netlink, index, &wanted).unwrap();
        assert!(!undo.lost.is_empty());
        undo.restore(netlink).unwrap();
        let now = info(netlink, index).unwrap();
        assert_eq!((now.up, now.mtu), (true, 1500));
        let mut missing = before.clone();
        missing.settle(netlink).unwrap();
        assert!(!before.is_empty() && missing.is_empty(), "{missing:?}");
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
        lost.settle(netlink).unwrap();
        assert!(!lost.is_empty());
        lost.restore(netlink).unwrap();
        let v4: Vec<_> = address::list(netlink, Some(index)).unwrap();
        let v4: Vec<_> = v4.iter().filter(|a| a.address.is_ipv4()).collect();
        assert_eq!(v4[0].address, first);
        assert_eq!((v4[0].secondary, v4[1].secondary), (false, true));
    }
}
