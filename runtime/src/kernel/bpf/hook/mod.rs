//! Hooks: where on a link a program runs. One shape for all of them: attach, query, replace, detach.
//!
//! tcx, netkit and xdp are bpf links that differ in data: the rows of [`Hook::row`]. Legacy clsact is a filter made over
//! netlink (`clsact`); order words become its priorities. Link indexes resolve in the calling thread's namespace, so
//! every call runs inside the target's.

mod clsact;
mod order;
mod query;
mod refusal;
pub(super) mod rtnl;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

pub use order::{Anchor, Order, XdpMode};
pub use query::{QueriedProgram, Query, query};

use super::program::{Program, ProgramKind};
use super::sys::{self, bpf_link_info};
use crate::kernel::netns::NetnsFd;
use crate::{Error, Result};

/// A place on a link where programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    TcxIngress,
    TcxEgress,
    /// What the primary end sends.
    NetkitPrimary,
    /// What the peer end sends; attached through the primary end.
    NetkitPeer,
    Xdp,
    ClsactIngress,
    ClsactEgress,
}

/// What tells one hook from another.
pub(super) struct Row {
    /// The family's word: "tcx", "netkit", "xdp", "tc".
    pub family: &'static str,
    /// The operation's name in messages.
    pub attach: &'static str,
    /// "ingress", "primary"; empty where the link has only one.
    pub side: &'static str,
    /// `enum bpf_attach_type`, or the minor number of the clsact parent.
    pub attach_type: u32,
    pub program: ProgramKind,
    /// The kernel feature it needs, as `probe` calls it.
    pub feature: &'static str,
    /// Whether the kernel orders several programs (mprog).
    pub ordered: bool,
}

impl Hook {
    pub(super) fn row(self) -> Row {
        use ProgramKind as Kind;
        let (family, attach, side, attach_type, program, feature, ordered) = match self {
            Hook::TcxIngress => ("tcx", "tcx.attach", "ingress", 46, Kind::TC, "tcx", true),
            Hook::TcxEgress => ("tcx", "tcx.attach", "egress", 47, Kind::TC, "tcx", true),
            Hook::NetkitPrimary => {
                ("netkit", "netkit.attach", "primary", 54, Kind::TC, "netkit", true)
            }
            Hook::NetkitPeer => ("netkit", "netkit.attach", "peer", 55, Kind::TC, "netkit", true),
            Hook::Xdp => ("xdp", "xdp.attach", "", 37, Kind::XDP, "xdp", false),
            Hook::ClsactIngress => ("tc", "tc.attach", "ingress", 0xfff2, Kind::TC, "clsact", true),
            Hook::ClsactEgress => ("tc", "tc.attach", "egress", 0xfff3, Kind::TC, "clsact", true),
        };
        Row { family, attach, side, attach_type, program, feature, ordered }
    }

    /// "tcx", "netkit", "xdp", "tc"
    pub fn family(self) -> &'static str {
        self.row().family
    }

    /// "ingress", "egress", "primary", "peer"; empty for xdp.
    pub fn side(self) -> &'static str {
        self.row().side
    }

    /// The hook of a family by the side's name: `("tcx", "ingress")`, `("xdp", "")`.
    pub fn find(family: &str, side: &str) -> Option<Hook> {
        Hook::ALL.into_iter().find(|hook| hook.family() == family && hook.side() == side)
    }

    pub const ALL: [Hook; 7] = [
        Hook::TcxIngress,
        Hook::TcxEgress,
        Hook::NetkitPrimary,
        Hook::NetkitPeer,
        Hook::Xdp,
        Hook::ClsactIngress,
        Hook::ClsactEgress,
    ];

    fn is_clsact(self) -> bool {
        matches!(self, Hook::ClsactIngress | Hook::ClsactEgress)
    }
}

/// A direction of [`attach_auto`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// The link a hook is on.
#[derive(Debug, Clone)]
pub struct Target {
    pub netns: NetnsFd,
    /// Interface index in that namespace.
    pub index: u32,
    /// What messages call it.
    pub name: String,
}

impl Target {
    pub fn new(netns: &NetnsFd, index: u32, name: impl Into<String>) -> Self {
        Target { netns: netns.clone(), index, name: name.into() }
    }

    /// `eth0, egress`
    fn subject(&self, hook: Hook) -> String {
        match hook.side() {
            "" => self.name.clone(),
            side => format!("{}, {side}", self.name),
        }
    }
}

/// A program on a hook. Cheap to clone.
///
/// A bpf link ends with the last clone, unless it is pinned; a clsact filter stays until it is detached.
#[derive(Debug, Clone)]
pub struct Attachment(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Target,
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
    /// Interface index; 0 when the device is gone.
    pub index: u32,
    pub program: Program,
    pub link_id: Option<u32>,
    /// Of xdp: how it runs, never [`XdpMode::Auto`].
    pub mode: Option<XdpMode>,
    /// Of clsact.
    pub priority: Option<u16>,
    pub handle: Option<u32>,
}

