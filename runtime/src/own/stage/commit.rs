//! The commit: what a load has staged is made in order, and taken back in reverse when one of it is refused; then what nobody
//! wants any more is deleted.

use std::collections::HashMap;

use super::{Deed, Difference, Stage, Staged};
use crate::kernel::link::Things;
use crate::kernel::netlink::Netlink;
use crate::kernel::route;
use crate::own::deed::{self, Place};
use crate::own::ledger::Ledger;
use crate::own::owned::Owned;
use crate::{Error, Result};

impl Stage {
    /// Makes the live network what this load has said: first all that can fail, in order; then what is not wanted any
    /// more is deleted.
    ///
    /// # Errors
    /// The first refusal, with the line that asked for it; then everything is as it was before the commit.
    pub fn commit(&self) -> Result<Difference> {
        let again = self.check_ways()?;
        self.touched().into_iter().for_each(|cookie| self.mend(cookie));
        let mut difference = self.difference();
        self.hooks.tell_foreign(&self.ledger);
        let mut sockets = Sockets::default();
        let mut done: Vec<Done> = Vec::new();
        for mut action in self.actions.take() {
            match &action.deed {
                Deed::Put { new, .. } => self.shake(new),
                Deed::Other(staged) => self.shaken.borrow_mut().extend(staged.shakes()),
            }
            self.hand_over(&action.deed, &mut done);
            let mut applied = action.deed.apply(&self.ledger, &mut sockets);
            if applied.is_err() && self.unset(&action.deed, &mut done) {
                applied = action.deed.apply(&self.ledger, &mut sockets);
            }
            match applied {
                Ok(one) => done.push(one),
                Err(error) => {
                    let mut error = action.said.tell(error);
                    if let Deed::Put { new, .. } = &action.deed {
                        error = error.about(new.to_string());
                    }
                    for one in done.into_iter().rev() {
                        if let Err(error) = one.revert(&self.ledger, &mut sockets) {
                            tracing::error!("could not be taken back: {error}");
                        }
                    }
                    return Err(error);
                }
            }
        }
        let named = self.named.borrow().clone();
        let unwanted = |number: u64, _: &Owned| self.is_older(number) && !named.contains(&number);
        self.forget_own(unwanted);
        self.ledger.entries(unwanted).iter().for_each(|(_, owned)| self.shake(owned));
        let removed = self.ledger.tear_down_where(unwanted);
        for failure in &removed.failures {
            tracing::warn!("not removed: {failure}");
        }
        self.put_again(&again, &mut sockets);
        difference.lost = self.put_back(&mut sockets);
        self.go_live();
        Ok(difference)
    }

    /// A link or an address that goes, or goes down, takes routes with it that are still wanted.
    pub(super) fn shake(&self, owned: &Owned) {
        if matches!(
            owned,
            Owned::Link { .. }
                | Owned::LinkSetting { .. }
                | Owned::Address { .. }
                | Owned::DeletedAddress { .. }
        ) {
            self.shaken.borrow_mut().extend(owned.netns().map(|netns| netns.cookie));
        }
    }

    /// An address that was added to a link, and is said with the link now, stays where it is: the link's entry takes it over.
    fn hand_over(&self, deed: &Deed, done: &mut Vec<Done>) {
        let Deed::Put { new, old: Some(to), .. } = deed else { return };
        let (Owned::Link { end, .. }, Some(place)) = (&**new, new.link()) else { return };
        let named = self.named.borrow();
        let given = self.ledger.entries(|number, owned| {
            let Owned::Address { address, .. } = owned else { return false };
            let unwanted = self.is_older(number) && !named.contains(&number);
            unwanted && owned.link() == Some(place) && end.addresses.contains(address)
        });
        for (number, owned) in given {
            let Some(before) = self.ledger.get(*to) else { return };
            let mut link = before.clone();
            if let (Owned::Link { end, .. }, Owned::Address { address, .. }) = (&mut link, &owned) {
                end.addresses.push(*address);
            }
            self.ledger.settle(*to, link);
            self.ledger.forget(number);
            let (owned, to) = (Box::new(owned), Box::new((*to, before)));
            done.push(Done::HandedOver { number, owned, to });
        }
    }

