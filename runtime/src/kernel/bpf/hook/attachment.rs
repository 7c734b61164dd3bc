//! A program on a hook, as a handle: replaced, detached, described, pinned and taken over.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::{Anchor, Hook, Order, Target, XdpMode, check_kind, clsact, query, refusal, subject};
use crate::kernel::bpf::sys::{self, bpf_link_info};
use crate::kernel::bpf::{Program, pins, program};
use crate::kernel::netns::NetnsFd;
use crate::{Error, Result};

/// A program on a hook. Cheap to clone.
///
/// A bpf link ends with the last clone, unless it is pinned; a clsact filter stays until it is detached.
#[derive(Debug, Clone)]
pub struct Attachment(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Let go by `detach`, so that a namespace does not live on for a handle's sake.
    netns: Mutex<Option<NetnsFd>>,
    index: u32,
    link: String,
    hook: Hook,
    slot: Slot,
    program: Mutex<Program>,
}

/// How the kernel holds it.
#[derive(Debug)]
pub(super) enum Slot {
    Link { fd: OwnedFd, id: u32, mode: Option<XdpMode> },
    Filter(clsact::Filter),
}

/// What is known of an attachment.
#[derive(Debug, Clone)]
pub struct AttachmentInfo {
    pub hook: Hook,
    pub link: String,
    /// Interface index; 0 when the device, or the filter, is gone.
    pub index: u32,
    pub program: Program,
    pub link_id: Option<u32>,
    /// Of xdp: how it runs, never [`XdpMode::Auto`].
    pub mode: Option<XdpMode>,
    /// Of clsact.
    pub priority: Option<u16>,
    pub handle: Option<u32>,
}

impl Slot {
    pub(super) fn link(fd: OwnedFd, mode: Option<XdpMode>) -> Result<Slot> {
        let info = sys::info::<bpf_link_info>(fd.as_fd(), |_| {})
            .map_err(|e| Error::errno("bpf.link", e))?;
        Ok(Slot::Link { fd, id: info.id, mode })
    }
}

impl Attachment {
    pub(super) fn new(target: Target, hook: Hook, slot: Slot, program: Program) -> Self {
        let Target { netns, index, name: link } = target;
        let (netns, program) = (Mutex::new(Some(netns)), Mutex::new(program));
        Attachment(Arc::new(Inner { netns, index, link, hook, slot, program }))
    }

    /// Takes over a link pinned on a bpffs by [`Attachment::pin`]: packets flow on meanwhile.
    ///
    /// # Errors
    /// ENOENT when nothing is pinned there; ENODEV when its device is gone; EINVAL when it sits on another hook or link.
    pub fn pinned(path: &Path, target: &Target, hook: Hook) -> Result<Attachment> {
        let op = "bpf.link";
        let subject = path.display().to_string();
        let name = pins::path_string(op, path)?;
        let fd = sys::obj_get(&name).map_err(|e| Error::errno(op, e).subject(&subject))?;
        let info = sys::info::<bpf_link_info>(fd.as_fd(), |_| {})
            .map_err(|e| Error::errno(op, e).subject(&subject))?;
        let attach_type = if hook == Hook::Xdp { 0 } else { hook.row().attach_type };
        match sys::link_place(&info) {
            Some((0, _)) => {
                return Err(Error::new(op, "ENODEV", "its device is gone").subject(subject));
            }
            // The kernel tells the index of the peer device, which may be in another namespace.
            Some((_, kind)) if hook == Hook::NetkitPeer && kind == attach_type => {}
            Some((index, kind)) if index == target.index && kind == attach_type => {}
            _ => {
                let place = target.subject(hook);
                return Err(Error::invalid(op, format!("it is not on {place}")).subject(subject));
            }
        }
        let program = Program::by_id(info.prog_id)?;
        let mode = match hook {
            Hook::Xdp => query::xdp(target)?.map(|(_, mode)| mode),
            _ => None,
        };
        let slot = Slot::Link { fd, id: info.id, mode };
        Ok(Attachment::new(target.clone(), hook, slot, program))
    }

    /// Takes over the clsact filter in which that program (0: any) runs, at the priority and handle if they are known.
    ///
    /// # Errors
    /// ENOENT when there is none, EINVAL for a hook that is not clsact's.
    pub fn filter_of(
        target: &Target,
        hook: Hook,
        program: u32,
        place: Option<(u16, u32)>,
    ) -> Result<Attachment> {
        let about = |e: Error| e.operation("tc.attach").about(target.subject(hook));
        if !hook.is_clsact() {
            return Err(about(Error::invalid("", "only clsact has filters")));
        }
        let ours = |f: &clsact::Dumped| match (program, place) {
            (0, None) => false,
            (0, Some(place)) => place == (f.priority, f.handle),
            (id, place) => {
                f.program_id == id && place.is_none_or(|place| place == (f.priority, f.handle))
            }
        };
        let all = clsact::dump(target, hook).map_err(about)?;
        let found = all
            .into_iter()
            .find(ours)
            .ok_or_else(|| about(Error::new("", "ENOENT", "no filter of this program")))?;
        let slot = Slot::Filter(clsact::Filter { priority: found.priority, handle: found.handle });
        Ok(Attachment::new(target.clone(), hook, slot, Program::by_id(found.program_id)?))
    }

    pub fn hook(&self) -> Hook {
        self.0.hook
    }

    /// A clone of the same.
    pub fn is(&self, other: &Attachment) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Where it is.
    ///
    /// # Errors
    /// ENODEV when it has been detached.
    pub fn target(&self) -> Result<Target> {
        let netns = self.0.netns.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let netns = netns.ok_or_else(|| Error::new("", "ENODEV", "it has been detached"))?;
        Ok(Target { netns, index: self.0.index, name: self.0.link.clone() })
    }

