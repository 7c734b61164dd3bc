//! Random sets of policies: what the tables find against what a plain walk over the list finds.

use std::collections::HashMap;
use std::net::IpAddr;

use super::super::abi::{self, Side};
use super::super::policy::{Action, Device, Family, Hop, Match, Policy, Prefix, number};
use super::super::set::{self, Ancestors, Devices, Entry, compile};

/// splitmix64: the same sets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// From few bits, so that prefixes nest.
    fn address(&mut self, family: Family) -> IpAddr {
        let few = |random: &mut Random| random.next() & random.next() & random.next();
        match family {
            Family::V4 => IpAddr::from((few(self) as u32).to_be_bytes()),
            Family::V6 => {
                let bits = u128::from(few(self)) << 64 | u128::from(few(self));
                IpAddr::from(bits.to_be_bytes())
            }
        }
    }
}

struct NoDevices;

impl Devices for NoDevices {
    fn slot(&self, _: u32) -> u16 {
        0
    }
    fn sees_again(&self, _: u32) -> bool {
        false
    }
}

fn plain(entries: &[Entry], side: Side, address: IpAddr) -> u64 {
    let prefix_of = |m: &Match| match side {
        Side::Source => m.from,
        Side::Destination => m.to,
    };
    entries
        .iter()
        .filter_map(|entry| Some((prefix_of(&entry.policy.matching)?, entry.id)))
        .filter(|(prefix, _)| prefix.contains(address))
        .max_by_key(|(prefix, _)| prefix.length())
        .map_or(0, |(_, id)| u64::from(id))
}

#[test]
fn prefixes_with_markers_find_what_a_list_finds() {
    let mut random = Random(1);
    for round in 0..120 {
        let family = if round % 2 == 0 { Family::V4 } else { Family::V6 };
        let all: Vec<u8> = (0..=family.bits()).collect();
        let in_use = 1 + random.below(all.len() as u64);
        let lengths: Vec<u8> =
            (0..in_use).map(|_| all[random.below(all.len() as u64) as usize]).collect();
        let mut matches = HashMap::new();
        for _ in 0..1 + random.below(300) {
            let length = lengths[random.below(in_use) as usize];
            let prefix = Prefix::new(random.address(family), length).unwrap();
            let matching = match random.below(2) {
                0 => Match { from: Some(prefix), ..Match::default() },
                _ => Match { to: Some(prefix), ..Match::default() },
            };
            matches.insert(matching, ());
        }
        let drop_it = |matching| Policy::new(matching, Action::Drop);
        let policies: Vec<Policy> = matches.into_keys().map(drop_it).collect();
        let entries = entries(&policies);
        let compiled = compile(&entries, None, &NoDevices, &Ancestors::default()).unwrap();
        for i in 0..400 {
            let near = &entries[i % entries.len()].policy.matching;
            let near = near.from.or(near.to).unwrap();
            // Half of the addresses are inside of some prefix, or just beside it.
            let flip = 1u128 << random.below(u64::from(family.bits()));
            let bits = near.bits() ^ if random.below(2) == 0 { flip } else { 0 };
            let address = match (i % 2, family) {
                (0, family) => random.address(family),
                (_, Family::V4) => IpAddr::from((bits as u32).to_be_bytes()),
                (_, Family::V6) => IpAddr::from(bits.to_be_bytes()),
            };
            for side in Side::BOTH {
                let found = set::longest(&compiled, family, side, address) & abi::VALUE_ID_MASK;
                let wanted = plain(&entries, side, address);
                assert_eq!(found, wanted, "round {round}: {address} ({:x})", number(address));
            }
        }
    }
}

fn entries(policies: &[Policy]) -> Vec<Entry<'_>> {
    let entry = |(i, policy)| Entry { policy, id: abi::FIRST_POLICY_ID + i as u32 };
    policies.iter().enumerate().map(entry).collect()
}

#[test]
fn shapes_are_sorted_and_limited() {
    let policy = |length: u8, priority: u32| {
        let matching = Match {
            from: Some(Prefix::new("10.0.0.0".parse().unwrap(), length).unwrap()),
            proto: Some(6),
            ..Match::default()
        };
        Policy { priority, ..Policy::new(matching, Action::Drop) }
    };
    let set = [policy(8, 1000), policy(24, 1000), policy(16, 5)];
    let compiled = compile(&entries(&set), None, &NoDevices, &Ancestors::default()).unwrap();
    let lengths: Vec<u8> = compiled.plan.shapes[0].iter().map(|s| s.from_length).collect();
    assert_eq!(lengths, [16, 24, 8]);
    let both = |from: u8, to: u8| {
        let net = |length| Prefix::new("10.0.0.0".parse().unwrap(), length).ok();
        let matching = Match { from: net(from), to: net(to), ..Match::default() };
        Policy::new(matching, Action::Drop)
    };
    let many: Vec<Policy> = (0..65).map(|i| both(i % 33, 1 + i / 33)).collect();
    let many = entries(&many);
    let error = compile(&many, None, &NoDevices, &Ancestors::default()).unwrap_err();
    assert!(error.is("E2BIG"), "{error}");
    assert!(compile(&many[..64], None, &NoDevices, &Ancestors::default()).is_ok());
}

#[test]
fn groups_keep_their_buckets() {
    let hop = |index: u32| Hop {
        via: None,
        dev: Some(Device { index, name: format!("d{index}").into() }),
        weight: 1,
        onlink: false,
    };
    let matching = Match { from: "10.0.0.0/8".parse().ok(), ..Match::default() };
    let set = |hops: &[u32]| {
        [Policy::new(matching.clone(), Action::Route(hops.iter().map(|&i| hop(i)).collect()))]
    };
    let first =
        compile(&entries(&set(&[1, 2, 3])), None, &NoDevices, &Ancestors::default()).unwrap();
    let old = first.groups[0].clone();
    let ancestors = Ancestors { groups: first.groups, of: first.group_of };
    let second = compile(&entries(&set(&[3, 1])), None, &NoDevices, &ancestors).unwrap();
    for (before, after) in old.buckets.iter().zip(&second.groups[0].buckets) {
        let (before, after) =
            (old.hops[before.hop as usize], second.groups[0].hops[after.hop as usize]);
        assert!(before == after || before.0 == 2, "{before:?} {after:?}");
    }
}
