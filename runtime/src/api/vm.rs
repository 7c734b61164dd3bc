//! The Lua VM: how it is born, how its coroutines are driven, how it is interrupted, how its end is proved.
//!
//! An interrupt is a signal to the Lua thread, whose handler sets a count hook on the coroutine that runs at that
//! moment; until then no hook slows the script. `lua_sethook` is made to be called from a signal handler.

use std::ffi::{CStr, CString};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use mlua::state::{GcIncParams, GcMode};
use mlua::thread::AsyncThread;
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Thread, Value, ffi};

use super::error::{from_lua, from_value, raise};
use super::gate::Gate;
use super::host::Host;
use super::limit::Endable;
use super::{handle, stdlib};
use crate::{Error, Result, hearer};

/// The coroutine that runs now, for the signal handler.
static RUNNING: AtomicPtr<ffi::lua_State> = AtomicPtr::new(std::ptr::null_mut());
/// The thread that runs Lua.
static LUA_THREAD: AtomicI32 = AtomicI32::new(0);
/// Whether scripts are to be stopped: while set, every hook raises.
static INTERRUPT: AtomicBool = AtomicBool::new(false);
/// Which [`Driven`] runs now; 0 when none does.
static DRIVEN: AtomicU64 = AtomicU64::new(0);
/// Whom that one is run for, by [`hearer::Hears::number`]; 0 for nobody.
static DRIVEN_FOR: AtomicU64 = AtomicU64::new(0);
/// Where the script was when it was interrupted, until it may run again.
static INTERRUPTED: Mutex<Option<CString>> = Mutex::new(None);
/// The one whose time is up: while it runs, hooks raise; others go on.
static EXPIRED: AtomicU64 = AtomicU64::new(0);

/// Not used by Rust, Lua or tokio; ignored by default, so a stray one is harmless.
const POKE: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGURG;

/// A VM with the standard library, the host's modules and nothing run yet. Before anything is, [`Vm::serve`] gives it its
/// host.
pub struct Vm {
    lua: Lua,
    run: Function,
    interactive: Function,
    /// The module `cnf`.
    cnf: Table,
}

impl Vm {
    /// # Errors
    /// ENOMEM if the limit is too small for the library itself.
    pub fn new(memory: usize) -> Result<Vm> {
        install_interrupt();
        let build = || -> mlua::Result<Vm> {
            // SAFETY: `ALL` adds `debug` and the C loader of `package`; scripts of a root tool may load C rocks.
            let lua = unsafe { Lua::unsafe_new_with(StdLib::ALL, LuaOptions::new()) };
            handle::prepare(&lua)?;
            super::map::prepare(&lua)?;
            let internals = internals(&lua)?;
            let (run, interactive, cnf): (Function, Function, Table) =
                lua.load(stdlib::PRELUDE).set_name("=[cnf]").call(internals)?;
            lua.set_memory_limit(memory)?;
            Ok(Vm { lua, run, interactive, cnf })
        };
        build().map_err(from_lua)
    }

    /// A VM for a load that somebody will wait for: it collects no garbage before its load has made some megabytes of it.
    ///
    /// # Errors
    /// As [`Vm::new`].
    pub fn ahead(memory: usize) -> Result<Vm> {
        /// Percent of what is in use after a collection, at which the next one begins (manual, 2.5.1).
        const ROOMY: i32 = 1000;
        const USUAL: i32 = 200;
        let vm = Vm::new(memory)?;
        let pause = |percent| {
            vm.lua.gc_set_mode(GcMode::Incremental(GcIncParams::default().pause(percent)))
        };
        pause(ROOMY);
        vm.lua.gc_collect().map_err(from_lua)?;
        pause(USUAL);
        Ok(vm)
    }

