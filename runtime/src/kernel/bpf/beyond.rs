//! Hooks beyond network links: cgroups, namespaces, maps of sockets, tracepoints, kernel functions. Each attachment is a bpf link that ends
//! with its descriptor, so that nothing of it outlives this process.
//!
//! Where each type of program goes is said by its section (`elf::section`); `target` finds the places.

mod sockmap;
mod target;

pub use sockmap::attach_sockmap;
pub use target::cgroup_mounts;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;

use super::elf::{self, ProgramSection};
use super::program::{Program, ProgramKind, refusal};
use super::sys::{self, bpf_link_info};
use crate::kernel::netns::NetnsFd;
use crate::{Error, Result};

/// A program on such a hook. Cheap to clone; [`Beyond::detach`] ends it for all clones.
#[derive(Debug, Clone)]
pub struct Beyond(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// "cgroup", "sk_lookup", "sockmap", "tracepoint", "raw_tracepoint", "kprobe", "tracing"
    hook: &'static str,
    /// For people: "/sys/fs/cgroup/x, connect4", "netns client", "sched/sched_switch".
    target: String,
    id: u32,
    live: Mutex<Option<Live>>,
}

#[derive(Debug)]
struct Live {
    link: OwnedFd,
    program: Program,
    /// What the link is on: a perf event lives as long as it.
    _event: Option<OwnedFd>,
}

/// What is known of one.
#[derive(Debug, Clone)]
pub struct BeyondInfo {
    pub hook: &'static str,
    pub target: String,
    pub program: Program,
    pub link_id: u32,
}

impl Beyond {
    fn new(
        hook: &'static str,
        target: String,
        program: &Program,
        link: OwnedFd,
        event: Option<OwnedFd>,
    ) -> Result<Beyond> {
        let info = sys::info::<bpf_link_info>(link.as_fd(), |_| {})
            .map_err(|e| Error::errno("bpf.link", e))?;
        let live = Live { link, program: program.clone(), _event: event };
        Ok(Beyond(Arc::new(Inner { hook, target, id: info.id, live: Mutex::new(Some(live)) })))
    }

    /// Where it is, for people.
    pub fn target(&self) -> &str {
        &self.0.target
    }

    pub fn hook(&self) -> &'static str {
        self.0.hook
    }

    pub fn link_id(&self) -> u32 {
        self.0.id
    }

    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.0.live.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn about(&self, error: Error) -> Error {
        error.about(self.0.target.clone())
    }

    /// Puts `program` in the place of the one that runs there, in one step.
    ///
    /// # Errors
    /// ENODEV when it was detached or its cgroup or namespace is gone, EINVAL for a program of another type, EOPNOTSUPP for
    /// tracing, where the kernel cannot.
    pub fn replace(&self, program: &Program) -> Result<()> {
        let mut live = self.live();
        let live = live.as_mut().ok_or_else(|| self.about(detached()))?;
        if program.kind() != live.program.kind() {
            let message = format!(
                "program \"{}\" is of type {}, this hook takes {}",
                program.name(),
                program.kind(),
                live.program.kind()
            );
            return Err(self.about(Error::invalid("", message)));
        }
        sys::link_update(live.link.as_fd(), program.as_fd()).map_err(|errno| {
            self.about(match errno {
                Errno::ENOLINK => gone(self.0.hook),
                Errno::EINVAL | Errno::EOPNOTSUPP
                    if !matches!(self.0.hook, "cgroup" | "sk_lookup" | "sockmap") =>
                {
                    Error::new(
                        "",
                        "EOPNOTSUPP",
                        "the kernel cannot replace a tracing program in place",
                    )
                    .hint("attach the new one, then detach this one")
                }
                errno => refusal("", errno),
            })
        })?;
        live.program = program.clone();
        Ok(())
    }

    /// Takes the program off. Nothing happens when it is off already.
    pub fn detach(&self) {
        *self.live() = None;
    }

    /// # Errors
    /// ENODEV when it was detached, or its cgroup or namespace is gone.
    pub fn info(&self) -> Result<BeyondInfo> {
        let live = self.live();
        let live = live.as_ref().ok_or_else(|| self.about(detached()))?;
        let raw = sys::info::<bpf_link_info>(live.link.as_fd(), |_| {})
            .map_err(|e| self.about(Error::errno("", e)))?;
        if let Some((_, Some(0), _) | (_, _, Some(0))) = sys::link_elsewhere(&raw) {
            return Err(self.about(gone(self.0.hook)));
        }
        Ok(BeyondInfo {
            hook: self.0.hook,
            target: self.0.target.clone(),
            program: live.program.clone(),
            link_id: self.0.id,
        })
    }
}

