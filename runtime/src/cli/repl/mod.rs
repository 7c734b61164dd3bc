//! `cnfscript` alone: a prompt. Every line is a chunk of one generation; what waits can be typed as it is.
//!
//! The line is edited on a thread of its own (`editor`), so that tasks go on while the prompt waits. Lua stays on this
//! one: lines, and requests for completion, come here as messages.

mod editor;

use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, MultiValue, Table, Value};
use tokio::sync::mpsc;

use self::editor::{Editor, Message};
use super::{Common, run, status};
use crate::api::error::from_lua;
use crate::api::host::{Host, Instance};
use crate::api::vm::Vm;
use crate::life::control::Control;
use crate::life::generation::{self, Ended};
use crate::own::Ledger;
use crate::stop::StopFlag;
use crate::{Result, report};

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

/// What the prompt needs of Lua.
struct Session<'a> {
    vm: &'a Vm,
    control: &'a Control,
    environment: Table,
    complete: Function,
    results: Function,
    /// Lines so far: each is a chunk of its own, named by its number.
    lines: usize,
}

async fn session(vm: &Vm, host: &Rc<Host>) -> Result<()> {
    let (messages, mut inbox) = mpsc::unbounded_channel();
    let editor = Editor::start(Arc::clone(&host.control), messages)?;
    let mut session = Session::new(vm, &host.control, &editor)?;
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
                let _ = answer.send(session.complete(&line).unwrap_or_default());
                continue;
            }
            Message::Interrupted => host.control.noticed(),
            Message::Line(line) => match line.trim() {
                "" => {}
                ":quit" | ":q" | ":exit" => break,
                ":help" | ":h" | ":?" => session.run("help()").await,
                command if command.starts_with(':') => {
                    println!("no command {command}; there are :help and :quit");
                }
                _ => session.run(&line).await,
            },
            Message::End => break,
        }
        editor.next();
    }
    Ok(())
}

impl<'a> Session<'a> {
    fn new(vm: &'a Vm, control: &'a Control, editor: &Editor) -> Result<Session<'a>> {
        let environment = vm.interactive_environment()?;
        let build = || -> mlua::Result<Session<'a>> {
            let lua = vm.lua();
            let prompt: Table =
                lua.load("return require 'cnf'._prompt").set_name("=[cnf]").call(())?;
            // Tasks print while a line is being edited: above it, not into it.
            let printer = editor.printer();
            let print = lua.create_function(move |_, text: mlua::LuaString| {
                printer.print(&text.to_string_lossy());
                Ok(())
            })?;
            prompt.get::<Function>("install")?.call::<()>((&environment, print))?;
            Ok(Session {
                vm,
                control,
                environment,
                complete: prompt.get("complete")?,
                results: prompt.get("results")?,
                lines: 0,
            })
        };
        build().map_err(from_lua)
    }

    /// Runs a line and prints its results or its error.
    async fn run(&mut self, line: &str) {
        self.lines += 1;
        let name = format!("prompt[{}]", self.lines);
        let ran = async {
            let results = self.vm.run(self.compile(&name, line)?, MultiValue::new()).await?;
            let mut call = MultiValue::from_iter([
                Value::Table(self.environment.clone()),
                Value::Integer(editor::width()),
            ]);
            call.extend(results);
            // `__tostring` of a script's own may wait, loop or fail like any other Lua.
            self.vm.run(self.results.clone(), call).await
        };
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
            Some(Ok(text)) => {
                if let Some(Value::String(text)) = text.front() {
                    println!("{}", text.to_string_lossy());
                }
            }
            Some(Err(error)) => report::error(&error, None),
            None => {}
        }
    }

    /// An expression if it is one, else a statement.
    fn compile(&self, name: &str, line: &str) -> Result<Function> {
        let compile =
            |text: &str| self.vm.compile(name, text.as_bytes(), Some(self.environment.clone()));
        let expression = compile(&format!("return {line}"));
        let statement = match expression {
            Ok(_) => None,
            Err(_) => Some(compile(line)),
        };
        // Errors show the line as it was typed.
        crate::api::source::keep(name, line.as_bytes());
        match statement {
            None => expression,
            // A complaint about the very first word tells less than what is wrong with the expression.
            Some(Err(error)) if complains_about_start(&error, line) => {
                expression.map_err(|wrong| error.because(wrong.message()))
            }
            Some(statement) => statement,
        }
    }

    fn complete(&self, line: &str) -> mlua::Result<(usize, Vec<String>)> {
        self.complete.call((&self.environment, line))
    }
}

fn complains_about_start(error: &crate::Error, line: &str) -> bool {
    let message = error.message();
    let near = message.rsplit_once("near '").map(|(_, near)| near.trim_end_matches('\''));
    near.is_some_and(|near| line.trim_start().starts_with(near))
}
