//! One attached prompt, as the socket's thread and Lua's thread both know it: which line is under way, who ends it, and
//! where what it says goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use super::wire::{Done, Event};
use crate::api::limit::Endable;
use crate::hearer::{Hears, Said, Unheard};

/// So many events wait for a client that is slow, of at most `PIECE` bytes each; then lines wait that print.
pub const EVENTS: usize = 64;
/// Longer texts go in pieces.
const PIECE: usize = 32 << 10;

pub struct Session {
    /// Never used twice in a process.
    pub number: u64,
    events: mpsc::Sender<Event>,
    state: Mutex<State>,
    changed: Notify,
    /// What the line runs as.
    pub runs: Endable,
}

#[derive(Default)]
struct State {
    /// The number of the line that is under way; none while the prompt waits.
    line: Option<u64>,
    /// Lines so far.
    lines: u64,
    interrupted: bool,
}

impl Session {
    /// A prompt, and what it is told.
    pub fn new() -> (Arc<Session>, mpsc::Receiver<Event>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (events, told) = mpsc::channel(EVENTS);
        let session = Session {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            events,
            state: Mutex::default(),
            changed: Notify::new(),
            runs: Endable::default(),
        };
        (Arc::new(session), told)
    }

    /// A line is under way from now on: its number; none while another is.
    pub fn begin(&self) -> Option<u64> {
        let mut state = self.state();
        if state.line.is_some() {
            return None;
        }
        state.lines += 1;
        state.line = Some(state.lines);
        state.interrupted = false;
        state.line
    }

    /// Whether that line is still waited for.
    pub fn is_at(&self, line: u64) -> bool {
        self.state().line == Some(line)
    }

    /// The line that is under way is to end, whether it computes or waits. `life::control` has to look at limits then.
    pub fn interrupt(&self) -> Option<u64> {
        let mut state = self.state();
        state.interrupted = true;
        let line = state.line;
        drop(state);
        self.runs.end_after(std::time::Duration::ZERO);
        self.changed.notify_waiters();
        line
    }

    pub fn is_interrupted(&self) -> bool {
        self.state().interrupted
    }

    /// Waits until the line is to end.
    pub async fn interrupted(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_interrupted() {
                return;
            }
            changed.await;
        }
    }

    /// What became of the line: told once, by whoever knows it first.
    pub fn done(&self, line: u64, done: Done) {
        let mut state = self.state();
        if state.line == Some(line) {
            state.line = None;
            drop(state);
            self.tell(Event::Done(done));
        }
    }

    /// A client that is slow is told when there is room, and is not waited for; one that has gone is not told.
    pub fn tell(&self, event: Event) {
        if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
            let events = self.events.clone();
            tokio::spawn(async move { drop(events.send(event).await) });
        }
    }

    /// What a client that is slow can do without.
    pub fn tell_now(&self, event: Event) {
        let _ = self.events.try_send(event);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hears for Session {
    fn number(&self) -> u64 {
        self.number
    }

    fn hear_now(&self, said: &Said) -> Result<(), Unheard> {
        let pieces = pieces(said);
        if pieces.is_empty() {
            return Ok(());
        }
        if self.events.is_closed() {
            return Err(Unheard::Gone);
        }
        match self.events.try_reserve_many(pieces.len()) {
            Ok(permits) => {
                permits.zip(pieces).for_each(|(permit, piece)| permit.send(piece));
                Ok(())
            }
            Err(TrySendError::Full(())) => Err(Unheard::Busy),
            Err(TrySendError::Closed(())) => Err(Unheard::Gone),
        }
    }

    fn hear(&self, said: Said) -> BoxFuture<'static, bool> {
        let events = self.events.clone();
        async move {
            for piece in pieces(&said) {
                if events.send(piece).await.is_err() {
                    return false;
                }
            }
            true
        }
        .boxed()
    }
}

fn pieces(said: &Said) -> Vec<Event> {
    let (text, event): (&str, fn(String) -> Event) = match said {
        Said::Out(text) => (text, Event::Out),
        Said::Err(text) => (text, Event::Err),
    };
    let mut rest = text;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
        pieces.push(event(piece.to_owned()));
        rest = after;
    }
    pieces
}
