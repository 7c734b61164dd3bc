//! Undoing a thing by itself. (Links and namespaces are undone in bulk by the ledger.)

use super::{find_mounted, gone_is_done, promoting};
use crate::Result;
use crate::kernel::bpf::{hook, pins};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::qdisc::{self, Qdisc, QdiscInfo};
use crate::kernel::{address, link, neigh, process, route, rule};
use crate::own::owned::{MARK, Owned};

impl Owned {
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
            Owned::Process { pid: 0, mark, .. } => process::end_marked(&format!("{MARK}={mark}")),
            Owned::Process { pid, started, mark, .. } => match process::started(*pid) {
                Some(now) if now == *started => process::end_group(*pid),
                // The number of a group that still has somebody is nobody else's.
                Some(_) => Ok(()),
                None => process::end_marked_group(*pid, &format!("{MARK}={mark}")),
            },
            Owned::Other { undo, .. } => gone_is_done(undo()),
        }
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