    /// From now on, what runs in it does so for `host`.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn serve(&self, host: Rc<Host>) -> Result<()> {
        super::cnf::tell(&self.cnf, &host).map_err(from_lua)?;
        self.lua.set_app_data(host);
        Ok(())
    }

    pub fn lua(&self) -> &Lua {
        &self.lua
    }

    /// An environment for `-e` and the REPL: modules are plain names, globals are free. `hint` is for names that have no value.
    pub fn interactive_environment(&self, hint: &str) -> Result<Table> {
        self.interactive.call(hint).map_err(from_lua)
    }

    /// Compiles a chunk. `name` is as errors will show it.
    pub fn compile(
        &self,
        name: &str,
        source: &[u8],
        environment: Option<Table>,
    ) -> Result<Function> {
        compile(&self.lua, name, source, environment).map_err(from_lua)
    }

    /// Runs a function as a coroutine of its own to its end; its results, or the error as it was raised.
    pub async fn run(&self, function: Function, args: MultiValue) -> Result<MultiValue> {
        self.run_endable(function, args, &Endable::default()).await
    }

    /// As [`Vm::run`], and other threads can end it.
    pub async fn run_endable(
        &self,
        function: Function,
        args: MultiValue,
        endable: &Endable,
    ) -> Result<MultiValue> {
        let mut running = (|| {
            let mut call = MultiValue::with_capacity(args.len() + 1);
            call.push_back(Value::Function(function));
            call.extend(args);
            let gate = Rc::clone(&Host::of(&self.lua).gate);
            drive(&self.lua.create_thread(self.run.clone())?, call, gate)
        })()
        .map_err(from_lua)?;
        let _runs = endable.runs(running.number);
        if endable.is_limited() {
            Host::of(&self.lua).control.look_at_limits();
        }
        let mut results = (&mut running).await.map_err(from_lua)?;
        match results.pop_front() {
            Some(Value::Boolean(true)) => Ok(results),
            _ => Err(from_value(&results.pop_front().unwrap_or(Value::Nil))),
        }
    }

    /// Ends the VM.
    ///
    /// # Panics
    /// In debug builds, when something outside still holds it: that would be a leak at every reload.
    pub fn close(self) {
        let weak = self.lua.weak();
        drop((self.run, self.interactive, self.cnf));
        drop(self.lua);
        debug_assert!(weak.try_upgrade().is_none(), "something still holds the VM");
    }
}

fn compile(
    lua: &Lua,
    name: &str,
    source: &[u8],
    environment: Option<Table>,
) -> mlua::Result<Function> {
    super::source::keep(name, source);
    let source = blank_shebang(source);
    let mut chunk = lua.load(&source[..]).set_name(format!("@{name}"));
    if let Some(environment) = environment {
        chunk = chunk.set_environment(environment);
    }
    chunk.into_function()
}

/// A `#!` line is for the kernel; it stays a line so that numbers are right.
fn blank_shebang(source: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if source.starts_with(b"#") {
        let mut copy = b"--".to_vec();
        copy.extend_from_slice(source);
        return copy.into();
    }
    source.into()
}

/// Drives a coroutine as a future, telling the signal handler whenever it runs; while `gate` is shut it does not.
pub fn drive(thread: &Thread, args: MultiValue, gate: Rc<Gate>) -> mlua::Result<Driven> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let hearer = hearer::current().map_or(0, |hearer| hearer.number());
    let (state, thread) = (thread.state(), thread.clone().into_async(args)?);
    Ok(Driven { number, hearer, state, gate, thread })
}

/// See [`drive`].
pub struct Driven {
    /// Never used twice in a process.
    number: u64,
    hearer: u64,
    state: *mut ffi::lua_State,
    gate: Rc<Gate>,
    thread: AsyncThread<MultiValue>,
}

impl Future for Driven {
    type Output = mlua::Result<MultiValue>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.gate.lets_pass(context) {
            return Poll::Pending;
        }
        let before = RUNNING.swap(self.state, Ordering::Relaxed);
        let driven_before = DRIVEN.swap(self.number, Ordering::Relaxed);
        let hearer_before = DRIVEN_FOR.swap(self.hearer, Ordering::Relaxed);
        let polled = Pin::new(&mut self.thread).poll(context);
        DRIVEN_FOR.store(hearer_before, Ordering::Relaxed);
        DRIVEN.store(driven_before, Ordering::Relaxed);
        RUNNING.store(before, Ordering::Relaxed);
        polled
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        super::limit::lift(self.number);
    }
}

