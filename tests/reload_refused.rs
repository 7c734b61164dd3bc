//! What the kernel refuses at a commit is told as a first load would tell it: the call by its name, what it was about, the
//! kernel's own reason, the line. And everything is as it was.

mod room;

use room::*;

const NET: &str = "
local a = cnf.netns.new('PREFIXa')
local function pair(mtu)
  return cnf.link.veth { name = 'v0', netns = a, address = '10.0.0.1/24', mtu = mtu,
    peer = { name = 'w0', netns = a, address = '10.0.9.1/24' } }
end
";
const PAIR: &str = "local v, w = pair(1400)\n";

/// Each by itself is refused.
const CALLS: [&str; 15] = [
    "a:route { dst = '10.1.0.0/16', via = '10.99.0.1' }",
    "a:route { dst = '10.1.0.0/16', via = '10.99.0.1', dev = v }",
    "a:route { dst = 'fd10::/64', via = 'fd00::2' }",
    "a:route { dst = '10.0.0.0/24', dev = v, proto = 'kernel', scope = 'link', src = '10.0.0.1' }",
    "a:route { dst = '10.1.0.0/16', nexthops = { { via = '10.0.0.2' }, { via = '10.99.0.1' } } }",
    "a:rule { from = '10.5.0.0/16', type = 'goto', goto = 4, priority = 500 }",
    "a:neigh { dst = '10.0.0.9', dev = v }",
    "v:add_address('10.0.0.1/24')",
    "v:delete_address('10.9.9.9/24')",
    "v:set { mtu = 70000 }",
    "v:set { mac = '01:00:00:00:00:09' }",
    "v:set { master = w }",
    "v:rename('w0')",
    "a:sysctl('net.ipv4.ip_forward', 'perhaps')",
    "a:sysctl('net.ipv4.no_such_thing', 1)",
];

/// The error without what is only a reload's.
fn told(said: &Said) -> String {
    assert_ne!(said.status, 0, "{said:?}");
    said.err.replace("not reloaded: ", "")
}

#[test]
fn what_a_commit_refuses_is_told_as_a_first_load_tells_it() {
    let room = Room::new();
    let mut wrong = Vec::new();
    let mut compare = |first: &str, text: &str| {
        let script = room.script("told", text);
        let as_first = told(&room.run(&[script.to_str().expect("text")]));
        room.up("told", first);
        let see = || ["addr", "route", "-6 route", "rule"].map(|words| room.ip("a", words));
        let before = see();
        let as_reload = told(&room.reload("told", text));
        assert_eq!(see(), before, "{text}");
        let logged = room.log("told");
        room.run(&["down", "told"]).expect(0, "is down");
        // `reload` names the script as its instance knows it.
        let tail = |text: &str| {
            text.lines()
                .filter(|l| !l.contains("-->") && !l.starts_with("removed "))
                .collect::<Vec<_>>()
                .join("\n")
        };
        if tail(&as_first) != tail(&as_reload) || !as_reload.contains("told.lua:") {
            wrong.push(format!("{as_first}{as_reload}{logged}"));
        }
    };
    for call in CALLS {
        compare(&format!("{NET}{PAIR}"), &format!("{NET}{PAIR}{call}\n"));
    }
    compare(&format!("{NET}{PAIR}"), &format!("{NET}{}", PAIR.replace("1400", "70000")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
