//! What the binary tells about itself and the kernel: the verifier's log.

use std::path::Path;
use std::process::{Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_cnfscript");

/// Runs the binary where the programs of the error messages are.
fn run(args: &[&str]) -> Output {
    Command::new("timeout")
        .args(["--foreground", "--kill-after=5", "60", BINARY])
        .args(args)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

const REFUSED: &str = r#"
local bpf = require("cnf").bpf
for _, name in ipairs({ "null_check", "packet_end" }) do
  assert(not pcall(bpf.compile, "lib/refused.bpf.c", { programs = { name } }))
end
"#;

#[test]
fn the_whole_log_of_every_refused_program_is_kept() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let log_path = log.to_str().expect("temporary paths are text");
    std::fs::write(&log, "of another run\n").expect("written");
    let output = run(&["--verifier-log", log_path, "-e", REFUSED]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&log).expect("it was written");
    assert!(text.starts_with("program null_check: EACCES\n"), "{text}");
    assert!(text.contains("\nprogram packet_end: EACCES\n"), "{text}");
    assert_eq!(text.matches("\nprocessed ").count(), 2, "{text}");
}

#[test]
fn workers_of_the_test_runner_share_the_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let case = format!("require('cnf').test.case('refused', function() {REFUSED} end)");
    for name in ["a.lua", "b.lua"] {
        std::fs::write(directory.path().join(name), &case).expect("written");
    }
    let text = |path: &Path| path.to_str().expect("temporary paths are text").to_owned();
    let output = run(&["test", "--verifier-log", &text(&log), &text(directory.path())]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let kept = std::fs::read_to_string(&log).expect("it was written");
    assert_eq!(kept.matches("program null_check: EACCES\n").count(), 2, "{kept}");
}
