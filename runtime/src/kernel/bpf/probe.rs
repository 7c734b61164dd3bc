//! What this kernel can do: each feature really tried, once, in a namespace that nobody sees.
//!
//! Version numbers appear only in the reason for a "no": they help a person, they decide nothing.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once, OnceLock};

use aya_obj::generated::bpf_insn;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::statfs::{FsType, statfs};

use super::hook::{self, Hook, Order, Target};
use super::map::{Map, MapKind, MapSpec, Write};
use super::program::{Program, ProgramKind};
use super::sys;
use crate::kernel::link::{self, End, NewLink};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::NetnsFd;
use crate::kernel::release;
use crate::{Error, Result};

/// Whether a feature is there; if not, why, as a clause for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    pub available: bool,
    pub reason: String,
}

impl Feature {
    pub fn yes() -> Self {
        Feature { available: true, reason: String::new() }
    }

    pub fn no(reason: impl Into<String>) -> Self {
        Feature { available: false, reason: reason.into() }
    }
}

/// Tries one feature. An error means that it could not be tried, above all EPERM.
pub type Probe = fn() -> Result<Feature>;

/// The features of this layer: name and how it is tried.
const OWN: [(&str, Probe); 11] = [
    ("batch", batch),
    ("bpf", bpf),
    ("bpffs", bpffs),
    ("btf", btf),
    ("clsact", clsact),
    ("jit", jit),
    ("lpm_trie", lpm_trie),
    ("netkit", netkit),
    ("ringbuf", ringbuf),
    ("tcx", tcx),
    ("xdp", xdp),
];

fn table() -> MutexGuard<'static, BTreeMap<&'static str, Probe>> {
    static TABLE: OnceLock<Mutex<BTreeMap<&'static str, Probe>>> = OnceLock::new();
    TABLE
        .get_or_init(|| Mutex::new(OWN.into_iter().collect()))
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Adds features of another layer (link kinds, qdiscs) under their names.
pub fn register(probes: impl IntoIterator<Item = (&'static str, Probe)>) {
    table().extend(probes);
}

/// Names that [`has`] knows, in order.
pub fn names() -> Vec<&'static str> {
    table().keys().copied().collect()
}

/// Whether the kernel has `name`, tried at the first call.
///
/// # Errors
/// EINVAL for a name nobody registered; EPERM when privileges are missing to try it.
pub fn has(name: &str) -> Result<Feature> {
    static CACHE: Mutex<BTreeMap<String, Feature>> = Mutex::new(BTreeMap::new());
    let cache = || CACHE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(known) = cache().get(name) {
        return Ok(known.clone());
    }
    let probe = table().get(name).copied();
    let Some(probe) = probe else {
        let nearest = names()
            .into_iter()
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        let error = Error::invalid("features", format!("no feature is called \"{name}\""));
        return Err(match nearest {
            Some(nearest) => error.hint(format!("did you mean \"{nearest}\"?")),
            None => error,
        });
    };
    // Tried without the lock: one probe may ask for another.
    let feature = probe()?;
    cache().insert(name.to_owned(), feature.clone());
    Ok(feature)
}

/// A namespace without a name; it goes when the descriptor is dropped.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn scratch_netns() -> Result<NetnsFd> {
    NetnsFd::host()?.within(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| {
            Error::errno("netns.new", e).hint("making a network namespace needs CAP_SYS_ADMIN")
        })?;
        std::fs::File::open("/proc/thread-self/ns/net")
            .map(|file| NetnsFd::new(file.into()))
            .map_err(|e| Error::io("netns.new", &e))
    })
}

/// Why a feature of Linux `since` is missing here.
fn missing(what: &str, since: (u32, u32), config: &str) -> Feature {
    let here = release::name();
    if release::version().is_some_and(|version| version < since) {
        let (a, b) = since;
        return Feature::no(format!("{what} needs Linux {a}.{b} or newer; this is {here}"));
    }
    Feature::no(format!("{what} is not built into this kernel ({here}, {config})"))
}

/// `r0 = 0; exit`
fn tiny_program(kind: ProgramKind) -> Result<Program> {
    let mut set = empty_instruction();
    set.code = 0xb7;
    let mut exit = empty_instruction();
    exit.code = 0x95;
    let attr = sys::ProgramAttr {
        kind: kind.0,
        name: "probe",
        instructions: &[set, exit],
        license: c"GPL",
        flags: 0,
        expected_attach_type: 0,
        kernel_version: 0,
        btf: None,
        func_info: &[],
        line_info: &[],
    };
    let fd = sys::prog_load(&attr, None).map_err(|e| super::program::refusal("bpf.load", e))?;
    Program::new(fd, "probe".into(), String::new())
}

fn empty_instruction() -> bpf_insn {
    bpf_insn {
        code: 0,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
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
        Err(Errno::EPERM) => Err(super::program::refusal(row.attach, Errno::EPERM)),
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
    Ok(match on_bpffs(Path::new("/sys/fs/bpf/x")) {
        true => Feature::yes(),
        false => Feature::no("no bpf file system is mounted at /sys/fs/bpf"),
    })
}

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Whether a file at `path` would lie on a bpf file system.
pub fn on_bpffs(path: &Path) -> bool {
    let parent = path.parent().unwrap_or(path);
    statfs(parent).is_ok_and(|fs| fs.filesystem_type() == BPF_FS)
}

/// CPUs that per-CPU maps have values for: those that could ever be plugged in, not those that run.
pub fn possible_cpus() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
        count_cpus(&list).max(1)
    })
}

/// CPUs in a list such as `0-3,5`.
fn count_cpus(list: &str) -> usize {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.trim().split(',').filter_map(range).sum()
}

/// Kernels before 5.11 count maps against RLIMIT_MEMLOCK: lifts it, once.
pub fn raise_memlock() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_answers() {
        for name in names() {
            let feature = has(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(feature.available, feature.reason.is_empty(), "{name}: {feature:?}");
        }
        for name in ["bpf", "clsact", "xdp", "batch"] {
            assert!(has(name).is_ok_and(|f| f.available), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let error = has("netkitt").expect_err("unknown");
        assert_eq!(error.get_hint(), Some("did you mean \"netkit\"?"));
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(count_cpus("0\n"), 1);
        assert_eq!(count_cpus("0-3\n"), 4);
        assert_eq!(count_cpus("0-3,8,10-11"), 7);
    }
}
