//! An array map in our own memory: counters read, and words written, without a system call.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use super::{Map, MapKind};
use crate::kernel::bpf::sys::{self, Pages};
use crate::{Error, Result};

/// The elements of an `ARRAY` made with `BPF_F_MMAPABLE`, each as long as its value, rounded up to 8 bytes.
///
/// Programs write at the same time, so every access is atomic; several words are not read as one.
#[derive(Debug)]
pub struct Mapped {
    pages: Pages,
    /// The memory is the map's: it lives as long as this.
    _map: Map,
}

impl Mapped {
    pub(super) fn new(map: &Map) -> Result<Mapped> {
        let info = map.info();
        if info.kind != MapKind::ARRAY {
            return Err(Error::invalid("map.mmap", format!("a {} cannot be mapped", info.kind))
                .subject(map.name()));
        }
        let stride = (info.value_size as usize).next_multiple_of(8);
        let len = (stride * info.max_entries as usize).next_multiple_of(sys::page_size());
        let pages = Pages::new(map.as_fd(), 0, len, true).map_err(|errno| {
            Error::errno("map.mmap", errno)
                .subject(map.name())
                .hint("the map needs BPF_F_MMAPABLE and must not be frozen")
        })?;
        Ok(Mapped { pages, _map: map.clone() })
    }

    /// Bytes mapped, a whole number of pages.
    pub fn len(&self) -> usize {
        self.pages.size()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The word `offset` bytes from the start. Panics when it is unaligned or beyond the end, as a slice would.
    pub fn u64_at(&self, offset: usize) -> &AtomicU64 {
        self.pages.u64_at(offset)
    }

    /// As [`Mapped::u64_at`], 4 bytes.
    pub fn u32_at(&self, offset: usize) -> &AtomicU32 {
        self.pages.u32_at(offset)
    }

    /// As [`Mapped::u64_at`], 2 bytes.
    pub fn u16_at(&self, offset: usize) -> &AtomicU16 {
        self.pages.u16_at(offset)
    }

    /// As [`Mapped::u64_at`], 1 byte.
    pub fn u8_at(&self, offset: usize) -> &AtomicU8 {
        self.pages.u8_at(offset)
    }
}
