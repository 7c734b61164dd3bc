//! The ledger: the list of what this instance created or changed, in order. Teardown walks it backwards, in bulk where
//! the kernel allows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use super::journal::{self, Journal, Recovered};
use super::owned::{LinkPlace, Owned};
use crate::kernel::link::{self, Lost, Things};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::{self, Netns};
use crate::{Error, Result};

/// Shared by the thread that runs Lua and the one that can tear down without it.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<u64, Owned>,
    by_key: HashMap<String, u64>,
    /// Namespaces and links of ours, by what the kernel calls them.
    netns: HashMap<u64, u64>,
    links: HashMap<LinkPlace, u64>,
    next: u64,
    journal: Option<Journal>,
    /// Why nothing can be written down: nothing is created then.
    unwritable: Option<Error>,
    /// Teardown has begun: nothing can be added any more.
    closed: bool,
}

impl State {
    fn insert(&mut self, number: u64, owned: Owned) {
        self.by_key.insert(owned.key(), number);
        match &owned {
            Owned::Netns(netns) => drop(self.netns.insert(netns.cookie, number)),
            Owned::Link { .. } => {
                owned.link().map(|place| self.links.insert(place, number));
            }
            _ => {}
        }
        self.entries.insert(number, owned);
    }

    fn remove(&mut self, number: u64) -> Option<Owned> {
        let owned = self.entries.remove(&number)?;
        // A later entry can have the key by now.
        let key = owned.key();
        if self.by_key.get(&key) == Some(&number) {
            self.by_key.remove(&key);
        }
        match &owned {
            Owned::Netns(netns) => drop(self.netns.remove(&netns.cookie)),
            Owned::Link { .. } => {
                owned.link().map(|place| self.links.remove(&place));
            }
            _ => {}
        }
        Some(owned)
    }

    fn write(&mut self, number: u64, owned: &Owned) -> Result<()> {
        match &mut self.journal {
            Some(journal) if owned.outlives_the_process() => journal.write(number, owned),
            _ => Ok(()),
        }
    }

    fn open_for_entries(&self) -> Result<()> {
        if self.closed {
            return Err(Error::new("", "EINTR", "the instance is being torn down"));
        }
        self.unwritable.clone().map_or(Ok(()), Err)
    }
}

/// A place in the ledger: what is added later can be undone by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u64);

impl Ledger {
    /// From now on every entry is written down before it is made.
    pub fn keep_journal(&self, journal: Journal) {
        self.lock().journal = Some(journal);
    }

    /// Nothing can be written down, and so nothing created: `why` is what whoever tries is told.
    pub fn refuse(&self, why: Error) {
        self.lock().unwritable = Some(why);
    }

    /// Takes over what a process before this one left.
    pub fn take_over(&self, entries: Vec<(u64, Owned)>) {
        let mut state = self.lock();
        for (number, owned) in entries {
            state.next = state.next.max(number);
            state.insert(number, owned);
        }
    }

