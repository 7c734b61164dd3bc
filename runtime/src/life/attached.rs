//! The prompts that are attached to a script: what they ask is done in the generation that is live, and they are told
//! when another takes over.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::generation::Generation;
use super::lines::Line;
use super::socket::session::Session;
use super::socket::wire::{Done, Event};
use super::socket::{Typed, What};
use super::told::Reloaded;
use crate::Error;

#[derive(Default)]
pub(super) struct Attached(Vec<Arc<Session>>);

impl Attached {
    /// A prompt is there; what it begins with.
    pub fn attach(
        &mut self,
        session: Arc<Session>,
        live: Option<&Generation>,
    ) -> Map<String, Value> {
        self.0.push(session);
        let generation = live.map(|live| live.host.generation);
        Map::from_iter([("generation".to_owned(), json!(generation))])
    }

    /// What needs no more than the live generation.
    pub fn answer(&mut self, what: What, live: Option<&Generation>) {
        match (what, live) {
            (What::Detach(session), live) => {
                self.0.retain(|other| other.number != session.number);
                live.inspect(|live| live.forget(&session));
            }
            (What::Complete { session, text }, Some(live)) => live.complete(&session, text),
            (What::Typed { session, line, typed: Typed::Chunk { text, width } }, live) => {
                // The one who typed it may have given up.
                if !session.is_at(line) {
                    return;
                }
                match live {
                    Some(live) => live.run_line(Line { session, number: line, text, width }),
                    None => session.done(line, Done::failed(&nothing_is_loaded())),
                }
            }
            _ => {}
        }
    }

    /// Another generation has taken over.
    pub fn tell(&self, reloaded: &Reloaded) {
        for session in &self.0 {
            let Reloaded { generation, .. } = *reloaded;
            session.tell(Event::Reloaded { generation, text: reloaded.text() });
        }
    }
}

fn nothing_is_loaded() -> Error {
    Error::new(
        "socket",
        "EAGAIN",
        "the script has failed to load, and there is nothing to type into",
    )
    .hint("mend it and save it, or :reload")
}
