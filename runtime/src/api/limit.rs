//! How long tasks may run: what `task.timeout` cannot end by waiting, because the task does not let go of the processor, is
//! interrupted at its limit (`vm`), asked for by the thread that keeps deadlines (`life::control`).

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
