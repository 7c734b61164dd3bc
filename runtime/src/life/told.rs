//! What is told of a reload: in words, and as data.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::own::stage::Difference;
use crate::report;

/// The same script, loaded again.
pub struct Reloaded {
    pub generation: u32,
    pub difference: Difference,
    pub took: Duration,
}

impl Reloaded {
    /// One line, and one for each thing that is different.
    pub fn text(&self) -> String {
        let Reloaded { generation, difference, took } = self;
        let what = match generation {
            // The first load of a process that found what another had left.
            1 => "taken over".to_owned(),
            _ => format!("reload {generation}"),
        };
        let took = took.as_secs_f64() * 1e3;
        format!("{what}: {difference} in {took:.1} ms{}", lines(difference))
    }

    pub fn data(&self) -> Map<String, Value> {
        let mut data = difference_data(&self.difference);
        data.insert("generation".to_owned(), self.generation.into());
        data.insert("seconds".to_owned(), self.took.as_secs_f64().into());
        data
    }
}

/// A line for each thing that is different.
pub(super) fn lines(difference: &Difference) -> String {
    const SHOWN: usize = 20;
    let mut text = String::new();
    let signs = [
        ("+", &difference.created),
        ("~", &difference.changed),
        ("-", &difference.deleted),
        ("!", &difference.lost),
    ];
    for (sign, things) in signs {
        for thing in things.iter().take(SHOWN) {
            text += &format!("\n  {sign} {thing}");
        }
        if things.len() > SHOWN {
            text += &format!("\n  {sign} and {} more", things.len() - SHOWN);
        }
    }
    text
}

pub(super) fn difference_data(difference: &Difference) -> Map<String, Value> {
    let Difference { created, changed, deleted, kept, lost } = difference;
    Map::from_iter([
        ("created".to_owned(), json!(created)),
        ("changed".to_owned(), json!(changed)),
        ("deleted".to_owned(), json!(deleted)),
        ("kept".to_owned(), json!(kept)),
        ("lost".to_owned(), json!(lost)),
    ])
}

pub(super) fn tell(reloaded: &Reloaded) {
    report::happened(&reloaded.text(), reloaded.data());
}
