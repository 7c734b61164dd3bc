//! How long tasks may run: what `task.timeout` cannot end by waiting, because the task does not let go of the processor, is
//! interrupted at its limit (`vm`), asked for by the thread that keeps deadlines (`life::control`). A line of an attached
//! prompt ends the same way when its person presses Ctrl-C.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::vm;

/// A task that waits is ended by the clock of the event loop; one that is still there after that long does not wait.
const GRACE: Duration = Duration::from_millis(20);

/// The limits of running tasks, by what [`vm::running`] calls them.
static LIMITS: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());

fn limits() -> MutexGuard<'static, BTreeMap<u64, Instant>> {
    LIMITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that calls is to end at that moment; a limit that it has already stays when it is earlier.
pub fn set(at: Instant) {
    limits().entry(vm::running()).and_modify(|earlier| *earlier = at.min(*earlier)).or_insert(at);
}

/// The limit of the task that calls.
pub fn get() -> Option<Instant> {
    limits().get(&vm::running()).copied()
}

/// One run of Lua that other threads may end, though it does not wait, and nothing else with it.
#[derive(Debug, Default)]
pub struct Endable {
    number: Mutex<u64>,
    within: Option<Duration>,
}

impl Endable {
    /// One that may run for so long; `life::control` has to look at limits when it has begun.
    pub fn within(limit: Duration) -> Endable {
        Endable { number: Mutex::default(), within: Some(limit) }
    }

    /// From now on it is what [`vm::running`] calls `task`, until the guard is dropped: before the run itself.
    pub(super) fn runs(&self, task: u64) -> Runs<'_> {
        *self.number() = task;
        if let Some(limit) = self.within {
            limits().insert(task, Instant::now() + limit);
        }
        Runs(self)
    }

    pub(super) fn is_limited(&self) -> bool {
        self.within.is_some()
    }

    /// Ends it after `left`; `life::control` has to look at limits then. Nothing if nothing runs.
    pub fn end_after(&self, left: Duration) {
        let number = self.number();
        let now = Instant::now();
        // An entry of a run that is over would never go.
        if *number != 0
            && let Some(at) = (now + left).checked_sub(GRACE)
        {
            limits().entry(*number).and_modify(|earlier| *earlier = at.min(*earlier)).or_insert(at);
        }
    }

    fn number(&self) -> MutexGuard<'_, u64> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Endable::runs`].
pub(super) struct Runs<'a>(&'a Endable);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        *self.0.number() = 0;
    }
}

/// What runs now ends at once if it is run for that hearer, as tasks are that its lines have started. For one that keeps
/// all others from running; `life::control` has to look at limits then.
pub fn end_running_of(hearer: u64) {
    let task = vm::running();
    if vm::running_for() != hearer || task == 0 {
        return;
    }
    limits().insert(task, Instant::now());
    // One that is over by now would leave the limit for ever; one that is not lifts it itself.
    if vm::running() != task {
        lift(task);
    }
}

/// The task has ended.
pub(super) fn lift(task: u64) {
    limits().remove(&task);
}

/// Interrupts the task that runs if its time is up; when to look again.
pub fn enforce(now: Instant, poke_every: Duration) -> Option<Instant> {
    let limits = limits();
    let running = vm::running();
    if limits.get(&running).is_some_and(|at| *at + GRACE <= now) {
        vm::expire(running);
    }
    let next = limits.values().min()?;
    Some((*next + GRACE).max(now + poke_every))
}
