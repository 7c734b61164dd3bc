//! One load of a script: a fresh VM, its main chunk as a task, and an orderly end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::MultiValue;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

use super::control::Control;
use super::lines::{Line, Lines};
use super::socket::session::Session;
use super::socket::wire::Done;
use crate::api::host::{Host, Instance, STOP_DEADLINE};
use crate::api::state::{self, Plain};
use crate::api::vm::Vm;
use crate::own::{Ledger, Stage};
use crate::stop::Stop;
use crate::{Error, Result};

/// How long after a reload what others have deleted is looked for: reloads that come fast do not wait for it.
const MENDING: Duration = Duration::from_millis(100);

/// What is run.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// As errors name it: the path as given, `-e`, `stdin`.
    pub name: String,
    pub source: Vec<u8>,
    /// The modules are plain names and globals are free, as at a prompt.
    pub interactive: bool,
}

/// How an instance ended.
pub enum Ended {
    /// The main chunk returned, and nothing is left to wait for.
    Done,
    /// A task failed that nobody joined.
    TaskFailed,
    Failed(Error),
    Stopped(Stop),
}

/// A script that is loaded.
pub struct Generation {
    pub host: Rc<Host>,
    vm: Rc<Vm>,
    main: JoinHandle<()>,
    /// Of attached prompts.
    lines: Lines,
    /// Looks after what others have deleted.
    mending: Cell<Option<JoinHandle<()>>>,
    /// What became of the main chunk.
    outcome: watch::Receiver<Option<Result<()>>>,
}

impl Generation {
    /// Starts the main chunk in a fresh VM, which runs whenever the caller waits.
    ///
    /// # Errors
    /// ENOMEM if the VM's limit is too small for the arguments.
    pub fn start(
        vm: Vm,
        instance: Instance,
        number: u32,
        chunk: Chunk,
        control: &Arc<Control>,
        stage: Stage,
        inherited: Option<Plain>,
    ) -> Result<Generation> {
        let host = Host::new(instance, number, Arc::clone(control), stage);
        host.inherited.set(inherited);
        vm.serve(Rc::clone(&host))?;
        let vm = Rc::new(vm);
        let (tell, outcome) = watch::channel(None);
        let (its_vm, its_host) = (Rc::clone(&vm), Rc::clone(&host));
        let main = tokio::task::spawn_local(async move {
            let done = main_chunk(&its_vm, &its_host, &chunk).await;
            drop((its_vm, its_host));
            let _ = tell.send(Some(done));
        });
        let (lines, mending) = (Lines::default(), Cell::default());
        Ok(Generation { host, vm, main, lines, mending, outcome })
    }

    /// Waits until the script is set up: the first `cnf.wait()`, or the end of its main chunk.
    ///
    /// # Errors
    /// What the main chunk raised.
    pub async fn set_up(&self) -> Result<()> {
        tokio::select! {
            () = self.host.commit.asked() => Ok(()),
            done = self.main_done() => done,
        }
    }

    /// Waits for the end of the main chunk.
    ///
    /// # Errors
    /// What it raised.
    pub async fn main_done(&self) -> Result<()> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(done) => done.clone().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }

    /// Looks, when nothing has happened for a moment, whether somebody else has deleted what this generation has kept, and
    /// makes it again; one namespace at a time.
    pub fn mend_later(&self) {
        let host = Rc::clone(&self.host);
        let mending = tokio::task::spawn_local(async move {
            tokio::time::sleep(MENDING).await;
            for cookie in host.stage.inhabited() {
                // Another load is under way, and looks itself.
                if host.gate.is_shut() {
                    return;
                }
                host.stage.mend(cookie);
                tokio::task::yield_now().await;
            }
        });
        if let Some(before) = self.mending.replace(Some(mending)) {
            before.abort();
        }
    }

    /// Whether the main chunk has ended.
    pub fn is_main_done(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// What `cnf.state` holds.
    ///
    /// # Errors
    /// None that a script could cause.
    pub fn state(&self) -> Result<Option<Plain>> {
        state::copy(self.vm.lua(), &self.host)
    }

    /// Runs a line of an attached prompt.
    pub fn run_line(&self, line: Line) {
        self.lines.start(&self.vm, &self.host, line);
    }

    /// What could stand at the end of a line of an attached prompt.
    pub fn complete(&self, session: &Arc<Session>, text: String) {
        self.lines.complete(&self.vm, session, text);
    }

    /// An attached prompt has gone.
    pub fn forget(&self, session: &Session) {
        self.lines.forget(session);
    }

    /// Ends what runs, calls the `cnf.on_stop` handlers, and closes the VM.
    pub async fn end(self, reason: &str) {
        let Generation { host, vm, main, lines, mending, .. } = self;
        if let Some(mending) = mending.take() {
            mending.abort();
            let _ = mending.await;
        }
        main.abort();
        let _ = main.await;
        lines.end(|| if reason == "reload" { Done::Interrupted } else { Done::Ended }).await;
        host.tasks.end_all().await;
        host.control.noticed();
        host.gate.open();
        stop_handlers(&vm, &host, reason).await;
        host.stage.end();
        host.tasks.end_all().await;
        drop(host);
        match Rc::try_unwrap(vm) {
            Ok(vm) => vm.close(),
            Err(_) => debug_assert!(false, "something still holds the VM"),
        }
    }
}

