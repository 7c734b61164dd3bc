//! The stage: where a generation says what it wants. The first generation, and a live one, act at once; while a later one
//! loads, what is new is created, what is owned already is adopted by its key, and every change to something live waits
//! for the commit, with its inverse.

mod commit;
mod difference;
mod hand_over;
mod mend;
mod room;
mod said;
mod ways;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use commit::{place, put};
pub use difference::Difference;
pub use said::Said;

use crate::error::Site;
use crate::kernel::netlink::Netlink;
use crate::own::hooks::Hooks;
use crate::own::ledger::{Ledger, Mark};
use crate::own::owned::{LinkPlace, Mounted, Owned};
use crate::{Error, Result};

/// What part of its life a generation is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first one loads: everything happens at once.
    First,
    /// A later one loads: nothing live changes.
    Loading,
    /// Committed: everything happens at once.
    Live,
    /// Another has taken over: it only reads.
    Ended,
}

/// A change to something live that is not an entry of the ledger: the policies of a router, what is in a map.
pub trait Staged {
    /// A later change with the same key takes this one's place.
    fn key(&self) -> String;
    /// `policies of router edge`
    fn text(&self) -> String;
    /// The namespace, by its cookie, whose routes this may take away.
    fn shakes(&self) -> Option<u64> {
        None
    }
    /// Namespaces, by their cookies, where a link is only there after this: routes by it wait, too.
    fn unsettled(&self) -> Vec<u64> {
        Vec::new()
    }
    /// Whether there is nothing to do after all.
    fn is_void(&self) -> bool {
        false
    }
    /// # Errors
    /// What the kernel refuses; then nothing has changed.
    fn apply(&mut self) -> Result<()>;
    /// Takes back what [`Staged::apply`] did.
    ///
    /// # Errors
    /// What the kernel refuses.
    fn revert(&mut self) -> Result<()>;
}

/// One waiting change.
struct Action {
    key: String,
    deed: Deed,
    said: Said,
}

enum Deed {
    Put { number: u64, new: Box<Owned>, old: Option<u64> },
    Other(Box<dyn Staged>),
}

/// What a generation has said so far.
pub struct Stage {
    ledger: Arc<Ledger>,
    phase: Cell<Phase>,
    /// Entries up to here are of the generation before.
    mark: Mark,
    named: RefCell<HashSet<u64>>,
    actions: RefCell<Vec<Action>>,
    /// How it has said what is kept.
    said: RefCell<HashMap<u64, Said>>,
    /// Keys of settings that this load has said, though nothing has to be done for them.
    kept: RefCell<HashMap<String, Owned>>,
    ordinals: RefCell<HashMap<String, usize>>,
    /// Namespaces where links or addresses went, and routes with them.
    shaken: RefCell<HashSet<u64>>,
    /// Namespaces with links that take their places at the commit.
    unsettled: RefCell<HashSet<u64>>,
    hooks: Rc<Hooks>,
    shelf: Rc<Shelf>,
    /// Let go at the commit, with all of it that was not taken.
    before: RefCell<Option<Rc<Shelf>>>,
}

/// Things of the process that go from one generation to the next, by name: loaded objects, routers, children.
#[derive(Default)]
pub struct Shelf(RefCell<HashMap<String, Rc<dyn Any>>>);

impl Stage {
    pub fn first(ledger: Arc<Ledger>) -> Stage {
        Stage::new(ledger, Phase::First, None)
    }

    /// The stage of the generation that comes after `before`.
    pub fn after(before: &Stage) -> Stage {
        let shelf = Some(Rc::clone(&before.shelf));
        let next = Stage::new(Arc::clone(&before.ledger), Phase::Loading, shelf);
        Stage { hooks: Rc::clone(&before.hooks), ..next }
    }

    /// A first generation that adopts what a process before this one left in the ledger.
    pub fn adopting(ledger: Arc<Ledger>) -> Stage {
        Stage::new(ledger, Phase::Loading, None)
    }