/// The number of the [`Driven`] that runs; 0 when none does.
pub fn running() -> u64 {
    DRIVEN.load(Ordering::Relaxed)
}

/// Whom what runs is run for, by [`hearer::Hears::number`]; 0 for nobody.
pub fn running_for() -> u64 {
    DRIVEN_FOR.load(Ordering::Relaxed)
}

/// Whether everything is being stopped.
pub fn interrupting() -> bool {
    INTERRUPT.load(Ordering::Relaxed)
}

/// Whether what runs now is to stop: everything, or just this task.
pub fn stopping() -> bool {
    interrupting() || expired()
}

fn expired() -> bool {
    let number = EXPIRED.load(Ordering::Relaxed);
    number != 0 && number == running()
}

/// Makes one [`Driven`] raise, if it still runs, whatever it catches. Callable from any thread, again and again.
pub fn expire(number: u64) {
    EXPIRED.store(number, Ordering::Relaxed);
    poke();
}

/// Makes whatever Lua runs raise, at once and again, until [`end_interrupt`]. Callable from any thread.
pub fn interrupt() {
    INTERRUPT.store(true, Ordering::Relaxed);
    poke();
}

fn poke() {
    let thread = LUA_THREAD.load(Ordering::Relaxed);
    if thread != 0 {
        // SAFETY: tgkill(2) on a thread of this process; the handler is installed before LUA_THREAD is set.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, POKE as i32) };
    }
}

