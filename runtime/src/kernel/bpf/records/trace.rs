//! Lines of `bpf_printk`, from every program on this system.
//!
//! Read through a perf event on the tracepoint that prints them (`bpf_trace:bpf_trace_printk`), in a buffer of our own:
//! `trace_pipe` would take them from whoever else reads it, and a tracing instance would have to be removed.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::epoll::Epoll;

use super::perf::{PerfRings, word};
use super::watch;
use crate::{Error, Result};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Without its line feed.
    pub text: String,
    /// The thread that was running when the program ran, by its number; 0 is an idle processor.
    pub thread: u32,
    pub cpu: u32,
    /// Since boot (CLOCK_MONOTONIC, within what perf's own clock differs from it).
    pub time: Duration,
}

/// Every line from now on.
#[derive(Debug)]
pub struct Trace {
    rings: PerfRings,
    ready: Epoll,
}

/// Bytes for each processor: some thousand lines.
const BUFFER: usize = 256 << 10;
const TRACEPOINT: &str = "events/bpf_trace/bpf_trace_printk/id";
/// Behind four common fields of 8 bytes: where in the sample the text is (16 bits), and its length (16 bits).
const DATA_LOC: usize = 8;

impl Trace {
    /// # Errors
    /// ENOENT where tracefs is not mounted, or the kernel has no tracepoint for the lines; EPERM without CAP_PERFMON.
    pub fn open() -> Result<Trace> {
        let rings = PerfRings::of_tracepoint(tracepoint()?, BUFFER)?;
        let ready = watch(rings.descriptors())?;
        Ok(Trace { rings, ready })
    }

    /// Appends at most `max` lines.
    pub fn take(&mut self, lines: &mut Vec<Line>, max: usize) {
        self.rings.take(max, |sample| lines.push(line(sample)));
    }

    /// Lines that found no room.
    pub fn lost(&self) -> u64 {
        self.rings.lost()
    }
}

impl AsFd for Trace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }
}

/// The number of the tracepoint.
fn tracepoint() -> Result<u64> {
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let found = places.iter().find_map(|place| {
        let text = std::fs::read_to_string(Path::new(place).join(TRACEPOINT)).ok()?;
        text.trim().parse().ok()
    });
    found.ok_or_else(|| {
        let mounted = places.iter().any(|place| Path::new(place).join("events").exists());
        match mounted {
            true => {
                Error::new("bpf.trace", "ENOENT", "this kernel has no tracepoint for bpf_printk")
            }
            false => Error::new("bpf.trace", "ENOENT", "no tracefs is mounted")
                .hint("mount one: mount -t tracefs tracefs /sys/kernel/tracing"),
        }
    })
}

/// A sample is process and thread (4 bytes each), time (8), processor (4, and 4 of nothing), length (4), bytes.
fn line(sample: &[u8]) -> Line {
    let bytes = sample.get(28..).unwrap_or_default();
    let start = usize::from(u16::from_ne_bytes(word(bytes, DATA_LOC)));
    let length = usize::from(u16::from_ne_bytes(word(bytes, DATA_LOC + 2)));
    let text = bytes.get(start..(start + length).min(bytes.len())).unwrap_or_default();
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]);
    Line {
        text: text.trim_end_matches('\n').to_owned(),
        thread: u32::from_ne_bytes(word(sample, 4)),
        time: Duration::from_nanos(u64::from_ne_bytes(word(sample, 8))),
        cpu: u32::from_ne_bytes(word(sample, 16)),
    }
}
