//! Putting a thing in place, or in the place of another.

use std::path::Path;

use ipnetwork::IpNetwork;

use super::followers::Names;
use super::{Place, find_mounted, gone_is_done, promoting};
use crate::kernel::bpf::hook::{self, Attachment};
use crate::kernel::bpf::{Map, pins};
use crate::kernel::link::{self, Change};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::{address, neigh, qdisc, route, rule, sysctl};
use crate::own::owned::{AttachmentPlace, LinkEnd, Mounted, Owned};
use crate::{Result, fault};

impl Owned {
    /// Puts it in place, or in the place of `old`.
    ///
    /// # Errors
    /// What the kernel refuses; then nothing has changed.
    pub fn put(&mut self, old: Option<&Owned>, at: &Place<'_>) -> Result<()> {
        let netlink = at.netlink;
        match self {
            Owned::Pin { path, map: Some(map), text, .. } => {
                tell_unpinned(old, text);
                pin(map, path)
            }
            Owned::Pin { .. } => Ok(()),
            Owned::Netns(_) | Owned::Process { .. } | Owned::Other { .. } => Ok(()),
            Owned::Link { netns, index, name, end } => match old {
                Some(Owned::Link { end: old, .. }) => {
                    reshape(netlink, *index, end, old)?;
                    readdress(netns, name, *index, netlink, (&end.addresses, &old.addresses))
                        .inspect_err(|_| drop(reshape(netlink, *index, old, end)))
                }
                _ => Ok(()),
            },
            Owned::Address { index, address, .. } => match old {
                Some(_) => Ok(()),
                None => address::add(netlink, *index, &address::Options::new(*address)),
            },
            Owned::DeletedAddress { index, address, lost, .. } => {
                address::delete(netlink, *index, *address)?;
                lost.settle(netlink)
            }
            Owned::LinkSetting { index, wanted, before, .. } => {
                let change = match old {
                    Some(Owned::LinkSetting { wanted: old, before: first, .. }) => {
                        wanted.instead_of(old, first.before())
                    }
                    _ => (**wanted).clone(),
                };
                if !change.is_empty() {
                    link::set(netlink, *index, &change)?;
                }
                // Up again, or large enough for IPv6: what had been taken comes back, as far as the script lets it: the
                // rest comes at the end.
                if let Some(Owned::LinkSetting { before: first, .. }) = old
                    && (change.up == Some(true) || change.mtu.is_some())
                    && let Err(error) = first.lost().restore(netlink)
                {
                    tracing::debug!("not back yet: {error}");
                }
                before.settle(netlink)
            }
            Owned::LinkName { index, after, .. } => link::rename(netlink, *index, after),
            Owned::Sysctl { netns, key, after, settled, followers, lost, .. } => {
                sysctl::write(&netns.fd, key, after)?;
                // What was written can read back otherwise ("0x10" as 16): undoing compares with what the kernel says.
                *after = sysctl::read(&netns.fd, key)?;
                *settled = true;
                let names = Names::now(netlink, followers)?;
                for follower in followers {
                    follower.after = sysctl::read(&netns.fd, &names.key(follower)).ok();
                }
                lost.settle(netlink)
            }
            Owned::Route { route, .. } => match old {
                None if !at.over => route::add(netlink, route),
                _ => route::replace(netlink, route),
            },
            Owned::Rule { rule, .. } => match old {
                // The new one first: no packet finds neither.
                Some(Owned::Rule { rule: old, .. }) => {
                    rule::add(netlink, rule)?;
                    rule::delete(netlink, old)
                }
                _ => rule::add(netlink, rule),
            },
            Owned::Neigh { neigh, .. } => match old {
                Some(_) => neigh::replace(netlink, neigh),
                None => neigh::add(netlink, neigh),
            },
            Owned::Qdisc { index, qdisc, .. } => qdisc::replace(netlink, *index, qdisc),
            Owned::Attachment { place, pin, filter, mounted: Some(mounted), .. } => {
                let attached = mount(place, mounted, old, at.repair)?;
                tell_unpinned(old, &format!("{} on {}", place.slot, place.link));
                *filter = attached.filter_place();
                if let (Some(path), None) = (pin.as_deref(), &*filter) {
                    keep_pinned(&attached, path, place)?;
                }
                mounted.attached = Some(attached);
                Ok(())
            }
            Owned::Attachment { .. } => Ok(()),
        }
    }
}

/// Makes a link what its constructor says now, where that differs from what it said before.
fn reshape(netlink: &Netlink, index: u32, new: &LinkEnd, old: &LinkEnd) -> Result<()> {
    // What a constructor does not say is as the kernel makes it.
    let usual = Change {
        mtu: Some(1500),
        mac: None,
        master: Some(0),
        alias: Some(String::new()),
        txqueuelen: Some(1000),
        group: Some(0),
        addrgenmode: Some(link::AddrGenMode::Eui64),
        promiscuous: Some(false),
        up: Some(true),
    };
    let change = new.settings.instead_of(&old.settings, &usual);
    if !change.is_empty() {
        link::set(netlink, index, &change)?;
    }
    Ok(())
}

