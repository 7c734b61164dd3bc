//! Addresses through reloads. Those that a script says elsewhere, with the link's constructor or by themselves, stay where they
//! are: the kernel is told nothing, and nobody is told that they go. Those that go do so when all else is there.

#[path = "room/monitor.rs"]
mod monitor;
mod room;

use monitor::Monitor;
use nix::sys::signal::Signal;
use room::*;
use serde_json::json;

const BEGIN: &str = "
local a, b = cnf.netns.new('PREFIXa'), cnf.netns.new('PREFIXb')
local function pair(address, mtu)
  return cnf.link.veth { name = 'v1', netns = a, address = address, mtu = mtu,
    peer = { name = 'w1', netns = b, address = { '10.0.0.2/24', 'fd00::2/64' }, mtu = mtu } }
end
local V4, V6, MORE = '10.0.0.1/24', 'fd00::1/64', '10.0.0.7/24'
";
const VIA: &str = "
a:route { dst = '10.1.0.0/16', via = '10.0.0.2' }
a:route { dst = 'fd10::/64', via = 'fd00::2' }
";
const BAD: &str = "a:route { dst = '10.7.0.0/16', via = '10.99.0.1' }\n";

fn script(links: &str) -> String {
    format!("{BEGIN}{links}{VIA}")
}

/// The same addresses, said in other words.
const SAYINGS: [&str; 4] = [
    "local v1 = pair { V4, V6, MORE }",
    "local v1 = pair() v1:add_address(V4) v1:add_address(V6) v1:add_address(MORE)",
    "local v1 = pair { V4 } v1:add_address(V6) v1:add_address(MORE)",
    "local v1 = pair { MORE, V6 } v1:add_address(V4)",
];

fn see(room: &Room) -> [String; 3] {
    ["-o addr show scope global", "route", "-6 route"].map(|words| room.ip("a", words))
}

fn count(room: &Room, name: &str) -> u64 {
    let owns = &room.status(name)["owns"];
    owns.as_object().expect("counts").values().filter_map(serde_json::Value::as_u64).sum()
}

#[test]
fn the_kernel_is_told_nothing_of_an_address_that_is_said_elsewhere() {
    let room = Room::new();
    for first in SAYINGS {
        for second in SAYINGS.iter().filter(|second| **second != first) {
            room.up("same", &script(first));
            let before = see(&room);
            room.script("same", &script(second));
            let rehearsed = room.run(&["check", "--against", "same", "same.lua"]);
            let monitor = Monitor::start(&room, "a");
            let said = room.run(&["reload", "same"]);
            assert_eq!(monitor.stop(), "", "{first} {second}");
            let owned = count(&room, "same");
            said.expect(0, &format!("reload 2: kept {owned} in "));
            assert_eq!(said.out.lines().count(), 1, "{first} {second} {said:?}");
            rehearsed.expect(0, &format!("kept {owned}"));
            for sign in ["  + ", "  ~ ", "  - "] {
                assert!(!rehearsed.out.contains(sign), "{first} {second} {rehearsed:?}");
            }
            assert_eq!(see(&room), before);
            // As data, and as often as one likes.
            let difference = room.difference("same");
            for kind in ["created", "changed", "deleted", "lost"] {
                assert_eq!(difference[kind], json!([]), "{first} {second} {difference}");
            }
            assert_eq!(difference["kept"], owned, "{first} {second}");
            let back = room.turn("same", &script(first));
            for kind in ["created", "changed", "deleted", "lost"] {
                assert_eq!(back[kind], json!([]), "{first} {second} {back}");
            }
            assert_eq!(see(&room), before);
            room.run(&["down", "same"]).expect(0, "is down");
        }
    }
}

#[test]
fn what_else_a_load_changes_is_told_alone() {
    let room = Room::new();
    room.up("more", &script("local v1 = pair { V4, V6 }"));
    let second = "local v1 = pair({ V4 }, 1400) v1:add_address(V6) v1:add_address(MORE)";
    let difference = room.turn("more", &script(second));
    let end = |name: &str, netns: &str| format!("link {name} in netns {}{netns}", room.prefix);
    let address = format!("address 10.0.0.7/24 on v1 in netns {}a", room.prefix);
    assert_eq!(difference["created"], json!([address]));
    assert_eq!(difference["changed"], json!([end("v1", "a"), end("w1", "b")]));
    assert_eq!(difference["deleted"], json!([]));
    let difference = room.turn("more", &script("local v1 = pair { V4, V6 }"));
    assert_eq!(difference["created"], json!([]));
    assert_eq!(difference["changed"], json!([end("v1", "a"), end("w1", "b")]));
    assert_eq!(difference["deleted"], json!([address]));
    assert!(!room.ip("a", "-o addr").contains("10.0.0.7"));
}

#[test]
fn a_refused_load_leaves_each_address_where_it_was_said() {
    let room = Room::new();
    for first in SAYINGS {
        for second in SAYINGS.iter().filter(|second| **second != first) {
            room.up("no", &script(first));
            let (before, owned) = (see(&room), count(&room, "no"));
            room.reload("no", &(script(second) + BAD)).expect(1, "no.lua:");
            assert_eq!((see(&room), count(&room, "no")), (before, owned), "{first} {second}");
            room.reload("no", &script(first)).expect(0, &format!("reload 2: kept {owned} in "));
            // Said no more, they go.
            let bare = format!("{BEGIN} pair()");
            room.reload("no", &bare).expect(0, "  - route 10.1.0.0/16");
            assert!(!room.ip("a", "-o addr show scope global").contains("v1"), "{first} {second}");
            room.run(&["down", "no"]).expect(0, "is down");
        }
    }
}

