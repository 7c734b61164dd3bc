//! `cnfscript test` from outside: what it counts, how failures read, what survives crashes and hangs, its reports.

use std::path::Path;
use std::process::Output;

#[path = "room/place.rs"]
mod place;

const HEAD: &str = "local cnf = require('cnf') local test, task = cnf.test, cnf.task\n";

/// A directory of test files, removed at the end.
fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), format!("{HEAD}{text}")).expect("written");
    }
    directory
}

fn run(directory: &Path, args: &[&str]) -> Output {
    let words = [&["test"], args].concat();
    place::command(&words).current_dir(directory).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn assert_last_line(output: &Output, expected: &str) {
    let text = stdout(output);
    assert!(text.ends_with(&format!("{expected}\n")), "expected {expected}\n{text}");
    let line_before = text.trim_end_matches('\n').rsplit_once('\n').map(|(_, last)| last);
    assert_eq!(line_before.unwrap_or(text.trim_end()), expected);
}

const THREE: &str = "
test.case('passes', function(t) t:equal(1, 1) end)
test.case('fails <&>', function(t)
  print('printed ]]>')
  t:equal({ a = { b = 1 } }, { a = { b = 2 } })
end)
test.case('skips # it', function(t) t:skip('no \"feature\" here') end)
";

#[test]
fn counts_failures_and_skips() {
    let directory = files(&[("a.lua", THREE), ("b.lua", THREE), ("not-lua.txt", "(")]);
    let output = run(directory.path(), &["."]);
    assert_eq!(output.status.code(), Some(1));
    assert_last_line(&output, "2 passed, 2 failed, 2 skipped");
    let text = stdout(&output);
    let failure = [
        " s)",
        "error: t:equal: the values differ",
        " --> ./a.lua:6",
        "  |",
        "6 |   t:equal({ a = { b = 1 } }, { a = { b = 2 } })",
        "  |",
        "    value.a.b: got      1",
        "               expected 2",
        "output:",
        "  printed ]]>",
    ]
    .join("\n");
    assert!(text.contains("FAIL ./a.lua: fails <&> (0."), "{text}");
    assert!(text.contains(&failure), "{text}");
    assert!(text.contains("skipped 2: no \"feature\" here\n"), "{text}");
    assert!(!text.contains("passes"), "{text}");
    assert!(stdout(&run(directory.path(), &[".", "-v"])).contains("ok   ./b.lua: passes ("));
}

#[test]
fn selects_by_pattern() {
    let directory = files(&[("a.lua", THREE)]);
    let output = run(directory.path(), &["a.lua", "-k", "PASS"]);
    assert_eq!(output.status.code(), Some(0));
    assert_last_line(&output, "1 passed, 0 failed, 0 skipped");
    let output = run(directory.path(), &["a.lua", "-k", "f*l*s"]);
    assert_last_line(&output, "0 passed, 1 failed, 0 skipped");
    for args in [&["a.lua", "-k", "nothing like it"] as &[&str], &["empty.lua"]] {
        std::fs::write(directory.path().join("empty.lua"), "").expect("written");
        let output = run(directory.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with("error: test: no case "), "{text}");
    }
}

/// One case that takes its process down fails alone: those before and after it are run.
#[test]
fn survives_what_cases_do() {
    let cases = [
        ("os.exit(0)", "the process left with status 0"),
        ("os.execute('kill -KILL ' .. cnf._test.pid())", "the process was ended by SIGKILL"),
        ("while true do pcall(error) end", "timed out after 500ms"),
        ("task.sleep(60)", "timed out after 500ms"),
        ("error('text')", "error: text"),
        ("error({})", "error value is a table"),
        ("error()", "error value is nil"),
        ("t:defer(function() error('too late') end)", "too late"),
        ("task.spawn(error, 'alone') task.sleep(0.05)", "a task failed and nobody joined it"),
        ("local x = nil .. 'a'", "attempt to concatenate a nil value"),
    ];
    let mut text = String::from("test.case('first', function(t) end)\n");
    for (index, (body, _)) in cases.iter().enumerate() {
        text.push_str(&format!("test.case('case {index}', function(t) {body} end)\n"));
    }
    text.push_str("test.case('last', function(t) end)\n");
    let directory = files(&[("a.lua", &text)]);
    let output = run(directory.path(), &["a.lua", "--timeout", "500ms", "-v"]);
    let shown = stdout(&output);
    assert_last_line(&output, &format!("2 passed, {} failed, 0 skipped", cases.len()));
    for (index, (body, expected)) in cases.iter().enumerate() {
        let from = shown.find(&format!("case {index} (")).expect("every case is reported");
        let block = shown[from..].split("\nFAIL ").next().unwrap_or_default();
        assert!(block.contains(expected), "{body}: expected {expected}\n{block}");
    }
    assert!(shown.contains("ok   a.lua: last"), "{shown}");
}

#[test]
fn files_that_do_not_load_fail() {
    let directory = files(&[("a.lua", "syntax error"), ("b.lua", "error('loading')")]);
    let output = run(directory.path(), &["a.lua", "b.lua"]);
    assert_last_line(&output, "0 passed, 2 failed, 0 skipped");
    assert!(stdout(&output).contains("FAIL b.lua: (load)"));
}

#[test]
fn processes_left_behind_are_a_failure() {
    let body = "test.case('leaves', function(t) os.execute('sleep 300 >/dev/null 2>&1 &') end)";
    let directory = files(&[("a.lua", body)]);
    let output = run(directory.path(), &["a.lua"]);
    assert_last_line(&output, "1 passed, 1 failed, 0 skipped");
    assert!(stdout(&output).contains("left processes behind"));
}

#[test]
fn what_deferred_runs_even_after_a_hang() {
    let body = "test.case('hangs', function(t)
        t:defer(function() io.stderr:write('deferred ran\\n') end) task.sleep(60) end)";
    let directory = files(&[("a.lua", body)]);
    let output = run(directory.path(), &["a.lua", "--timeout", "200ms"]);
    assert!(stdout(&output).contains("deferred ran"), "{}", stdout(&output));
}

