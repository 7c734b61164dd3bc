//! Hot reload from outside: what it creates, changes, keeps and deletes; what a load that fails leaves: nothing.

#[path = "room/monitor.rs"]
mod monitor;
mod room;

use std::process::Command;
use std::time::{Duration, Instant};

use monitor::Monitor;
use nix::sys::signal::Signal;
use room::*;
use serde_json::json;

const NET: &str = "
local a, b = cnf.netns.new('PREFIXa'), cnf.netns.new('PREFIXb')
local v, w = cnf.link.veth { name = 'v0', netns = a, address = '10.0.0.1/24', mtu = 1400,
  peer = { name = 'w0', netns = b, address = '10.0.0.2/24' } }
a:route { dst = '10.1.0.0/16', via = '10.0.0.2' }
a:rule { from = '10.5.0.0/16', table = 100, priority = 500 }
a:neigh { dst = '10.0.0.9', lladdr = '02:00:00:00:00:09', dev = v }
a:sysctl('net.ipv4.ip_forward', 1)
v:add_address('10.0.7.1/24')
v:set { txqueuelen = 500 }
v:set { alias = 'mine' }
";

#[test]
fn an_unchanged_script_changes_nothing() {
    let room = Room::new();
    room.up("same", NET);
    let see = || {
        let words = ["-o addr", "-o link", "route", "rule", "neigh show nud permanent"];
        words.map(|words| room.ip("a", words))
    };
    let before = see();
    // Whatever the kernel is told in the namespace, this hears.
    let monitor = Monitor::start(&room, "a");
    for generation in 2..5 {
        let difference = room.difference("same");
        assert_eq!(difference["generation"], generation);
        for kind in ["created", "changed", "deleted"] {
            assert_eq!(difference[kind], json!([]), "{difference}");
        }
        assert_eq!(difference["kept"], 10, "{difference}");
    }
    let heard = monitor.stop();
    assert_eq!(heard, "", "the kernel was told something");
    assert_eq!(see(), before);
}

#[test]
fn what_the_file_says_is_what_there_is() {
    let room = Room::new();
    room.up("diff", NET);
    let index = room.ip("a", "-o link show v0").split(':').next().map(str::to_owned);
    let text = NET
        .replace("mtu = 1400", "mtu = 1300")
        .replace("10.1.0.0/16', via = '10.0.0.2'", "10.1.0.0/16', via = '10.0.0.7'")
        .replace("v:add_address('10.0.7.1/24')", "v:add_address('10.0.8.1/24')")
        .replace("v:set { txqueuelen = 500 }", "")
        .replace("ip_forward', 1", "ip_forward', 0")
        + "cnf.netns.new('PREFIXc')";
    let said = room.reload("diff", &text);
    said.expect(0, "reload 2: created 2, changed 4, deleted 1, kept 5 in ");
    for line in [
        "  + netns ",
        "  + address 10.0.8.1/24 on v0",
        "  ~ link v0",
        "  ~ route 10.1.0.0/16 via 10.0.0.7",
        "  ~ sysctl net.ipv4.ip_forward",
        "  ~ settings of link v0",
        "  - address 10.0.7.1/24 on v0",
    ] {
        assert!(said.out.contains(line), "{line:?} in {said:?}");
    }
    let link = room.ip("a", "link show v0");
    assert!(link.contains("mtu 1300") && link.contains("qlen 1000"), "{link}");
    assert!(link.contains("alias mine"), "{link}");
    assert_eq!(room.ip("a", "-o link show v0").split(':').next().map(str::to_owned), index);
    let routes = room.ip("a", "route");
    assert!(routes.contains("10.1.0.0/16 via 10.0.0.7") && !routes.contains("via 10.0.0.2"));
    let addresses = room.ip("a", "-o addr show v0");
    assert!(addresses.contains("10.0.8.1/24") && !addresses.contains("10.0.7.1/24"));
    let forward = format!("{}a", room.prefix);
    let forward = Command::new("ip")
        .args(["netns", "exec", &forward, "cat", "/proc/sys/net/ipv4/ip_forward"])
        .output()
        .expect("ip is there");
    assert_eq!(forward.stdout, b"0\n");
    // And back: exactly what there was, except for what the kernel itself counts.
    room.reload("diff", NET).expect(0, "changed 4, deleted 2");
    let link = room.ip("a", "link show v0");
    assert!(link.contains("mtu 1400") && link.contains("qlen 500"), "{link}");
    assert_eq!(room.namespaces().len(), 2);
    room.run(&["down", "diff"]).expect(0, "diff is down");
    assert_eq!(room.namespaces(), [""; 0]);
}

