//! `cnfscript SCRIPT [ARGS]`: run, park, tear down.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{Common, next, status};
use crate::api::host::Instance;
use crate::kernel::capability;
use crate::life::control::Control;
use crate::life::generation::{Chunk, Ended};
use crate::life::outside::{Outside, Waiting};
use crate::life::script::{self, Script};
use crate::nearest::nearest;
use crate::own::instance::{Claim, Instances};
use crate::own::journal::{self, Journal};
use crate::own::{self, Ledger};
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
    /// Load the script again whenever one of its files is saved; stay while it cannot be loaded
    #[arg(long)]
    pub(super) watch: bool,
    /// How long a load other than the first may take until it is set up, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(super) load_timeout: Duration,
    /// What the script finds in cnf.args
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<String>,
}

/// Runs a script to its end; the exit status.
pub fn run(args: &RunArgs, common: &Common) -> u8 {
    if args.script.is_none() && args.execute.is_none() && std::io::stdin().is_terminal() {
        return super::repl::repl(args.name.clone(), common);
    }
    let (instance, chunk) = match prepare("run", args) {
        Ok(prepared) => prepared,
        Err(error) => {
            report::error(&error, None);
            return status::USAGE;
        }
    };
    say_missing_privilege();
    let ledger = Arc::new(Ledger::default());
    let (mut claim, mut socket) = (None, None);
    let mut live = || -> Result<Ended> {
        claim = hold(&instance, &ledger)?;
        let control = Control::start(Arc::new(StopFlag::default()), Arc::clone(&ledger))?;
        if args.script_file().is_some() {
            control.reload_on_hangup();
        }
        if let Some(claim) = &claim {
            socket = Some(Outside::open(claim, Waiting::Systemd, &control, &ledger)?);
        }
        script::run(args.script(instance.clone(), chunk.clone(), common.memory), &control, &ledger)
    };
    let outcome = live();
    let status = match outcome {
        Ok(ended) => finish(&ended),
        Err(error) => {
            report::error(&error, None);
            status_of(&error)
        }
    };
    tear_down(&ledger);
    // `down` waits at it until there is nothing left.
    drop(socket);
    if let Some(claim) = claim {
        claim.finish(status);
    }
    status
}

impl RunArgs {
    /// As if the command line had named a file.
    pub(super) fn of_file(script: &Path, name: Option<String>, args: &[String]) -> RunArgs {
        RunArgs {
            script: Some(script.to_owned()),
            execute: None,
            name,
            watch: false,
            load_timeout: Duration::from_secs(5),
            args: args.to_vec(),
        }
    }

    /// The file that a reload reads again.
    fn script_file(&self) -> Option<&PathBuf> {
        self.script.as_ref().filter(|path| self.execute.is_none() && path.as_os_str() != "-")
    }

    pub(super) fn script(&self, instance: Instance, chunk: Chunk, memory: usize) -> Script {
        Script {
            instance,
            chunk,
            file: self.script_file().cloned(),
            memory,
            watch: self.watch && self.script_file().is_some(),
            stay: self.watch,
            load_timeout: self.load_timeout,
        }
    }
}

/// What becomes of what a dead process of this name has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    Clean,
    /// It goes into the ledger, for the first load to adopt.
    Adopt,
}

/// Takes the instance's name, cleans what its last process left, and has everything written down from now on.
///
/// # Errors
/// EBUSY when the name is another process's; what was left and cannot be removed. Where nothing can be written down, the
/// script runs all the same, but creates nothing.
pub(super) fn hold(instance: &Instance, ledger: &Ledger) -> Result<Option<Claim>> {
    match claim(instance) {
        Err(error) if ["EBUSY", "EEXIST", "EINVAL"].contains(&error.code()) => Err(error),
        Err(error) => {
            ledger.refuse(error);
            Ok(None)
        }
        Ok(claim) => {
            recover(&claim, ledger, Recovery::Clean)?;
            Ok(Some(claim))
        }
    }
}

