//! Map commands.

use super::*;

/// What `BPF_MAP_CREATE` takes.
#[derive(Debug, Default, Clone, Copy)]
pub struct MapAttr<'a> {
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    pub extra: u64,
    pub name: &'a str,
    pub inner: Option<BorrowedFd<'a>>,
    /// The BTF object with the type ids of key and value in it.
    pub btf: Option<(BorrowedFd<'a>, u32, u32)>,
}

pub fn map_create(spec: &MapAttr<'_>) -> SysResult<OwnedFd> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_1 };
    u.map_type = spec.kind;
    u.key_size = spec.key_size;
    u.value_size = spec.value_size;
    u.max_entries = spec.max_entries;
    u.map_flags = spec.flags;
    u.map_extra = spec.extra;
    u.map_name = object_name(spec.name);
    u.inner_map_fd = spec.inner.map_or(0, raw);
    if let Some((fd, key, value)) = spec.btf {
        u.btf_fd = raw(fd);
        u.btf_key_type_id = key;
        u.btf_value_type_id = value;
    }
    descriptor(bpf_cmd::BPF_MAP_CREATE, &mut a)
}

/// The part of `union bpf_attr` that commands about one element read: they are called by the million, and a small
/// attribute is copied and checked faster than the whole.
#[repr(C)]
struct Element {
    map: u32,
    unused: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

fn element(
    cmd: bpf_cmd,
    fd: BorrowedFd<'_>,
    key: Option<&[u8]>,
    value: *const u8,
    flags: u64,
) -> SysResult<()> {
    let key = key.map_or(0, |k| k.as_ptr() as u64);
    let mut attr = Element { map: raw(fd), unused: 0, key, value: value as u64, flags };
    call(cmd, &mut attr).map(drop)
}

/// Reads into `value`, which must be as long as the kernel writes (value size, times CPUs for per-CPU maps).
/// `key` is absent for queues, stacks and bloom filters.
pub fn map_lookup(fd: BorrowedFd<'_>, key: Option<&[u8]>, value: &mut [u8]) -> SysResult<()> {
    element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, fd, key, value.as_mut_ptr(), 0)
}

pub fn map_lookup_and_delete(
    fd: BorrowedFd<'_>,
    key: Option<&[u8]>,
    value: &mut [u8],
) -> SysResult<()> {
    element(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, fd, key, value.as_mut_ptr(), 0)
}

pub fn map_update(
    fd: BorrowedFd<'_>,
    key: Option<&[u8]>,
    value: &[u8],
    flags: u64,
) -> SysResult<()> {
    element(bpf_cmd::BPF_MAP_UPDATE_ELEM, fd, key, value.as_ptr(), flags)
}

pub fn map_delete(fd: BorrowedFd<'_>, key: &[u8]) -> SysResult<()> {
    element(bpf_cmd::BPF_MAP_DELETE_ELEM, fd, Some(key), std::ptr::null(), 0)
}

/// The key after `key` (the first one for `None`) into `next`; ENOENT at the end.
pub fn map_next_key(fd: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> SysResult<()> {
    element(bpf_cmd::BPF_MAP_GET_NEXT_KEY, fd, key, next.as_mut_ptr(), 0)
}

pub fn map_freeze(fd: BorrowedFd<'_>) -> SysResult<()> {
    element(bpf_cmd::BPF_MAP_FREEZE, fd, None, std::ptr::null(), 0)
}

/// What a batch command did: elements done, and why it stopped early.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    pub done: u32,
    pub stopped: Option<Errno>,
}

fn batch(cmd: bpf_cmd, a: &mut bpf_attr, asked: u32) -> Batch {
    let outcome = unit(cmd, a);
    // SAFETY: the kernel wrote a plain count back, or left it as it was.
    let count = unsafe { a.batch.count };
    let lookup = cmd == bpf_cmd::BPF_MAP_LOOKUP_BATCH;
    match outcome {
        Ok(()) => Batch { done: count, stopped: None },
        // The last elements come with ENOENT, those before a bucket that is too large with ENOSPC.
        Err(errno @ (Errno::ENOENT | Errno::ENOSPC)) if lookup => {
            Batch { done: count, stopped: Some(errno) }
        }
        // Kernels before 6.8 leave the count as it was asked when they fail before the first element.
        Err(errno) if count == asked => Batch { done: 0, stopped: Some(errno) },
        Err(errno) => Batch { done: count, stopped: Some(errno) },
    }
}

/// Writes `count` packed keys and values.
pub fn map_update_batch(
    fd: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
    flags: u64,
) -> Batch {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.batch };
    u.map_fd = raw(fd);
    u.keys = keys.as_ptr() as u64;
    u.values = values.as_ptr() as u64;
    u.count = count;
    u.elem_flags = flags;
    batch(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut a, count)
}

pub fn map_delete_batch(fd: BorrowedFd<'_>, keys: &[u8], count: u32) -> Batch {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.batch };
    u.map_fd = raw(fd);
    u.keys = keys.as_ptr() as u64;
    u.count = count;
    batch(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut a, count)
}

/// Reads up to `count` elements behind `position` (opaque, at least 8 bytes and a key long; `None` starts).
/// `stopped` is ENOENT with the last elements, ENOSPC when a hash bucket is larger than `count`.
pub fn map_lookup_batch(
    fd: BorrowedFd<'_>,
    position: Option<&[u8]>,
    next_position: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> Batch {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.batch };
    u.map_fd = raw(fd);
    u.in_batch = position.map_or(0, |p| p.as_ptr() as u64);
    u.out_batch = next_position.as_mut_ptr() as u64;
    u.keys = keys.as_mut_ptr() as u64;
    u.values = values.as_mut_ptr() as u64;
    u.count = count;
    batch(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut a, count)
}
