//! The command line from outside: exit statuses, where the script comes from, signals, hostile scripts, the log.

use std::io::Write;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "room/place.rs"]
mod place;

use place::command;

fn run(args: &[&str]) -> Output {
    command(args).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A script in a file of its own, removed at the end.
fn script(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".lua").tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it takes the text");
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("temporary paths are text")
}

#[test]
fn exit_statuses() {
    let failing = script("error('no')");
    let quiet = script("local x = 1");
    let cases: &[(&[&str], i32)] = &[
        (&[path(&quiet)], 0),
        (&[path(&failing)], 1),
        (&["-e", "cnf.exit(7)"], 7),
        (&["-e", "os.exit()"], 0),
        (&["-e", "os.exit(true)"], 0),
        (&["-e", "os.exit(false)"], 1),
        (&["-e", "os.exit(3)"], 3),
        (&["-e", "pcall(cnf.exit, 4) while true do end"], 4),
        (&["-e", "pcall(function() while true do pcall(cnf.exit, 5) end end) error('never')"], 5),
        (&["-e", "task.spawn(function() error('x') end)"], 1),
        (&["-e", "local t = task.spawn(function() error('x') end) pcall(t.join, t)"], 0),
        (&["-e", "task.spawn(function() task.sleep(0.01) cnf.exit(6) end)"], 6),
        (&["-e", "syntax error"], 1),
        (&["/nowhere.lua"], 2),
        (&["/"], 2),
        (&["--frobnicate"], 2),
        (&["--memory", "x", "-e", ""], 2),
        (&["test"], 2),
        (&["test", "/nowhere"], 2),
        (&["--version"], 0),
        (&["--help"], 0),
    ];
    for (args, expected) in cases {
        let output = run(args);
        assert_eq!(output.status.code(), Some(*expected), "{args:?}\n{}", stderr(&output));
    }
}

#[test]
fn arguments_reach_the_script() {
    let file = script("print(table.concat(cnf.args, '|'), select('#', ...), (...))");
    let file_args = script("local cnf = require 'cnf' print(table.concat(cnf.args, '|'))");
    let cases: &[(&[&str], &str)] = &[
        (&["-e", "print(#cnf.args, ...)", "a", "b"], "2\ta\tb\n"),
        (&[path(&file_args), "-x", "--name", "y", "--", "z"], "-x|--name|y|--|z\n"),
        (&[path(&file_args), "test", "-e"], "test|-e\n"),
        (&["--name", "mine", "-e", "print(cnf.instance)"], "mine\n"),
    ];
    for (args, expected) in cases {
        let output = run(args);
        assert_eq!(stdout(&output), *expected, "{args:?}\n{}", stderr(&output));
    }
    // A file has no plain module names.
    assert!(stderr(&run(&[path(&file)])).contains("undeclared global \"cnf\""));
}

#[test]
fn help_is_there_outside_of_the_prompt() {
    let output = run(&["-e", "help(cnf) help(task.sleep)"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(text.contains("task.sleep(duration)"), "{text}");
    // Sentences are whole, whatever stops they have inside.
    for (face, sentence) in [
        (
            "version: string",
            concat!("The version of this program, \"", env!("CARGO_PKG_VERSION"), "\"."),
        ),
        ("cnf.wait()", "The script is set up: what it has made so far is the network."),
        ("task", "Structured waiting: what waits suspends its own task and nothing else."),
    ] {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&format!("{face} {sentence}")), "{text}");
    }
}

fn run_with_stdin(args: &[&str], text: &str) -> Output {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it is read");
    child.wait_with_output().expect("it ends")
}

#[test]
fn standard_input_is_a_script() {
    for args in [&["-"] as &[&str], &[]] {
        let output = run_with_stdin(args, "print('from stdin')\n\nerror('third line')\n");
        assert_eq!(stdout(&output), "from stdin\n");
        assert_eq!(output.status.code(), Some(1));
        let expected = "error: third line\n --> stdin:3\n  |\n3 | error('third line')\n  |\n";
        assert_eq!(stderr(&output), expected, "the source line is shown");
    }
    let output = run_with_stdin(&["-", "a", "-b"], "print(...)");
    assert_eq!(stdout(&output), "a\t-b\n");
}

#[test]
fn a_shebang_is_not_lua() {
    let file = script("#!/usr/bin/env cnfscript\nerror('second line')");
    assert!(stderr(&run(&[path(&file)])).contains(":2\n"));
}

