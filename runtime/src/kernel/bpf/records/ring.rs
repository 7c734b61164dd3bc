//! Ring buffers (`BPF_MAP_TYPE_RINGBUF`, kernel/bpf/ringbuf.c): one buffer for all processors, records in order.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::SeqCst;

use super::Batch;
use crate::kernel::bpf::map::Map;
use crate::kernel::bpf::sys::{self, Pages};
use crate::{Error, Result};

/// A record that its program has not finished yet (`BPF_RINGBUF_BUSY_BIT`).
const BUSY: u32 = 1 << 31;
/// A record that its program took back.
const DISCARDED: u32 = 1 << 30;
/// Before each record: its length with the two flags, and a word of the kernel's.
const HEADER: usize = 8;

/// The consumer of a ring buffer. Its position lives in the map: who opens it next goes on there.
#[derive(Debug)]
pub struct Ring {
    map: Map,
    /// How far we have read, at its start.
    consumer: Pages,
    /// How far programs have written, at its start; a page further the data, twice in a row so that no record is split.
    producer: Pages,
    size: usize,
    fullest: u64,
}

impl Ring {
    pub fn open(map: &Map) -> Result<Ring> {
        let (size, page) = (map.info().max_entries as usize, sys::page_size());
        let pages = |offset, len, writable| {
            Pages::new(map.as_fd(), offset, len, writable)
                .map_err(|errno| Error::errno("map.on_record", errno).subject(map.name()))
        };
        Ok(Ring {
            consumer: pages(0, page, true)?,
            producer: pages(page, page + 2 * size, false)?,
            map: map.clone(),
            size,
            fullest: 0,
        })
    }

    /// Appends at most `max` finished records.
    ///
    /// A program that finishes the record we stopped at wakes us only if it sees our position: the store below and the
    /// loads of the next pass are in one order with its own, so none is missed once a pass has found nothing to pass by.
    pub fn take(&mut self, batch: &mut Batch, max: usize) {
        let page = sys::page_size();
        let position = self.consumer.u64_at(0);
        let before = batch.len();
        loop {
            let start = position.load(SeqCst);
            let mut at = start;
            let mut written = start;
            while batch.len() - before < max {
                // Programs write it all the time: looked at only when it has to be.
                if at >= written {
                    written = self.producer.u64_at(0).load(SeqCst);
                    self.fullest = self.fullest.max(written.saturating_sub(at));
                    if at >= written {
                        break;
                    }
                }
                let offset = page + (at as usize & (self.size - 1));
                let header = self.producer.u32_at(offset).load(SeqCst);
                if header & BUSY != 0 {
                    break;
                }
                let length = (header & !(BUSY | DISCARDED)) as usize;
                if header & DISCARDED == 0 {
                    // The kernel keeps lengths below the size; damage would be a bug of its own.
                    let length = length.min(self.size - HEADER);
                    batch.add(|out| self.producer.copy(offset + HEADER, length, out));
                }
                at += (length + HEADER).next_multiple_of(8) as u64;
            }
            position.store(at, SeqCst);
            if batch.len() > before || at == start {
                return;
            }
        }
    }

    pub fn fullest(&self) -> f64 {
        self.fullest as f64 / self.size as f64
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}
