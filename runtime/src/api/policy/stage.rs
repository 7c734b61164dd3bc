//! What a script says of a router that is live already: it waits for the commit, and becomes the router in one step.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use indexmap::{Equivalent, IndexSet};
use rustc_hash::FxBuildHasher;

use crate::api::host::Host;
use crate::error::Site;
use crate::kernel::bpf::hook::clsact_is_free;
use crate::kernel::bpf::{self, Attachment};
use crate::kernel::netlink::Netlink;
use crate::own::stage::Staged;
use crate::own::{AttachmentPlace, Ledger, Owned, Trace, keep_pinned};
use crate::program::router::{self, Attach, Keeper, Match, Policy, Taken, Wanted};
use crate::{Error, Result};

/// One of a set, in which no two match the same.
struct ByMatch(Policy);

impl Hash for ByMatch {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.matching.hash(hasher);
    }
}

impl PartialEq for ByMatch {
    fn eq(&self, other: &ByMatch) -> bool {
        self.0.matching == other.0.matching
    }
}

impl Eq for ByMatch {}

impl Equivalent<ByMatch> for Match {
    fn equivalent(&self, other: &ByMatch) -> bool {
        *self == other.0.matching
    }
}

/// What a router is to be at the commit.
pub struct Waiting {
    policies: IndexSet<ByMatch, FxBuildHasher>,
    default: Option<Policy>,
    attach: Vec<Attach>,
    /// Where the script names the router, and where it gave the policies.
    site: Option<Site>,
    set_site: Option<Site>,
    /// The script has detached it again.
    dropped: bool,
}

impl Waiting {
    pub fn new(default: Option<Policy>, attach: Vec<Attach>, site: Option<Site>) -> Waiting {
        let set_site = site.clone();
        Waiting { policies: IndexSet::default(), default, attach, site, set_site, dropped: false }
    }

    /// # Errors
    /// ENODEV when the script has detached it; what can be refused without asking the kernel.
    pub fn set(&mut self, policies: Vec<Policy>, site: Option<Site>) -> Result<()> {
        self.check("router:set")?;
        let mut set = IndexSet::with_capacity_and_hasher(policies.len(), FxBuildHasher);
        for (at, policy) in policies.into_iter().enumerate() {
            policy.check().map_err(|e| e.operation("router:set"))?;
            let (first, is_new) = set.insert_full(ByMatch(policy));
            if !is_new {
                return Err(router::match_the_same(first, at, &set[first].0.matching));
            }
        }
        self.policies = set;
        self.set_site = site;
        Ok(())
    }

    /// # Errors
    /// As [`Waiting::set`].
    pub fn add(&mut self, policy: Policy, site: Option<Site>) -> Result<()> {
        self.check("router:add")?;
        policy.check().map_err(|e| e.operation("router:add"))?;
        self.policies.replace(ByMatch(policy));
        self.set_site = site;
        Ok(())
    }

    /// # Errors
    /// ENOENT when there is no such policy.
    pub fn remove(&mut self, matching: &Match) -> Result<()> {
        self.check("router:remove")?;
        match self.policies.shift_remove(matching) {
            true => Ok(()),
            false => Err(router::no_such_policy(matching)),
        }
    }

    pub fn clear(&mut self) -> Result<()> {
        self.check("router:clear")?;
        self.policies.clear();
        Ok(())
    }

    pub fn drop_it(&mut self) {
        self.dropped = true;
    }

    fn check(&self, op: &'static str) -> Result<()> {
        match self.dropped {
            true => Err(Error::new(op, "ENODEV", "the router has been detached")),
            false => Ok(()),
        }
    }

    pub fn wanted(&self) -> Wanted {
        Wanted {
            policies: self.policies.iter().map(|policy| policy.0.clone()).collect(),
            default: self.default.clone(),
            attach: self.attach.clone(),
        }
    }
}

/// A router about to become what waits.
pub struct Change {
    router: router::Router,
    waiting: Rc<RefCell<Waiting>>,
    book: Book,
    /// `router edge in netns r`
    text: String,
    resolved: RefCell<Option<Wanted>>,
    before: Option<Wanted>,
    taken: Taken,
}

