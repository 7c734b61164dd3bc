//! What programs send to user space: records of ring buffers and perf event arrays, and lines of `bpf_printk`.
//!
//! Nothing waits here: a reader has a descriptor that becomes readable, and takes what is there, many at once.

mod perf;
mod ring;
#[cfg(test)]
mod tests;
mod trace;

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use perf::PerfRings;
use ring::Ring;
pub use trace::{Line, Trace};

use super::map::{Map, MapKind};
use crate::{Error, Result};

/// Records taken together, the oldest first, of perf arrays the oldest of each processor.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each one ends.
    ends: Vec<usize>,
}

impl Batch {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// Adds what `write` appends.
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }
}

/// The reader of one map. Each record is given out once, so a map should have one reader on the whole system.
#[derive(Debug)]
pub struct Records {
    source: Source,
    ready: Epoll,
}

#[derive(Debug)]
enum Source {
    Ring(Ring),
    Perf(PerfRings),
}

/// Bytes of each processor's buffer of a perf event array, when nothing else is asked for.
const PERF_BUFFER: usize = 256 << 10;

impl Records {
    /// Opens a ring buffer or a perf event array, the latter with `buffer` bytes for each processor, rounded up to a
    /// power of two pages.
    ///
    /// # Errors
    /// EINVAL for other kinds of maps, and for a perf event array with fewer places than processors; EPERM
    /// without CAP_PERFMON; ENOMEM.
    pub fn open(map: &Map, buffer: Option<usize>) -> Result<Records> {
        let source = match map.info().kind {
            MapKind::RINGBUF if buffer.is_some() => {
                return Err(Error::invalid(
                    "map.on_record",
                    "a ring buffer has its size from its map",
                )
                .subject(map.name())
                .hint("load it larger with max_entries={...}, in bytes"));
            }
            MapKind::RINGBUF => Source::Ring(Ring::open(map)?),
            MapKind::PERF_EVENT_ARRAY => {
                Source::Perf(PerfRings::of_map(map, buffer.unwrap_or(PERF_BUFFER))?)
            }
            kind => {
                return Err(Error::invalid(
                    "map.on_record",
                    format!("{kind} maps have no records"),
                )
                .subject(map.name())
                .hint("programs send records through a ringbuf or perf_event_array map"));
            }
        };
        let ready = match &source {
            Source::Ring(ring) => watch([ring.as_fd()])?,
            Source::Perf(rings) => watch(rings.descriptors())?,
        };
        Ok(Records { source, ready })
    }

    /// From now on records come here. Before it, a perf event array is as it was; a ring buffer needs no such step.
    pub fn listen(&self) -> Result<()> {
        match &self.source {
            Source::Ring(_) => Ok(()),
            Source::Perf(rings) => rings.listen(),
        }
    }

    /// Appends at most `max` records to `batch`. When it appends none, the descriptor becomes readable with the next.
    pub fn take(&mut self, batch: &mut Batch, max: usize) {
        match &mut self.source {
            Source::Ring(ring) => ring.take(batch, max),
            Source::Perf(rings) => {
                rings.take(max, |sample| batch.add(|out| perf::raw(sample, out)))
            }
        }
    }

    /// Bytes that a record may have behind what its program wrote, of no meaning.
    pub fn padding(&self) -> usize {
        match &self.source {
            Source::Ring(_) => 0,
            Source::Perf(_) => 7,
        }
    }

    /// Records that found no room, as the kernel counted them. It does not count those of ring buffers: there the
    /// program is told (`bpf_ringbuf_reserve` returns NULL).
    pub fn lost(&self) -> Option<u64> {
        match &self.source {
            Source::Ring(_) => None,
            Source::Perf(rings) => Some(rings.lost()),
        }
    }

    /// The largest share of the buffer that was found used, 0 to 1: near 1, programs find no room.
    pub fn fullest(&self) -> f64 {
        match &self.source {
            Source::Ring(ring) => ring.fullest(),
            Source::Perf(rings) => rings.fullest(),
        }
    }
}

impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }
}

/// One descriptor that becomes readable when one of several does.
fn watch<'fd>(descriptors: impl IntoIterator<Item = BorrowedFd<'fd>>) -> Result<Epoll> {
    let failed = |errno| Error::errno("map.on_record", errno);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
    for descriptor in descriptors {
        epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
    }
    Ok(epoll)
}
