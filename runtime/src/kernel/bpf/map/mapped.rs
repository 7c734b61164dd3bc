//! An array map in our own memory: counters read, and words written, without a system call.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use nix::errno::Errno;

use super::{Map, MapKind};
use crate::{Error, Result};

/// The elements of an `ARRAY` made with `BPF_F_MMAPABLE`, each [`Mapped::stride`] bytes long.
///
/// Programs write at the same time, so every access is atomic; several words are not read as one.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<u8>,
    len: usize,
    stride: usize,
    /// The memory is the map's: it lives as long as this.
    _map: Map,
}

// SAFETY: the memory is shared with the kernel anyway and reached only through atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    pub(super) fn new(map: &Map) -> Result<Mapped> {
        let info = map.info();
        if info.kind != MapKind::ARRAY {
            return Err(Error::invalid("map.mmap", format!("a {} cannot be mapped", info.kind))
                .subject(map.name()));
        }
        let stride = (info.value_size as usize).next_multiple_of(8);
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let len =
            (stride * info.max_entries as usize).next_multiple_of(page.unwrap_or(4096) as usize);
        let fd = map.as_fd().as_raw_fd();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping of a descriptor, nothing of ours is replaced.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0) };
        let start = match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => start,
            _ => {
                return Err(Error::errno("map.mmap", Errno::last())
                    .subject(map.name())
                    .hint("the map needs BPF_F_MMAPABLE and must not be frozen"));
            }
        };
        Ok(Mapped { start, len, stride, _map: map.clone() })
    }

    /// Bytes from one element to the next: the value size rounded up to 8.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes mapped, a whole number of pages.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(
            offset.is_multiple_of(size) && offset + size <= self.len,
            "offset {offset} in the map"
        );
        // SAFETY: checked to lie inside of the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The word `offset` bytes from the start. Panics when it is unaligned or beyond the end, as a slice would.
    pub fn u64_at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside, aligned, and alive as long as `self`.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    /// As [`Mapped::u64_at`], 4 bytes.
    pub fn u32_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: inside, aligned, and alive as long as `self`.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    /// As [`Mapped::u64_at`], 1 byte.
    pub fn u8_at(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: inside and alive as long as `self`.
        unsafe { AtomicU8::from_ptr(self.at(offset, 1)) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it outlives `self`.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
