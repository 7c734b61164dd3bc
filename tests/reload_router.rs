//! Policy routers through a reload: what a load says of one that is live waits for the commit and flips at once, and no
//! packet is lost by it.

mod room;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use room::*;
use serde_json::json;

/// A client behind a router with two ways to 203.0.113.1, which both ends have.
const NET: &str = "
local client, r = cnf.netns.new('PREFIXc'), cnf.netns.new('PREFIXr')
local a, b = cnf.netns.new('PREFIXa'), cnf.netns.new('PREFIXb')
r:sysctl('net.ipv4.ip_forward', 1)
local _, rc = cnf.link.veth { name = 'c0', netns = client, address = '10.1.0.2/24',
  peer = { name = 'rc', netns = r, address = '10.1.0.1/24' } }
client:route { dst = 'default', via = '10.1.0.1' }
local links = {}
for n, end_ in ipairs { a, b } do
  local net = '10.' .. n + 1 .. '.0.'
  local there, here = cnf.link.veth { name = 'e0', netns = end_, address = net .. '2/24',
    peer = { name = 'r' .. n, netns = r, address = net .. '1/24' } }
  end_:link('lo'):add_address('203.0.113.1/32')
  end_:route { dst = 'default', via = net .. '1' }
  links[n] = here
end
";
const ROUTER: &str = "
local router = cnf.policy.router { name = 'edge', attach = { { rc, 'ingress' } }, default = { action = 'drop' } }
router:set { { from = '10.1.0.0/24', via = '10.2.0.2' }, { from = '10.9.0.0/24', via = '10.3.0.2' } }
print(#router:list() .. ' listed')
cnf.wait()
local answer = router:explain { from = '10.1.0.2', to = '203.0.113.1' }
print('to ' .. (answer.hop and answer.hop.via or 'nowhere'))
";

fn script() -> String {
    format!("{NET}{ROUTER}")
}

impl Room {
    /// The last line that the script has printed.
    fn said(&self, wanted: &str) {
        let last = || self.run(&["logs", "edge"]).out;
        eventually(|| last().lines().rev().find(|l| l.starts_with("to ")) == Some(wanted));
    }

    /// Which of the ends a datagram of the client reaches.
    fn reaches(&self) -> Option<&'static str> {
        let socket = |name: &str, at: &str| {
            let bind = || Ok(UdpSocket::bind(at).expect("free"));
            self.netns(name).within(bind).expect("in the namespace")
        };
        let ends = [("a", socket("a", "203.0.113.1:9000")), ("b", socket("b", "203.0.113.1:9000"))];
        socket("c", "10.1.0.2:0").send_to(b"x", "203.0.113.1:9000").expect("sent");
        std::thread::sleep(Duration::from_millis(50));
        ends.into_iter().find_map(|(name, end)| {
            end.set_nonblocking(true).expect("a socket");
            end.recv(&mut [0; 8]).is_ok().then_some(name)
        })
    }
}

#[test]
fn policies_flip_at_the_commit() {
    let room = Room::new();
    room.up("edge", &script());
    room.said("to 10.2.0.2");
    assert_eq!(room.reaches(), Some("a"));
    let same = room.turn("edge", &script());
    for kind in ["created", "changed", "deleted"] {
        assert_eq!(same[kind], json!([]), "{same}");
    }
    let other =
        room.turn("edge", &script().replace("24', via = '10.2.0.2'", "24', via = '10.3.0.2'"));
    assert_eq!(
        other["changed"],
        json!([format!("policies of router edge in netns {}r", room.prefix)])
    );
    room.said("to 10.3.0.2");
    assert_eq!(room.reaches(), Some("b"));
    // A set that is not given again is empty, and the default counts.
    room.turn("edge", &script().replace("router:set", "local _ ="));
    room.said("to nowhere");
    assert_eq!(room.reaches(), None);
    let add = "router:add { from = '10.1.0.0/24', via = '10.2.0.2' } router:add { to = '10.0.0.0/8', action = 'pass' }
      router:remove { to = '10.0.0.0/8' } local _ =";
    room.turn("edge", &script().replace("router:set", add));
    assert_eq!(room.reaches(), Some("a"));
}

#[test]
fn a_load_that_fails_leaves_the_router_as_it_is() {
    let room = Room::new();
    room.up("edge", &script());
    room.said("to 10.2.0.2");
    let refused = [
        // Refused at the commit: by then the link below has other addresses.
        ("24', via = '10.2.0.2'", "24', via = '10.77.0.2'", "ENETUNREACH"),
        (
            "cnf.wait()",
            "router:set { { from = '10.1.0.0/24', action = 'drop' } } error('late')",
            "late",
        ),
        ("router:set { {", "router:set { { from = '10.1.0.0/24', action = 'drop' }, {", "EEXIST"),
        ("{ action = 'drop' }", "{ from = '10.1.0.0/24', action = 'drop' }", "EINVAL"),
    ];
    for (from, to, code) in refused {
        let said = room.reload("edge", &script().replace(from, to));
        said.expect(1, code);
        assert!(
            code == "late" || format!("{}{}", said.out, said.err).contains("edge.lua:"),
            "{said:?}"
        );
        assert_eq!(room.reaches(), Some("a"), "{said:?}");
    }
    assert_eq!(room.turn("edge", &script())["changed"], json!([]));
}

