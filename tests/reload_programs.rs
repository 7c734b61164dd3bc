//! Programs through reloads: one takes the place of another on its hook, others' are left, and a killed process leaves them running.

mod room;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use room::*;

const PASS: &str = r#"
local source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } hits SEC(".maps");
SEC("tc") int pass(struct __sk_buff *skb) {
  __u32 zero = 0;
  __u64 *hit = bpf_map_lookup_elem(&hits, &zero);
  if (hit) *hit += STEP;
  return -1;
}
char LICENSE[] SEC("license") = "GPL";
]]
local a = cnf.netns.new('PREFIXa')
local v = cnf.link.veth { name = 'v', netns = a, address = '10.0.0.1/24', peer = { netns = a, name = 'w' } }
local o = cnf.bpf.compile { source = source }
local hook = cnf.bpf.attach(v, 'egress', o.programs.pass)
"#;

#[test]
fn a_changed_program_takes_the_place_of_the_one_before() {
    let room = Room::new();
    room.up("swap", &PASS.replace("STEP", "1"));
    let query = format!(
        "local v = netns.get('{}a'):link('v')
        local found = (cnf.probe_feature('tcx') and tcx or tc).query(v, 'egress')
        for _, p in ipairs(found.programs) do print(p.link_id, p.id) end",
        room.prefix
    );
    let links = || room.run(&["-e", &query]).out;
    let before = links();
    let said = room.reload("swap", &PASS.replace("STEP", "2"));
    said.expect(0, "  ~ attachment pass on ");
    let after = links();
    let ids = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect()
    };
    assert_eq!(before.lines().count(), 1, "{before}");
    assert_eq!(ids(&before), ids(&after), "the links are the same");
    assert_ne!(before, after, "their programs are not");
    // A program that cannot be compiled, or that the verifier refuses, changes nothing.
    room.reload("swap", &PASS.replace("STEP", "nonsense")).expect(1, "nonsense");
    room.reload("swap", &PASS.replace("*hit += STEP", "0; *hit += 1; *(int *)0 = 1"))
        .expect(1, "bpf.compile");
    assert_eq!(links(), after);
}

#[test]
fn someone_else_on_a_hook_is_reported_and_left() {
    let room = Room::new();
    room.up("shared", &PASS.replace("STEP", "1"));
    if !room.run(&["-e", "print((cnf.probe_feature('tcx')))"]).out.contains("true") {
        return; // clsact does not count its changes.
    }
    room.run(&["reload", "shared"]).expect(0, "reload 2");
    assert!(!room.log("shared").contains("someone else"));
    let theirs = format!(
        "{} local v = netns.get('{}a'):link('v') local o = bpf.compile {{ source = source }}
        tcx.attach(v, 'egress', o.programs.pass) require('cnf').task.sleep(20)",
        PASS.split("local a =").next().expect("it is there").replace("STEP", "3"),
        room.prefix
    );
    let mut other = room.command(&["-e", &theirs]).spawn().expect("it starts");
    let query = format!(
        "local v = netns.get('{}a'):link('v') print('programs', #tcx.query(v, 'egress').programs)",
        room.prefix
    );
    eventually(|| room.run(&["-e", &query]).out.contains("programs\t2"));
    room.run(&["reload", "shared"]).expect(0, "reload 3: kept 4");
    let log = room.log("shared");
    assert!(log.contains("warning: someone else changed the programs on tcx egress of v"), "{log}");
    room.run(&["-e", &query]).expect(0, "programs\t2");
    let _ = nix::sys::signal::kill(Pid::from_raw(other.id() as i32), Signal::SIGTERM);
    let _ = other.wait();
}

#[test]
fn packets_flow_on_when_the_process_is_killed_and_the_next_one_takes_over() {
    let room = Room::new();
    room.up("kept", &PASS.replace("STEP", "1"));
    room.kill("kept");
    assert_eq!(room.namespaces().len(), 1, "its network is there");
    let said = room.run(&["up", "kept.lua"]);
    said.expect(0, "kept is up");
    let log = room.log("kept");
    assert!(log.contains("taken over: changed 1, kept 3 in "), "{log}");
    // What it cannot take over stays as it is.
    room.kill("kept");
    room.script("kept", "error('no')");
    room.run(&["up", "kept.lua"]).expect(1, "no");
    assert_eq!(room.namespaces().len(), 1, "its network is there");
    room.script("kept", &PASS.replace("STEP", "1"));
    room.run(&["up", "kept.lua"]).expect(0, "kept is up");
    room.run(&["down", "kept"]).expect(0, "kept is down");
    assert_eq!(room.namespaces(), [""; 0]);
}
