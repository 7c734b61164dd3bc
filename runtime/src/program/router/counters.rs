//! Packets and bytes per policy: an array that processors add to, read here without a system call.

use crate::Result;
use crate::kernel::bpf::map::{Map, MapKind, MapSpec, Mapped};

use super::abi::{CELL_BYTES, FIRST_POLICY_ID};
use super::slots::INNER_FLAGS;

/// Packets and bytes. Bytes from the IP header on, as on the wire: a GSO packet counts as its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

impl Count {
    pub fn plus(self, other: Count) -> Count {
        Count {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }

    pub fn minus(self, other: Count) -> Count {
        Count {
            packets: self.packets.wrapping_sub(other.packets),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }
}

/// Processors share shards when there are many policies: counters beyond this many would cost too much memory.
const MOST_COUNTERS: u32 = 1 << 22;
const PER_CELL: u32 = 4;
const COUNTER_BYTES: usize = 16;

#[derive(Debug)]
pub struct Counters {
    pub map: Map,
    memory: Mapped,
    /// Counters per shard.
    pub capacity: u32,
    pub shards: u32,
}

impl Counters {
    /// With room for policies up to id `last`.
    pub fn new(last: u32) -> Result<Counters> {
        let capacity = (last + last / 2).max(FIRST_POLICY_ID * 2).next_power_of_two();
        let processors = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF)
            .ok()
            .flatten()
            .map_or(1, |n| n.clamp(1, 1024) as u32);
        let shards = processors.next_power_of_two().min((MOST_COUNTERS / capacity).max(1));
        let cells = capacity * shards / PER_CELL;
        let spec = MapSpec::new("router_counters", MapKind::ARRAY, 4, CELL_BYTES, cells);
        let map = Map::create(&spec.flags(INNER_FLAGS))?;
        Ok(Counters { memory: map.mmap()?, map, capacity, shards })
    }

    /// Those that another process has made, when they are what it says.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn of(map: Map, capacity: u32, shards: u32) -> Result<Option<Counters>> {
        let fits = capacity >= FIRST_POLICY_ID
            && shards.is_power_of_two()
            && u64::from(capacity) * u64::from(shards)
                == u64::from(map.info().max_entries) * u64::from(PER_CELL);
        if !fits {
            return Ok(None);
        }
        Ok(Some(Counters { memory: map.mmap()?, map, capacity, shards }))
    }

    pub fn get(&self, id: u32) -> Count {
        if id >= self.capacity {
            return Count::default();
        }
        (0..self.shards).fold(Count::default(), |sum, shard| {
            let at = (shard * self.capacity + id) as usize * COUNTER_BYTES;
            let load = |at| self.memory.u64_at(at).load(std::sync::atomic::Ordering::Relaxed);
            sum.plus(Count { packets: load(at), bytes: load(at + 8) })
        })
    }
}
