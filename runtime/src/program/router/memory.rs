//! What a router leaves in the kernel for the process after this one: which counter is whose, which buckets are whose.
//!
//! Counters and buckets themselves live in maps that the programs on the hooks hold. This is the host's knowledge about
//! them, in an array beside those of the set it is about: the two flip together. Policies are told by a hash of what they
//! match, so a million of them take 40 MB, and a thousand 40 KB.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::abi::{self, FIRST_POLICY_ID};
use super::counters::{Count, Counters};
use super::group::Bucket;
use super::policy::{Family, Match};
use super::set::{Ancestors, Compiled, Entry, Group};
use crate::kernel::bpf::map::Mapped;
use crate::kernel::bpf::{Map, Program};
use crate::program;
use crate::{Error, Result};

/// Of what a policy matches, or of that and a family.
pub type Key = [u64; 2];

/// Counter ids, and what each counter held when its policy got it.
pub type Owners<'a> = &'a mut dyn Iterator<Item = (Key, u32, Count)>;

/// What another process's router has left.
#[derive(Debug)]
pub struct Left {
    pub counters: Arc<Counters>,
    pub next_id: u32,
    /// What the totals held in counters that are gone.
    pub totals: Vec<Count>,
    owners: HashMap<Key, (u32, Count)>,
    groups: Vec<Group>,
    groups_of: HashMap<Key, usize>,
    arena: Mapped,
}

/// Tells this layout, and the programs it is about, from others.
fn mark() -> u64 {
    static MARK: OnceLock<u64> = OnceLock::new();
    *MARK.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        program::embedded("router").hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        // Of a hash that a newer compiler's library makes otherwise, nothing would be found again.
        key_of(&Match::default()).hash(&mut hasher);
        hasher.finish()
    })
}

pub fn key_of(what: &impl Hash) -> Key {
    [1u8, 2].map(|which| {
        let mut hasher = DefaultHasher::new();
        which.hash(&mut hasher);
        what.hash(&mut hasher);
        hasher.finish()
    })
}

/// A set's memory, as words. `retired` are counts of ids in counters that go with this process.
pub fn words(
    compiled: &Compiled,
    counters: &Counters,
    next_id: u32,
    owners: Owners<'_>,
    retired: &dyn Fn(u32) -> Count,
) -> Vec<u64> {
    let mut out = Vec::with_capacity(owners.size_hint().0 * 5 + 128);
    out.extend_from_slice(&[mark(), u64::from(next_id)]);
    out.push(abi::pair(counters.capacity, counters.shards));
    let count = |out: &mut Vec<u64>, count: Count| {
        out.extend_from_slice(&[count.packets, count.bytes]);
    };
    (0..FIRST_POLICY_ID).for_each(|id| count(&mut out, retired(id)));
    let at = out.len();
    out.push(0);
    for (key, id, before) in owners {
        out[at] += 1;
        out.extend_from_slice(&[key[0], key[1], id.into()]);
        count(&mut out, before.minus(retired(id)));
    }
    out.push(compiled.groups.len() as u64);
    for group in &compiled.groups {
        out.push(abi::pair(group.hops.len() as u32, group.buckets.len() as u32));
        out.push(group.buckets_at as u64);
        for ((ifindex, via), weight) in group.hops.iter().zip(&group.weights) {
            let (family, address) = match via {
                None => (0, 0),
                Some(IpAddr::V4(address)) => (4, u128::from(u32::from(*address))),
                Some(IpAddr::V6(address)) => (6, u128::from(*address)),
            };
            out.extend([abi::pair(*ifindex, *weight), family]);
            out.extend([(address >> 64) as u64, address as u64]);
        }
    }
    out.push(compiled.group_of.len() as u64);
    for (lineage, group) in &compiled.group_of {
        out.extend(key_of(lineage));
        out.push(*group as u64);
    }
    out
}

