//! How the features of this layer are tried: a program loaded, a map made, a link attached, in a namespace that nobody sees.

use std::os::fd::AsFd;
use std::path::Path;

use aya_obj::generated::bpf_insn;
use nix::errno::Errno;

use super::{Feature, Group, Probe, Row, scratch_netns};
use crate::Result;
use crate::kernel::bpf::beyond;
use crate::kernel::bpf::hook::{self, Hook, Order, Target};
use crate::kernel::bpf::map::{Map, MapKind, MapSpec, Write};
use crate::kernel::bpf::program::{self, Program, ProgramKind};
use crate::kernel::bpf::sys;
use crate::kernel::link::{self, End, NewLink};
use crate::kernel::netlink::Netlink;
use crate::kernel::release;

/// Name, how it is tried, what is done without it.
type Tried = (&'static str, fn() -> Result<Feature>, &'static str);

/// The hooks, and what the whole system gives.
pub(super) fn rows() -> Vec<Row> {
    const SYSTEM: [Tried; 7] = [
        ("bpf", bpf, "no programs and no maps: namespaces, links and routes only"),
        ("btf", btf, "objects with CO-RE relocations are refused, and so are fentry programs"),
        ("jit", jit, "programs run interpreted, about ten times slower"),
        ("bpffs", bpffs, "pins are refused; mount -t bpf bpffs /sys/fs/bpf"),
        ("batch", batch, "map elements are read and written one by one"),
        ("ringbuf", ringbuf, "events come through perf_event_array maps"),
        (
            "lpm_trie",
            lpm_trie,
            "objects with LPM tries are refused; the policy router has tables of its own",
        ),
    ];
    const HOOKS: [Tried; 9] = [
        (
            "tcx",
            tcx,
            "bpf.attach uses clsact, where order words become priorities; tcx.attach is refused",
        ),
        ("clsact", clsact, "bpf.attach needs tcx; tc.attach is refused"),
        ("xdp", xdp, "xdp.attach is refused"),
        ("cgroup", cgroup, "bpf.attach_cgroup is refused"),
        ("sk_lookup", sk_lookup, "bpf.attach_sk_lookup is refused"),
        (
            "tracepoint",
            tracepoint,
            "bpf.attach_tracing refuses tracepoints, and bpf.trace is refused",
        ),
        ("kprobe", kprobe, "bpf.attach_tracing refuses kprobes; tracepoints may do instead"),
        (
            "fentry",
            fentry,
            "objects with SEC(\"fentry/...\") are refused; tracepoints may do instead",
        ),
        ("netkit", netkit, "netkit.pair is refused; a veth pair with tcx does the same work"),
    ];
    let row = |group| {
        move |(name, probe, without): &Tried| Row {
            name: (*name).to_owned(),
            group,
            probe: Probe::Call(*probe),
            without: (*without).to_owned(),
        }
    };
    SYSTEM.iter().map(row(Group::System)).chain(HOOKS.iter().map(row(Group::Hook))).collect()
}

/// Why a feature of Linux `since` is missing here.
pub(super) fn missing(what: &str, since: (u32, u32), config: &str) -> Feature {
    let here = release::name();
    if release::version().is_some_and(|version| version < since) {
        let (a, b) = since;
        return Feature::no(format!("{what} needs Linux {a}.{b} or newer; this is {here}"));
    }
    Feature::no(format!("{what} is not built into this kernel ({here}, {config})"))
}

/// `r0 = 0; exit`
fn tiny_program(kind: ProgramKind) -> Result<Program> {
    program_of(kind, 0)
}

/// `r0 = result; exit`
fn program_of(kind: ProgramKind, result: i32) -> Result<Program> {
    let instructions = [instruction(0xb7, result), instruction(0x95, 0)];
    // Of the cgroup's hooks on packets, the one that `cgroup` tries.
    let egress = if kind == ProgramKind::CGROUP_SKB { 1 } else { 0 };
    let known = super::kinds::attributes(kind);
    let attr = sys::ProgramAttr {
        instructions: &instructions,
        expected_attach_type: known.expected_attach_type.max(egress),
        ..known
    };
    let fd = sys::prog_load(&attr, None).map_err(|e| program::refusal("bpf.load", e))?;
    Program::new(fd, "probe".into(), String::new())
}