impl Change {
    pub fn new(
        router: router::Router,
        waiting: Rc<RefCell<Waiting>>,
        book: Book,
        text: String,
    ) -> Change {
        let (resolved, before, taken) = (RefCell::default(), None, Taken::new());
        Change { router, waiting, book, text, resolved, before, taken }
    }

    fn resolve(&self) -> Result<Wanted> {
        let waiting = self.waiting.borrow();
        let mut wanted = waiting.wanted();
        self.router.resolve(&mut wanted).map_err(|e| e.at(waiting.set_site.clone()))?;
        Ok(wanted)
    }
}

impl Staged for Change {
    fn key(&self) -> String {
        format!("policies/{}", self.book.slot)
    }

    fn text(&self) -> String {
        let hooked = |wanted: &Wanted| {
            let now = self.router.hooks();
            now.len() == wanted.attach.len()
                && wanted.attach.iter().all(|a| now.iter().any(|b| a.same(b)))
        };
        match &*self.resolved.borrow() {
            Some(wanted) if !hooked(wanted) => format!("hooks and policies of {}", self.text),
            _ => format!("policies of {}", self.text),
        }
    }

    fn is_void(&self) -> bool {
        if self.waiting.borrow().dropped {
            return true;
        }
        let mut resolved = self.resolved.borrow_mut();
        if resolved.is_none() {
            // What is wrong is for `apply` to say.
            *resolved = self.resolve().ok();
        }
        resolved.as_ref().is_some_and(|wanted| self.router.is(wanted))
    }

    fn apply(&mut self) -> Result<()> {
        let wanted = match self.resolved.take() {
            Some(wanted) => wanted,
            None => self.resolve()?,
        };
        let turned = self
            .router
            .turn_into(wanted, &self.book)
            .map_err(|e| e.at(self.waiting.borrow().site.clone()))?;
        (self.before, self.taken) = (Some(turned.before), turned.taken);
        Ok(())
    }

    fn revert(&mut self) -> Result<()> {
        self.router.give_back(std::mem::take(&mut self.taken));
        match self.before.take() {
            Some(before) => self.router.turn_into(before, &self.book).map(drop),
            None => Ok(()),
        }
    }
}

/// Writes a router's attachments into the ledger, where they outlive the process: pinned links, and clsact's filters.
pub struct Book {
    ledger: Arc<Ledger>,
    pins: Option<PathBuf>,
    /// The slot of all of its attachments.
    slot: String,
    /// Where it is or was attached.
    places: RefCell<Vec<AttachmentPlace>>,
    /// Numbers of entries that are gone, by their keys: the same attachment again is the same entry.
    gone: RefCell<HashMap<String, u64>>,
}

impl Book {
    /// Of the router with this slot, which is to be attached to `places` (their hooks are not looked at).
    pub fn new(host: &Host, slot: String, mut places: Vec<AttachmentPlace>) -> Book {
        for (_, owned) in host.ledger.entries(|_, owned| is_of(owned, &slot)) {
            if let Owned::Attachment { place, .. } = owned {
                places.push(place);
            }
        }
        Book {
            ledger: Arc::clone(&host.ledger),
            pins: host.instance.pins.clone(),
            slot,
            places: RefCell::new(places),
            gone: RefCell::default(),
        }
    }

    /// Notes that this load wants the entries that are there, so that the commit leaves them.
    pub fn adopt(&self, host: &Host, wanted: impl Fn(&AttachmentPlace) -> bool) {
        for (_, owned) in self.ledger.entries(|_, owned| is_of(owned, &self.slot)) {
            if let Owned::Attachment { place, .. } = &owned
                && wanted(place)
            {
                host.stage.adopt(&owned.key());
            }
        }
    }

    /// Pins again what somebody else has unpinned.
    pub fn mend(&self, router: &router::Router) {
        for (attachment, owned) in self.entries_of(router) {
            let Owned::Attachment { place, pin: Some(path), .. } = &owned else { continue };
            if path.exists() {
                continue;
            }
            let (name, shown) = (router.name(), path.display());
            tracing::warn!(
                "the pin of router {name} on {}, {shown}, was removed by someone else; it is pinned again",
                place.link
            );
            if let Err(error) = keep_pinned(&attachment, path, place) {
                tracing::warn!("not pinned: {error}");
            }
        }
    }

