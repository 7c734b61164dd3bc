//! Real packets between real namespaces.

use super::super::policy::{Action, Match, Policy};
use super::super::router::Hook;
use super::fixture::{Net, from, to};
use crate::kernel::link::{self, Change};

fn count(net: &super::super::router::Router, at: usize) -> u64 {
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
    let hops = Action::Route(vec![net.hop("10.3.0.2", "rb"), net.hop("fd03::2", "rb")]);
    router.set(vec![Policy::new(matching, hops)]).unwrap();
    assert_eq!(net.who(("10.1.0.2", 4000), 5000, &[7; 4000]), "b");
    assert_eq!(net.who(("fd01::2", 4000), 5000, &[7; 4000]), "b");
    assert_eq!(net.who(("10.1.0.2", 4000), 5001, &[7; 4000]), "a");
}

#[test]
fn flows_stick_to_weighted_hops_and_fail_over() {
    let net = Net::new();
    let router = net.router(&[("rc", Hook::Ingress)]);
    let both = Action::Route(vec![net.hop("10.2.0.2", "ra"), net.hop("10.3.0.2", "rb")]);
    router.set(vec![from("10.1.0.0/24", both.clone())]).unwrap();
    let take = || -> Vec<_> {
        (0..24).map(|i| net.who(("10.1.0.2", 4000 + i), 5000, b"x")).collect()
    };
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
    Action::Route(vec![hop])
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
    let error = router.set(vec![to("10.9.0.0/16", Action::Route(vec![gone]))]).unwrap_err();
    assert!(error.is("ENODEV"), "{error}");
    let far = net.hop("10.77.0.2", "rb");
    let error = router.set(vec![to("10.9.0.0/16", Action::Route(vec![far]))]).unwrap_err();
    assert!(error.is("ENETUNREACH"), "{error}");
    assert_eq!(
        error.get_subject(),
        Some("to 10.9.0.0/16 via 10.77.0.2 dev rb"),
        "{error}"
    );
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
                if sent % 16 == 0 {
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
    assert_eq!((total.routed.packets, total.dropped.packets, total.unmatched.packets), (sent, 0, 0));
}
