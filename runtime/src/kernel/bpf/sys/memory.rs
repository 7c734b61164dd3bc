//! Memory shared with the kernel: the pages behind a descriptor, reached through atomics and copies.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use super::{Errno, SysResult};

/// A mapping of a descriptor, removed when dropped.
///
/// The kernel and programs write at the same time, so there are no slices: words are atomics, bytes are copied.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is shared with the kernel anyway and reached only through atomics and copies.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `len` bytes from `offset`, both whole pages.
    pub fn new(fd: BorrowedFd<'_>, offset: usize, len: usize, writable: bool) -> SysResult<Pages> {
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a fresh mapping of a descriptor, nothing of ours is replaced.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                access,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Pages { start, len }),
            _ => Err(Errno::last()),
        }
    }

    /// Bytes mapped.
    pub fn size(&self) -> usize {
        self.len
    }

    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        let inside = offset.checked_add(size).is_some_and(|end| end <= self.len);
        assert!(inside && offset.is_multiple_of(size), "offset {offset} in shared memory");
        // SAFETY: checked to lie inside of the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The word `offset` bytes from the start. Panics when it is unaligned or beyond the end, as a slice would.
    pub fn u64_at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside, aligned, and alive as long as `self`.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    /// As [`Pages::u64_at`], 4 bytes.
    pub fn u32_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: inside, aligned, and alive as long as `self`.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    /// As [`Pages::u64_at`], 2 bytes.
    pub fn u16_at(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: inside, aligned, and alive as long as `self`.
        unsafe { AtomicU16::from_ptr(self.at(offset, 2).cast()) }
    }

    /// As [`Pages::u64_at`], 1 byte.
    pub fn u8_at(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: inside and alive as long as `self`.
        unsafe { AtomicU8::from_ptr(self.at(offset, 1)) }
    }

    /// Appends a copy of `len` bytes. Panics when they do not lie inside.
    pub fn copy(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "bytes in shared memory"
        );
        /// Up to here a copy of fixed length, which needs no call, is faster than one of the right length.
        const SMALL: usize = 32;
        let copied = if len <= SMALL && offset + SMALL <= self.len { SMALL } else { len };
        out.reserve(copied);
        // SAFETY: the source lies inside of the mapping, the target in the capacity just reserved; they do not overlap.
        // Of what was copied, only the bytes asked for become the vector's.
        unsafe {
            let target = out.as_mut_ptr().add(out.len());
            let source = self.start.as_ptr().add(offset);
            match copied {
                SMALL => std::ptr::copy_nonoverlapping(source, target, SMALL),
                _ => std::ptr::copy_nonoverlapping(source, target, len),
            }
            out.set_len(out.len() + len);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it outlives `self`.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Bytes in a page of memory.
pub fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.map_or(4096, |size| size as usize)
}
