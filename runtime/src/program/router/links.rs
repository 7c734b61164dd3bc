//! A router's view of its namespace as the kernel reports it: which devices can send, the box's own addresses.
//!
//! The monitor's thread writes here while a script is busy: what packets read changes by single stores.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use super::abi;
use super::hops::{self, local_prefix};
use super::monitor::Follower;
use super::policy::{Action, Family, Policy, Prefix};
use super::programs::{Place, Programs};
use super::set;
use crate::kernel::address;
use crate::kernel::bpf::map::{Map, Mapped, Write};
use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::NetnsFd;
use crate::kernel::notify::{self, Event};
use crate::{Error, Result};

pub struct Links {
    netlink: Netlink,
    state: Arc<Mapped>,
    locals: Map,
    ports: Map,
    ways: Mutex<Ways>,
    known: Mutex<Known>,
}

/// What the router's hooks say of devices.
#[derive(Clone, Default)]
pub struct Ways {
    /// Devices behind which the router sees again what it sends.
    seen_again: FxHashSet<u32>,
    /// Devices it answers from.
    answering: Vec<u32>,
}

#[derive(Default)]
struct Known {
    /// ifindex to index in `state.down`.
    slots: FxHashMap<u32, u16>,
    free: Vec<u16>,
    up: FxHashSet<u32>,
    local: FxHashSet<Prefix>,
}

/// The devices of one set: those of the set before keep their places until it is gone.
pub struct Devices {
    slots: FxHashMap<u32, u16>,
    seen_again: FxHashSet<u32>,
}

impl set::Devices for Devices {
    fn slot(&self, ifindex: u32) -> u16 {
        self.slots.get(&ifindex).copied().unwrap_or(0)
    }

    fn sees_again(&self, ifindex: u32) -> bool {
        self.seen_again.contains(&ifindex)
    }
}

impl Links {
    pub fn new(netns: &NetnsFd, programs: &Programs, state: Arc<Mapped>) -> Result<Links> {
        Ok(Links {
            netlink: Netlink::open(netns)?,
            state,
            locals: programs.map("locals")?,
            ports: programs.map("ports")?,
            ways: Mutex::default(),
            known: Mutex::new(Known {
                free: (0..abi::MAX_DEVICES as u16).rev().collect(),
                ..Known::default()
            }),
        })
    }

