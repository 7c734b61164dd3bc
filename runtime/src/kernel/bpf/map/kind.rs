//! Kinds of maps (`enum bpf_map_type`), by number and by name.

use std::fmt;

/// A kind of map; the number is the kernel's, so that kinds newer than this table still work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapKind(pub u32);

/// Names as `linux/bpf.h` has them, lower-case; the index is the number.
const NAMES: [&str; 34] = [
    "unspec",
    "hash",
    "array",
    "prog_array",
    "perf_event_array",
    "percpu_hash",
    "percpu_array",
    "stack_trace",
    "cgroup_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "array_of_maps",
    "hash_of_maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup_storage",
    "reuseport_sockarray",
    "percpu_cgroup_storage",
    "queue",
    "stack",
    "sk_storage",
    "devmap_hash",
    "struct_ops",
    "ringbuf",
    "inode_storage",
    "task_storage",
    "bloom_filter",
    "user_ringbuf",
    "cgrp_storage",
    "arena",
];

impl MapKind {
    pub const HASH: MapKind = MapKind(1);
    pub const ARRAY: MapKind = MapKind(2);
    pub const PROG_ARRAY: MapKind = MapKind(3);
    pub const PERF_EVENT_ARRAY: MapKind = MapKind(4);
    pub const PERCPU_HASH: MapKind = MapKind(5);
    pub const PERCPU_ARRAY: MapKind = MapKind(6);
    pub const LRU_HASH: MapKind = MapKind(9);
    pub const LRU_PERCPU_HASH: MapKind = MapKind(10);
    pub const LPM_TRIE: MapKind = MapKind(11);
    pub const ARRAY_OF_MAPS: MapKind = MapKind(12);
    pub const HASH_OF_MAPS: MapKind = MapKind(13);
    pub const DEVMAP: MapKind = MapKind(14);
    pub const SOCKMAP: MapKind = MapKind(15);
    pub const CPUMAP: MapKind = MapKind(16);
    pub const SOCKHASH: MapKind = MapKind(18);
    pub const REUSEPORT_SOCKARRAY: MapKind = MapKind(20);
    pub const PERCPU_CGROUP_STORAGE: MapKind = MapKind(21);
    pub const QUEUE: MapKind = MapKind(22);
    pub const STACK: MapKind = MapKind(23);
    pub const SK_STORAGE: MapKind = MapKind(24);
    pub const DEVMAP_HASH: MapKind = MapKind(25);
    pub const RINGBUF: MapKind = MapKind(27);
    pub const INODE_STORAGE: MapKind = MapKind(28);
    pub const TASK_STORAGE: MapKind = MapKind(29);
    pub const BLOOM_FILTER: MapKind = MapKind(30);
    pub const CGRP_STORAGE: MapKind = MapKind(32);

    /// "lpm_trie"
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(self.0 as usize).copied()
    }

    /// One value for each possible CPU.
    pub fn is_per_cpu(self) -> bool {
        [
            MapKind::PERCPU_HASH,
            MapKind::PERCPU_ARRAY,
            MapKind::LRU_PERCPU_HASH,
            MapKind::PERCPU_CGROUP_STORAGE,
        ]
        .contains(&self)
    }

    /// Every index is there from the start and cannot be deleted.
    pub fn is_array(self) -> bool {
        [MapKind::ARRAY, MapKind::PERCPU_ARRAY].contains(&self)
    }

    /// Each element is one value of plain bytes, read and written by its key with nothing else to it.
    pub fn is_plain(self) -> bool {
        matches!(self, MapKind::HASH | MapKind::ARRAY | MapKind::LRU_HASH)
    }

    /// Programs send records through it.
    pub fn has_records(self) -> bool {
        [MapKind::RINGBUF, MapKind::PERF_EVENT_ARRAY].contains(&self)
    }

    /// Written as a descriptor, read as an id.
    pub fn holds_descriptors(self) -> bool {
        self.is_of_maps() || self == MapKind::PROG_ARRAY
    }

    pub fn is_of_maps(self) -> bool {
        [MapKind::ARRAY_OF_MAPS, MapKind::HASH_OF_MAPS].contains(&self)
    }

    /// Where XDP redirects to: devices or processors.
    pub fn is_redirect(self) -> bool {
        [MapKind::DEVMAP, MapKind::DEVMAP_HASH, MapKind::CPUMAP].contains(&self)
    }

    /// Written as a socket's descriptor, read as its cookie.
    pub fn holds_sockets(self) -> bool {
        [MapKind::SOCKMAP, MapKind::SOCKHASH, MapKind::REUSEPORT_SOCKARRAY].contains(&self)
    }

    /// Elements are kept by what they belong to (a socket, a file, a task, a cgroup): a descriptor of it is the key, and
    /// the kernel does not list them.
    pub fn is_storage(self) -> bool {
        [MapKind::SK_STORAGE, MapKind::INODE_STORAGE, MapKind::TASK_STORAGE, MapKind::CGRP_STORAGE]
            .contains(&self)
    }

    /// Values without keys.
    pub fn is_keyless(self) -> bool {
        [MapKind::QUEUE, MapKind::STACK, MapKind::BLOOM_FILTER].contains(&self)
    }
}

impl fmt::Display for MapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}
