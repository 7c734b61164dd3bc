//! Why a link could not be made, found out after the kernel refused.

use nix::errno::Errno;

use super::{Kind, NewLink, info, info_by_name, refusal};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::release;
use crate::{Error, Result};

/// Options younger than their kind. Kernels before these ignore them silently (nla_parse_deprecated), so they are read back.
const YOUNGER: &[(&str, &str, (u32, u32))] = &[
    ("netkit", "scrub", (6, 13)),
    ("netkit", "peer_scrub", (6, 13)),
    ("netkit", "headroom", (6, 14)),
    ("netkit", "tailroom", (6, 14)),
];

/// The kernel's refusal of `link`, requested in the namespace of `sender`, in the user's terms.
pub fn explain(link: &NewLink<'_>, sender: &Netlink, error: NetlinkError) -> Error {
    let unknown = error.ext_ack.as_deref().is_some_and(|t| t.contains("Unknown device type"));
    if let Some(known) = refusal::of_creation(link, sender, &error) {
        return known;
    }
    match error.errno {
        Errno::EOPNOTSUPP if unknown => {
            Error::errno("link", Errno::EOPNOTSUPP).because(lacking(link.kind))
        }
        Errno::EOPNOTSUPP if !link.values.is_empty() => {
            let words: Vec<_> = link.values.iter().map(|(word, _)| word.as_str()).collect();
            error.into_error("link").hint(format!(
                "this kernel has {} links, but was built without one of: {}",
                link.kind.name,
                words.join(", ")
            ))
        }
        Errno::EEXIST => taken(link, error),
        Errno::EPERM => error.into_error("link").hint("making links needs CAP_NET_ADMIN"),
        Errno::ENODEV if link.link.is_some() => {
            error.into_error("link").because("the link it stands on is not in this namespace")
        }
        _ => error.into_error("link"),
    }
}

/// "netkit needs Linux 6.7 or newer; this is 6.1.0"
pub fn lacking(kind: &Kind) -> String {
    let here = release::name();
    match kind.since {
        Some(since) if release::version().is_some_and(|v| v < since) => {
            format!("{} needs Linux {}.{} or newer; this is {here}", kind.name, since.0, since.1)
        }
        _ => format!(
            "this kernel ({here}) was built without {} ({}), or its module is not installed",
            kind.name, kind.config
        ),
    }
}

/// Which name is taken, and where.
fn taken(link: &NewLink<'_>, error: NetlinkError) -> Error {
    let there = |netlink: &Netlink, name: &str| info_by_name(netlink, name).is_ok();
    let mut ends = vec![(link.netlink, &link.end.name)];
    ends.extend(link.peer.as_ref().map(|(netlink, end)| (*netlink, &end.name)));
    let error = error.into_error("link");
    if let Some((netlink, peer)) = &link.peer
        && netlink.cookie() == link.netlink.cookie()
        && peer.name == link.end.name
    {
        return error
            .because(format!("both ends are to have that name in {}", netlink.label()))
            .hint("give the other end its own: peer = {name = ...}");
    }
    match ends.into_iter().find(|(netlink, name)| there(netlink, name)) {
        Some((netlink, name)) => error
            .because(format!("a link of that name exists already in {}", netlink.label()))
            .hint(format!("choose another name; ns:link({name:?}) is the one that is there"))
            .subject(name.as_str()),
        // Another tunnel has the same end points.
        None => error,
    }
}

/// Refuses a link whose options the kernel ignored.
pub fn check_ignored(link: &NewLink<'_>, index: u32) -> Result<()> {
    let asked = |word: &str| link.values.iter().any(|(w, _)| w == word);
    let young = || YOUNGER.iter().filter(|(kind, word, _)| *kind == link.kind.name && asked(word));
    if young().next().is_none() {
        return Ok(());
    }
    let data = info(link.netlink, index)?.data;
    match young().find(|(_, word, _)| !data.iter().any(|(w, _)| w == word)) {
        None => Ok(()),
        Some((kind, word, (major, minor))) => {
            let text = format!(
                "{kind}'s {word} needs Linux {major}.{minor} or newer; this is {}",
                release::name()
            );
            Err(Error::new("link", "EOPNOTSUPP", text))
        }
    }
}
