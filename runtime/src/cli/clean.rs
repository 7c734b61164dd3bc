//! `cnfscript clean [NAME...]`: removes what instances left that were killed, exactly that, and what their last process
//! did not come to: their pins, their logs, their directories.
//!
//! A dead background instance is left unless it is named, or all are asked for: its packets flow on, and the next `up`
//! takes it over.

use std::io::Write;

use clap::Args;

use super::{next, reach, status};
use crate::own::instance::{Found, Instances, Record, Seized, boot};
use crate::own::journal;
use crate::{Error, Result, own, report};

const OP: &str = "clean";

#[derive(Args, Debug)]
pub struct CleanArgs {
    /// The instances, or their scripts; every dead one that ran in the foreground by default
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Dead background instances too, through which packets may still flow, the logs of ended ones, and pins of instances
    /// whose directory is gone
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// What there is to say of one instance.
enum Outcome {
    Cleaned,
    /// It is not dead, or is no more.
    Untouched,
    /// It is dead, but was not asked for.
    Spared,
    Failed,
}

/// 1 when something could not be removed, or a NAME is alive.
pub fn clean(args: &CleanArgs) -> Result<u8> {
    let found = match args.names.is_empty() {
        true => Instances::here().all()?,
        false => args.names.iter().map(|name| reach::find(OP, name)).collect::<Result<_>>()?,
    };
    let mut outcomes = Vec::new();
    for found in &found {
        let outcome = clean_one(found, args).unwrap_or_else(|error| {
            report::error(&error.operation(OP).about(&found.name), None);
            Outcome::Failed
        });
        outcomes.push(outcome);
    }
    if args.all {
        outcomes.extend(clean_pins(args.dry_run));
    }
    let any = |wanted: fn(&Outcome) -> bool| outcomes.iter().any(wanted);
    if !any(|o| matches!(o, Outcome::Cleaned | Outcome::Failed | Outcome::Spared)) {
        say("nothing to clean");
    }
    Ok(if any(|o| matches!(o, Outcome::Failed)) { status::FAILED } else { status::DONE })
}

fn clean_one(found: &Found, args: &CleanArgs) -> Result<Outcome> {
    let Some(seized) = (if found.alive { None } else { found.seize()? }) else {
        // Others than those that are named are none of our business while they live.
        return if args.names.is_empty() { Ok(Outcome::Untouched) } else { Err(alive(found)) };
    };
    let record = seized.record.clone();
    let rebooted = record.as_ref().is_some_and(|record| record.boot != boot());
    let background = record.as_ref().is_some_and(|record| record.background);
    if background && !rebooted && args.names.is_empty() && !args.all {
        return Ok(spare(found, record.as_ref()));
    }
    if args.dry_run {
        return show(found, rebooted);
    }
    remove(found, seized, rebooted)
}

/// Pins of instances whose directories are gone, with whatever else knew of them.
fn clean_pins(dry_run: bool) -> Vec<Outcome> {
    let instances = Instances::here();
    let clean = |name: &String| {
        if let Some(pid) = instances.holder_without_directory(name) {
            say(&format!("{name}: left, process {pid} lives, though its directory is gone"));
            say(&format!("  = hint: kill {pid} ends it in order"));
            return Outcome::Spared;
        }
        let pins = |count: usize| match count {
            1 => "1 pin".to_owned(),
            _ => format!("{count} pins"),
        };
        if dry_run {
            say(&format!("{name}: would remove"));
            say(&format!("  {} of an instance that is no more", pins(instances.pins_of(name))));
            return Outcome::Cleaned;
        }
        match instances.remove_pins_of(name) {
            Ok(None) => Outcome::Untouched,
            Ok(Some(count)) => {
                say(&format!("{name}: removed {} of an instance that is no more", pins(count)));
                Outcome::Cleaned
            }
            Err(error) => {
                report::error(&error.operation(OP).about(name), None);
                Outcome::Failed
            }
        }
    };
    instances.only_pinned().iter().map(clean).collect()
}

/// One that is left as it is, in a line if it is of interest.
fn spare(found: &Found, record: Option<&Record>) -> Outcome {
    let name = &found.name;
    if !found.paths.left_something() {
        return Outcome::Untouched;
    }
    let up = next::up(name, record.and_then(|record| record.script.as_deref()));
    let up = up.map_or_else(String::new, |up| format!(", {up} takes it over"));
    say(&format!("{name}: left, packets may still flow through it"));
    say(&format!("  = hint: {} removes it{up}", next::clean(name)));
    Outcome::Spared
}

fn remove(found: &Found, seized: Seized, rebooted: bool) -> Result<Outcome> {
    let name = &found.name;
    let mut words = "its directory".to_owned();
    // The kernel began anew: whatever it was is gone.
    if !rebooted && found.paths.left_something() {
        let removed = own::clean(&found.paths.journal())?;
        if !removed.is_empty() {
            words = removed.to_string();
        }
        if !removed.failures.is_empty() {
            if !removed.is_empty() {
                say(&format!("{name}: removed {words}"));
            }
            for failure in &removed.failures {
                report::error(failure, Some(&format!("{name}: left behind")));
            }
            return Ok(Outcome::Failed);
        }
    }
    seized.remove()?;
    say(&format!("{name}: removed {words}"));
    Ok(Outcome::Cleaned)
}

/// `--dry-run`: what an instance has left, one line each, as the journal tells.
fn show(found: &Found, rebooted: bool) -> Result<Outcome> {
    let name = &found.name;
    let left = match rebooted {
        true => journal::Recovered::default(),
        false => journal::read(&found.paths.journal())?,
    };
    let mut lines: Vec<String> = left.entries.iter().map(|(_, owned)| owned.to_string()).collect();
    lines.extend(left.placeholders.iter().map(|(_, name)| format!("netns {name}")));
    lines.extend(left.unreachable.iter().map(|(_, what)| format!("{what}: cannot be reached")));
    lines.dedup();
    if lines.is_empty() {
        lines.push("its directory".into());
    }
    say(&format!("{name}: would remove"));
    lines.iter().for_each(|line| say(&format!("  {line}")));
    Ok(Outcome::Cleaned)
}

fn alive(found: &Found) -> Error {
    let name = &found.name;
    let error = |whose: String| Error::new(OP, "EBUSY", format!("it is alive{whose}"));
    match &found.record {
        Some(record) if record.background => {
            error(format!(": pid {}", record.pid)).hint(format!("cnfscript down {name} ends it"))
        }
        Some(record) => {
            error(format!(": pid {}", record.pid)).hint(format!("kill {} ends it", record.pid))
        }
        None => error(String::new()),
    }
}

/// A line to standard output; a reader that has gone has seen enough.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
