//! From policies to the bytes that packets read: tables with markers, shapes, groups, hops.
//!
//! The search over prefix lengths goes to longer ones on a hit, so each prefix leaves a marker at every shorter length
//! that the search visits on its way to it, carrying the best match shorter than the marker (bpf/include/prefix.h).

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

use super::abi::{self, Plan, Side, Step};
use super::group::{self, Bucket};
#[cfg(test)]
use super::policy::number;
use super::policy::{Action, Family, Hop, Match, Policy, Prefix, mask};
use super::shapes::condition_table;
use super::table::{Kind, Table};
use crate::Result;

/// A policy with its counter, in the order they were given.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub policy: &'a Policy,
    pub id: u32,
}

/// A hop without what tells nothing about identity.
pub type HopKey = (u32, Option<IpAddr>);

/// Several hops of one policy, or a verdict with a mirror.
#[derive(Debug, Clone)]
pub struct Group {
    pub hops: Vec<HopKey>,
    pub weights: Vec<u32>,
    pub buckets: Vec<Bucket>,
    /// In words from the arena's start.
    pub buckets_at: usize,
    action: u32,
    mirror: Option<u32>,
    first_hop: u32,
}

impl Group {
    /// As it was in a set before: what tells flows where they are.
    pub fn before(
        hops: Vec<HopKey>,
        weights: Vec<u32>,
        buckets: Vec<Bucket>,
        buckets_at: usize,
    ) -> Group {
        Group { hops, weights, buckets, buckets_at, action: 0, mirror: None, first_hop: 0 }
    }
}

/// The groups of the set before, with their buckets as they are now: flows stay where they are.
#[derive(Debug, Default)]
pub struct Ancestors {
    pub groups: Vec<Group>,
    pub of: FxHashMap<(Match, Family), usize>,
}

/// What the compiler needs to know of the router's devices.
pub trait Devices {
    /// Its index in `state.down`.
    fn slot(&self, ifindex: u32) -> u16;
    /// Whether the router sees again what it sends there.
    fn sees_again(&self, ifindex: u32) -> bool;
}

/// A set ready to be written.
#[derive(Debug)]
pub struct Compiled {
    pub plan: Plan,
    pub arena: Vec<u64>,
    pub groups: Vec<Group>,
    pub group_of: FxHashMap<(Match, Family), usize>,
}

struct Compiler<'a> {
    devices: &'a dyn Devices,
    ancestors: &'a Ancestors,
    hops: Vec<[u64; 4]>,
    /// Single hops, shared.
    single: FxHashMap<(HopKey, bool), u32>,
    groups: Vec<Group>,
    /// Same hops, weights, verdict and ancestor: same group.
    shared: FxHashMap<GroupKey, usize>,
    group_of: FxHashMap<(Match, Family), usize>,
}

#[derive(PartialEq, Eq, Hash)]
struct GroupKey {
    hops: Vec<HopKey>,
    weights: Vec<u32>,
    action: u32,
    mirror: Option<u32>,
    ancestor: Option<usize>,
}

