//! Legacy clsact: a direct-action filter (cls_bpf) over rtnetlink, on the qdisc that carries no queue.
//!
//! For kernels before tcx. Returning -1 (`TC_ACT_UNSPEC`) goes on to the filter of the next priority, as tcx goes on to
//! the next program. (`tc-bpf(8)`, `net/sched/cls_bpf.c`, `net/sched/sch_ingress.c`.)

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, OnceLock};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::{Anchor, Hook, Order, Target, query};
use crate::kernel::bpf::Program;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::NetnsFd;
use crate::{Error, Result};

/// A filter's place: what names it in its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel::bpf) struct Filter {
    /// Lower runs earlier.
    pub priority: u16,
    pub handle: u32,
}

/// A filter as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dumped {
    pub priority: u16,
    pub handle: u32,
    pub program_id: u32,
}

impl Dumped {
    pub fn is(&self, anchor: &Anchor) -> bool {
        match anchor {
            Anchor::Attachment(attachment) => attachment
                .clsact()
                .is_some_and(|f| f.priority == self.priority && f.handle == self.handle),
            Anchor::Program(program) => program.id() == self.program_id,
            Anchor::ProgramId(id) => *id == self.program_id,
        }
    }
}

/// `linux/if_ether.h`
const ETH_P_ALL: u16 = 3;

/// Adds a filter, and the qdisc if there is none.
pub(super) fn attach(
    target: &Target,
    hook: Hook,
    program: &Program,
    order: &Order,
) -> Result<Filter> {
    ensure_qdisc(target)?;
    let handle = order.handle.unwrap_or(1);
    // Somebody else may take the priority between the look and the request.
    for _ in 0..8 {
        let used = dump(target, hook)?;
        let filter = Filter { priority: query::clsact_priority(&used, order)?, handle };
        let request = filter_message(target, hook, &filter, Some(program));
        let made =
            send(target, RouteNetlinkMessage::NewTrafficFilter(request), NLM_F_CREATE | NLM_F_EXCL);
        match made {
            Ok(()) => return Ok(filter),
            Err(e) if e.is("EEXIST") && order.priority.is_none() => {}
            Err(e) if e.is("EEXIST") => {
                return Err(Error::new(
                    "",
                    "EEXIST",
                    format!("priority {} handle {handle} is taken", filter.priority),
                ));
            }
            Err(e) => {
                drop_idle_qdisc(target);
                return Err(e);
            }
        }
    }
    Err(Error::new("", "EBUSY", "the filters of this hook change all the time"))
}

/// Puts another program into the filter; the kernel swaps a pointer (`cls_bpf_change`).
pub(super) fn replace(
    target: &Target,
    hook: Hook,
    filter: &Filter,
    program: &Program,
) -> Result<()> {
    let request = filter_message(target, hook, filter, Some(program));
    send(target, RouteNetlinkMessage::NewTrafficFilter(request), NLM_F_REPLACE).map_err(|e| match e
        .code()
    {
        "ENOENT" | "EINVAL" if !exists(target, hook, filter) => {
            Error::new("", "ENOENT", "the filter is gone")
        }
        _ => e,
    })
}

/// Deletes the filter, and the qdisc if this process made it and nothing is left on it.
pub(super) fn detach(target: &Target, hook: Hook, filter: &Filter) -> Result<()> {
    let request = filter_message(target, hook, filter, None);
    match send(target, RouteNetlinkMessage::DelTrafficFilter(request), 0) {
        Ok(()) => {}
        Err(e) if e.is("ENODEV") || !exists(target, hook, filter) => {}
        Err(e) => return Err(e),
    }
    drop_idle_qdisc(target);
    Ok(())
}

pub(super) fn exists(target: &Target, hook: Hook, filter: &Filter) -> bool {
    dump(target, hook).is_ok_and(|all| {
        all.iter().any(|f| f.priority == filter.priority && f.handle == filter.handle)
    })
}

/// The eBPF filters of a direction, in the order they run. A link without the qdisc has none.
pub(super) fn dump(target: &Target, hook: Hook) -> Result<Vec<Dumped>> {
    let mut request = TcMessage::with_index(target.index as i32);
    request.header.parent = parent(hook);
    let request = RouteNetlinkMessage::GetTrafficFilter(request);
    let replies = match Netlink::open(&target.netns)?.dump_parsed(&request) {
        Ok(replies) => replies,
        // No qdisc there.
        Err(e) if matches!(e.errno, Errno::EINVAL | Errno::ENOENT) => return Ok(Vec::new()),
        Err(e) => return Err(gone(target, e.into_error(""))),
    };
    let mut found: Vec<Dumped> = replies
        .iter()
        .filter_map(|reply| match reply {
            RouteNetlinkMessage::NewTrafficFilter(message) => dumped(message),
            _ => None,
        })
        .collect();
    found.sort_by_key(|f| f.priority);
    Ok(found)
}

