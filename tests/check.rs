//! Rehearsals from outside: what a script would create, its errors, and nothing left of it.

mod room;

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use room::*;

/// Held while the host's links are compared, and while one is made among them.
static HOST: Mutex<()> = Mutex::new(());

/// Links and namespaces that anybody can see.
fn seen() -> String {
    let ip = |words: &[&str]| {
        let output = Command::new("ip").args(words).output().expect("ip is there");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let names = |text: String| -> Vec<String> {
        text.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
    };
    format!("{:?} {:?}", names(ip(&["-o", "link"])), names(ip(&["-o", "addr"])))
}

/// A namespace that was there before the script, with a link and an address.
fn others(room: &Room) -> String {
    let name = format!("{}theirs", room.prefix);
    let ip = |words: &str| {
        assert!(Command::new("ip").args(words.split(' ')).status().expect("ip is there").success());
    };
    ip(&format!("netns add {name}"));
    ip(&format!("-n {name} link add up0 type veth peer name up1"));
    ip(&format!("-n {name} addr add 10.60.0.1/24 dev up0"));
    ip(&format!("-n {name} link set up0 up mtu 1350"));
    name
}

#[test]
fn it_says_what_it_would_create_and_leaves_nothing() {
    let _alone = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let room = Room::new();
    let theirs = others(&room);
    let text = "
local theirs = cnf.netns.get('PREFIXtheirs')
local up0 = theirs:link('up0')
assert(up0:addresses()[1].address == '10.60.0.1/24' and up0:info().mtu == 1350)
-- The same names as outside are free for a script that makes them, and what is changed is a copy.
local a = cnf.netns.new('PREFIXa')
cnf.link.veth { name = 'v', netns = a, address = '10.61.0.1/24', peer = { name = 'w', netns = theirs } }
up0:set { mtu = 1300 }
theirs:route { dst = '10.62.0.0/16', via = '10.60.0.9' }
print(theirs:exec { 'ip', '-o', 'link', 'show', 'up0' }.stdout:match('mtu %d+'))
cnf.on_stop(function(reason) print('stop', reason) end)
";
    room.script("play", text);
    let before = seen();
    let said = room.run(&["check", "play.lua"]);
    said.expect(0, "play.lua would create 2 links, 1 link setting, 1 netns, 1 route\n");
    said.expect(0, "mtu 1300");
    said.expect(0, "stop\texit");
    for line in ["  + netns ", "  + link v in netns ", "  + route 10.62.0.0/16 via 10.60.0.9"] {
        assert!(said.out.contains(line), "{line:?} in {said:?}");
    }
    let said = room.run(&["check", "--json", "play.lua"]);
    said.expect(0, "");
    let data = said.out.lines().last().expect("a line of data");
    let data: serde_json::Value = serde_json::from_str(data).expect("it is JSON");
    assert_eq!(data["counts"]["link"], 2, "{data}");
    assert_eq!(seen(), before);
    assert_eq!(room.namespaces(), std::slice::from_ref(&theirs));
    let link =
        Command::new("ip").args(["-n", &theirs, "link", "show", "up0"]).output().expect("ip");
    assert!(String::from_utf8_lossy(&link.stdout).contains("mtu 1350"));
    assert_eq!(room.left(), [""; 0]);
}

#[test]
fn errors_have_their_line() {
    let room = Room::new();
    room.script("wrong", "local a = cnf.netns.new('PREFIXa')\na:link('eth7')");
    let said = room.run(&["check", "wrong.lua"]);
    said.expect(1, "wrong.lua:3");
    said.expect(1, "ENODEV");
    assert_eq!(room.namespaces(), [""; 0]);
    room.run(&["check", "nowhere.lua"]).expect(2, "no such file");
    room.script("task", "cnf.task.spawn(function() error('in a task') end)");
    room.run(&["check", "task.lua"]).expect(1, "in a task");
}

#[test]
fn against_a_running_instance() {
    let room = Room::new();
    let text = "
local a = cnf.netns.new('PREFIXa')
local v = cnf.link.veth { name = 'v', netns = a, mtu = 1400, peer = { name = 'w', netns = a } }
";
    room.up("live", text);
    let other =
        room.script("other", &format!("{}cnf.netns.new('PREFIXb')", text.replace("1400", "1300")));
    let said = room.run(&["check", "--against", "live", other.to_str().expect("text")]);
    said.expect(0, "would have created 1, changed 1, kept 2\n  + netns ");
    assert_eq!(room.namespaces().len(), 1, "nothing was applied");
    assert_eq!(room.status("live")["generation"], 1);
    room.script("other", "error('no')");
    room.run(&["check", "--against", "live", "other.lua"]).expect(1, "no");
    room.run(&["check", "--against", "gone", "other.lua"]).expect(1, "no such instance");
    room.run(&["reload", "live"]).expect(0, "reload 2: kept 3");
}

#[test]
fn what_an_instance_of_the_script_has_made_does_not_stand_in_its_way() {
    let _alone = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let room = Room::new();
    let text = "
local a = cnf.netns.new('PREFIXa')
cnf.link.veth { name = 'PREFIXv', address = '10.63.0.1/24', peer = { name = 'w', netns = a } }
cnf.netns.get('PREFIXa'):link('w'):add_address('10.63.0.2/24')
";
    let rehearse = |hint: &str| {
        let said = room.run(&["check", "play.lua"]);
        said.expect(0, "play.lua would create 1 address, 2 links, 1 netns\n");
        said.expect(0, hint);
        said
    };
    room.up("play", text);
    rehearse("hint: play runs this script: cnfscript check --against play play.lua shows");
    // Of another script the names are somebody else's.
    room.script("other", text);
    room.run(&["check", "other.lua"]).expect(1, "a namespace of that name exists already (EEXIST)");
    room.kill("play");
    assert!(!rehearse("").err.contains("hint"), "nothing runs that could be compared with");
    room.run(&["clean", "play"]).expect(0, "removed 1 address, 2 links, 1 netns");
}