/// Compiles a set. Policies are checked and their devices known; equal matches do not occur twice.
///
/// # Errors
/// E2BIG for more than 64 shapes of conditional policies in one family.
pub fn compile(
    entries: &[Entry<'_>],
    fallback: Option<&Entry<'_>>,
    devices: &dyn Devices,
    ancestors: &Ancestors,
) -> Result<Compiled> {
    let mut compiler = Compiler {
        devices,
        ancestors,
        hops: Vec::new(),
        single: FxHashMap::default(),
        groups: Vec::new(),
        shared: FxHashMap::default(),
        group_of: FxHashMap::default(),
    };
    let mut plan = Plan::default();
    if let Some(entry) = fallback {
        for family in Family::BOTH.into_iter().filter(|&f| entry.policy.serves(f)) {
            plan.fallback[family as usize] = compiler.value(entry, family);
        }
    }
    let mut prefixes: [[Vec<(Prefix, u64)>; 2]; 2] = Default::default();
    let mut conditions = Vec::new();
    for (order, entry) in entries.iter().enumerate() {
        for family in Family::BOTH.into_iter().filter(|&f| entry.policy.serves(f)) {
            let value = compiler.value(entry, family);
            let m = &entry.policy.matching;
            match (m.is_conditional(), m.from, m.to) {
                (false, Some(from), _) => prefixes[family as usize][0].push((from, value)),
                (false, None, Some(to)) => prefixes[family as usize][1].push((to, value)),
                // Matches everything: that is what the default is for.
                (false, None, None) => plan.fallback[family as usize] = value,
                _ => conditions.push((family, order as u32, entry.policy, value)),
            }
        }
    }
    let [prefixes4, prefixes6] = &mut prefixes;
    let table4 = prefix_table(&mut plan, Family::V4, prefixes4);
    let table6 = prefix_table(&mut plan, Family::V6, prefixes6);
    let table = condition_table(&mut plan, &conditions)?;
    if compiler.groups.iter().any(|g| g.hops.len() > 1) {
        plan.flags |= abi::PLAN_NEEDS_PORTS;
    }
    let arena = compiler.lay_out(&mut plan, [&table4, &table6, &table]);
    Ok(Compiled { plan, arena, groups: compiler.groups, group_of: compiler.group_of })
}

impl Compiler<'_> {
    fn value(&mut self, entry: &Entry<'_>, family: Family) -> u64 {
        abi::value(entry.id, self.verdict(entry.policy, family))
    }

    fn verdict(&mut self, policy: &Policy, family: Family) -> u32 {
        let action = match policy.action {
            Action::Pass => abi::VERDICT_PASS,
            Action::Drop => abi::VERDICT_DROP,
            Action::Route(_) => 0,
        };
        let key = |hop: &Hop| (hop.dev.as_ref().map_or(0, |d| d.index), hop.via);
        let keys: SmallVec<[HopKey; 1]> = policy.hops(family).map(key).collect();
        let mirror = policy.mirror.as_ref().map(|d| d.index);
        match (mirror, keys.as_slice()) {
            (None, []) => abi::verdict(action, 0),
            (None, [key]) => abi::verdict(abi::VERDICT_HOP, self.hop(*key)),
            _ => {
                let weights = policy.hops(family).map(|hop| hop.weight).collect();
                let index = self.group(policy, family, keys.into_vec(), weights, action, mirror);
                abi::verdict(abi::VERDICT_GROUP, index as u32)
            }
        }
    }

    fn hop(&mut self, key: HopKey) -> u32 {
        let tag = self.devices.sees_again(key.0);
        if let Some(&index) = self.single.get(&(key, tag)) {
            return index;
        }
        let index = self.push_hop(key);
        self.single.insert((key, tag), index);
        index
    }

    fn push_hop(&mut self, (ifindex, via): HopKey) -> u32 {
        let flags = if self.devices.sees_again(ifindex) { abi::HOP_TAG } else { 0 };
        self.hops.push(abi::hop_words(ifindex, self.devices.slot(ifindex), via, flags));
        self.hops.len() as u32 - 1
    }

    fn group(
        &mut self,
        policy: &Policy,
        family: Family,
        hops: Vec<HopKey>,
        weights: Vec<u32>,
        action: u32,
        mirror: Option<u32>,
    ) -> usize {
        let lineage = (policy.matching.clone(), family);
        let ancestor = self.ancestors.of.get(&lineage).copied();
        let key = GroupKey { hops, weights, action, mirror, ancestor };
        if let Some(&index) = self.shared.get(&key) {
            self.group_of.insert(lineage, index);
            return index;
        }
        let first_hop = self.hops.len() as u32;
        for &hop in &key.hops {
            self.push_hop(hop);
        }
        let buckets = match ancestor.map(|index| &self.ancestors.groups[index]) {
            _ if key.hops.is_empty() => Vec::new(),
            Some(old) if !old.buckets.is_empty() => {
                let moved: Vec<Option<u16>> = old
                    .hops
                    .iter()
                    .map(|hop| key.hops.iter().position(|new| new == hop).map(|i| i as u16))
                    .collect();
                if old.hops == key.hops && old.weights == key.weights {
                    old.buckets.clone()
                } else {
                    group::changed(&old.buckets, &moved, &key.weights)
                }
            }
            _ => group::fresh(&key.weights),
        };
        let index = self.groups.len();
        self.groups.push(Group {
            hops: key.hops.clone(),
            weights: key.weights.clone(),
            buckets,
            buckets_at: 0,
            action,
            mirror,
            first_hop,
        });
        self.shared.insert(key, index);
        self.group_of.insert(lineage, index);
        index
    }

    /// One section behind the other; the plan learns where each begins.
    fn lay_out(&mut self, plan: &mut Plan, tables: [&Table; 3]) -> Vec<u64> {
        let mut arena = Vec::new();
        let cell = |arena: &Vec<u64>| (arena.len() / abi::CELL_WORDS) as u32;
        let [table4, table6, conditions] = tables;
        (plan.table4, plan.mask4) = (cell(&arena), table4.mask());
        arena.extend_from_slice(table4.words());
        (plan.table6, plan.mask6) = (cell(&arena), table6.mask());
        arena.extend_from_slice(table6.words());
        (plan.conditions, plan.condition_mask) = (cell(&arena), conditions.mask());
        arena.extend_from_slice(conditions.words());
        plan.hops = cell(&arena);
        arena.extend(self.hops.iter().flatten());
        pad(&mut arena);
        plan.buckets = cell(&arena);
        let mut first_buckets = Vec::with_capacity(self.groups.len());
        for group in &mut self.groups {
            first_buckets.push(cell(&arena) - plan.buckets);
            group.buckets_at = arena.len();
            arena.extend(group.buckets.iter().map(|b| b.word()));
            pad(&mut arena);
        }
        plan.groups = cell(&arena);
        for (group, first_bucket) in self.groups.iter().zip(first_buckets) {
            let tag = group.mirror.is_some_and(|ifindex| self.devices.sees_again(ifindex));
            let flags = if tag { abi::GROUP_MIRROR_TAG } else { 0 };
            let bucket_mask = group.buckets.len().saturating_sub(1) as u32;
            arena.push(abi::pair(group.first_hop, group.hops.len() as u32));
            arena.push(abi::pair(group.action, first_bucket));
            arena.push(abi::pair(bucket_mask, group.mirror.unwrap_or(0)));
            arena.push(abi::pair(flags, 0));
            pad(&mut arena);
        }
        arena
    }
}

