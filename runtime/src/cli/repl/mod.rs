//! `cnfscript` alone: a prompt. Every line is a chunk of one generation; what waits can be typed as it is.
//!
//! The line is edited on a thread of its own (`editor`), so that tasks go on while the prompt waits. Lua stays on this
//! one: lines, and requests for completion, come here as messages.

pub mod editor;

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use self::editor::{Editor, Message};
use super::{Common, run, status};
use crate::api::host::{Host, Instance};
use crate::api::limit::Endable;
use crate::api::prompt::Prompt;
use crate::api::vm::Vm;
use crate::life::control::Control;
use crate::life::generation::{self, Ended};
use crate::own::Ledger;
use crate::stop::StopFlag;
use crate::{Error, Result, report};

/// Runs the prompt to its end; the exit status.
pub fn repl(name: Option<String>, common: &Common) -> u8 {
    let ledger = Arc::new(Ledger::default());
    let terminal = editor::Terminal::save();
    let mut claim = None;
    let outcome =
        (|| {
            run::say_missing_privilege();
            let instance = Instance {
                name: name.unwrap_or_else(|| format!("repl-{}", std::process::id())),
                script: None,
                args: Vec::new(),
                pins: None,
            };
            claim = run::hold(&instance, &ledger)?;
            let control = Control::start(Arc::new(StopFlag::default()), Arc::clone(&ledger))?;
            control.interrupt_lines_only();
            generation::live(instance, common.memory, &control, &ledger, async |vm, host| {
                match session(vm, host).await {
                    Ok(()) => Ended::Done,
                    Err(error) => Ended::Failed(error),
                }
            })
        })();
    // The editor's thread may still wait for a key.
    drop(terminal);
    let status = match outcome {
        Ok(ended) => run::finish(&ended),
        Err(error) => {
            report::error(&error, None);
            status::FAILED
        }
    };
    ledger.tear_down();
    if let Some(claim) = claim {
        claim.finish(status);
    }
    status
}

/// What was typed: a command of the prompt, or Lua.
pub enum Typed<'a> {
    Nothing,
    Quit,
    Help,
    Reload,
    /// A command that there is not.
    Unknown(&'a str),
    Lua,
}

impl Typed<'_> {
    pub fn of(line: &str) -> Typed<'_> {
        match line.trim() {
            "" => Typed::Nothing,
            ":quit" | ":q" | ":exit" => Typed::Quit,
            ":help" | ":h" | ":?" => Typed::Help,
            ":reload" | ":r" => Typed::Reload,
            command if command.starts_with(':') => Typed::Unknown(command),
            _ => Typed::Lua,
        }
    }
}

/// What a command that there is not is answered.
pub fn no_command(command: &str) -> String {
    format!("no command {command}; there are :help, :reload and :quit")
}

/// What `:reload` is answered where nothing was loaded.
fn nothing_to_reload() -> Error {
    Error::new(":reload", "EINVAL", "no script runs here: it loads a script again, in its place")
        .hint("cnfscript attach NAME is a prompt inside an instance: up SCRIPT, or SCRIPT in another terminal")
}

async fn session(vm: &Vm, host: &Rc<Host>) -> Result<()> {
    let (messages, mut inbox) = mpsc::unbounded_channel();
    let control = Arc::clone(&host.control);
    // A task that loops is what the person means to end.
    let editor = Editor::start(move || control.interrupt_line(), messages)?;
    // Tasks print while a line is being edited: above it, not into it.
    let printer = editor.printer();
    let prompt = Prompt::alone(vm, move |text| printer.print(text))?;
    let mut session = Session { vm, control: &host.control, prompt, lines: 0 };
    println!(
        "cnfscript {} on Linux {}; :help tells more",
        env!("CARGO_PKG_VERSION"),
        nix::sys::utsname::uname()
            .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned())
    );
    editor.next();
    loop {
        let message = tokio::select! {
            message = inbox.recv() => message,
            () = host.control.line_interrupted() => {
                host.control.noticed();
                editor.interrupted();
                continue;
            }
        };
        let Some(message) = message else { break };
        match message {
            Message::Complete { line, answer } => {
                // A prompt that does not wait any more has no use for the answer.
                let found = session.prompt.complete(vm, &line).await;
                let _ = answer.send(found.unwrap_or((line.len(), Vec::new())));
                continue;
            }
            Message::Interrupted => host.control.noticed(),
            Message::Line(line) => match Typed::of(&line) {
                Typed::Nothing => {}
                Typed::Quit => break,
                Typed::Help => session.run("help()").await,
                Typed::Reload => report::error(&nothing_to_reload(), None),
                Typed::Unknown(command) => println!("{}", no_command(command)),
                Typed::Lua => session.run(&line).await,
            },
            Message::End => break,
        }
        editor.next();
    }
    Ok(())
}

/// What the prompt needs of Lua.
struct Session<'a> {
    vm: &'a Vm,
    control: &'a Control,
    prompt: Prompt,
    /// Lines so far: each is a chunk of its own, named by its number.
    lines: usize,
}

impl Session<'_> {
    /// Runs a line and prints its results or its error.
    async fn run(&mut self, line: &str) {
        self.lines += 1;
        let name = format!("prompt[{}]", self.lines);
        let endable = Endable::default();
        let ran = self.prompt.evaluate(self.vm, &name, line, editor::width(), &endable);
        let ended = tokio::select! {
            ended = ran => Some(ended),
            () = self.control.line_interrupted() => None,
        };
        let interrupted = self.control.is_line_interrupted();
        // The line has ended the process: no error of it, and no other prompt.
        if self.control.flag.reason().is_some() {
            std::future::pending::<()>().await;
        }
        self.control.noticed();
        match ended {
            _ if interrupted => println!("interrupted"),
            Some(Ok(Some(text))) => println!("{text}"),
            Some(Err(error)) => report::error(&error, None),
            _ => {}
        }
    }
}