/// Gives a link its new addresses and takes the old ones away, in this order: a path between them stays. But a link has an
/// IPv6 address only once, whatever its prefix.
fn readdress(
    netns: &Netns,
    name: &str,
    index: u32,
    netlink: &Netlink,
    (new, old): (&[IpNetwork], &[IpNetwork]),
) -> Result<()> {
    let again = |a: &IpNetwork| a.is_ipv6() && new.iter().any(|new| new.ip() == a.ip());
    let (first, gone): (Vec<&IpNetwork>, Vec<&IpNetwork>) =
        old.iter().filter(|a| !new.contains(a)).partition(|a| again(a));
    let delete = |all: &[&IpNetwork]| {
        all.iter().try_for_each(|a| gone_is_done(address::delete(netlink, index, **a)))
    };
    let add = |a: &IpNetwork| address::add(netlink, index, &address::Options::new(*a));
    let mut added = Vec::new();
    let mut give = || {
        delete(&first)?;
        for address in new.iter().filter(|a| !old.contains(a)) {
            add(address)?;
            added.push(address);
        }
        match gone.is_empty() {
            true => Ok(()),
            false => promoting(netns, name, None, || delete(&gone)),
        }
    };
    give().inspect_err(|_| {
        // As far as it goes: what was refused is what is told.
        added.iter().for_each(|a| drop(delete(&[*a])));
        first.iter().chain(&gone).for_each(|a| drop(add(a)));
    })
}

/// Attaches a program, or puts it in the place of the one that `old` attached.
fn mount(
    place: &AttachmentPlace,
    new: &Mounted,
    old: Option<&Owned>,
    repair: bool,
) -> Result<Attachment> {
    let target = place.target();
    let attach = || hook::attach(&target, place.hook, &new.program, &new.order);
    let Some(Owned::Attachment { pin, filter, trace, mounted, .. }) = old else {
        return attach();
    };
    let (attached, order_is_same, program_is_same) = match mounted {
        Some(old) => {
            let same = old.program.id() == new.program.id();
            (old.attached.clone(), old.order.same(&new.order), same)
        }
        // A dead process's: where it stands is where the script put it.
        None => (find_mounted(place, pin.as_deref(), *filter, trace), true, false),
    };
    let Some(attached) = attached else { return attach() };
    if order_is_same {
        return match attached.replace(&new.program) {
            Ok(()) => Ok(attached),
            // Severed, or detached by somebody else.
            Err(error) if repair && ["ENOLINK", "ENODEV", "ENOENT"].contains(&error.code()) => {
                let made = attach()?;
                let AttachmentPlace { link, slot, .. } = place;
                tracing::warn!(
                    "{slot} on {link} was taken off by someone else; it is attached again"
                );
                Ok(made)
            }
            Err(error) => Err(error),
        };
    }
    if program_is_same {
        // The kernel takes a program only once on a hook.
        attached.detach()?;
        return attach();
    }
    let made = attach()?;
    attached.detach()?;
    Ok(made)
}

/// Says that the pin of what is about to be pinned again was removed by somebody else.
fn tell_unpinned(old: Option<&Owned>, what: &str) {
    let live = |owned: &&Owned| match owned {
        Owned::Attachment { mounted, .. } => mounted.is_some(),
        Owned::Pin { map, .. } => map.is_some(),
        _ => false,
    };
    let (Some(Owned::Attachment { pin: Some(path), .. }) | Some(Owned::Pin { path, .. })) =
        old.filter(live)
    else {
        return;
    };
    if !path.exists() {
        let path = path.display();
        tracing::warn!(
            "the pin of {what}, {path}, was removed by someone else; it is pinned again"
        );
    }
}

/// Pins a map, in the place of the one that is pinned there.
fn pin(map: &Map, path: &Path) -> Result<()> {
    if Map::pinned(path).is_ok_and(|there| there.id() == map.id()) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        pins::make_directory(directory)?;
    }
    let _ = std::fs::remove_file(path);
    fault::point();
    map.pin(path)
}

/// Pins a bpf link, unless it is the one that is pinned there.
///
/// # Errors
/// EPERM and EACCES without a bpffs.
pub fn keep_pinned(attached: &Attachment, path: &Path, place: &AttachmentPlace) -> Result<()> {
    let there = Attachment::pinned(path, &place.target(), place.hook);
    if there.is_ok_and(|there| there.link_id() == attached.link_id()) {
        return Ok(());
    }
    let _ = std::fs::remove_file(path);
    if let Some(directory) = path.parent() {
        pins::make_directory(directory)?;
    }
    fault::point();
    attached.pin(path)
}
