//! Altering, moving and deleting links.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{AddrGenMode, check_name, info, list, message, random, refusal};
use crate::kernel::netlink::{Batch, Netlink};
use crate::{Error, Result};

/// What to change; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Bytes.
    pub mtu: Option<u32>,
    pub mac: Option<[u8; 6]>,
    /// Index of the new master; 0 for none.
    pub master: Option<u32>,
    /// "" removes it.
    pub alias: Option<String>,
    /// Packets.
    pub txqueuelen: Option<u32>,
    pub group: Option<u32>,
    pub addrgenmode: Option<AddrGenMode>,
    pub promiscuous: Option<bool>,
    pub up: Option<bool>,
}

impl Change {
    /// This change with `later` on top of it.
    pub fn overlaid(self, later: &Change) -> Change {
        Change {
            mtu: later.mtu.or(self.mtu),
            mac: later.mac.or(self.mac),
            master: later.master.or(self.master),
            alias: later.alias.clone().or(self.alias),
            txqueuelen: later.txqueuelen.or(self.txqueuelen),
            group: later.group.or(self.group),
            addrgenmode: later.addrgenmode.or(self.addrgenmode),
            promiscuous: later.promiscuous.or(self.promiscuous),
            up: later.up.or(self.up),
        }
    }

    /// What is to be changed where `old` holds, so that this holds: what only `old` speaks of goes back to `before`.
    pub fn instead_of(&self, old: &Change, before: &Change) -> Change {
        fn step<T: PartialEq + Clone>(
            new: &Option<T>,
            old: &Option<T>,
            before: &Option<T>,
        ) -> Option<T> {
            match (new, old) {
                (Some(new), Some(old)) if new == old => None,
                (Some(new), _) => Some(new.clone()),
                (None, Some(_)) => before.clone(),
                (None, None) => None,
            }
        }
        macro_rules! each {
            ($($field:ident),*) => {
                Change { $($field: step(&self.$field, &old.$field, &before.$field)),* }
            };
        }
        each!(mtu, mac, master, alias, txqueuelen, group, addrgenmode, promiscuous, up)
    }

    /// Of this only what `words` speaks of too.
    pub fn only(&self, words: &Change) -> Change {
        macro_rules! each {
            ($($field:ident),*) => {
                Change { $($field: words.$field.as_ref().and(self.$field.clone())),* }
            };
        }
        each!(mtu, mac, master, alias, txqueuelen, group, addrgenmode, promiscuous, up)
    }

