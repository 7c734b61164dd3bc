//! The kinds of things an instance can own, each plain data with its undo. Only what is in here is ever deleted.

use std::fmt;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::Result;
use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::{address, sysctl};

/// Something created or changed, and where.
#[derive(Clone)]
pub enum Owned {
    Netns(Netns),
    /// A link and, if it is one end of a pair, with it the other.
    Link {
        netns: Netns,
        index: u32,
        name: String,
    },
    Address {
        netns: Netns,
        index: u32,
        link: String,
        address: IpNetwork,
    },
    /// A kernel setting: written back if it still has the value we gave it.
    Sysctl {
        netns: Netns,
        key: String,
        before: String,
        after: String,
    },
    /// Attributes of a link that is not ours.
    LinkAttributes {
        netns: Netns,
        index: u32,
        name: String,
        before: Box<link::Undo>,
    },
    /// A program on a link; it goes with its link. (Taking many off in bulk would gain nothing: the kernel waits for RCU
    /// once for each hook with programs, 12 ms, even when it deletes the link: `tcx_uninstall`, kernel/bpf/tcx.c.)
    Attachment {
        netns: Netns,
        index: u32,
        name: String,
        undo: Undo,
    },
    /// Anything else: a sentence's subject, and a closure that undoes it.
    Other {
        netns: Option<Netns>,
        kind: &'static str,
        name: String,
        undo: Undo,
    },
}

/// How something is undone that has no case of its own. Called at most once, maybe from another thread.
pub type Undo = Arc<dyn Fn() -> Result<()> + Send + Sync>;

impl Owned {
    /// The namespace it is in; none for namespaces themselves and what is in none.
    pub fn netns(&self) -> Option<&Netns> {
        match self {
            Owned::Netns(_) => None,
            Owned::Link { netns, .. }
            | Owned::Address { netns, .. }
            | Owned::Sysctl { netns, .. }
            | Owned::LinkAttributes { netns, .. }
            | Owned::Attachment { netns, .. } => Some(netns),
            Owned::Other { netns, .. } => netns.as_ref(),
        }
    }

    /// "link": what teardown counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Owned::Netns(_) => "netns",
            Owned::Link { .. } => "link",
            Owned::Address { .. } => "address",
            Owned::Sysctl { .. } => "sysctl",
            Owned::LinkAttributes { .. } => "link setting",
            Owned::Attachment { .. } => "attachment",
            Owned::Other { kind, .. } => kind,
        }
    }

    /// Undoes it by itself. Gone already is done. (Links and namespaces are undone in bulk by the ledger.)
    pub fn undo(&self) -> Result<()> {
        match self {
            Owned::Netns(netns) => gone_is_done(netns.delete()),
            Owned::Link { netns, index, .. } => {
                gone_is_done(link::delete(&Netlink::open(&netns.fd)?, *index))
            }
            Owned::Address { netns, index, address, .. } => {
                gone_is_done(address::delete(&Netlink::open(&netns.fd)?, *index, *address))
            }
            Owned::Sysctl { netns, key, before, after } => match sysctl::read(&netns.fd, key) {
                Ok(now) if now == *after => sysctl::write(&netns.fd, key, before).map(drop),
                Ok(now) => {
                    tracing::warn!("{self} left at \"{now}\": it was changed by someone else");
                    Ok(())
                }
                Err(error) => gone_is_done(Err(error)),
            },
            Owned::LinkAttributes { netns, before, .. } => {
                gone_is_done(before.restore(&Netlink::open(&netns.fd)?))
            }
            Owned::Attachment { undo, .. } | Owned::Other { undo, .. } => gone_is_done(undo()),
        }
    }
}

fn gone_is_done(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error)
            if ["ENODEV", "ENOENT", "ESRCH", "EADDRNOTAVAIL", "ENOLINK"]
                .contains(&error.code()) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// `link eth0 in netns client`
impl fmt::Display for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owned::Netns(netns) => return write!(f, "netns {}", netns.name),
            Owned::Link { name, .. } => write!(f, "link {name}")?,
            Owned::Address { link, address, .. } => write!(f, "address {address} on {link}")?,
            Owned::Sysctl { key, .. } => write!(f, "sysctl {key}")?,
            Owned::LinkAttributes { name, .. } => write!(f, "settings of link {name}")?,
            Owned::Attachment { name, .. } => write!(f, "attachment {name}")?,
            Owned::Other { kind, name, .. } => write!(f, "{kind} {name}")?,
        }
        match self.netns() {
            Some(netns) if !netns.name.is_empty() => write!(f, " in netns {}", netns.name),
            _ => Ok(()),
        }
    }
}
