//! The places of hooks beyond links, found by their names: cgroup directories, tracepoints of tracefs, kernel functions.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{FsType, fstatfs};

use crate::kernel::bpf::program::{Program, ProgramKind, refusal};
use crate::kernel::bpf::sys::{self, ProgramEvent};
use crate::kernel::release;
use crate::{Error, Result};

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2: FsType = FsType(0x6367_7270);

/// Where cgroups of version 2 are mounted, in this process's view.
pub fn cgroup_mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // Device, place, type, options ...
    let place = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    };
    mounts.lines().filter_map(place).collect()
}

/// A cgroup's directory, opened, with its whole path; a relative path starts where cgroups are mounted.
pub fn cgroup(path: &Path) -> Result<(String, OwnedFd)> {
    let mounts = cgroup_mounts();
    let whole = match mounts.first() {
        Some(mount) if path.is_relative() => mount.join(path),
        _ => path.to_owned(),
    };
    let shown = whole.display().to_string();
    let file = File::open(&whole).map_err(|e| Error::io("", &e).subject(shown.clone()))?;
    let is_cgroup = fstatfs(&file).is_ok_and(|fs| fs.filesystem_type() == CGROUP2)
        && file.metadata().is_ok_and(|data| data.is_dir());
    if is_cgroup {
        return Ok((shown, file.into()));
    }
    let hint = match mounts.first() {
        Some(mount) => format!("they are below {}", mount.display()),
        None => "none is mounted: mount -t cgroup2 cgroup2 /mnt".into(),
    };
    Err(Error::invalid("", "this is no directory of a cgroup of version 2")
        .subject(shown)
        .hint(hint))
}

/// Whether programs of this type are attached to what their section names.
pub fn is_traced(kind: ProgramKind) -> bool {
    [ProgramKind::TRACEPOINT, ProgramKind::RAW_TRACEPOINT, ProgramKind::KPROBE].contains(&kind)
}

/// Where tracefs is mounted.
fn tracefs() -> Result<&'static Path> {
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(Path::new);
    places.into_iter().find(|place| place.join("events").exists()).ok_or_else(|| {
        Error::new("", "ENOENT", "no tracefs is mounted")
            .hint("mount one: mount -t tracefs tracefs /sys/kernel/tracing")
    })
}

/// The event of a tracepoint, "sched/sched_switch".
pub fn tracepoint(name: &str) -> Result<OwnedFd> {
    let tracefs = tracefs()?;
    let plain = name.split('/').count() == 2 && !name.contains("..");
    let id =
        plain.then(|| std::fs::read_to_string(tracefs.join("events").join(name).join("id")).ok());
    let Some(id) = id.flatten().and_then(|text| text.trim().parse().ok()) else {
        return Err(unknown_tracepoint(tracefs, name));
    };
    sys::program_event_open(ProgramEvent::Tracepoint(id)).map_err(|e| refusal("", e))
}

fn unknown_tracepoint(tracefs: &Path, name: &str) -> Error {
    // One a line, "sched:sched_switch".
    let known = std::fs::read_to_string(tracefs.join("available_events")).unwrap_or_default();
    let known = known.lines().map(|line| line.replacen(':', "/", 1));
    let nearest = known
        .map(|known| (strsim::normalized_damerau_levenshtein(&known, name), known))
        .filter(|(score, _)| *score > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let error = Error::new("", "ENOENT", format!("this kernel has no tracepoint \"{name}\""));
    match nearest {
        Some((_, near)) => error.hint(format!("did you mean \"{near}\"?")),
        None => error.hint(format!("{}/available_events lists them", tracefs.display())),
    }
}

pub fn raw_tracepoint(program: &Program, name: &str) -> Result<OwnedFd> {
    let text = CString::new(name).map_err(|_| Error::invalid("", "a name has no zero bytes"))?;
    sys::raw_tracepoint_open(program.as_fd(), Some(&text)).map_err(|errno| match errno {
        Errno::ENOENT => {
            Error::new("", "ENOENT", format!("this kernel has no tracepoint \"{name}\""))
                .hint("without its group: \"netif_rx\", not \"net/netif_rx\"")
        }
        errno => refusal("", errno),
    })
}

/// The event of a kernel function, "icmp_rcv" or "icmp_rcv+8"; of its return, where an offset means nothing.
pub fn kprobe(target: &str, on_return: bool) -> Result<OwnedFd> {
    let pmu = std::fs::read_to_string("/sys/bus/event_source/devices/kprobe/type").ok();
    let Some(pmu) = pmu.and_then(|text| text.trim().parse().ok()) else {
        let here = release::name();
        let message =
            format!("kprobes are not built into this kernel ({here}, CONFIG_KPROBE_EVENTS)");
        return Err(Error::new("", "EOPNOTSUPP", message)
            .hint("a tracepoint, or SEC(\"fentry/FUNCTION\"), may do instead"));
    };
    let (function, offset) = match target.split_once('+') {
        Some((function, offset)) => (
            function,
            offset.parse().map_err(|_| {
                Error::invalid("", format!("\"{offset}\" is no number of bytes"))
                    .hint("write FUNCTION, or FUNCTION+BYTES")
            })?,
        ),
        None => (target, 0),
    };
    let name =
        CString::new(function).map_err(|_| Error::invalid("", "a name has no zero bytes"))?;
    let event = ProgramEvent::Kprobe { pmu, function: &name, offset, on_return };
    sys::program_event_open(event).map_err(|errno| match errno {
        Errno::ENOENT | Errno::EINVAL | Errno::EADDRNOTAVAIL => {
            let message = format!("this kernel has no function \"{function}\" that can be probed");
            Error::new("", "ENOENT", message)
                .hint("/proc/kallsyms lists functions; inlined ones are not there")
        }
        errno => refusal("", errno),
    })
}