#[test]
fn an_address_makes_room_for_another_of_its_subnet() {
    let room = Room::new();
    let script = |link: u8, added: u8| {
        format!(
            "local a = cnf.netns.new('PREFIXa')
            local v = cnf.link.veth {{ name = 'v0', netns = a, peer = {{ name = 'w0', netns = a }},
              address = {{ '10.0.0.{link}/24', 'fd00::{link}/64' }} }}
            v:add_address('10.0.7.{added}/24')
            a:route {{ dst = '10.1.0.0/16', via = '10.0.0.9' }}"
        )
    };
    room.up("moves", &script(1, 1));
    let addresses = || room.ip("a", "-o addr show v0 to 10.0.0.0/16").matches("inet ").count();
    for (link, added) in [(2, 1), (2, 2), (1, 1), (3, 4)] {
        room.reload("moves", &script(link, added)).expect(0, "reload ");
        for address in [format!("10.0.0.{link}/24"), format!("10.0.7.{added}/24")] {
            let seen = room.ip("a", "addr show v0");
            assert!(seen.contains(&format!("inet {address} scope global v0")), "{address}\n{seen}");
        }
        assert_eq!(addresses(), 2);
        assert!(room.ip("a", "addr show v0").contains(&format!("fd00::{link}/64")));
        assert!(room.ip("a", "route").contains("10.1.0.0/16 via 10.0.0.9 dev v0"));
    }
    let setting = "net.ipv4.conf.v0.promote_secondaries";
    let netns = format!("{}a", room.prefix);
    let sysctl =
        Command::new("ip").args(["netns", "exec", &netns, "sysctl", "-n", setting]).output();
    assert_eq!(sysctl.expect("it is there").stdout, b"0\n");
    // What fails puts the old one back, as the only one.
    room.reload("moves", &(script(5, 6) + "\nerror('no')")).expect(1, "no");
    assert_eq!(addresses(), 2);
    assert!(room.ip("a", "addr show v0").contains("inet 10.0.0.3/24 scope global v0"));
}

#[test]
fn a_load_that_fails_leaves_no_trace() {
    let room = Room::new();
    room.up("fails", &format!("{NET} cnf.state.n = 1"));
    let all = ["-o addr", "-o link", "route", "rule"];
    // Link-local addresses come a moment after their links.
    std::thread::sleep(Duration::from_millis(500));
    let before = all.map(|words| room.ip("a", words));
    let cases = [
        // After half of it.
        ("cnf.netns.new('PREFIXnew') v:set { mtu = 1300 } error('boom')", "fails.lua:13", "boom"),
        ("local x = = 1", "fails.lua:13", "unexpected symbol"),
        ("require 'nowhere'", "require(nowhere)", "there is no such module"),
        // In the commit, after other changes were made.
        (
            "v:set { mtu = 1300 } a:route { dst = '10.1.0.0/16', via = '10.99.0.1' }",
            "netns:route",
            "already",
        ),
        (
            "v:set { mtu = 1300 } a:route { dst = '10.2.0.0/16', via = '10.99.0.1' }",
            "fails.lua:13",
            "ENETUNREACH",
        ),
    ];
    for (line, place, message) in cases {
        let said = room.reload("fails", &format!("{NET}{line}"));
        said.expect(1, message);
        assert!(said.err.contains(place), "{place:?} in {said:?}");
        assert_eq!(all.map(|words| room.ip("a", words)), before, "after {line}");
        assert_eq!(room.namespaces().len(), 2, "after {line}");
    }
    // The generation before goes on, and the next good one follows it.
    assert_eq!(room.status("fails")["generation"], 1);
    room.reload("fails", &format!("{NET} print('state', cnf.state.n)")).expect(0, "reload 2: ");
    assert!(room.log("fails").contains("state\t1"));
}

