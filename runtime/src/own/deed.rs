//! How each owned thing is put in place, put in the place of another, and undone.
//!
//! Three steps, so that the journal knows enough at every moment: `prepare` looks at what is there and writes nothing,
//! then the journal is written, then `put` acts.

use std::collections::HashMap;

use ipnetwork::IpNetwork;

use super::owned::{AttachmentPlace, Follower, LinkEnd, MARK, Mounted, Owned, Trace};
use crate::kernel::bpf::hook::{self, Attachment};
use crate::kernel::bpf::{Map, pins};
use crate::kernel::link::Lost;
use crate::kernel::link::{self, Change};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::qdisc::{self, Qdisc, QdiscInfo};
use crate::kernel::{address, neigh, process, route, rule, sysctl};
use crate::{Error, Result, fault};

/// What the steps need to know besides the thing itself.
pub struct Place<'a> {
    /// A socket in its namespace.
    pub netlink: &'a Netlink,
    /// This instance made the namespace, or the link it is on: what was there before is the kernel's own.
    pub ours: bool,
    /// What somebody else took away is put back: a commit does, a script's own call is told.
    pub repair: bool,
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
            Owned::Sysctl { netns, key, before, after, settled, followers, lost } => {
                let wanted = format!("{key} = {after}");
                *before = sysctl::read(&netns.fd, key).map_err(|e| e.subject(wanted))?;
                *settled = false;
                if !place.ours {
                    *followers = Follower::look(netlink, key)?;
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
            Owned::Route { route, .. } if old.is_none() && !place.ours => {
                let filter = route::Filter {
                    table: Some(route.table.unwrap_or(route::TABLE_MAIN)),
                    dst: Some(route.dst.filter(|dst| dst.prefix() > 0)),
                    ..Default::default()
                };
                let ipv6 = route.dst.map_or(route.family6, |dst| dst.is_ipv6());
                // IP6_RT_PRIO_USER
                let metric = |metric: Option<u32>| metric.unwrap_or(if ipv6 { 1024 } else { 0 });
                let same = |r: &route::RouteInfo| {
                    r.ipv6 == ipv6 && r.tos == route.tos && metric(r.metric) == metric(route.metric)
                };
                if route::list(netlink, &filter)?.iter().any(same) {
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
            Owned::Rule { rule, .. } if old.is_none() && !place.ours => {
                let ipv6 = rule.from.or(rule.to).map_or(rule.ipv6, |net| net.is_ipv6());
                let mut there = rule::list(netlink, Some(ipv6))?.into_iter();
                let same = |r: &rule::Rule| {
                    (r.from, r.to, &r.iif, &r.oif, r.fwmark, r.table, r.ipproto)
                        == (
                            rule.from,
                            rule.to,
                            &rule.iif,
                            &rule.oif,
                            rule.fwmark,
                            rule.table,
                            rule.ipproto,
                        )
                        && rule.priority.is_none_or(|priority| r.priority == Some(priority))
                };
                if there.any(|r| same(&r)) {
                    return Err(exists("rule.add", "there is such a rule already"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts it in place, or in the place of `old`.
    ///
    /// # Errors
    /// What the kernel refuses; then nothing has changed.
    pub fn put(&mut self, old: Option<&Owned>, at: &Place<'_>) -> Result<()> {
        let netlink = at.netlink;
        match self {
            Owned::Pin { path, map: Some(map), .. } => pin(map, path),
            Owned::Pin { .. } => Ok(()),
            Owned::Netns(_) | Owned::Process { .. } | Owned::Other { .. } => Ok(()),
            Owned::Link { netns, index, name, end } => match old {
                Some(Owned::Link { end: old, .. }) => {
                    reshape(netlink, *index, end, old)?;
                    readdress(netns, name, *index, netlink, (&end.addresses, &old.addresses))
                }
                _ => Ok(()),
            },
            Owned::Address { index, address, .. } => match old {
                Some(_) => Ok(()),
                None => address::add(netlink, *index, &address::Options::new(*address)),
            },
            Owned::DeletedAddress { index, address, lost, .. } => {
                address::delete(netlink, *index, *address)?;
                lost.settle(netlink)
            }
            Owned::LinkSetting { index, wanted, before, .. } => {
                let change = match old {
                    Some(Owned::LinkSetting { wanted: old, before: first, .. }) => {
                        wanted.instead_of(old, first.before())
                    }
                    _ => (**wanted).clone(),
                };
                if !change.is_empty() {
                    link::set(netlink, *index, &change)?;
                }
                // Up again, or large enough for IPv6: what had been taken comes back, as far as the script lets it: the
                // rest comes at the end.
                if let Some(Owned::LinkSetting { before: first, .. }) = old
                    && (change.up == Some(true) || change.mtu.is_some())
                    && let Err(error) = first.lost().restore(netlink)
                {
                    tracing::debug!("not back yet: {error}");
                }
                before.settle(netlink)
            }
            Owned::LinkName { index, after, .. } => link::rename(netlink, *index, after),
            Owned::Sysctl { netns, key, after, settled, followers, lost, .. } => {
                sysctl::write(&netns.fd, key, after)?;
                // What was written can read back otherwise ("0x10" as 16): undoing compares with what the kernel says.
                *after = sysctl::read(&netns.fd, key)?;
                *settled = true;
                let names = Names::now(netlink, followers)?;
                for follower in followers {
                    follower.after = sysctl::read(&netns.fd, &names.key(follower)).ok();
                }
                lost.settle(netlink)
            }
            Owned::Route { route, .. } => match old {
                Some(_) => route::replace(netlink, route),
                None => route::add(netlink, route),
            },
            Owned::Rule { rule, .. } => match old {
                // The new one first: no packet finds neither.
                Some(Owned::Rule { rule: old, .. }) => {
                    rule::add(netlink, rule)?;
                    rule::delete(netlink, old)
                }
                _ => rule::add(netlink, rule),
            },
            Owned::Neigh { neigh, .. } => match old {
                Some(_) => neigh::replace(netlink, neigh),
                None => neigh::add(netlink, neigh),
            },
            Owned::Qdisc { index, qdisc, .. } => qdisc::replace(netlink, *index, qdisc),
            Owned::Attachment { place, pin, filter, mounted: Some(mounted), .. } => {
                let attached = mount(place, mounted, old, at.repair)?;
                *filter = attached.filter_place();
                if let (Some(path), None) = (pin.as_deref(), &*filter) {
                    keep_pinned(&attached, path, place)?;
                }
                mounted.attached = Some(attached);
                Ok(())
            }
            Owned::Attachment { .. } => Ok(()),
        }
    }

    /// Undoes it by itself. Gone already is done. (Links and namespaces are undone in bulk by the ledger.)
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn undo(&self) -> Result<()> {
        let open = |netns: &Netns| Netlink::open(&netns.fd);
        match self {
            Owned::Netns(netns) => gone_is_done(netns.delete()),
            Owned::Link { netns, index, .. } => gone_is_done(link::delete(&open(netns)?, *index)),
            Owned::Address { netns, index, link, address, promote } => {
                promoting(netns, link, promote.as_deref(), || {
                    gone_is_done(address::delete(&open(netns)?, *index, *address))
                })
            }
            Owned::DeletedAddress { netns, lost, .. } => gone_is_done(lost.restore(&open(netns)?)),
            Owned::LinkSetting { netns, before, .. } => gone_is_done(before.restore(&open(netns)?)),
            Owned::LinkName { netns, index, before, after } => {
                let netlink = open(netns)?;
                match link::info(&netlink, *index) {
                    Ok(now) if now.name != *after => Ok(()),
                    Ok(_) => link::rename(&netlink, *index, before),
                    Err(error) => gone_is_done(Err(error)),
                }
            }
            Owned::Sysctl { .. } => self.undo_sysctl(),
            Owned::Route { netns, route, .. } => gone_is_done(route::delete(&open(netns)?, route)),
            Owned::Rule { netns, rule, .. } => gone_is_done(rule::delete(&open(netns)?, rule)),
            Owned::Neigh { netns, neigh, .. } => gone_is_done(neigh::delete(&open(netns)?, neigh)),
            Owned::Qdisc { netns, index, qdisc, before, .. } => {
                self.undo_qdisc(&open(netns)?, *index, qdisc, before.as_deref())
            }
            Owned::Attachment { place, pin, filter, trace, mounted } => {
                let live = mounted.as_ref().and_then(|mounted| mounted.attached.clone());
                let attached = live.or_else(|| find_mounted(place, pin.as_deref(), *filter, trace));
                let mut outcome =
                    attached.map_or(Ok(()), |attached| gone_is_done(attached.detach()));
                // Which of its program's filters it is was never written down: all of them are ours.
                while mounted.is_none()
                    && place.hook.is_clsact()
                    && filter.is_none()
                    && outcome.is_ok()
                    && let Some(attached) = find_mounted(place, None, None, trace)
                {
                    outcome = gone_is_done(attached.detach());
                }
                if trace.qdisc {
                    hook::drop_idle_clsact(&place.target());
                }
                if let Some(path) = pin {
                    pins::remove(path);
                }
                outcome
            }
            Owned::Pin { path, .. } => {
                pins::remove(path);
                Ok(())
            }
            Owned::Process { pid, started, mark, .. } => match process::started(*pid) {
                Some(now) if now == *started => process::end_group(*pid),
                // The number of a group that still has somebody is nobody else's.
                Some(_) => Ok(()),
                None => process::end_marked_group(*pid, &format!("{MARK}={mark}")),
            },
            Owned::Other { undo, .. } => gone_is_done(undo()),
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

    /// What was taken away with it, of all that is there and of what this instance had put there.
    pub fn lost_mut(&mut self) -> Option<&mut Lost> {
        match self {
            Owned::DeletedAddress { lost, .. } | Owned::Sysctl { lost, .. } => Some(lost),
            Owned::LinkSetting { before, .. } => Some(before.lost_mut()),
            _ => None,
        }
    }

    fn undo_sysctl(&self) -> Result<()> {
        let Owned::Sysctl { netns, key, before, after, settled, followers, lost } = self else {
            return Ok(());
        };
        let now = match sysctl::read(&netns.fd, key) {
            Ok(now) => now,
            Err(error) => return gone_is_done(Err(error)),
        };
        let ours = now == *after || !settled;
        if now != *before && !ours {
            tracing::warn!("{self} left at \"{now}\": it was changed by someone else");
            return Ok(());
        }
        let netlink = Netlink::open(&netns.fd)?;
        let names = Names::now(&netlink, followers)?;
        // Writing it back rewrites the followers once more, those too that somebody has set since.
        let wanted: Vec<(String, String)> = followers
            .iter()
            .filter_map(|follower| {
                let key = names.key(follower);
                let since = sysctl::read(&netns.fd, &key).ok()?;
                let theirs = follower.after.as_ref().is_some_and(|after| since != *after);
                let theirs = theirs && now != *before;
                Some((key, if theirs { since } else { follower.before.clone() }))
            })
            .collect();
        if now != *before {
            sysctl::write(&netns.fd, key, before)?;
        }
        for (key, value) in wanted {
            if sysctl::read(&netns.fd, &key).is_ok_and(|now| now != value) {
                sysctl::write(&netns.fd, &key, &value)?;
            }
        }
        lost.restore(&netlink)
    }

    fn undo_qdisc(
        &self,
        netlink: &Netlink,
        index: u32,
        qdisc: &Qdisc,
        before: Option<&QdiscInfo>,
    ) -> Result<()> {
        let there = match qdisc::list(netlink, Some(index)) {
            Ok(there) => there,
            Err(error) => return gone_is_done(Err(error)),
        };
        // Somebody else's may stand there by now, or none yet.
        if there.iter().all(|q| q.kind != qdisc.kind()) {
            return Ok(());
        }
        match before {
            // It was there, and only asked for.
            Some(_) if qdisc.is_hook() => Ok(()),
            Some(root) => qdisc::restore(netlink, root),
            // Somebody else's, or, in a reload, those of attachments that go on: the last of them takes it along.
            None if qdisc.is_hook() && hook::has_filters(netlink, index)? => {
                tracing::info!("{self} left: filters are on it");
                hook::own_clsact(netlink.netns(), index);
                Ok(())
            }
            None => gone_is_done(qdisc::delete(netlink, index, qdisc.kind())),
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

impl Follower {
    /// Those of that setting, as they are now.
    fn look(netlink: &Netlink, key: &str) -> Result<Vec<Follower>> {
        let there = sysctl::followers(netlink.netns(), key)?;
        if there.is_empty() {
            return Ok(Vec::new());
        }
        let links = link::list(netlink)?;
        let index = |key: &str| {
            let name = key.split('/').nth(3);
            links.iter().find(|l| Some(l.name.as_str()) == name).map_or(0, |l| l.index)
        };
        let follower = |(key, before): (String, String)| Follower {
            index: index(&key),
            key,
            before,
            after: None,
        };
        Ok(there.into_iter().map(follower).collect())
    }

    fn is(&self, other: &Follower) -> bool {
        self.index == other.index && (self.index != 0 || self.key == other.key)
    }
}

/// What links are called now.
struct Names(HashMap<u32, String>);

impl Names {
    fn now(netlink: &Netlink, followers: &[Follower]) -> Result<Names> {
        let needed = followers.iter().any(|follower| follower.index != 0);
        let links = if needed { link::list(netlink)? } else { Vec::new() };
        Ok(Names(links.into_iter().map(|link| (link.index, link.name)).collect()))
    }

    /// Of a link that is gone, the key that it had.
    fn key(&self, follower: &Follower) -> String {
        let parts: Vec<&str> = follower.key.split('/').collect();
        match (self.0.get(&follower.index), parts.as_slice()) {
            (Some(name), [net, family, conf, _, setting]) => {
                format!("{net}/{family}/{conf}/{name}/{setting}")
            }
            _ => follower.key.clone(),
        }
    }
}

fn exists(op: &'static str, message: &str) -> Error {
    Error::new(op, "EEXIST", message)
}

/// Makes a link what its constructor says now, where that differs from what it said before.
fn reshape(netlink: &Netlink, index: u32, new: &LinkEnd, old: &LinkEnd) -> Result<()> {
    // What a constructor does not say is as the kernel makes it.
    let usual = Change {
        mtu: Some(1500),
        mac: None,
        master: Some(0),
        alias: Some(String::new()),
        txqueuelen: Some(1000),
        group: Some(0),
        addrgenmode: Some(link::AddrGenMode::Eui64),
        promiscuous: Some(false),
        up: Some(true),
    };
    let change = new.settings.instead_of(&old.settings, &usual);
    if !change.is_empty() {
        link::set(netlink, index, &change)?;
    }
    Ok(())
}

/// Gives a link its new addresses and takes the old ones away, in this order: a path between them stays.
fn readdress(
    netns: &Netns,
    name: &str,
    index: u32,
    netlink: &Netlink,
    (new, old): (&[IpNetwork], &[IpNetwork]),
) -> Result<()> {
    for address in new.iter().filter(|a| !old.contains(a)) {
        address::add(netlink, index, &address::Options::new(*address))?;
    }
    let gone = || old.iter().filter(|a| !new.contains(a));
    if gone().next().is_none() {
        return Ok(());
    }
    promoting(netns, name, None, || {
        gone().try_for_each(|a| gone_is_done(address::delete(netlink, index, *a)))
    })
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

/// Attaches a program, or puts it in the place of the one that `old` attached.
fn mount(
    place: &AttachmentPlace,
    new: &Mounted,
    old: Option<&Owned>,
    repair: bool,
) -> Result<Attachment> {
    let target = place.target();
    let attach = || hook::attach(&target, place.hook, &new.program, &new.order);
    let Some(Owned::Attachment { pin, filter, trace, mounted, .. }) = old else {
        return attach();
    };
    let (attached, order_is_same, program_is_same) = match mounted {
        Some(old) => {
            let same = old.program.id() == new.program.id();
            (old.attached.clone(), old.order.same(&new.order), same)
        }
        // A dead process's: where it stands is where the script put it.
        None => (find_mounted(place, pin.as_deref(), *filter, trace), true, false),
    };
    let Some(attached) = attached else { return attach() };
    if order_is_same {
        return match attached.replace(&new.program) {
            Ok(()) => Ok(attached),
            // Severed, or detached by somebody else.
            Err(error) if repair && ["ENOLINK", "ENODEV", "ENOENT"].contains(&error.code()) => {
                let AttachmentPlace { link, slot, .. } = place;
                tracing::warn!(
                    "{slot} on {link} was taken off by someone else; it is attached again"
                );
                attach()
            }
            Err(error) => Err(error),
        };
    }
    if program_is_same {
        // The kernel takes a program only once on a hook.
        attached.detach()?;
        return attach();
    }
    let made = attach()?;
    attached.detach()?;
    Ok(made)
}

/// Pins a map, in the place of the one that is pinned there.
fn pin(map: &Map, path: &std::path::Path) -> Result<()> {
    if Map::pinned(path).is_ok_and(|there| there.id() == map.id()) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        pins::make_directory(directory)?;
    }
    let _ = std::fs::remove_file(path);
    fault::point();
    map.pin(path)
}

/// Pins a bpf link, unless it is the one that is pinned there.
///
/// # Errors
/// EPERM and EACCES without a bpffs.
pub fn keep_pinned(
    attached: &Attachment,
    path: &std::path::Path,
    place: &AttachmentPlace,
) -> Result<()> {
    let there = Attachment::pinned(path, &place.target(), place.hook);
    if there.is_ok_and(|there| there.link_id() == attached.link_id()) {
        return Ok(());
    }
    let _ = std::fs::remove_file(path);
    if let Some(directory) = path.parent() {
        pins::make_directory(directory)?;
    }
    fault::point();
    attached.pin(path)
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

pub(super) fn gone_is_done(outcome: Result<()>) -> Result<()> {
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
