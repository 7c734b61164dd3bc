//! `task`, the part that needs the host: coroutines as tasks of one generation, sleeping, and signals between them.
//!
//! What can be said on top of these (join, all, race, channels) is said in `lua-stdlib/task.lua`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, MultiValue, Table, Thread};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::handle::{Class, Handle, Returned};
use super::host::Host;
use super::module::{Args, Module};
use super::{limit, vm};
use crate::{Result, hearer};

/// The natives that `lua-stdlib/task.lua` stands on.
pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "task")
        .function("start", start)
        .function("stop", stop)
        .function("failed", failed)
        .function("forgiven", forgiven)
        .function("signal", |_, _, _| Ok(Returned(Signal::default())))
        .function("now", |_, _, _| Ok(now()))
        .function("limit", limit)
        .function("set_limit", set_limit)
        .async_function("sleep", sleep)
        .value("located", super::error::located_by(lua)?)
        .build()
}

/// What must not outlive the task that waits for it. A future of a cancelled task is dropped only when its coroutine is
/// collected; this happens at once.
pub trait EndsWithTask {
    fn end(&self);
}

tokio::task_local! {
    static ENDING: Ending;
}

#[derive(Default)]
struct Ending(RefCell<Vec<Weak<dyn EndsWithTask>>>);

impl Drop for Ending {
    fn drop(&mut self) {
        for waiting in self.0.borrow().iter().filter_map(Weak::upgrade) {
            waiting.end();
        }
    }
}

/// Ends `waiting` with the calling task, if it lives as long; outside of tasks nothing happens.
pub fn end_with_task(waiting: Weak<dyn EndsWithTask>) {
    let _ = ENDING.try_with(|ending| {
        let mut all = ending.0.borrow_mut();
        all.retain(|one| one.strong_count() > 0);
        all.push(waiting);
    });
}

/// `work` as a task: what [`end_with_task`] is told ends with it.
pub fn ends_what_waits<F: Future>(work: F) -> impl Future<Output = F::Output> {
    ENDING.scope(Ending::default(), work)
}

/// The tasks of one generation.
#[derive(Default)]
pub struct Tasks {
    live: RefCell<HashMap<u64, (AbortHandle, Thread)>>,
    next: Cell<u64>,
    /// Notified whenever a task ends.
    pub ended: Notify,
    /// What else there is to stay for: lines of attached prompts.
    held: Cell<usize>,
    /// Failures that no join has taken, by task.
    unjoined: RefCell<HashMap<u64, ()>>,
}

impl Tasks {
    pub fn is_empty(&self) -> bool {
        self.live.borrow().is_empty() && self.held.get() == 0
    }

    pub fn len(&self) -> usize {
        self.live.borrow().len()
    }

    /// There is something to stay for until [`Tasks::release`].
    pub fn hold(&self) {
        self.held.set(self.held.get() + 1);
    }

    pub fn release(&self) {
        self.held.set(self.held.get().saturating_sub(1));
        self.ended.notify_waiters();
    }

    /// Whether a task failed and nobody ever joined it.
    pub fn any_failed(&self) -> bool {
        !self.unjoined.borrow().is_empty()
    }

    /// The id that the latest task has: those that start later have greater ones.
    pub fn latest(&self) -> u64 {
        self.next.get()
    }

    /// Ends the tasks that started after `latest` was the last one.
    pub fn abort_after(&self, latest: u64) {
        self.live.borrow_mut().retain(|id, (handle, _)| {
            if *id > latest {
                handle.abort();
            }
            *id <= latest
        });
    }

    /// Forgets the failures so far; whether there were any.
    pub fn take_failures(&self) -> bool {
        !std::mem::take(&mut *self.unjoined.borrow_mut()).is_empty()
    }

    /// Ends every task: none of their Lua runs again. What they held is let go when this returns.
    pub async fn end_all(&self) {
        let ended: Vec<AbortHandle> =
            self.live.borrow_mut().drain().map(|(_, (handle, _))| handle).collect();
        ended.iter().for_each(AbortHandle::abort);
        while ended.iter().any(|handle| !handle.is_finished()) {
            tokio::task::yield_now().await;
        }
    }
}

