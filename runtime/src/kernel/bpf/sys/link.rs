//! Links: programs on devices.

use super::*;

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

/// `BPF_LINK_CREATE` on a descriptor: of a cgroup, a network namespace, a perf event.
pub fn link_create_on(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> SysResult<OwnedFd> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.link_create };
    u.__bindgen_anon_1.prog_fd = raw(program);
    u.__bindgen_anon_2.target_fd = raw(target);
    u.attach_type = attach_type;
    descriptor(bpf_cmd::BPF_LINK_CREATE, &mut a)
}

/// `BPF_RAW_TRACEPOINT_OPEN`: a raw tracepoint by name, or for tracing programs, without one, what they are loaded for.
pub fn raw_tracepoint_open(program: BorrowedFd<'_>, name: Option<&CStr>) -> SysResult<OwnedFd> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.raw_tracepoint };
    u.prog_fd = raw(program);
    u.name = name.map_or(0, |name| name.as_ptr() as u64);
    descriptor(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut a)
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