fn detached() -> Error {
    Error::new("", "ENODEV", "it has been detached")
}

fn gone(hook: &str) -> Error {
    let what = match hook {
        "cgroup" => "cgroup",
        "sockmap" => "map",
        _ => "namespace",
    };
    Error::new("", "ENODEV", format!("its {what} is gone"))
}

/// A program of a type that does not go there.
fn wrong_type(program: &Program, wanted: &str, sections: &[&str]) -> Error {
    let message = format!("program \"{}\" is of type {}, {wanted}", program.name(), program.kind());
    let known: Vec<String> = sections.iter().map(|word| format!("SEC(\"{word}\")")).collect();
    Error::invalid("", message).hint(format!("give it {}", known.join(", ")))
}

/// Runs `program` for the processes in a cgroup and those below it: at the hook its section names, or `hook`.
///
/// # Errors
/// ENOENT without the directory; EINVAL when it is no cgroup of version 2, or for a program that does not go there; EPERM
/// without CAP_NET_ADMIN, or when a program above allows none below.
pub fn attach_cgroup(path: &Path, program: &Program, hook: Option<&str>) -> Result<Beyond> {
    let (word, attach_type) = cgroup_hook(program, hook)?;
    let (shown, directory) = target::cgroup(path)?;
    let subject = format!("{shown}, {word}");
    let link = sys::link_create_on(program.as_fd(), directory.as_fd(), attach_type);
    let link = link.map_err(|errno| {
        let error = match errno {
            Errno::EPERM if crate::kernel::capability::missing().is_empty() => Error::new(
                "",
                "EPERM",
                "a program of this cgroup, or of one above, allows no other",
            )
            .hint("`bpftool cgroup tree` shows what is attached, and with which flags"),
            errno => refusal("", errno),
        };
        error.subject(subject.clone())
    })?;
    Beyond::new("cgroup", subject, program, link, None)
}

/// The hook of a cgroup: asked for, or said by the program's section.
fn cgroup_hook(program: &Program, asked: Option<&str>) -> Result<(&'static str, u32)> {
    let fitting: Vec<_> =
        elf::cgroup_hooks().filter(|(_, kind, _)| *kind == program.kind()).collect();
    let Some((only, _, attach_type)) = fitting.first().copied() else {
        let sections = ["cgroup_skb/ingress", "cgroup/connect4", "cgroup/sock_create", "sockops"];
        return Err(wrong_type(program, "which does not go on a cgroup", &sections));
    };
    let words: Vec<&str> = fitting.iter().map(|(word, ..)| *word).collect();
    if let Some(asked) = asked {
        let found = fitting.iter().find(|(word, ..)| *word == asked);
        let found = found.map(|(word, _, attach_type)| (*word, *attach_type));
        return found.ok_or_else(|| {
            let message = format!("a program of type {} has no hook \"{asked}\"", program.kind());
            Error::invalid("", message).hint(format!("it is one of {}", words.join(", ")))
        });
    }
    let Some(section) = ProgramSection::parse(program.section(), 0) else {
        if fitting.len() == 1 {
            return Ok((only, attach_type));
        }
        let message = format!("the hook of program \"{}\" is not known", program.name());
        let hint = format!("it was loaded elsewhere; give hook = one of {}", words.join(", "));
        return Err(Error::invalid("", message).hint(hint));
    };
    let found = fitting.iter().find(|(.., attach)| *attach == section.expected_attach_type);
    Ok(found.map_or((only, attach_type), |(word, _, attach)| (*word, *attach)))
}

