//! Who else uses our hooks: the kernel counts the changes of a tcx or netkit hook, so those of others show. They are
//! reported and left as they are.

use std::cell::RefCell;
use std::collections::HashMap;

use super::ledger::Ledger;
use super::owned::{LinkPlace, Owned};
use crate::kernel::bpf::hook::{self, Hook};

/// The hooks that have attachments of ours, and the revision at which each was left.
#[derive(Default)]
pub struct Hooks(RefCell<HashMap<(LinkPlace, Hook), u64>>);

impl Hooks {
    /// Before a commit: says which of them somebody else has changed since [`Hooks::note`].
    pub fn tell_foreign(&self, ledger: &Ledger) {
        if self.0.borrow().is_empty() {
            return;
        }
        each(ledger, |place, hook, target| {
            let known = self.0.borrow().get(&(place, hook)).copied();
            let Ok(now) = hook::query(target, hook) else { return };
            if known.is_some_and(|known| known != now.revision) {
                tracing::warn!(
                    "someone else changed the programs on {} {} of {} (revision {}, was {}); theirs are left as they are",
                    hook.family(),
                    hook.side(),
                    target.name,
                    now.revision,
                    known.unwrap_or_default()
                );
            }
        });
    }

    /// After changes of our own: from here on others' show.
    pub fn note(&self, ledger: &Ledger) {
        self.0.borrow_mut().clear();
        each(ledger, |place, hook, target| {
            if let Ok(now) = hook::query(target, hook) {
                self.0.borrow_mut().insert((place, hook), now.revision);
            }
        });
    }
}

/// Every counting hook with an attachment of ours, once.
fn each(ledger: &Ledger, mut visit: impl FnMut(LinkPlace, Hook, &hook::Target)) {
    let counts = |hook: Hook| matches!(hook.family(), "tcx" | "netkit");
    let mut seen = std::collections::HashSet::new();
    for (_, owned) in ledger.entries(|_, owned| matches!(owned, Owned::Attachment { .. })) {
        let (Some(link), Owned::Attachment { place, .. }) = (owned.link(), &owned) else {
            continue;
        };
        if counts(place.hook) && seen.insert((link, place.hook)) {
            visit(link, place.hook, &place.target());
        }
    }
}
