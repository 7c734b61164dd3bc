//! bpf(2) itself: one thin function per command, zeroed attributes, retries, errno back. No policy.
//!
//! Everything above speaks of maps, programs and hooks; only this file knows `union bpf_attr`.
//! (`bpf(2)`, `include/uapi/linux/bpf.h`, `kernel/bpf/syscall.c`.)

use std::ffi::CStr;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn};
pub use aya_obj::generated::{bpf_btf_info, bpf_link_info, bpf_map_info, bpf_prog_info};
use nix::errno::Errno;

/// An errno and nothing else: the callers know the operation and the subject.
pub type SysResult<T> = std::result::Result<T, Errno>;

/// `flags` of map updates (`BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`).
pub const ANY: u64 = 0;
pub const NOEXIST: u64 = 1;
pub const EXIST: u64 = 2;

/// mprog flags of `link_create` and `PROG_QUERY` users (tcx, netkit).
pub const F_REPLACE: u32 = 1 << 2;
pub const F_BEFORE: u32 = 1 << 3;
pub const F_AFTER: u32 = 1 << 4;
pub const F_ID: u32 = 1 << 5;
pub const F_LINK: u32 = 1 << 13;

/// Program flags.
pub const F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// Map flags.
pub const F_NO_PREALLOC: u32 = 1;
pub const F_RDONLY_PROG: u32 = 1 << 7;
pub const F_MMAPABLE: u32 = 1 << 10;

/// Names of programs and maps are 15 bytes and a NUL (`BPF_OBJ_NAME_LEN`).
pub const NAME_LEN: usize = 15;

/// `ENOTSUPP` of `include/linux/errno.h`.
const ENOTSUPP: i32 = 524;

fn attr() -> bpf_attr {
    // SAFETY: bpf_attr is a union of plain integers; all-zero is what the kernel asks of unused bytes.
    unsafe { zeroed() }
}

/// The system call, again while a signal (EINTR) or a busy verifier (EAGAIN, at most a few times) interrupts.
fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> SysResult<i64> {
    let mut busy = 0;
    loop {
        // SAFETY: the attribute union is whole and zeroed beyond what the caller set, its pointers are to memory the
        // caller holds for the length of the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                cmd as libc::c_long,
                attr as *mut bpf_attr,
                size_of::<bpf_attr>(),
            )
        };
        if result >= 0 {
            return Ok(result);
        }
        match Errno::last_raw() {
            libc::EINTR => {}
            libc::EAGAIN if cmd == bpf_cmd::BPF_PROG_LOAD && busy < 5 => busy += 1,
            // The kernel's internal "not supported" leaks out of map operations and has no libc name.
            ENOTSUPP => return Err(Errno::EOPNOTSUPP),
            raw => return Err(Errno::from_raw(raw)),
        }
    }
}

fn unit(cmd: bpf_cmd, attr: &mut bpf_attr) -> SysResult<()> {
    bpf(cmd, attr).map(drop)
}

