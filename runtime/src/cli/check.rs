//! `cnfscript check SCRIPT`: a rehearsal. The script runs for real, in a throw-away copy of this machine's namespaces.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::run::{self, RunArgs};
use super::{Common, reach, status};
use crate::api::host::Instance;
use crate::kernel::netns::stand_in;
use crate::life::control::Control;
use crate::life::rehearsal::{self, Rehearsed};
use crate::life::socket::wire::Command;
use crate::own::Ledger;
use crate::own::instance::{Instances, boot};
use crate::own::journal::{self, Names};
use crate::stop::StopFlag;
use crate::{Error, Result, report};

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The script
    #[arg(value_name = "SCRIPT")]
    script: PathBuf,
    /// Show what a reload of a running instance with this script would change; nothing is applied
    #[arg(long, value_name = "NAME")]
    against: Option<String>,
    /// Show it as data
    #[arg(long)]
    json: bool,
    /// What the script finds in cnf.args
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Rehearses the script; 1 when it fails.
///
/// # Errors
/// What the script raised, or what keeps it from being rehearsed.
pub fn check(args: &CheckArgs, common: &Common) -> Result<u8> {
    match &args.against {
        Some(name) => against(args, name),
        None => alone(args, common),
    }
}

fn against(args: &CheckArgs, name: &str) -> Result<u8> {
    const OP: &str = "check";
    let found = reach::find(OP, name)?;
    reach::alive(OP, &found)?;
    let script = args
        .script
        .canonicalize()
        .map_err(|e| Error::io(OP, &e).subject(args.script.display().to_string()))?;
    let command = Command::Actions { script: Some(script) };
    let answer = reach::Connection::open(OP, &found, None)?.ask(&command)?;
    reach::show(answer, args.json);
    Ok(status::DONE)
}

/// The instance that runs this script, if one does, and what those that run it, or died running it, have made: a rehearsal has
/// no stand-ins of that, since it is what the script makes itself.
fn made_by(instance: &Instance) -> Result<(Option<String>, Names)> {
    let (mut running, mut made) = (None, Names::default());
    for found in Instances::here().all()? {
        let Some(record) = &found.record else { continue };
        if record.script != instance.script || record.boot != boot() {
            continue;
        }
        // One that nobody may read is told of by the clash, if there is one.
        let Ok(names) = journal::names(&found.paths.journal()) else { continue };
        made.netns.extend(names.netns);
        made.links.extend(names.links);
        running = running.or(found.alive.then_some(found.name));
    }
    Ok((running, made))
}

fn alone(args: &CheckArgs, common: &Common) -> Result<u8> {
    let run_args = RunArgs::of_file(&args.script, None, &args.args);
    let (instance, chunk) = match run::prepare("check", &run_args) {
        Ok(prepared) => prepared,
        Err(error) => {
            report::error(&error, None);
            return Ok(status::USAGE);
        }
    };
    let (running, made) = made_by(&instance)?;
    let originals = stand_in::enter()?;
    let ledger = Arc::new(Ledger::default());
    let control = Control::start(Arc::new(StopFlag::default()), Arc::clone(&ledger))?;
    let _copies = originals.copy(&|netns, link| match link {
        None => made.netns.contains(netns),
        Some(link) => made.links.contains(&(netns.to_owned(), link.to_owned())),
    })?;
    let script = run_args.script(instance, chunk, common.memory);
    let Rehearsed { things, counts, tasks_failed } =
        rehearsal::rehearse(script, &control, &ledger)?;
    let name = args.script.display();
    let text = if args.json {
        json!({ "creates": things, "counts": counts, "ok": !tasks_failed }).to_string()
    } else if things.is_empty() {
        format!("{name} would create nothing")
    } else {
        let lines: Vec<String> = things.iter().map(|thing| format!("\n  + {thing}")).collect();
        format!("{name} would create {}{}", crate::own::counted(&counts), lines.concat())
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    if let Some(running) = running.filter(|_| !args.json) {
        tracing::info!(
            "  = hint: {running} runs this script: cnfscript check --against {running} {name} shows what a reload of it would change"
        );
    }
    Ok(if tasks_failed { status::FAILED } else { status::DONE })
}
