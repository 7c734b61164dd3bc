//! What is there before a thing is put in place: so much of it as undoing needs.

use super::{Place, followers, promotion};
use crate::kernel::bpf::hook;
use crate::kernel::link::{self, Lost};
use crate::kernel::{address, neigh, qdisc, route, rule, sysctl};
use crate::own::owned::{Follower, Owned};
use crate::{Error, Result};

impl Owned {
    /// Looks at what is there before [`Owned::put`]; changes nothing.
    ///
    /// # Errors
    /// ENODEV when the link or the namespace is gone. EEXIST when somebody else's is there already.
    pub fn prepare(&mut self, old: Option<&Owned>, place: &Place<'_>) -> Result<()> {
        let netlink = place.netlink;
        match self {
            Owned::DeletedAddress { index, lost, .. } => {
                *lost = Lost::snapshot(netlink, Some(*index))?;
            }
            Owned::LinkSetting { index, wanted, before, .. } => {
                // A commit may have to go back.
                let whole = !place.ours || place.repair;
                **before = link::Undo::snapshot(netlink, *index, wanted, whole)?;
                if let Some(Owned::LinkSetting { before: first, .. }) = old {
                    **before = std::mem::take(&mut **before).after(first, wanted);
                }
            }
            Owned::Sysctl { netns, key, index, before, after, settled, followers, lost } => {
                let wanted = format!("{key} = {after}");
                *before = sysctl::read(&netns.fd, key).map_err(|e| e.subject(wanted))?;
                *settled = false;
                if !place.ours {
                    *followers = Follower::look(netlink, key)?;
                    *index = followers::link_of(netlink, key)?;
                    // Turning IPv6 off takes every address away.
                    if key.contains("ipv6") {
                        *lost = Lost::snapshot(netlink, None)?;
                    }
                }
                if let Some(Owned::Sysctl {
                    before: first, followers: firsts, lost: gone, ..
                }) = old
                {
                    before.clone_from(first);
                    followers.retain(|new| !firsts.iter().any(|known| known.is(new)));
                    followers.splice(0..0, firsts.iter().cloned());
                    lost.extend(gone);
                }
            }
            Owned::Qdisc { index, qdisc, before, .. } => {
                *before = match old {
                    Some(Owned::Qdisc { before, .. }) => before.clone(),
                    _ => qdisc::list(netlink, Some(*index))?
                        .into_iter()
                        .find(|there| match qdisc.is_hook() {
                            true => there.kind == qdisc.kind(),
                            false => there.parent == "root" && there.handle != "0:",
                        })
                        .map(Box::new),
                };
            }
            Owned::Attachment { place: at, trace, mounted: Some(mounted), .. } => {
                trace.program = mounted.program.id();
                let inherited = matches!(old, Some(Owned::Attachment { trace, .. }) if trace.qdisc);
                trace.qdisc = at.hook.is_clsact()
                    && (inherited || hook::clsact_is_free(netlink, &at.target())?);
            }
            // The kernel refuses these too, but in between a crash could not be told from success.
            Owned::Address { netns, link, index, address, promote }
                if old.is_none() && !place.ours =>
            {
                *promote = sysctl::read(&netns.fd, &promotion(link)).ok();
                let there = address::list(netlink, Some(*index))?;
                if there.iter().any(|a| a.address == *address) {
                    return Err(exists("address.add", "the link has that address already"));
                }
            }
            Owned::Route { route, .. } if old.is_none() && !place.ours && !place.over => {
                let filter = route::Filter {
                    table: Some(route.table.unwrap_or(route::TABLE_MAIN)),
                    dst: Some(route.dst.filter(|dst| dst.prefix() > 0)),
                    ..Default::default()
                };
                let bare = route::Options { via: None, dev: None, ..(**route).clone() };
                if route::list(netlink, &filter)?.iter().any(|there| bare.is(there)) {
                    return Err(exists("route.add", "there is such a route already"));
                }
            }
            Owned::Neigh { neigh, .. } if old.is_none() && !place.ours => {
                let there = neigh::list(netlink, Some(neigh.dev))?;
                let same = |n: &neigh::NeighInfo| n.dst == neigh.dst && n.proxy == neigh.proxy;
                // One that the kernel learned is not somebody's.
                if there.iter().any(|n| same(n) && n.state == "permanent") {
                    return Err(exists("neigh.add", "there is such an entry already"));
                }
            }
            Owned::Rule { rule, .. }
                if old.is_none()
                    && !place.ours
                    && rule::list(netlink, None)?.iter().any(|there| rule.is(there)) =>
            {
                return Err(exists("rule.add", "there is such a rule already"));
            }
            _ => {}
        }
        Ok(())
    }
}

fn exists(op: &'static str, message: &str) -> Error {
    Error::new(op, "EEXIST", message)
}
