//! The two sets of a router in the kernel: one that packets read, one that the next set is written to.
//!
//! A flip is one store to `state.live`. Packets that took the old set before the flip may still read it, so it is
//! written again only after all of them are done: a thread waits for that (`membarrier(2)` is the kernel's
//! synchronize_rcu here), off the caller's.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::abi::{self, CELL_BYTES, CELL_WORDS};
use super::counters::Counters;
use super::programs::Programs;
use super::set::Compiled;
use crate::kernel::bpf::map::{Map, MapKind, MapSpec, Mapped};
use crate::kernel::bpf::sys;
use crate::{Error, Result};

/// BPF_F_INNER_MAP: arrays of any length fit one slot of a map of maps (Linux 5.10).
const F_INNER_MAP: u32 = 1 << 12;
pub const INNER_FLAGS: u32 = sys::F_MMAPABLE | F_INNER_MAP;

#[derive(Debug, Default)]
struct Slot {
    arena: Option<Mapped>,
    memory: Option<Mapped>,
    counters: Option<Arc<Counters>>,
}

/// The memory that packets read.
#[derive(Debug)]
pub struct Slots {
    sets: Map,
    state: Arc<Mapped>,
    slots: [Slot; 2],
    live: usize,
    /// Ends when no packet reads the slot that is not live.
    grace: Option<JoinHandle<()>>,
}

impl Slots {
    pub fn new(programs: &Programs) -> Result<Slots> {
        let state = Arc::new(programs.map("state")?.mmap()?);
        Ok(Slots {
            sets: programs.map("sets")?,
            state,
            slots: Default::default(),
            live: 1,
            grace: None,
        })
    }

    /// `struct state`, for whoever follows devices.
    pub fn state(&self) -> Arc<Mapped> {
        self.state.clone()
    }

    /// A word of the live arena.
    pub fn word(&self, index: usize) -> Option<u64> {
        let arena = self.slots[self.live].arena.as_ref()?;
        (index * 8 < arena.len()).then(|| arena.u64_at(index * 8).load(Ordering::Relaxed))
    }

    /// Writes the set into the other slot and makes it live, with what the process after this one is to know of it, if it
    /// is to know anything. Nothing that packets see has changed after an error.
    ///
    /// # Errors
    /// ENOMEM, EPERM.
    pub fn publish(
        &mut self,
        compiled: &mut Compiled,
        counters: &Arc<Counters>,
        memory: Option<&[u64]>,
    ) -> Result<()> {
        self.wait();
        let next = 1 - self.live;
        let slot = &mut self.slots[next];
        if let Some(made) = room_for("router_arena", slot.arena.as_ref(), &compiled.arena)? {
            self.sets.update_fd(&key(abi::SETS_ARENA, next), made.0.as_fd())?;
            slot.arena = Some(made.1);
        }
        if let Some(words) = memory {
            if let Some(made) = room_for("router_memory", slot.memory.as_ref(), words)? {
                self.sets.update_fd(&key(abi::SETS_MEMORY, next), made.0.as_fd())?;
                slot.memory = Some(made.1);
            }
            slot.memory.iter().for_each(|memory| write(memory, words));
        }
        if slot.counters.as_ref().is_none_or(|c| !Arc::ptr_eq(c, counters)) {
            self.sets.update_fd(&key(abi::SETS_COUNTERS, next), counters.map.as_fd())?;
            slot.counters = Some(counters.clone());
        }
        let arena = slot.arena.as_ref().expect("made above");
        write(arena, &compiled.arena);
        compiled.plan.counter_capacity = counters.capacity;
        compiled.plan.shard_mask = counters.shards - 1;
        let plan = abi::STATE_PLAN + next * abi::PLAN_BYTES;
        for (i, word) in compiled.plan.words().into_iter().enumerate() {
            self.state.u64_at(plan + i * 8).store(word, Ordering::Relaxed);
        }
        self.state.u32_at(abi::STATE_LIVE).store(next as u32, Ordering::Release);
        self.live = next;
        self.grace = std::thread::Builder::new()
            .name("router-grace".into())
            .spawn(wait_for_packets)
            .map_err(|e| Error::io("router:set", &e))
            .ok();
        if self.grace.is_none() {
            wait_for_packets();
        }
        Ok(())
    }

    /// Returns when packets read the live set alone.
    pub fn wait(&mut self) {
        if let Some(grace) = self.grace.take() {
            let _ = grace.join();
        }
    }
}

/// An array that holds these words, and its memory, unless they fit what there is.
fn room_for(name: &str, there: Option<&Mapped>, words: &[u64]) -> Result<Option<(Map, Mapped)>> {
    if there.is_some_and(|there| there.len() >= words.len() * 8) {
        return Ok(None);
    }
    // Head room: a set that grows a little finds place.
    let cells = (words.len() / CELL_WORDS + 1).next_power_of_two().max(64);
    let spec = MapSpec::new(name, MapKind::ARRAY, 4, CELL_BYTES, cells as u32);
    let map = Map::create(&spec.flags(INNER_FLAGS))?;
    let memory = map.mmap()?;
    Ok(Some((map, memory)))
}

fn write(memory: &Mapped, words: &[u64]) {
    for (i, word) in words.iter().enumerate() {
        memory.u64_at(i * 8).store(*word, Ordering::Relaxed);
    }
}

fn key(kind: u32, slot: usize) -> [u8; 4] {
    (kind + slot as u32).to_ne_bytes()
}

/// Returns when every program that ran at the call has ended.
fn wait_for_packets() {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    // SAFETY: a system call without pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // Refused with nohz_full processors. A program runs for microseconds.
        std::thread::sleep(Duration::from_millis(200));
    }
}
