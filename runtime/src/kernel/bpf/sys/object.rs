//! Ids, information and pins: what all kinds of objects have.

use super::*;

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

/// Where a link is that sits on no device: the attach type, and a cgroup's id or a namespace's inode.
pub fn link_elsewhere(info: &bpf_link_info) -> Option<(u32, Option<u64>, Option<u32>)> {
    // SAFETY: plain integers; `type_` says which member the kernel filled.
    unsafe {
        match info.type_ {
            LINK_CGROUP => {
                let cgroup = info.__bindgen_anon_1.cgroup;
                Some((cgroup.attach_type, Some(cgroup.cgroup_id), None))
            }
            LINK_NETNS => {
                let netns = info.__bindgen_anon_1.netns;
                Some((netns.attach_type, None, Some(netns.netns_ino)))
            }
            LINK_TRACING => Some((info.__bindgen_anon_1.tracing.attach_type, None, None)),
            _ => None,
        }
    }
}

pub const LINK_TRACING: u32 = 2;
pub const LINK_CGROUP: u32 = 3;
pub const LINK_NETNS: u32 = 5;
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