fn pad(arena: &mut Vec<u64>) {
    arena.resize(arena.len().next_multiple_of(abi::CELL_WORDS), 0);
}

fn key_of(family: Family, side: Side, length: u8, bits: u128) -> SmallVec<[u64; 3]> {
    let bits = bits & mask(family, length);
    match family {
        Family::V4 => smallvec![abi::prefix_key(side, length, bits as u32)],
        Family::V6 => smallvec![abi::prefix_key(side, length, 0), (bits >> 64) as u64, bits as u64],
    }
}

/// The table of one family, source and destination side; `prefixes` are sorted here.
fn prefix_table(plan: &mut Plan, family: Family, prefixes: &mut [Vec<(Prefix, u64)>; 2]) -> Table {
    let kind = if family == Family::V4 { Kind::Prefix4 } else { Kind::Prefix6 };
    let count = prefixes.iter().map(Vec::len).sum();
    let mut table = Table::new(kind, plan.seed, count);
    for (side, prefixes) in Side::BOTH.into_iter().zip(prefixes) {
        // Shorter ones first: when a prefix lays its markers, all that can be their best match is there.
        prefixes.sort_unstable_by_key(|(prefix, _)| (prefix.length(), prefix.bits()));
        let lengths: BTreeSet<u8> =
            prefixes.iter().map(|(prefix, _)| prefix.length()).filter(|&l| l > 0).collect();
        let lengths: Vec<u8> = lengths.into_iter().collect();
        let steps = search_tree(&lengths);
        let mut zero = 0;
        for (prefix, value) in prefixes.iter() {
            if prefix.length() == 0 {
                zero = *value;
                continue;
            }
            lay_markers(&mut table, family, side, prefix, &lengths, &steps, zero);
            table.insert(&key_of(family, side, prefix.length(), prefix.bits()), &[*value]);
        }
        plan.zero[family as usize][side as usize] = zero;
        plan.lengths[family as usize][side as usize] = lengths;
        plan.steps[family as usize][side as usize] = steps;
    }
    table
}

fn lay_markers(
    table: &mut Table,
    family: Family,
    side: Side,
    prefix: &Prefix,
    lengths: &[u8],
    steps: &[Step],
    zero: u64,
) {
    let mut at = 1;
    loop {
        let step = steps[at];
        match step.length.cmp(&prefix.length()) {
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Greater => at = usize::from(step.miss),
            std::cmp::Ordering::Less => {
                let key = key_of(family, side, step.length, prefix.bits());
                if table.get(&key).is_none() {
                    let best = lengths
                        .iter()
                        .rev()
                        .filter(|&&length| length < step.length)
                        .find_map(|&length| {
                            table
                                .get(&key_of(family, side, length, prefix.bits()))
                                .filter(|value| value & abi::VALUE_OWN != 0)
                        })
                        .unwrap_or(zero);
                    table.insert(&key, &[best & !abi::VALUE_OWN]);
                }
                at = usize::from(step.hit);
            }
        }
    }
}

/// A balanced tree over the lengths, its root at 1; of two lengths the longer is tried first.
fn search_tree(lengths: &[u8]) -> Vec<Step> {
    fn build(lengths: &[u8], steps: &mut Vec<Step>) -> u8 {
        if lengths.is_empty() {
            return 0;
        }
        let middle = lengths.len() / 2;
        let at = steps.len();
        steps.push(Step { length: lengths[middle], hit: 0, miss: 0 });
        steps[at].hit = build(&lengths[middle + 1..], steps);
        steps[at].miss = build(&lengths[..middle], steps);
        at as u8
    }
    let mut steps = vec![Step::default()];
    build(lengths, &mut steps);
    steps
}

/// What bpf/include/prefix.h finds: for tests.
#[cfg(test)]
pub fn longest(compiled: &Compiled, family: Family, side: Side, address: IpAddr) -> u64 {
    let plan = &compiled.plan;
    let (base, mask, kind) = match family {
        Family::V4 => (plan.table4, plan.mask4, Kind::Prefix4),
        Family::V6 => (plan.table6, plan.mask6, Kind::Prefix6),
    };
    let start = base as usize * abi::CELL_WORDS;
    let words = &compiled.arena[start..start + (mask as usize + 1) * abi::CELL_WORDS];
    let table = Table::from_words(kind, plan.seed, words.to_vec());
    let steps = &plan.steps[family as usize][side as usize];
    let mut best = plan.zero[family as usize][side as usize];
    let mut at = usize::from(steps.len() > 1);
    while at != 0 {
        let step = steps[at];
        at = usize::from(step.miss);
        if let Some(value) = table.get(&key_of(family, side, step.length, number(address))) {
            best = value;
            at = usize::from(step.hit);
        }
    }
    best
}
