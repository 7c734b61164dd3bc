//! What somebody else has deleted of what this instance owns: addresses, rules, neighbours and routes. (Links and namespaces
//! are found missing by their constructors, attachments and pins by `Owned::is_severed`.)
//!
//! A dump for each namespace tells, which is too much for the reload of a script with hundreds of them: the namespaces that a
//! commit changes something in are looked at before it, the rest a moment after it.

use std::collections::{BTreeSet, HashSet};

use super::{Deed, Phase, Stage};
use crate::Result;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::{address, rule};
use crate::own::deed::{self, Place};
use crate::own::owned::Owned;

/// A link with a smaller one loses its IPv6.
const IPV6_MIN_MTU: u32 = 1280;

impl Stage {
    /// The namespaces, by their cookies, where something could be missing.
    pub fn inhabited(&self) -> BTreeSet<u64> {
        let entries = self.ledger.entries(|_, owned| can_be_missing(owned));
        entries.iter().filter_map(|(_, owned)| Some(owned.netns()?.cookie)).collect()
    }

    /// The same, of those that this load is to change.
    pub(super) fn touched(&self) -> BTreeSet<u64> {
        let actions = self.actions.borrow();
        let puts = actions.iter().filter_map(|action| match &action.deed {
            Deed::Put { new, .. } if can_be_missing(new) => Some(new.netns()?.cookie),
            _ => None,
        });
        puts.collect()
    }

    /// Makes again what is missing in a namespace, and says so. Nothing where the script itself has taken something away:
    /// what went with it is not to come back.
    pub fn mend(&self, cookie: u64) {
        let inside = |owned: &Owned| owned.netns().is_some_and(|netns| netns.cookie == cookie);
        if self.ledger.any(|owned| inside(owned) && takes_away(owned)) {
            return;
        }
        let wanted = self.wanted();
        let entries: Vec<Owned> = self
            .ledger
            .entries(|number, owned| inside(owned) && can_be_missing(owned) && wanted(number))
            .into_iter()
            .map(|(_, owned)| owned)
            .collect();
        let Some(netns) = entries.first().and_then(Owned::netns) else { return };
        if let Err(error) = make_again(netns, &entries) {
            tracing::debug!("netns {}: not looked after: {error}", netns.name);
        }
    }

    /// Whether an entry is to stay as it is.
    fn wanted(&self) -> impl Fn(u64) -> bool {
        let phase = self.phase.get();
        let named = self.named.borrow().clone();
        let actions = self.actions.borrow();
        let replaced: HashSet<u64> = actions
            .iter()
            .filter_map(|action| match action.deed {
                Deed::Put { old, .. } => old,
                Deed::Other(_) => None,
            })
            .collect();
        move |number| match phase {
            Phase::Loading => named.contains(&number) && !replaced.contains(&number),
            Phase::First | Phase::Live => true,
            Phase::Ended => false,
        }
    }
}

fn can_be_missing(owned: &Owned) -> bool {
    match owned {
        Owned::Address { .. } | Owned::Rule { .. } | Owned::Route { .. } => true,
        // Proxies are in no list of neighbours.
        Owned::Neigh { neigh, .. } => !neigh.proxy,
        Owned::Link { end, .. } => !end.addresses.is_empty(),
        _ => false,
    }
}

/// Whether addresses, neighbours or routes went with it.
fn takes_away(owned: &Owned) -> bool {
    let lost = owned.lost().is_some_and(|lost| !lost.is_empty());
    lost || match owned {
        Owned::DeletedAddress { .. } => true,
        Owned::LinkSetting { wanted, .. } => {
            wanted.up == Some(false)
                || wanted.master.is_some()
                || wanted.mtu.is_some_and(|mtu| mtu < IPV6_MIN_MTU)
        }
        Owned::Sysctl { key, .. } => key.contains("disable_ipv6"),
        _ => false,
    }
}

fn make_again(netns: &Netns, entries: &[Owned]) -> Result<()> {
    let netlink = Netlink::open(&netns.fd)?;
    let addresses = address::list(&netlink, None)?;
    for owned in entries {
        let (index, wanted) = match owned {
            Owned::Link { index, end, .. } => (*index, end.addresses.as_slice()),
            Owned::Address { index, address, .. } => (*index, std::slice::from_ref(address)),
            _ => continue,
        };
        let there = |ip| addresses.iter().any(|a| (a.index, a.address) == (index, ip));
        for ip in wanted.iter().copied().filter(|ip| !there(*ip)) {
            let what = match owned {
                Owned::Link { .. } => format!("address {ip} of {owned}"),
                _ => owned.to_string(),
            };
            tell(&what, address::add(&netlink, index, &address::Options::new(ip)));
        }
    }
    if entries.iter().any(|owned| matches!(owned, Owned::Rule { .. })) {
        let rules = rule::list(&netlink, None)?;
        for owned in entries {
            if let Owned::Rule { rule, .. } = owned
                && !rules.iter().any(|there| rule.is(there))
            {
                tell(&owned.to_string(), rule::add(&netlink, rule));
            }
        }
    }
    // One can be the way of another.
    let place = Place { netlink: &netlink, ours: true, repair: true, over: false };
    let mut missing = deed::missing(&netlink, entries.iter())?;
    loop {
        let before = missing.len();
        missing.retain(|owned| match (*owned).clone().put(None, &place) {
            Ok(()) => {
                tell(&owned.to_string(), Ok(()));
                false
            }
            Err(_) => true,
        });
        if missing.is_empty() || missing.len() == before {
            break;
        }
    }
    for owned in missing {
        tell(&owned.to_string(), (*owned).clone().put(None, &place));
    }
    Ok(())
}

fn tell(what: &str, made: Result<()>) {
    match made {
        Ok(()) => tracing::warn!("{what} was deleted by someone else; it is made again"),
        // There after all, or its link has gone too: that is for its constructor to find.
        Err(error) if ["EEXIST", "ENODEV"].contains(&error.code()) => {
            tracing::debug!("{what}: {error}");
        }
        Err(error) => {
            let why = error.message();
            tracing::warn!("{what} was deleted by someone else, and cannot be made again: {why}");
        }
    }
}