#[test]
fn state_is_carried_over() {
    let room = Room::new();
    room.up(
        "state",
        "local s = cnf.state s.list = s.list or { deep = { 1, 2 } } table.insert(s.list.deep, #s.list.deep + 1)
        s[1], s.flag, s.big = 0.5, true, math.maxinteger
        for _, bad in ipairs { print, cnf.netns.host(), coroutine.create(print), { inner = { print } } } do
          local ok, err = pcall(function() s.bad = bad end)
          print(ok, err.code, s.bad)
        end
        local loop = {} loop.loop = loop
        print(pcall(function() s.loop = loop end))
        print(select(2, pcall(function() s.text = ('x'):rep(17 << 20) end)).code)
        cnf.task.spawn(function() cnf.task.sleep(1000) end)",
    );
    let log = room.log("state");
    assert_eq!(log.matches("false\tEINVAL\tnil").count(), 4, "{log}");
    assert!(log.contains("loop.loop contains itself"), "{log}");
    assert!(log.contains("ENOSPC"), "{log}");
    let show = "local s = cnf.state
        print('deep', table.concat({ table.unpack(s.list.deep) }, ' '), s[1], s.flag, s.big == math.maxinteger)
        for key in pairs(s) do assert(key) end
        cnf.task.spawn(function() cnf.task.sleep(1000) end)";
    room.reload("state", show).expect(0, "reload 2");
    let log = room.log("state");
    assert!(log.contains("deep\t1 2 3\t0.5\ttrue\ttrue"), "{log}");
    room.reload("state", "cnf.state.list = nil error('no')").expect(1, "no");
    room.reload("state", show).expect(0, "reload 3");
    assert_eq!(room.log("state").matches("deep\t1 2 3").count(), 2);
}

#[test]
fn tasks_pause_and_end_and_handlers_are_told() {
    let room = Room::new();
    let text = "
local a = cnf.netns.new('PREFIXa')
local v = cnf.link.veth { name = 'v', netns = a, peer = { netns = a, name = 'w' } }
local mine = cnf.generation
cnf.on_stop(function(reason)
  local ok, err = pcall(v.down, v)
  print('stop', mine, reason, ok, ok or err.code, v:info().name)
end)
cnf.task.spawn(function() while true do cnf.task.sleep(0.01) print('tick', mine) end end)
";
    room.up("tasks", text);
    eventually(|| room.log("tasks").matches("tick\t1").count() > 3);
    // While the next one loads, no Lua of this one runs.
    let slow = format!("print('begin') cnf.task.sleep(0.3) print('loaded') {text}");
    room.reload("tasks", &slow).expect(0, "kept 3");
    eventually(|| room.log("tasks").matches("tick\t2").count() > 3);
    let log = room.log("tasks");
    let during = &log[log.find("begin").expect("told")..log.find("loaded").expect("told")];
    assert!(!during.contains("tick"), "{during}");
    assert!(log.contains("stop\t1\treload\tfalse\tESTALE\tv"), "{log}");
    let after = &log[log.find("stop\t1").expect("told")..];
    assert!(!after.contains("tick\t1"), "{after}");
    // A load that fails lets them go on.
    let ticks = room.log("tasks").matches("tick\t2").count();
    room.reload("tasks", &format!("{text} error('no')")).expect(1, "no");
    eventually(|| room.log("tasks").matches("tick\t2").count() > ticks + 3);
    assert!(room.log("tasks").contains("stop\t3\terror"));
    room.run(&["down", "tasks"]).expect(0, "down");
}

