//! Routes of a script where the kernel's own stand, which it makes for the subnet of an address: refused while the address is
//! there, put in its place when the address goes with the same load.

#[path = "room/monitor.rs"]
mod monitor;
mod room;

use monitor::Monitor;
use room::*;

const BEGIN: &str = "
local a, b = cnf.netns.new('PREFIXa'), cnf.netns.new('PREFIXb')
local function pair(n, address)
  return (cnf.link.veth { name = 'v' .. n, netns = a, address = address,
    peer = { name = 'w' .. n, netns = b } })
end
local v2 = pair(2, { '10.0.2.1/24', 'fd02::1/64' })
local V4, V6, MORE = '10.0.0.1/24', 'fd00::1/64', '10.0.0.7/24'
";
const ADDED: &str = "local v1 = pair(1) v1:add_address(V4) v1:add_address(V6)\n";
const BUILT: &str = "local v1 = pair(1, { V4, V6 })\n";
const BARE: &str = "local v1 = pair(1)\n";
const ROUTE: &str = "a:route { dst = '10.0.0.0/24', dev = v2 }\n";
const BAD: &str = "a:route { dst = '10.7.0.0/16', via = '10.99.0.1' }\n";

fn script(lines: &[&str]) -> String {
    [&[BEGIN], lines].concat().concat()
}

fn see(room: &Room) -> Vec<String> {
    let all = ["route show table all", "-6 route show table main", "-o addr show scope global"];
    let all = all.map(|words| room.ip("a", words)).concat();
    // Each link has a number of its own.
    let bare = |line: &str| line.split_once(": ").map_or(line, |(_, rest)| rest).to_owned();
    let mut lines: Vec<String> = all.lines().map(bare).collect();
    lines.retain(|line| !line.contains("multicast") && !line.contains("fe80::"));
    lines.sort();
    lines
}

/// What runs, and what takes its place.
fn valid() -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let on = "a:route { dst = '10.0.0.0/24', dev = v1 }\n";
    let via = "a:route { dst = '10.0.0.0/24', via = '10.0.2.2' }\n";
    let none = "a:route { dst = '10.0.0.0/24', type = 'blackhole' }\n";
    let zero = "a:route { dst = '10.0.0.0/24', dev = v2, metric = 0 }\n";
    let six = "a:route { dst = 'fd00::/64', dev = v2, metric = 256 }\n";
    let six_on = "a:route { dst = 'fd00::/64', dev = v1, metric = 256 }\n";
    let six_via = "a:route { dst = 'fd00::/64', via = 'fd02::2', metric = 256 }\n";
    let other = "local v1 = pair(3)\n";
    let both = "local v1 = pair(1, { V4, MORE })\n";
    let half = "local v1 = pair(1, { MORE }) v1:add_address(V4)\n";
    let mut all = Vec::new();
    for first in [ADDED, BUILT] {
        for route in [ROUTE, on, via, none, zero, six, six_on, six_via] {
            all.push((vec![first], vec![BARE, route]));
        }
        // The link goes, and the route is asked for before the link is.
        all.push((vec![first], vec![ROUTE]));
        all.push((vec![first], vec![other, on]));
        all.push((vec![first], vec![ROUTE, BARE]));
    }
    // The whole subnet goes.
    all.push((vec![both], vec![BARE, ROUTE]));
    all.push((vec![half], vec![BARE, ROUTE]));
    all
}