/// `start(fn)` runs `fn` as a task from the next turn on; it must not fail (the Lua side wraps it) -> task id.
fn start(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<u64> {
    let function: Function = args.required("fn")?;
    let thread = lua.create_thread(function).map_err(super::error::from_lua)?;
    let id = host.tasks.next.get() + 1;
    host.tasks.next.set(id);
    let gate = Rc::clone(&host.gate);
    let run = vm::drive(&thread, MultiValue::new(), gate).map_err(super::error::from_lua)?;
    let weak = Rc::downgrade(host);
    let work = ends_what_waits(async move {
        // The wrapper on the Lua side keeps every failure; what is left is an interrupt.
        let _ = run.await;
        if let Some(host) = weak.upgrade() {
            host.tasks.live.borrow_mut().remove(&id);
            host.tasks.ended.notify_waiters();
        }
    });
    // Whoever hears the one that starts it hears it too.
    let handle = match hearer::current() {
        Some(hearer) => tokio::task::spawn_local(hearer::heard_by(hearer, work)),
        None => tokio::task::spawn_local(work),
    };
    host.tasks.live.borrow_mut().insert(id, (handle.abort_handle(), thread));
    Ok(id)
}

/// `stop(id)` ends a task between two of its steps and gives its coroutine back to be closed; nil if it has ended.
fn stop(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Option<Thread>> {
    let id: u64 = args.required("id")?;
    let stopped = host.tasks.live.borrow_mut().remove(&id);
    host.tasks.ended.notify_waiters();
    Ok(stopped.map(|(handle, thread)| {
        handle.abort();
        thread
    }))
}

/// `failed(id, error)` prints the failure of a task that nobody waits for.
fn failed(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    let id: u64 = args.required("id")?;
    let error = super::error::from_value(&args.any());
    host.tasks.unjoined.borrow_mut().insert(id, ());
    crate::report::error(&error, Some("task failed"));
    Ok(())
}

/// `forgiven(id)`: a later join took the failure after all.
fn forgiven(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    host.tasks.unjoined.borrow_mut().remove(&args.required::<u64>("id")?);
    Ok(())
}

fn start_of_time() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Seconds since the process started, by a clock that never jumps (CLOCK_MONOTONIC).
fn now() -> f64 {
    start_of_time().elapsed().as_secs_f64()
}

/// `limit()`: when the calling task is ended even if it does not wait, by `now`; nil when it may go on.
fn limit(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Option<f64>> {
    let since = |at: Instant| at.saturating_duration_since(start_of_time()).as_secs_f64();
    Ok(limit::get().map(since))
}

/// `set_limit(at)` ends the calling task then, if it does not wait.
fn set_limit(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    let at: Duration = args.required("at")?;
    // One beyond what clocks can tell is none.
    if let Some(at) = start_of_time().checked_add(at) {
        limit::set(at);
        host.control.look_at_limits();
    }
    Ok(())
}

fn sleep(
    _: &Lua,
    _: &Rc<Host>,
    mut args: Args,
) -> Result<impl Future<Output = Result<()>> + use<>> {
    let duration: Duration = args.required("duration")?;
    Ok(async move {
        if duration.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(duration).await;
        }
        Ok(())
    })
}

/// Something to wait for: `s:wait()` suspends until the next `s:notify()`.
#[derive(Clone, Default)]
pub struct Signal(Arc<Notify>);

impl Signal {
    pub fn notify(&self) {
        self.0.notify_waiters();
    }
}

impl Handle for Signal {
    const TYPE: &'static str = "Signal";
    const WORD: &'static str = "signal";

    fn class(class: &mut Class<'_, Self>) {
        class
            .method("notify", |_, _, this, _| {
                this.notify();
                Ok(())
            })
            .async_method("wait", |_, _, this, _| {
                // Enlisted now, not when first polled: a notify in between is not missed.
                let mut waiting = Box::pin(Arc::clone(&this.0).notified_owned());
                waiting.as_mut().enable();
                Ok(async move {
                    waiting.await;
                    Ok(())
                })
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Arc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        "Signal".into()
    }
}
