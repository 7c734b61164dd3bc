//! Why the kernel refused an attachment, in words: looked up after it failed, never before.

use nix::errno::Errno;

use super::{Hook, Order, Target, XdpMode, query};
use crate::error::errno_name;
use crate::kernel::bpf::{Program, probe, program};
use crate::{Error, Result};

/// The error for `errno`, with what the hook looks like now.
pub(super) fn explain(
    target: &Target,
    hook: Hook,
    program: &Program,
    order: &Order,
    errno: Errno,
) -> Error {
    let row = hook.row();
    let (code, message, hint) = match errno {
        Errno::ESTALE => (errno, stale(target, hook, order), None),
        Errno::EBUSY | Errno::EEXIST if hook == Hook::Xdp => (
            Errno::EBUSY,
            occupied(target),
            Some("detach it first, or replace it: a:replace(prog)"),
        ),
        Errno::EEXIST => {
            let message = format!("program \"{}\" is already attached here", program.name());
            (errno, message, Some("load the object again to attach it twice"))
        }
        Errno::ENOENT => (errno, absent_anchor(order), None),
        Errno::ERANGE if hook == Hook::Xdp => (
            errno,
            "the device's MTU is too large to run xdp natively".into(),
            Some("give the program SEC(\"xdp.frags\"), a smaller MTU, or mode = \"generic\""),
        ),
        Errno::ERANGE => (errno, "the hook is full: 63 programs at most".into(), None),
        Errno::EACCES if row.family == "netkit" => (
            errno,
            "this is the peer end".into(),
            Some("attach through the primary end: netkit.attach(primary, \"peer\", prog)"),
        ),
        Errno::ENXIO => (errno, format!("{} is not a netkit device", target.name), None),
        Errno::ENODEV | Errno::ENOLINK => (
            Errno::ENODEV,
            format!("the device {} is gone", target.name),
            Some(crate::kernel::link::GONE),
        ),
        Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS => {
            return unsupported(target, hook, order, errno);
        }
        _ => return program::refusal(row.attach, errno).subject(target.subject(hook)),
    };
    let error = Error::new(row.attach, errno_name(code), message).subject(target.subject(hook));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn stale(target: &Target, hook: Hook, order: &Order) -> String {
    let expected = order.expected_revision.unwrap_or(0);
    match query(target, hook) {
        Ok(now) => format!(
            "the hook has changed: revision {expected} was expected, it is {}",
            now.revision
        ),
        Err(_) => format!("the hook has changed: revision {expected} was expected"),
    }
}

fn absent_anchor(order: &Order) -> String {
    match order.before.as_ref().or(order.after.as_ref()) {
        Some(anchor) => format!("{} is not on this hook", anchor.describe()),
        None => "no such program or link".into(),
    }
}

/// What holds the xdp hook.
fn occupied(target: &Target) -> String {
    let holder = query::xdp(target).ok().flatten();
    match holder {
        Some((id, mode)) => {
            let name = Program::by_id(id).map(|p| format!("\"{}\"", p.name()));
            let name = name.unwrap_or_else(|_| "a program".into());
            format!("{name} (id {id}, {}) holds the hook: one xdp program a device", mode.name())
        }
        None => "another program holds the hook: one xdp program a device".into(),
    }
}

/// EINVAL and EOPNOTSUPP mean many things: a missing kernel feature is tried for first.
fn unsupported(target: &Target, hook: Hook, order: &Order, errno: Errno) -> Error {
    let row = hook.row();
    let subject = target.subject(hook);
    // XDP has no errno of its own for a device that is not there (`bpf_xdp_link_attach`).
    if hook == Hook::Xdp
        && let Err(gone) = query::xdp(target)
        && gone.is("ENODEV")
    {
        return gone.operation(row.attach).about(subject);
    }
    let missing: Result<_> = probe::has(row.feature);
    if let Ok(feature) = missing
        && !feature.available
    {
        let error = Error::new(row.attach, "EOPNOTSUPP", feature.reason).subject(subject);
        return match row.family {
            "tcx" => error.hint("bpf.attach uses clsact there"),
            "netkit" => error.hint("use a veth pair and tcx there"),
            _ => error,
        };
    }
    let error = program::refusal(row.attach, errno).subject(subject);
    match (hook, order.mode) {
        (Hook::Xdp, XdpMode::Offload) => error.because("the device cannot run xdp on its card"),
        (Hook::Xdp, XdpMode::Native) => error
            .because("the driver cannot run xdp natively here")
            .hint("mode = \"generic\" runs on any device; native wants a supported driver and a small enough MTU"),
        (Hook::NetkitPrimary | Hook::NetkitPeer, _) => {
            error.because(format!("{} does not take this program", target.name))
        }
        _ => error,
    }
}
