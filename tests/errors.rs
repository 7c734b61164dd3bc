//! Golden error messages: every `tests/errors/*.lua` is run, and what it writes to standard error must be what the
//! `.stderr` file beside it holds. `BLESS=1 cargo test --test errors` writes those files anew: read the difference.
//!
//! Lines of a script's head comment choose how it is run:
//!
//! ```lua
//! --- args: --memory 16m SCRIPT      the whole command line; SCRIPT is the file (default: SCRIPT)
//! --- status: 2                      the exit status (default: 1)
//! --- requires: netkit               a feature without which the script is skipped
//! --- run: env PATH=/nowhere         words before the command line
//! ```
//!
//! What differs from run to run is replaced: process ids by PID (in names too, as golden-PID), the kernel's version by
//! KERNEL, temporary paths by TMP, the verifier's own words by dots.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sched::{CloneFlags, unshare};

#[path = "room/place.rs"]
mod place;

use place::{BINARY, DIRECTORY_VARIABLE, place};

struct Golden {
    script: PathBuf,
    args: Vec<String>,
    status: i32,
    requires: Vec<String>,
    run: Vec<String>,
}

impl Golden {
    fn read(script: PathBuf) -> Golden {
        let source = std::fs::read_to_string(&script).expect("scripts are text");
        let name = script.file_name().expect("it is a file").to_string_lossy().into_owned();
        let head = |word: &str| {
            let word = format!("--- {word}:");
            let mut lines = source.lines().take_while(|line| line.starts_with("---"));
            lines.find_map(|line| line.strip_prefix(&word)).map(str::trim)
        };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let args = words(head("args").unwrap_or("SCRIPT"));
        Golden {
            args: args
                .into_iter()
                .map(|arg| if arg == "SCRIPT" { name.clone() } else { arg })
                .collect(),
            status: head("status").map_or(1, |status| status.parse().expect("a number")),
            requires: head("requires").map(words).unwrap_or_default(),
            run: head("run").map(words).unwrap_or_default(),
            script,
        }
    }

    /// Standard error and the exit status.
    fn run(&self) -> (String, Option<i32>) {
        let child = Command::new("timeout")
            .args(["--kill-after=5", "60"])
            .args(&self.run)
            .arg(BINARY)
            .args(&self.args)
            .current_dir(self.script.parent().expect("it is in a directory"))
            .env("NO_COLOR", "1")
            .env(DIRECTORY_VARIABLE, place())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = child.wait_with_output().expect("the binary ends");
        (normalised(&String::from_utf8_lossy(&output.stderr)), output.status.code())
    }

    /// The first feature that is not there, and why.
    fn missing(&self) -> Option<String> {
        self.requires.iter().find_map(|feature| {
            let probe = format!(
                "local there, why = cnf.probe_feature({feature:?}); if not there then print(why) end"
            );
            let output = Command::new(BINARY)
                .args(["-e", &probe])
                .env(DIRECTORY_VARIABLE, place())
                .output().expect("it starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let why = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (!why.is_empty()).then_some(why)
        })
    }
}

/// The text without what differs from run to run.
fn normalised(text: &str) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is there");
    let kernel = kernel.trim();
    let short: String = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
    let temporary = std::env::temp_dir().display().to_string();
    let mut out =
        text.replace(kernel, "KERNEL").replace(&format!("this is {short}"), "this is KERNEL");
    out = out.replace(&format!("{temporary}/"), "TMP/").replace(BINARY, "cnfscript");
    out = replace_number_after(&out, "pid ", "PID");
    out = replace_number_after(&out, "golden-", "PID");
    out = replace_number_after(&out, "\"time\":", "TIME");
    out = replace_number_after(&out, "(id ", "ID");
    // The verifier's own words differ from release to release; ours, above them, do not.
    let own: Vec<&str> = out
        .split_inclusive('\n')
        .map(|line| match line.trim_start().starts_with("the verifier: ") {
            true => "    the verifier: ...\n",
            false => line,
        })
        .collect();
    out = own.concat();
    for prefix in ["e-", "stdin-", "repl-"] {
        out = replace_number_after(&out, &format!("instance {prefix}"), "PID");
    }
    out
}

fn replace_number_after(text: &str, prefix: &str, by: &str) -> String {
    let mut parts = text.split(prefix);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        out.push_str(prefix);
        if rest.len() < part.len() {
            out.push_str(by);
        }
        out.push_str(rest);
    }
    out
}

fn goldens() -> Vec<Golden> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "lua"))
        .collect();
    scripts.sort();
    scripts.into_iter().map(Golden::read).collect()
}

/// What is wrong with one, or nothing.
fn judge(golden: &Golden, bless: bool) -> Option<String> {
    let name = golden.script.file_stem().expect("it is a file").to_string_lossy();
    if let Some(why) = golden.missing() {
        println!("skipped {name}: {why}");
        return None;
    }
    let (text, status) = golden.run();
    if status != Some(golden.status) {
        return Some(format!("{name}: status {status:?}, expected {}\n{text}", golden.status));
    }
    let expected = golden.script.with_extension("stderr");
    if bless {
        std::fs::write(&expected, &text).expect("the golden file is written");
        return None;
    }
    let expected = std::fs::read_to_string(&expected).unwrap_or_default();
    (text != expected).then(|| format!("{name}:\n--- expected\n{expected}--- got\n{text}"))
}

#[test]
fn errors_read_as_they_should() {
    let bless = std::env::var_os("BLESS").is_some();
    let goldens = goldens();
    // They mostly wait. Links that they make in the host's namespace have one name: each worker has a host of its own.
    let next = AtomicUsize::new(0);
    let work = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace for the worker");
        let mine = || goldens.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(mine).filter_map(|golden| judge(golden, bless)).collect::<Vec<_>>()
    };
    let mut wrong: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("it ends")).collect()
    });
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{} wrong; BLESS=1 writes them anew\n\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
