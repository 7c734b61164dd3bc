//! `cnfscript features [WORD...]`: what this kernel and these privileges give, as tables or as JSON.

use std::io::Write as _;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use super::status;
use crate::kernel::bpf::probe::{self, Group, Helpers};
use crate::kernel::{capability, features as kinds, release};
use crate::{Error, report};

#[derive(Args, Clone, Debug)]
pub struct FeaturesArgs {
    /// Only groups or features with one of these words in their names; "helpers" lists each helper
    #[arg(value_name = "WORD")]
    words: Vec<String>,
    /// Write everything as one JSON object
    #[arg(long)]
    json: bool,
}

/// A feature with its answer.
struct Answer {
    row: probe::Row,
    /// `Err` when it could not be tried.
    feature: Result<probe::Feature, Error>,
}

impl Answer {
    /// "yes", "no", "?"
    fn word(&self) -> &'static str {
        match &self.feature {
            Ok(feature) if feature.available => "yes",
            Ok(_) => "no",
            Err(_) => "?",
        }
    }

    fn reason(&self) -> String {
        match &self.feature {
            Ok(feature) => feature.reason.clone(),
            Err(error) => error.message(),
        }
    }
}

/// Prints the features; the exit status.
pub fn features(args: &FeaturesArgs) -> u8 {
    kinds::register();
    let wanted = |row: &probe::Row| {
        args.words.is_empty()
            || args
                .words
                .iter()
                .any(|w| row.name.contains(w.as_str()) || row.group.name().contains(w.as_str()))
    };
    let rows = probe::rows().into_iter().filter(wanted);
    let answers: Vec<Answer> =
        rows.map(|row| Answer { feature: probe::has(&row.name), row }).collect();
    let asks_helpers = args.words.iter().any(|word| word == "helpers");
    let helpers = match args.words.is_empty() || asks_helpers {
        // Without privileges there are none to tell; that it is so is told by every other row.
        true => probe::helpers().unwrap_or_default(),
        false => Vec::new(),
    };
    if answers.is_empty() && !asks_helpers {
        let error = Error::new("features", "ENOENT", "no feature has that in its name")
            .subject(args.words.join(" "))
            .hint("`cnfscript features` lists them all");
        report::error(&error, None);
        return status::USAGE;
    }
    let text = match args.json {
        true => as_json(&answers, &helpers),
        false => as_tables(&answers, &helpers, asks_helpers),
    };
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let refused =
        answers.iter().any(|answer| answer.feature.as_ref().is_err_and(|e| e.is("EPERM")));
    if refused { status::MISSING } else { status::DONE }
}

fn as_json(answers: &[Answer], helpers: &[Helpers]) -> String {
    let features: Vec<_> = answers
        .iter()
        .map(|answer| {
            let available = answer.feature.as_ref().ok().map(|feature| feature.available);
            let reason = Some(answer.reason()).filter(|reason| !reason.is_empty());
            let row = &answer.row;
            json!({
                "name": row.name, "group": row.group.name(), "available": available, "reason": reason,
                "without": row.without,
            })
        })
        .collect();
    let helpers: serde_json::Map<_, _> =
        helpers.iter().map(|h| (h.program.name().to_owned(), h.names.clone().into())).collect();
    let capabilities: serde_json::Map<_, _> = capability::needed()
        .into_iter()
        .map(|(name, there)| (name.to_owned(), there.into()))
        .collect();
    let all = json!({
        "kernel": release::name(), "capabilities": capabilities, "features": features, "helpers": helpers,
    });
    format!("{all:#}\n")
}

fn as_tables(answers: &[Answer], helpers: &[Helpers], each_helper: bool) -> String {
    let mut out = format!("Linux {}", release::name());
    match capability::missing().as_slice() {
        [] => out.push_str(", with every capability that is needed\n"),
        missing => out.push_str(&format!(", without {}\n", missing.join(", "))),
    }
    for group in Group::ALL {
        let of_group: Vec<&Answer> = answers.iter().filter(|a| a.row.group == group).collect();
        if of_group.is_empty() {
            continue;
        }
        let mut table = table(["", "here", "why not", "without it"]);
        for answer in of_group {
            let name = answer.row.name.as_str();
            let name = name.strip_prefix("prog_").or(name.strip_prefix("map_")).unwrap_or(name);
            table.add_row([name, answer.word(), &answer.reason(), &answer.row.without]);
        }
        out.push_str(&format!("\n{}\n{table}\n", group.name()));
    }
    if each_helper {
        out.push_str(&format!("\nhelpers\n{}\n", helper_table(helpers)));
    } else if !helpers.is_empty() {
        let counts: Vec<String> =
            helpers.iter().map(|h| format!("{} {}", h.program, h.names.len())).collect();
        out.push_str(&format!(
            "\nhelpers (`cnfscript features helpers` lists them)\n {}\n",
            counts.join(", ")
        ));
    }
    out
}

/// Each helper with the types of programs that may call it.
fn helper_table(helpers: &[Helpers]) -> Table {
    let mut table = table(["", "programs of type"]);
    let mut names: Vec<&String> = helpers.iter().flat_map(|h| &h.names).collect();
    names.sort();
    names.dedup();
    for name in names {
        let types = helpers.iter().filter(|h| h.names.contains(name));
        let types: Vec<String> = types.map(|h| h.program.to_string()).collect();
        table.add_row([name, &types.join(", ")]);
    }
    table
}

/// An empty table as wide as the terminal, or as its longest lines where there is none.
fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    if let Some((terminal_size::Width(width), _)) = terminal_size::terminal_size() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}
