//! Real packets between real namespaces.

use super::super::explain::Query;
use super::super::instance::Router;
use super::super::policy::{Action, Match, Policy, Prefix};
use super::super::spec::Hook;
use super::fixture::{Net, from, to};
use crate::kernel::link::{self, Change};

fn count(net: &Router, at: usize) -> u64 {
    net.stats().policies[at].packets
}

#[test]
fn a_source_policy_redirects_at_ingress() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "a");
    router.set(vec![from("10.1.0.0/24", net.to_b()), from("fd01::/64", net.to_b6())]).unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "b");
    assert_eq!(net.who(("fd01::2", 4000), 5000, b"x"), "b");
    assert_eq!((count(&router, 0), count(&router, 1)), (1, 1));
    // The box itself is reached all the same.
    let here = net.router.socket("10.1.0.1", 7000);
    net.client.socket("10.1.0.2", 4001).send_to(b"y", "10.1.0.1:7000").unwrap();
    assert_eq!(here.recv(&mut [0; 8]).unwrap(), 1);
    router.clear().unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "a");
    router.set(vec![from("10.1.0.0/24", Action::Drop)]).unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "nobody");
    router.set(vec![from("10.1.0.0/24", Action::Drop), from("10.1.0.2", Action::Pass)]).unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "a");
    router.detach().unwrap();
}

#[test]
fn a_source_policy_redirects_at_egress_without_a_loop() {
    let net = Net::new();
    let router = net.router(&[("ra", Hook::Egress), ("rb", Hook::Egress)]);
    router.set(vec![from("10.1.0.0/24", net.to_b()), from("fd01::/64", net.to_b6())]).unwrap();
    let who = net.who(("10.1.0.2", 4000), 5000, b"x");
    assert_eq!(who, "b", "{:?}", router.stats());
    assert_eq!(net.who(("fd01::2", 4000), 5000, b"x"), "b");
    let total = router.stats().total;
    assert_eq!((total.routed.packets, total.redirected.packets), (2, 2));
}

#[test]
fn conditions_go_by_priority_then_specificity() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    let dport = |port: u16, priority: u32, action: Action| {
        let matching = Match { proto: Some(17), dport: Some(port), ..Match::default() };
        Policy { priority, ..Policy::new(matching, action) }
    };
    let pair = Policy::new(
        Match {
            from: "10.1.0.0/24".parse().ok(),
            to: "203.0.113.0/24".parse().ok(),
            ..Match::default()
        },
        Action::Drop,
    );
    let source = from("10.1.0.0/24", net.to_b());
    router.set(vec![pair.clone(), source.clone()]).unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "nobody");
    router.set(vec![pair, source, dport(5000, 10, Action::Pass)]).unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "a");
    assert_eq!(net.who(("10.1.0.2", 4000), 5001, b"x"), "nobody");
}

#[test]
fn fragments_follow_their_first() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    let matching = Match { proto: Some(17), dport: Some(5000), ..Match::default() };
    let hops =
        Action::Route(smallvec::smallvec![net.hop("10.3.0.2", "rb"), net.hop("fd03::2", "rb")]);
    router.set(vec![Policy::new(matching, hops)]).unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, &[7; 4000]), "b");
    assert_eq!(net.who(("fd01::2", 4000), 5000, &[7; 4000]), "b");
    assert_eq!(net.who(("10.1.0.2", 4000), 5001, &[7; 4000]), "a");
}

#[test]
fn flows_stick_to_weighted_hops_and_fail_over() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    let both =
        Action::Route(smallvec::smallvec![net.hop("10.2.0.2", "ra"), net.hop("10.3.0.2", "rb")]);
    router.set(vec![from("10.1.0.0/24", both.clone())]).unwrap();
    let take =
        || -> Vec<_> { (0..24).map(|i| net.who(("10.1.0.2", 4000 + i), 5000, b"x")).collect() };
    let first = take();
    assert!(first.contains(&"a") && first.contains(&"b"), "{first:?}");
    router.add(from("10.9.0.0/16", Action::Drop)).unwrap();
    assert_eq!(take(), first);
    let down = |up| Change { up: Some(up), ..Change::default() };
    let index = net.router.index("rb");
    link::set(&net.router.netlink, index, &down(false)).unwrap();
    let start = std::time::Instant::now();
    while net.who(("10.1.0.2", 4000), 5000, b"x") == "nobody" {}
    println!("failed over after {:?}", start.elapsed());
    assert!(take().iter().all(|who| *who == "a"));
    // Alone, the policy stops matching: the shorter one takes over.
    router
        .set(vec![from("10.1.0.0/24", net_to_b_onlink(&net)), from("10.0.0.0/8", Action::Drop)])
        .unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "nobody");
    link::set(&net.router.netlink, index, &down(true)).unwrap();
}

/// rb has lost its routes while it is down.
fn net_to_b_onlink(net: &Net) -> Action {
    let mut hop = net.hop("10.3.0.2", "rb");
    hop.onlink = true;
    Action::Route(smallvec::smallvec![hop])
}

