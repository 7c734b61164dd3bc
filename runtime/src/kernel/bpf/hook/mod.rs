//! Hooks: where on a link a program runs. One shape for all of them: attach, query, replace, detach.
//!
//! tcx, netkit and xdp are bpf links that differ in data: the rows of `Hook::row`. Legacy clsact is a filter made over
//! netlink (`clsact`); order words become its priorities. Link indexes resolve in the calling thread's namespace, so
//! every call runs inside the target's.

mod attachment;
mod clsact;
mod order;
mod query;
mod refusal;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub use attachment::{Attachment, AttachmentInfo};
pub use clsact::{
    drop_idle as drop_idle_clsact, has_filters, is_free as clsact_is_free, own as own_clsact,
};
pub use order::{Anchor, Order, XdpMode};
pub use query::{QueriedProgram, Query, query};

use attachment::Slot;

use super::program::{Program, ProgramKind};
use super::sys;
use crate::kernel::netns::NetnsFd;
use crate::{Error, Result};

/// A place on a link where programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

    /// Whether its programs run in legacy filters.
    pub fn is_clsact(self) -> bool {
        matches!(self, Hook::ClsactIngress | Hook::ClsactEgress)
    }
}

/// A direction of [`auto_hook`].
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
        subject(&self.name, hook)
    }
}

fn subject(link: &str, hook: Hook) -> String {
    match hook.side() {
        "" => link.to_owned(),
        side => format!("{link}, {side}"),
    }
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
    let order = &order.resolved(target, hook).map_err(about)?;
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

/// tcx where the kernel has it, else clsact.
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