    /// What was refused can need a link up again, or its MTU, that this load sets no more: such settings of the namespace are
    /// undone now instead of last. Whether there were any.
    fn unset(&self, deed: &Deed, done: &mut Vec<Done>) -> bool {
        let Deed::Put { new, .. } = deed else { return false };
        if !matches!(**new, Owned::Route { .. } | Owned::Neigh { .. } | Owned::Address { .. }) {
            return false;
        }
        let cookie = new.netns().map(|netns| netns.cookie);
        let named = self.named.borrow();
        let settings = self.ledger.entries(|number, owned| {
            matches!(owned, Owned::LinkSetting { .. })
                && self.is_older(number)
                && !named.contains(&number)
                && owned.netns().map(|netns| netns.cookie) == cookie
        });
        let before = done.len();
        for (number, owned) in settings.into_iter().rev() {
            // One that cannot be is told of when it is tried again, last.
            if owned.undo().is_ok() {
                self.shake(&owned);
                self.ledger.forget(number);
                done.push(Done::Unset { number, owned: Box::new(owned) });
            }
        }
        done.len() > before
    }

    /// Settings that take routes, neighbours or addresses away bring them back when they are undone: not those of this
    /// instance. Its routes and neighbours are put back as long as they are wanted, its addresses if they still are.
    fn forget_own(&self, unwanted: impl Fn(u64, &Owned) -> bool) {
        let takes = |_: u64, owned: &Owned| owned.lost().is_some_and(|lost| !lost.is_empty());
        let takers = self.ledger.entries(takes);
        if takers.is_empty() {
            return;
        }
        let mut own: HashMap<u64, Things> = HashMap::new();
        for (number, owned) in self.ledger.entries(|_, owned| owned.netns().is_some()) {
            let things = own.entry(owned.netns().map_or(0, |netns| netns.cookie)).or_default();
            match &owned {
                Owned::Route { route, .. } => things.add_route(route),
                Owned::Neigh { neigh, .. } => things.add_neighbour(neigh),
                Owned::Address { index, address, .. } if unwanted(number, &owned) => {
                    things.add_address(*index, *address);
                }
                _ => {}
            }
        }
        for (number, mut owned) in takers {
            let things = owned.netns().and_then(|netns| own.get(&netns.cookie));
            if let (Some(things), Some(lost)) = (things, owned.lost_mut()) {
                lost.drop_all(things);
                self.ledger.settle(number, owned);
            }
        }
    }

    /// Has the kernel look for the gateways of routes anew, since another link leads to them now.
    fn put_again(&self, numbers: &[u64], sockets: &mut Sockets) {
        for owned in numbers.iter().filter_map(|number| self.ledger.get(*number)) {
            let Owned::Route { route, .. } = &owned else { continue };
            let put = sockets.of(&owned).and_then(|netlink| route::replace(netlink, route));
            // One that is gone by now is put back, or told of, below.
            if let Err(error) = put {
                tracing::debug!("{owned} as it was: {error}");
            }
        }
    }

    /// Puts back the routes and neighbours that went with something else and are still wanted. What cannot be: it is owned
    /// no more, so that the next load makes it again or says why not.
    fn put_back(&self, sockets: &mut Sockets) -> Vec<String> {
        let mut lost = Vec::new();
        for cookie in self.shaken.take() {
            let wanted = self.ledger.entries(|_, owned| {
                matches!(owned, Owned::Route { .. } | Owned::Neigh { .. })
                    && owned.netns().is_some_and(|netns| netns.cookie == cookie)
            });
            let Some((_, one)) = wanted.first() else { continue };
            let found = sockets.of(one).and_then(|netlink| {
                let all = wanted.iter().map(|(_, owned)| owned);
                Ok((netlink, deed::missing(netlink, all)?))
            });
            let (netlink, missing) = match found {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!("routes are not looked after: {error}");
                    continue;
                }
            };
            let place = Place { netlink, ours: true, repair: true };
            for (number, owned) in
                wanted.iter().filter(|(_, owned)| missing.iter().any(|m| std::ptr::eq(*m, owned)))
            {
                if let Err(error) = owned.clone().put(None, &place) {
                    lost.push(format!("{owned} is gone: {}", error.message()));
                    self.ledger.forget(*number);
                }
            }
        }
        lost
    }
}

/// Sockets in the namespaces that a commit visits.
#[derive(Default)]
struct Sockets(HashMap<u64, Netlink>);