#[test]
fn it_takes_the_place_of_one_that_goes_with_its_address() {
    let room = Room::new();
    for (first, second) in valid() {
        room.up("own", &script(&first));
        let before = see(&room);
        // A refusal leaves the kernel's route as it was.
        let text = script(&[&second[..], &[BAD]].concat());
        room.reload("own", &text).expect(1, "Nexthop has invalid gateway (ENETUNREACH)");
        assert_eq!(see(&room), before, "{first:?} {second:?}");
        let said = room.reload("own", &script(&second));
        said.expect(0, "reload 2: created ");
        assert!(!said.out.contains("  ! ") && !said.err.contains("warning"), "{said:?}");
        let reloaded = see(&room);
        room.run(&["reload", "own"]).expect(0, "reload 3: kept ");
        // And back.
        room.reload("own", &script(&first)).expect(0, "reload 4: ");
        assert_eq!(see(&room), before, "{first:?} {second:?}");
        room.run(&["down", "own"]).expect(0, "is down");
        // As a first load of the same makes it.
        room.up("own", &script(&second));
        assert_eq!(reloaded, see(&room), "{first:?} {second:?}");
        room.run(&["down", "own"]).expect(0, "is down");
    }
}

#[test]
fn there_is_always_one_of_the_two() {
    let room = Room::new();
    for (first, second) in [(ADDED, vec![BARE, ROUTE]), (BUILT, vec![ROUTE, BARE])] {
        room.up("own", &script(&[first]));
        let monitor = Monitor::start(&room, "a");
        room.reload("own", &script(&second)).expect(0, "reload 2: created 1");
        let heard = monitor.stop();
        assert!(heard.contains("10.0.0.0/24 dev v2 scope link"), "{heard}");
        assert!(!heard.contains("Deleted 10.0.0.0/24"), "{heard}");
        room.run(&["down", "own"]).expect(0, "is down");
    }
}

#[test]
fn one_that_stays_is_in_the_way() {
    let room = Room::new();
    let only = "local v1 = pair(1, { MORE })\n";
    let kept = "local v1 = pair(1) v1:add_address(MORE)\n";
    let both = "local v1 = pair(1, { V4, MORE })\n";
    let theirs = "local v1 = pair(1, V4) v2:add_address('10.0.0.9/24')\n";
    let bare = "local v1 = pair(1) v2:add_address('10.0.0.9/24')\n";
    for (first, second) in [(BUILT, BUILT), (both, only), (both, kept), (theirs, bare)] {
        room.up("own", &script(&[first]));
        let before = see(&room);
        let said = room.reload("own", &script(&[second, ROUTE]));
        said.expect(1, "netns:route(10.0.0.0/24): ");
        said.expect(1, "(EEXIST)");
        assert_eq!(see(&room), before, "{first:?} {second:?}");
        room.run(&["down", "own"]).expect(0, "is down");
    }
}

#[test]
fn one_that_cannot_go_is_refused_where_it_is_asked_for() {
    let room = Room::new();
    let theirs = "10.8.0.0/24 dev v2";
    let by_new = "local v1 = pair(1)\n
        local ok, why = pcall(a.route, a, { dst = '10.8.0.0/24', dev = v1 }) print(ok, why and why.code)\n";
    room.up("own", &script(&[""]));
    room.ip("a", &format!("route add {theirs}"));
    room.reload("own", &script(&[by_new])).expect(0, "reload 2: created 2");
    room.run(&["logs", "own"]).expect(0, "false\tEEXIST");
    assert!(room.ip("a", "route show").contains(theirs), "it is as it was");
    room.run(&["down", "own"]).expect(0, "is down");
}

#[test]
fn the_metric_that_a_route_has_anyway_is_none() {
    let room = Room::new();
    let four = |metric: &str| format!("a:route {{ dst = '10.7.0.0/24', dev = v2{metric} }}\n");
    let six = |metric: &str| format!("a:route {{ dst = 'fd07::/64', dev = v2{metric} }}\n");
    room.up("own", &script(&[&four(""), &six("")]));
    let said = [(", metric = 0", ", metric = 1024"), ("", ", metric = 0"), (", metric = 0", "")];
    for (number, (first, second)) in said.into_iter().enumerate() {
        let text = script(&[&four(first), &six(second)]);
        room.reload("own", &text).expect(0, &format!("reload {}: kept ", number + 2));
    }
    room.run(&["down", "own"]).expect(0, "is down");
}