/// A session that is no script, the prompt or the test runner: a fresh VM before `body`; a stop that wins over it; tasks
/// ended, `cnf.on_stop` handlers called and the VM closed after it.
///
/// # Errors
/// As [`Generation::start`].
pub fn live(
    instance: Instance,
    memory: usize,
    control: &Arc<Control>,
    ledger: &Arc<Ledger>,
    body: impl AsyncFnOnce(&Vm, &Rc<Host>) -> Ended,
) -> Result<Ended> {
    let runtime = runtime()?;
    let local = LocalSet::new();
    let stage = Stage::first(Arc::clone(ledger));
    let host = Host::new(instance, 1, Arc::clone(control), stage);
    // There is nothing to commit: everything happens at once.
    host.stage.go_live();
    host.commit.finish();
    let vm = Vm::new(memory)?;
    vm.serve(Rc::clone(&host))?;
    let ended = local.block_on(&runtime, async {
        let ended = tokio::select! {
            ended = body(&vm, &host) => ended,
            reason = control.flag.stopped() => Ended::Stopped(reason),
        };
        // An interrupted chunk fails; why it was interrupted is what counts.
        let ended = reason_first(ended, &host);
        host.tasks.end_all().await;
        control.noticed();
        stop_handlers(&vm, &host, stop_word(&ended)).await;
        host.tasks.end_all().await;
        ended
    });
    drop(local);
    drop(host);
    vm.close();
    Ok(ended)
}

/// An interrupted chunk fails; why it was interrupted is what counts.
pub(super) fn reason_first(ended: Ended, host: &Host) -> Ended {
    match host.control.flag.reason() {
        Some(Stop::Exit(None)) if host.tasks.any_failed() => Ended::TaskFailed,
        Some(reason) => Ended::Stopped(reason),
        None => ended,
    }
}

/// What `cnf.on_stop` handlers are told.
pub(super) fn stop_word(ended: &Ended) -> &'static str {
    match ended {
        Ended::Failed(_) | Ended::Stopped(Stop::Memory) => "error",
        _ => "exit",
    }
}

/// The event loop of the one thread that runs Lua.
///
/// # Errors
/// EMFILE and its like.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("tokio", &e))
}

/// What is said of a name that a text from the command line has given no value.
const UNDECLARED: &str = "give it a value first: `name = ...`";

async fn main_chunk(vm: &Vm, host: &Rc<Host>, chunk: &Chunk) -> Result<()> {
    let environment = match chunk.interactive {
        true => Some(vm.interactive_environment(UNDECLARED)?),
        false => None,
    };
    let function = vm.compile(&chunk.name, &chunk.source, environment)?;
    let args: MultiValue = host
        .instance
        .args
        .iter()
        .map(|arg| vm.lua().create_string(arg).map(mlua::Value::String))
        .collect::<mlua::Result<_>>()
        .map_err(crate::api::error::from_lua)?;
    vm.run(function, args).await.map(drop)
}

/// Calls `cnf.on_stop` handlers, the last one first, all within one deadline.
async fn stop_handlers(vm: &Vm, host: &Rc<Host>, reason: &str) {
    let handlers = RefCell::take(&host.stop_handlers);
    if handlers.is_empty() {
        return;
    }
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