    /// From the next set on packets pass by these places; what was before.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn pass_by(&self, places: &[Place]) -> Result<Ways> {
        let ways = Ways {
            seen_again: places.iter().filter_map(|place| place.seen_again).collect(),
            answering: places.iter().filter_map(|place| place.port).collect(),
        };
        let before = std::mem::replace(&mut *self.ways(), ways);
        match self.refresh_ports() {
            Ok(()) => Ok(before),
            Err(error) => {
                self.restore(before);
                Err(error)
            }
        }
    }

    /// Takes [`Links::pass_by`] back.
    pub fn restore(&self, before: Ways) {
        *self.ways() = before;
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().expect("no panic while following links")
    }

    /// Reads everything anew.
    ///
    /// # Errors
    /// What netlink gives when it cannot list.
    pub fn refresh(&self) -> Result<()> {
        let links = link::list(&self.netlink)?;
        let local = hops::local_prefixes(&self.netlink)?;
        let mut known = self.known();
        known.up = links.iter().filter(|l| hops::is_up(l)).map(|l| l.index).collect();
        for (&ifindex, &slot) in &known.slots {
            self.write_down(slot, !known.up.contains(&ifindex));
        }
        let gone: Vec<Prefix> = known.local.difference(&local).copied().collect();
        for prefix in gone {
            self.remove_local(&mut known, prefix);
        }
        for prefix in local {
            self.add_local(&mut known, prefix)?;
        }
        drop(known);
        self.refresh_ports()
    }

    /// Finds places for the devices that these policies use.
    ///
    /// # Errors
    /// E2BIG for more than 16384 at a time.
    pub fn devices<'a>(&self, policies: impl Iterator<Item = &'a Policy>) -> Result<Devices> {
        let mut known = self.known();
        let mut used = FxHashSet::default();
        for policy in policies {
            if let Action::Route(hops) = &policy.action {
                used.extend(hops.iter().filter_map(|hop| hop.dev.as_ref()).map(|dev| dev.index));
            }
        }
        let mut slots = FxHashMap::with_capacity_and_hasher(used.len(), FxBuildHasher);
        for ifindex in used {
            let slot = match known.slots.get(&ifindex) {
                Some(&slot) => slot,
                None => known.free.pop().ok_or_else(|| {
                    Error::new("router:set", "E2BIG", "the policies name more than 16384 devices")
                })?,
            };
            known.slots.insert(ifindex, slot);
            self.write_down(slot, !known.up.contains(&ifindex));
            slots.insert(ifindex, slot);
        }
        Ok(Devices { slots, seen_again: self.ways().seen_again.clone() })
    }

    /// Lets go of devices that `live` does not use. Their places go to the far end of the queue: packets of the set
    /// before may still look at them.
    pub fn settle(&self, live: Devices) {
        let mut known = self.known();
        let gone: Vec<(u32, u16)> = known
            .slots
            .iter()
            .filter(|(ifindex, _)| !live.slots.contains_key(ifindex))
            .map(|(&ifindex, &slot)| (ifindex, slot))
            .collect();
        for (ifindex, slot) in gone {
            known.slots.remove(&ifindex);
            known.free.insert(0, slot);
        }
    }

    pub fn is_up(&self, ifindex: u32) -> bool {
        self.known().up.contains(&ifindex)
    }

    pub fn is_local(&self, to: IpAddr) -> bool {
        self.known().local.iter().any(|prefix| prefix.contains(to))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while following links")
    }

    fn write_down(&self, slot: u16, down: bool) {
        self.state.u8_at(abi::STATE_DOWN + usize::from(slot)).store(down.into(), Ordering::Relaxed);
    }

    fn link_is(&self, ifindex: u32, up: bool) {
        let mut known = self.known();
        if up {
            known.up.insert(ifindex);
        } else {
            known.up.remove(&ifindex);
        }
        if let Some(&slot) = known.slots.get(&ifindex) {
            self.write_down(slot, !up);
        }
    }

    fn add_local(&self, known: &mut Known, prefix: Prefix) -> Result<()> {
        if known.local.insert(prefix) {
            self.locals.update(&local_key(prefix), &[0; 4], Write::Any)?;
        }
        Ok(())
    }

    fn remove_local(&self, known: &mut Known, prefix: Prefix) {
        if known.local.remove(&prefix) {
            let _ = self.locals.remove(&local_key(prefix));
        }
    }

    /// The addresses that ICMP errors are sent from.
    fn refresh_ports(&self) -> Result<()> {
        let answering = self.ways().answering.clone();
        for ifindex in answering {
            let mut port = [0u8; 20];
            for info in address::list(&self.netlink, Some(ifindex)).unwrap_or_default() {
                match info.address.ip() {
                    IpAddr::V4(a) if port[..4] == [0; 4] => {
                        port[..4].copy_from_slice(&a.octets());
                    }
                    IpAddr::V6(a) if port[4..] == [0; 16] && !a.is_unicast_link_local() => {
                        port[4..].copy_from_slice(&a.octets());
                    }
                    _ => {}
                }
            }
            self.ports.update(&ifindex.to_ne_bytes(), &port, Write::Any)?;
        }
        Ok(())
    }
}

impl Follower for Links {
    fn event(&self, event: &Event) {
        // A failure here has nobody to tell; the next event or a lost queue brings another look.
        let _ = match event {
            Event::Link(notify::Action::Delete, link) => {
                self.link_is(link.index, false);
                Ok(())
            }
            Event::Link(_, link) => {
                self.link_is(link.index, hops::is_up(link));
                Ok(())
            }
            Event::Address(..) => self.refresh_ports(),
            Event::Route(action, route) => match (local_prefix(route), action) {
                // The same address may stay on another link: look at all.
                (Some(_), notify::Action::Delete) => self.refresh(),
                (Some(prefix), _) => self.add_local(&mut self.known(), prefix),
                (None, _) => Ok(()),
            },
            Event::Lost => self.refresh(),
            Event::Neigh(..) => Ok(()),
        };
    }
}

/// `struct local_key`: IPv4 as an IPv4-mapped IPv6 address.
fn local_key(prefix: Prefix) -> [u8; 20] {
    let (bits, length) = match prefix.family() {
        Family::V4 => (0xffff_0000_0000 | prefix.bits(), prefix.length() + 96),
        Family::V6 => (prefix.bits(), prefix.length()),
    };
    let mut key = [0u8; 20];
    key[..4].copy_from_slice(&u32::from(length).to_ne_bytes());
    key[4..].copy_from_slice(&bits.to_be_bytes());
    key
}
