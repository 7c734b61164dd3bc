//! The shape of a map: asked for, or told by the kernel.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use btf_rs::Btf;
use nix::errno::Errno;

use super::MapKind;
use crate::Error;
use crate::kernel::bpf::program;
use crate::kernel::bpf::sys::{self, bpf_map_info};

/// How a map made without an ELF file looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapSpec {
    /// The kernel keeps 15 bytes of it.
    pub name: String,
    pub kind: MapKind,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    /// `BPF_F_*`: [`sys::F_NO_PREALLOC`], [`sys::F_MMAPABLE`] ...
    pub flags: u32,
    pub extra: u64,
    /// The template of the inner maps of a map of maps.
    pub inner: Option<Box<MapSpec>>,
}

impl MapSpec {
    pub fn new(
        name: impl Into<String>,
        kind: MapKind,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    ) -> Self {
        MapSpec {
            name: name.into(),
            kind,
            key_size,
            value_size,
            max_entries,
            flags: 0,
            extra: 0,
            inner: None,
        }
    }

    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }
}

/// The types of a map's keys and values in a BTF object.
#[derive(Clone)]
pub struct MapTypes {
    pub btf: Arc<Btf>,
    /// As loaded into the kernel; `None` keeps the types to ourselves.
    pub fd: Option<Arc<OwnedFd>>,
    pub key: u32,
    pub value: u32,
}

/// What the kernel says of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapInfo {
    pub id: u32,
    /// As the kernel keeps it: at most 15 bytes.
    pub name: String,
    pub kind: MapKind,
    pub key_size: u32,
    /// Of one value: per-CPU maps have one for each possible CPU.
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    pub extra: u64,
    pub btf_id: u32,
    pub btf_key: u32,
    pub btf_value: u32,
}

impl From<&bpf_map_info> for MapInfo {
    fn from(info: &bpf_map_info) -> Self {
        MapInfo {
            id: info.id,
            name: sys::name_of(&info.name),
            kind: MapKind(info.type_),
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            flags: info.map_flags,
            extra: info.map_extra,
            btf_id: info.btf_id,
            btf_key: info.btf_key_type_id,
            btf_value: info.btf_value_type_id,
        }
    }
}

/// Why a map of this shape cannot be made.
pub(super) fn create_error(spec: &MapSpec, errno: Errno) -> Error {
    let shape = format!(
        "{} of {} entries, keys of {} and values of {} bytes",
        spec.kind, spec.max_entries, spec.key_size, spec.value_size
    );
    let error = program::refusal("bpf.map", errno).subject(spec.name.clone());
    match errno {
        Errno::EPERM => error,
        Errno::E2BIG | Errno::ENOMEM => error.because(format!("too large for memory: {shape}")),
        Errno::EINVAL => {
            let hint = match (spec.kind.is_of_maps() && spec.inner.is_none(), spec.max_entries) {
                (true, _) => {
                    "a map of maps needs the shape of its inner maps: `__array(values, ...)`"
                }
                _ if spec.kind == MapKind::RINGBUF => {
                    "the size of a ring buffer, max_entries, is a power of two of bytes, at least a page (4096)"
                }
                (_, 0) => "max_entries is 0: give it with max_entries={...}",
                _ => "see `man 2 bpf` for the shapes that each kind of map takes",
            };
            error.because(format!("the kernel does not take this shape: {shape}")).hint(hint)
        }
        _ => error,
    }
}