#[test]
fn hooks_come_and_go_with_the_list() {
    let room = Room::new();
    room.up("edge", &script());
    let programs = |link: &str| {
        let chunk = format!(
            "local r = netns.get('{}r') local hooks = bpf.has('tcx').available and tcx or tc
             print(#hooks.query(r:link('{link}'), 'ingress').programs)",
            room.prefix
        );
        room.run(&["-e", &chunk]).out.trim().to_owned()
    };
    assert_eq!([programs("rc"), programs("r1")], ["1", "0"]);
    let both = script().replace(
        "{ { rc, 'ingress' } }",
        "{ { rc, 'ingress' }, { links[1], 'ingress' }, { links[2], 'egress' } }",
    );
    let changed = room.turn("edge", &both);
    assert!(
        changed["changed"][0].as_str().is_some_and(|c| c.starts_with("hooks and policies")),
        "{changed}"
    );
    assert_eq!([programs("rc"), programs("r1")], ["1", "1"]);
    assert_eq!(room.reaches(), Some("a"));
    // One that is refused takes the others back.
    let bad = both.replace("links[1], 'ingress'", "links[1], 'peer'");
    room.reload("edge", &bad).expect(1, "is no netkit");
    assert_eq!([programs("rc"), programs("r1")], ["1", "1"]);
    room.turn("edge", &script().replace("{ { rc, 'ingress' } }", "{ { links[1], 'ingress' } }"));
    assert_eq!([programs("rc"), programs("r1")], ["0", "1"]);
    let gone = room.turn("edge", &format!("{NET} cnf.wait()"));
    assert!(gone["deleted"].to_string().contains("router edge"), "{gone}");
    assert_eq!([programs("rc"), programs("r1")], ["0", "0"]);
}

/// Sends numbered datagrams until it is told to stop, and counts who got what.
struct Flow {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Vec<u64>>>,
}

impl Flow {
    fn start(room: &Room) -> Flow {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = |name: &str, at: &str| {
            let bind = || Ok(UdpSocket::bind(at).expect("free"));
            room.netns(name).within(bind).expect("in the namespace")
        };
        // Whoever receives is there before the first is sent.
        let ends = ["a", "b"].map(|name| socket(name, "203.0.113.1:9001"));
        let sender = socket("c", "10.1.0.2:0");
        let told = Arc::clone(&stop);
        let mut threads = vec![std::thread::spawn(move || {
            let mut sent = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let n = sent.len() as u64;
                sender.send_to(&n.to_ne_bytes(), "203.0.113.1:9001").expect("sent");
                sent.push(n);
                std::thread::sleep(Duration::from_micros(500));
            }
            sent
        })];
        for end in ends {
            end.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
            let told = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                let (mut got, mut word) = (Vec::new(), [0; 8]);
                loop {
                    match end.recv(&mut word) {
                        Ok(_) => got.push(u64::from_ne_bytes(word)),
                        Err(_) if told.load(Ordering::Relaxed) => return got,
                        Err(_) => {}
                    }
                }
            }));
        }
        Flow { stop, threads }
    }

    /// How many each end got. Every one that was sent came once, in order at each end.
    #[track_caller]
    fn stop(self) -> [usize; 2] {
        std::thread::sleep(Duration::from_millis(100));
        self.stop.store(true, Ordering::Relaxed);
        let got: Vec<_> = self.threads.into_iter().map(|t| t.join().expect("no panic")).collect();
        let [sent, a, b]: [Vec<u64>; 3] = got.try_into().expect("three of them");
        let mut all: Vec<u64> = a.iter().chain(&b).copied().collect();
        all.sort_unstable();
        let missing: Vec<_> = sent.iter().filter(|n| all.binary_search(n).is_err()).collect();
        let few = &missing[..missing.len().min(8)];
        assert!(missing.is_empty(), "{} of {} lost: {few:?}", missing.len(), sent.len());
        assert_eq!(all.len(), sent.len(), "some came twice");
        assert!(a.is_sorted() && b.is_sorted(), "reordered");
        [a.len(), b.len()]
    }
}

#[test]
fn reloads_under_traffic_lose_nothing() {
    let room = Room::new();
    room.up("edge", &script());
    room.said("to 10.2.0.2");
    // Neighbours are resolved first.
    assert_eq!(room.reaches(), Some("a"));
    let first = script();
    let other = first.replace("24', via = '10.2.0.2'", "24', via = '10.3.0.2'");
    room.turn("edge", &other);
    assert_eq!(room.reaches(), Some("b"));
    let flow = Flow::start(&room);
    for turn in 0..20 {
        room.turn("edge", if turn % 2 == 0 { &first } else { &other });
    }
    let [a, b] = flow.stop();
    assert!(a > 100 && b > 100, "{a} and {b}");
}