    /// Speaks of nothing.
    pub fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

/// Changes all that is given in one request (IPv6's address mode in one before).
///
/// # Errors
/// ENODEV when the link is gone, EINVAL with the kernel's sentence for a value out of its range.
pub fn set(netlink: &Netlink, index: u32, change: &Change) -> Result<()> {
    let mut batch = Batch::new();
    if let Some(mode) = change.addrgenmode {
        batch.push(RouteNetlinkMessage::SetLink(message::addrgenmode(index, mode)), 0);
    }
    let mut message = message::change(index);
    let attributes = &mut message.attributes;
    attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    attributes.extend(change.master.map(LinkAttribute::Controller));
    attributes.extend(change.alias.clone().map(alias));
    attributes.extend(change.txqueuelen.map(LinkAttribute::TxQueueLen));
    attributes.extend(change.group.map(LinkAttribute::Group));
    for (flag, wanted) in [
        (netlink_packet_route::link::LinkFlags::Up, change.up),
        (netlink_packet_route::link::LinkFlags::Promisc, change.promiscuous),
    ] {
        if let Some(on) = wanted {
            message.header.flags.set(flag, on);
            message.header.change_mask |= flag;
        }
    }
    if !message.attributes.is_empty() || !message.header.change_mask.is_empty() {
        batch.push(RouteNetlinkMessage::SetLink(message), 0);
    }
    batch.run_until_error(netlink).map_err(|e| {
        let asked = refusal::Asked { mac: change.mac, mtu: change.mtu };
        let known = asked
            .blame(e.errno, || refusal::mtu_range(netlink, index))
            .or_else(|| change.master.and_then(|_| refusal::of_port(netlink, index, e.errno)));
        if let Some(known) = known {
            return known.operation("link.set").subject(label(netlink, index));
        }
        let error = e.clone().into_error("link.set").subject(label(netlink, index));
        match e.errno {
            Errno::EOPNOTSUPP if change.mac.is_some() => {
                error.hint("a netkit in l3 mode, a tun and other header-less links have no MAC")
            }
            Errno::EINVAL | Errno::EOPNOTSUPP if change.master.is_some_and(|m| m != 0) => {
                error.hint("the master must be a bridge, bond or vrf in the same namespace")
            }
            _ => error,
        }
    })
}

/// An alias of no bytes, not one of a zero byte, removes it (`dev_set_alias`).
fn alias(text: String) -> LinkAttribute {
    const IFLA_IFALIAS: u16 = 20;
    LinkAttribute::Other(DefaultNla::new(IFLA_IFALIAS, text.into_bytes()))
}

fn label(netlink: &Netlink, index: u32) -> String {
    match info(netlink, index) {
        Ok(link) => link.name,
        Err(_) => format!("index {index}"),
    }
}

/// Gives the link another name. A link that is up can be renamed since Linux 6.2 (and before, when it is no master).
///
/// # Errors
/// EEXIST when the name is taken, EINVAL for a bad name, EBUSY on an older kernel.
pub fn rename(netlink: &Netlink, index: u32, name: &str) -> Result<()> {
    const OP: &str = "link.rename";
    check_name(name).map_err(|e| e.operation(OP))?;
    let mut message = message::change(index);
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    netlink.request(RouteNetlinkMessage::SetLink(message), 0).map_err(|e| {
        let error = e.clone().into_error(OP).subject(label(netlink, index));
        match e.errno {
            Errno::EEXIST => error
                .because(format!("a link named {name:?} exists already in {}", netlink.label())),
            Errno::EBUSY => error.hint("this kernel renames only links that are down"),
            _ => error,
        }
    })
}

/// Moves the link to another namespace, under `name` if given; returns its index there, which can differ.
///
/// It arrives down and without addresses. Costs ~16 ms; making a link where it belongs costs 0.35.
///
/// # Errors
/// EEXIST when the name is taken there, EINVAL for links that cannot move (`netns-immutable`, such as bridges' loopback).
pub fn move_to(from: &Netlink, index: u32, to: &Netlink, name: Option<&str>) -> Result<u32> {
    const OP: &str = "link.move";
    let now = info(from, index).map_err(|e| e.operation(OP))?;
    let name = name.unwrap_or(&now.name);
    check_name(name).map_err(|e| e.operation(OP))?;
    let mut message = message::change(index);
    message.attributes.push(LinkAttribute::NetNsFd(to.netns().as_fd().as_raw_fd()));
    if name != now.name {
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    }
    from.request(RouteNetlinkMessage::SetLink(message), 0).map_err(|e| {
        let error = e.clone().into_error(OP).subject(now.name.as_str());
        match e.errno {
            Errno::EEXIST => {
                error.because(format!("a link of that name exists already in {}", to.label()))
            }
            _ => error,
        }
    })?;
    super::info_by_name(to, name).map(|link| link.index).map_err(|e| e.operation(OP))
}

/// Deletes one link (and with it the other end of a pair). Costs ~16 ms; see [`delete_many`].
///
/// # Errors
/// ENODEV when it is gone, EOPNOTSUPP for hardware and loopback.
pub fn delete(netlink: &Netlink, index: u32) -> Result<()> {
    netlink.request(RouteNetlinkMessage::DelLink(message::change(index)), 0).map_err(|e| {
        let error = e.clone().into_error("link.delete").subject(label(netlink, index));
        match e.errno {
            Errno::EOPNOTSUPP => error.because("this link cannot be deleted: it is no virtual one"),
            _ => error,
        }
    })
}

/// Deletes links of one namespace together: put in a group of their own, removed by one request, which waits once for all.
/// Links that are gone already are no error.
///
/// # Errors
/// The first refusal; the other links are gone then.
pub fn delete_many(netlink: &Netlink, indexes: &[u32]) -> Result<()> {
    if indexes.len() < 2 {
        return indexes.iter().try_for_each(|index| gone(delete(netlink, *index)));
    }
    let group = free_group(netlink)?;
    let mut batch = Batch::new();
    for index in indexes {
        let mut message = message::change(*index);
        message.attributes.push(LinkAttribute::Group(group));
        batch.push(RouteNetlinkMessage::SetLink(message), 0);
    }
    let grouped = batch.run(netlink).iter().filter(|outcome| outcome.is_ok()).count();
    if grouped == 0 {
        return Ok(());
    }
    let mut message = message::change(0);
    message.attributes.push(LinkAttribute::Group(group));
    match netlink.request(RouteNetlinkMessage::DelLink(message), 0) {
        Ok(()) => Ok(()),
        // One of them cannot be deleted, so the kernel left all: the rest one by one.
        Err(_) => {
            let outcomes: Vec<_> = indexes.iter().map(|i| gone(delete(netlink, *i))).collect();
            outcomes.into_iter().collect()
        }
    }
}

fn gone(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.is("ENODEV") => Ok(()),
        other => other,
    }
}

/// A group that no link of the namespace is in.
fn free_group(netlink: &Netlink) -> Result<u32> {
    let links = list(netlink)?;
    // The upper half: groups that people choose are small.
    (0..16)
        .map(|_| random() | 1 << 30)
        .find(|group| links.iter().all(|link| link.group != *group))
        .ok_or_else(|| Error::new("link.delete", "EAGAIN", "no free link group was found"))
}