impl Left {
    /// What the router of this program, which packets still run through, has left.
    ///
    /// # Errors
    /// ENOENT when it left nothing, EPROTO when another version of it did.
    pub fn of(program: &Program) -> Result<Left> {
        let mut maps = HashMap::new();
        for id in program.info()?.map_ids {
            let map = Map::by_id(id)?;
            maps.insert(map.name().to_owned(), map);
        }
        let nothing = || Error::new("policy.router", "ENOENT", "it has left none of them");
        let (state, sets) = maps.remove("state").zip(maps.remove("sets")).ok_or_else(nothing)?;
        let live = state.mmap()?.u32_at(abi::STATE_LIVE).load(Ordering::Acquire) & 1;
        let inner = |kind: u32| -> Result<Map> {
            let id = match (kind + live) < sets.info().max_entries {
                true => sets.lookup(&(kind + live).to_ne_bytes())?,
                false => None,
            };
            let id = id.and_then(|id| <[u8; 4]>::try_from(id).ok()).ok_or_else(nothing)?;
            Map::by_id(u32::from_ne_bytes(id))
        };
        let memory = inner(abi::SETS_MEMORY)?.mmap()?;
        let (arena, counters) = (inner(abi::SETS_ARENA)?, inner(abi::SETS_COUNTERS)?);
        let other = || Error::new("policy.router", "EPROTO", "another version of it left them");
        Reader { memory, at: 0 }.read(arena.mmap()?, counters)?.ok_or_else(other)
    }

    pub fn owner(&self, matching: &Match) -> Option<(u32, Count)> {
        self.owners.get(&key_of(matching)).copied()
    }

    /// The groups of these policies, with their buckets as packets have them now.
    pub fn ancestors(&self, entries: &[Entry<'_>]) -> Ancestors {
        let mut groups = self.groups.clone();
        for group in &mut groups {
            for (i, bucket) in group.buckets.iter_mut().enumerate() {
                let word = self.arena.u64_at((group.buckets_at + i) * 8).load(Ordering::Relaxed);
                *bucket = Bucket::from_word(word);
            }
        }
        let lineages = entries
            .iter()
            .flat_map(|entry| Family::BOTH.map(|family| (entry.policy.matching.clone(), family)));
        let of = lineages.filter_map(|lineage| {
            let group = *self.groups_of.get(&key_of(&lineage))?;
            Some((lineage, group))
        });
        Ancestors { of: of.collect(), groups }
    }
}

/// Reads what [`words`] wrote. Nothing is taken for granted: `None` when it is not that.
struct Reader {
    memory: Mapped,
    at: usize,
}

impl Reader {
    fn word(&mut self) -> Option<u64> {
        let at = self.at * 8;
        self.at += 1;
        (at + 8 <= self.memory.len()).then(|| self.memory.u64_at(at).load(Ordering::Relaxed))
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.word()?).ok()
    }

    fn pair(&mut self) -> Option<(u32, u32)> {
        let bytes = self.word()?.to_ne_bytes();
        let half = |at: usize| Some(u32::from_ne_bytes(bytes[at..at + 4].try_into().ok()?));
        Some((half(0)?, half(4)?))
    }

    fn count(&mut self) -> Option<Count> {
        Some(Count { packets: self.word()?, bytes: self.word()? })
    }

    fn key(&mut self) -> Option<Key> {
        Some([self.word()?, self.word()?])
    }

    fn read(mut self, arena: Mapped, counters: Map) -> Result<Option<Left>> {
        if self.word() != Some(mark()) {
            return Ok(None);
        }
        let header = (self.number::<u32>(), self.pair());
        let (Some(next_id), Some((capacity, shards))) = header else { return Ok(None) };
        let Some(counters) = Counters::of(counters, capacity, shards)? else { return Ok(None) };
        Ok(self.rest(arena, counters, next_id))
    }

    fn rest(&mut self, arena: Mapped, counters: Counters, next_id: u32) -> Option<Left> {
        let totals = (0..FIRST_POLICY_ID).map(|_| self.count()).collect::<Option<_>>()?;
        let mut owners = HashMap::new();
        for _ in 0..self.word()? {
            let key = self.key()?;
            let id = self.number::<u32>().filter(|id| *id < next_id)?;
            owners.insert(key, (id, self.count()?));
        }
        let mut groups = Vec::new();
        for _ in 0..self.word()? {
            groups.push(self.group(&arena)?);
        }
        let mut groups_of = HashMap::new();
        for _ in 0..self.word()? {
            let key = self.key()?;
            groups_of.insert(key, self.number::<usize>().filter(|at| *at < groups.len())?);
        }
        let counters = Arc::new(counters);
        Some(Left { counters, next_id, totals, owners, groups, groups_of, arena })
    }