/// Lets Lua run again: for `cnf.on_stop` handlers, or the next line of a REPL.
pub fn end_interrupt() {
    INTERRUPT.store(false, Ordering::Relaxed);
    INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn install_interrupt() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
    let action = SigAction::new(SigHandler::Handler(poked), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only loads atomics and calls lua_sethook, which is async-signal-safe.
    unsafe { sigaction(POKE, &action) }.expect("SIGURG can be handled");
    LUA_THREAD.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
}

extern "C" fn poked(_: libc::c_int) {
    let state = RUNNING.load(Ordering::Relaxed);
    if !state.is_null() && stopping() {
        // SAFETY: RUNNING is a coroutine that runs on this very thread, so it is alive.
        unsafe { ffi::lua_sethook(state, Some(stop_here), ffi::LUA_MASKCOUNT, 1) };
    }
}

/// Pushes "interrupted" behind the place where the script was when it was interrupted first: while it unwinds, it is again and
/// again, in frames that say less.
///
/// # Safety
/// `state` is a coroutine that runs on this thread.
unsafe fn push_interrupted(state: *mut ffi::lua_State) {
    let text = {
        let mut first = INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() || !INTERRUPT.load(Ordering::Relaxed) {
            // SAFETY: as the caller's.
            *first = unsafe { place(state) };
        }
        // The lock is not held any more where Lua might find no memory for the text.
        first.clone()
    };
    let text = text.as_deref().unwrap_or(c"interrupted");
    // SAFETY: Lua copies the text.
    unsafe { ffi::lua_pushstring(state, text.as_ptr()) };
}

/// `setup.lua:3: interrupted`, of the innermost frame that is the script's.
///
/// # Safety
/// As of [`push_interrupted`].
unsafe fn place(state: *mut ffi::lua_State) -> Option<CString> {
    for level in 0..16 {
        // SAFETY: plain data, for which zeros are a value; Lua fills it for a level that there is.
        let (source, line) = unsafe {
            let mut frame: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(state, level, &raw mut frame) == 0 {
                return None;
            }
            ffi::lua_getinfo(state, c"Sl".as_ptr(), &raw mut frame);
            (CStr::from_ptr(frame.source).to_string_lossy().into_owned(), frame.currentline)
        };
        // As `site` tells frames of scripts.
        if let Some(file) = source.strip_prefix('@')
            && line > 0
        {
            return CString::new(format!("{file}:{line}: interrupted")).ok();
        }
    }
    None
}

unsafe extern "C-unwind" fn stop_here(state: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: called by Lua on a valid state; there is nothing here that lua_error could skip.
    unsafe {
        if !INTERRUPT.load(Ordering::Relaxed) {
            // A task whose time is up has until the next poke to close its variables.
            ffi::lua_sethook(state, None, 0, 0);
            if !expired() {
                return;
            }
        }
        push_interrupted(state);
        ffi::lua_error(state);
    }
}

/// The natives that only the prelude sees.
fn internals(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("pending", Lua::poll_pending())?;
    table.set("interrupting", lua.create_function(|_, ()| Ok(stopping()))?)?;
    table.set("interrupted", lua.create_function(|lua, ()| Ok(interrupted(lua)))?)?;
    table.set(
        "enter",
        lua.create_function(|_, thread: Thread| {
            RUNNING.store(thread.state(), Ordering::Relaxed);
            Ok(())
        })?,
    )?;
    table.set(
        "failed",
        lua.create_function(|lua, error: Value| {
            if is_out_of_memory(&error) {
                Host::of(lua).control.flag.stop(crate::stop::Stop::Memory);
                interrupt();
            }
            Ok(stopping())
        })?,
    )?;
    table.set(
        "nearest",
        lua.create_function(|_, (word, names): (String, Vec<String>)| {
            Ok(crate::nearest::nearest(&word, &names).map(str::to_owned))
        })?,
    )?;
    table.set("located", super::error::located_by(lua)?)?;
    table.set("standing", lua.create_function(super::frame::standing)?)?;
    table.set(
        "dress",
        lua.create_function(|lua, metatable: Table| super::error::dress(lua, &metatable))?,
    )?;
    table.set(
        "an_error",
        Value::Error(Box::new(raise(Error::new("", "", "the shape of errors")))),
    )?;
    table.set(
        "compile",
        lua.create_function(|lua, path: String| {
            let source = std::fs::read(&path)
                .map_err(|e| raise(Error::io("require", &e).subject(path.clone())))?;
            Host::of(lua).loaded(&path, &source);
            compile(lua, &path, &source, None)
        })?,
    )?;
    table.set("modules", super::modules(lua)?)?;
    table.set("library", stdlib::library(lua)?)?;
    table.set(
        "unknown",
        lua.create_function(|lua, given: (String, Value, Vec<String>, Option<String>)| {
            let (what, key, names, hint) = given;
            let key = match &key {
                Value::String(text) => text.to_string_lossy(),
                other => other.to_string()?,
            };
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let error = Error::new("", "EINVAL", format!("{what} \"{key}\""));
            let error = error.hint(match (super::option::nearest(&key, &names), hint) {
                (Some(near), _) => format!("did you mean \"{near}\"?"),
                (None, Some(hint)) => hint,
                (None, None) => format!("it has {}", names.join(", ")),
            });
            Err::<(), _>(raise(error.at(super::error::site(lua, 1))))
        })?,
    )?;
    Ok(table)
}

/// What is raised in a script that is being stopped: "interrupted", behind the place where it was first.
fn interrupted(lua: &Lua) -> String {
    let mut first = INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner);
    if first.is_none() || !interrupting() {
        let site = super::error::site(lua, 1);
        let text = site.map(|site| format!("{}:{}: interrupted", site.file, site.line));
        *first = text.and_then(|text| CString::new(text).ok());
    }
    first.as_deref().map_or("interrupted".into(), |text| text.to_string_lossy().into_owned())
}

fn is_out_of_memory(error: &Value) -> bool {
    match error {
        Value::String(text) => text.as_bytes() == &b"not enough memory"[..],
        Value::Error(error) => from_lua((**error).clone()).is("ENOMEM"),
        _ => false,
    }
}
