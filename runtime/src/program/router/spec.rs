//! What a router is made from, and what it tells: plain values.

use std::fmt;

use super::counters::Count;
use super::policy::Policy;
use crate::kernel::bpf::Target;
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
