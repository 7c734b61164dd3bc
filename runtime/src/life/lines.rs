//! What attached prompts run in one generation: their environments, and the lines that are under way. A line is the
//! generation's like any task of its script, and ends with it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::socket::session::Session;
use super::socket::wire::{Done, Event};
use crate::api::host::Host;
use crate::api::prompt::Prompt;
use crate::api::vm::Vm;
use crate::api::{source, task};
use crate::hearer::{self, Hears, Said};
use crate::{Error, Result};

/// How errors call the lines: `attached[2.1]` is the first one of the second prompt.
const NAME: &str = "attached[";

/// A line as it came.
pub struct Line {
    pub session: Arc<Session>,
    pub number: u64,
    pub text: String,
    pub width: i64,
}

#[derive(Default)]
pub struct Lines {
    /// By the number of their session.
    prompts: RefCell<HashMap<u64, Rc<Prompt>>>,
    running: RefCell<Vec<Running>>,
}

struct Running {
    /// None: a completion.
    line: Option<(Arc<Session>, u64)>,
    work: JoinHandle<()>,
}

impl Lines {
    /// Starts a line; its session is told what comes of it.
    pub fn start(&self, vm: &Rc<Vm>, host: &Rc<Host>, line: Line) {
        if line.session.is_interrupted() {
            line.session.done(line.number, Done::Interrupted);
            return;
        }
        let of = (Arc::clone(&line.session), line.number);
        let hearer: Arc<dyn Hears> = Arc::clone(&line.session) as _;
        let prompt = self.prompt(vm, &line.session);
        let (vm, held) = (Rc::clone(vm), Held::new(host));
        let work = hearer::heard_by(hearer, run(vm, prompt, held, line));
        self.keep(Some(of), tokio::task::spawn_local(work));
    }

    /// Tells the session what could stand at the end of the text.
    pub fn complete(&self, vm: &Rc<Vm>, session: &Arc<Session>, text: String) {
        let Ok(prompt) = self.prompt(vm, session) else { return };
        let (vm, session) = (Rc::clone(vm), Arc::clone(session));
        let work = task::ends_what_waits(async move {
            if let Ok((at, words)) = prompt.complete(&vm, &text).await {
                session.tell_now(Event::Completions { at, words });
            }
        });
        self.keep(None, tokio::task::spawn_local(work));
    }

    /// The prompt has gone.
    pub fn forget(&self, session: &Session) {
        self.prompts.borrow_mut().remove(&session.number);
    }

    /// Ends them all: nothing of the VM is held afterwards. Whoever waits for one is told `how` it ended.
    pub async fn end(&self, how: impl Fn() -> Done) {
        for Running { line, work } in self.running.take() {
            work.abort();
            // Its end, or that it was aborted.
            let _ = work.await;
            if let Some((session, number)) = line {
                session.done(number, how());
            }
        }
        self.prompts.take();
        source::forget(NAME);
    }

    fn prompt(&self, vm: &Vm, session: &Session) -> Result<Rc<Prompt>> {
        if let Some(prompt) = self.prompts.borrow().get(&session.number) {
            return Ok(Rc::clone(prompt));
        }
        let prompt = Rc::new(Prompt::attached(vm)?);
        self.prompts.borrow_mut().insert(session.number, Rc::clone(&prompt));
        Ok(prompt)
    }

    fn keep(&self, line: Option<(Arc<Session>, u64)>, work: JoinHandle<()>) {
        let mut running = self.running.borrow_mut();
        running.retain(|running| !running.work.is_finished());
        running.push(Running { line, work });
    }
}

/// A script does not end while a line runs.
struct Held(Rc<Host>);

impl Held {
    fn new(host: &Rc<Host>) -> Held {
        host.tasks.hold();
        Held(Rc::clone(host))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.tasks.release();
    }
}

async fn run(vm: Rc<Vm>, prompt: Result<Rc<Prompt>>, held: Held, line: Line) {
    let Line { session, number, text, width } = line;
    let name = format!("{NAME}{}.{number}]", session.number);
    let evaluated = async {
        let prompt = prompt?;
        let results = prompt.evaluate(&vm, &name, &text, width, &session.runs).await?;
        if let Some(results) = results {
            session.hear(Said::Out(results + "\n")).await;
        }
        Ok::<(), Error>(())
    };
    let ended = tokio::select! {
        ended = evaluated => Some(ended),
        () = session.interrupted() => None,
    };
    let done = match ended {
        // It has ended the instance: no error of it.
        _ if held.0.control.flag.reason().is_some() => Done::Ended,
        _ if session.is_interrupted() => Done::Interrupted,
        Some(Err(error)) => Done::failed(&error),
        _ => Done::Ok,
    };
    drop((held, vm));
    session.done(number, done);
}
