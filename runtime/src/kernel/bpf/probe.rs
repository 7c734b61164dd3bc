//! What this kernel can do: each feature really tried, once, in a namespace that nobody sees.
//!
//! Version numbers appear only in the reason for a "no": they help a person, they decide nothing. `tries` is how hooks
//! and the system are tried, `kinds` programs and maps by type, `helpers` the helpers of each type of program.

mod helpers;
mod kinds;
mod tries;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once, OnceLock};

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::statfs::{FsType, statfs};

use super::map::MapKind;
use super::program::ProgramKind;
use crate::kernel::netns::NetnsFd;
use crate::nearest::nearest;
use crate::{Error, Result};

pub use helpers::{Helpers, helpers};

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

/// How features are grouped where all are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    System,
    Hook,
    Program,
    Map,
    Link,
    Qdisc,
}

impl Group {
    pub const ALL: [Group; 6] =
        [Group::System, Group::Hook, Group::Program, Group::Map, Group::Link, Group::Qdisc];

    /// "program types"
    pub fn name(self) -> &'static str {
        match self {
            Group::System => "system",
            Group::Hook => "hooks",
            Group::Program => "program types",
            Group::Map => "map types",
            Group::Link => "link kinds",
            Group::Qdisc => "queueing disciplines",
        }
    }
}

/// How a feature is tried. An error means that it could not be tried, above all EPERM.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    Call(fn() -> Result<Feature>),
    /// By loading a program of that type.
    Program(ProgramKind),
    /// By making a map of that type.
    Map(MapKind),
}

impl Probe {
    fn answer(self) -> Result<Feature> {
        match self {
            Probe::Call(call) => call(),
            Probe::Program(kind) => kinds::program(kind),
            Probe::Map(kind) => kinds::map(kind),
        }
    }
}

/// A feature that can be asked for.
#[derive(Debug, Clone)]
pub struct Row {
    /// "tcx", "prog_sk_lookup", "map_queue", "vxlan"
    pub name: String,
    pub group: Group,
    pub probe: Probe,
    /// What cnfscript does where it is missing.
    pub without: String,
}

fn table() -> MutexGuard<'static, BTreeMap<String, Row>> {
    static TABLE: OnceLock<Mutex<BTreeMap<String, Row>>> = OnceLock::new();
    let own = || tries::rows().into_iter().chain(kinds::rows());
    TABLE
        .get_or_init(|| Mutex::new(own().map(|row| (row.name.clone(), row)).collect()))
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Adds features of another layer (link kinds, qdiscs) under their names.
pub fn register(rows: impl IntoIterator<Item = Row>) {
    table().extend(rows.into_iter().map(|row| (row.name.clone(), row)));
}

/// All that [`has`] knows, by name.
pub fn rows() -> Vec<Row> {
    table().values().cloned().collect()
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
    // Tried without the lock: one probe may ask for another.
    let feature = row(name)?.probe.answer()?;
    cache().insert(name.to_owned(), feature.clone());
    Ok(feature)
}

/// One feature by name.
///
/// # Errors
/// EINVAL for a name nobody registered.
pub fn row(name: &str) -> Result<Row> {
    if let Some(row) = table().get(name) {
        return Ok(row.clone());
    }
    let known = rows();
    let error = Error::invalid("features", format!("no feature is called \"{name}\""));
    Err(match nearest(name, known.iter().map(|row| &*row.name)) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None => error.hint("`cnfscript features` lists them all"),
    })
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
        for Row { name, without, .. } in rows() {
            let feature = has(&name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!without.is_empty(), "{name}");
            assert_eq!(feature.available, feature.reason.is_empty(), "{name}: {feature:?}");
        }
        for name in [
            "bpf",
            "clsact",
            "xdp",
            "batch",
            "prog_tc",
            "prog_sk_lookup",
            "map_hash",
            "map_sk_storage",
        ] {
            assert!(has(name).is_ok_and(|f| f.available), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let error = has("netkitt").expect_err("unknown");
        assert_eq!(error.get_hint(), Some("did you mean \"netkit\"?"));
        let far = has("quantum").expect_err("unknown");
        assert_eq!(far.get_hint(), Some("`cnfscript features` lists them all"));
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(count_cpus("0\n"), 1);
        assert_eq!(count_cpus("0-3\n"), 4);
        assert_eq!(count_cpus("0-3,8,10-11"), 7);
    }
}
