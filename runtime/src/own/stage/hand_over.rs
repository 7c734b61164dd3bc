//! An address that stays where it is while the script says it elsewhere: with the link's constructor now and by itself before,
//! or the other way round. Only the entry that has it changes; the kernel is told nothing, so no route loses its way.

use std::collections::HashMap;

use ipnetwork::IpNetwork;

use super::commit::Done;
use super::{Action, Deed, Stage};
use crate::Result;
use crate::own::ledger::Ledger;
use crate::own::owned::{LinkEnd, LinkPlace, Owned};

/// One such address.
pub(super) struct HandOver {
    pub(super) place: LinkPlace,
    pub(super) address: IpNetwork,
    /// The link's entry.
    link: u64,
    /// The entry of the address by itself: one that is there, or waits for the commit.
    own: u64,
    /// From the entry of its own into the link's.
    into_link: bool,
    /// What waits to become that entry.
    waiting: Option<Owned>,
}

/// Those of a load.
pub(super) struct HandOvers(pub(super) Vec<HandOver>);

impl Stage {
    /// The addresses that only change their entries.
    pub(super) fn hand_overs(&self) -> HandOvers {
        let (named, actions) = (self.named.borrow(), self.actions.borrow());
        let mut ends: HashMap<u64, &LinkEnd> = HashMap::new();
        let mut found = Vec::new();
        for action in &*actions {
            match &action.deed {
                Deed::Put { number, new, old } => match (&**new, old) {
                    (Owned::Link { end, .. }, Some(_)) => drop(ends.insert(*number, end)),
                    (Owned::Address { .. }, None) => {
                        found.push((*number, (**new).clone(), Some((**new).clone())));
                    }
                    _ => {}
                },
                Deed::Other(_) => {}
            }
        }
        // One that is said by itself again can only have been the link's, too, when a process died in the middle of this.
        let is_told = |number, owned: &Owned| {
            matches!(owned, Owned::Address { .. })
                && self.is_older(number)
                && !(named.contains(&number) && ends.is_empty())
        };
        let there = self.ledger.entries(is_told);
        found.extend(there.into_iter().map(|(number, owned)| (number, owned, None)));
        let hand_over = |(own, owned, waiting): (u64, Owned, Option<Owned>)| {
            let (Owned::Address { address, .. }, Some(place)) = (&owned, owned.link()) else {
                return None;
            };
            let link = self.ledger.owns_link(place)?;
            let Some(Owned::Link { end, .. }) = self.ledger.get(link) else { return None };
            let stays = named.contains(&link) || !self.is_older(link);
            let before = end.addresses.contains(address);
            let after = ends.get(&link).map_or(before, |end| end.addresses.contains(address));
            let by_itself = waiting.is_some() || named.contains(&own);
            let moves = if by_itself { before && !after } else { after };
            let (address, into_link) = (*address, !by_itself);
            (stays && moves).then_some(HandOver { place, address, link, own, into_link, waiting })
        };
        HandOvers(found.into_iter().filter_map(hand_over).collect())
    }

    /// The entry of an address that is one by itself, or waits to be; none for the link's, as this load has said it.
    pub fn own_address(&self, owned: &Owned) -> Option<u64> {
        let (key, Owned::Address { address, .. }) = (owned.key(), owned) else { return None };
        let waits = self.actions.borrow().iter().find_map(|action| match action.deed {
            Deed::Put { number, .. } if action.key == key => Some(number),
            _ => None,
        });
        let link = owned.link().and_then(|place| self.ledger.owns_link(place));
        let link = link.filter(|link| !self.is_older(*link) || self.has_named(*link));
        let says = |link: u64| match self.waiting(link).or_else(|| self.ledger.get(link)) {
            Some(Owned::Link { end, .. }) => end.addresses.contains(address),
            _ => false,
        };
        let there = || self.ledger.by_key(&key).map(|(number, _)| number);
        let is_its_own = |number: &u64| {
            !self.is_older(*number) || self.has_named(*number) || !link.is_some_and(says)
        };
        waits.or_else(|| there().filter(is_its_own))
    }

    /// Gives each such address its other entry. What was to change in nothing else waits no more.
    ///
    /// # Errors
    /// ENOSPC and its like when it cannot be written down.
    pub(super) fn hand_over(&self, done: &mut Vec<Done>) -> Result<()> {
        let all = self.hand_overs();
        let is_all = |action: &mut Action| match &action.deed {
            Deed::Put { number, new, .. } => all.is_all_of(&self.ledger, *number, new),
            Deed::Other(_) => false,
        };
        let settled: Vec<Action> = self.actions.borrow_mut().extract_if(.., is_all).collect();
        for one in &all.0 {
            let Some(before) = self.ledger.get(one.link) else { continue };
            let mut after = before.clone();
            one.apply(&mut after);
            // In between it is written down at both places: a load after a crash tells which it is.
            if let Some(own) = &one.waiting {
                self.ledger.intend(one.own, own)?;
                done.push(Done::Entry { number: one.own, before: None });
            }
            self.ledger.settle(one.link, after);
            done.push(Done::Entry { number: one.link, before: Some(Box::new(before)) });
            if one.into_link {
                let before = self.ledger.forget(one.own).map(Box::new);
                done.push(Done::Entry { number: one.own, before });
            }
        }
        for action in settled {
            if let Deed::Put { number, new, .. } = action.deed {
                self.ledger.settle(number, *new);
            }
        }
        Ok(())
    }
}

impl HandOvers {
    /// Whether that entry of an address goes into its link's.
    pub(super) fn takes(&self, number: u64) -> bool {
        self.0.iter().any(|one| one.into_link && one.own == number)
    }

    /// Whether an entry that is to become `new` changes in nothing else.
    pub(super) fn is_all_of(&self, ledger: &Ledger, number: u64, new: &Owned) -> bool {
        let mine = |one: &&HandOver| one.link == number;
        match new {
            Owned::Address { .. } => self.0.iter().any(|one| one.own == number),
            Owned::Link { .. } if self.0.iter().any(|one| mine(&one)) => {
                let Some(mut link) = ledger.get(number) else { return false };
                self.0.iter().filter(mine).for_each(|one| one.apply(&mut link));
                sorted(link).same(&sorted(new.clone()))
            }
            _ => false,
        }
    }
}

impl HandOver {
    /// What becomes of the link's entry.
    fn apply(&self, link: &mut Owned) {
        let Owned::Link { end, .. } = link else { return };
        end.addresses.retain(|address| *address != self.address);
        if self.into_link {
            end.addresses.push(self.address);
        }
    }
}

/// The order of addresses counts only where they are put on the link.
fn sorted(mut link: Owned) -> Owned {
    if let Owned::Link { end, .. } = &mut link {
        end.addresses.sort();
    }
    link
}
