//! The commit: what a load has staged is made in order, and taken back in reverse when one of it is refused; then what nobody
//! wants any more is deleted.

use std::collections::HashMap;

use ipnetwork::IpNetwork;

use super::room::{Alone, connect};
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
        let less = self.make(&mut done, &mut sockets).inspect_err(|_| {
            for one in done.drain(..).rev() {
                if let Err(error) = one.revert(&self.ledger, &mut sockets) {
                    tracing::error!("could not be taken back: {error}");
                }
            }
            for (_, owned, why) in self.make_again(&mut sockets) {
                tracing::debug!("{owned} is not there: {why}");
            }
        })?;
        for (number, mut owned) in less {
            let trimmed = sockets.of(&owned).and_then(|netlink| {
                let place = place(&self.ledger, &owned, netlink, true);
                put(&self.ledger, number, &mut owned, Some(number), &place)
            });
            if let Err(failure) = trimmed {
                tracing::warn!("not removed: {failure}");
            }
        }
        let named = self.named.borrow().clone();
        let unwanted = |number: u64, _: &Owned| self.is_older(number) && !named.contains(&number);
        self.forget_own(unwanted);
        let gone = self.ledger.entries(unwanted);
        gone.iter().for_each(|(_, owned)| self.shake(owned));
        let removed = self.ledger.tear_down_where(unwanted);
        for failure in &removed.failures {
            tracing::warn!("not removed: {failure}");
        }
        connect(&gone, &mut sockets);
        self.put_again(&again, &mut sockets);
        difference.lost = self.put_back(&mut sockets);
        self.go_live();
        Ok(difference)
    }

    /// All that can fail, in order; what is only to be less is left for later, as it is to be then.
    fn make(&self, done: &mut Vec<Done>, sockets: &mut Sockets) -> Result<Vec<(u64, Owned)>> {
        let going = self.going();
        self.hand_over(done)?;
        let actions = self.actions.take();
        let alone = Alone::of(&actions);
        let mut less = Vec::new();
        for mut action in actions {
            match &action.deed {
                Deed::Put { new, .. } => self.shake(new),
                Deed::Other(staged) => self.shaken.borrow_mut().extend(staged.shakes()),
            }
            less.extend(self.keep_addresses(&mut action.deed, &alone));
            let mut applied = action.deed.apply(&self.ledger, sockets);
            if let Err(error) = &applied
                && self.make_room(error, &action.deed, done)
            {
                applied = action.deed.apply(&self.ledger, sockets);
            }
            if let (Err(error), Deed::Put { number, new, old: None }) = (&applied, &mut action.deed)
                && error.is("EEXIST")
                && let Some(gone) = going.gives_way(new, sockets)?
            {
                applied = put_over(&self.ledger, *number, new, gone, sockets);
            }
            done.push(applied.map_err(|error| {
                let error = action.said.tell(error);
                match &action.deed {
                    Deed::Put { new, .. } => error.about(new.to_string()),
                    Deed::Other(_) => error,
                }
            })?);
        }
        Ok(less)
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
                // The link's own, which its constructor does not say any more.
                Owned::DeletedAddress { index, address, .. }
                    if self.is_bare_of(&owned, address) =>
                {
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

    /// Whether the link of `owned` is one of this instance's, and nothing says that address of it.
    fn is_bare_of(&self, owned: &Owned, address: &IpNetwork) -> bool {
        let place = owned.link();
        let says = |owned: &Owned| match owned {
            Owned::Link { end, .. } => owned.link() == place && end.addresses.contains(address),
            Owned::Address { address: one, .. } => owned.link() == place && one == address,
            _ => false,
        };
        place.is_some_and(|place| self.ledger.owns_link(place).is_some()) && !self.ledger.any(says)
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
        let lost = self.make_again(sockets).into_iter().map(|(number, owned, error)| {
            self.ledger.forget(number);
            format!("{owned} is gone: {}", error.message())
        });
        lost.collect()
    }

    /// Makes routes and neighbours again that are owned and not there, where something went. Those that cannot be.
    fn make_again(&self, sockets: &mut Sockets) -> Vec<(u64, Owned, Error)> {
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
            let place = Place { netlink, ours: true, repair: true, over: false };
            for (number, owned) in
                wanted.iter().filter(|(_, owned)| missing.iter().any(|m| std::ptr::eq(*m, owned)))
            {
                if let Err(error) = owned.clone().put(None, &place) {
                    lost.push((*number, owned.clone(), error));
                }
            }
        }
        lost
    }
}

/// Sockets in the namespaces that a commit visits.
#[derive(Default)]
pub(super) struct Sockets(HashMap<u64, Netlink>);

impl Sockets {
    pub(super) fn of(&mut self, owned: &Owned) -> Result<&Netlink> {
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
pub(super) enum Done {
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
    /// Only what is written down has changed: it was this, or not there.
    Entry {
        number: u64,
        before: Option<Box<Owned>>,
    },
    /// A route is where one of the kernel's own was.
    Over {
        number: u64,
        gone: Box<route::Options>,
    },
    Nothing,
}

impl Deed {
    fn apply(&mut self, ledger: &Ledger, sockets: &mut Sockets) -> Result<Done> {
        match self {
            Deed::Put { number, new, old } => {
                let before = old.and_then(|old| Some((old, ledger.get(old)?)));
                let place = place(ledger, new, sockets.of(new)?, true);
                put(ledger, *number, new, before.as_ref().map(|(n, _)| *n), &place)?;
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
                let place = place(ledger, &owned, sockets.of(&owned)?, true);
                put(ledger, number, &mut owned, None, &place)
            }
            Done::Entry { number, before: Some(before) } => {
                ledger.settle(number, *before);
                Ok(())
            }
            Done::Entry { number, before: None } => {
                ledger.forget(number);
                Ok(())
            }
            Done::Over { number, gone } => match ledger.forget(number) {
                Some(owned) => route::replace(sockets.of(&owned)?, &gone),
                None => Ok(()),
            },
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

/// A route, where one of the kernel's own is that is about to go.
fn put_over(
    ledger: &Ledger,
    number: u64,
    new: &mut Owned,
    gone: route::Options,
    sockets: &mut Sockets,
) -> Result<Done> {
    let place = Place { over: true, ..place(ledger, new, sockets.of(new)?, true) };
    put(ledger, number, new, None, &place)?;
    Ok(Done::Over { number, gone: Box::new(gone) })
}

pub(super) fn place<'a>(
    ledger: &Ledger,
    owned: &Owned,
    netlink: &'a Netlink,
    repair: bool,
) -> Place<'a> {
    let netns = owned.netns().and_then(|netns| ledger.owns_netns(netns.cookie));
    let link = owned.link().and_then(|place| ledger.owns_link(place));
    Place { netlink, ours: netns.is_some() || link.is_some(), repair, over: false }
}

/// Looks, writes it down, acts. In the place of `old`, whose entry goes.
pub(super) fn put(
    ledger: &Ledger,
    number: u64,
    new: &mut Owned,
    old: Option<u64>,
    place: &Place<'_>,
) -> Result<()> {
    let before = old.and_then(|old| ledger.get(old));
    let namesake = ledger.by_key(&new.key()).map(|(number, _)| number);
    new.prepare(before.as_ref(), place)?;
    ledger.intend(number, new)?;
    match new.put(before.as_ref(), place) {
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
