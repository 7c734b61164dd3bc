//! Everything eBPF on this system: programs, maps and links of all processes, by the kernel's ids.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::map::{Map, MapInfo};
use super::program::{Program, ProgramInfo, refusal};
use super::sys::{self, IdKind, bpf_link_info};
use crate::Result;

/// A bpf link of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    pub id: u32,
    /// `enum bpf_link_type`.
    pub kind: u32,
    pub program_id: u32,
    /// Of xdp, tcx and netkit: interface index, in a namespace the kernel does not tell; 0 when the device is gone.
    pub index: Option<u32>,
    /// Of tcx, netkit, cgroup, netns and tracing: `enum bpf_attach_type`.
    pub attach_type: Option<u32>,
    /// Of cgroup: the cgroup's id, which is its directory's inode; 0 when it is gone.
    pub cgroup_id: Option<u64>,
    /// Of netns: the inode of the namespace's file; 0 when it is gone.
    pub netns_inode: Option<u32>,
}

impl LinkInfo {
    pub(super) fn new(raw: &bpf_link_info) -> Self {
        let (place, elsewhere) = (sys::link_place(raw), sys::link_elsewhere(raw));
        LinkInfo {
            id: raw.id,
            kind: raw.type_,
            program_id: raw.prog_id,
            index: place.map(|(index, _)| index),
            attach_type: place
                .map(|(_, kind)| kind)
                .filter(|kind| *kind != 0)
                .or(elsewhere.map(|(kind, ..)| kind)),
            cgroup_id: elsewhere.and_then(|(_, cgroup, _)| cgroup),
            netns_inode: elsewhere.and_then(|(.., netns)| netns),
        }
    }

    /// "tcx", "xdp", "netkit", "tracing" ...
    pub fn kind_name(&self) -> &'static str {
        const NAMES: [&str; 15] = [
            "unspec",
            "raw_tracepoint",
            "tracing",
            "cgroup",
            "iter",
            "netns",
            "xdp",
            "perf_event",
            "kprobe_multi",
            "struct_ops",
            "netfilter",
            "tcx",
            "uprobe_multi",
            "netkit",
            "sockmap",
        ];
        NAMES.get(self.kind as usize).copied().unwrap_or("unknown")
    }
}

/// # Errors
/// EPERM without CAP_BPF (or CAP_SYS_ADMIN: ids are shared by the whole system).
pub fn programs() -> Result<Vec<ProgramInfo>> {
    ids(IdKind::Program, "bpf.programs", |id| Program::by_id(id)?.info())
}

/// As [`programs`].
pub fn maps() -> Result<Vec<MapInfo>> {
    ids(IdKind::Map, "bpf.maps", |id| Ok(Map::by_id(id)?.info().clone()))
}

/// As [`programs`].
pub fn links() -> Result<Vec<LinkInfo>> {
    ids(IdKind::Link, "bpf.links", |id| {
        let failed = |e: Errno| refusal("bpf.links", e).subject(id.to_string());
        let fd = sys::fd_by_id(IdKind::Link, id).map_err(failed)?;
        let raw = sys::info::<bpf_link_info>(fd.as_fd(), |_| {}).map_err(failed)?;
        Ok(LinkInfo::new(&raw))
    })
}

/// Describes every object of a kind; one that goes away meanwhile is left out.
fn ids<T>(kind: IdKind, op: &'static str, describe: impl Fn(u32) -> Result<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let mut last = 0;
    loop {
        match sys::next_id(kind, last) {
            Ok(id) => last = id,
            Err(Errno::ENOENT) => return Ok(all),
            Err(errno) => return Err(refusal(op, errno)),
        }
        match describe(last) {
            Ok(item) => all.push(item),
            Err(e) if e.is("ENOENT") => {}
            Err(e) => return Err(e.operation(op)),
        }
    }
}