#[test]
fn a_killed_instance_routes_on_and_is_taken_over() {
    let room = Room::new();
    room.up("edge", &script());
    room.said("to 10.2.0.2");
    assert_eq!(room.reaches(), Some("a"));
    let flow = Flow::start(&room);
    room.kill("edge");
    assert_eq!(room.reaches(), Some("a"), "nobody is there to route");
    room.up("edge", &script());
    room.said("to 10.2.0.2");
    let [a, b] = flow.stop();
    assert!(a > 100 && b == 0, "{a} and {b}");
    room.turn("edge", &script().replace("24', via = '10.2.0.2'", "24', via = '10.3.0.2'"));
    assert_eq!(room.reaches(), Some("b"));
    room.run(&["down", "edge"]).expect(0, "is down");
    assert_eq!(room.namespaces(), [""; 0]);
}

/// One way, then two: flows that were there stay on the first until they are idle.
const WAYS: &str = "
local router = cnf.policy.router { name = 'edge', attach = { { rc, 'ingress' } }, default = { action = 'pass' } }
router:set { { from = '10.9.0.0/24', action = 'drop' },
  { from = '10.1.0.0/24', nexthops = { { via = '10.2.0.2', weight = WEIGHT }, { via = '10.3.0.2', weight = 1 } } } }
cnf.wait()
cnf.task.every('10ms', function()
  local stats = router:stats()
  print('counted ' .. stats[2].packets .. ' of ' .. stats.total.routed.packets)
end)
";

impl Room {
    /// How many of these flows, told apart by their ports, go to each end.
    fn spread(&self, ports: std::ops::Range<u16>) -> [usize; 2] {
        let socket = |name: &str, at: String| {
            let bind = || Ok(UdpSocket::bind(&at).expect("free"));
            self.netns(name).within(bind).expect("in the namespace")
        };
        let ends = ["a", "b"].map(|name| socket(name, "203.0.113.1:9000".to_owned()));
        for port in ports {
            let client = socket("c", format!("10.1.0.2:{port}"));
            client.send_to(b"x", "203.0.113.1:9000").expect("sent");
        }
        std::thread::sleep(Duration::from_millis(100));
        ends.map(|end| {
            end.set_nonblocking(true).expect("a socket");
            std::iter::from_fn(|| end.recv(&mut [0; 8]).ok()).count()
        })
    }

    #[track_caller]
    fn eventually_says(&self, line: &str) {
        eventually(|| self.run(&["logs", "edge"]).out.lines().last() == Some(line));
    }

    #[track_caller]
    fn counted(&self, packets: usize) {
        self.eventually_says(&format!("counted {packets} of {packets}"));
    }

    /// Packets that the policy has counted, when that does not change any more.
    fn counts(&self) -> usize {
        let now = || {
            let log = self.run(&["logs", "edge"]).out;
            let last = log.lines().rev().find_map(|line| line.strip_prefix("counted "));
            last.and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0)
        };
        loop {
            let before = now();
            std::thread::sleep(Duration::from_millis(100));
            if before == now() {
                return before;
            }
        }
    }
}

#[test]
fn counters_and_flows_go_on_in_the_process_after() {
    let room = Room::new();
    let script = |weight: &str| format!("{NET}{}", WAYS.replace("WEIGHT", weight));
    room.up("edge", &script("100"));
    // The neighbours are resolved by it.
    eventually(|| room.spread(5000..5032).iter().sum::<usize>() == 32);
    let before = room.counts();
    let spread = room.spread(5000..5032);
    assert!(spread[0] > 24, "{spread:?}");
    let equal = script("1");
    room.turn("edge", &equal);
    assert_eq!(room.spread(5000..5032), spread, "they stay where they are");
    room.counted(before + 64);
    // Twice: what was taken over is left for the next.
    for life in 1..=2 {
        room.kill("edge");
        assert_eq!(room.spread(5000..5032), spread);
        room.up("edge", &equal);
        assert_eq!(room.spread(5000..5032), spread, "life {life}");
        room.counted(before + 64 + life * 64);
    }
    room.kill("edge");
    // Another match is another policy, with a counter of its own.
    let total = before + 64 * 3;
    room.up("edge", &equal.replace("from = '10.1.0.0/24', n", "from = '10.1.0.0/16', n"));
    assert_eq!(room.spread(5000..5032).iter().sum::<usize>(), 32);
    room.eventually_says(&format!("counted 32 of {}", total + 32));
    room.run(&["down", "edge"]).expect(0, "is down");
    assert_eq!(room.namespaces(), [""; 0]);
}
