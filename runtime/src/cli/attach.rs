//! `cnfscript attach [NAME]`: a prompt inside a running instance. Lines are edited here and run there; leaving it leaves
//! the instance as it is.
//!
//! Three things come in from threads of their own, and the loop takes them one by one: what is typed, what the instance
//! says, and signals.

mod input;
mod line;

use std::io::{IsTerminal, Write};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::mpsc;

use self::input::Input;
use self::line::Wire;
use super::repl::editor::{Message, Terminal, width};
use super::repl::{Typed, no_command};
use super::{reach, status};
use crate::life::generation;
use crate::life::socket::wire::{Ask, Command, Done, Event};
use crate::own::instance::{Found, Instances};
use crate::{Error, Result, report};

const OP: &str = "attach";
/// An instance that has not answered a Ctrl-C for that long (its process is stopped) is left at the next one.
const ANSWERS: Duration = Duration::from_secs(2);
/// A Ctrl-C that comes as early before a line is meant for it.
const JUST_NOW: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub struct AttachArgs {
    /// The instance, or its script; by default the only one that runs
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// 1 when a line that did not come from a terminal failed, or the instance ended before the last one.
pub fn attach(args: &AttachArgs) -> Result<u8> {
    let found = match &args.name {
        Some(name) => reach::find(OP, name)?,
        None => the_only_one()?,
    };
    reach::alive(OP, &found)?;
    let mut connection = reach::Connection::open(OP, &found, None)?;
    let known = connection.ask(&Command::Attach)?;
    let terminal = std::io::stdin().is_terminal();
    let saved = Terminal::save();
    let outcome = generation::runtime()?.block_on(async {
        let (messages, inbox) = mpsc::unbounded_channel();
        let input = if terminal { Input::edited(messages)? } else { Input::piped(messages)? };
        let (wire, events) = Wire::start(OP, connection.into_stream())?;
        if terminal {
            input.print(&format!("{}\n", greeting(&found.name, &known)));
        }
        let mut prompt = Prompt {
            name: found.name.clone(),
            input,
            wire,
            terminal,
            generation: known.get("generation").and_then(Value::as_u64),
            running: false,
            reloading: false,
            failed: false,
            has_ended: false,
            interrupted: None,
            pressed: None,
            completing: None,
        };
        let status = prompt.live(inbox, events, signals()?).await;
        status.map(|status| (status, prompt.has_ended))
    });
    // The editor's thread may still wait for a key.
    drop(saved);
    let (status, has_ended) = outcome?;
    if has_ended {
        let _ = writeln!(std::io::stderr(), "{} has ended", found.name);
    }
    Ok(status)
}

/// What is there to attach to when nobody says.
fn the_only_one() -> Result<Found> {
    let all = Instances::here().all()?;
    // One without a socket is a prompt, or a test.
    let running: Vec<&Found> =
        all.iter().filter(|found| found.alive && found.paths.socket().exists()).collect();
    match running[..] {
        [one] => Ok(one.clone()),
        [] => Err(Error::new(OP, "ENOENT", "no instance runs")
            .hint("cnfscript up SCRIPT starts one in the background")),
        _ => {
            let names: Vec<&str> = running.iter().map(|found| found.name.as_str()).collect();
            Err(Error::invalid(OP, "several instances run")
                .hint(format!("name one: {}", names.join(", "))))
        }
    }
}

fn greeting(name: &str, known: &Map<String, Value>) -> String {
    let generation = match known.get("generation").and_then(Value::as_u64) {
        Some(generation) => format!("generation {generation}"),
        None => "nothing loaded".to_owned(),
    };
    let pid = known.get("pid").cloned().unwrap_or_default();
    format!("attached to {name}: {generation}, pid {pid}; :help tells more, Ctrl-D detaches")
}

/// Signals, by their numbers.
fn signals() -> Result<mpsc::UnboundedReceiver<i32>> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Error::io("signals", &e))?;
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.forever().all(|signal| send.send(signal).is_ok()))
        .map_err(|e| Error::io("thread", &e))?;
    Ok(receive)
}

struct Prompt {
    name: String,
    input: Input,
    wire: Wire,
    /// Lines come from a person.
    terminal: bool,
    generation: Option<u64>,
    /// A line is under way.
    running: bool,
    /// It loads the script again.
    reloading: bool,
    /// A line has failed.
    failed: bool,
    /// The instance has.
    has_ended: bool,
    /// Ctrl-C came, and the line has not ended yet.
    interrupted: Option<Instant>,
    /// Ctrl-C came as a signal while no line was under way: an editor would have taken it as a key.
    pressed: Option<Instant>,
    /// Who waits for what could be typed.
    completing: Option<Sender<(usize, Vec<String>)>>,
}

/// Whether the prompt goes on.
enum Next {
    On,
    Leave(u8),
}