    fn new(ledger: Arc<Ledger>, phase: Phase, before: Option<Rc<Shelf>>) -> Stage {
        let mark = match phase {
            Phase::First => Mark(0),
            _ => ledger.mark(),
        };
        Stage {
            ledger,
            phase: Cell::new(phase),
            mark,
            named: RefCell::default(),
            actions: RefCell::default(),
            said: RefCell::default(),
            kept: RefCell::default(),
            ordinals: RefCell::default(),
            shaken: RefCell::default(),
            unsettled: RefCell::default(),
            hooks: Rc::default(),
            shelf: Rc::default(),
            before: RefCell::new(before),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether changes to live things wait.
    pub fn is_loading(&self) -> bool {
        self.phase.get() == Phase::Loading
    }

    /// Whether changes to what is live happen at once: no later load runs, and no other generation has taken over.
    pub fn is_at_once(&self) -> bool {
        matches!(self.phase.get(), Phase::First | Phase::Live)
    }

    /// What handles of an ended generation are told when they would change something.
    ///
    /// # Errors
    /// ESTALE.
    pub fn check(&self) -> Result<()> {
        match self.phase.get() {
            Phase::Ended => Err(Error::new("", "ESTALE", "the script was loaded anew since")
                .hint("handles of the load before only read; the new load has its own")),
            _ => Ok(()),
        }
    }

    /// The first generation is there; from now on as if live.
    pub fn go_live(&self) {
        self.phase.set(Phase::Live);
        self.before.take();
        self.named.borrow_mut().clear();
        self.said.borrow_mut().clear();
        self.kept.borrow_mut().clear();
        self.hooks.note(&self.ledger);
    }

    /// Another generation has taken over.
    pub fn end(&self) {
        self.phase.set(Phase::Ended);
    }

    /// Whether the entry is of a generation before this one.
    pub fn is_older(&self, number: u64) -> bool {
        self.is_loading() && number <= self.mark.0
    }

    /// Whether a change there would touch something live: all but what this load itself has made.
    pub fn is_live(&self, owned: &Owned) -> bool {
        if !self.is_loading() {
            return false;
        }
        let fresh = |number: Option<u64>| number.is_some_and(|number| number > self.mark.0);
        let netns = owned.netns().map(|netns| netns.cookie);
        let netns_fresh = fresh(netns.and_then(|cookie| self.ledger.owns_netns(cookie)));
        let routed = matches!(owned, Owned::Route { .. } | Owned::Neigh { .. });
        if routed && netns.is_some_and(|cookie| self.unsettled.borrow().contains(&cookie)) {
            return true;
        }
        let link_fresh = fresh(owned.link().and_then(|place| self.ledger.owns_link(place)));
        !netns_fresh && !link_fresh
    }

    /// Finds what a generation before made under this key, and notes that this one wants it too.
    pub fn adopt(&self, key: &str) -> Option<(u64, Owned)> {
        let (number, owned) = self.ledger.by_key(key)?;
        if !self.is_older(number) || !self.named.borrow_mut().insert(number) {
            return None;
        }
        Some((number, owned))
    }

    /// Whether this load has named that entry of the generation before.
    pub fn has_named(&self, number: u64) -> bool {
        self.named.borrow().contains(&number)
    }

    /// Puts `owned` in place, now or at the commit. The number of its entry.
    ///
    /// # Errors
    /// What the kernel refuses, when it is now. EEXIST when this load has it already. ESTALE.
    pub fn own(&self, owned: Owned, netlink: &Netlink, said: impl Fn() -> Said) -> Result<u64> {
        self.check()?;
        let key = owned.key();
        if self.is_loading()
            && let Some(number) = self.adopt_or_wait(&key, &owned, &said)?
        {
            return Ok(number);
        }
        let old = self.ledger.by_key(&key).filter(|_| owned.is_setting());
        let owned = match &old {
            Some((_, before)) => owned.on_top_of(before),
            None => owned,
        };
        if let Some((number, before)) = &old
            && owned.same(before)
            && !matches!(owned, Owned::Sysctl { .. } | Owned::LinkSetting { .. })
        {
            return Ok(*number);
        }
        let can_wait = self.is_loading()
            && matches!(owned, Owned::Route { .. })
            && self.ledger.by_key(&key).is_none();
        let waiting = can_wait.then(|| owned.clone());
        match (self.put_now(owned, old.map(|(number, _)| number), netlink), waiting) {
            // By a link that is new, where another route is: that can go with what the load gives up.
            (Err(error), Some(owned))
                if error.is("EEXIST") && self.could_get_room(&owned, netlink)? =>
            {
                Ok(self.wait(owned, said()))
            }
            (outcome, _) => outcome,
        }
    }

    /// It is made at the commit. The number that its entry will have.
    fn wait(&self, new: Owned, said: Said) -> u64 {
        let (key, number) = (new.key(), self.ledger.reserve());
        let deed = Deed::Put { number, new: Box::new(new), old: None };
        self.actions.borrow_mut().push(Action { key, deed, said });
        number
    }

    /// What loading makes of it: kept, waiting, or (`None`) to be made now.
    fn adopt_or_wait(
        &self,
        key: &str,
        owned: &Owned,
        said: impl Fn() -> Said,
    ) -> Result<Option<u64>> {
        let mut actions = self.actions.borrow_mut();
        if let Some(waiting) = actions.iter().position(|action| action.key == key) {
            let Deed::Put { number, new, old } = &mut actions[waiting].deed else {
                return Ok(None);
            };
            if !owned.is_setting() {
                return Err(Error::new("", "EEXIST", "the script has said this already"));
            }
            let (number, old) = (*number, *old);
            **new = owned.clone().on_top_of(new);
            let before = old.and_then(|old| self.ledger.get(old));
            if let (Some(old), Some(before)) = (old, before)
                && new.same(&before)
            {
                actions.remove(waiting);
                self.kept.borrow_mut().insert(key.to_owned(), before);
                return Ok(Some(old));
            }
            return Ok(Some(number));
        }
        let Some((number, before)) = self.ledger.by_key(key).filter(|(n, _)| self.is_older(*n))
        else {
            if !self.is_live(owned) {
                return Ok(None);
            }
            drop(actions);
            return Ok(Some(self.wait(owned.clone(), said())));
        };
        let first = self.named.borrow_mut().insert(number);
        if !first && !owned.is_setting() {
            return Err(Error::new("", "EEXIST", "the script has said this already"));
        }
        // What was said before in this load and needed nothing is part of what is wanted.
        let owned = match self.kept.borrow_mut().remove(key) {
            Some(said) => owned.clone().on_top_of(&said),
            None => owned.clone(),
        };
        if owned.same(&before) && !before.is_severed() {
            self.kept.borrow_mut().insert(key.to_owned(), owned);
            self.said.borrow_mut().insert(number, said());
            return Ok(Some(number));
        }
        let new_number = self.ledger.reserve();
        let deed = Deed::Put { number: new_number, new: Box::new(owned), old: Some(number) };
        actions.push(Action { key: key.to_owned(), deed, said: said() });
        Ok(Some(new_number))
    }

    /// An adopted entry is to become this at the commit, under the number it has.
    pub fn reshape(&self, number: u64, new: Owned, said: Said) {
        let deed = Deed::Put { number, new: Box::new(new.clone()), old: Some(number) };
        self.actions.borrow_mut().push(Action { key: new.key(), deed, said });
    }

    /// Puts `new` in the place of an entry, now or at the commit. The number of the new entry.
    ///
    /// # Errors
    /// As [`Stage::own`].
    pub fn replace(&self, old: u64, new: Owned, netlink: &Netlink, said: Said) -> Result<u64> {
        self.check()?;
        let mut actions = self.actions.borrow_mut();
        let waiting = actions
            .iter_mut()
            .find(|action| matches!(action.deed, Deed::Put { number, .. } if number == old));
        if let Some(Action { deed: Deed::Put { new: waiting, .. }, .. }) = waiting {
            **waiting = new;
            return Ok(old);
        }
        if !self.is_older(old) {
            drop(actions);
            return self.put_now(new, Some(old), netlink);
        }
        let number = self.ledger.reserve();
        let deed = Deed::Put { number, new: Box::new(new.clone()), old: Some(old) };
        actions.push(Action { key: new.key(), deed, said });
        Ok(number)
    }

    /// What is to become of an entry that waits for the commit.
    pub fn waiting(&self, wanted: u64) -> Option<Owned> {
        self.actions.borrow().iter().find_map(|action| match &action.deed {
            Deed::Put { number, new, .. } if *number == wanted => Some((**new).clone()),
            _ => None,
        })
    }

    /// The program of an attachment that waits for the commit.
    pub fn waiting_mount(&self, number: u64) -> Option<Mounted> {
        match self.waiting(number)? {
            Owned::Attachment { mounted, .. } => mounted,
            _ => None,
        }
    }

    /// How many things this load has called so, this one included: tells equal ones apart by their order.
    pub fn ordinal(&self, key: &str) -> usize {
        let mut counts = self.ordinals.borrow_mut();
        let count = counts.entry(key.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Somebody else has deleted a namespace or a link: all that was on it is gone too, and is made again when it is
    /// named.
    pub fn lost(&self, number: u64) {
        let Some(owned) = self.ledger.get(number) else { return };
        tracing::warn!("{owned} was deleted by someone else; it is made again");
        let cookie = match &owned {
            Owned::Netns(netns) => Some(netns.cookie),
            _ => None,
        };
        self.shake(&owned);
        let link = owned.link();
        let gone = |other: &Owned| {
            let inside = other.netns().is_some_and(|netns| Some(netns.cookie) == cookie);
            inside || (link.is_some() && other.link() == link)
        };
        for owned in self.ledger.forget_where(gone) {
            if matches!(owned, Owned::Pin { .. } | Owned::Process { .. } | Owned::Other { .. }) {
                let _ = owned.undo();
            }
        }
        self.ledger.forget(number);
    }

    fn put_now(&self, mut owned: Owned, old: Option<u64>, netlink: &Netlink) -> Result<u64> {
        let number = self.ledger.reserve();
        let place = place(&self.ledger, &owned, netlink, false);
        put(&self.ledger, number, &mut owned, old, &place)?;
        if matches!(owned, Owned::Attachment { .. }) {
            self.hooks_changed();
        }
        Ok(number)
    }

    /// A live script has changed what is on its hooks.
    pub fn hooks_changed(&self) {
        if self.phase() == Phase::Live {
            self.hooks.note(&self.ledger);
        }
    }

    /// Changes something that is no entry, now or at the commit.
    ///
    /// # Errors
    /// What the kernel refuses, when it is now. ESTALE.
    pub fn change(
        &self,
        live: bool,
        mut staged: Box<dyn Staged>,
        site: Option<Site>,
    ) -> Result<()> {
        self.check()?;
        if !self.is_loading() || !live {
            return staged.apply();
        }
        let key = staged.key();
        self.unsettled.borrow_mut().extend(staged.unsettled());
        let mut actions = self.actions.borrow_mut();
        actions.retain(|action| action.key != key);
        actions.push(Action { key, deed: Deed::Other(staged), said: Said::new("", site) });
        Ok(())
    }

    /// More was said of a change that waits: it comes after all that was said before it.
    pub fn put_last(&self, key: &str) {
        let mut actions = self.actions.borrow_mut();
        let last = actions.len().saturating_sub(1);
        if let Some(at) = actions.iter().rposition(|action| action.key == key)
            && at != last
        {
            actions[at..].rotate_left(1);
        }
    }

    /// The script deletes an entry itself. True when that waits for the commit, because it is live: there is nothing
    /// else to do then.
    ///
    /// # Errors
    /// ESTALE.
    pub fn disown(&self, number: u64) -> Result<bool> {
        self.check()?;
        if !self.is_loading() {
            return Ok(false);
        }
        let mut actions = self.actions.borrow_mut();
        let mine = |action: &Action| match action.deed {
            Deed::Put { number: n, old, .. } => n == number || old == Some(number),
            Deed::Other(_) => false,
        };
        let waiting = actions.iter().any(mine);
        let olds: Vec<u64> = actions
            .iter()
            .filter(|action| mine(action))
            .filter_map(|action| match action.deed {
                Deed::Put { old, .. } => old,
                Deed::Other(_) => None,
            })
            .collect();
        actions.retain(|action| !mine(action));
        let mut named = self.named.borrow_mut();
        for old in olds {
            named.remove(&old);
        }
        named.remove(&number);
        Ok(waiting || self.is_older(number))
    }

    /// Something that the generation before put on its shelf.
    pub fn take<T: 'static>(&self, key: &str) -> Option<Rc<T>> {
        let found = self.before.borrow().as_ref()?.0.borrow().get(key).cloned()?;
        found.downcast::<T>().ok()
    }

    /// Something that this generation has on its shelf.
    pub fn shelved<T: 'static>(&self, key: &str) -> Option<Rc<T>> {
        let found = self.shelf.0.borrow().get(key).cloned()?;
        found.downcast::<T>().ok()
    }

    /// Leaves something for the next generation.
    pub fn shelve(&self, key: &str, thing: Rc<dyn Any>) {
        self.shelf.0.borrow_mut().insert(key.to_owned(), thing);
    }

    /// What the next generation is not to find any more.
    pub fn unshelve(&self, key: &str) {
        self.shelf.0.borrow_mut().remove(key);
    }

    /// Undoes what this load has created; nothing live was changed.
    pub fn roll_back(&self) {
        self.actions.take();
        self.end();
        for failure in self.ledger.tear_down_to(self.mark).failures {
            tracing::error!("not removed: {failure}");
        }
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Whether the link, or its namespace, is of this instance's making.
    pub fn is_ours(&self, place: LinkPlace) -> bool {
        self.ledger.owns_netns(place.cookie).is_some() || self.ledger.owns_link(place).is_some()
    }
}