/// Puts `program` on a hook of `target`.
///
/// # Errors
/// - EEXIST: the program is on this hook already (tcx, netkit).
/// - EBUSY: another program holds the xdp hook.
/// - ESTALE: the hook is not at `order.expected_revision`.
/// - ENOENT: the program of `before` or `after` is not on this hook.
/// - ENODEV: the device is gone. ENXIO: it is no netkit. EACCES: it is the peer end of a netkit.
/// - ERANGE: 63 programs are there already, or no clsact priority is left at that place.
/// - EOPNOTSUPP: this kernel does not have the hook. EPERM: CAP_NET_ADMIN is missing.
pub fn attach(target: &Target, hook: Hook, program: &Program, order: &Order) -> Result<Attachment> {
    let row = hook.row();
    let about = |e: Error| e.operation(row.attach).about(target.subject(hook));
    check_kind(hook, program).map_err(about)?;
    order.check(hook).map_err(about)?;
    let slot = match hook {
        Hook::ClsactIngress | Hook::ClsactEgress => {
            Slot::Filter(clsact::attach(target, hook, program, order).map_err(about)?)
        }
        Hook::Xdp => attach_xdp(target, program, order.mode)?,
        _ => {
            let (flags, relative) = order.mprog();
            let revision = order.expected_revision.unwrap_or(0);
            let made = link(target, hook, program, flags, relative, revision)?;
            Slot::link(made.map_err(|e| refusal::explain(target, hook, program, order, e))?, None)?
        }
    };
    Ok(Attachment::new(target.clone(), hook, slot, program.clone()))
}

/// tcx where the kernel has it, else clsact; `order` means the same on both.
pub fn attach_auto(
    target: &Target,
    direction: Direction,
    program: &Program,
    order: &Order,
) -> Result<Attachment> {
    attach(target, auto_hook(direction)?, program, order)
}

/// The hook that [`attach_auto`] takes on this kernel.
pub fn auto_hook(direction: Direction) -> Result<Hook> {
    let tcx = super::probe::has("tcx")?.available;
    Ok(match (tcx, direction) {
        (true, Direction::Ingress) => Hook::TcxIngress,
        (true, Direction::Egress) => Hook::TcxEgress,
        (false, Direction::Ingress) => Hook::ClsactIngress,
        (false, Direction::Egress) => Hook::ClsactEgress,
    })
}

fn check_kind(hook: Hook, program: &Program) -> Result<()> {
    let wanted = hook.row().program;
    if program.kind() == wanted {
        return Ok(());
    }
    let message = format!(
        "program \"{}\" is of type {}, this hook takes {wanted}",
        program.name(),
        program.kind()
    );
    let section = if wanted == ProgramKind::XDP { "xdp" } else { "tc" };
    Err(Error::invalid("", message).hint(format!("give it SEC(\"{section}\")")))
}

/// One `BPF_LINK_CREATE` inside the target's namespace; the inner result is the kernel's answer.
fn link(
    target: &Target,
    hook: Hook,
    program: &Program,
    flags: u32,
    relative: u32,
    expected_revision: u64,
) -> Result<sys::SysResult<OwnedFd>> {
    let attach_type = hook.row().attach_type;
    target.netns.within(|| {
        Ok(sys::link_create(&sys::LinkAttr {
            program: program.as_fd(),
            ifindex: target.index,
            attach_type,
            flags,
            relative,
            expected_revision,
        }))
    })
}

/// `XDP_FLAGS_*` of `linux/if_link.h`.
const XDP_GENERIC: u32 = 1 << 1;
const XDP_NATIVE: u32 = 1 << 2;
const XDP_OFFLOAD: u32 = 1 << 3;

/// Native if the driver can, generic if it cannot, unless a mode was asked for.
fn attach_xdp(target: &Target, program: &Program, asked: XdpMode) -> Result<Slot> {
    let attempts: &[(XdpMode, u32)] = match asked {
        XdpMode::Auto => &[(XdpMode::Native, XDP_NATIVE), (XdpMode::Generic, XDP_GENERIC)],
        XdpMode::Native => &[(XdpMode::Native, XDP_NATIVE)],
        XdpMode::Generic => &[(XdpMode::Generic, XDP_GENERIC)],
        XdpMode::Offload => &[(XdpMode::Offload, XDP_OFFLOAD)],
    };
    let mut refused = Errno::EOPNOTSUPP;
    for (mode, flags) in attempts {
        match link(target, Hook::Xdp, program, *flags, 0, 0)? {
            Ok(fd) => return Slot::link(fd, Some(*mode)),
            Err(errno) => refused = errno,
        }
        // These would not get better in another mode.
        if matches!(refused, Errno::EBUSY | Errno::EEXIST | Errno::ENODEV | Errno::EPERM) {
            break;
        }
    }
    let order = Order { mode: asked, ..Order::default() };
    Err(refusal::explain(target, Hook::Xdp, program, &order, refused))
}

