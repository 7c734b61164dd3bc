//! `cnfscript test PATH...`: every file in a process of its own, several at once, each reporting what became of its cases.
//!
//! A case that crashes, hangs or leaves processes behind can thus harm no other one. `worker` is the child's side,
//! `child` the parent's view of one, `summary` what a person or a machine reads.

mod child;
mod summary;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;

use super::{Common, status};
use crate::life::control::Control;
use crate::life::generation;
use crate::own::Ledger;
use crate::stop::StopFlag;
use crate::{Error, Result, report};

#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// Test files, or directories: every *.lua below them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Only cases whose name has this in it; * stands for anything
    #[arg(short = 'k', value_name = "PATTERN")]
    pattern: Option<String>,
    /// How many files run at once; by default as many as there are processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// How long a case may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
    /// Write the Test Anything Protocol
    #[arg(long, conflicts_with = "junit")]
    tap: bool,
    /// Write a JUnit report too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write what became of each case as a JSON array too
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Run the one file in this process, and report on standard output
    #[arg(long, hide = true)]
    worker: bool,
    /// The first case to run, counted from 0
    #[arg(long, hide = true, default_value_t = 0)]
    from: usize,
}

impl TestArgs {
    /// Whether this process runs one file for another.
    pub fn is_worker(&self) -> bool {
        self.worker
    }
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    match crate::api::option::parse_duration(text) {
        Some(limit) if !limit.is_zero() => Ok(limit),
        _ => Err("not a duration; write \"30s\" or \"2m\"".into()),
    }
}

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Passed,
    Failed,
    Skipped,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Status::Passed => "passed",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        }
    }
}

/// One case that was run.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub file: String,
    /// The name it was registered with; "(load)" and "(end)" for what is outside of any case.
    pub case: String,
    pub status: Status,
    /// Why it failed or was skipped, in one line.
    pub reason: String,
    /// The errors as a person reads them.
    pub errors: String,
    /// What it wrote to standard output and error.
    pub output: String,
    pub seconds: f64,
}

/// Runs the tests; the exit status.
pub fn test(args: &TestArgs, common: &Common) -> u8 {
    if args.worker {
        return worker::work(&args.paths[0], args, common);
    }
    let files = match find_files(&args.paths) {
        Ok(files) => files,
        Err(error) => {
            report::error(&error, None);
            return status::USAGE;
        }
    };
    run_all(&files, args, common).unwrap_or_else(|error| {
        report::error(&error, None);
        status::FAILED
    })
}

fn run_all(files: &[PathBuf], args: &TestArgs, common: &Common) -> Result<u8> {
    let control = Control::start(Arc::new(StopFlag::default()), Arc::new(Ledger::default()))?;
    let jobs = match args.jobs {
        Some(jobs) => usize::from(jobs),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut summary = summary::Summary::start(args, common);
    generation::runtime()?.block_on(async {
        let mut running = futures::stream::iter(files.iter().enumerate())
            .map(|(index, file)| {
                let control = &control;
                async move { (index, child::run_file(file, args, common, control).await) }
            })
            .buffer_unordered(jobs);
        while let Some((index, outcomes)) = running.next().await {
            summary.add(index, outcomes?);
        }
        Ok::<(), Error>(())
    })?;
    let interrupted = control.flag.reason().is_some();
    control.noticed();
    let passed = summary.finish(args)?;
    Ok(match (interrupted, passed) {
        (true, _) => status::INTERRUPTED,
        (false, true) => status::DONE,
        (false, false) => status::FAILED,
    })
}

fn find_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files_below(path, &mut files)?;
        } else if path.is_file() {
            files.push(path.clone());
        } else {
            return Err(Error::new("test", "ENOENT", "no such file or directory")
                .subject(path.display().to_string()));
        }
    }
    Ok(files)
}

fn files_below(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("test", &e).subject(directory.display().to_string());
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .map_err(failed)?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files_below(&entry, files)?;
        } else if entry.extension().is_some_and(|extension| extension == "lua") {
            files.push(entry);
        }
    }
    Ok(())
}

/// Whether a case's name has the pattern in it, whatever the case of the letters; `*` stands for anything.
fn matches(pattern: Option<&str>, name: &str) -> bool {
    let Some(pattern) = pattern else { return true };
    let (pattern, name) = (pattern.to_lowercase(), name.to_lowercase());
    let mut rest = name.as_str();
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        let cases = [
            (None, "anything", true),
            (Some("sleep"), "task.Sleep waits", true),
            (Some("a*c"), "xabcx", true),
            (Some("c*a"), "abc", false),
            (Some(""), "abc", true),
            (Some("aa*a"), "aa", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} in {name:?}");
        }
    }
}
