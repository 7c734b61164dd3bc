//! One run of a script: a fresh VM, its main chunk, parking while anything is owned, and an orderly end.

use std::rc::Rc;
use std::sync::Arc;

use mlua::MultiValue;
use tokio::task::LocalSet;

use super::control::Control;
use crate::api::host::{Host, Instance, STOP_DEADLINE};
use crate::api::vm::Vm;
use crate::own::{Ledger, Stage};
use crate::stop::Stop;
use crate::{Error, Result};

/// What is run.
pub struct Chunk {
    /// As errors name it: the path as given, `-e`, `stdin`.
    pub name: String,
    pub source: Vec<u8>,
    /// The modules are plain names and globals are free, as at a prompt.
    pub interactive: bool,
}

/// How a generation ended.
pub enum Ended {
    /// The main chunk returned, and nothing is left to wait for.
    Done,
    /// A task failed that nobody joined.
    TaskFailed,
    Failed(Error),
    Stopped(Stop),
}

/// Loads the script and runs it to its end. Everything it owns is still there afterwards.
pub fn run(
    instance: Instance,
    chunk: &Chunk,
    memory: usize,
    control: &Arc<Control>,
    ledger: &Arc<Ledger>,
) -> Result<Ended> {
    live(instance, memory, control, ledger, async |vm, host| main_chunk(vm, host, chunk).await)
}

/// One generation around `body`: a fresh VM before it; a stop that wins over it; tasks ended, `cnf.on_stop` handlers
/// called and the VM closed after it.
pub fn live(
    instance: Instance,
    memory: usize,
    control: &Arc<Control>,
    ledger: &Arc<Ledger>,
    body: impl AsyncFnOnce(&Vm, &Rc<Host>) -> Ended,
) -> Result<Ended> {
    let runtime = runtime()?;
    let local = LocalSet::new();
    let host = Host::new(instance, 1, Arc::clone(control), Stage::first(Arc::clone(ledger)));
    let vm = Vm::new(Rc::clone(&host), memory)?;
    let ended = local.block_on(&runtime, async {
        let ended = tokio::select! {
            ended = body(&vm, &host) => ended,
            reason = control.flag.stopped() => Ended::Stopped(reason),
            () = answer_requests(&host) => unreachable!("it waits for the next one"),
        };
        // An interrupted chunk fails; why it was interrupted is what counts.
        let ended = match control.flag.reason() {
            Some(Stop::Exit(None)) if host.tasks.any_failed() => Ended::TaskFailed,
            Some(reason) => Ended::Stopped(reason),
            None => ended,
        };
        host.tasks.abort_all();
        control.noticed();
        stop_handlers(&vm, &host, &ended).await;
        ended
    });
    drop(local);
    drop(host);
    vm.close();
    Ok(ended)
}

/// The event loop of the one thread that runs Lua.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("tokio", &e))
}

async fn main_chunk(vm: &Vm, host: &Rc<Host>, chunk: &Chunk) -> Ended {
    let environment = match chunk.interactive {
        true => match vm.interactive_environment() {
            Ok(environment) => Some(environment),
            Err(error) => return Ended::Failed(error),
        },
        false => None,
    };
    let run = async {
        let function = vm.compile(&chunk.name, &chunk.source, environment)?;
        let args: MultiValue = host
            .instance
            .args
            .iter()
            .map(|arg| vm.lua().create_string(arg).map(mlua::Value::String))
            .collect::<mlua::Result<_>>()
            .map_err(crate::api::error::from_lua)?;
        vm.run(function, args).await
    };
    if let Err(error) = run.await {
        return Ended::Failed(error);
    }
    host.committed.set(true);
    // One that ends at once was never up.
    if !host.ledger.is_empty() || !host.tasks.is_empty() {
        host.control.committed();
    }
    park(host).await;
    if host.tasks.any_failed() { Ended::TaskFailed } else { Ended::Done }
}

async fn answer_requests(host: &Rc<Host>) {
    if let Some(outside) = host.control.outside() {
        outside.answer(host).await;
    }
    std::future::pending().await
}

/// Waits while the instance owns something or a task lives.
async fn park(host: &Rc<Host>) {
    loop {
        let ended = host.tasks.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if !host.ledger.is_empty() {
            std::future::pending::<()>().await;
        }
        if host.tasks.is_empty() {
            return;
        }
        ended.await;
    }
}

/// Calls `cnf.on_stop` handlers, the last one first, all within one deadline.
async fn stop_handlers(vm: &Vm, host: &Rc<Host>, ended: &Ended) {
    let handlers = std::mem::take(&mut *host.stop_handlers.borrow_mut());
    if handlers.is_empty() {
        return;
    }
    let reason = match ended {
        Ended::Failed(_) | Ended::Stopped(Stop::Memory) => "error",
        _ => "exit",
    };
    host.control.interrupt_after(STOP_DEADLINE);
    let call_all = async {
        for handler in handlers.into_iter().rev() {
            let reason = vm.lua().create_string(reason).map(mlua::Value::String);
            let args = MultiValue::from_iter(reason);
            if let Err(error) = vm.run(handler, args).await {
                crate::report::error(&error, Some("cnf.on_stop"));
            }
        }
    };
    if tokio::time::timeout(STOP_DEADLINE, call_all).await.is_err() {
        tracing::warn!("cnf.on_stop handlers took longer than {STOP_DEADLINE:?} and were ended");
    }
    host.control.noticed();
}