/// Starts a script and waits until it has said "ready".
fn start(text: &str) -> (Child, tempfile::NamedTempFile) {
    let file = script(text);
    (place::start(&[path(&file)]), file)
}

/// Sends the signal; the output, the status, and how long the end took. Killed when it takes too long.
fn stop(mut child: Child, signal: Signal) -> (Output, Duration) {
    let pid = Pid::from_raw(child.id() as i32);
    let start = Instant::now();
    kill(pid, signal).expect("it is alive");
    while child.try_wait().expect("it is ours").is_none() {
        if start.elapsed() > Duration::from_secs(10) {
            kill(pid, Signal::SIGKILL).expect("it is alive");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    (child.wait_with_output().expect("it has ended"), took)
}

const READY: &str = "print('ready') io.stdout:flush()\n";

#[test]
fn signals_end_a_waiting_script() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let text = format!(
            "local cnf = require 'cnf'
            for i = 1, 3 do cnf.on_stop(function(reason) print(i, reason) end) end
            {READY} cnf.task.sleep(100)"
        );
        let (child, _file) = start(&text);
        let (output, took) = stop(child, signal);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(stdout(&output), "3\texit\n2\texit\n1\texit\n");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn hostile_scripts_end_within_two_seconds() {
    let loops = [
        "while true do end",
        "while true do pcall(error) end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(error, function() while true do end end) end",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end)
         while true do co() end",
        "while true do pcall(coroutine.wrap(function() while true do end end)) end",
        "local function f() return pcall(f) end while true do f() end",
        "local task = require 'cnf'.task
         for _ = 1, 5 do task.spawn(function() while true do pcall(task.sleep, 0) end end) end
         task.sleep(100)",
        "local task = require 'cnf'.task
         while true do pcall(task.timeout, 50, function() while true do end end) end",
        "setmetatable({}, {__gc = function() while true do end end}) collectgarbage()",
        "local _ = ('a'):rep(1 << 16):find(('a*'):rep(30) .. 'b')",
    ];
    for text in loops {
        let (child, _file) = start(&format!("{READY} {text}"));
        // The loop is to be under way.
        std::thread::sleep(Duration::from_millis(30));
        let (output, took) = stop(child, Signal::SIGINT);
        assert_eq!(output.status.code(), Some(130), "{text}\n{}", stderr(&output));
        assert!(took < Duration::from_secs(2), "{text}: {took:?}");
    }
}

#[test]
fn a_handler_that_hangs_is_ended() {
    let text = format!(
        "local cnf = require 'cnf'
        cnf.on_stop(function() while true do pcall(error) end end)
        {READY} cnf.task.sleep(100)"
    );
    let (child, _file) = start(&text);
    let (output, took) = stop(child, Signal::SIGTERM);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn memory_is_limited() {
    let output = run(&[
        "--memory",
        "16m",
        "-e",
        "t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(9999) .. #t end) end",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("ENOMEM"), "{}", stderr(&output));
}

#[test]
fn log_lines() {
    let chunk = "cnf.log.debug('d') cnf.log.info('i', {b = 1, a = 'x'}) cnf.log.warn('w') \
                 cnf.log.error('e') cnf.error{op = 'x', code = 'EIO', message = 'm'}";
    let texts = [
        (&[] as &[&str], "i a=x b=1\nwarning: w\nerror: e\n"),
        (&["-v"], "debug: d\ni a=x b=1\nwarning: w\nerror: e\n"),
        (&["-q"], "error: e\n"),
    ];
    for (options, expected) in texts {
        let output = run(&[options, &["-e", chunk]].concat());
        let text = stderr(&output);
        assert!(text.starts_with(expected), "{options:?}: {text}");
        assert!(text.contains("error: x: m (EIO)"), "{options:?}: {text}");
    }
    let output = run(&["--log-format", "json", "-e", chunk]);
    let lines: Vec<serde_json::Value> = stderr(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    let levels: Vec<&str> = lines.iter().filter_map(|line| line["level"].as_str()).collect();
    assert_eq!(levels, ["info", "warn", "error", "error"]);
    assert_eq!(lines[0]["message"], "i");
    assert_eq!(lines[0]["a"], "x");
    assert_eq!(lines[3]["code"], "EIO");
    assert_eq!(lines[3]["where"], "-e:1");
}

#[test]
fn standard_output_can_be_closed() {
    let mut child = command(&["-e", "for i = 1, 1e5 do print(i) end"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}
