//! Sysctls whose writing changes others: the followers are looked at before, and restored with it.

use std::collections::HashMap;

use super::gone_is_done;
use crate::Result;
use crate::kernel::netlink::Netlink;
use crate::kernel::{link, sysctl};
use crate::own::owned::{Follower, Owned};

impl Owned {
    pub(super) fn undo_sysctl(&self) -> Result<()> {
        let Owned::Sysctl { netns, key, index, before, after, settled, followers, lost } = self
        else {
            return Ok(());
        };
        let netlink = Netlink::open(&netns.fd)?;
        let key = &renamed(&netlink, key, *index)?;
        let now = match sysctl::read(&netns.fd, key) {
            Ok(now) => now,
            Err(error) => return gone_is_done(Err(error)),
        };
        let ours = now == *after || !settled;
        if now != *before && !ours {
            tracing::warn!("{self} left at \"{now}\": it was changed by someone else");
            return Ok(());
        }
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
}

impl Follower {
    /// Those of that setting, as they are now.
    pub(super) fn look(netlink: &Netlink, key: &str) -> Result<Vec<Follower>> {
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

    pub(super) fn is(&self, other: &Follower) -> bool {
        self.index == other.index && (self.index != 0 || self.key == other.key)
    }
}

/// The index of the link that the key of a setting names (`net/ipv4/conf/eth0/...`); 0 for none.
///
/// # Errors
/// What the kernel refuses to list.
pub(super) fn link_of(netlink: &Netlink, key: &str) -> Result<u32> {
    let key = as_path(key);
    let parts: Vec<&str> = key.split('/').collect();
    let ["net", _, "conf" | "neigh", name, _] = parts.as_slice() else { return Ok(0) };
    let links = link::list(netlink)?;
    Ok(links.iter().find(|link| link.name == *name).map_or(0, |link| link.index))
}

/// `net/ipv4/conf/eth0/rp_filter` of that, or of what scripts write with dots.
fn as_path(key: &str) -> String {
    match key.contains('/') {
        true => key.trim_start_matches("/proc/sys/").trim_start_matches('/').to_owned(),
        false => key.replace('.', "/"),
    }
}

/// The key, with what its link is called now.
fn renamed(netlink: &Netlink, key: &str, index: u32) -> Result<String> {
    if index == 0 {
        return Ok(key.to_owned());
    }
    let place = Follower { key: as_path(key), index, before: String::new(), after: None };
    Ok(Names::now(netlink, std::slice::from_ref(&place))?.key(&place))
}

/// What links are called now.
pub(super) struct Names(HashMap<u32, String>);

impl Names {
    pub(super) fn now(netlink: &Netlink, followers: &[Follower]) -> Result<Names> {
        let needed = followers.iter().any(|follower| follower.index != 0);
        let links = if needed { link::list(netlink)? } else { Vec::new() };
        Ok(Names(links.into_iter().map(|link| (link.index, link.name)).collect()))
    }

    /// Of a link that is gone, the key that it had.
    pub(super) fn key(&self, follower: &Follower) -> String {
        let parts: Vec<&str> = follower.key.split('/').collect();
        match (self.0.get(&follower.index), parts.as_slice()) {
            (Some(name), [net, family, conf, _, setting]) => {
                format!("{net}/{family}/{conf}/{name}/{setting}")
            }
            _ => follower.key.clone(),
        }
    }
}