fn descriptor(cmd: bpf_cmd, attr: &mut bpf_attr) -> SysResult<OwnedFd> {
    // SAFETY: these commands return a new descriptor that is ours (and is close-on-exec, always).
    bpf(cmd, attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// A name as the kernel takes it: cut to 15 bytes, anything but `[A-Za-z0-9_.]` replaced.
fn object_name(name: &str) -> [libc::c_char; 16] {
    let mut out = [0; 16];
    for (slot, byte) in out[..NAME_LEN].iter_mut().zip(name.bytes()) {
        let valid = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        *slot = if valid { byte } else { b'_' } as libc::c_char;
    }
    out
}

/// The text of a fixed-size C name.
pub fn name_of(name: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

// --- maps -----------------------------------------------------------------------------------------------------------

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

fn element(
    cmd: bpf_cmd,
    fd: BorrowedFd<'_>,
    key: Option<&[u8]>,
    value: *const u8,
    flags: u64,
) -> SysResult<()> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_2 };
    u.map_fd = raw(fd);
    u.key = key.map_or(0, |k| k.as_ptr() as u64);
    u.__bindgen_anon_1.value = value as u64;
    u.flags = flags;
    unit(cmd, &mut a)
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
    // SAFETY: the kernel wrote a plain count back. EFAULT says that it did not.
    let count = unsafe { a.batch.count };
    match outcome {
        Ok(()) => Batch { done: count, stopped: None },
        // An error before any element leaves the count as it was asked.
        Err(errno @ (Errno::EFAULT | Errno::EINVAL | Errno::EPERM | Errno::EOPNOTSUPP))
            if count == asked =>
        {
            Batch { done: 0, stopped: Some(errno) }
        }
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

// --- programs and BTF -----------------------------------------------------------------------------------------------

/// What `BPF_PROG_LOAD` takes.
#[derive(Debug, Clone, Copy)]
pub struct ProgramAttr<'a> {
    pub kind: u32,
    pub name: &'a str,
    pub instructions: &'a [bpf_insn],
    pub license: &'a CStr,
    pub flags: u32,
    pub expected_attach_type: u32,
    pub kernel_version: u32,
    pub btf: Option<BorrowedFd<'a>>,
    /// Packed `struct bpf_func_info` (8 bytes each); needs `btf`.
    pub func_info: &'a [u8],
    /// Packed `struct bpf_line_info` (16 bytes each); needs `btf`.
    pub line_info: &'a [u8],
}

pub const FUNC_INFO_SIZE: u32 = 8;
pub const LINE_INFO_SIZE: u32 = 16;

/// Loads and verifies. With `log` = (level, buffer) the verifier writes its text there, NUL-terminated.
pub fn prog_load(spec: &ProgramAttr<'_>, log: Option<(u32, &mut [u8])>) -> SysResult<OwnedFd> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_3 };
    u.prog_type = spec.kind;
    u.prog_name = object_name(spec.name);
    u.insns = spec.instructions.as_ptr() as u64;
    u.insn_cnt = spec.instructions.len() as u32;
    u.license = spec.license.as_ptr() as u64;
    u.prog_flags = spec.flags;
    u.expected_attach_type = spec.expected_attach_type;
    u.kern_version = spec.kernel_version;
    if let Some(btf) = spec.btf {
        u.prog_btf_fd = raw(btf);
        if !spec.func_info.is_empty() {
            u.func_info = spec.func_info.as_ptr() as u64;
            u.func_info_rec_size = FUNC_INFO_SIZE;
            u.func_info_cnt = spec.func_info.len() as u32 / FUNC_INFO_SIZE;
        }
        if !spec.line_info.is_empty() {
            u.line_info = spec.line_info.as_ptr() as u64;
            u.line_info_rec_size = LINE_INFO_SIZE;
            u.line_info_cnt = spec.line_info.len() as u32 / LINE_INFO_SIZE;
        }
    }
    if let Some((level, buffer)) = log {
        u.log_level = level;
        u.log_buf = buffer.as_mut_ptr() as u64;
        u.log_size = buffer.len() as u32;
    }
    descriptor(bpf_cmd::BPF_PROG_LOAD, &mut a)
}

pub fn btf_load(data: &[u8], log: Option<&mut [u8]>) -> SysResult<OwnedFd> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_7 };
    u.btf = data.as_ptr() as u64;
    u.btf_size = data.len() as u32;
    if let Some(buffer) = log {
        u.btf_log_level = 1;
        u.btf_log_buf = buffer.as_mut_ptr() as u64;
        u.btf_log_size = buffer.len() as u32;
    }
    descriptor(bpf_cmd::BPF_BTF_LOAD, &mut a)
}

/// What a test run gave back.
#[derive(Debug, Default, Clone)]
pub struct TestRun {
    pub retval: u32,
    pub packet: Vec<u8>,
    pub ctx: Vec<u8>,
    /// Average per repetition.
    pub nanoseconds: u32,
}

/// `BPF_PROG_TEST_RUN`: the packet may grow by up to 256 bytes; `ctx` is `struct __sk_buff` or `struct xdp_md`.
pub fn prog_test_run(
    fd: BorrowedFd<'_>,
    packet: &[u8],
    ctx: &[u8],
    repeat: u32,
) -> SysResult<TestRun> {
    let mut out = vec![0u8; packet.len() + 256];
    let mut ctx_out = vec![0u8; ctx.len()];
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.test };
    u.prog_fd = raw(fd);
    u.data_in = packet.as_ptr() as u64;
    u.data_size_in = packet.len() as u32;
    u.data_out = out.as_mut_ptr() as u64;
    u.data_size_out = out.len() as u32;
    u.repeat = repeat;
    if !ctx.is_empty() {
        u.ctx_in = ctx.as_ptr() as u64;
        u.ctx_size_in = ctx.len() as u32;
        u.ctx_out = ctx_out.as_mut_ptr() as u64;
        u.ctx_size_out = ctx_out.len() as u32;
    }
    unit(bpf_cmd::BPF_PROG_TEST_RUN, &mut a)?;
    // SAFETY: the same member of the union, written by the kernel.
    let u = unsafe { a.test };
    out.truncate(u.data_size_out as usize);
    ctx_out.truncate(u.ctx_size_out as usize);
    Ok(TestRun { retval: u.retval, packet: out, ctx: ctx_out, nanoseconds: u.duration })
}

// --- links ----------------------------------------------------------------------------------------------------------