impl Slot {
    fn link(fd: OwnedFd, mode: Option<XdpMode>) -> Result<Slot> {
        let info = sys::info::<bpf_link_info>(fd.as_fd(), |_| {})
            .map_err(|e| Error::errno("bpf.link", e))?;
        Ok(Slot::Link { fd, id: info.id, mode })
    }
}

impl Attachment {
    fn new(target: Target, hook: Hook, slot: Slot, program: Program) -> Self {
        Attachment(Arc::new(Inner { target, hook, slot, program: Mutex::new(program) }))
    }

    /// Takes over a link pinned on a bpffs by [`Attachment::pin`]: packets flow on meanwhile.
    ///
    /// # Errors
    /// ENOENT when nothing is pinned there; ENODEV when its device is gone; EINVAL when it sits on another hook or link.
    pub fn pinned(path: &Path, target: &Target, hook: Hook) -> Result<Attachment> {
        let op = "bpf.link";
        let subject = path.display().to_string();
        let name = super::map::path_string(op, path)?;
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

    /// Takes over a clsact filter by its priority and handle.
    ///
    /// # Errors
    /// ENOENT when there is none, EINVAL for a hook that is not clsact's.
    pub fn filter(target: &Target, hook: Hook, priority: u16, handle: u32) -> Result<Attachment> {
        let about = |e: Error| e.operation("tc.attach").about(target.subject(hook));
        if !hook.is_clsact() {
            return Err(about(Error::invalid("", "only clsact has filters")));
        }
        let found = clsact::dump(target, hook).map_err(about)?;
        let program = found
            .iter()
            .find(|f| f.priority == priority && f.handle == handle)
            .ok_or_else(|| {
                about(Error::new("", "ENOENT", format!("no filter of priority {priority}")))
            })?
            .program_id;
        let slot = Slot::Filter(clsact::Filter { priority, handle });
        Ok(Attachment::new(target.clone(), hook, slot, Program::by_id(program)?))
    }

    pub fn hook(&self) -> Hook {
        self.0.hook
    }

    pub fn target(&self) -> &Target {
        &self.0.target
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

    /// As an anchor for `before` and `after`.
    pub fn anchor(&self) -> Anchor {
        Anchor::Attachment(self.clone())
    }

    /// Puts `program` in the place of the one that runs there, in one step: no packet sees neither.
    ///
    /// # Errors
    /// ENODEV when the device is gone, EEXIST when `program` is on this hook already, EINVAL for another type.
    pub fn replace(&self, program: &Program) -> Result<()> {
        let Inner { target, hook, slot, .. } = &*self.0;
        let op = replace_word(*hook);
        let about = |e: Error| e.operation(op).about(target.subject(*hook));
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
        let Inner { target, hook, slot, .. } = &*self.0;
        let about = |e: Error| e.operation(detach_word(*hook)).about(target.subject(*hook));
        match slot {
            Slot::Link { fd, .. } => match sys::link_detach(fd.as_fd()) {
                Ok(()) | Err(Errno::ENODEV | Errno::ENOLINK) => Ok(()),
                Err(errno) => Err(about(super::program::refusal("", errno))),
            },
            Slot::Filter(filter) => clsact::detach(target, *hook, filter).map_err(about),
        }
    }

    /// # Errors
    /// EPERM without CAP_BPF.
    pub fn info(&self) -> Result<AttachmentInfo> {
        let Inner { target, hook, slot, .. } = &*self.0;
        let mut info = AttachmentInfo {
            hook: *hook,
            link: target.name.clone(),
            index: target.index,
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
                    Error::errno("attachment.info", e).subject(target.subject(*hook))
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
            }
        }
        Ok(info)
    }

    /// Keeps the link when this process ends: [`Attachment::pinned`] takes it over. A clsact filter stays anyway, and
    /// is taken over with [`Attachment::filter`].
    ///
    /// # Errors
    /// EEXIST when the path is taken; EPERM off a bpffs; EOPNOTSUPP for clsact.
    pub fn pin(&self, path: &Path) -> Result<()> {
        match &self.0.slot {
            Slot::Link { fd, .. } => super::map::pin(fd.as_fd(), "attachment.pin", path),
            Slot::Filter(_) => Err(Error::new(
                "attachment.pin",
                "EOPNOTSUPP",
                "a clsact filter is not pinned: it stays until it is detached",
            )
            .subject(self.0.target.subject(self.0.hook))),
        }
    }

    /// The link's descriptor number for the length of a system call.
    fn raw_link(&self) -> Option<u32> {
        match &self.0.slot {
            Slot::Link { fd, .. } => Some(fd.as_raw_fd() as u32),
            Slot::Filter(_) => None,
        }
    }

    fn clsact(&self) -> Option<&clsact::Filter> {
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
