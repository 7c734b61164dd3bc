//! The parent's view of one test file: a worker process, followed line by line, replaced when a case takes it down.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::super::Common;
use super::{Outcome, Status, TestArgs, worker};
use crate::kernel::processes;
use crate::life::control::Control;
use crate::own::instance::Instances;
use crate::{Error, Result, own, report};

/// A worker ends a case that takes too long by itself; one that has not by then is ended from here.
const MERCY: Duration = Duration::from_secs(8);
/// How long a worker may take to tear down once it is told to end.
const TEAR_DOWN: Duration = Duration::from_secs(5);
/// How much output of one file is kept.
const OUTPUT_LIMIT: u64 = 4 << 20;

/// Runs all cases of a file.
pub async fn run_file(
    file: &Path,
    args: &TestArgs,
    common: &Common,
    control: &Control,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut from = 0;
    while control.flag.reason().is_none() {
        let run = run_worker(file, from, args, common, control).await?;
        let stopped = control.flag.reason().is_some();
        let next = run.running.as_ref().map(|(index, _)| index + 1);
        outcomes.extend(run.outcomes(&file.display().to_string(), stopped));
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(outcomes)
}

/// What one worker said until its end.
struct Run {
    ended: Vec<Value>,
    /// The case that was running when it ended: number and name.
    running: Option<(usize, String)>,
    exit: Option<ExitStatus>,
    hung: bool,
    left_processes: bool,
    /// By the number of the case; what came before the first is under none.
    output: HashMap<Option<usize>, String>,
    seconds: f64,
}

async fn run_worker(
    file: &Path,
    from: usize,
    args: &TestArgs,
    common: &Common,
    control: &Control,
) -> Result<Run> {
    let failed = |e: std::io::Error| Error::io("test", &e).subject(file.display().to_string());
    let mut child = command(file, from, args, common)?.spawn().map_err(failed)?;
    let pid = Pid::from_raw(child.id().expect("it has not been waited for") as i32);
    let stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped").take(OUTPUT_LIMIT);
    let output = tokio::spawn(async move {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
        bytes
    });
    let mut run = Run {
        ended: Vec::new(),
        running: None,
        exit: None,
        hung: false,
        left_processes: false,
        output: HashMap::new(),
        seconds: 0.0,
    };
    let mut lines = BufReader::new(stdout).lines();
    let mut since = Instant::now();
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line.unwrap_or(None),
            () = tokio::time::sleep_until(since + args.timeout + MERCY) => {
                run.hung = true;
                None
            }
            _ = control.flag.stopped() => {
                // The workers tear down; nothing here needs to be given up.
                control.noticed();
                None
            }
        };
        let Some(line) = line else { break };
        since = Instant::now();
        run.take(&line);
    }
    run.seconds = since.elapsed().as_secs_f64();
    run.exit = end(&mut child, pid, run.hung || control.flag.reason().is_some()).await;
    // Whoever is left in its session was started by a case and not ended. What a crash left is no fault of its own.
    let left = left_behind(pid.as_raw() as u32).await;
    run.left_processes = !left.is_empty() && run.exit.is_some_and(|exit| exit.success());
    for one in left {
        let _ = kill(Pid::from_raw(one as i32), Signal::SIGKILL);
    }
    clean_after(pid.as_raw() as u32);
    if let Ok(Ok(bytes)) = tokio::time::timeout(TEAR_DOWN, output).await {
        run.output = by_case(&String::from_utf8_lossy(&bytes));
    }
    Ok(run)
}

fn command(file: &Path, from: usize, args: &TestArgs, common: &Common) -> Result<Command> {
    let program = std::env::current_exe().map_err(|e| Error::io("test", &e))?;
    let mut command = Command::new(program);
    command
        .args(["test", "--worker", "--from", &from.to_string()])
        .args(["--timeout", &format!("{}ms", args.timeout.as_millis())])
        .args(["--memory", &common.memory.to_string()])
        .args(std::iter::repeat_n("-v", common.verbose.saturating_sub(1).into()));
    if let Some(path) = &common.verifier_log {
        command.arg("--verifier-log").arg(path);
    }
    if let Some(pattern) = &args.pattern {
        command.arg(format!("-k={pattern}"));
    }
    command
        .arg("--")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // A session of its own holds all that its cases start, in whatever groups.
    // SAFETY: setsid(2) is a system call only, on no memory of ours.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) };
    Ok(command)
}

