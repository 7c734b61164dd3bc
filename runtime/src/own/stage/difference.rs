//! What a load would change, and has changed.

use std::collections::HashSet;
use std::fmt::Display;

use super::{Deed, Stage};

/// What a commit did.
#[derive(Debug, Default, Clone)]
pub struct Difference {
    pub created: Vec<String>,
    pub changed: Vec<String>,
    pub deleted: Vec<String>,
    pub kept: usize,
    /// What was kept and went with something that was not, and why it could not be put back.
    pub lost: Vec<String>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.changed.is_empty() && self.deleted.is_empty()
    }
}

impl Stage {
    /// What a commit would do, without doing it.
    pub fn difference(&self) -> Difference {
        let mut difference = Difference::default();
        let created = self.ledger.entries(|number, _| number > self.mark.0);
        difference.created.extend(created.iter().map(|(_, owned)| owned.to_string()));
        let mut changed = HashSet::new();
        let handed = self.hand_overs();
        for action in &*self.actions.borrow() {
            match &action.deed {
                Deed::Put { number, new, old } if handed.is_all_of(&self.ledger, *number, new) => {
                    // A link is counted below.
                    difference.kept += usize::from(old.is_none());
                }
                Deed::Put { new, old: None, .. } => difference.created.push(new.to_string()),
                Deed::Put { new, old: Some(old), .. } => {
                    changed.insert(*old);
                    difference.changed.push(new.to_string());
                }
                Deed::Other(staged) if staged.is_void() => {}
                // Several maps of one service are one thing to whoever reads this.
                Deed::Other(staged) if difference.changed.contains(&staged.text()) => {}
                Deed::Other(staged) => difference.changed.push(staged.text()),
            }
        }
        let named = self.named.borrow();
        for (number, owned) in self.ledger.entries(|number, _| number <= self.mark.0) {
            match named.contains(&number) {
                true if changed.contains(&number) => {}
                true => difference.kept += 1,
                false if handed.takes(number) => {}
                false => difference.deleted.push(owned.to_string()),
            }
        }
        difference
    }
}

/// `created 2, changed 1, deleted 3, kept 14`
impl Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            ("created", self.created.len()),
            ("changed", self.changed.len()),
            ("deleted", self.deleted.len()),
            ("kept", self.kept),
        ];
        let words: Vec<String> =
            counts.iter().filter(|(_, n)| *n > 0).map(|(w, n)| format!("{w} {n}")).collect();
        match words.is_empty() {
            true => f.write_str("nothing owned"),
            false => f.write_str(&words.join(", ")),
        }
    }
}
