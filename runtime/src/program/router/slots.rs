//! The two sets of a router in the kernel: one that packets read, one that the next set is written to.
//!
//! A flip is one store to `state.live`. Packets that took the old set before the flip may still read it, so it is
//! written again only after all of them are done: a thread waits for that (`membarrier(2)` is the kernel's
//! synchronize_rcu here), off the caller's, and then makes room there for a set as large as the live one.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::abi::{self, CELL_BYTES, CELL_WORDS};
use super::counters::Counters;
use super::programs::Programs;
use super::set::Compiled;
use crate::Result;
use crate::kernel::bpf::map::{Map, MapKind, MapSpec, Mapped, Write};
use crate::kernel::bpf::sys;

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
    /// Ends when no packet reads the slot that is not live, and gives it back.
    grace: Option<JoinHandle<Slot>>,
}

/// Of a set, in words; its memory's, if it is remembered.
#[derive(Clone, Copy)]
struct Size {
    arena: usize,
    memory: Option<usize>,
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
        let size = Size { arena: compiled.arena.len(), memory: memory.map(<[u64]>::len) };
        let slot = &mut self.slots[next];
        slot.make_room(&self.sets, next, size, counters)?;
        if let (Some(memory), Some(words)) = (&slot.memory, memory) {
            write(memory, words);
        }
        write(slot.arena.as_ref().expect("made above"), &compiled.arena);
        compiled.plan.counter_capacity = counters.capacity;
        compiled.plan.shard_mask = counters.shards - 1;
        let plan = abi::STATE_PLAN + next * abi::PLAN_BYTES;
        for (i, word) in compiled.plan.words().into_iter().enumerate() {
            self.state.u64_at(plan + i * 8).store(word, Ordering::Relaxed);
        }
        self.state.u32_at(abi::STATE_LIVE).store(next as u32, Ordering::Release);
        let mut old = std::mem::take(&mut self.slots[self.live]);
        let (sets, which, counters) = (self.sets.clone(), self.live, Arc::clone(counters));
        self.live = next;
        let grace = std::thread::Builder::new().name("router-grace".into());
        // Without the thread the old arrays are let go, and nothing is written to them any more.
        self.grace = grace
            .spawn(move || {
                wait_for_packets();
                // Who needs the room and has none is told why.
                let _ = old.make_room(&sets, which, size, &counters);
                old
            })
            .ok();
        Ok(())
    }

    /// Returns when packets read the live set alone.
    pub fn wait(&mut self) {
        if let Some(slot) = self.grace.take().and_then(|grace| grace.join().ok()) {
            self.slots[1 - self.live] = slot;
        }
    }
}

impl Slot {
    /// Has arrays of that size at least, and these counters, in `sets`. The kernel waits for packets at each request that
    /// changes a map of maps (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c): there is one, for all of them.
    fn make_room(
        &mut self,
        sets: &Map,
        which: usize,
        size: Size,
        counters: &Arc<Counters>,
    ) -> Result<()> {
        let arena = room_for("router_arena", self.arena.as_ref(), size.arena)?;
        let memory = match size.memory {
            Some(words) => room_for("router_memory", self.memory.as_ref(), words)?,
            None => None,
        };
        let counted = self.counters.as_ref().is_some_and(|c| Arc::ptr_eq(c, counters));
        let fds = [
            (abi::SETS_ARENA, arena.as_ref().map(|(map, _)| map.as_fd())),
            (abi::SETS_MEMORY, memory.as_ref().map(|(map, _)| map.as_fd())),
            (abi::SETS_COUNTERS, (!counted).then(|| counters.map.as_fd())),
        ];
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (kind, fd) in fds {
            if let Some(fd) = fd {
                keys.extend(key(kind, which));
                values.extend(fd.as_raw_fd().to_ne_bytes());
            }
        }
        if !keys.is_empty() {
            sets.update_many(&keys, &values, Write::Any)?;
        }
        if let Some((_, made)) = arena {
            self.arena = Some(made);
        }
        if let Some((_, made)) = memory {
            self.memory = Some(made);
        }
        self.counters = Some(Arc::clone(counters));
        Ok(())
    }
}

/// An array that holds so many words, and its memory, unless they fit what there is.
fn room_for(name: &str, there: Option<&Mapped>, words: usize) -> Result<Option<(Map, Mapped)>> {
    if there.is_some_and(|there| there.len() >= words * 8) {
        return Ok(None);
    }
    // Head room: a set that grows a little finds place.
    let cells = (words / CELL_WORDS + 1).next_power_of_two().max(64);
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
