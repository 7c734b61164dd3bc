//! Which policy and hop would take a packet, and why: a plain evaluation over the list of policies, apart from the
//! tables that packets use, so that each can be held against the other.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::policy::{Action, Family, Hop, Policy, number};
use super::table::flow_hash;

/// A packet to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub from: IpAddr,
    pub to: IpAddr,
    pub proto: Option<u8>,
    pub sport: Option<u16>,
    pub dport: Option<u16>,
    pub mark: u32,
    pub vlan: Option<u16>,
}

/// Who takes a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// `None`: the kernel's own routing.
    pub policy: Option<Policy>,
    /// Where it goes, when the policy routes.
    pub hop: Option<Hop>,
    /// In words.
    pub why: String,
    /// Policies that would have come first, but all their hops are down.
    pub skipped: Vec<Policy>,
}

/// What is not in the policies.
pub trait Live {
    /// Whether the box itself is meant.
    fn is_local(&self, to: IpAddr) -> bool;
    /// Whether the device can send.
    fn is_up(&self, ifindex: u32) -> bool;
    /// The index, among the policy's hops of that family, that the flow's bucket names.
    fn bucket(&self, policy: &Policy, family: Family, hash: u32) -> Option<usize>;
}

/// The stage at which a policy is looked for, in words; `None` when it does not match.
fn matches(policy: &Policy, query: &Query) -> bool {
    let m = &policy.matching;
    let has_ports = query.proto.is_none_or(|p| [6, 17, 33, 132, 136].contains(&p));
    let is =
        |wanted: Option<u16>, got: Option<u16>| wanted.is_none_or(|w| has_ports && got == Some(w));
    policy.serves(Family::of(query.from))
        && m.from.is_none_or(|p| p.contains(query.from))
        && m.to.is_none_or(|p| p.contains(query.to))
        && m.proto.is_none_or(|p| query.proto == Some(p))
        && is(m.sport, query.sport)
        && is(m.dport, query.dport)
        && m.mark.is_none_or(|mark| mark == query.mark)
        && m.vlan == query.vlan
}

/// The matching policies, first the one that wins: conditional, source, destination, default.
fn candidates<'a>(
    policies: &'a [Policy],
    fallback: Option<&'a Policy>,
    query: &Query,
) -> Vec<(&'a Policy, String)> {
    let matching: Vec<_> = policies.iter().filter(|policy| matches(policy, query)).collect();
    let stage = |policy: &Policy| {
        let m = &policy.matching;
        match () {
            () if m.is_conditional() => 0,
            () if m.from.is_some() => 1,
            () if m.to.is_some() => 2,
            () => 3,
        }
    };
    let mut ranked: Vec<_> = matching.into_iter().enumerate().collect();
    ranked.sort_by_key(|(order, policy)| {
        let m = &policy.matching;
        let length = m.from.or(m.to).map_or(0, |prefix| prefix.length());
        match stage(policy) {
            0 => (0, policy.priority, m.specificity(), *order, Reverse(0)),
            stage => (stage, 0, 0, 0, Reverse(length)),
        }
    });
    let mut found: Vec<_> = ranked
        .into_iter()
        .map(|(_, policy)| {
            let m = &policy.matching;
            let why = match stage(policy) {
                0 => format!(
                    "conditional policy of priority {}, the best that matches",
                    policy.priority
                ),
                1 => format!("longest source prefix, {} bits", m.from.map_or(0, |p| p.length())),
                2 => format!("longest destination prefix, {} bits", m.to.map_or(0, |p| p.length())),
                _ => "the default policy".to_owned(),
            };
            (policy, why)
        })
        .collect();
    let has_default = found.iter().any(|(policy, _)| stage(policy) == 3);
    if let Some(policy) = fallback.filter(|p| !has_default && matches(p, query)) {
        found.push((policy, "the default policy".to_owned()));
    }
    found
}

/// The packet's hop: its bucket's, or the next that is up.
fn choose(policy: &Policy, query: &Query, live: &dyn Live) -> Option<(Hop, String)> {
    let family = Family::of(query.from);
    let hops: Vec<_> = policy.hops(family).collect();
    let up = |hop: &Hop| hop.dev.as_ref().is_some_and(|dev| live.is_up(dev.index));
    if let [hop] = hops.as_slice() {
        return up(hop).then(|| ((*hop).clone(), String::new()));
    }
    let words = |a: IpAddr| [(number(a) >> 64) as u64, number(a) as u64];
    let ports = [query.sport.unwrap_or(0), query.dport.unwrap_or(0)];
    let hash = flow_hash(words(query.from), words(query.to), query.proto.unwrap_or(0), ports);
    let wanted = live.bucket(policy, family, hash)?;
    if let Some(hop) = hops.get(wanted).filter(|hop| up(hop)) {
        return Some(((*hop).clone(), "; the flow's hash names this hop".to_owned()));
    }
    let start = (hash >> 16) as usize % hops.len();
    (0..hops.len())
        .map(|i| hops[(start + i) % hops.len()])
        .find(|hop| up(hop))
        .map(|hop| (hop.clone(), "; the flow's own hop is down".to_owned()))
}

/// Explains `query` against a router's policies.
pub fn explain(
    policies: &[Policy],
    fallback: Option<&Policy>,
    query: &Query,
    live: &dyn Live,
) -> Explanation {
    let kernel = |why: &str, skipped| Explanation {
        policy: None,
        hop: None,
        why: format!("the kernel's own routing: {why}"),
        skipped,
    };
    if stays(query.to) {
        return kernel("such destinations always pass", Vec::new());
    }
    if live.is_local(query.to) {
        return kernel("the destination is the box itself", Vec::new());
    }
    let mut skipped = Vec::new();
    for (policy, why) in candidates(policies, fallback, query) {
        let (hop, how) = match policy.action {
            Action::Route(_) => match choose(policy, query, live) {
                Some((hop, how)) => (Some(hop), how),
                None => {
                    skipped.push(policy.clone());
                    continue;
                }
            },
            Action::Drop | Action::Pass => (None, String::new()),
        };
        let note = if skipped.is_empty() { "" } else { ", others' hops being down" };
        let why = format!("{why}{note}{how}");
        return Explanation { policy: Some(policy.clone()), hop, why, skipped };
    }
    kernel("no policy matches", skipped)
}

/// What never is routed: stays4() and stays6() of bpf/include/parse.h.
fn stays(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(a) => {
            let first = a.octets()[0];
            first == 0 || first == 127 || a.is_link_local() || a.is_multicast() || a.is_broadcast()
        }
        IpAddr::V6(a) => a.is_multicast() || a.is_unicast_link_local() || u128::from(a) <= 1,
    }
}
