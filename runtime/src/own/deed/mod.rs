//! How each owned thing is put in place, put in the place of another, and undone.
//!
//! Three steps, so that the journal knows enough at every moment: `prepare` looks at what is there and writes nothing,
//! then the journal is written, then `put` acts.

mod followers;
mod prepare;
mod put;
mod undo;

use std::path::Path;

pub use put::keep_pinned;

use crate::Result;
use crate::kernel::bpf::Map;
use crate::kernel::bpf::hook::Attachment;
use crate::kernel::link::Lost;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::{neigh, route, sysctl};
use crate::own::owned::{AttachmentPlace, Owned, Trace};

/// What the steps need to know besides the thing itself.
pub struct Place<'a> {
    /// A socket in its namespace.
    pub netlink: &'a Netlink,
    /// This instance made the namespace, or the link it is on: what was there before is the kernel's own.
    pub ours: bool,
    /// What somebody else took away is put back: a commit does, a script's own call is told.
    pub repair: bool,
    /// A route of the kernel's own stands there, which is about to go: it is replaced.
    pub over: bool,
}

impl Owned {
    /// Asks for the same: nothing is to be done when the script says it again.
    pub fn same(&self, other: &Owned) -> bool {
        match (self, other) {
            (Owned::Link { end, .. }, Owned::Link { end: other, .. }) => end == other,
            (Owned::LinkSetting { wanted, .. }, Owned::LinkSetting { wanted: other, .. }) => {
                wanted == other
            }
            (Owned::LinkName { after, .. }, Owned::LinkName { after: other, .. }) => after == other,
            (Owned::Sysctl { after, .. }, Owned::Sysctl { after: other, .. }) => {
                // The kernel reads "1\t2" back where "1 2" was written.
                after.split_whitespace().eq(other.split_whitespace())
            }
            (Owned::Route { route, .. }, Owned::Route { route: other, .. }) => route == other,
            (Owned::Rule { rule, .. }, Owned::Rule { rule: other, .. }) => rule == other,
            (Owned::Neigh { neigh, .. }, Owned::Neigh { neigh: other, .. }) => neigh == other,
            (Owned::Qdisc { qdisc, .. }, Owned::Qdisc { qdisc: other, .. }) => qdisc == other,
            (
                Owned::Attachment { mounted: Some(a), .. },
                Owned::Attachment { mounted: Some(b), .. },
            ) => a.program.id() == b.program.id() && a.order.same(&b.order),
            (Owned::Attachment { .. }, Owned::Attachment { .. }) => false,
            (Owned::Pin { map, .. }, Owned::Pin { map: other, .. }) => {
                map.is_some() && map.as_ref().map(Map::id) == other.as_ref().map(Map::id)
            }
            _ => self.key() == other.key(),
        }
    }

    /// Whether saying it again in one script changes it: settings do, objects exist already.
    pub fn is_setting(&self) -> bool {
        matches!(self, Owned::LinkSetting { .. } | Owned::Sysctl { .. } | Owned::Qdisc { .. })
    }

    /// This on top of what the same script said before.
    #[must_use]
    pub fn on_top_of(self, before: &Owned) -> Owned {
        match (self, before) {
            (
                Owned::LinkSetting { netns, index, link, wanted, before },
                Owned::LinkSetting { wanted: first, .. },
            ) => {
                let wanted = Box::new(first.as_ref().clone().overlaid(&wanted));
                Owned::LinkSetting { netns, index, link, wanted, before }
            }
            (later, _) => later,
        }
    }

    /// The attachment of an entry that another process, or nobody's handle, has made, if it is still there.
    pub fn find_mounted(&self) -> Option<Attachment> {
        match self {
            Owned::Attachment { place, pin, filter, trace, .. } => {
                find_mounted(place, pin.as_deref(), *filter, trace)
            }
            _ => None,
        }
    }

    /// Whether somebody else has taken it off its hook, or its pin away, since this process put it there. What a script says
    /// again is then put there again.
    pub fn is_severed(&self) -> bool {
        let unpinned = |pin: Option<&Path>| pin.is_some_and(|pin| !pin.exists());
        match self {
            Owned::Attachment { mounted: Some(mounted), pin, .. } => {
                let there = mounted.attached.as_ref().map(Attachment::info);
                there.is_some_and(|there| there.is_ok_and(|info| info.index == 0))
                    || unpinned(pin.as_deref())
            }
            Owned::Pin { map: Some(_), path, .. } => unpinned(Some(path)),
            _ => false,
        }
    }

    /// What was taken away with it.
    pub fn lost(&self) -> Option<&Lost> {
        match self {
            Owned::DeletedAddress { lost, .. } | Owned::Sysctl { lost, .. } => Some(lost),
            Owned::LinkSetting { before, .. } => Some(before.lost()),
            _ => None,
        }
    }

    /// What was taken away with it, of all that is there and of what this instance had put there.
    pub fn lost_mut(&mut self) -> Option<&mut Lost> {
        match self {
            Owned::DeletedAddress { lost, .. } | Owned::Sysctl { lost, .. } => Some(lost),
            Owned::LinkSetting { before, .. } => Some(before.lost_mut()),
            _ => None,
        }
    }
}

/// Of routes and neighbours of one namespace those that are not there.
///
/// # Errors
/// What the kernel refuses to list.
pub fn missing<'a>(
    netlink: &Netlink,
    wanted: impl Iterator<Item = &'a Owned>,
) -> Result<Vec<&'a Owned>> {
    let all = route::Filter { table: Some(route::ALL_TABLES), ..route::Filter::default() };
    let routes = route::list(netlink, &all)?;
    let neighs = neigh::list(netlink, None)?;
    let there = |owned: &Owned| match owned {
        Owned::Route { route, .. } => routes.iter().any(|there| route.is(there)),
        Owned::Neigh { neigh, .. } => {
            neighs.iter().any(|there| (there.dst, there.dev) == (neigh.dst, neigh.dev))
        }
        _ => true,
    };
    Ok(wanted.filter(|owned| !there(owned)).collect())
}

/// While `delete` takes addresses from a link, the others of their subnets stay: with a primary address they would go,
/// unless one of them is promoted in its place (`promote_secondaries`, `__inet_del_ifa` in net/ipv4/devinet.c).
///
/// What the setting is afterwards is `first`, if a process has died in between, or what it was now.
fn promoting(
    netns: &Netns,
    link: &str,
    first: Option<&str>,
    delete: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // A link that was renamed meanwhile has no setting of this name, and keeps the one it has.
    let key = promotion(link);
    let before = sysctl::write(&netns.fd, &key, "1");
    let outcome = delete();
    if let Ok(before) = before {
        let before = first.unwrap_or(&before);
        gone_is_done(sysctl::write(&netns.fd, &key, before).map(drop))?;
    }
    outcome
}

fn promotion(link: &str) -> String {
    format!("net/ipv4/conf/{link}/promote_secondaries")
}

/// An attachment of a process that died. A filter in which another program runs by now is somebody else's.
fn find_mounted(
    place: &AttachmentPlace,
    pin: Option<&std::path::Path>,
    filter: Option<(u16, u32)>,
    trace: &Trace,
) -> Option<Attachment> {
    let found = match pin {
        _ if place.hook.is_clsact() => {
            Attachment::filter_of(&place.target(), place.hook, trace.program, filter)
        }
        Some(path) => Attachment::pinned(path, &place.target(), place.hook),
        None => return None,
    };
    found.ok()
}

pub(in crate::own) fn gone_is_done(outcome: Result<()>) -> Result<()> {
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
