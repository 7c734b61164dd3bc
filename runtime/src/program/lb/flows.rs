//! The connections that a load balancer knows: `struct flow` of bpf/lb.bpf.c, as many as a million.

use std::collections::BTreeMap;

use crate::kernel::bpf::Map;
use crate::{Error, Result};

/// Offsets in `struct flow`, and its size.
const SEEN: usize = 20;
const BACKEND: usize = 24;
const WAY: usize = 26;
const CLOSED: usize = 27;
const SIZE: u32 = 28;

const REQUEST: u8 = 0;
const CLOSED_BY_BOTH: u8 = 3;

/// Which flows count as alive.
#[derive(Debug, Clone, Copy)]
pub enum Alive {
    /// TCP: not ended by both sides.
    NotClosed,
    /// UDP: seen in the last so many seconds.
    SeenWithin(u32),
}

/// How many connections are alive, by their backend's number.
///
/// # Errors
/// EINVAL when the map does not hold flows; EPERM.
pub fn established(flows: &Map, alive: Alive) -> Result<BTreeMap<u16, u64>> {
    check(flows)?;
    let now = seconds_now();
    let mut counts = BTreeMap::new();
    for entry in flows.entries() {
        let (_, flow) = entry?;
        let lives = match alive {
            Alive::NotClosed => flow[CLOSED] != CLOSED_BY_BOTH,
            Alive::SeenWithin(idle) => now.saturating_sub(seen(&flow)) <= idle,
        };
        if flow[WAY] == REQUEST && lives {
            *counts.entry(backend(&flow)).or_default() += 1;
        }
    }
    Ok(counts)
}

/// The keys of a backend's connections, both directions, packed; and how many connections they are.
///
/// # Errors
/// EINVAL when the map does not hold flows; EPERM.
pub fn of_backend(flows: &Map, number: u16) -> Result<(Vec<u8>, usize)> {
    check(flows)?;
    let (mut keys, mut count) = (Vec::new(), 0);
    for entry in flows.entries() {
        let (key, flow) = entry?;
        if backend(&flow) == number {
            keys.extend(key);
            count += usize::from(flow[WAY] == REQUEST);
        }
    }
    Ok((keys, count))
}

fn check(flows: &Map) -> Result<()> {
    match flows.info().value_size {
        SIZE => Ok(()),
        _ => Err(Error::invalid("lb", "the map holds no flows").subject(flows.name())),
    }
}

fn seen(flow: &[u8]) -> u32 {
    u32::from_ne_bytes([flow[SEEN], flow[SEEN + 1], flow[SEEN + 2], flow[SEEN + 3]])
}

fn backend(flow: &[u8]) -> u16 {
    u16::from_ne_bytes([flow[BACKEND], flow[BACKEND + 1]])
}

/// As the programs count: whole seconds of CLOCK_MONOTONIC_COARSE, which is up to a tick behind the other.
fn seconds_now() -> u32 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |now| now.tv_sec() as u32)
}