/// What `BPF_LINK_CREATE` takes for tcx, netkit and xdp.
#[derive(Debug, Clone, Copy)]
pub struct LinkAttr<'a> {
    pub program: BorrowedFd<'a>,
    /// Resolved in the calling thread's network namespace.
    pub ifindex: u32,
    pub attach_type: u32,
    /// mprog flags, or XDP mode flags.
    pub flags: u32,
    /// The anchor of BEFORE/AFTER: a descriptor, or an id with `F_ID`. Zero for none. Not for xdp.
    pub relative: u32,
    /// Zero for any. Not for xdp.
    pub expected_revision: u64,
}

pub fn link_create(spec: &LinkAttr<'_>) -> SysResult<OwnedFd> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers; tcx and netkit share this layout.
    let u = unsafe { &mut a.link_create };
    u.__bindgen_anon_1.prog_fd = raw(spec.program);
    u.__bindgen_anon_2.target_ifindex = spec.ifindex;
    u.attach_type = spec.attach_type;
    u.flags = spec.flags;
    // SAFETY: as above.
    let order = unsafe { &mut u.__bindgen_anon_3.tcx };
    order.__bindgen_anon_1.relative_fd = spec.relative;
    order.expected_revision = spec.expected_revision;
    descriptor(bpf_cmd::BPF_LINK_CREATE, &mut a)
}

/// Puts `program` where the link's program is, in place: packets see the one or the other, never none.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> SysResult<()> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.link_update };
    u.link_fd = raw(link);
    u.__bindgen_anon_1.new_prog_fd = raw(program);
    unit(bpf_cmd::BPF_LINK_UPDATE, &mut a)
}

pub fn link_detach(link: BorrowedFd<'_>) -> SysResult<()> {
    let mut a = attr();
    a.link_detach.link_fd = raw(link);
    unit(bpf_cmd::BPF_LINK_DETACH, &mut a)
}

/// `BPF_PROG_ATTACH` without a link, to a device.
pub fn prog_attach(program: BorrowedFd<'_>, ifindex: u32, attach_type: u32) -> SysResult<()> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_5 };
    u.__bindgen_anon_1.target_ifindex = ifindex;
    u.attach_bpf_fd = raw(program);
    u.attach_type = attach_type;
    unit(bpf_cmd::BPF_PROG_ATTACH, &mut a)
}

pub fn prog_detach(program: BorrowedFd<'_>, ifindex: u32, attach_type: u32) -> SysResult<()> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_5 };
    u.__bindgen_anon_1.target_ifindex = ifindex;
    u.attach_bpf_fd = raw(program);
    u.attach_type = attach_type;
    unit(bpf_cmd::BPF_PROG_DETACH, &mut a)
}

/// What sits on an mprog hook, in the order it runs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MprogState {
    pub revision: u64,
    /// Program id and link id (0 when attached without a link).
    pub slots: Vec<(u32, u32)>,
}

/// `BPF_PROG_QUERY` of a tcx or netkit hook; the ifindex resolves in the calling thread's namespace.
pub fn prog_query(ifindex: u32, attach_type: u32) -> SysResult<MprogState> {
    // BPF_MPROG_MAX is 64.
    let (mut programs, mut links) = ([0u32; 64], [0u32; 64]);
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.query };
    u.__bindgen_anon_1.target_ifindex = ifindex;
    u.attach_type = attach_type;
    u.prog_ids = programs.as_mut_ptr() as u64;
    u.link_ids = links.as_mut_ptr() as u64;
    u.__bindgen_anon_2.count = programs.len() as u32;
    unit(bpf_cmd::BPF_PROG_QUERY, &mut a)?;
    // SAFETY: the same member of the union, written by the kernel.
    let (revision, count) = unsafe { (a.query.revision, a.query.__bindgen_anon_2.count) };
    let slots = programs.iter().zip(&links).take(count as usize).map(|(p, l)| (*p, *l)).collect();
    Ok(MprogState { revision, slots })
}

// --- ids, info, pins ------------------------------------------------------------------------------------------------

/// The kinds of objects the kernel numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    Program,
    Map,
    Link,
    Btf,
}

/// A descriptor for the object with this id; ENOENT when there is none (any more).
pub fn fd_by_id(kind: IdKind, id: u32) -> SysResult<OwnedFd> {
    let cmd = match kind {
        IdKind::Program => bpf_cmd::BPF_PROG_GET_FD_BY_ID,
        IdKind::Map => bpf_cmd::BPF_MAP_GET_FD_BY_ID,
        IdKind::Link => bpf_cmd::BPF_LINK_GET_FD_BY_ID,
        IdKind::Btf => bpf_cmd::BPF_BTF_GET_FD_BY_ID,
    };
    let mut a = attr();
    a.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
    descriptor(cmd, &mut a)
}

