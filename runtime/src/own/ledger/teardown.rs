//! Undoing what a ledger has, of this process or of one that is dead: newest first, in bulk where the kernel allows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use crate::kernel::link::{self, Lost, Things};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::{self, Netns};
use crate::own::journal::{self, Recovered};
use crate::own::owned::{LinkPlace, Owned};
use crate::{Error, Result};

/// Undoes what a dead process left, as its journal tells. What cannot be undone stays in the journal.
///
/// # Errors
/// EIO and its like of the journal itself.
pub fn clean(path: &Path) -> Result<Removed> {
    let found = journal::read(path)?;
    let removed = undo_recovered(&found);
    found.keep(path, &removed.left)?;
    Ok(removed)
}

/// Undoes what a journal tells.
pub fn undo_recovered(found: &Recovered) -> Removed {
    let mut removed = undo_all(&found.entries);
    for (number, name) in &found.placeholders {
        if let Err(error) = named::delete_placeholder(name) {
            removed.fail(*number, error);
        }
    }
    for (number, what) in &found.unreachable {
        let error =
            Error::new("clean", "EXDEV", "it is in a network namespace that is not this one")
                .subject(what.as_str())
                .hint("clean from the namespace that the script was started in");
        removed.fail(*number, error);
    }
    removed
}

/// What a teardown removed and what it could not.
#[derive(Default)]
pub struct Removed {
    counts: BTreeMap<&'static str, usize>,
    pub failures: Vec<Error>,
    /// The entries of the failures.
    pub(super) left: HashSet<u64>,
}

impl Removed {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn count(&mut self, (number, owned): &(u64, Owned), outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                tracing::debug!("removed {owned}");
                *self.counts.entry(owned.kind()).or_default() += 1;
            }
            Err(error) => self.fail(*number, error.about(owned.to_string())),
        }
    }

    fn fail(&mut self, number: u64, error: Error) {
        self.left.insert(number);
        self.failures.push(error);
    }
}

/// `2 netns, 4 links, 1 sysctl`
impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(&self.counts))
    }
}

/// `2 netns, 4 links, 1 sysctl`
pub fn counted(counts: &BTreeMap<&str, usize>) -> String {
    let words: Vec<String> = counts
        .iter()
        .map(|(kind, count)| {
            let plural = match (*kind, *count) {
                (_, 1) | ("netns", _) => "",
                (kind, _) if kind.ends_with('s') => "es",
                _ => "s",
            };
            format!("{count} {kind}{plural}")
        })
        .collect();
    words.join(", ")
}

/// Backwards, but links of one namespace together and namespaces last: an entry inside a namespace of ours, or on a link
/// of ours, goes with it, whatever its own undo would be.
///
/// What they had put in place does not come back with what was taken away.
pub(super) fn undo_all(entries: &[(u64, Owned)]) -> Removed {
    let entries = &without_own(entries);
    let netns_of = |owned: &Owned| match owned {
        Owned::Netns(netns) => Some(netns.cookie),
        _ => None,
    };
    let link_of =
        |owned: &Owned| matches!(owned, Owned::Link { .. }).then(|| owned.link()).flatten();
    let ours: HashSet<u64> = entries.iter().filter_map(|(_, owned)| netns_of(owned)).collect();
    let our_links: HashSet<LinkPlace> =
        entries.iter().filter_map(|(_, owned)| link_of(owned)).collect();
    let mut removed = Removed::default();
    let mut links: BTreeMap<u64, Vec<&(u64, Owned)>> = BTreeMap::new();
    let mut namespaces = Vec::new();
    // A route comes back only when the subnet of its gateway has, whose undo may be the next: so again after each.
    let mut again: Vec<(u64, Owned)> = Vec::new();
    for entry in entries.iter().rev() {
        let owned = &entry.1;
        let inside = owned.netns().is_some_and(|netns| ours.contains(&netns.cookie))
            || owned.link().is_some_and(|link| our_links.contains(&link));
        match owned {
            Owned::Netns(_) => namespaces.push(entry),
            Owned::Link { netns, .. } => match ours.contains(&netns.cookie) {
                true => removed.count(entry, Ok(())),
                false => links.entry(netns.cookie).or_default().push(entry),
            },
            // Their undo also releases what the kernel does not: processes, descriptors.
            _ if inside && owned.holds_more_than_its_netns() => {
                let _ = owned.undo();
                removed.count(entry, Ok(()));
            }
            _ if inside => removed.count(entry, Ok(())),
            _ => match owned.undo() {
                Err(_) => {
                    let mut entry = entry.clone();
                    entry.1.lost_mut().into_iter().for_each(Lost::forget_settings);
                    again.push(entry);
                    continue;
                }
                Ok(()) => removed.count(entry, Ok(())),
            },
        }
        again.retain(|entry| match entry.1.undo() {
            Ok(()) => {
                removed.count(entry, Ok(()));
                false
            }
            Err(_) => true,
        });
    }
    for entry in &again {
        removed.count(entry, entry.1.undo());
    }
    for group in links.into_values() {
        let outcome = delete_links(&group);
        for link in &group {
            removed.count(link, outcome.clone());
        }
    }
    for netns in namespaces {
        removed.count(netns, netns.1.undo());
    }
    removed
}

/// The entries, oldest first, with nothing among what each is to bring back that an entry before it had put there.
fn without_own(entries: &[(u64, Owned)]) -> Vec<(u64, Owned)> {
    let mut own: HashMap<u64, Things> = HashMap::new();
    let mut entries = entries.to_vec();
    for (_, owned) in &mut entries {
        let Some(cookie) = owned.netns().map(|netns| netns.cookie) else { continue };
        let things = own.entry(cookie).or_default();
        match owned {
            Owned::Address { index, address, .. } => things.add_address(*index, *address),
            Owned::Neigh { neigh, .. } => things.add_neighbour(neigh),
            Owned::Route { route, .. } => things.add_route(route),
            other => other.lost_mut().into_iter().for_each(|lost| lost.drop_all(things)),
        }
    }
    entries
}

impl Owned {
    /// The end of its namespace does not end it, or does not let go of all it holds.
    pub(super) fn holds_more_than_its_netns(&self) -> bool {
        matches!(
            self,
            Owned::Other { .. }
                | Owned::Attachment { .. }
                | Owned::Pin { .. }
                | Owned::Process { .. }
        )
    }
}

/// Links of one namespace, with one wait for all of them.
fn delete_links(group: &[&(u64, Owned)]) -> Result<()> {
    let Some((_, Owned::Link { netns: Netns { fd, .. }, .. })) = group.first() else {
        return Ok(());
    };
    let indexes: Vec<u32> = group
        .iter()
        .filter_map(|entry| match &entry.1 {
            Owned::Link { index, .. } => Some(*index),
            _ => None,
        })
        .collect();
    link::delete_many(&Netlink::open(fd)?, &indexes)
}
