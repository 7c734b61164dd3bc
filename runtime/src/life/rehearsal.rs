//! A script loaded only to see what it would make: `cnfscript check`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::LocalSet;

use super::control::Control;
use super::generation::{Generation, runtime};
use super::script::{Script, stopped};
use crate::api::vm::Vm;
use crate::own::{Ledger, Stage};
use crate::stop::Stop;
use crate::{Result, report};

/// What a script made in a rehearsal.
pub struct Rehearsed {
    /// In words, oldest first.
    pub things: Vec<String>,
    pub counts: BTreeMap<&'static str, usize>,
    /// A task failed that nobody joined.
    pub tasks_failed: bool,
}

/// Loads the script, looks at what it has made, and ends it. What it made is still there afterwards.
///
/// # Errors
/// What its main chunk raised until it was set up.
pub fn rehearse(script: Script, control: &Arc<Control>, ledger: &Arc<Ledger>) -> Result<Rehearsed> {
    let runtime = runtime()?;
    let local = LocalSet::new();
    let rehearsed = local.block_on(&runtime, async {
        let Script { instance, chunk, memory, .. } = script;
        let stage = Stage::first(Arc::clone(ledger));
        let vm = Vm::new(memory)?;
        let load = Generation::start(vm, instance, 1, chunk, control, stage, None)?;
        let set_up = tokio::select! {
            set_up = load.set_up() => set_up,
            reason = control.flag.stopped() => match reason {
                // It has said itself that it is done.
                Stop::Exit(None | Some(0)) => Ok(()),
                other => Err(stopped(other)),
            },
        };
        // Every task that it has started gets its first turn.
        tokio::task::yield_now().await;
        let things = ledger.entries(|_, _| true).iter().map(|(_, o)| o.to_string()).collect();
        let tasks_failed = load.host.tasks.any_failed();
        let counts = ledger.counts();
        load.end(if set_up.is_ok() { "exit" } else { "error" }).await;
        set_up.map(|()| Rehearsed { things, counts, tasks_failed })
    });
    drop(local);
    for failure in ledger.tear_down().failures {
        report::error(&failure, Some("would be left behind"));
    }
    rehearsed
}