/// Takes the instance's name.
///
/// # Errors
/// As [`Instances::claim`].
pub(super) fn claim(instance: &Instance) -> Result<Claim> {
    Instances::here().claim(&instance.name, instance.script.as_deref())
}

/// Sees to what the last process of this name left, and starts the journal.
///
/// # Errors
/// What was left and cannot be removed.
pub(super) fn recover(claim: &Claim, ledger: &Ledger, recovery: Recovery) -> Result<()> {
    let path = claim.paths().journal();
    if claim.paths().left_something() {
        match recovery {
            Recovery::Adopt => {
                let mut left = journal::read(&path)?;
                ledger.take_over(std::mem::take(&mut left.entries));
                own::undo_recovered(&left);
            }
            Recovery::Clean => {
                let pid = claim.previous().map(|previous| previous.pid).unwrap_or_default();
                let removed = own::clean(&path)?;
                let left = removed.to_string();
                if let Some(failure) = removed.failures.into_iter().next() {
                    return Err(failure);
                }
                tracing::info!("process {pid} was killed; removed {left} that it had left");
            }
        }
    }
    match Journal::open(&path) {
        Ok(journal) => ledger.keep_journal(journal),
        Err(error) => ledger.refuse(error),
    }
    Ok(())
}

/// A number of seconds, `0.5` too.
pub(super) fn seconds(text: &str) -> std::result::Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "a number of seconds above 0".to_owned())
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
    let words: Vec<String> = std::env::args().map(|word| next::quoted(&word)).collect();
    tracing::warn!(
        "without {}: the kernel will refuse namespaces, links and eBPF\n  = hint: sudo {}",
        missing.join(", "),
        words.join(" ")
    );
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

/// Reads the script that `args` name, for the command `op`.
///
/// # Errors
/// One that cannot be read, a name that no instance can have.
pub(super) fn prepare(op: &'static str, args: &RunArgs) -> Result<(Instance, Chunk)> {
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
            let source = std::fs::read(path).map_err(|e| unreadable(op, path, &e))?;
            let real = path.canonicalize().map_err(|e| Error::io(op, &e).subject(shown.clone()))?;
            (next::name_of(path), Some(real), Chunk { name: shown, source, interactive: false })
        }
        (None, None) => unreachable!("without a script standard input is read"),
    };
    // With -e there is no script: every positional argument is the chunk's.
    let first = args.script.as_ref().filter(|_| args.execute.is_some());
    let first = first.map(|first| first.display().to_string());
    let name = args.name.clone().unwrap_or(default_name);
    own::instance::check_name(&name)?;
    let instance = Instance {
        name,
        script,
        args: first.into_iter().chain(args.args.iter().cloned()).collect(),
        pins: None,
    };
    Ok((instance, chunk))
}

/// Why a script cannot be read, and what was probably meant: a command, or a script beside it.
fn unreadable(op: &'static str, path: &Path, error: &std::io::Error) -> Error {
    let shown = path.display().to_string();
    let error = Error::io(op, error).subject(shown.clone());
    let bare = path.parent().is_none_or(|parent| parent.as_os_str().is_empty());
    let commands = super::commands();
    let command = nearest(&shown, &commands).filter(|_| op == "run" && bare);
    if let (Some(command), "ENOENT") = (command, error.code()) {
        return error.hint(format!("did you mean `cnfscript {command}`?"));
    }
    if let Some(near) = nearest(&shown, &scripts_in(path)) {
        return error.hint(format!("did you mean \"{near}\"?"));
    }
    match (op, error.code()) {
        ("run", "ENOENT") => error.hint("the first argument is a script or a command; see --help"),
        (_, "EISDIR") => error.hint("a script is a file, such as setup.lua"),
        _ => error,
    }
}

/// The Lua files of the directory that is named, or of that in which a file was looked for.
fn scripts_in(path: &Path) -> Vec<String> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let looked_at = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let files = std::fs::read_dir(looked_at).into_iter().flatten().flatten();
    files
        .map(|file| directory.join(file.file_name()))
        .filter(|file| file.extension().is_some_and(|end| end == "lua"))
        .map(|file| file.display().to_string())
        .collect()
}