    /// A live router's attachments, each with its entry.
    fn entries_of(&self, router: &router::Router) -> Vec<(Attachment, Owned)> {
        let entries = self.ledger.entries(|_, owned| is_of(owned, &self.slot));
        let is = |attachment: &Attachment, owned: &Owned| {
            let Owned::Attachment { place, .. } = owned else { return false };
            attachment.hook() == place.hook
                && attachment.target().is_ok_and(|target| {
                    target.index == place.index && target.netns.same(&place.netns.fd)
                })
        };
        let found = router.attachments().into_iter().filter_map(|attachment| {
            let (_, owned) = entries.iter().find(|(_, owned)| is(&attachment, owned))?;
            Some((attachment, owned.clone()))
        });
        found.collect()
    }

    /// Lets a new router go on where that of a dead process is, if its programs still stand on their hooks.
    pub fn inherit(&self, router: &router::Router) {
        let entries = self.ledger.entries(|_, owned| is_of(owned, &self.slot));
        let Some(there) = entries.iter().find_map(|(_, owned)| owned.find_mounted()) else {
            return;
        };
        if let Err(error) = router.inherit(&there.program()) {
            let name = router.name();
            tracing::warn!("router {name}: its counters and flows begin anew: {}", error.message());
        }
    }

    fn place(&self, attach: &Attach, hook: bpf::Hook) -> Option<AttachmentPlace> {
        let places = self.places.borrow();
        let same = |place: &&AttachmentPlace| {
            place.index == attach.target.index && place.netns.fd.same(&attach.target.netns)
        };
        let mut place = places.iter().find(same)?.clone();
        place.hook = hook;
        Some(place)
    }
}

/// Whether the entry is an attachment of the router with that slot.
pub fn is_of(owned: &Owned, slot: &str) -> bool {
    matches!(owned, Owned::Attachment { place, .. } if place.slot == slot)
}

/// Takes a router's attachments out of the ledger, which the router itself has detached.
pub fn forget(ledger: &Ledger, slot: &str) {
    for owned in ledger.forget_where(|owned| is_of(owned, slot)) {
        // Of a pinned link the pin is left.
        let _ = owned.undo();
    }
}

impl Keeper for Book {
    fn attaching(&self, attach: &Attach, hook: bpf::Hook) -> Result<Option<Attachment>> {
        let Some(place) = self.place(attach, hook) else { return Ok(None) };
        let pin = place.pin_in(self.pins.as_deref());
        if pin.is_none() && hook.family() != "tc" {
            return Ok(None);
        }
        let key = place.key();
        let mut number = None;
        if let Some((known, owned)) = self.ledger.by_key(&key) {
            if let Some(found) = owned.find_mounted() {
                return Ok(Some(found));
            }
            number = Some(known);
        }
        let number = number.or_else(|| self.gone.borrow_mut().remove(&key));
        let number = number.unwrap_or_else(|| self.ledger.reserve());
        let mut trace = Trace::default();
        if hook.is_clsact() {
            let target = place.target();
            trace.qdisc = clsact_is_free(&Netlink::open(&target.netns)?, &target)?;
        }
        let owned = Owned::Attachment { place, pin, filter: None, trace, mounted: None };
        self.ledger.intend(number, &owned)?;
        Ok(None)
    }

    fn attached(&self, attach: &Attach, hook: bpf::Hook, attachment: &Attachment) -> Result<()> {
        let Some(place) = self.place(attach, hook) else { return Ok(()) };
        let Some((number, owned)) = self.ledger.by_key(&place.key()) else { return Ok(()) };
        let Owned::Attachment { place, pin, trace, .. } = owned else { return Ok(()) };
        if let Some(path) = &pin {
            keep_pinned(attachment, path, &place)?;
        }
        let filter = attachment.filter_place();
        let owned = Owned::Attachment { place, pin, filter, trace, mounted: None };
        self.ledger.settle(number, owned);
        Ok(())
    }

    fn detached(&self, attach: &Attach, hook: bpf::Hook) {
        let Some(place) = self.place(attach, hook) else { return };
        let Some((number, _)) = self.ledger.by_key(&place.key()) else { return };
        if let Some(Owned::Attachment { pin: Some(path), .. }) = self.ledger.forget(number) {
            let _ = std::fs::remove_file(path);
        }
        self.gone.borrow_mut().insert(place.key(), number);
    }
}
