//! A load that takes away what it needs itself: a route through a link that it makes no more, by a gateway whose subnet goes.
//! It is refused with the line that needs it, and nothing has changed; one that has another way is not.

mod room;

use room::*;

/// What every script begins with: two pairs from one namespace into another.
const BEGIN: &str = "
local a, b = cnf.netns.new('PREFIXa'), cnf.netns.new('PREFIXb')
local function pair(n, address)
  return (cnf.link.veth { name = 'v' .. n, netns = a, address = address,
    peer = { name = 'w' .. n, netns = b } })
end
local V4, V6 = '10.0.0.1/24', 'fd00::1/64'
local v1
";
/// A pair that no script gives up.
const STAYS: &str = "local v2 = pair(2, { '10.0.2.1/24', 'fd02::1/64' })\n";
const V1: &str = "v1 = pair(1, { V4, V6 })\n";
const VIA: &str = "a:route { dst = '10.1.0.0/16', via = '10.0.0.2' }\n";
const VIA6: &str = "a:route { dst = 'fd10::/64', via = 'fd00::2' }\n";

fn script(lines: &[&str]) -> String {
    [&[BEGIN, STAYS], lines].concat().concat()
}

const INVALID: &str = "netns:route(10.1.0.0/16 via 10.0.0.2): network is unreachable: Nexthop has invalid gateway (ENETUNREACH)";
const INVALID6: &str = "netns:route(fd10::/64 via fd00::2): no route to host (EHOSTUNREACH)";
const GIVEN_UP: &str = "was made by the load before, and the script does not make it any more";

/// What runs, what does not take its place, and why.
fn refused() -> Vec<(Vec<&'static str>, Vec<&'static str>, &'static str)> {
    let lost = "v1 = a:link('v1')\n";
    let added = "v1 = pair(1) v1:add_address(V4) v1:add_address(V6)\n";
    let bare = "v1 = pair(1)\n";
    let dev = "a:route { dst = '10.1.0.0/16', dev = 'v1' }\n";
    let hops = "a:route { dst = '10.1.0.0/16', nexthops = { { via = '10.0.2.2' }, { via = '10.0.0.2' } } }\n";
    let hops_dev = "a:route { dst = '10.1.0.0/16', nexthops = { { via = '10.0.2.2' }, { dev = a:link('v1') } } }\n";
    let hops6 =
        "a:route { dst = 'fd10::/64', nexthops = { { via = 'fd02::2' }, { via = 'fd00::2' } } }\n";
    let src = "a:route { dst = '10.1.0.0/16', via = '10.0.2.2', src = '10.0.0.1' }\n";
    let via_dev = "a:route { dst = '10.1.0.0/16', via = '10.0.0.2', dev = v1 }\n";
    let neigh = "a:neigh { dst = '10.0.0.9', lladdr = '02:00:00:00:00:09', dev = 'v1' }\n";
    let onlink = "a:route { dst = '10.1.0.0/16', via = '10.9.0.1', dev = 'v1', onlink = true }\n";
    let local = "a:route { dst = 'fd10::/64', via = 'fe80::9', dev = 'v1' }\n";
    let unchanged = |first, second, why| (first, second, why);
    vec![
        unchanged(vec![V1, VIA], vec![VIA], INVALID),
        unchanged(vec![V1, VIA6], vec![VIA6], INVALID6),
        unchanged(vec![added, VIA], vec![bare, VIA], INVALID),
        unchanged(vec![added, VIA6], vec![bare, VIA6], INVALID6),
        unchanged(vec![V1, VIA], vec![bare, VIA], INVALID),
        unchanged(vec![V1, VIA6], vec![bare, VIA6], INVALID6),
        unchanged(vec![added, via_dev], vec![bare, via_dev], INVALID),
        unchanged(vec![V1, dev], vec![dev], "the link goes with this load (ENODEV)"),
        unchanged(vec![V1, onlink], vec![onlink], "the link goes with this load (ENODEV)"),
        unchanged(vec![V1, local], vec![local], "the link goes with this load (ENODEV)"),
        unchanged(vec![V1, hops], vec![hops], "Nexthop has invalid gateway (ENETUNREACH)"),
        unchanged(vec![V1, hops6], vec![hops6], "no route to host (EHOSTUNREACH)"),
        unchanged(vec![V1, hops_dev], vec![hops_dev], "the link goes with this load (ENODEV)"),
        unchanged(vec![V1, src], vec![src], "Invalid prefsrc address (EINVAL)"),
        unchanged(vec![V1, neigh], vec![neigh], "netns:neigh(10.0.0.9 dev v1): the link goes"),
        unchanged(
            vec![V1, lost, "v1:set { mtu = 1400 }\n"],
            vec![lost, "v1:set { mtu = 1400 }\n"],
            "link:set(v1): the link goes with this load (ENODEV)",
        ),
        // What was not there before: asked for in the same load.
        unchanged(vec![V1], vec![VIA], INVALID),
        unchanged(
            vec![V1],
            vec![lost, "v1:add_address('10.4.0.1/24')\n"],
            "link:add_address(v1): ",
        ),
    ]
}

