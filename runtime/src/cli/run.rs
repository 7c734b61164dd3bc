//! `cnfscript SCRIPT [ARGS]`: run, park, tear down.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Common, status};
use crate::api::host::Instance;
use crate::kernel::capability;
use crate::life::control::Control;
use crate::life::generation::{self, Chunk, Ended};
use crate::own::Ledger;
use crate::stop::{Stop, StopFlag};
use crate::{Error, Result, report};

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The script; - reads it from standard input. With --execute, the first of ARGS
    #[arg(value_name = "SCRIPT")]
    pub(super) script: Option<PathBuf>,
    /// Run this text instead of a file; the modules are plain names in it
    #[arg(short, long, value_name = "CHUNK")]
    pub(super) execute: Option<String>,
    /// The instance's name; the script's file stem by default
    #[arg(long)]
    pub(super) name: Option<String>,
    /// What the script finds in cnf.args
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<String>,
}

/// Runs a script to its end; the exit status.
pub fn run(args: &RunArgs, common: &Common) -> u8 {
    if args.script.is_none() && args.execute.is_none() && std::io::stdin().is_terminal() {
        return super::repl::repl(args.name.clone(), common);
    }
    let (instance, chunk) = match prepare(args) {
        Ok(prepared) => prepared,
        Err(error) => {
            report::error(&error, None);
            return status::USAGE;
        }
    };
    say_missing_privilege();
    let ledger = Arc::new(Ledger::default());
    let outcome = Control::start(Arc::new(StopFlag::default()), Arc::clone(&ledger))
        .and_then(|control| generation::run(instance, &chunk, common.memory, &control, &ledger));
    let status = match outcome {
        Ok(ended) => finish(&ended),
        Err(error) => {
            report::error(&error, None);
            status_of(&error)
        }
    };
    tear_down(&ledger);
    status
}

/// Undoes everything and says what that was.
pub fn tear_down(ledger: &Ledger) {
    let removed = ledger.tear_down();
    if !removed.is_empty() {
        tracing::info!("removed {removed}");
    }
    for failure in &removed.failures {
        report::error(failure, Some("left behind"));
    }
}

/// Whether the script failed, or what the kernel or a permission would not give it.
pub(super) fn status_of(error: &Error) -> u8 {
    let refused = error.is("EPERM") && !capability::missing().is_empty();
    if refused || error.is("EOPNOTSUPP") { status::MISSING } else { status::FAILED }
}

/// Says once, before anything is tried, what this process may not do and how it could.
pub(super) fn say_missing_privilege() {
    let missing = capability::missing();
    if missing.is_empty() {
        return;
    }
    let words: Vec<String> = std::env::args().map(|word| quoted(&word)).collect();
    tracing::warn!(
        "without {}: the kernel will refuse namespaces, links and eBPF\n  = hint: sudo {}",
        missing.join(", "),
        words.join(" ")
    );
}

/// A word as a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// The exit status of an end, and its error printed.
pub(super) fn finish(ended: &Ended) -> u8 {
    match ended {
        Ended::Done => status::DONE,
        Ended::TaskFailed => status::FAILED,
        Ended::Failed(error) => {
            report::error(error, None);
            status_of(error)
        }
        Ended::Stopped(Stop::Exit(code)) => code.unwrap_or(status::DONE),
        Ended::Stopped(Stop::Signal(_)) => status::INTERRUPTED,
        Ended::Stopped(Stop::Memory) => {
            report::error(&crate::api::error::out_of_memory(), None);
            status::FAILED
        }
    }
}

pub(super) fn prepare(args: &RunArgs) -> Result<(Instance, Chunk)> {
    let pid = std::process::id();
    let (default_name, script, chunk) = match (&args.execute, &args.script) {
        (Some(text), _) => {
            let chunk =
                Chunk { name: "-e".into(), source: text.clone().into_bytes(), interactive: true };
            (format!("e-{pid}"), None, chunk)
        }
        (None, path) if path.as_ref().is_none_or(|path| path.as_os_str() == "-") => {
            let mut source = Vec::new();
            std::io::stdin()
                .read_to_end(&mut source)
                .map_err(|e| Error::io("read", &e).subject("stdin"))?;
            (
                format!("stdin-{pid}"),
                None,
                Chunk { name: "stdin".into(), source, interactive: false },
            )
        }
        (None, Some(path)) => {
            let shown = path.display().to_string();
            let source = std::fs::read(path).map_err(|e| {
                Error::io("run", &e)
                    .subject(shown.clone())
                    .hint("the first argument is a script or a command; see --help")
            })?;
            let real =
                path.canonicalize().map_err(|e| Error::io("run", &e).subject(shown.clone()))?;
            let stem =
                path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            (stem, Some(real), Chunk { name: shown, source, interactive: false })
        }
        (None, None) => unreachable!("without a script standard input is read"),
    };
    // With -e there is no script: every positional argument is the chunk's.
    let first = args.script.as_ref().filter(|_| args.execute.is_some());
    let first = first.map(|first| first.display().to_string());
    let instance = Instance {
        name: args.name.clone().unwrap_or(default_name),
        script,
        args: first.into_iter().chain(args.args.iter().cloned()).collect(),
        pins: None,
    };
    Ok((instance, chunk))
}
