//! The child's side of `cnfscript test`: loads one file and runs its cases, one JSON line for each step.
//!
//! The lines go to what was standard output; everything that a case writes goes to standard error, in order.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Function, MultiValue, Table, Value};
use serde_json::json;

use super::super::{Common, run, status};
use super::{Status, TestArgs};
use crate::api::error::{from_lua, from_value};
use crate::api::host::{Host, Instance};
use crate::api::vm::Vm;
use crate::life::control::Control;
use crate::life::generation::{self, Ended};
use crate::own::{Ledger, Mark};
use crate::stop::StopFlag;
use crate::{Error, Result, report};

/// How long the deferred functions of a case that was cut off may take.
const FINISH_LIMIT: Duration = Duration::from_secs(3);

/// Between the outputs of two cases on standard error: ASCII's record separator, and the number of the next case.
pub const SEPARATOR: char = '\x1e';

/// Runs one file; the exit status.
pub fn work(file: &Path, args: &TestArgs, common: &Common) -> u8 {
    let ledger = Arc::new(Ledger::default());
    let mut claim = None;
    let outcome = take_stdout().and_then(|results| {
        let instance = Instance {
            name: instance_name(std::process::id()),
            script: file.canonicalize().ok(),
            args: Vec::new(),
            pins: None,
        };
        claim = run::hold(&instance, &ledger)?;
        let control = Control::start(Arc::new(StopFlag::default()), Arc::clone(&ledger))?;
        generation::live(instance, common.memory, &control, &ledger, async |vm, host| {
            let worker =
                Worker { vm, host, file: file.display().to_string(), limit: args.timeout, results };
            match worker.file(file, args).await {
                Ok(()) => Ended::Done,
                Err(error) => Ended::Failed(error),
            }
        })
    });
    ledger.tear_down();
    let status = match outcome {
        Ok(ended) => run::finish(&ended),
        Err(error) => {
            report::error(&error, None);
            status::FAILED
        }
    };
    if let Some(claim) = claim {
        claim.finish(status);
    }
    status
}

/// What the worker with that process id is called as an instance.
pub fn instance_name(pid: u32) -> String {
    format!("test-{pid}")
}

/// Keeps standard output for the results; what scripts and their children print goes to standard error.
fn take_stdout() -> Result<File> {
    let failed = |e: std::io::Error| Error::io("test", &e).subject("stdout");
    let results = std::io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
    nix::unistd::dup2_stdout(std::io::stderr()).map_err(|e| failed(e.into()))?;
    Ok(results.into())
}

struct Worker<'a> {
    vm: &'a Vm,
    host: &'a Rc<Host>,
    file: String,
    limit: Duration,
    results: File,
}

/// What the library keeps for the runner.
struct Library {
    cases: Vec<Table>,
    run: Function,
    finish: Function,
    flush: Function,
}