fn dumped(message: &TcMessage) -> Option<Dumped> {
    let options = message.attributes.iter().find_map(|a| match a {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let program_id = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })?;
    let handle = message.header.handle;
    Some(Dumped {
        priority: (message.header.info >> 16) as u16,
        handle: u32::from(handle.major) << 16 | u32::from(handle.minor),
        program_id,
    })
}

fn parent(hook: Hook) -> TcHandle {
    TcHandle { major: u16::MAX, minor: hook.row().attach_type as u16 }
}

fn filter_message(
    target: &Target,
    hook: Hook,
    filter: &Filter,
    program: Option<&Program>,
) -> TcMessage {
    let mut message = TcMessage::with_index(target.index as i32);
    message.header.parent = parent(hook);
    message.header.handle = TcHandle::from(filter.handle);
    message.header.info = u32::from(filter.priority) << 16 | u32::from(ETH_P_ALL.to_be());
    message.attributes.push(TcAttribute::Kind("bpf".into()));
    if let Some(program) = program {
        let options = [
            TcFilterBpfOption::ProgFd(program.as_fd().as_raw_fd() as u32),
            TcFilterBpfOption::ProgName(program.name().to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        message.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).into()));
    }
    message
}

fn send(target: &Target, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
    Netlink::open(&target.netns)?
        .request(message, flags)
        .map_err(|e| gone(target, e.into_error("")))
}

fn gone(target: &Target, error: Error) -> Error {
    match error.code() {
        "ENODEV" => error
            .because(format!("the device {} is gone", target.name))
            .hint(crate::kernel::link::GONE),
        "EPERM" => error.hint("this needs CAP_NET_ADMIN in the namespace of the link"),
        _ => error,
    }
}

/// The qdiscs that this process made: namespace (device, inode) and link.
type Made = HashSet<(u64, u64, u32)>;

fn made() -> MutexGuard<'static, Made> {
    static MADE: OnceLock<Mutex<Made>> = OnceLock::new();
    MADE.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn key(target: &Target) -> (u64, u64, u32) {
    place(&target.netns, target.index)
}

fn place(netns: &NetnsFd, index: u32) -> (u64, u64, u32) {
    let stat = fstat(netns.as_fd()).ok();
    stat.map_or((0, 0, index), |s| (s.st_dev, s.st_ino, index))
}

/// From now on the qdisc of that link is removed with the last filter.
pub fn own(netns: &NetnsFd, index: u32) {
    made().insert(place(netns, index));
}

fn qdisc_message(target: &Target) -> TcMessage {
    let mut message = TcMessage::with_index(target.index as i32);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    message
}

fn ensure_qdisc(target: &Target) -> Result<()> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc_message(target));
    match send(target, message, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => {
            made().insert(key(target));
            Ok(())
        }
        Err(e) if e.is("EEXIST") => Ok(()),
        Err(e) if e.is("ENOENT") => Err(e
            .because("this kernel has no clsact")
            .hint("it needs CONFIG_NET_SCH_INGRESS (module sch_ingress) and CONFIG_NET_CLS_BPF")),
        Err(e) => Err(e),
    }
}

/// Removes the qdisc when we made it and neither direction has a filter.
fn drop_idle_qdisc(target: &Target) {
    if made().contains(&key(target)) {
        drop_idle(target);
    }
}

/// Removes the qdisc, whoever made it, when neither direction has a filter.
pub fn drop_idle(target: &Target) {
    let busy = || -> Result<bool> { has_filters(&Netlink::open(&target.netns)?, target.index) };
    if busy().unwrap_or(true) {
        return;
    }
    made().remove(&key(target));
    let message = RouteNetlinkMessage::DelQueueDiscipline(qdisc_message(target));
    if let Err(error) = send(target, message, 0) {
        tracing::debug!(%error, link = target.name, "the clsact qdisc stays");
    }
}

/// Whether a link's clsact has filters of any kind.
///
/// # Errors
/// What the kernel refuses to list.
pub fn has_filters(netlink: &Netlink, index: u32) -> Result<bool> {
    for hook in [Hook::ClsactIngress, Hook::ClsactEgress] {
        let mut request = TcMessage::with_index(index as i32);
        request.header.parent = parent(hook);
        match netlink.dump(&RouteNetlinkMessage::GetTrafficFilter(request)) {
            Ok(found) if found.is_empty() => {}
            Ok(_) => return Ok(true),
            // No qdisc there.
            Err(e) if matches!(e.errno, Errno::EINVAL | Errno::ENOENT) => {}
            Err(e) => return Err(e.into_error("")),
        }
    }
    Ok(false)
}

/// Whether there is no qdisc yet, or it is one that this process made: then it is ours to remove.
///
/// # Errors
/// What the kernel refuses to list.
pub fn is_free(netlink: &Netlink, target: &Target) -> Result<bool> {
    let there = crate::kernel::qdisc::list(netlink, Some(target.index))?;
    let taken = there.iter().any(|q| q.kind == "clsact" || q.kind == "ingress");
    Ok(!taken || made().contains(&key(target)))
}