/// Runs `program` for each lookup of a listening socket in a namespace (`Documentation/bpf/prog_sk_lookup.rst`).
///
/// # Errors
/// EINVAL for a program of another type; E2BIG when 64 are there already; EPERM without CAP_NET_ADMIN.
pub fn attach_sk_lookup(netns: &NetnsFd, name: &str, program: &Program) -> Result<Beyond> {
    if program.kind() != ProgramKind::SK_LOOKUP {
        return Err(wrong_type(program, "this hook takes sk_lookup", &["sk_lookup"]));
    }
    let attach_type = aya_obj::generated::bpf_attach_type::BPF_SK_LOOKUP as u32;
    let link = sys::link_create_on(program.as_fd(), netns.as_fd(), attach_type);
    let link = link.map_err(|errno| match errno {
        Errno::E2BIG => Error::new("", "E2BIG", "64 programs are there already"),
        errno => refusal("", errno),
    })?;
    Beyond::new("sk_lookup", name.to_owned(), program, link, None)
}

/// Runs `program` where its section says: a tracepoint, a kernel function, or what it was loaded for. `to` names another
/// place of the same kind, as a section does or without its first word.
///
/// # Errors
/// ENOENT when the kernel has no such tracepoint or function; EINVAL for a program of another type, or without a target;
/// EOPNOTSUPP where the kernel has no kprobes; EPERM without CAP_PERFMON.
pub fn attach_tracing(program: &Program, to: Option<&str>) -> Result<Beyond> {
    let section = ProgramSection::parse(program.section(), 0);
    let target = match to {
        None => section.as_ref().map(|s| s.target.clone()).unwrap_or_default(),
        Some(to) => match ProgramSection::parse(to, 0) {
            Some(spelt) if spelt.kind == program.kind() => spelt.target,
            _ => to.to_owned(),
        },
    };
    let returns = [to, section.as_ref().map(|s| s.name.as_str())];
    let on_return = returns
        .into_iter()
        .flatten()
        .next()
        .is_some_and(|text| text.trim_start_matches('?').starts_with("kretprobe"));
    let subject = |e: Error| e.about(target.clone());
    match program.kind() {
        ProgramKind::TRACING if to.is_some() => {
            Err(Error::invalid("", "a program of type tracing is loaded for its function")
                .hint("name it in the section: SEC(\"fentry/FUNCTION\")"))
        }
        ProgramKind::TRACING => {
            let link = sys::raw_tracepoint_open(program.as_fd(), None);
            let link = link.map_err(|e| subject(refusal("", e)))?;
            Beyond::new("tracing", target, program, link, None)
        }
        kind if target.is_empty() && target::is_traced(kind) => {
            let message = format!("program \"{}\" says nowhere where to attach it", program.name());
            Err(Error::invalid("", message).hint(
                "name it in the section, SEC(\"tracepoint/GROUP/NAME\"), or give to = \"...\"",
            ))
        }
        ProgramKind::RAW_TRACEPOINT => {
            let link = target::raw_tracepoint(program, &target).map_err(subject)?;
            Beyond::new("raw_tracepoint", target, program, link, None)
        }
        ProgramKind::TRACEPOINT | ProgramKind::KPROBE => {
            let (hook, event) = match program.kind() {
                ProgramKind::TRACEPOINT => ("tracepoint", target::tracepoint(&target)),
                _ => ("kprobe", target::kprobe(&target, on_return)),
            };
            let event = event.map_err(subject)?;
            let attach_type = aya_obj::generated::bpf_attach_type::BPF_PERF_EVENT as u32;
            let link = sys::link_create_on(program.as_fd(), event.as_fd(), attach_type);
            let link = link.map_err(|e| subject(refusal("", e)))?;
            Beyond::new(hook, target, program, link, Some(event))
        }
        _ => {
            let sections =
                ["tracepoint/GROUP/NAME", "raw_tp/NAME", "kprobe/FUNCTION", "fentry/FUNCTION"];
            Err(wrong_type(program, "which traces nothing", &sections))
        }
    }
}