    fn group(&mut self, arena: &Mapped) -> Option<Group> {
        let (hops, buckets) = self.pair()?;
        let buckets_at: usize = self.number()?;
        let end = buckets_at.checked_add(buckets as usize)?.checked_mul(8)?;
        if end > arena.len() {
            return None;
        }
        let (mut all, mut weights) = (Vec::new(), Vec::new());
        for _ in 0..hops {
            let (ifindex, weight) = self.pair()?;
            let family = self.word()?;
            let address = u128::from(self.word()?) << 64 | u128::from(self.word()?);
            let via = match family {
                0 => None,
                4 => Some(IpAddr::from((address as u32).to_be_bytes())),
                6 => Some(IpAddr::from(address.to_be_bytes())),
                _ => return None,
            };
            all.push((ifindex, via));
            weights.push(weight);
        }
        let buckets = vec![Bucket::default(); buckets as usize];
        Some(Group::before(all, weights, buckets, buckets_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::bpf::map::{MapKind, MapSpec};
    use crate::kernel::bpf::sys;

    fn mapped(words: &[u64]) -> Mapped {
        let spec = MapSpec::new("memory", MapKind::ARRAY, 4, 64, words.len() as u32 / 8 + 1);
        let memory = Map::create(&spec.flags(sys::F_MMAPABLE)).expect("root").mmap().expect("it");
        for (i, word) in words.iter().enumerate() {
            memory.u64_at(i * 8).store(*word, Ordering::Relaxed);
        }
        memory
    }

    fn matching(mark: u32) -> Match {
        Match { mark: Some(mark), ..Match::default() }
    }

    /// Two policies with a group, and how they are remembered.
    fn example(counters: &Counters) -> Vec<u64> {
        let hops = vec![(3, Some(IpAddr::from([10, 0, 0, 1]))), (4, None)];
        let group = Group::before(hops, vec![1, 2], vec![Bucket::default(); 4], 8);
        let lineage = (matching(7), Family::V4);
        let compiled = Compiled {
            plan: abi::Plan::default(),
            arena: Vec::new(),
            groups: vec![group],
            group_of: [(lineage, 0)].into_iter().collect(),
        };
        let ids = [(matching(7), 16), (matching(8), 17)];
        let before = Count { packets: 5, bytes: 500 };
        let mut owners = ids.iter().map(|(matching, id)| (key_of(matching), *id, before));
        let retired = |id| Count { packets: u64::from(id), bytes: 0 };
        words(&compiled, counters, 18, &mut owners, &retired)
    }

    fn read(words: &[u64], counters: &Counters) -> Option<Left> {
        let arena = mapped(&[0x0001_0001; 64]);
        let reader = Reader { memory: mapped(words), at: 0 };
        reader.read(arena, counters.map.clone()).expect("memory")
    }

    #[test]
    fn what_is_remembered_is_found_again() {
        let counters = Counters::new(20).expect("root");
        let left = read(&example(&counters), &counters).expect("it is this version's");
        assert_eq!(left.next_id, 18);
        assert_eq!(left.totals[3].packets, 3);
        // What the counters before them held is not in these.
        let held = Count { packets: 5u64.wrapping_sub(17), bytes: 500 };
        assert_eq!(left.owner(&matching(8)), Some((17, held)));
        assert_eq!(left.owner(&matching(9)), None);
        assert_eq!(left.groups_of.get(&key_of(&(matching(7), Family::V4))), Some(&0));
        assert_eq!(left.groups[0].hops[0], (3, Some(IpAddr::from([10, 0, 0, 1]))));
        assert_eq!(left.groups[0].weights, [1, 2]);
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let counters = Counters::new(20).expect("root");
        let good = example(&counters);
        let mut other = good.clone();
        other[0] ^= 1;
        assert!(read(&other, &counters).is_none(), "another version's");
        // Sizes of counters, counts of entries, and places beyond the end are not believed.
        let fields = [2, 3 + 2 * FIRST_POLICY_ID as usize, good.len() - 1];
        for at in fields {
            let mut damaged = good.clone();
            damaged[at] = u64::MAX;
            assert!(read(&damaged, &counters).is_none(), "word {at}");
        }
    }
}
