//! Perf event buffers: one ring for each processor, of what programs send through a perf event array or of a tracepoint.
//!
//! (perf_event_open(2), kernel/events/ring_buffer.c.)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

use nix::errno::Errno;

use crate::kernel::bpf::map::Map;
use crate::kernel::bpf::probe;
use crate::kernel::bpf::sys::{self, Pages, PerfEvent};
use crate::{Error, Result};

/// Offsets of `data_head` and `data_tail` in `struct perf_event_mmap_page`.
const HEAD: usize = 1024;
const TAIL: usize = 1032;
/// `struct perf_event_header`: type (4 bytes), misc (2), size (2).
const HEADER: usize = 8;
/// `PERF_RECORD_SAMPLE`. What was lost is counted by the event itself, so `PERF_RECORD_LOST` is passed by.
const SAMPLE: u32 = 9;

/// The rings of one event on every processor that runs.
#[derive(Debug)]
pub struct PerfRings {
    rings: Vec<PerfRing>,
    /// The events' places in their map go with the descriptor that set them (`perf_event_fd_array_map_release`,
    /// kernel/bpf/arraymap.c), so it is one of their own: another reader may have taken the places meanwhile.
    places: Option<Map>,
    scratch: Vec<u8>,
}

impl PerfRings {
    /// Buffers for a perf event array, which programs reach once they have their places in it.
    pub fn of_map(map: &Map, buffer: usize) -> Result<PerfRings> {
        let cpus = probe::possible_cpus();
        if (map.info().max_entries as usize) < cpus {
            let message = format!(
                "the map has {} places and this machine {cpus} processors: records of the others would be lost",
                map.info().max_entries
            );
            return Err(Error::invalid("map.on_record", message).subject(map.name()).hint(
                "leave max_entries out of its declaration: it is then as many as there are",
            ));
        }
        let rings = open(PerfEvent::Output, "map.on_record", map.name(), buffer)?;
        Ok(PerfRings { rings, places: Some(Map::by_id(map.id())?), scratch: Vec::new() })
    }

    /// Puts the buffers into the map: from now on what programs send arrives here, and nowhere else.
    pub fn listen(&self) -> Result<()> {
        let Some(places) = &self.places else { return Ok(()) };
        for ring in &self.rings {
            places
                .update_fd(&ring.cpu.to_ne_bytes(), ring.event.as_fd())
                .map_err(|e| e.operation("map.on_record"))?;
        }
        Ok(())
    }

    /// The samples of a tracepoint, on every processor.
    pub fn of_tracepoint(id: u64, buffer: usize) -> Result<PerfRings> {
        let rings = open(PerfEvent::Tracepoint(id), "bpf.trace", "bpf_trace_printk", buffer)?;
        Ok(PerfRings { rings, places: None, scratch: Vec::new() })
    }

    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|ring| ring.event.as_fd())
    }

    /// Gives at most `max` samples to `each`, without their headers.
    pub fn take(&mut self, max: usize, mut each: impl FnMut(&[u8])) {
        let mut left = max;
        for ring in &mut self.rings {
            left = ring.take(left, &mut self.scratch, &mut each);
        }
        // Whoever comes first is not always the same processor.
        self.rings.rotate_left(1);
    }

    pub fn lost(&self) -> u64 {
        self.rings.iter().map(|ring| sys::perf_lost(ring.event.as_fd()).unwrap_or(0)).sum()
    }

    pub fn fullest(&self) -> f64 {
        self.rings.iter().map(|ring| ring.fullest as f64 / ring.size as f64).fold(0.0, f64::max)
    }
}

/// One processor's.
#[derive(Debug)]
struct PerfRing {
    event: OwnedFd,
    cpu: u32,
    /// A page of positions, then the data.
    pages: Pages,
    size: u64,
    fullest: u64,
}

impl PerfRing {
    /// How many more may be taken after these.
    fn take(&mut self, max: usize, scratch: &mut Vec<u8>, each: &mut impl FnMut(&[u8])) -> usize {
        let mut left = max;
        let mut at = self.pages.u64_at(TAIL).load(Acquire);
        let head = self.pages.u64_at(HEAD).load(Acquire);
        self.fullest = self.fullest.max(head.wrapping_sub(at));
        while left > 0 && at < head {
            scratch.clear();
            self.copy(at, HEADER, scratch);
            let kind = u32::from_ne_bytes(word(scratch, 0));
            let size = u16::from_ne_bytes(word(scratch, 6));
            if usize::from(size) < HEADER {
                // The kernel never writes this: nothing behind it can be told apart.
                at = head;
                break;
            }
            if kind == SAMPLE {
                scratch.clear();
                self.copy(at + HEADER as u64, usize::from(size) - HEADER, scratch);
                each(scratch);
                left -= 1;
            }
            at += u64::from(size);
        }
        self.pages.u64_at(TAIL).store(at, Release);
        left
    }

    /// Appends a copy of what lies in the ring, put together when it wraps around.
    fn copy(&self, at: u64, len: usize, out: &mut Vec<u8>) {
        let (start, page) = ((at % self.size) as usize, sys::page_size());
        let first = len.min(self.size as usize - start);
        self.pages.copy(page + start, first, out);
        self.pages.copy(page, len - first, out);
    }
}

/// `N` bytes at an offset, zero where there are none.
pub fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..at + N).and_then(|slice| slice.try_into().ok());
    found.unwrap_or([0; N])
}

/// Appends the bytes of a sample of `PERF_SAMPLE_RAW`: their length, then they. The kernel pads them, so that the sample
/// ends at 8 bytes, and counts the padding in.
pub fn raw(sample: &[u8], out: &mut Vec<u8>) {
    let length = u32::from_ne_bytes(word(sample, 0)) as usize;
    let bytes = sample.get(4..).unwrap_or_default();
    out.extend_from_slice(&bytes[..length.min(bytes.len())]);
}

fn open(event: PerfEvent, op: &'static str, subject: &str, buffer: usize) -> Result<Vec<PerfRing>> {
    let page = sys::page_size();
    let size = buffer.max(page).checked_next_power_of_two().unwrap_or(usize::MAX / 2);
    let failed = |errno: Errno| {
        let error = Error::errno(op, errno).subject(subject);
        match errno {
            Errno::EPERM | Errno::EACCES => error.hint("perf events need CAP_PERFMON"),
            Errno::ENOMEM => {
                error.because(format!("no memory for {size} bytes for each processor"))
            }
            _ => error,
        }
    };
    let mut rings = Vec::new();
    for cpu in 0..probe::possible_cpus() as u32 {
        let event = match sys::perf_event_open(event, cpu) {
            Ok(event) => event,
            // Plugged in, but not running.
            Err(Errno::ENODEV) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        let pages = Pages::new(event.as_fd(), 0, page + size, true).map_err(failed)?;
        rings.push(PerfRing { event, cpu, pages, size: size as u64, fullest: 0 });
    }
    Ok(rings)
}
