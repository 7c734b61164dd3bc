//! The router's programs on their hooks: which are needed, what they share, where they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use super::hops;
use super::spec::{Attach, Hook};
use crate::kernel::bpf::{self, Attachment, LoadOptions, Map, Object, Order, Program};
use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named;
use crate::program;
use crate::{Error, Result};

const OP: &str = "policy.router";

/// One hook of a router, looked at but not yet attached.
pub struct Place {
    pub attach: Attach,
    /// What its hook is on this kernel.
    pub hook: bpf::Hook,
    pub program: &'static str,
    /// The device, in the router's namespace, behind which the router sees again what it sends.
    pub seen_again: Option<u32>,
    /// The device, in the router's namespace, that packets seen at this hook have.
    pub port: Option<u32>,
}

impl Place {
    /// Refuses hooks whose packets are not of the namespace of `router`.
    ///
    /// # Errors
    /// ENODEV: the link is gone. EXDEV: another namespace. EINVAL: a side of a link that is no netkit.
    pub fn look(router: &Netlink, attach: &Attach) -> Result<Place> {
        let target = &attach.target;
        let subject = format!("{}, {}", target.name, attach.hook);
        let here = target.netns.same(router.netns());
        let there = if here { None } else { Some(Netlink::open(&target.netns)?) };
        let netlink = there.as_ref().unwrap_or(router);
        let info = link::info(netlink, target.index)
            .map_err(|e| e.operation(OP).subject(subject.clone()))?;
        let netkit = matches!(attach.hook, Hook::Primary | Hook::Peer);
        if netkit && info.kind != "netkit" {
            return Err(Error::invalid(OP, format!("{} is no netkit", target.name))
                .subject(subject)
                .hint("other links have the hooks \"ingress\" and \"egress\""));
        }
        // What the primary sends is routed in the namespace of the peer, which receives it.
        let inside = match (attach.hook, info.link_netnsid) {
            (Hook::Primary, Some(id)) => named::nsid(netlink, router.netns())? == Some(id),
            _ => here,
        };
        if !inside {
            return Err(Error::new(OP, "EXDEV", "the hook is not in the router's namespace")
                .subject(subject)
                .hint("all hooks and devices of a router must share one namespace"));
        }
        let pair_here = here && info.link_netnsid.is_none();
        let headerless = !netkit && hops::is_headerless(netlink, target.index)?;
        let (program, seen_again, port) = match attach.hook {
            Hook::Ingress => ("ingress", None, Some(target.index)),
            Hook::Egress => ("egress", Some(target.index), None),
            Hook::Primary => ("ingress", Some(target.index).filter(|_| pair_here), info.link),
            Hook::Peer => ("ingress", info.link.filter(|_| pair_here), Some(target.index)),
        };
        let program = match (headerless, program) {
            (true, "ingress") => "ingress_l3",
            (true, _) => "egress_l3",
            _ => program,
        };
        let hook = match attach.hook {
            Hook::Primary => bpf::Hook::NetkitPrimary,
            Hook::Peer => bpf::Hook::NetkitPeer,
            Hook::Ingress => bpf::hook::auto_hook(bpf::hook::Direction::Ingress)?,
            Hook::Egress => bpf::hook::auto_hook(bpf::hook::Direction::Egress)?,
        };
        Ok(Place { attach: attach.clone(), hook, program, seen_again, port })
    }

    /// Last: other people's programs see the packet before it is sent away.
    ///
    /// # Errors
    /// As [`bpf::attach`].
    pub fn attach(&self, program: &Program) -> Result<Attachment> {
        bpf::attach(&self.attach.target, self.hook, program, &Order::last())
    }
}

/// The loaded programs of a router, and the maps they share.
pub struct Programs {
    name: String,
    loaded: Mutex<Object>,
}

impl Programs {
    /// Those that these places need.
    ///
    /// # Errors
    /// As [`Object::load`].
    pub fn load(name: &str, places: &[Place]) -> Result<Programs> {
        let mut wanted: BTreeSet<String> = places.iter().map(|p| p.program.to_owned()).collect();
        if wanted.is_empty() {
            wanted.insert("ingress".to_owned());
        }
        let loaded = Mutex::new(load(name, wanted, BTreeMap::new())?);
        Ok(Programs { name: name.to_owned(), loaded })
    }

    /// Loads what these places need and is not there yet, with the same maps.
    ///
    /// # Errors
    /// As [`Object::load`].
    pub fn have(&self, places: &[Place]) -> Result<()> {
        let mut loaded = self.loaded();
        let missing: BTreeSet<String> = places
            .iter()
            .map(|p| p.program.to_owned())
            .filter(|name| !loaded.programs.contains_key(name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let maps = loaded.maps.clone().into_iter().filter(|(name, _)| !name.starts_with(".rodata"));
        let more = load(&self.name, missing, maps.collect())?;
        loaded.programs.extend(more.programs);
        Ok(())
    }

    /// # Errors
    /// ENOENT for one that no place has needed.
    pub fn get(&self, name: &str) -> Result<Program> {
        self.loaded().program(name).cloned()
    }

    /// # Errors
    /// ENOENT.
    pub fn map(&self, name: &str) -> Result<Map> {
        self.loaded().map(name).cloned()
    }

    pub fn all(&self) -> Vec<Program> {
        self.loaded().programs.values().cloned().collect()
    }

    fn loaded(&self) -> MutexGuard<'_, Object> {
        self.loaded.lock().expect("no panic while loading")
    }
}

fn load(name: &str, programs: BTreeSet<String>, maps: BTreeMap<String, Map>) -> Result<Object> {
    let bytes = program::embedded("router").expect("build.rs compiled bpf/router.bpf.c");
    let programs = Some(programs);
    let options = LoadOptions { name: name.to_owned(), programs, maps, ..LoadOptions::default() };
    Object::load(bytes, &options).map_err(|e| e.operation(OP).about(name))
}