impl Sockets {
    fn of(&mut self, owned: &Owned) -> Result<&Netlink> {
        let netns = owned
            .netns()
            .ok_or_else(|| Error::new("", "EINVAL", format!("{owned} is in no namespace")))?;
        match self.0.entry(netns.cookie) {
            std::collections::hash_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let netlink = Netlink::open(&netns.fd)?;
                Ok(vacant.insert(match netns.name.as_str() {
                    "" => netlink,
                    name => netlink.with_label(name),
                }))
            }
        }
    }
}

/// A change that was made, and what it takes to take it back.
enum Done {
    Put {
        number: u64,
        old: Option<Box<(u64, Owned)>>,
    },
    Other(Box<dyn Staged>),
    /// A setting was undone that was to be undone last.
    Unset {
        number: u64,
        owned: Box<Owned>,
    },
    /// An entry went into another, which was this before.
    HandedOver {
        number: u64,
        owned: Box<Owned>,
        to: Box<(u64, Owned)>,
    },
    Nothing,
}

impl Deed {
    fn apply(&mut self, ledger: &Ledger, sockets: &mut Sockets) -> Result<Done> {
        match self {
            Deed::Put { number, new, old } => {
                let before = old.and_then(|old| Some((old, ledger.get(old)?)));
                put(
                    ledger,
                    *number,
                    new,
                    before.as_ref().map(|(n, _)| *n),
                    sockets.of(new)?,
                    true,
                )?;
                Ok(Done::Put { number: *number, old: before.map(Box::new) })
            }
            Deed::Other(_) => {
                let Deed::Other(mut staged) = std::mem::replace(self, Deed::Other(Box::new(Void)))
                else {
                    return Ok(Done::Nothing);
                };
                if staged.is_void() {
                    return Ok(Done::Nothing);
                }
                staged.apply()?;
                Ok(Done::Other(staged))
            }
        }
    }
}

/// Nothing to do.
struct Void;

impl Staged for Void {
    fn key(&self) -> String {
        String::new()
    }
    fn text(&self) -> String {
        String::new()
    }
    fn apply(&mut self) -> Result<()> {
        Ok(())
    }
    fn revert(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Done {
    fn revert(self, ledger: &Ledger, sockets: &mut Sockets) -> Result<()> {
        match self {
            Done::Nothing => Ok(()),
            Done::Other(mut staged) => staged.revert(),
            Done::Unset { number, mut owned } => {
                let netlink = sockets.of(&owned)?;
                put(ledger, number, &mut owned, None, netlink, true)
            }
            Done::HandedOver { number, owned, to } => {
                ledger.settle(to.0, to.1);
                ledger.intend(number, &owned)
            }
            Done::Put { number, old: None } => match ledger.forget(number) {
                Some(owned) => owned.undo(),
                None => Ok(()),
            },
            Done::Put { number, old: Some(old) } => {
                let (old, mut before) = *old;
                let Some(new) = ledger.get(number) else { return Ok(()) };
                let place = place(ledger, &before, sockets.of(&before)?, true);
                before.put(Some(&new), &place)?;
                ledger.forget(number);
                ledger.intend(old, &before)
            }
        }
    }
}

fn place<'a>(ledger: &Ledger, owned: &Owned, netlink: &'a Netlink, repair: bool) -> Place<'a> {
    let netns = owned.netns().and_then(|netns| ledger.owns_netns(netns.cookie));
    let link = owned.link().and_then(|place| ledger.owns_link(place));
    Place { netlink, ours: netns.is_some() || link.is_some(), repair }
}

/// Looks, writes it down, acts. In the place of `old`, whose entry goes.
pub(super) fn put(
    ledger: &Ledger,
    number: u64,
    new: &mut Owned,
    old: Option<u64>,
    netlink: &Netlink,
    repair: bool,
) -> Result<()> {
    let before = old.and_then(|old| ledger.get(old));
    let namesake = ledger.by_key(&new.key()).map(|(number, _)| number);
    let place = place(ledger, new, netlink, repair);
    new.prepare(before.as_ref(), &place)?;
    ledger.intend(number, new)?;
    match new.put(before.as_ref(), &place) {
        Ok(()) => {
            ledger.settle(number, new.clone());
            if let Some(old) = old.filter(|old| *old != number) {
                ledger.forget(old);
                ledger.rekey(number);
            }
            Ok(())
        }
        Err(error) => {
            match (old, before) {
                // Under the same number: it is still what it was.
                (Some(old), Some(before)) if old == number => ledger.settle(number, before),
                _ => {
                    ledger.forget(number);
                    namesake.into_iter().for_each(|number| ledger.rekey(number));
                }
            }
            Err(error)
        }
    }
}
