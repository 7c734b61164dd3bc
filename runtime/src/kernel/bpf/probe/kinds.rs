//! Types of programs and maps: the smallest of each is made.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::tries::{PROGRAM, instruction};
use super::{Feature, Group, Probe, Row};
use crate::Result;
use crate::kernel::bpf::elf;
use crate::kernel::bpf::map::MapKind;
use crate::kernel::bpf::program::{self, ProgramKind};
use crate::kernel::bpf::sys;
use crate::kernel::{capability, release};

/// Every type that has a name, as `prog_tc` and `map_hash`.
pub(super) fn rows() -> Vec<Row> {
    let programs = (1..).map_while(|number| {
        let kind = ProgramKind(number);
        (kind.name() != "unknown").then(|| Row {
            name: format!("prog_{kind}"),
            group: Group::Program,
            probe: Probe::Program(kind),
            without: match elf::sections_of(kind).as_slice() {
                [] => "nothing changes: cnfscript loads none".into(),
                words => format!("objects with SEC(\"{}\") are refused", words.join("\"), SEC(\"")),
            },
        })
    });
    let maps = (1..).map_while(|number| {
        let kind = MapKind(number);
        kind.name().map(|name| Row {
            name: format!("map_{name}"),
            group: Group::Map,
            probe: Probe::Map(kind),
            without: "objects with such maps are refused".into(),
        })
    });
    // Made for one kernel struct each: there is no smallest one.
    maps.filter(|row| row.name != "map_struct_ops").chain(programs).collect()
}

/// What a program of that type is loaded with, beyond its instructions.
pub(super) fn attributes(kind: ProgramKind) -> sys::ProgramAttr<'static> {
    /// `BPF_F_SLEEPABLE`: syscall programs must be.
    const SLEEPABLE: u32 = 1 << 4;
    // `enum bpf_attach_type`, for types that are loaded for one place.
    let (expected_attach_type, attach_btf_id, flags) = match kind.name() {
        "cgroup_sock_addr" => (10, 0, 0),
        "cgroup_sockopt" => (21, 0, 0),
        "sk_lookup" => (36, 0, 0),
        "netfilter" => (45, 0, 0),
        "tracing" => (24, 1, 0),
        "lsm" => (27, 1, 0),
        "ext" => (0, 1, 0),
        "struct_ops" => (0, 1, 0),
        "syscall" => (0, 0, SLEEPABLE),
        _ => (0, 0, 0),
    };
    sys::ProgramAttr { kind: kind.0, expected_attach_type, attach_btf_id, flags, ..PROGRAM }
}

/// Loads a program that does nothing. Types that belong to a kernel function or struct are given type 1 of the kernel's
/// BTF instead, and the verifier then says that it is none.
pub(super) fn program(kind: ProgramKind) -> Result<Feature> {
    const KNOWN: [&str; 5] = [
        "attach_btf_id 1 is not a function",
        "Cannot replace kernel functions",
        "Cannot find attach_prog",
        "is not a supported struct",
        "attach_btf_id 1 is invalid",
    ];
    let instructions = [instruction(0xb7, 0), instruction(0x95, 0)];
    let attr = sys::ProgramAttr { instructions: &instructions, ..attributes(kind) };
    let mut log = [0u8; 4096];
    match sys::prog_load(&attr, Some((1, &mut log))) {
        Ok(_) => Ok(Feature::yes()),
        Err(Errno::EPERM) if capability::missing().is_empty() => {
            Ok(Feature::no("this kernel refuses them, though no capability is missing (EPERM)"))
        }
        Err(Errno::EPERM) => Err(program::refusal("features", Errno::EPERM)),
        // Beyond the type's name, but the result 0 is not one of those it may give.
        Err(_) if String::from_utf8_lossy(&log).contains("At program exit") => Ok(Feature::yes()),
        Err(_) if KNOWN.iter().any(|mark| String::from_utf8_lossy(&log).contains(mark)) => {
            Ok(Feature::yes())
        }
        Err(errno) => Ok(absent("programs of this type", errno)),
    }
}

fn absent(what: &str, errno: Errno) -> Feature {
    let here = release::name();
    Feature::no(format!(
        "{what} are not built into this kernel ({here}): {}",
        errno.desc().to_lowercase()
    ))
}

/// Makes a map of that type with one element or as few as it takes (`find_and_alloc_map`, `map_alloc_check`).
pub(super) fn map(kind: MapKind) -> Result<Feature> {
    /// `BPF_F_MMAPABLE`.
    const MMAPABLE: u32 = 1 << 10;
    let name = kind.name().unwrap_or_default();
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.unwrap_or(4096) as u32;
    let attr = sys::MapAttr {
        kind: kind.0,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        name: "probe",
        ..sys::MapAttr::default()
    };
    let attr = match name {
        "stack_trace" => sys::MapAttr { value_size: 8, ..attr },
        "lpm_trie" => sys::MapAttr { key_size: 8, flags: sys::F_NO_PREALLOC, ..attr },
        // struct bpf_cgroup_storage_key
        "cgroup_storage" | "percpu_cgroup_storage" => {
            sys::MapAttr { key_size: 16, value_size: 8, max_entries: 0, ..attr }
        }
        "queue" | "stack" | "bloom_filter" => sys::MapAttr { key_size: 0, ..attr },
        "ringbuf" | "user_ringbuf" => {
            sys::MapAttr { key_size: 0, value_size: 0, max_entries: page, ..attr }
        }
        "arena" => sys::MapAttr { key_size: 0, value_size: 0, flags: MMAPABLE, ..attr },
        "array_of_maps" | "hash_of_maps" => return of_maps(&attr),
        "sk_storage" | "inode_storage" | "task_storage" | "cgrp_storage" => {
            return storage(&sys::MapAttr { max_entries: 0, flags: sys::F_NO_PREALLOC, ..attr });
        }
        _ => attr,
    };
    made(&attr)
}

fn made(attr: &sys::MapAttr<'_>) -> Result<Feature> {
    match sys::map_create(attr) {
        Ok(_) => Ok(Feature::yes()),
        Err(Errno::EPERM) => Err(program::refusal("features", Errno::EPERM)),
        Err(errno) => Ok(absent("maps of this type", errno)),
    }
}

fn of_maps(attr: &sys::MapAttr<'_>) -> Result<Feature> {
    let inner = sys::map_create(&sys::MapAttr { kind: MapKind::ARRAY.0, ..*attr });
    let inner = inner.map_err(|e| program::refusal("features", e))?;
    made(&sys::MapAttr { inner: Some(inner.as_fd()), ..*attr })
}

/// Local storage wants the types of key and value: a BTF with `int` alone.
fn storage(attr: &sys::MapAttr<'_>) -> Result<Feature> {
    let strings = b"\0int\0";
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    // struct btf_header: magic, version 1, flags 0; then its length, and offset and length of types and strings.
    let mut btf = words(&[0x0001_eb9f, 24, 0, 16, 16, strings.len() as u32]);
    // struct btf_type: name, kind 1 (integer), 4 bytes; signed, 32 bits.
    btf.extend(words(&[1, 1 << 24, 4, 1 << 24 | 32]));
    btf.extend(strings);
    let fd = match sys::btf_load(&btf, None) {
        Ok(fd) => fd,
        Err(Errno::EPERM) => return Err(program::refusal("features", Errno::EPERM)),
        Err(errno) => return Ok(absent("BTF types", errno)),
    };
    made(&sys::MapAttr { btf: Some((fd.as_fd(), 1, 1)), ..*attr })
}
