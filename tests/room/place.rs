//! The program for tests that need no room, with a run directory of theirs: what they kill leaves nothing among the instances of
//! this machine. The directory itself stays, empty, for the next run.

// Each test binary uses what it needs.
#![allow(dead_code)]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub use cnfscript::own::instance::DIRECTORY_VARIABLE;

pub const BINARY: &str = env!("CARGO_BIN_EXE_cnfscript");

/// No run of these tests takes longer, whatever goes wrong.
const BOUND: &str = "60";

pub fn place() -> PathBuf {
    std::env::temp_dir().join(format!("cnfscript-tests-{}", nix::unistd::geteuid()))
}

fn settled(mut command: Command) -> Command {
    command.env("NO_COLOR", "1").env(DIRECTORY_VARIABLE, place()).stdin(Stdio::null());
    command
}

/// The program with these words, ended when it takes too long.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5", BOUND, BINARY]).args(words);
    settled(command)
}

/// Starts the program itself, with its output in pipes, and waits until it has said "ready".
pub fn start(words: &[&str]) -> Child {
    let mut command = Command::new(BINARY);
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = settled(command).spawn().expect("the binary starts");
    let mut ready = [0; 6];
    let read = child.stdout.as_mut().expect("piped").read_exact(&mut ready);
    if read.is_err() || &ready != b"ready\n" {
        let _ = child.kill();
        let output = child.wait_with_output().expect("it ends");
        panic!("not ready: {}", String::from_utf8_lossy(&output.stderr));
    }
    child
}