#[test]
fn a_load_that_does_not_end_is_given_up() {
    let room = Room::new();
    room.script("slow", NET);
    room.run(&["up", "--load-timeout", "0.3", "slow.lua"]).expect(0, "slow is up");
    for hang in ["while true do end", "while true do pcall(error) end", "cnf.task.sleep(100)"] {
        let start = Instant::now();
        let said = room.reload("slow", &format!("{NET}{hang}"));
        said.expect(1, "the script was not set up within 0.3 s (ETIMEDOUT)");
        said.expect(1, "hint: end the set-up with cnf.wait() before what takes long");
        // Where a loop was, whatever of it catches errors.
        if hang.starts_with("while") {
            said.expect(1, "--> slow.lua:");
            said.expect(1, &format!("{hang}\n"));
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{hang}: {:?}", start.elapsed());
    }
    // After cnf.wait() it may take as long as it likes.
    room.reload("slow", &format!("{NET} cnf.wait() cnf.task.sleep(100)")).expect(0, "reload 2");
    assert_eq!(room.status("slow")["generation"], 2);
}

#[test]
fn what_somebody_else_took_away_is_made_again() {
    let room = Room::new();
    room.up("taken", NET);
    room.ip("a", "link delete v0");
    let said = room.run(&["reload", "taken"]);
    said.expect(0, "reload 2: ");
    let log = room.log("taken");
    assert!(log.contains("warning: link v0 in netns"), "{log}");
    assert!(log.contains("was deleted by someone else; it is made again"), "{log}");
    assert!(room.ip("a", "-o addr show v0").contains("10.0.7.1/24"));
    assert!(room.ip("a", "route").contains("10.1.0.0/16 via 10.0.0.2"));
    let name = format!("{}b", room.prefix);
    assert!(Command::new("ip").args(["netns", "delete", &name]).status().expect("ip").success());
    room.run(&["reload", "taken"]).expect(0, "reload 3: ");
    assert_eq!(room.namespaces().len(), 2);
    assert!(room.ip("b", "-o addr show w0").contains("10.0.0.2/24"));
    room.run(&["reload", "taken"]).expect(0, "reload 4: kept 10");
}

#[test]
fn a_route_that_goes_with_what_the_script_does_is_told() {
    let room = Room::new();
    let script = |after: &str| {
        format!(
            "local a = cnf.netns.new('PREFIXa')
            local v = cnf.link.veth {{ name = 'v0', netns = a, address = '10.0.0.1/24', peer = {{ name = 'w0', netns = a }} }}
            a:route {{ dst = '10.1.0.0/16', via = '10.0.0.2' }}
            {after}"
        )
    };
    let routes = || room.ip("a", "route show 10.1.0.0/16");
    room.up("way", &script(""));
    let said = room.reload("way", &script("v:down()"));
    said.expect(0, "reload 2: created 1, kept 4");
    said.expect(0, "! route 10.1.0.0/16 via 10.0.0.2 in netns");
    said.expect(0, "is gone: network is unreachable");
    assert_eq!(routes(), "");
    // Said again, it is as in a first load.
    room.run(&["reload", "way"]).expect(1, "way.lua:4");
    // Nobody says it any more: it does not come back with the link.
    let gone = script("").replace("a:route", "--");
    room.reload("way", &gone).expect(0, "reload 3: deleted 1, kept 3");
    assert_eq!(routes(), "");
    // The link is up again before the route that needs it is made; and is not when the load is refused all the same.
    room.reload("way", &format!("{gone} v:down()")).expect(0, "reload 4: created 1, kept 3");
    let bad = script("a:route { dst = '10.2.0.0/16', via = '10.99.0.1' }");
    room.reload("way", &bad).expect(1, "netns:route(10.2.0.0/16 via 10.99.0.1)");
    assert!(room.ip("a", "link show v0").contains("state DOWN"));
    assert_eq!(routes(), "");
    room.reload("way", &script("")).expect(0, "reload 5: created 1, deleted 1, kept 3");
    assert!(routes().contains("via 10.0.0.2 dev v0"));
}

#[test]
fn a_link_of_another_kind_takes_the_place_of_the_one_before() {
    let room = Room::new();
    let text = "
local a = cnf.netns.new('PREFIXa')
local br = cnf.link.bridge { name = 'br0', netns = a, address = '10.3.0.1/24' }
a:route { dst = '10.4.0.0/16', via = '10.3.0.9' }
";
    room.up("kind", text);
    let veth = text.replace(
        "link.bridge { name = 'br0', netns = a,",
        "link.veth { name = 'br0', netns = a, peer = { netns = a, name = 'far' },",
    );
    room.reload("kind", &veth).expect(0, "link br0: made anew, traffic on it is interrupted");
    assert!(room.ip("a", "-d link show br0").contains("veth"));
    assert!(room.ip("a", "addr show br0").contains("10.3.0.1/24"));
    assert!(room.ip("a", "route").contains("10.4.0.0/16 via 10.3.0.9 dev br0"));
    // When a later step of the commit is refused, the old one stands there again.
    let bad = format!("{text} a:route {{ dst = '10.6.0.0/16', via = '10.77.0.9' }}");
    room.reload("kind", &bad).expect(1, "ENETUNREACH");
    assert!(room.ip("a", "-d link show br0").contains("veth"));
    assert!(room.ip("a", "addr show br0").contains("10.3.0.1/24"));
    assert!(room.ip("a", "route").contains("10.4.0.0/16 via 10.3.0.9 dev br0"));
    room.run(&["down", "kind"]).expect(0, "down");
    assert_eq!(room.namespaces(), [""; 0]);
}

#[test]
fn a_thousand_reloads_leave_nothing() {
    let room = Room::new();
    let text = |n: u32| {
        format!(
            "{NET} v:set {{ group = {} }} a:route {{ dst = '10.50.{}.0/24', via = '10.0.0.2' }}
            cnf.task.every(1, function() end) cnf.state.n = {n}",
            n % 7,
            n % 50
        )
    };
    room.up("many", &text(0));
    let pid = room.pid("many");
    let seen = || {
        let proc =
            |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).expect("alive").count();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is told");
        let rss: u64 = rss.trim().trim_end_matches(" kB").parse().expect("a number");
        (proc("fd"), proc("task"), rss)
    };
    let mut early = (0, 0, 0);
    for n in 1..=1000 {
        if n == 50 {
            early = seen();
        }
        // Every tenth does not load.
        let text = if n % 10 == 0 { format!("{} error('no')", text(n)) } else { text(n) };
        room.reload("many", &text).expect(i32::from(n % 10 == 0), "");
    }
    // The last client's connection may close a moment later.
    eventually(|| seen().0 <= early.0);
    let late = seen();
    assert_eq!(early.1, late.1, "threads");
    assert!(
        late.2 * 100 <= early.2 * 105,
        "kB resident after 50 and after 1000: {early:?} {late:?}"
    );
    assert_eq!(room.namespaces().len(), 2);
    room.run(&["down", "many"]).expect(0, "down");
}

