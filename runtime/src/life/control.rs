//! The second thread: signals and deadlines, so that a script that hangs or swallows errors can still be ended.
//!
//! On a signal it asks the Lua thread to stop, interrupts Lua while that thread does not answer, and in the end tears
//! the instance down itself, which needs no Lua.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::outside::Outside;
use crate::api::{limit, vm};
use crate::own::Ledger;
use crate::stop::{Stop, StopFlag};
use crate::{Error, Result};

/// How long the Lua thread may take to notice a stop before it is interrupted: longer than a step that only waits.
const GRACE: Duration = Duration::from_millis(50);
/// How long it may take in all before this thread tears down without it.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Between two interrupts of a script that catches them.
const POKE_EVERY: Duration = Duration::from_millis(5);

pub struct Control {
    pub flag: Arc<StopFlag>,
    ledger: Arc<Ledger>,
    watch: Mutex<Watch>,
    /// Wakes the thread: where a signal's handler writes, too.
    wake: UnixStream,
    /// What the thread has not taken yet.
    door: Mutex<Option<Door>>,
    /// Wakes who waits in [`Control::line_interrupted`].
    line_ends: tokio::sync::Notify,
    outside: OnceLock<Outside>,
    hangup: tokio::sync::Notify,
}

/// A descriptor, and what is to be done once when it becomes readable.
struct Door {
    listener: OwnedFd,
    opens: Box<dyn FnOnce() + Send>,
}

type Signals = SignalDelivery<UnixStream, SignalOnly>;

#[derive(Default)]
struct Watch {
    /// Interrupt Lua from this moment on, until it is cleared.
    interrupt_at: Option<Instant>,
    /// Tear down from this thread at that moment.
    give_up_at: Option<Instant>,
    /// A REPL: Ctrl-C ends the line, not the process.
    line_only: bool,
    /// SIGHUP asks for a reload.
    hangup_reloads: bool,
    /// Ctrl-C came, and no line has ended by it yet.
    line_interrupted: bool,
}

impl Watch {
    /// An earlier deadline stays.
    fn interrupt_by(&mut self, at: Instant) {
        self.interrupt_at = Some(self.interrupt_at.map_or(at, |earlier| earlier.min(at)));
    }
}

