//! The program library from outside: what a reload and the death of the process make of programs that share an XDP hook.

mod room;

use std::process::Command;

use nix::sys::signal::Signal;
use room::*;

/// A pair whose end `w0` is filtered; DENIED are addresses of the other end.
const FILTER: &str = "
local a, b = cnf.netns.new('PREFIXa'), cnf.netns.new('PREFIXb')
local _, w = cnf.link.veth { name = 'v0', netns = a,
  address = { '10.0.0.1/24', '10.0.0.2/24', '10.0.0.3/24' },
  peer = { name = 'w0', netns = b, address = '10.0.0.9/24' } }
cnf.filter.xdp { link = w, deny = { DENIED } }
cnf.police.limit { link = w, hook = 'xdp', pps = 1000000 }
cnf.flow.account { link = w }
";

impl Room {
    /// Whether an echo from this address is answered.
    fn echoes(&self, source: &str) -> bool {
        let netns = format!("{}a", self.prefix);
        let ping = ["ping", "-c1", "-W1", "-I", source, "10.0.0.9"];
        let mut command = Command::new("ip");
        let output = command.args(["netns", "exec", &netns]).args(ping).output();
        output.expect("ip is there").status.success()
    }
}

fn filter(denied: &str) -> String {
    FILTER.replace("DENIED", denied)
}

#[test]
fn a_reload_replaces_the_lists_of_a_filter() {
    let room = Room::new();
    room.up("lists", &filter("'10.0.0.1'"));
    assert!(!room.echoes("10.0.0.1") && room.echoes("10.0.0.2"));
    room.reload("lists", &filter("'10.0.0.2'")).expect(0, "  ~ programs at XDP of w");
    assert!(room.echoes("10.0.0.1"), "no longer denied");
    assert!(!room.echoes("10.0.0.2"));
    // One that fails changes nothing, though the programs of it were loaded.
    room.reload("lists", &format!("{} error('no')", filter("'10.0.0.3'"))).expect(1, "no");
    assert!(!room.echoes("10.0.0.2") && room.echoes("10.0.0.3"));
    room.reload("lists", &filter("'10.0.0.3'")).expect(0, "");
    assert!(room.echoes("10.0.0.2") && !room.echoes("10.0.0.3"));
    room.run(&["down", "lists"]).expect(0, "lists is down");
}

#[test]
fn a_filter_goes_on_when_the_process_is_killed() {
    let room = Room::new();
    room.up("guard", &filter("'10.0.0.1'"));
    assert!(!room.echoes("10.0.0.1") && room.echoes("10.0.0.2"));
    room.kill("guard");
    assert!(!room.echoes("10.0.0.1"), "nobody is there, and it filters");
    assert!(room.echoes("10.0.0.2"));
    room.script("guard", &filter("'10.0.0.2'"));
    room.run(&["up", "guard.lua"]).expect(0, "guard is up");
    assert!(room.echoes("10.0.0.1") && !room.echoes("10.0.0.2"));
    room.run(&["down", "guard"]).expect(0, "guard is down");
    assert_eq!(room.namespaces(), [""; 0]);
}

#[test]
fn a_fault_ends_when_the_process_is_killed() {
    let room = Room::new();
    let fault = "cnf.chaos.inject(w, { direction = 'ingress', blackhole = true })";
    room.up("fault", &format!("{}{fault}", filter("'10.0.0.1'")));
    assert!(!room.echoes("10.0.0.2"));
    room.signal("fault", Signal::SIGKILL);
    eventually(|| room.echoes("10.0.0.2"));
    assert!(!room.echoes("10.0.0.1"), "the filter is no fault");
    // A later instance of the name takes over what is left.
    room.up("fault", "cnf.netns.new('PREFIXc')");
    room.run(&["down", "fault"]).expect(0, "fault is down");
    assert_eq!(room.namespaces(), [""; 0]);
}