/// What every program that only tries something has.
pub(super) const PROGRAM: sys::ProgramAttr<'static> = sys::ProgramAttr {
    kind: 0,
    name: "probe",
    instructions: &[],
    license: c"GPL",
    flags: 0,
    expected_attach_type: 0,
    kernel_version: 0,
    attach_btf_id: 0,
    btf: None,
    func_info: &[],
    line_info: &[],
};

/// An instruction without registers: opcode and immediate value (`linux/bpf_common.h`).
pub(super) fn instruction(code: u8, imm: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm,
    }
}

/// The loopback device is index 1 in every namespace.
fn loopback() -> Result<Target> {
    Ok(Target::new(&scratch_netns()?, 1, "lo"))
}

fn bpf() -> Result<Feature> {
    match tiny_program(ProgramKind::TC) {
        Ok(_) => Ok(Feature::yes()),
        Err(e) if e.is("ENOSYS") => Ok(Feature::no("this kernel is built without bpf(2)")),
        Err(e) => Err(e),
    }
}

/// Tries a bpf link on loopback.
fn try_link(hook: Hook, flags: u32, absent: impl FnOnce() -> Feature) -> Result<Feature> {
    let row = hook.row();
    let program = tiny_program(row.program)?;
    let target = loopback()?;
    let made = target.netns.within(|| {
        Ok(sys::link_create(&sys::LinkAttr {
            program: program.as_fd(),
            ifindex: target.index,
            attach_type: row.attach_type,
            flags,
            relative: 0,
            expected_revision: 0,
        }))
    })?;
    match made {
        Ok(_) => Ok(Feature::yes()),
        Err(Errno::EPERM) => Err(program::refusal(row.attach, Errno::EPERM)),
        Err(_) => Ok(absent()),
    }
}

fn tcx() -> Result<Feature> {
    try_link(Hook::TcxIngress, 0, || missing("tcx", (6, 6), "CONFIG_NET_XGRESS"))
}

fn xdp() -> Result<Feature> {
    // XDP_FLAGS_SKB_MODE: loopback has no native xdp.
    try_link(Hook::Xdp, 2, || missing("xdp", (5, 9), "CONFIG_NET"))
}

fn clsact() -> Result<Feature> {
    let target = loopback()?;
    let program = tiny_program(ProgramKind::TC)?;
    match hook::attach(&target, Hook::ClsactIngress, &program, &Order::default()) {
        Ok(_) => Ok(Feature::yes()),
        Err(e) if e.is("EPERM") => Err(e),
        Err(_) => Ok(missing("clsact", (4, 5), "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF")),
    }
}

/// A type of program that says yes, and its attachment that says no.
fn answer(tried: Result<beyond::Beyond>) -> Result<Feature> {
    match tried {
        Ok(_) => Ok(Feature::yes()),
        Err(e) if e.is("EPERM") => Err(e),
        Err(e) => Ok(Feature::no(e.message())),
    }
}

/// Tries a program that lets everything pass, on a cgroup made for it.
fn cgroup() -> Result<Feature> {
    let Some(mount) = beyond::cgroup_mounts().into_iter().next() else {
        return Ok(Feature::no("no cgroup file system of version 2 is mounted"));
    };
    let path = mount.join(format!("cnfscript-probe-{}", std::process::id()));
    if let Err(e) = std::fs::create_dir(&path) {
        return Ok(Feature::no(format!("no cgroup can be made below {}: {e}", mount.display())));
    }
    let tried = program_of(ProgramKind::CGROUP_SKB, 1)
        .and_then(|program| beyond::attach_cgroup(&path, &program, Some("egress")));
    let answer = answer(tried);
    let _ = std::fs::remove_dir(&path);
    answer
}

fn sk_lookup() -> Result<Feature> {
    let netns = scratch_netns()?;
    answer(
        program_of(ProgramKind::SK_LOOKUP, 1)
            .and_then(|program| beyond::attach_sk_lookup(&netns, "probe", &program)),
    )
}

