//! A router made into another: new policies, another default, other hooks, in one step that either happens or does not.

use super::instance::Router;
use super::policy::Match;
use super::programs::Place;
use super::spec::{Attach, Hooked, Keeper, Wanted};
use crate::kernel::bpf::{Attachment, Program};
use crate::{Error, Result};

const OP: &str = "policy.router";

/// Attachments of a process before this one that a router has put its programs into, and what ran there.
pub type Taken = Vec<(Attachment, Program)>;

/// What a router was before it became another.
pub struct Turned {
    pub before: Wanted,
    pub taken: Taken,
}

impl Router {
    /// Where its programs are.
    pub fn hooks(&self) -> Vec<Attach> {
        self.hooked().iter().map(|hooked| hooked.attach.clone()).collect()
    }

    /// Fills in the devices that `wanted`, of whose policies no two match the same, leaves to the kernel's routes.
    ///
    /// # Errors
    /// As [`Router::set`]; EINVAL for a default policy that matches something.
    pub fn resolve(&self, wanted: &mut Wanted) -> Result<()> {
        if let Some(policy) = &mut wanted.default {
            if policy.matching != Match::default() {
                return Err(Error::invalid(OP, "the default policy matches everything")
                    .subject(policy.to_string())
                    .hint("leave out what it matches, or give it to set()"));
            }
            self.prepare(std::slice::from_mut(policy)).map_err(|e| e.operation(OP))?;
        }
        self.prepare(&mut wanted.policies)
    }

    /// Whether there is nothing to do to become `wanted`, which is resolved.
    pub fn is(&self, wanted: &Wanted) -> bool {
        {
            let sets = self.sets();
            if sets.policies != wanted.policies || sets.fallback != wanted.default {
                return false;
            }
        }
        let hooked = self.hooked();
        hooked.len() == wanted.attach.len()
            && wanted.attach.iter().all(|a| hooked.iter().any(|h| h.attach.same(a) && h.is_there()))
    }

    /// Becomes `wanted`, which is resolved: hooks that stay keep their programs, the policies flip at once, new hooks
    /// follow, and those that are gone from the list are left last. What a process before this one has attached is taken
    /// over, its program replaced in place.
    ///
    /// # Errors
    /// As [`Place::look`], bpf loading and attaching, and [`Router::set`]; nothing has changed then.
    pub fn turn_into(&self, wanted: Wanted, keeper: &dyn Keeper) -> Result<Turned> {
        let places: Vec<Place> = wanted
            .attach
            .iter()
            .map(|attach| Place::look(&self.0.netlink, attach))
            .collect::<Result<_>>()?;
        self.0.programs.have(&places)?;
        let mut hooked = self.hooked();
        let links = &self.0.links;
        let ways = links.pass_by(&places)?;
        let mut sets = self.sets();
        let old_default = std::mem::replace(&mut sets.fallback, wanted.default);
        let old_policies = match sets.apply(links, wanted.policies) {
            Ok(old) => old,
            Err(error) => {
                sets.fallback = old_default;
                links.restore(ways);
                return Err(error);
            }
        };
        let before = hooked.iter().map(|one| one.attach.clone()).collect();
        let count = hooked.len();
        let mut taken = Taken::new();
        for place in &places {
            let found = hooked.iter().position(|h| h.attach.same(&place.attach));
            if let Some(found) = found {
                if hooked[found].is_there() {
                    continue;
                }
                tracing::warn!(
                    "router {} was taken off {} {} by someone else; it is attached again",
                    self.name(),
                    place.attach.target.name,
                    place.attach.hook
                );
            }
            match self.mount(place, keeper, &mut taken) {
                Ok(one) => hooked.push(one),
                Err(error) => {
                    for one in hooked.drain(count..).rev() {
                        one.leave(keeper, &mut taken);
                    }
                    sets.fallback = old_default;
                    links.restore(ways);
                    if let Err(error) = sets.apply(links, old_policies) {
                        tracing::error!("router {}: could not be taken back: {error}", self.name());
                    }
                    return Err(error);
                }
            }
        }
        let added = hooked.split_off(count);
        let stays = |h: &Hooked| wanted.attach.iter().any(|a| h.attach.same(a));
        let again = |h: &Hooked| added.iter().any(|new| new.attach.same(&h.attach));
        for gone in hooked.extract_if(.., |h| !stays(h) || again(h)) {
            // One that was taken off by someone else has an entry of the new one's by now.
            match stays(&gone) {
                true => drop(gone.attachment.detach()),
                false => gone.leave(keeper, &mut Taken::new()),
            }
        }
        hooked.extend(added);
        let before = Wanted { policies: old_policies, default: old_default, attach: before };
        Ok(Turned { before, taken })
    }

    /// Gives what was taken over back to its process's programs, which packets flow through again.
    pub fn give_back(&self, taken: Taken) {
        let mut hooked = self.hooked();
        for (attachment, program) in taken {
            let same = |h: &Hooked| h.attachment.is(&attachment);
            hooked.retain(|h| !same(h));
            if let Err(error) = attachment.replace(&program) {
                tracing::error!("router {}: could not be taken back: {error}", self.name());
            }
        }
    }

    fn mount(&self, place: &Place, keeper: &dyn Keeper, taken: &mut Taken) -> Result<Hooked> {
        let program = self.0.programs.get(place.program)?;
        let hooked =
            |attachment| Hooked { attach: place.attach.clone(), hook: place.hook, attachment };
        if let Some(attachment) = keeper.attaching(&place.attach, place.hook)? {
            let before = attachment.program();
            match attachment.replace(&program) {
                Ok(()) => {
                    taken.push((attachment.clone(), before));
                    return Ok(hooked(attachment));
                }
                // Its device is another one now, or somebody took it off.
                Err(error) => tracing::debug!("{error}; attached anew"),
            }
        }
        let attached = place.attach(&program).inspect_err(|_| {
            keeper.detached(&place.attach, place.hook);
        })?;
        if let Err(error) = keeper.attached(&place.attach, place.hook, &attached) {
            let _ = attached.detach();
            keeper.detached(&place.attach, place.hook);
            return Err(error);
        }
        Ok(hooked(attached))
    }
}

impl Hooked {
    fn is_there(&self) -> bool {
        self.attachment.info().is_ok_and(|info| info.index != 0)
    }

    /// Takes the program off, or gives the hook back to what ran there before.
    fn leave(self, keeper: &dyn Keeper, taken: &mut Taken) {
        if let Some(at) = taken.iter().position(|(a, _)| a.is(&self.attachment)) {
            let (attachment, program) = taken.swap_remove(at);
            let _ = attachment.replace(&program);
            return;
        }
        if let Err(error) = self.attachment.detach() {
            tracing::debug!("{error}");
        }
        keeper.detached(&self.attach, self.hook);
    }
}

impl Attach {
    /// The same hook of the same link.
    pub fn same(&self, other: &Attach) -> bool {
        self.hook == other.hook
            && self.target.index == other.target.index
            && self.target.netns.same(&other.target.netns)
    }
}