impl Control {
    /// Starts the thread. Call before anything is created.
    pub fn start(flag: Arc<StopFlag>, ledger: Arc<Ledger>) -> Result<Arc<Control>> {
        let failed = |e: std::io::Error| Error::io("signals", &e);
        let (read, write) = UnixStream::pair().map_err(failed)?;
        let control = Arc::new(Control {
            flag,
            ledger,
            watch: Mutex::default(),
            wake: write.try_clone().map_err(failed)?,
            door: Mutex::default(),
            line_ends: tokio::sync::Notify::new(),
            outside: OnceLock::new(),
            hangup: tokio::sync::Notify::new(),
        });
        let signals = SignalDelivery::with_pipe(read, write, SignalOnly, [SIGINT, SIGTERM, SIGHUP])
            .map_err(failed)?;
        let me = Arc::clone(&control);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || me.keep_watch(signals))
            .map_err(|e| Error::io("thread", &e))?;
        Ok(control)
    }

    /// The thread's life.
    fn keep_watch(&self, mut signals: Signals) {
        let mut door: Option<Door> = None;
        loop {
            let next = self.look_at_deadlines();
            door = self.door.lock().expect("no panic while held").take().or(door);
            let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut ready = vec![readable(signals.get_read().as_fd())];
            ready.extend(door.as_ref().map(|door| readable(door.listener.as_fd())));
            // A signal to this thread: whatever it was about is looked at again.
            let _ = poll(&mut ready, until(next));
            let knocked = ready.get(1).is_some_and(|door| door.any() == Some(true));
            for signal in signals.pending() {
                self.signalled(signal);
            }
            if knocked && let Some(door) = door.take() {
                (door.opens)();
            }
        }
    }

    /// Does something once, on the thread of this, when the descriptor becomes readable.
    pub fn when_readable(&self, listener: OwnedFd, opens: Box<dyn FnOnce() + Send>) {
        *self.door.lock().expect("no panic while held") = Some(Door { listener, opens });
        self.look_again();
    }

    /// Has the thread look at what has changed.
    fn look_again(&self) {
        // What is full is about to be read.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(self.wake.as_raw_fd(), &[0], flags);
    }

    fn signalled(&self, signal: i32) {
        let watch = self.watch.lock().expect("no panic while held");
        if watch.line_only && signal == SIGINT {
            drop(watch);
            self.interrupt_line();
            return;
        }
        if watch.hangup_reloads && signal == SIGHUP && !terminal_is_gone() {
            self.hangup.notify_one();
            return;
        }
        drop(watch);
        self.end(Stop::Signal(signal));
    }

    /// Somebody asks for an orderly end: no script keeps it from coming.
    pub fn down(&self) {
        self.end(Stop::Exit(None));
    }

    fn end(&self, reason: Stop) {
        let now = Instant::now();
        let mut watch = self.watch.lock().expect("no panic while held");
        watch.interrupt_by(now + GRACE);
        watch.give_up_at.get_or_insert(now + PATIENCE);
        drop(watch);
        self.flag.stop(reason);
        self.look_again();
    }

    /// Who waits for this instance and asks it; none for the prompt and the tests.
    pub fn outside(&self) -> Option<&Outside> {
        self.outside.get()
    }

    /// Once, before the first generation.
    pub fn set_outside(&self, outside: Outside) {
        let _ = self.outside.set(outside);
    }

    /// Whoever waits for the network to be set up may go on.
    pub fn committed(&self) {
        if let Some(outside) = self.outside() {
            outside.committed();
        }
    }

    /// The Lua thread has noticed: it tears down itself, Lua may run again.
    pub fn noticed(&self) {
        let mut watch = self.watch.lock().expect("no panic while held");
        watch.interrupt_at = None;
        watch.give_up_at = None;
        watch.line_interrupted = false;
        vm::end_interrupt();
    }

    /// What was to be interrupted is over; a stop that was asked for meanwhile goes on.
    pub fn calm(&self) {
        if self.flag.reason().is_none() {
            self.watch.lock().expect("no panic while held").interrupt_at = None;
            vm::end_interrupt();
        }
    }

    /// From now on SIGHUP asks for a reload, and not for the end, unless the terminal has gone.
    pub fn reload_on_hangup(&self) {
        self.watch.lock().expect("no panic while held").hangup_reloads = true;
    }

    /// Waits for a SIGHUP.
    pub async fn hangup(&self) {
        self.hangup.notified().await;
    }

    /// Interrupts Lua when `limit` has passed, unless [`Control::noticed`] comes first.
    pub fn interrupt_after(&self, limit: Duration) {
        self.watch.lock().expect("no panic while held").interrupt_at = Some(Instant::now() + limit);
        self.look_again();
    }

    /// A task has got a limit that may be the next to pass.
    pub fn look_at_limits(&self) {
        self.look_again();
    }

    /// From now on Ctrl-C ends what runs and not the process: the manners of a REPL.
    pub fn interrupt_lines_only(&self) {
        self.watch.lock().expect("no panic while held").line_only = true;
    }

    /// Ctrl-C at a prompt, whoever read it: what runs ends, in Lua or waiting, until [`Control::noticed`].
    pub fn interrupt_line(&self) {
        let mut watch = self.watch.lock().expect("no panic while held");
        watch.interrupt_by(Instant::now() + GRACE);
        watch.line_interrupted = true;
        drop(watch);
        self.look_again();
        self.line_ends.notify_waiters();
    }

    /// Waits for a Ctrl-C that ends the line.
    pub async fn line_interrupted(&self) {
        loop {
            let ends = self.line_ends.notified();
            tokio::pin!(ends);
            ends.as_mut().enable();
            if self.is_line_interrupted() {
                return;
            }
            ends.await;
        }
    }

    pub fn is_line_interrupted(&self) -> bool {
        self.watch.lock().expect("no panic while held").line_interrupted
    }

    /// Does what is due; when to look again.
    fn look_at_deadlines(&self) -> Option<Instant> {
        let now = Instant::now();
        let (interrupt_at, give_up_at) = {
            let watch = self.watch.lock().expect("no panic while held");
            (watch.interrupt_at, watch.give_up_at)
        };
        if give_up_at.is_some_and(|at| at <= now) {
            self.give_up();
        }
        let poking = interrupt_at.is_some_and(|at| at <= now);
        if poking {
            vm::interrupt();
        }
        let poke = if poking { Some(now + POKE_EVERY) } else { interrupt_at };
        let limit = limit::enforce(now, POKE_EVERY);
        [poke, give_up_at, limit].into_iter().flatten().min()
    }

    /// The script hangs where no interrupt reaches it: clean up and leave without it.
    fn give_up(&self) -> ! {
        tracing::warn!("the script does not answer; cleaning up without it");
        crate::cli::run::tear_down(&self.ledger);
        crate::kernel::process::end_enlisted();
        if let Some(outside) = self.outside() {
            outside.end(crate::cli::status::INTERRUPTED);
        }
        // SAFETY: _exit(2) runs no destructor: the Lua thread is somewhere inside one of its own.
        unsafe { libc::_exit(130) }
    }
}

/// How long to wait for that moment: whole milliseconds, not too few.
fn until(moment: Option<Instant>) -> PollTimeout {
    let Some(moment) = moment else { return PollTimeout::NONE };
    let wait = moment.saturating_duration_since(Instant::now());
    PollTimeout::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
}

/// Whether this process had a terminal that has hung up: then SIGHUP is its farewell (`termios(3)`: EIO).
fn terminal_is_gone() -> bool {
    use nix::errno::Errno;
    std::fs::File::open("/dev/tty").is_err_and(|e| e.raw_os_error() == Some(Errno::EIO as i32))
        || matches!(nix::sys::termios::tcgetattr(std::io::stdin()), Err(Errno::EIO))
}