#[test]
fn the_process_after_a_killed_one_hands_over_too() {
    let room = Room::new();
    room.up("dead", &script(SAYINGS[0]));
    for second in [SAYINGS[1], SAYINGS[3], SAYINGS[0]] {
        let before = see(&room);
        room.signal("dead", Signal::SIGKILL);
        eventually(|| room.status("dead")["state"] == "dead");
        let monitor = Monitor::start(&room, "a");
        room.up("dead", &script(second));
        assert_eq!(monitor.stop(), "", "{second}");
        assert_eq!(see(&room), before);
    }
    room.run(&["down", "dead"]).expect(0, "is down");
}

#[test]
fn an_address_is_not_taken_before_all_is_made() {
    let room = Room::new();
    for first in SAYINGS {
        room.up("late", &script(first));
        let monitor = Monitor::start(&room, "a");
        let second = format!("{BEGIN}local v1 = pair()\n{BAD}");
        room.reload("late", &second).expect(1, "late.lua:");
        assert_eq!(monitor.stop(), "", "{first}");
        room.run(&["down", "late"]).expect(0, "is down");
    }
}

#[test]
fn an_ipv6_address_gets_another_prefix() {
    let room = Room::new();
    let sayings = |cidr: &str| {
        [
            "local v1 = pair { V4, 'fd00::1/64' }",
            "local v1 = pair { V4 } v1:add_address('fd00::1/64')",
        ]
        .map(|text| {
            script(text).replace("'fd00::1/64' }", "CIDR }").replace("('fd00::1/64')", "(CIDR)")
        })
        .map(|text| text.replace("CIDR", &format!("'{cidr}'")))
    };
    for first in sayings("fd00::1/64") {
        for second in sayings("fd00::1/48") {
            room.up("wide", &first);
            let before = see(&room);
            room.reload("wide", &format!("{second}{BAD}")).expect(1, "wide.lua:");
            assert_eq!(see(&room), before, "{first} {second}");
            room.reload("wide", &second).expect(0, "reload 2: ");
            let after = see(&room);
            assert!(
                after[0].contains("fd00::1/48") && !after[0].contains("fd00::1/64"),
                "{after:?}"
            );
            assert!(after[2].contains("fd10::/64 via fd00::2"), "{after:?}");
            room.reload("wide", &second).expect(0, "reload 3: kept ");
            room.reload("wide", &first).expect(0, "reload 4: ");
            assert_eq!(see(&room), before, "{first} {second}");
            room.run(&["down", "wide"]).expect(0, "is down");
        }
    }
}

#[test]
fn a_link_that_is_refused_an_address_keeps_its_settings() {
    let room = Room::new();
    room.up("twice", &script("local v1 = pair() v1:add_address(V4) v1:add_address(V6)"));
    let before = (see(&room), room.ip("a", "-o link"));
    let second =
        script("local v1 = pair({ MORE, V4 }, 1400) v1:add_address(V4) v1:add_address(V6)");
    room.reload("twice", &second).expect(1, "(EEXIST)");
    assert_eq!((see(&room), room.ip("a", "-o link")), before);
}

#[test]
fn a_process_that_dies_while_it_hands_over_leaves_them_where_they_are() {
    let room = Room::new();
    let up = |words: &[&str], die_at: u64| -> Said {
        let mut command = room.command(words);
        command.env("CNFSCRIPT_DIE_AT", die_at.to_string()).output().expect("it starts").into()
    };
    let (first, second) = (script(SAYINGS[2]), script(SAYINGS[3]));
    let mut deaths = 0;
    // The steps of the first load are not what this is about.
    let mut step = 1;
    loop {
        room.script("step", &first);
        if up(&["up", "step.lua"], step).status != 0 {
            room.run(&["clean", "step"]);
            step += 1;
            continue;
        }
        let before = see(&room);
        let done = room.reload("step", &second).status == 0;
        if done {
            break;
        }
        deaths += 1;
        eventually(|| room.status("step")["state"] == "dead");
        // Either script can come next.
        let (next, owned) = if step % 2 == 0 { (&first, 8) } else { (&second, 7) };
        let monitor = Monitor::start(&room, "a");
        room.up("step", next);
        assert_eq!(monitor.stop(), "", "{step}");
        assert_eq!(see(&room), before, "{step}");
        room.reload("step", next).expect(0, &format!("reload 2: kept {owned} in "));
        room.run(&["down", "step"]).expect(0, "is down");
        step += 1;
    }
    assert!(deaths > 3, "{deaths}");
}

#[test]
fn an_address_that_is_said_and_deleted_is_not_there() {
    let room = Room::new();
    let here = ["local v1 = pair { V4 }", "local v1 = pair() v1:add_address(V4)"];
    let gone = [
        "local v1 = pair()",
        "local v1 = pair { V4 } v1:delete_address(V4)",
        "local v1 = pair() v1:add_address(V4) v1:delete_address(V4)",
    ];
    let all = || here.map(|text| (text, true)).into_iter().chain(gone.map(|text| (text, false)));
    for (first, _) in all() {
        for (second, is_there) in all().filter(|(second, _)| *second != first) {
            room.up("del", &format!("{BEGIN}{first}"));
            room.reload("del", &format!("{BEGIN}{second}")).expect(0, "reload 2: ");
            let there = || room.ip("a", "-o addr show dev v1").contains("10.0.0.1/24");
            assert_eq!(there(), is_there, "{first} => {second}");
            let same = room.difference("del");
            for kind in ["created", "changed", "deleted", "lost"] {
                assert_eq!(same[kind], json!([]), "{first} => {second} {same}");
            }
            assert_eq!(there(), is_there, "{first} => {second}");
            room.run(&["down", "del"]).expect(0, "is down");
        }
    }
}
