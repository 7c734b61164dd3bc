//! `cnfscript status [NAME]`: which instances there are, what each owns and how it is.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

use super::{next, reach, status};
use crate::Result;
use crate::life::socket::wire::Command;
use crate::own::counted;
use crate::own::instance::{Found, Instances, boot};
use crate::own::journal;

const OP: &str = "status";
/// How long an instance may take: its thread for this has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The instance, or its script; all of them by default
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// As data: an array, or one object for NAME
    #[arg(long)]
    json: bool,
}

/// 1 for a NAME that does not run.
pub fn status(args: &StatusArgs) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    let Some(name) = &args.name else {
        let all = Instances::here().all()?;
        let all: Vec<Map<String, Value>> =
            all.iter().filter(|found| !found.is_husk()).map(describe).collect();
        let text = match args.json {
            true => format!("{}\n", json!(all)),
            false => table(&all),
        };
        // A reader that has gone has seen enough.
        let _ = out.write_all(text.as_bytes());
        return Ok(status::DONE);
    };
    let found = reach::find(OP, name)?;
    let described = describe(&found);
    let text = match args.json {
        true => format!("{}\n", Value::Object(described)),
        false => details(&described),
    };
    let _ = out.write_all(text.as_bytes());
    Ok(if found.alive { status::DONE } else { status::FAILED })
}

/// All that is known of an instance, as `--json` shows it.
///
/// `state` is one of: `running`; `loading`, before its first commit; `busy`, computing without a pause; `silent`, not
/// listening: just begun, about to end, or stopped by a signal; `ended`; `dead`, without an orderly end.
fn describe(found: &Found) -> Map<String, Value> {
    let mut known =
        Map::from_iter([("name".to_owned(), json!(found.name)), ("state".to_owned(), Value::Null)]);
    if let Some(record) = &found.record {
        known.insert("script".into(), json!(record.script));
        known.insert("pid".into(), json!(record.pid));
        known.insert("started".into(), json!(record.started));
        known.insert("background".into(), json!(record.background));
        known.insert("version".into(), json!(record.version));
        if let Some(end) = record.ended.filter(|_| !found.alive) {
            known.insert("ended".into(), json!({ "status": end.status, "at": end.at }));
        }
    }
    if found.paths.log().exists() {
        known.insert("log".into(), json!(found.paths.log()));
    }
    if let Some(left) = left(found) {
        known.insert("owns".into(), json!(left));
    }
    known.insert("left_something".into(), json!(!found.alive && found.paths.left_something()));
    let state = match (found.alive, known.contains_key("ended")) {
        (true, _) => match reach::Connection::open(OP, found, Some(PATIENCE))
            .and_then(|mut connection| connection.ask(&Command::Status))
        {
            Err(_) => "silent",
            Ok(said) => {
                known.extend(said);
                match () {
                    () if known.get("busy") == Some(&json!(true)) => "busy",
                    () if known.get("loading") == Some(&json!(true)) => "loading",
                    () => "running",
                }
            }
        },
        (false, true) => "ended",
        (false, false) => "dead",
    };
    known["state"] = json!(state);
    known
}

/// What a dead instance has left, by kind, as its journal tells; `None` of one that lives, or has left nothing.
pub fn left(found: &Found) -> Option<BTreeMap<&'static str, usize>> {
    let rebooted = found.record.as_ref().is_some_and(|record| record.boot != boot());
    if found.alive || rebooted || !found.paths.left_something() {
        return None;
    }
    let mut counts = BTreeMap::new();
    for (_, owned) in &journal::read(&found.paths.journal()).ok()?.entries {
        *counts.entry(owned.kind()).or_default() += 1;
    }
    Some(counts)
}

fn table(all: &[Map<String, Value>]) -> String {
    if all.is_empty() {
        return "no instances\n".to_owned();
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["NAME", "STATE", "PID", "UP", "GEN", "OWNS", "TASKS", "SCRIPT"]);
    for known in all {
        let alive = !matches!(text(known, "state").as_str(), "ended" | "dead");
        let shown = |key: &str| if alive { text(known, key) } else { "-".into() };
        table.add_row([
            text(known, "name"),
            state(known),
            shown("pid"),
            uptime(known),
            shown("generation"),
            owns(known),
            shown("tasks"),
            text(known, "script"),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = table.trim_fmt() + "\n";
    all.iter().filter_map(hint).for_each(|hint| text.push_str(&hint));
    text
}

fn details(known: &Map<String, Value>) -> String {
    let mut out = format!("{}: {}", text(known, "name"), state(known));
    if known.contains_key("uptime") {
        out += &format!(", up {}", uptime(known));
    }
    out.push('\n');
    let mut line = |word: &str, value: String| {
        if value != "-" {
            out += &format!("  {word:<11} {value}\n");
        }
    };
    line("script", text(known, "script"));
    line("process", text(known, "pid"));
    line("generation", text(known, "generation"));
    line("owns", owns(known));
    line("tasks", text(known, "tasks"));
    line("log", text(known, "log"));
    out + &hint(known).unwrap_or_default()
}

fn state(known: &Map<String, Value>) -> String {
    match known.get("ended") {
        Some(end) => format!("ended ({})", end["status"]),
        None => text(known, "state"),
    }
}

fn hint(known: &Map<String, Value>) -> Option<String> {
    let name = text(known, "name");
    let is = |key: &str| known.get(key) == Some(&json!(true));
    let clean = next::clean(&name);
    let script = known.get("script").and_then(Value::as_str);
    // Of one in the foreground, the next run removes it all by itself.
    let up = next::up(&name, script.map(Path::new)).filter(|_| is("background"));
    let hint = match text(known, "state").as_str() {
        "dead" if is("left_something") => match up {
            Some(up) => format!("{up} takes over what {name} left, {clean} removes it"),
            None => format!("{clean} removes what {name} left behind"),
        },
        "dead" | "ended" => format!("cnfscript down {} removes its log", next::quoted(&name)),
        "silent" => {
            format!("cnfscript down {} ends it if it stays silent", next::quoted(&name))
        }
        _ => return None,
    };
    Some(format!("  = hint: {hint}\n"))
}

fn uptime(known: &Map<String, Value>) -> String {
    let seconds = known.get("uptime").and_then(Value::as_f64);
    let span = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    span.map_or_else(|| "-".into(), reach::span)
}

/// "2 netns, 4 links"
pub fn owns(known: &Map<String, Value>) -> String {
    let Some(Value::Object(counts)) = known.get("owns") else { return "-".into() };
    let counts: BTreeMap<&str, usize> = counts
        .iter()
        .map(|(kind, count)| (kind.as_str(), count.as_u64().unwrap_or_default() as usize))
        .collect();
    if counts.is_empty() { "nothing".into() } else { counted(&counts) }
}

fn text(known: &Map<String, Value>, key: &str) -> String {
    match known.get(key) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => "-".into(),
        Some(other) => other.to_string(),
    }
}