#[test]
fn a_load_that_takes_away_what_it_needs_is_refused() {
    let room = Room::new();
    for (first, second, why) in refused() {
        room.up("way", &script(&first));
        let all = [
            "-brief link",
            "-o addr show scope global",
            "route",
            "-6 route",
            "neigh show nud permanent",
        ];
        let see = || all.map(|words| room.ip("a", words));
        let before = see();
        let text = script(&second);
        // The line that asks: the last one.
        let place = format!("way.lua:{}\n", text.lines().count() + 1);
        let said = room.reload("way", &text);
        said.expect(1, why);
        said.expect(1, GIVEN_UP);
        said.expect(1, &place);
        said.expect(1, second.last().expect("a line").trim());
        assert_eq!(see(), before, "{second:?}");
        let said = room.run(&["check", "--against", "way", "way.lua"]);
        said.expect(1, why);
        said.expect(1, &place);
        // Fewer words, fewer needs; and the script as it was is as it was.
        room.reload("way", &script(&first)).expect(0, "reload 2: kept ");
        room.run(&["down", "way"]).expect(0, "is down");
    }
}

#[test]
fn a_namespace_that_is_made_no_more_is_not_looked_up() {
    let room = Room::new();
    room.up("way", &script(&[V1, VIA]));
    let text = script(&[V1, VIA]).replace("cnf.netns.new('PREFIXa')", "cnf.netns.get('PREFIXa')");
    let said = room.reload("way", &text);
    said.expect(1, "the namespace goes with this load (ENODEV)");
    said.expect(1, &format!("netns {}a {GIVEN_UP}", room.prefix));
    said.expect(1, "way.lua:12");
    assert!(room.ip("a", "route").contains("10.1.0.0/16 via 10.0.0.2"));
    room.reload("way", &script(&[V1, VIA])).expect(0, "reload 2: kept ");
}

#[test]
fn an_address_that_goes_into_its_links_entry_comes_back_with_a_refusal() {
    let room = Room::new();
    let added = script(&["v1 = pair(1) v1:add_address(V4)\n", VIA]);
    let bad = "a:route { dst = '10.7.0.0/16', via = '10.99.0.1' }\n";
    room.up("way", &added);
    room.reload("way", &script(&["v1 = pair(1, V4)\n", VIA, bad])).expect(1, "way.lua:");
    assert!(room.ip("a", "route").contains("10.1.0.0/16 via 10.0.0.2"));
    room.reload("way", &added).expect(0, "reload 2: kept ");
    room.reload("way", &script(&["v1 = pair(1, V4)\n", VIA])).expect(0, "reload 3: kept ");
    assert!(room.ip("a", "route").contains("10.1.0.0/16 via 10.0.0.2"));
}