impl Worker<'_> {
    async fn file(&self, file: &Path, args: &TestArgs) -> Result<()> {
        let library = match self.load(file).await {
            Ok(library) => library,
            Err(error) => {
                self.say(&json!({
                    "event": "end", "case": "(load)", "status": "failed", "seconds": 0.0,
                    "reason": error.to_string(), "errors": report::render(&error, None),
                }));
                return Ok(());
            }
        };
        for (index, case) in library.cases.iter().enumerate().skip(args.from) {
            let name: String = case.get("name").map_err(from_lua)?;
            if super::matches(args.pattern.as_deref(), &name) {
                self.case(&library, index, &name, case).await?;
            }
        }
        Ok(())
    }

    async fn load(&self, file: &Path) -> Result<Library> {
        let shown = file.display().to_string();
        let source =
            std::fs::read(file).map_err(|e| Error::io("test", &e).subject(shown.clone()))?;
        let chunk = self.vm.compile(&shown, &source, None)?;
        self.limited(self.limit, self.vm.run(chunk, MultiValue::new())).await?;
        let build = || -> mlua::Result<Library> {
            let find = "local cnf = require 'cnf'; local _ = cnf.test
                return cnf._test.runner, function() io.stdout:flush() end";
            let (runner, flush): (Table, Function) =
                self.vm.lua().load(find).set_name("=[cnf]").call(())?;
            let cases: Table = runner.get::<Function>("cases")?.call(())?;
            Ok(Library {
                cases: cases.sequence_values().collect::<mlua::Result<_>>()?,
                run: runner.get("run")?,
                finish: runner.get("finish")?,
                flush,
            })
        };
        build().map_err(from_lua)
    }

    async fn case(&self, library: &Library, index: usize, name: &str, case: &Table) -> Result<()> {
        library.flush.call::<()>(()).map_err(from_lua)?;
        let _ = writeln!(std::io::stderr(), "{SEPARATOR}{index}");
        self.say(&json!({ "event": "start", "index": index, "case": name }));
        let marks = (self.host.ledger.mark(), self.host.tasks.latest());
        let start = Instant::now();
        let args = MultiValue::from_iter([Value::Table(case.clone())]);
        let ended = self.limited(self.limit, self.vm.run(library.run.clone(), args.clone())).await;
        if self.host.control.flag.reason().is_some() {
            // The case ends the whole process, which is the parent's to tell.
            std::future::pending::<()>().await;
        }
        let (status, reason, mut errors) = match ended {
            Ok(results) => verdict(results)?,
            Err(error) => {
                let mut errors = vec![error];
                let finish = self.vm.run(library.finish.clone(), args);
                match self.limited(FINISH_LIMIT, finish).await {
                    Ok(results) => errors.extend(problems(results.into_iter().next())),
                    Err(error) => errors.push(error),
                }
                (Status::Failed, None, errors)
            }
        };
        errors.extend(self.undo(marks));
        let status = if errors.is_empty() { status } else { Status::Failed };
        let reason = reason.filter(|_| errors.is_empty());
        let reason = reason.or_else(|| Some(errors.first()?.to_string())).unwrap_or_default();
        let line: u32 = case.get("line").map_err(from_lua)?;
        let site = crate::api::error::site_at(&self.file, line);
        let rendered: String = errors
            .iter()
            .map(|error| report::render(&error.clone().at(Some(site.clone())), None))
            .collect();
        library.flush.call::<()>(()).map_err(from_lua)?;
        self.say(&json!({
            "event": "end", "case": name, "index": index, "status": status.word(), "reason": reason,
            "errors": rendered, "seconds": start.elapsed().as_secs_f64(),
        }));
        Ok(())
    }

    /// Undoes what the case made; what went wrong behind its back.
    fn undo(&self, (ledger, tasks): (Mark, u64)) -> Vec<Error> {
        let mut errors = Vec::new();
        self.host.tasks.abort_after(tasks);
        errors.extend(self.host.ledger.tear_down_to(ledger).failures);
        self.host.stop_handlers.borrow_mut().clear();
        if self.host.tasks.take_failures() {
            errors.push(
                Error::new("", "", "a task failed and nobody joined it")
                    .hint("its error is in the output of the case"),
            );
        }
        errors
    }

    /// A run of Lua, waiting or not, that ends after `limit`.
    async fn limited(
        &self,
        limit: Duration,
        run: impl Future<Output = Result<MultiValue>>,
    ) -> Result<MultiValue> {
        let start = Instant::now();
        self.host.control.interrupt_after(limit);
        // Lua that loops is interrupted from the other thread; Lua that waits is dropped here.
        let ended = tokio::time::timeout(limit, run).await;
        // A stop of the whole process interrupts too, and is not to be taken back.
        if self.host.control.flag.reason().is_none() {
            self.host.control.noticed();
        }
        match ended {
            Ok(Ok(results)) => Ok(results),
            Ok(Err(error)) if start.elapsed() < limit => Err(error),
            _ => Err(Error::new("", "ETIMEDOUT", format!("timed out after {limit:?}"))
                .hint("--timeout gives every case more time")),
        }
    }

    fn say(&self, line: &serde_json::Value) {
        // A parent that is gone has no use for results.
        let _ = (&self.results).write_all(format!("{line}\n").as_bytes());
    }
}

/// What `runner.run` returned: status, and the reason of a skip or the errors of a failure.
fn verdict(results: MultiValue) -> Result<(Status, Option<String>, Vec<Error>)> {
    let mut results = results.into_iter();
    let word = match results.next() {
        Some(Value::String(word)) => word.to_string_lossy(),
        _ => String::new(),
    };
    Ok(match (word.as_str(), results.next()) {
        ("passed", _) => (Status::Passed, None, Vec::new()),
        ("skipped", Some(Value::String(why))) => {
            (Status::Skipped, Some(why.to_string_lossy()), Vec::new())
        }
        (_, list) => (Status::Failed, None, problems(list)),
    })
}

fn problems(list: Option<Value>) -> Vec<Error> {
    match list {
        Some(Value::Table(list)) => {
            list.sequence_values::<Value>().flatten().map(|value| from_value(&value)).collect()
        }
        _ => Vec::new(),
    }
}
