//! What a test run tells: failures as they come, skips by reason, one last line; TAP, JUnit and JSON for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;

use super::super::Common;
use super::{Outcome, Status, TestArgs};
use crate::{Error, Result};

/// The outcomes so far.
pub struct Summary {
    /// With the position of their file on the command line: the reports are in that order.
    outcomes: Vec<(usize, Outcome)>,
    verbosity: i8,
    tap: bool,
    color: bool,
}

impl Summary {
    pub fn start(args: &TestArgs, common: &Common) -> Summary {
        let summary = Summary {
            outcomes: Vec::new(),
            verbosity: if common.quiet { -1 } else { common.verbose as i8 },
            tap: args.tap,
            color: std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        if summary.tap {
            print("TAP version 14\n");
        }
        summary
    }

    /// Takes the outcomes of one file and prints what is to be seen at once.
    pub fn add(&mut self, file: usize, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.outcomes.push((file, outcome));
            let (_, outcome) = self.outcomes.last().expect("it was just pushed");
            print(&match self.tap {
                true => tap_line(self.outcomes.len(), outcome),
                false => self.line(outcome),
            });
        }
    }

    fn line(&self, outcome: &Outcome) -> String {
        let (color, word) = match outcome.status {
            Status::Failed => ("1;31", "FAIL"),
            _ if self.verbosity < 1 => return String::new(),
            Status::Passed => ("32", "ok  "),
            Status::Skipped => ("33", "skip"),
        };
        let word = match self.color {
            true => format!("\x1b[{color}m{word}\x1b[0m"),
            false => word.to_owned(),
        };
        let Outcome { file, case, seconds, .. } = outcome;
        let mut text = format!("{word} {file}: {case} ({seconds:.2} s)");
        match outcome.status {
            Status::Passed => text.push('\n'),
            Status::Skipped => {
                let _ = writeln!(text, ": {}", outcome.reason);
            }
            Status::Failed => {
                text.push('\n');
                text.push_str(&outcome.errors);
                if !outcome.output.is_empty() {
                    text.push_str("output:\n");
                    text.push_str(&indented(&outcome.output, "  "));
                }
                text.push('\n');
            }
        }
        text
    }

    /// Writes the reports and the last line; whether all is well.
    pub fn finish(mut self, args: &TestArgs) -> Result<bool> {
        self.outcomes.sort_by_key(|(file, _)| *file);
        let outcomes: Vec<&Outcome> = self.outcomes.iter().map(|(_, outcome)| outcome).collect();
        if let Some(path) = &args.junit {
            write_file(path, &junit(&outcomes))?;
        }
        if let Some(path) = &args.report {
            write_file(path, &json(&outcomes))?;
        }
        let count = |status| outcomes.iter().filter(|o| o.status == status).count();
        let last = format!(
            "{} passed, {} failed, {} skipped\n",
            count(Status::Passed),
            count(Status::Failed),
            count(Status::Skipped)
        );
        if self.tap {
            print(&format!("1..{}\n", outcomes.len()));
        } else {
            if self.verbosity >= 0 {
                print(&skips(&outcomes));
            }
            print(&last);
        }
        if outcomes.is_empty() {
            let wanted = match &args.pattern {
                Some(pattern) => format!("no case matches \"{pattern}\""),
                None => "no case was found".into(),
            };
            return Err(Error::new("test", "", wanted)
                .hint("a file registers its cases with test.case(name, fn)"));
        }
        Ok(count(Status::Failed) == 0)
    }
}

/// Standard output may be gone; the reports are still written.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .map_err(|e| Error::io("test", &e).subject(path.display().to_string()))
}

fn indented(text: &str, indent: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "{indent}{line}");
        out
    })
}

fn skips(outcomes: &[&Outcome]) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|o| o.status == Status::Skipped) {
        *reasons.entry(&outcome.reason).or_default() += 1;
    }
    reasons.iter().fold(String::new(), |mut out, (reason, count)| {
        let _ = writeln!(out, "skipped {count}: {reason}");
        out
    })
}

fn tap_line(number: usize, outcome: &Outcome) -> String {
    let name = format!("{}: {}", outcome.file, outcome.case);
    let name = name.replace('\\', "\\\\").replace('#', "\\#").replace('\n', " ");
    match outcome.status {
        Status::Passed => format!("ok {number} - {name}\n"),
        Status::Skipped => {
            format!("ok {number} - {name} # SKIP {}\n", outcome.reason.replace('\n', " "))
        }
        Status::Failed => {
            let mut text = format!("not ok {number} - {name}\n  ---\n  message: |\n");
            text.push_str(&indented(&outcome.errors, "    "));
            if !outcome.output.is_empty() {
                text.push_str("  output: |\n");
                text.push_str(&indented(&outcome.output, "    "));
            }
            text.push_str("  ...\n");
            text
        }
    }
}

fn json(outcomes: &[&Outcome]) -> String {
    let array: Vec<serde_json::Value> = outcomes
        .iter()
        .map(|o| {
            serde_json::json!({
                "file": o.file, "case": o.case, "status": o.status.word(), "reason": o.reason,
                "seconds": o.seconds,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(array))
}

fn junit(outcomes: &[&Outcome]) -> String {
    let mut suites: Vec<(&str, Vec<&Outcome>)> = Vec::new();
    for outcome in outcomes {
        match suites.iter_mut().find(|(file, _)| *file == outcome.file) {
            Some((_, cases)) => cases.push(outcome),
            None => suites.push((&outcome.file, vec![outcome])),
        }
    }
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (file, cases) in suites {
        let count = |status| cases.iter().filter(|o| o.status == status).count();
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3}\">",
            xml(file),
            cases.len(),
            count(Status::Failed),
            count(Status::Skipped),
            cases.iter().map(|o| o.seconds).sum::<f64>(),
        );
        for case in cases {
            junit_case(&mut text, case);
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn junit_case(text: &mut String, case: &Outcome) {
    let _ = write!(
        text,
        "    <testcase name=\"{}\" classname=\"{}\" time=\"{:.3}\"",
        xml(&case.case),
        xml(&case.file),
        case.seconds
    );
    let _ = match case.status {
        Status::Passed => writeln!(text, "/>"),
        Status::Skipped => {
            writeln!(text, ">\n      <skipped message=\"{}\"/>\n    </testcase>", xml(&case.reason))
        }
        Status::Failed => writeln!(
            text,
            ">\n      <failure message=\"{}\">{}</failure>\n      <system-out>{}</system-out>\n    </testcase>",
            xml(&case.reason),
            xml(&case.errors),
            xml(&case.output)
        ),
    };
}

/// Escaped for an attribute or text; characters that XML 1.0 has no place for become U+FFFD.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}
