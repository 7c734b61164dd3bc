//! The ledger: the list of what this instance created or changed, in order. Teardown walks it backwards, in bulk where
//! the kernel allows.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::own::Owned;
use crate::{Error, Result};

/// Shared by the thread that runs Lua and the one that can tear down without it.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: Vec<(u64, Owned)>,
    next: u64,
    /// Teardown has begun: nothing can be added any more.
    closed: bool,
}

/// A place in the ledger: what is added later can be undone by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u64);

impl Ledger {
    /// Enters something that was just made; its number, for [`Ledger::forget`].
    ///
    /// # Errors
    /// EINTR when teardown has begun meanwhile: the thing is undone at once.
    pub fn add(&self, owned: Owned) -> Result<u64> {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            owned.undo()?;
            return Err(Error::new("", "EINTR", "the instance is being torn down"));
        }
        state.next += 1;
        let number = state.next;
        tracing::debug!("owns {owned}");
        state.entries.push((number, owned));
        Ok(number)
    }

    /// Takes an entry out without undoing it: the script has done so itself.
    pub fn forget(&self, number: u64) {
        self.lock().entries.retain(|(n, _)| *n != number);
    }

    /// Takes out every entry that `matches`.
    pub fn forget_where(&self, matches: impl Fn(&Owned) -> bool) {
        self.lock().entries.retain(|(_, owned)| !matches(owned));
    }

    /// Whether some entry `matches`.
    pub fn any(&self, matches: impl Fn(&Owned) -> bool) -> bool {
        self.lock().entries.iter().any(|(_, owned)| matches(owned))
    }

    /// The first thing that `choose` makes of an entry.
    pub fn find<T>(&self, choose: impl Fn(&Owned) -> Option<T>) -> Option<T> {
        self.lock().entries.iter().find_map(|(_, owned)| choose(owned))
    }

    /// Takes out a namespace of ours and what is in it, because the script deletes it: only what the kernel does not end
    /// with it (processes, servers) is undone.
    pub fn leave_netns(&self, cookie: u64) -> Result<()> {
        let inside = |owned: &Owned| match owned {
            Owned::Netns(netns) => netns.cookie == cookie,
            other => other.netns().is_some_and(|netns| netns.cookie == cookie),
        };
        let left: Vec<(u64, Owned)> =
            self.lock().entries.extract_if(.., |(_, o)| inside(o)).collect();
        let others = left
            .iter()
            .rev()
            .filter(|(_, owned)| matches!(owned, Owned::Other { .. } | Owned::Attachment { .. }));
        others.for_each(|(_, owned)| drop(owned.undo()));
        Ok(())
    }

    /// Whether this instance made that namespace: what is in it goes with it.
    pub fn owns_netns(&self, cookie: u64) -> bool {
        self.any(|owned| matches!(owned, Owned::Netns(netns) if netns.cookie == cookie))
    }

    pub fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }

    pub fn mark(&self) -> Mark {
        Mark(self.lock().next)
    }

    /// Undoes what was added after `mark`, newest first.
    pub fn tear_down_to(&self, mark: Mark) -> Removed {
        let newer = {
            let mut state = self.lock();
            let (older, newer) =
                std::mem::take(&mut state.entries).into_iter().partition(|(n, _)| *n <= mark.0);
            state.entries = older;
            newer
        };
        undo_all(newer)
    }

    /// Undoes everything, newest first, and refuses whatever comes later. A second call finds nothing to do.
    pub fn tear_down(&self) -> Removed {
        let entries = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.entries)
        };
        undo_all(entries)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a teardown removed and what it could not.
#[derive(Default)]
pub struct Removed {
    counts: BTreeMap<&'static str, usize>,
    pub failures: Vec<Error>,
}

impl Removed {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn count(&mut self, owned: &Owned, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                tracing::debug!("removed {owned}");
                *self.counts.entry(owned.kind()).or_default() += 1;
            }
            Err(error) => self.failures.push(error.about(owned.to_string())),
        }
    }
}

/// `2 netns, 4 links, 1 sysctl`
impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (kind, count)) in self.counts.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            let plural = match (*kind, *count) {
                (_, 1) | ("netns", _) => "",
                (kind, _) if kind.ends_with('s') => "es",
                _ => "s",
            };
            write!(f, "{comma}{count} {kind}{plural}")?;
        }
        Ok(())
    }
}

/// Backwards, but links of one namespace together and namespaces last: an entry inside a namespace of ours goes with it,
/// whatever its own undo would be.
fn undo_all(entries: Vec<(u64, Owned)>) -> Removed {
    let ours: HashSet<u64> = entries
        .iter()
        .filter_map(|(_, owned)| match owned {
            Owned::Netns(netns) => Some(netns.cookie),
            _ => None,
        })
        .collect();
    let mut removed = Removed::default();
    let mut links: BTreeMap<u64, Vec<Owned>> = BTreeMap::new();
    let mut namespaces = Vec::new();
    // A route comes back only when the subnet of its gateway has, whose undo may be the next: so again after each.
    let mut again: Vec<Owned> = Vec::new();
    for (_, owned) in entries.into_iter().rev() {
        let inside = owned.netns().is_some_and(|netns| ours.contains(&netns.cookie));
        match &owned {
            Owned::Netns(_) => namespaces.push(owned),
            // Their undo also releases what the kernel does not: processes, descriptors.
            Owned::Other { .. } | Owned::Attachment { .. } => match owned.undo() {
                Err(_) if !inside => {
                    again.push(owned);
                    continue;
                }
                _ => removed.count(&owned, Ok(())),
            },
            _ if inside => removed.count(&owned, Ok(())),
            Owned::Link { netns, .. } => links.entry(netns.cookie).or_default().push(owned),
            _ => match owned.undo() {
                Err(_) => {
                    again.push(owned);
                    continue;
                }
                Ok(()) => removed.count(&owned, Ok(())),
            },
        }
        again.retain(|owned| match owned.undo() {
            Ok(()) => {
                removed.count(owned, Ok(()));
                false
            }
            Err(_) => true,
        });
    }
    for owned in again {
        let outcome = owned.undo();
        removed.count(&owned, outcome);
    }
    for group in links.into_values() {
        let outcome = delete_links(&group);
        for link in &group {
            removed.count(link, outcome.clone());
        }
    }
    for netns in namespaces {
        let outcome = netns.undo();
        removed.count(&netns, outcome);
    }
    removed
}

/// Links of one namespace, with one wait for all of them.
fn delete_links(group: &[Owned]) -> Result<()> {
    let Some(Owned::Link { netns: Netns { fd, .. }, .. }) = group.first() else { return Ok(()) };
    let indexes: Vec<u32> = group
        .iter()
        .filter_map(|owned| match owned {
            Owned::Link { index, .. } => Some(*index),
            _ => None,
        })
        .collect();
    link::delete_many(&Netlink::open(fd)?, &indexes)
}