/// What a valid load does with the way of a kept route.
fn accepted() -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let added = "v1 = pair(1) v1:add_address(V4) v1:add_address(V6)\n";
    let other = "v1 = pair(3, { V4, V6 })\n";
    let second = "v1 = pair(1, { V4, V6, '10.0.0.7/24', 'fd00::7/64' })\n";
    let only_second = "v1 = pair(1, { '10.0.0.7/24', 'fd00::7/64' })\n";
    let wider = "v1 = pair(1, { '10.0.0.9/16', 'fd00::9/48' })\n";
    let bridge = "v1 = cnf.link.bridge { name = 'v1', netns = a, address = { V4, V6 } }\n";
    let later = "v1 = pair(1) v2:add_address(V4) v2:add_address(V6)\n";
    let on = "a:route { dst = '10.0.0.0/23', dev = v2 } a:route { dst = 'fd00::/63', dev = v2 }\n";
    let moved = "a:route { dst = '10.1.0.0/16', via = '10.0.2.2' } a:route { dst = 'fd10::/64', via = 'fd02::2' }\n";
    let hops = "a:route { dst = '10.1.0.0/16', nexthops = { { via = '10.0.2.2' }, { via = '10.0.0.2' } } }\n";
    let hop = "a:route { dst = '10.1.0.0/16', nexthops = { { via = '10.0.2.2' }, { via = '10.0.2.3' } } }\n";
    let own = "a:route { dst = '10.1.0.0/16', via = '10.0.0.1' }\n";
    let local = "a:route { dst = 'fd10::/64', via = 'fe80::9', dev = v2 }\n";
    let onlink = "a:route { dst = '10.1.0.0/16', via = '10.0.0.2', dev = v2, onlink = true }\n";
    let src = "a:route { dst = '10.1.0.0/16', via = '10.0.2.2', src = '10.0.0.1' }\n";
    let black = "a:route { dst = '10.1.0.0/16', type = 'blackhole' }\n";
    let router = |links: &'static str| -> &'static str {
        match links {
            "both" => {
                "cnf.policy.router { name = 'edge', attach = { { v1, 'egress' }, { v2, 'egress' } }, default = { action = 'pass' } }\n"
            }
            _ => {
                "cnf.policy.router { name = 'edge', attach = { { v2, 'egress' } }, default = { action = 'pass' } }\n"
            }
        }
    };
    vec![
        // Another link, another place on it, another of the subnet, a larger subnet.
        (vec![V1, VIA, VIA6], vec![other, VIA, VIA6]),
        (vec![V1, VIA, VIA6], vec![later, VIA, VIA6]),
        (vec![V1, VIA, VIA6], vec![only_second, VIA, VIA6]),
        (vec![second, VIA, VIA6], vec![only_second, VIA, VIA6]),
        (vec![added, VIA, VIA6], vec![only_second, VIA, VIA6]),
        (vec![V1, VIA, VIA6], vec![wider, VIA, VIA6]),
        // The same addresses, said with the link or after it.
        (vec![added, VIA, VIA6], vec![V1, VIA, VIA6]),
        (vec![V1, VIA, VIA6], vec![added, VIA, VIA6]),
        (vec![V1, VIA, VIA6], vec![bridge, VIA, VIA6]),
        // The way is a route, or the route goes another way, or needs none.
        (vec![V1, VIA, VIA6], vec![on, VIA, VIA6]),
        (vec![V1, VIA, VIA6], vec![moved]),
        (vec![V1, hops], vec![hop]),
        (vec![V1, hops], vec![other, hops]),
        (vec![V1, local], vec![local]),
        (vec![V1, onlink], vec![onlink]),
        (vec![V1, own], vec![other, own]),
        (vec![V1, src], vec![other, src]),
        (vec![V1, black], vec![black]),
        (vec![V1, VIA], vec![V1]),
        (vec![V1, VIA], vec![]),
        // What is attached to several links gives one up.
        (vec![V1, router("both")], vec![router("one")]),
    ]
}

#[test]
fn a_load_that_has_another_way_is_not_refused() {
    let room = Room::new();
    for (first, second) in accepted() {
        room.up("way", &script(&first));
        let said = room.reload("way", &script(&second));
        said.expect(0, "reload 2: ");
        assert!(!said.out.contains("  ! "), "{first:?} {second:?} {said:?}");
        let seen = || [room.ip("a", "route"), room.ip("a", "-6 route show proto boot")];
        let reloaded = seen();
        assert!(!said.err.contains("warning"), "{said:?}");
        room.run(&["reload", "way"]).expect(0, "reload 3: kept ");
        // As a first load of the same makes it.
        room.run(&["down", "way"]).expect(0, "is down");
        room.up("way", &script(&second));
        let sorted = |all: [String; 2]| {
            all.map(|text| {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            })
        };
        assert_eq!(sorted(reloaded), sorted(seen()), "{first:?} {second:?}");
        room.run(&["down", "way"]).expect(0, "is down");
    }
}
