//! What the binary tells about itself, the kernel and programs: the verifier's log, features, completions, type stubs, global
//! variables through reloads.

#[path = "room/place.rs"]
mod place;
mod room;

use std::path::Path;
use std::process::{Command, Output};

use place::BINARY;

/// Runs the binary where the programs of the error messages are.
fn run(args: &[&str]) -> Output {
    let errors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    place::command(args).current_dir(errors).output().expect("the binary starts")
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

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn features_as_a_table_and_as_json() {
    let output = run(&["features"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = text(&output);
    for title in
        ["system", "hooks", "program types", "map types", "link kinds", "queueing disciplines"]
    {
        assert!(table.contains(&format!("\n\n{title}\n")), "{title} in\n{table}");
    }
    let row = table.lines().find(|line| line.trim_start().starts_with("clsact")).expect("a row");
    assert!(row.contains(" yes ") && row.contains("tc.attach is refused"), "{row}");

    let json: serde_json::Value =
        serde_json::from_str(&text(&run(&["features", "--json"]))).expect("it is JSON");
    let features = json["features"].as_array().expect("a list");
    assert!(features.len() > 100, "{}", features.len());
    for feature in features {
        let available = feature["available"].as_bool().expect("root can try all");
        assert_eq!(available, feature["reason"].is_null(), "{feature}");
        assert!(feature["without"].as_str().is_some_and(|text| !text.is_empty()), "{feature}");
    }
    assert!(json["helpers"]["tc"].as_array().is_some_and(|names| names.len() > 50));
    assert_eq!(json["capabilities"]["CAP_BPF"], true);
}

#[test]
fn features_by_word() {
    let table = text(&run(&["features", "veth", "helpers"]));
    let rows: Vec<&str> = table.lines().map(str::trim).collect();
    assert!(rows.iter().any(|row| row.starts_with("veth ")), "{table}");
    assert!(!rows.iter().any(|row| row.starts_with("bridge ")), "{table}");
    let redirect = rows.iter().find(|row| row.starts_with("bpf_redirect_peer ")).expect("a helper");
    assert!(redirect.ends_with(" tc"), "{redirect}");
}

#[test]
fn features_without_privileges() {
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-all", "--inh-caps", "-all", BINARY, "features", "tcx"])
        .output()
        .expect("setpriv starts");
    assert_eq!(output.status.code(), Some(3));
    let table = text(&output);
    assert!(table.contains("without CAP_NET_ADMIN"), "{table}");
    assert!(table.lines().any(|line| line.trim_start().starts_with("tcx  ?")), "{table}");
}

#[test]
fn completions_and_stubs() {
    let bash = text(&run(&["completions", "bash"]));
    assert!(bash.contains("_cnfscript()") && bash.contains("--verifier-log"), "{bash}");
    assert_eq!(run(&["completions", "cmd.exe"]).status.code(), Some(2));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let below = directory.path().join("a/b");
    let output = run(&["types", below.to_str().expect("temporary paths are text")]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let stubs = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua-stdlib/types");
    for stub in std::fs::read_dir(stubs).expect("they are there") {
        let stub = stub.expect("readable");
        let written = std::fs::read(below.join(stub.file_name())).expect("it was written");
        assert!(written == std::fs::read(stub.path()).expect("readable"), "{:?}", stub.path());
    }
}

/// What bpftool reads of a global variable, wherever its programs see it.
fn global(map: &str, name: &str) -> u64 {
    let output = Command::new("bpftool").args(["-j", "map", "dump", "name", map]).output();
    let output = output.expect("bpftool is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let dumped: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let section = &dumped[0]["formatted"]["value"][".data"];
    let variables = section.as_array().unwrap_or_else(|| panic!("{text}"));
    let found = variables.iter().find_map(|variable| variable[name].as_u64());
    found.unwrap_or_else(|| panic!("{name} in {text}"))
}

#[test]
fn global_variables_wait_for_the_commit_of_a_reload() {
    let room = room::Room::new();
    let object = format!("g{}", std::process::id());
    let map = format!("{object}.data");
    let script = |line: &str| {
        format!(
            r#"
local ns = cnf.netns.new('PREFIXg')
local link = cnf.link.veth {{ name = 'v0', netns = ns, peer = {{ name = 'v1', netns = ns }} }}
local o = cnf.bpf.compile({{ source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
__u32 limit = 1;
SEC("tc") int p(struct __sk_buff *skb) {{ return limit ? 0 : -1; }}
char LICENSE[] SEC("license") = "GPL";
]] }}, {{ name = '{object}' }})
cnf.bpf.attach(link, 'ingress', o.programs.p)
{line}
"#
        )
    };
    let reload = |line: &str| room.reload("globals", &script(line));
    room.up("globals", &script("o.globals.limit = 5"));
    assert_eq!(global(&map, "limit"), 5);
    let failing = "o.globals.limit = 9 assert(o.globals.limit == 9) error('no')";
    reload(failing).expect(1, "no");
    assert_eq!(global(&map, "limit"), 5, "a load that fails changes nothing");
    reload("assert(o.globals.limit == 5) o.globals.limit = 9").expect(0, "global variable limit");
    assert_eq!(global(&map, "limit"), 9);
}