/// The next id behind `after` (0 starts); ENOENT at the end.
pub fn next_id(kind: IdKind, after: u32) -> SysResult<u32> {
    let cmd = match kind {
        IdKind::Program => bpf_cmd::BPF_PROG_GET_NEXT_ID,
        IdKind::Map => bpf_cmd::BPF_MAP_GET_NEXT_ID,
        IdKind::Link => bpf_cmd::BPF_LINK_GET_NEXT_ID,
        IdKind::Btf => bpf_cmd::BPF_BTF_GET_NEXT_ID,
    };
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers, reading one back.
    unsafe {
        a.__bindgen_anon_6.__bindgen_anon_1.start_id = after;
        unit(cmd, &mut a)?;
        Ok(a.__bindgen_anon_6.next_id)
    }
}

/// The kernel's info structs: plain integers, for which all-zero is a valid value.
pub trait Info: Copy {}
impl Info for bpf_prog_info {}
impl Info for bpf_map_info {}
impl Info for bpf_link_info {}
impl Info for bpf_btf_info {}

/// `BPF_OBJ_GET_INFO_BY_FD`. `prepare` may point the struct at buffers that live for the length of the call.
pub fn info<T: Info>(fd: BorrowedFd<'_>, prepare: impl FnOnce(&mut T)) -> SysResult<T> {
    // SAFETY: `Info` is implemented only for structs of plain integers.
    let mut info: T = unsafe { zeroed() };
    prepare(&mut info);
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.info };
    u.bpf_fd = raw(fd);
    u.info_len = size_of::<T>() as u32;
    u.info = &raw mut info as u64;
    unit(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut a)?;
    Ok(info)
}

/// The device and hook (attach type, 0 for xdp) of a link of a kind that sits on a device.
pub fn link_place(info: &bpf_link_info) -> Option<(u32, u32)> {
    // SAFETY: plain integers; `type_` says which member the kernel filled.
    unsafe {
        match info.type_ {
            LINK_XDP => Some((info.__bindgen_anon_1.xdp.ifindex, 0)),
            LINK_TCX | LINK_NETKIT => {
                Some((info.__bindgen_anon_1.tcx.ifindex, info.__bindgen_anon_1.tcx.attach_type))
            }
            _ => None,
        }
    }
}

pub const LINK_XDP: u32 = 6;
pub const LINK_TCX: u32 = 11;
pub const LINK_NETKIT: u32 = 13;

/// The whole BTF blob behind a BTF object.
pub fn btf_blob(fd: BorrowedFd<'_>) -> SysResult<Vec<u8>> {
    let size = info::<bpf_btf_info>(fd, |_| {})?.btf_size;
    let mut data = vec![0u8; size as usize];
    info::<bpf_btf_info>(fd, |i| {
        i.btf = data.as_mut_ptr() as u64;
        i.btf_size = size;
    })?;
    Ok(data)
}

/// The ids of the maps a program uses.
pub fn prog_map_ids(fd: BorrowedFd<'_>) -> SysResult<Vec<u32>> {
    let count = info::<bpf_prog_info>(fd, |_| {})?.nr_map_ids;
    let mut ids = vec![0u32; count as usize];
    info::<bpf_prog_info>(fd, |i| {
        i.map_ids = ids.as_mut_ptr() as u64;
        i.nr_map_ids = count;
    })?;
    Ok(ids)
}

/// The BTF id of a program's first function; `None` when it was loaded without function information.
pub fn prog_first_function(fd: BorrowedFd<'_>) -> SysResult<Option<u32>> {
    // struct bpf_func_info: instruction offset, type id.
    let mut record = [0u32; 2];
    let info = info::<bpf_prog_info>(fd, |i| {
        i.nr_func_info = 1;
        i.func_info_rec_size = FUNC_INFO_SIZE;
        i.func_info = record.as_mut_ptr() as u64;
    })?;
    Ok((info.nr_func_info > 0 && record[1] != 0).then_some(record[1]))
}

/// Pins on a bpffs, which must be mounted there (EPERM otherwise); EEXIST when the path is taken.
pub fn obj_pin(fd: BorrowedFd<'_>, path: &CStr) -> SysResult<()> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_4 };
    u.bpf_fd = raw(fd);
    u.pathname = path.as_ptr() as u64;
    unit(bpf_cmd::BPF_OBJ_PIN, &mut a)
}

pub fn obj_get(path: &CStr) -> SysResult<OwnedFd> {
    let mut a = attr();
    a.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    descriptor(bpf_cmd::BPF_OBJ_GET, &mut a)
}