#[test]
fn a_save_is_enough() {
    let room = Room::new();
    let script = room.script("watched", &format!("require('part') {NET}"));
    std::fs::write(room.scripts.path().join("part.lua"), "print('part 1')").expect("written");
    room.run(&["up", "--watch", "watched.lua"]).expect(0, "watched is up");
    let generation = || room.status("watched")["generation"].as_u64().unwrap_or_default();
    // A module that it required.
    std::fs::write(room.scripts.path().join("part.lua"), "print('part 2')").expect("written");
    eventually(|| room.log("watched").contains("part 2"));
    eventually(|| generation() == 2);
    // By rename, as editors do; one that is wrong first.
    let save = |text: &str| {
        let new = room.scripts.path().join(".watched.lua.new");
        std::fs::write(&new, text.replace("PREFIX", &room.prefix)).expect("written");
        std::fs::rename(new, &script).expect("renamed");
    };
    save("error('wrong')");
    eventually(|| room.log("watched").contains("error: not reloaded: wrong"));
    // The same again is told in one line, with its place.
    eventually(|| {
        save("error('wrong')");
        let place = "saved again as it was, and fails as before: wrong, at watched.lua:1";
        room.log("watched").contains(place)
    });
    assert_eq!(generation(), 2);
    save(&format!("local cnf = require 'cnf' {NET} print('mended')"));
    eventually(|| room.log("watched").contains("mended"));
    eventually(|| generation() == 3);
    // Touched, not changed.
    std::fs::File::open(&script)
        .and_then(|file| file.set_modified(std::time::SystemTime::now()))
        .expect("touched");
    // A burst: the last one counts, and few are loaded.
    for n in 1..=100 {
        save(&format!("local cnf = require 'cnf' {NET} print('burst', {n})"));
    }
    eventually(|| room.log("watched").contains("burst\t100"));
    std::thread::sleep(Duration::from_millis(300));
    let log = room.log("watched");
    assert!(log.trim_end().lines().any(|line| line == "burst\t100"), "{log}");
    assert!(log.matches("burst\t").count() < 50, "{log}");
    assert_eq!(generation(), 3 + log.matches("burst\t").count() as u64);
}

#[test]
fn a_file_that_is_deleted_is_told_once_and_is_welcome_back() {
    let room = Room::new();
    let script = room.script("gone", "require('part') cnf.netns.new('PREFIXa')");
    let part = room.scripts.path().join("part.lua");
    std::fs::write(&part, "").expect("written");
    room.run(&["up", "--watch", "gone.lua"]).expect(0, "gone is up");
    let log = || room.log("gone");
    let cases = [
        (&script, "not reloaded: read(gone.lua): no such file or directory (ENOENT)"),
        (&part, "not reloaded: require(part): there is no such module (ENOENT)"),
    ];
    let mut generation = 1;
    for (file, gone) in cases {
        let text = std::fs::read_to_string(file).expect("it is there");
        for (n, first) in [None, Some("x ="), Some("x = =")].into_iter().enumerate() {
            // One that has failed, and one that has not.
            if let Some(wrong) = first {
                let errors = log().matches("syntax error").count();
                std::fs::write(file, wrong).expect("written");
                eventually(|| log().matches("syntax error").count() > errors);
            }
            std::fs::remove_file(file).expect("removed");
            eventually(|| log().matches(gone).count() > n);
            // As long as it takes to be told of twice.
            std::thread::sleep(Duration::from_millis(400));
            assert_eq!(log().matches(gone).count(), n + 1, "{}", log());
            std::fs::write(file, &text).expect("written");
            generation += 1;
            eventually(|| log().contains(&format!("reload {generation}: ")));
        }
    }
    assert!(!log().contains("saved again as it was"), "{}", log());
}

#[test]
fn hangup_reloads() {
    let room = Room::new();
    room.up("hup", &format!("{NET} print('load', cnf.generation)"));
    room.signal("hup", Signal::SIGHUP);
    eventually(|| room.log("hup").contains("load\t2"));
    eventually(|| room.status("hup")["generation"] == 2);
}
