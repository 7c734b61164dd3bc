//! The router's programs on their hooks: which are needed, what they share, where they stand.

use std::collections::BTreeSet;

use super::hops;
use super::spec::{Attach, Hook};
use crate::kernel::bpf::{self, Attachment, LoadOptions, Object, Order, Target};
use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::{NetnsFd, named};
use crate::program;
use crate::{Error, Result};

const OP: &str = "policy.router";

/// One hook of a router, looked at but not yet attached.
pub struct Place {
    target: Target,
    hook: Hook,
    program: &'static str,
    /// The device, in the router's namespace, behind which the router sees again what it sends.
    pub seen_again: Option<u32>,
    /// The device, in the router's namespace, that packets seen at this hook have.
    pub port: Option<u32>,
}

impl Place {
    /// Refuses hooks whose packets are not of the router's namespace.
    ///
    /// # Errors
    /// ENODEV: the link is gone. EXDEV: another namespace. EINVAL: a side of a link that is no netkit.
    pub fn look(netns: &NetnsFd, attach: &Attach) -> Result<Place> {
        let target = &attach.target;
        let subject = format!("{}, {}", target.name, attach.hook);
        let netlink = Netlink::open(&target.netns)?;
        let info = link::info(&netlink, target.index)
            .map_err(|e| e.operation(OP).subject(subject.clone()))?;
        let netkit = matches!(attach.hook, Hook::Primary | Hook::Peer);
        if netkit && info.kind != "netkit" {
            return Err(Error::invalid(OP, format!("{} is no netkit", target.name))
                .subject(subject)
                .hint("other links have the hooks \"ingress\" and \"egress\""));
        }
        let here = target.netns.same(netns);
        // What the primary sends is routed in the namespace of the peer, which receives it.
        let inside = match (attach.hook, info.link_netnsid) {
            (Hook::Primary, Some(id)) => named::nsid(&netlink, netns)? == Some(id),
            _ => here,
        };
        if !inside {
            return Err(Error::new(OP, "EXDEV", "the hook is not in the router's namespace")
                .subject(subject)
                .hint("all hooks and devices of a router must share one namespace"));
        }
        let pair_here = here && info.link_netnsid.is_none();
        let headerless = !netkit && hops::is_headerless(&netlink, target.index)?;
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
        Ok(Place { target: target.clone(), hook: attach.hook, program, seen_again, port })
    }

    pub fn attach(&self, object: &Object) -> Result<Attachment> {
        let program = object.program(self.program)?;
        // Last: other people's programs see the packet before it is sent away.
        let order = Order::last();
        let direction = match self.hook {
            Hook::Primary => {
                return bpf::attach(&self.target, bpf::Hook::NetkitPrimary, program, &order);
            }
            Hook::Peer => return bpf::attach(&self.target, bpf::Hook::NetkitPeer, program, &order),
            Hook::Ingress => bpf::hook::Direction::Ingress,
            Hook::Egress => bpf::hook::Direction::Egress,
        };
        bpf::attach_auto(&self.target, direction, program, &order)
    }
}

/// Loads the programs that these places need.
pub fn load(name: &str, places: &[Place]) -> Result<Object> {
    let bytes = program::embedded("router").expect("build.rs compiled bpf/router.bpf.c");
    let mut programs: BTreeSet<String> = places.iter().map(|p| p.program.to_owned()).collect();
    if programs.is_empty() {
        programs.insert("ingress".to_owned());
    }
    let options =
        LoadOptions { name: name.to_owned(), programs: Some(programs), ..LoadOptions::default() };
    Object::load(bytes, &options).map_err(|e| e.operation(OP).about(name))
}