/// Waits for the end of the worker, which is told to end if it must: it tears down then.
async fn end(child: &mut Child, pid: Pid, tell: bool) -> Option<ExitStatus> {
    if tell {
        let _ = kill(pid, Signal::SIGTERM);
    }
    match tokio::time::timeout(TEAR_DOWN, child.wait()).await {
        Ok(exit) => exit.ok(),
        Err(_) => {
            let _ = killpg(pid, Signal::SIGKILL);
            child.wait().await.ok()
        }
    }
}

/// What a worker that was killed, or crashed, had made goes all the same.
fn clean_after(pid: u32) {
    let cleaned = || -> Result<()> {
        let Some(found) = Instances::here().get(&worker::instance_name(pid))? else {
            return Ok(());
        };
        let Some(seized) = found.seize()? else { return Ok(()) };
        match own::clean(&found.paths.journal())?.failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => seized.remove(),
        }
    };
    if let Err(error) = cleaned() {
        report::error(&error, Some("left behind"));
    }
}

/// Who outlives the worker in its session: not for a moment, as a shell that is about to end does.
async fn left_behind(session: u32) -> Vec<u32> {
    let mut left = processes::of_session(session);
    for _ in 0..20 {
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        left = processes::of_session(session);
    }
    left
}

fn by_case(output: &str) -> HashMap<Option<usize>, String> {
    let mut parts = HashMap::new();
    for (position, part) in output.split(worker::SEPARATOR).enumerate() {
        match part.split_once('\n').map(|(number, rest)| (number.parse(), rest)) {
            Some((Ok(number), rest)) if position > 0 => {
                parts.insert(Some(number), rest.to_owned());
            }
            _ => parts.entry(None).or_insert_with(String::new).push_str(part),
        }
    }
    parts
}

impl Run {
    fn take(&mut self, line: &str) {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        if event["event"] == "start" {
            let name = event["case"].as_str().unwrap_or_default().to_owned();
            self.running = event["index"].as_u64().map(|index| (index as usize, name));
        } else {
            self.running = None;
            self.ended.push(event);
        }
    }

    /// `stopped`: the whole run was interrupted, so that an unfinished case says nothing.
    fn outcomes(mut self, file: &str, stopped: bool) -> Vec<Outcome> {
        let ended = std::mem::take(&mut self.ended);
        let mut outcomes: Vec<Outcome> =
            ended.iter().map(|event| self.outcome(file, event)).collect();
        if let Some((index, name)) = self.running.take()
            && !stopped
        {
            let output = self.output.remove(&Some(index)).unwrap_or_default();
            outcomes.push(failure(file, &name, self.death(), output, self.seconds));
        } else if !stopped && !self.exit.is_some_and(|exit| exit.success()) {
            let name = if outcomes.is_empty() { "(load)" } else { "(end)" };
            let output = self.output.remove(&None).unwrap_or_default();
            outcomes.push(failure(file, name, self.death(), output, self.seconds));
        }
        if self.left_processes && !stopped {
            let reason = "the file's cases left processes behind; they were killed";
            outcomes.push(failure(file, "(end)", reason.into(), String::new(), 0.0));
        }
        outcomes
    }

    fn outcome(&mut self, file: &str, event: &Value) -> Outcome {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let index = event["index"].as_u64().map(|index| index as usize);
        Outcome {
            file: file.to_owned(),
            case: text("case"),
            status: match event["status"].as_str() {
                Some("passed") => Status::Passed,
                Some("skipped") => Status::Skipped,
                _ => Status::Failed,
            },
            reason: text("reason"),
            errors: text("errors"),
            output: self.output.remove(&index).unwrap_or_default(),
            seconds: event["seconds"].as_f64().unwrap_or(0.0),
        }
    }

    fn death(&self) -> String {
        if self.hung {
            return "the process did not answer any more and was ended".into();
        }
        match self.exit {
            Some(exit) => match (exit.signal(), exit.code()) {
                (Some(signal), _) => match Signal::try_from(signal) {
                    Ok(signal) => format!("the process was ended by {signal}"),
                    Err(_) => format!("the process was ended by signal {signal}"),
                },
                (None, code) => {
                    format!("the process left with status {}", code.unwrap_or_default())
                }
            },
            None => "the process could not be waited for".into(),
        }
    }
}

fn failure(file: &str, case: &str, reason: String, output: String, seconds: f64) -> Outcome {
    Outcome {
        file: file.to_owned(),
        case: case.to_owned(),
        status: Status::Failed,
        errors: format!("error: {reason}\n"),
        reason,
        output,
        seconds,
    }
}