#[test]
fn what_does_not_fit_is_answered() {
    for hook in [("rc", Hook::Ingress), ("ra", Hook::Egress)] {
        let net = Net::new();
        let router = net.router(&[hook]);
        router.set(vec![from("10.1.0.0/24", net.to_b()), from("fd01::/64", net.to_b6())]).unwrap();
        let small = Change { mtu: Some(1300), ..Change::default() };
        link::set(&net.router.netlink, net.router.index("rb"), &small).unwrap();
        for from in ["10.1.0.2", "fd01::2"] {
            // The first is lost and answered; then the client cuts to the MTU it has heard of.
            assert_eq!(net.who((from, 4000), 5000, &[1; 1400]), "nobody", "{hook:?} {from}");
            assert_eq!(net.who((from, 4000), 5000, &[1; 1400]), "b", "{hook:?} {from}");
        }
        let total = router.stats().total;
        assert_eq!((total.too_big.packets, total.answered.packets), (2, 2));
    }
}

#[test]
fn ttl_falls_at_ingress_and_its_end_is_the_kernels() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    router.set(vec![from("10.1.0.0/24", net.to_b())]).unwrap();
    let sender = net.client.socket("10.1.0.2", 4000);
    let b = net.b.socket("203.0.113.1", 5000);
    sender.set_ttl(1).unwrap();
    sender.send_to(b"x", "203.0.113.1:5000").unwrap();
    assert!(b.recv(&mut [0; 8]).is_err());
    assert_eq!(router.stats().total.expired.packets, 1);
    sender.set_ttl(2).unwrap();
    // The error for the first may come first.
    let _ = sender.send_to(b"x", "203.0.113.1:5000");
    let _ = sender.send_to(b"x", "203.0.113.1:5000");
    assert_eq!(b.recv(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn bad_policies_change_nothing() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    router.set(vec![from("10.1.0.0/24", net.to_b())]).unwrap();
    let mut gone = net.hop("10.3.0.2", "rb");
    gone.dev.as_mut().unwrap().index = 4_000_000;
    let error =
        router.set(vec![to("10.9.0.0/16", Action::Route(smallvec::smallvec![gone]))]).unwrap_err();
    assert!(error.is("ENODEV"), "{error}");
    let far = net.hop("10.77.0.2", "rb");
    let error =
        router.set(vec![to("10.9.0.0/16", Action::Route(smallvec::smallvec![far]))]).unwrap_err();
    assert!(error.is("ENETUNREACH"), "{error}");
    assert_eq!(error.get_subject(), Some("to 10.9.0.0/16 via 10.77.0.2 dev rb"), "{error}");
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "b");
}

#[test]
fn a_set_is_never_seen_by_half() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    // In each set exactly one of the two leads to b; with half of one and half of the other a packet would be dropped
    // or take the kernel's route to a.
    let one = vec![from("10.1.0.2", net.to_b()), from("10.1.0.0/24", Action::Drop)];
    let two = vec![from("10.1.0.0/24", net.to_b())];
    router.set(one.clone()).unwrap();
    let b = net.b.socket("203.0.113.1", 5000);
    let sender = net.client.socket("10.1.0.2", 4000);
    let done = std::sync::atomic::AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                sender.send_to(&[0], "203.0.113.1:5000").unwrap();
                sent += 1;
                if sent.is_multiple_of(16) {
                    std::thread::sleep(std::time::Duration::from_micros(300));
                }
            }
            sent
        });
        for i in 0..60 {
            router.set(if i % 2 == 0 { two.clone() } else { one.clone() }).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        sending.join().unwrap()
    });
    drop(b);
    let total = router.stats().total;
    assert_eq!(
        (total.routed.packets, total.dropped.packets, total.unmatched.packets),
        (sent, 0, 0)
    );
}

#[test]
fn explain_and_packets_agree() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    let both =
        Action::Route(smallvec::smallvec![net.hop("10.2.0.2", "ra"), net.hop("10.3.0.2", "rb")]);
    let matching = Match { proto: Some(17), dport: Some(5001), ..Match::default() };
    let blocked = Policy::new(matching, Action::Drop);
    router.set(vec![from("10.1.0.0/24", both), blocked]).unwrap();
    for sport in 4000..4016 {
        // What is dropped is waited for.
        let ports: &[u16] = if sport < 4002 { &[5000, 5001] } else { &[5000] };
        for &port in ports {
            let query = Query {
                from: "10.1.0.2".parse().unwrap(),
                to: "203.0.113.1".parse().unwrap(),
                proto: Some(17),
                sport: Some(sport),
                dport: Some(port),
                mark: 0,
                vlan: None,
            };
            let said = router.explain(&query);
            let wanted = match said.hop.as_ref().and_then(|hop| hop.dev.as_ref()) {
                Some(dev) if &*dev.name == "rb" => "b",
                Some(_) => "a",
                None => "nobody",
            };
            assert_eq!(net.who(("10.1.0.2", sport), port, b"x"), wanted, "{said:?}");
        }
    }
    let mut query = Query {
        from: "10.1.0.2".parse().unwrap(),
        to: "10.1.0.1".parse().unwrap(),
        proto: None,
        sport: None,
        dport: None,
        mark: 0,
        vlan: None,
    };
    assert_eq!(router.explain(&query).policy, None);
    query.to = "203.0.113.1".parse().unwrap();
    query.from = "10.7.0.1".parse().unwrap();
    assert_eq!(router.explain(&query).why, "the kernel's own routing: no policy matches");
}

