//! What runs on a hook, in the order it runs.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use nix::errno::Errno;

use super::{Hook, Order, Target, XdpMode, clsact};
use crate::kernel::bpf::{Program, inventory, sys};
use crate::kernel::netlink::Netlink;
use crate::{Error, Result};

/// The programs of a hook in the order they run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Counts changes of a tcx or netkit hook; 0 where the kernel does not count.
    pub revision: u64,
    pub programs: Vec<QueriedProgram>,
}

/// One program on a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueriedProgram {
    pub id: u32,
    pub name: String,
    /// 16 hexadecimal digits.
    pub tag: String,
    /// `None` when it is attached without a bpf link (clsact, old tools).
    pub link_id: Option<u32>,
    /// clsact only.
    pub priority: Option<u16>,
    pub handle: Option<u32>,
    /// xdp only.
    pub mode: Option<XdpMode>,
}

impl QueriedProgram {
    /// Fills in what the kernel says of the program; one that has just gone keeps only its id.
    fn of(id: u32) -> Self {
        let (name, tag) = match Program::by_id(id) {
            Ok(program) => (program.name().to_owned(), program.tag()),
            Err(_) => Default::default(),
        };
        QueriedProgram { id, name, tag, ..QueriedProgram::default() }
    }
}

/// # Errors
/// ENODEV when the device is gone, EOPNOTSUPP when the kernel lacks the hook, ENXIO for netkit on another device.
pub fn query(target: &Target, hook: Hook) -> Result<Query> {
    let op = match hook.family() {
        "tcx" => "tcx.query",
        "netkit" => "netkit.query",
        "xdp" => "xdp.query",
        _ => "tc.query",
    };
    let about = |e: Error| e.operation(op).about(target.subject(hook));
    match hook {
        Hook::ClsactIngress | Hook::ClsactEgress => {
            let filters = clsact::dump(target, hook).map_err(about)?;
            let programs = filters
                .into_iter()
                .map(|f| QueriedProgram {
                    priority: Some(f.priority),
                    handle: Some(f.handle),
                    ..QueriedProgram::of(f.program_id)
                })
                .collect();
            Ok(Query { revision: 0, programs })
        }
        Hook::Xdp => {
            let programs = xdp(target)
                .map_err(about)?
                .map(|(id, mode)| QueriedProgram {
                    link_id: xdp_link(target, id),
                    mode: Some(mode),
                    ..QueriedProgram::of(id)
                })
                .into_iter()
                .collect();
            Ok(Query { revision: 0, programs })
        }
        _ => mprog(target, hook).map_err(about),
    }
}

fn mprog(target: &Target, hook: Hook) -> Result<Query> {
    let attach_type = hook.row().attach_type;
    let state = target.netns.within(|| Ok(sys::prog_query(target.index, attach_type)))?;
    let state = state.map_err(|errno| refused(target, hook, errno))?;
    let programs = state.slots.iter().map(|(program, link)| QueriedProgram {
        link_id: (*link != 0).then_some(*link),
        ..QueriedProgram::of(*program)
    });
    Ok(Query { revision: state.revision, programs: programs.collect() })
}

fn refused(target: &Target, hook: Hook, errno: Errno) -> Error {
    let feature = crate::kernel::bpf::probe::has(hook.row().feature);
    match (errno, feature) {
        (Errno::ENODEV, _) => {
            Error::new("", "ENODEV", format!("the device {} is gone", target.name))
                .hint(crate::kernel::link::GONE)
        }
        (Errno::ENXIO, _) => {
            Error::new("", "ENXIO", format!("{} is not a netkit device", target.name))
        }
        (Errno::EACCES, _) => {
            Error::new("", "EACCES", "this is the peer end").hint("ask the primary end")
        }
        (Errno::EINVAL, Ok(feature)) if !feature.available => {
            Error::new("", "EOPNOTSUPP", feature.reason)
        }
        (errno, _) => crate::kernel::bpf::program::refusal("", errno),
    }
}

/// The id and mode of the device's xdp program (`IFLA_XDP`).
pub(super) fn xdp(target: &Target) -> Result<Option<(u32, XdpMode)>> {
    let mut message = LinkMessage::default();
    message.header.index = target.index;
    let request = RouteNetlinkMessage::GetLink(message);
    let answer = Netlink::open(&target.netns)?.answer(request);
    let reply = answer.map_err(|e| match e.errno {
        Errno::ENODEV => Error::new("", "ENODEV", format!("the device {} is gone", target.name))
            .hint(crate::kernel::link::GONE),
        _ => e.into_error(""),
    })?;
    let attributes = match reply.parse() {
        Some(RouteNetlinkMessage::NewLink(link)) => link.attributes,
        _ => Vec::new(),
    };
    let xdp = attributes.into_iter().find_map(|a| match a {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    let xdp = xdp.unwrap_or_default();
    let attached = xdp.iter().find_map(|a| match a {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpMode::Offload),
        _ => None,
    });
    // With several modes at once there is no plain id; the driver's runs first.
    let id = xdp.iter().find_map(|a| match a {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    });
    Ok(id.filter(|id| *id != 0).map(|id| (id, attached.unwrap_or(XdpMode::Native))))
}

/// The bpf link that holds `program` here. Links tell their device's index but not its namespace, so the answer is
/// given only when one link fits.
fn xdp_link(target: &Target, program: u32) -> Option<u32> {
    let links = inventory::links().ok()?;
    let mut fitting = links.into_iter().filter(|link| {
        link.kind == sys::LINK_XDP && link.program_id == program && link.index == Some(target.index)
    });
    match (fitting.next(), fitting.next()) {
        (Some(link), None) => Some(link.id),
        _ => None,
    }
}

/// Where a new clsact filter goes among the priorities in use (ascending).
///
/// # Errors
/// ENOENT for an anchor that is not there, ERANGE when no number is left at that place.
pub(super) fn clsact_priority(used: &[clsact::Dumped], order: &Order) -> Result<u16> {
    /// Room left between neighbours, and the first one's place.
    const STEP: u32 = 256;
    const START: u32 = 0x8000;
    let full = || {
        Error::new("", "ERANGE", "no clsact priority is left at that place")
            .hint("give priority= and let it be lower to run earlier")
    };
    let lowest = used.first().map(|f| u32::from(f.priority));
    let highest = used.last().map(|f| u32::from(f.priority));
    let anchor = order.before.as_ref().or(order.after.as_ref());
    let (low, high) = if let Some(priority) = order.priority {
        return Ok(priority);
    } else if let Some(anchor) = anchor {
        let at = used.iter().position(|f| f.is(anchor)).ok_or_else(|| {
            Error::new("", "ENOENT", format!("{} is not on this hook", anchor.describe()))
        })?;
        let here = u32::from(used[at].priority);
        match order.before.is_some() {
            true => (used[..at].last().map_or(0, |f| f.priority.into()), here),
            false => (here, used.get(at + 1).map_or(65536, |f| f.priority.into())),
        }
    } else if order.first {
        match lowest {
            Some(lowest) => (lowest.saturating_sub(2 * STEP), lowest),
            None => return Ok(START as u16),
        }
    } else {
        match highest {
            Some(highest) => (highest, 65536.min(highest + 2 * STEP)),
            None => return Ok(START as u16),
        }
    };
    match high.saturating_sub(low) {
        0 | 1 => Err(full()),
        room => Ok((low + room / 2) as u16),
    }
}