fn tracepoint() -> Result<Feature> {
    answer(
        program_of(ProgramKind::TRACEPOINT, 0)
            .and_then(|program| beyond::attach_tracing(&program, Some("sched/sched_process_exec"))),
    )
}

fn kprobe() -> Result<Feature> {
    answer(
        program_of(ProgramKind::KPROBE, 0)
            .and_then(|program| beyond::attach_tracing(&program, Some("kernel_clone"))),
    )
}

/// `bpf_fentry_test1` is in every kernel for such tests (net/bpf/test_run.c).
fn fentry() -> Result<Feature> {
    let there = super::has("prog_tracing")?;
    if !there.available {
        return Ok(there);
    }
    let btf = match crate::kernel::bpf::object::kernel_btf() {
        Ok(btf) => btf,
        Err(e) => return Ok(Feature::no(e.message())),
    };
    let id = btf.id_by_type_name_kind("bpf_fentry_test1", aya_obj::btf::BtfKind::Func);
    let instructions = [instruction(0xb7, 0), instruction(0x95, 0)];
    let attach_btf_id = id.unwrap_or_default();
    let attr = sys::ProgramAttr {
        instructions: &instructions,
        attach_btf_id,
        ..super::kinds::attributes(ProgramKind::TRACING)
    };
    let tried = sys::prog_load(&attr, None).map_err(|e| program::refusal("", e));
    let tried =
        tried.and_then(|fd| Program::new(fd, "probe".into(), "fentry/bpf_fentry_test1".into()));
    answer(tried.and_then(|program| beyond::attach_tracing(&program, None)))
}

fn netkit() -> Result<Feature> {
    let netlink = Netlink::open(&scratch_netns()?)?;
    let kind = link::kinds::find("netkit").expect("the table has it");
    let mut pair = NewLink::new(&netlink, kind, End::named("a"));
    pair.peer = Some((&netlink, End::named("b")));
    match link::create(&pair) {
        Ok(_) => Ok(Feature::yes()),
        Err(e) if e.is("EPERM") => Err(e.operation("netkit.pair")),
        Err(e) => Ok(Feature::no(e.message())),
    }
}

/// Tries to make a map of a kind.
fn try_map(what: &str, spec: MapSpec, since: (u32, u32)) -> Result<Feature> {
    match Map::create(&spec) {
        Ok(_) => Ok(Feature::yes()),
        Err(e) if e.is("EPERM") => Err(e),
        Err(_) => Ok(missing(what, since, "CONFIG_BPF_SYSCALL")),
    }
}

fn ringbuf() -> Result<Feature> {
    let spec = MapSpec::new("probe", MapKind::RINGBUF, 0, 0, 1 << 16);
    try_map("the ring buffer", spec, (5, 8))
}

fn lpm_trie() -> Result<Feature> {
    let spec = MapSpec::new("probe", MapKind::LPM_TRIE, 8, 4, 8).flags(sys::F_NO_PREALLOC);
    try_map("the LPM trie", spec, (4, 11))
}

fn batch() -> Result<Feature> {
    let map = Map::create(&MapSpec::new("probe", MapKind::HASH, 4, 4, 8))?;
    let batch = sys::map_update_batch(map.as_fd(), &[0; 4], &[0; 4], 1, Write::Any as u64);
    match batch.stopped {
        None => Ok(Feature::yes()),
        Some(_) => Ok(missing("batched map access", (5, 6), "CONFIG_BPF_SYSCALL")),
    }
}

fn jit() -> Result<Feature> {
    let jited = tiny_program(ProgramKind::TC)?.info()?.jited_size > 0;
    Ok(match jited {
        true => Feature::yes(),
        false => Feature::no("programs are interpreted: net.core.bpf_jit_enable is 0"),
    })
}

fn btf() -> Result<Feature> {
    Ok(match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Feature::yes(),
        false => missing("the kernel's BTF", (4, 18), "CONFIG_DEBUG_INFO_BTF"),
    })
}

fn bpffs() -> Result<Feature> {
    Ok(match super::on_bpffs(Path::new("/sys/fs/bpf/x")) {
        true => Feature::yes(),
        false => Feature::no("no bpf file system is mounted at /sys/fs/bpf"),
    })
}