impl Prompt {
    async fn live(
        &mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut events: mpsc::Receiver<Event>,
        mut signals: mpsc::UnboundedReceiver<i32>,
    ) -> Result<u8> {
        self.input.next();
        loop {
            let next = tokio::select! {
                Some(message) = inbox.recv(), if !self.running => self.typed(message)?,
                event = events.recv() => match event {
                    Some(event) => self.told(event),
                    None => return Ok(self.parted()),
                },
                Some(signal) = signals.recv() => self.signalled(signal)?,
            };
            if let Next::Leave(status) = next {
                return Ok(status);
            }
        }
    }

    fn typed(&mut self, message: Message) -> Result<Next> {
        match message {
            Message::Complete { line, answer } => {
                self.completing = Some(answer);
                self.ask(&Ask::Complete { text: line });
                return Ok(Next::On);
            }
            // A task of an earlier line may be what keeps the instance from its work.
            Message::Interrupted => drop(self.ask(&Ask::Interrupt)),
            Message::End => return Ok(Next::Leave(self.status())),
            Message::Line(line) => match Typed::of(&line) {
                Typed::Nothing => {}
                Typed::Quit => return Ok(Next::Leave(self.status())),
                Typed::Help => {
                    return Ok(self.run(&Ask::Line { text: "help()".into(), width: width() }));
                }
                Typed::Reload => return Ok(self.run(&Ask::Reload)),
                Typed::Unknown(command) => {
                    self.failed = true;
                    self.input.report(&format!("{}\n", no_command(command)));
                }
                Typed::Lua => return Ok(self.run(&Ask::Line { text: line, width: width() })),
            },
        }
        self.input.next();
        Ok(Next::On)
    }

    fn run(&mut self, ask: &Ask) -> Next {
        self.reloading = matches!(ask, Ask::Reload);
        self.running = self.ask(ask);
        if !self.running {
            self.input.next();
        }
        // It came between the line's end and here.
        if self.running && self.pressed.take().is_some_and(|at| at.elapsed() < JUST_NOW) {
            self.interrupt();
        }
        Next::On
    }

    fn interrupt(&mut self) {
        self.interrupted = Some(Instant::now());
        self.ask(&Ask::Interrupt);
    }

    /// Whether it was sent: one that is too long is told, one to an instance that has ended is seen at the end of its events.
    fn ask(&mut self, ask: &Ask) -> bool {
        match self.wire.ask(ask) {
            Ok(()) => true,
            Err(error) => {
                self.failed = true;
                report::error(&error.operation(OP).about(&self.name), None);
                false
            }
        }
    }

    fn told(&mut self, event: Event) -> Next {
        match event {
            Event::Out(text) => self.input.print(&text),
            Event::Err(text) => self.input.report(&text),
            Event::Completions { at, words } => {
                if let Some(answer) = self.completing.take() {
                    let _ = answer.send((at, words));
                }
            }
            Event::Reloaded { generation, text } => {
                let lost = match self.generation {
                    Some(_) => "; what lines had in variables went with the load before",
                    None => "",
                };
                self.generation = Some(generation.into());
                self.input.report(&format!("{text}\nthis is generation {generation}{lost}\n"));
            }
            Event::Done(done) => return self.done(done),
        }
        Next::On
    }

    fn done(&mut self, done: Done) -> Next {
        self.running = false;
        let interrupted = self.interrupted.take().is_some();
        match done {
            Done::Ok => {}
            Done::Ended => {
                self.input.report(&format!("{} ends\n", self.name));
                return Next::Leave(self.status());
            }
            Done::Interrupted => {
                self.failed = true;
                self.input.report("interrupted\n");
            }
            Done::Failed(error) => {
                self.failed = true;
                let error = Error::from(error);
                let context = self.reloading.then_some("not reloaded");
                match error.op() {
                    // Not of the script, but of its instance.
                    "socket" => report::error(&error.operation(OP).about(&self.name), None),
                    _ => report::error(&error, context),
                }
            }
        }
        // What else came in through the pipe is not wanted any more.
        if interrupted && !self.terminal {
            return Next::Leave(status::INTERRUPTED);
        }
        self.input.next();
        Next::On
    }

    fn signalled(&mut self, signal: i32) -> Result<Next> {
        if signal != SIGINT {
            return Ok(Next::Leave(status::INTERRUPTED));
        }
        match (self.running, self.interrupted) {
            (false, _) if self.terminal => {
                self.pressed = Some(Instant::now());
                self.input.interrupted();
            }
            (false, _) => return Ok(Next::Leave(status::INTERRUPTED)),
            (true, Some(at)) if at.elapsed() > ANSWERS => {
                let error = Error::new(OP, "ETIMEDOUT", "it does not answer");
                return Err(error.subject(&self.name).hint("cnfscript status tells how it is"));
            }
            (true, Some(_)) => {}
            (true, None) => self.interrupt(),
        }
        Ok(Next::On)
    }

    /// The instance has closed the connection.
    fn parted(&mut self) -> u8 {
        self.has_ended = true;
        if self.running || !self.terminal { status::FAILED } else { status::DONE }
    }

    fn status(&self) -> u8 {
        // A person has seen it.
        if self.failed && !self.terminal { status::FAILED } else { status::DONE }
    }
}
