//! The ledger: the list of what this instance created or changed, in order. [`teardown`] walks it backwards.

mod teardown;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

pub use teardown::{Removed, clean, counted, undo_recovered};

use super::journal::Journal;
use super::owned::{LinkPlace, Owned};
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
        let removed = teardown::undo_all(&chosen);
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