    /// The program that runs there now, as far as this process changed it.
    pub fn program(&self) -> Program {
        self.0.program.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The id of the bpf link; `None` for clsact.
    pub fn link_id(&self) -> Option<u32> {
        match &self.0.slot {
            Slot::Link { id, .. } => Some(*id),
            Slot::Filter(_) => None,
        }
    }

    /// Priority and handle of a clsact filter; `None` for a bpf link.
    pub fn filter_place(&self) -> Option<(u16, u32)> {
        self.clsact().map(|filter| (filter.priority, filter.handle))
    }

    /// As an anchor for `before` and `after`.
    pub fn anchor(&self) -> Anchor {
        Anchor::Attachment(self.clone())
    }

    /// Puts `program` in the place of the one that runs there, in one step: no packet sees neither.
    ///
    /// # Errors
    /// ENODEV when the device is gone, EEXIST when `program` is on this hook already, EINVAL for another type.
    pub fn replace(&self, program: &Program) -> Result<()> {
        let Inner { hook, slot, .. } = &*self.0;
        let op = replace_word(*hook);
        let about = |e: Error| e.operation(op).about(subject(&self.0.link, *hook));
        let target = &self.target().map_err(about)?;
        check_kind(*hook, program).map_err(about)?;
        match slot {
            Slot::Link { fd, .. } => {
                sys::link_update(fd.as_fd(), program.as_fd()).map_err(|e| {
                    refusal::explain(target, *hook, program, &Order::default(), e).operation(op)
                })?
            }
            Slot::Filter(filter) => {
                clsact::replace(target, *hook, filter, program).map_err(about)?;
            }
        }
        *self.0.program.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = program.clone();
        Ok(())
    }

    /// Takes the program off the hook. Nothing is wrong when the device is gone already.
    pub fn detach(&self) -> Result<()> {
        let Inner { hook, slot, .. } = &*self.0;
        let about = |e: Error| e.operation(detach_word(*hook)).about(subject(&self.0.link, *hook));
        let Ok(target) = self.target() else { return Ok(()) };
        match slot {
            Slot::Link { fd, .. } => match sys::link_detach(fd.as_fd()) {
                Ok(()) | Err(Errno::ENODEV | Errno::ENOLINK) => {}
                Err(errno) => return Err(about(program::refusal("", errno))),
            },
            Slot::Filter(filter) => clsact::detach(&target, *hook, filter).map_err(about)?,
        }
        self.0.netns.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        Ok(())
    }

    /// # Errors
    /// ENODEV when it has been detached, EPERM without CAP_BPF.
    pub fn info(&self) -> Result<AttachmentInfo> {
        let Inner { hook, slot, .. } = &*self.0;
        let about = |e: Error| e.operation("attachment.info").about(subject(&self.0.link, *hook));
        let target = self.target().map_err(about)?;
        let mut info = AttachmentInfo {
            hook: *hook,
            link: self.0.link.clone(),
            index: self.0.index,
            program: self.program(),
            link_id: self.link_id(),
            mode: None,
            priority: None,
            handle: None,
        };
        match slot {
            Slot::Link { fd, mode, .. } => {
                info.mode = *mode;
                let raw = sys::info::<bpf_link_info>(fd.as_fd(), |_| {}).map_err(|e| {
                    Error::errno("attachment.info", e).subject(subject(&self.0.link, *hook))
                })?;
                if sys::link_place(&raw).is_none_or(|(index, _)| index == 0) {
                    info.index = 0;
                }
                if raw.prog_id != 0 && raw.prog_id != info.program.id() {
                    info.program = Program::by_id(raw.prog_id)?;
                }
            }
            Slot::Filter(filter) => {
                info.priority = Some(filter.priority);
                info.handle = Some(filter.handle);
                if !clsact::exists(&target, *hook, filter) {
                    info.index = 0;
                }
            }
        }
        Ok(info)
    }

    /// Keeps the link when this process ends: [`Attachment::pinned`] takes it over. A clsact filter stays anyway, and
    /// is taken over with [`Attachment::filter_of`].
    ///
    /// # Errors
    /// EEXIST when the path is taken; EPERM off a bpffs; EOPNOTSUPP for clsact.
    pub fn pin(&self, path: &Path) -> Result<()> {
        match &self.0.slot {
            Slot::Link { fd, .. } => pins::pin(fd.as_fd(), "attachment.pin", path),
            Slot::Filter(_) => Err(Error::new(
                "attachment.pin",
                "EOPNOTSUPP",
                "a clsact filter is not pinned: it stays until it is detached",
            )
            .subject(subject(&self.0.link, self.0.hook))),
        }
    }

    /// The link's descriptor number for the length of a system call.
    pub(super) fn raw_link(&self) -> Option<u32> {
        match &self.0.slot {
            Slot::Link { fd, .. } => Some(fd.as_raw_fd() as u32),
            Slot::Filter(_) => None,
        }
    }

    pub(super) fn clsact(&self) -> Option<&clsact::Filter> {
        match &self.0.slot {
            Slot::Filter(filter) => Some(filter),
            Slot::Link { .. } => None,
        }
    }
}

fn replace_word(hook: Hook) -> &'static str {
    match hook.family() {
        "tcx" => "tcx.replace",
        "netkit" => "netkit.replace",
        "xdp" => "xdp.replace",
        _ => "tc.replace",
    }
}

fn detach_word(hook: Hook) -> &'static str {
    match hook.family() {
        "tcx" => "tcx.detach",
        "netkit" => "netkit.detach",
        "xdp" => "xdp.detach",
        _ => "tc.detach",
    }
}