#[test]
fn files_run_at_once() {
    let body = "test.case('waits', function(t) task.sleep(1) end)";
    let directory = files(&[("a.lua", body), ("b.lua", body), ("c.lua", body), ("d.lua", body)]);
    let start = std::time::Instant::now();
    let output = run(directory.path(), &[".", "--jobs", "4"]);
    assert_last_line(&output, "4 passed, 0 failed, 0 skipped");
    assert!(start.elapsed().as_secs_f64() < 3.5, "{:?}", start.elapsed());
}

#[test]
fn reports_for_machines() {
    let directory = files(&[("a.lua", THREE)]);
    let output = run(directory.path(), &["a.lua", "--junit", "out.xml", "--report", "out.json"]);
    assert_last_line(&output, "1 passed, 1 failed, 1 skipped");

    let json = std::fs::read_to_string(directory.path().join("out.json")).expect("written");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let rows: Vec<[&str; 4]> = json
        .as_array()
        .expect("an array")
        .iter()
        .map(|row| {
            assert!(row["seconds"].is_f64());
            ["file", "case", "status", "reason"].map(|key| row[key].as_str().expect("text"))
        })
        .collect();
    assert_eq!(
        rows,
        [
            ["a.lua", "passes", "passed", ""],
            ["a.lua", "fails <&>", "failed", "t:equal: the values differ"],
            ["a.lua", "skips # it", "skipped", "no \"feature\" here"],
        ]
    );

    let xml = std::fs::read_to_string(directory.path().join("out.xml")).expect("written");
    for expected in [
        "<testsuite name=\"a.lua\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\"",
        "<testcase name=\"fails &lt;&amp;&gt;\" classname=\"a.lua\"",
        "<skipped message=\"no &quot;feature&quot; here\"/>",
        "<system-out>printed ]]&gt;",
    ] {
        assert!(xml.contains(expected), "{expected}\n{xml}");
    }

    let tap = stdout(&run(directory.path(), &["a.lua", "--tap"]));
    assert!(tap.starts_with("TAP version 14\nok 1 - a.lua: passes\nnot ok 2 - "), "{tap}");
    assert!(tap.contains("ok 3 - a.lua: skips \\# it # SKIP no \"feature\" here\n"), "{tap}");
    assert!(tap.ends_with("1..3\n"), "{tap}");
}
