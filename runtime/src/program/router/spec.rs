//! What a router is made from, and what it tells: plain values.

use std::fmt;

use super::counters::Count;
use super::policy::Policy;
use crate::Result;
use crate::kernel::bpf::{self, Attachment, Target};
use crate::kernel::netns::NetnsFd;

/// Where a router sees packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    Ingress,
    Egress,
    /// What a netkit's primary end sends; routed in the peer's namespace.
    Primary,
    /// What a netkit's peer end sends; routed in the primary's namespace.
    Peer,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
            Hook::Primary => "primary",
            Hook::Peer => "peer",
        })
    }
}

/// A hook of a link; of a netkit, its primary end.
#[derive(Debug, Clone)]
pub struct Attach {
    pub target: Target,
    pub hook: Hook,
}

/// What a router is to be.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub policies: Vec<Policy>,
    /// Takes what no policy of the set takes.
    pub default: Option<Policy>,
    pub attach: Vec<Attach>,
}

/// A hook that has the router's program.
pub struct Hooked {
    pub attach: Attach,
    /// What it is on this kernel: tcx, netkit or clsact.
    pub hook: bpf::Hook,
    pub attachment: Attachment,
}

/// Who keeps book of attachments that outlive the process.
pub trait Keeper {
    /// The router is about to attach there. What a process before this one left attached is returned.
    ///
    /// # Errors
    /// When it cannot be written down.
    fn attaching(&self, attach: &Attach, hook: bpf::Hook) -> Result<Option<Attachment>>;
    /// It has.
    ///
    /// # Errors
    /// When it cannot be made to last.
    fn attached(&self, attach: &Attach, hook: bpf::Hook, attachment: &Attachment) -> Result<()>;
    /// Nothing is there any more.
    fn detached(&self, attach: &Attach, hook: bpf::Hook);
}

/// Nothing outlives the process, or nobody asks.
pub struct NoKeeper;

impl Keeper for NoKeeper {
    fn attaching(&self, _: &Attach, _: bpf::Hook) -> Result<Option<Attachment>> {
        Ok(None)
    }
    fn attached(&self, _: &Attach, _: bpf::Hook, _: &Attachment) -> Result<()> {
        Ok(())
    }
    fn detached(&self, _: &Attach, _: bpf::Hook) {}
}

#[derive(Debug, Clone)]
pub struct RouterSpec {
    /// For messages.
    pub name: String,
    /// Whose devices, routes and neighbours it uses.
    pub netns: NetnsFd,
    pub attach: Vec<Attach>,
    /// Takes what no policy of the set takes.
    pub default: Option<Policy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStats {
    pub policy: Policy,
    pub packets: u64,
    pub bytes: u64,
}

/// What became of all packets that the router saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sent to a next hop.
    pub routed: Count,
    pub passed: Count,
    pub dropped: Count,
    /// No policy matched.
    pub unmatched: Count,
    /// For the box itself, and what else always passes.
    pub local: Count,
    /// Did not fit the target's MTU; and of these, answered with an ICMP error.
    pub too_big: Count,
    pub answered: Count,
    /// Had been redirected by this router before.
    pub redirected: Count,
    /// Skipped a policy because all its hops were down.
    pub no_hop: Count,
    /// The kernel refused to redirect, mirror or untag.
    pub failed: Count,
    pub mirrored: Count,
    /// TTL or hop limit was used up: left to the kernel.
    pub expired: Count,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// In the order of [`Router::list`]; the router's default last.
    pub policies: Vec<PolicyStats>,
    pub total: Totals,
}
