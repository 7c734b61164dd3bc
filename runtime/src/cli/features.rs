//! `cnfscript features [WORD...]`: what this kernel and these privileges give, as tables or as JSON.

use std::collections::BTreeSet;
use std::io::Write as _;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use super::status;
use crate::kernel::bpf::probe::{self, Group, Helpers};
use crate::kernel::{capability, features as kinds, release};
use crate::nearest::nearest;
use crate::{Error, report};

/// The word that asks for all helpers.
const HELPERS: &str = "helpers";

#[derive(Args, Clone, Debug)]
pub struct FeaturesArgs {
    /// Only groups, features or helpers with one of these words in their names; "helpers" lists each helper
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

    /// Without the kernel's name, which stands above the tables.
    fn short_reason(&self) -> String {
        let here = release::name();
        let reason = self.reason().replace(&format!("this kernel ({here}) was built"), "built");
        reason.replace(&format!(" ({here}, "), " (").replace(&format!(" ({here})"), "")
    }

    /// Of many sections the first two.
    fn short_without(&self) -> String {
        let without = &self.row.without;
        let sections = without
            .strip_prefix("objects with ")
            .and_then(|text| text.strip_suffix(" are refused"))
            .map(|list| list.split(", ").collect::<Vec<_>>());
        match sections.as_deref() {
            Some([first, second, more @ ..]) if !more.is_empty() => {
                format!("objects with {first}, {second} and {} more are refused", more.len())
            }
            _ => without.clone(),
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
    let rows = probe::rows();
    let of_rows = |word: &String| rows.iter().any(|row| has_in_name(row, word));
    let wanted = |row: &&probe::Row| {
        args.words.is_empty() || args.words.iter().any(|word| has_in_name(row, word))
    };
    let of_helpers: Vec<&String> = args.words.iter().filter(|word| !of_rows(word)).collect();
    // Without privileges there are none to tell; that it is so is told by every other row.
    let mut helpers = match args.words.is_empty() || !of_helpers.is_empty() {
        true => probe::helpers().unwrap_or_default(),
        false => Vec::new(),
    };
    if let Err(error) = all_known(&of_helpers, &rows, &helpers) {
        report::error(&error, None);
        return status::USAGE;
    }
    let each_helper = !of_helpers.is_empty();
    let of_helpers: Vec<_> = of_helpers.into_iter().filter(|word| *word != HELPERS).collect();
    if !of_helpers.is_empty() {
        for of_type in &mut helpers {
            of_type.names.retain(|name| of_helpers.iter().any(|word| name.contains(*word)));
        }
    }
    let answers: Vec<Answer> = rows
        .iter()
        .filter(wanted)
        .map(|row| Answer { feature: probe::has(&row.name), row: row.clone() })
        .collect();
    let text = match args.json {
        true => as_json(&answers, &helpers),
        false => as_tables(&answers, &helpers, each_helper),
    };
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let refused =
        answers.iter().any(|answer| answer.feature.as_ref().is_err_and(|e| e.is("EPERM")));
    if refused { status::MISSING } else { status::DONE }
}

fn has_in_name(row: &probe::Row, word: &str) -> bool {
    row.name.contains(word) || row.group.name().contains(word)
}

/// Whether each word that is in no feature's name is "helpers", or in the name of one.
fn all_known(words: &[&String], rows: &[probe::Row], helpers: &[Helpers]) -> Result<(), Error> {
    let names: BTreeSet<&str> = helpers.iter().flat_map(|h| &h.names).map(String::as_str).collect();
    let unknown = words.iter().find(|word| {
        word.as_str() != HELPERS && !names.iter().any(|name| name.contains(word.as_str()))
    });
    let Some(unknown) = unknown else { return Ok(()) };
    let short = names.iter().filter_map(|name| name.strip_prefix("bpf_"));
    let known = rows.iter().map(|row| row.name.as_str()).chain(names.iter().copied()).chain(short);
    let known: Vec<&str> = known.chain([HELPERS]).collect();
    let error = Error::new("features", "ENOENT", "no feature and no helper has that in its name")
        .subject(unknown.as_str());
    Err(match nearest(unknown, &known) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None => error
            .hint("`cnfscript features` lists them all, `cnfscript features helpers` the helpers"),
    })
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
            table.add_row([name, answer.word(), &answer.short_reason(), &answer.short_without()]);
        }
        out.push_str(&format!("\n{}\n{table}\n", group.name()));
    }
    if each_helper {
        out.push_str(&format!("\nhelpers\n{}\n", helper_table(helpers)));
    } else if !helpers.is_empty() {
        let counts: Vec<String> =
            helpers.iter().map(|h| format!("{} {}", h.program, h.names.len())).collect();
        let mut line = table([]);
        line.add_row([counts.join(", ")]);
        out.push_str(&format!("\nhelpers (`cnfscript features helpers` lists them)\n{line}\n"));
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
