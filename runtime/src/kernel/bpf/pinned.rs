//! What is pinned on a bpf file system: a program, a map or a link, told apart when it is opened (bpf(2), BPF_OBJ_GET).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::inventory::LinkInfo;
use super::map::Map;
use super::program::{Program, refusal};
use super::{pins, probe, sys};
use crate::{Error, Result};

const OP: &str = "bpf.pinned";

/// An object found by its pin.
#[derive(Debug, Clone)]
pub enum Pinned {
    Program(Program),
    Map(Map),
    Link(BpfLink),
}

impl Pinned {
    /// "program", "map" or "link"
    pub fn word(&self) -> &'static str {
        match self {
            Pinned::Program(_) => "program",
            Pinned::Map(_) => "map",
            Pinned::Link(_) => "link",
        }
    }
}

/// A bpf link as it is: what somebody attached and pinned. Dropping it detaches nothing while the pin is there.
#[derive(Debug, Clone)]
pub struct BpfLink {
    fd: Arc<OwnedFd>,
    pub id: u32,
}

impl BpfLink {
    fn from_fd(fd: OwnedFd) -> Result<BpfLink> {
        let link = BpfLink { fd: Arc::new(fd), id: 0 };
        let id = link.info()?.id;
        Ok(BpfLink { id, ..link })
    }

    /// What the kernel says of it now.
    ///
    /// # Errors
    /// EPERM without CAP_BPF.
    pub fn info(&self) -> Result<LinkInfo> {
        let raw = sys::info(self.fd.as_fd(), |_| {});
        raw.map(|raw| LinkInfo::new(&raw)).map_err(|e| refusal("link.info", e))
    }

    /// Takes its program off the hook, which the link itself survives. Nothing is wrong when it is off already.
    ///
    /// # Errors
    /// EOPNOTSUPP for kinds that end only with their last reference (tracing).
    pub fn detach(&self) -> Result<()> {
        match sys::link_detach(self.fd.as_fd()) {
            Ok(()) | Err(Errno::ENODEV | Errno::ENOLINK) => Ok(()),
            Err(errno) => Err(refusal("link.detach", errno)),
        }
    }
}

/// Opens what is pinned at `path`.
///
/// # Errors
/// ENOENT when nothing is; EACCES for a folder, or a file that is on no bpf file system; EPERM without CAP_BPF.
pub fn open(path: &Path) -> Result<Pinned> {
    let about = |e: Error| e.operation(OP).subject(path.display().to_string());
    let name = pins::path_string(OP, path)?;
    let fd = sys::obj_get(&name).map_err(|errno| about(refused(path, errno)))?;
    // The kernel's name of the descriptor is the one thing that says what it is of (kernel/bpf/syscall.c).
    let shown = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|e| about(Error::io(OP, &e)))?;
    match shown.to_string_lossy().trim_start_matches("anon_inode:") {
        "bpf-prog" => Program::from_fd(fd).map(Pinned::Program),
        "bpf-map" => Map::from_fd(fd).map(Pinned::Map),
        _ => BpfLink::from_fd(fd).map(Pinned::Link),
    }
    .map_err(about)
}

/// Opens what is pinned at `path`, which has to be of that kind.
///
/// # Errors
/// EINVAL, saying what it is instead; else as [`open`].
pub fn open_as<T>(path: &Path, word: &str, pick: impl FnOnce(Pinned) -> Option<T>) -> Result<T> {
    let found = open(path)?;
    let is = found.word();
    pick(found).ok_or_else(|| {
        Error::invalid(OP, format!("a {is} is pinned there, not a {word}"))
            .subject(path.display().to_string())
    })
}

fn refused(path: &Path, errno: Errno) -> Error {
    let error = refusal(OP, errno);
    match errno {
        Errno::ENOENT => error.because("nothing is pinned there"),
        Errno::EACCES if path.is_dir() => error.because("this is a folder, not a pin"),
        Errno::EACCES if !probe::on_bpffs(path) => {
            error.because("this file is no pin: it is on no bpf file system")
        }
        _ => error,
    }
}