    /// A number for an entry to come.
    pub fn reserve(&self) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        state.next
    }

    /// Writes down what an entry is about to become, under a number of its own that is forgotten when it has: until then
    /// it may be either.
    ///
    /// # Errors
    /// As [`Ledger::intend`].
    pub fn foresee(&self, number: u64, owned: &Owned) -> Result<()> {
        let mut state = self.lock();
        state.open_for_entries()?;
        state.write(number, owned)
    }

    /// Enters what is about to be made under a reserved number.
    ///
    /// # Errors
    /// EINTR when teardown has begun meanwhile; ENOSPC and its like when it cannot be written down.
    pub fn intend(&self, number: u64, owned: &Owned) -> Result<()> {
        let mut state = self.lock();
        state.open_for_entries()?;
        state.write(number, owned)?;
        tracing::debug!("owns {owned}");
        state.insert(number, owned.clone());
        Ok(())
    }

    /// A namespace is about to be made: first its file (cookie 0), then the namespace behind it.
    ///
    /// # Errors
    /// As [`Ledger::intend`].
    pub fn intend_netns(&self, number: u64, name: &str, cookie: u64) -> Result<()> {
        let mut state = self.lock();
        state.open_for_entries()?;
        match (&mut state.journal, cookie) {
            (None, _) => Ok(()),
            (Some(journal), 0) => journal.write_placeholder(number, name),
            (Some(journal), cookie) => journal.write_netns(number, name, cookie),
        }
    }

    /// What was intended is there now, and this is what it has become.
    pub fn settle(&self, number: u64, owned: Owned) {
        let mut state = self.lock();
        // The intent says enough to undo it.
        let _ = state.write(number, &owned);
        state.remove(number);
        state.insert(number, owned);
    }

    /// Enters something that was just made; its number, for [`Ledger::forget`].
    ///
    /// # Errors
    /// As [`Ledger::intend`]: the thing is undone at once.
    pub fn add(&self, owned: Owned) -> Result<u64> {
        let number = self.reserve();
        match self.intend(number, &owned) {
            Ok(()) => Ok(number),
            Err(error) => {
                owned.undo()?;
                Err(error)
            }
        }
    }

    /// Takes an entry out without undoing it: the script has done so itself.
    pub fn forget(&self, number: u64) -> Option<Owned> {
        let mut state = self.lock();
        let owned = state.remove(number);
        if let Some(journal) = &mut state.journal
            && owned.as_ref().is_none_or(Owned::outlives_the_process)
        {
            journal.forget(number);
        }
        owned
    }

    /// Takes out every entry that `matches`; what they were, oldest first.
    pub fn forget_where(&self, matches: impl Fn(&Owned) -> bool) -> Vec<Owned> {
        let found: Vec<u64> = {
            let state = self.lock();
            state.entries.iter().filter(|(_, o)| matches(o)).map(|(n, _)| *n).collect()
        };
        found.into_iter().filter_map(|number| self.forget(number)).collect()
    }

    /// Makes an entry the one its key finds again, after another that had the key is gone.
    pub fn rekey(&self, number: u64) {
        let mut state = self.lock();
        if let Some(key) = state.entries.get(&number).map(Owned::key) {
            state.by_key.insert(key, number);
        }
    }

    /// Whether some entry `matches`.
    pub fn any(&self, matches: impl Fn(&Owned) -> bool) -> bool {
        self.lock().entries.values().any(matches)
    }

    /// The first thing that `choose` makes of an entry.
    pub fn find<T>(&self, choose: impl Fn(&Owned) -> Option<T>) -> Option<T> {
        self.lock().entries.values().find_map(choose)
    }

    pub fn get(&self, number: u64) -> Option<Owned> {
        self.lock().entries.get(&number).cloned()
    }

    /// The entry with that key.
    pub fn by_key(&self, key: &str) -> Option<(u64, Owned)> {
        let state = self.lock();
        let number = *state.by_key.get(key)?;
        Some((number, state.entries.get(&number)?.clone()))
    }

    /// Copies of the entries that `matches`, by number.
    pub fn entries(&self, matches: impl Fn(u64, &Owned) -> bool) -> Vec<(u64, Owned)> {
        let state = self.lock();
        state
            .entries
            .iter()
            .filter(|(n, o)| matches(**n, o))
            .map(|(n, o)| (*n, o.clone()))
            .collect()
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for owned in self.lock().entries.values() {
            *counts.entry(owned.kind()).or_default() += 1;
        }
        counts
    }

    /// Takes out a namespace of ours and what is in it, because the script deletes it: only what the kernel does not end
    /// with it (processes, servers) is undone.
    pub fn leave_netns(&self, cookie: u64) {
        let left = self.forget_where(|owned| match owned {
            Owned::Netns(netns) => netns.cookie == cookie,
            other => other.netns().is_some_and(|netns| netns.cookie == cookie),
        });
        for owned in left.iter().rev().filter(|owned| owned.holds_more_than_its_netns()) {
            let _ = owned.undo();
        }
    }

    /// Whether this instance made that namespace: what is in it goes with it. Its entry's number.
    pub fn owns_netns(&self, cookie: u64) -> Option<u64> {
        self.lock().netns.get(&cookie).copied()
    }

    /// Whether this instance made that link. Its entry's number.
    pub fn owns_link(&self, place: LinkPlace) -> Option<u64> {
        self.lock().links.get(&place).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }

    pub fn mark(&self) -> Mark {
        Mark(self.lock().next)
    }

    /// Undoes what was added after `mark`, newest first.
    pub fn tear_down_to(&self, mark: Mark) -> Removed {
        self.tear_down_where(|number, _| number > mark.0)
    }

    /// Undoes the entries that `matches`, newest first.
    pub fn tear_down_where(&self, matches: impl Fn(u64, &Owned) -> bool) -> Removed {
        let chosen = self.entries(matches);
        let removed = undo_all(&chosen);
        let mut state = self.lock();
        if let Some(journal) = &mut state.journal {
            // What could not be undone stays written down, for `clean` to try again.
            let gone = chosen.iter().rev().filter(|(number, owned)| {
                owned.outlives_the_process() && !removed.left.contains(number)
            });
            journal.forget_all(gone.map(|(number, _)| *number));
        }
        for (number, _) in &chosen {
            state.remove(*number);
        }
        let State { journal, entries, .. } = &mut *state;
        if let (Some(journal), true) = (journal, removed.left.is_empty()) {
            journal.shorten(entries);
        }
        removed
    }

    /// Undoes everything, newest first, and refuses whatever comes later. A second call finds nothing to do.
    pub fn tear_down(&self) -> Removed {
        self.lock().closed = true;
        self.tear_down_where(|_, _| true)
    }

    /// Lets go of everything without undoing it: it stays, and the journal says so.
    pub fn let_go(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.journal = None;
        state.entries.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

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
    left: HashSet<u64>,
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
fn undo_all(entries: &[(u64, Owned)]) -> Removed {
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
    fn holds_more_than_its_netns(&self) -> bool {
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