/// What the program makes of a frame, run in the router's namespace.
fn run(net: &Net, router: &Router, frame: &[u8]) -> (i32, Vec<u8>) {
    let program = router.programs().into_iter().find(|p| p.name() == "ingress").unwrap();
    let out = net.router.netns.fd.within(|| program.test_run(frame, &[], 1)).unwrap();
    (out.retval as i32, out.packet)
}

const REDIRECT: i32 = 7;
const NEXT: i32 = -1;

fn frame(vlan: Option<u16>, ttl: u8) -> Vec<u8> {
    use etherparse::{PacketBuilder, VlanId};
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0; 6]);
    let mut out = Vec::new();
    let (from, to) = ([10, 1, 0, 2], [203, 0, 113, 1]);
    let built = match vlan {
        Some(id) => ethernet.single_vlan(VlanId::try_new(id).unwrap()).ipv4(from, to, ttl),
        None => ethernet.ipv4(from, to, ttl),
    };
    built.udp(4000, 5000).write(&mut out, &[1; 32]).unwrap();
    out
}

#[test]
fn a_tag_is_matched_and_stripped() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    let tagged = Policy::new(
        Match { vlan: Some(7), ..Match::default() },
        Action::Route(smallvec::smallvec![net.hop("10.3.0.2", "rb")]),
    );
    router.set(vec![from("10.1.0.0/24", Action::Drop), tagged]).unwrap();
    assert_eq!(run(&net, &router, &frame(None, 64)).0, 2);
    assert_eq!(run(&net, &router, &frame(Some(8), 64)).0, NEXT);
    let (verdict, packet) = run(&net, &router, &frame(Some(7), 64));
    assert_eq!(verdict, REDIRECT);
    // Untagged, a hop less to live, the checksum of a header made that way.
    assert_eq!(packet, frame(None, 63));
}

#[test]
fn a_mirror_gets_a_copy() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    let mirror = net.hop("10.3.0.2", "rb").dev;
    let policy = Policy { mirror, ..from("10.1.0.0/24", Action::Pass) };
    router.set(vec![policy]).unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "a");
    let total = router.stats().total;
    assert_eq!((total.mirrored.packets, total.passed.packets), (1, 1));
    assert!(net.b_received() > 0);
}

#[test]
fn segments_are_counted() {
    use std::io::{Read, Write};
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    router.set(vec![from("10.1.0.0/24", net.to_b())]).unwrap();
    let listener = net
        .b
        .netns
        .fd
        .within(|| {
            std::net::TcpListener::bind("203.0.113.1:80").map_err(|e| crate::Error::io("tcp", &e))
        })
        .unwrap();
    let server = std::thread::spawn(move || {
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        received.len()
    });
    let mut client = net
        .client
        .netns
        .fd
        .within(|| {
            std::net::TcpStream::connect("203.0.113.1:80").map_err(|e| crate::Error::io("tcp", &e))
        })
        .unwrap();
    client.write_all(&vec![5; 1 << 20]).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap(), 1 << 20);
    let stats = &router.stats().policies[0];
    // A megabyte is 724 full segments; GSO hands over far fewer packets.
    assert!(stats.packets >= 725, "{stats:?}");
    assert!(stats.bytes >= (1 << 20) + 725 * 52, "{stats:?}");
}

/// Run by hand: `cargo test --release --lib program::router -- --ignored a_million --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_million_policies() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    let action = net.to_b();
    let policies: Vec<Policy> = (0..1_000_000u32)
        .map(|i| {
            let address = std::net::Ipv4Addr::from(0x1400_0000 + i * 7);
            let prefix = Prefix::new(address.into(), if i % 2 == 0 { 32 } else { 31 }).unwrap();
            Policy::new(Match { from: Some(prefix), ..Match::default() }, action.clone())
        })
        .chain([from("10.1.0.0/24", action.clone())])
        .collect();
    let start = std::time::Instant::now();
    router.set(policies).unwrap();
    println!("set: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    router.add(from("10.1.0.0/25", action)).unwrap();
    println!("add: {:?}", start.elapsed());
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, b"x"), "b");
    let start = std::time::Instant::now();
    assert_eq!(router.stats().policies.len(), 1_000_002);
    println!("stats: {:?}", start.elapsed());
}
