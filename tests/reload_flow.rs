//! Reloads under live traffic: programs, policies and unrelated parts of the topology change, and no packet is lost.
//!
//! CNFSCRIPT_RELOADS says how many; 150 by default.

#[path = "room/flow.rs"]
mod flow;
mod room;

use std::time::Duration;

use flow::{Datagrams, Stream};
use room::*;

/// A router's path, shared with the benchmark.
const PATH: &str = include_str!("../bench/reload_path.lua");

#[test]
fn no_packet_is_lost_and_none_overtakes() {
    let room = Room::new();
    let reloads: u32 =
        std::env::var("CNFSCRIPT_RELOADS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let text = |n: u32| PATH.replace("NUMBER", &n.to_string());
    room.script("flow", &text(0));
    room.run(&["up", "--load-timeout", "60", "flow.lua"]).expect(0, "flow is up");
    let (client, server) = (room.netns("c"), room.netns("s"));
    let datagrams = || {
        let address = "10.81.0.2:7000".parse().expect("an address");
        Datagrams::start(&client, &server, address, Duration::from_millis(1)).expect("it starts")
    };
    // What the machine does to such a flow without reloads.
    let quiet = datagrams();
    std::thread::sleep(Duration::from_secs(3));
    let quiet = quiet.stop();
    let stream = Stream::start(&client, &server, "10.81.0.2:7001".parse().expect("an address"))
        .expect("it connects");
    let flow = datagrams();
    for n in 1..=reloads {
        room.reload("flow", &text(n)).expect(0, "");
    }
    let flow = flow.stop();
    let (sent, received) = stream.stop().expect("the connection has lasted");
    assert_eq!(room.status("flow")["generation"], reloads + 1);
    println!(
        "{reloads} reloads: {} sent, {} received, {} reordered; gaps p99.9 {:.2} ms, without reloads {:.2} ms",
        flow.sent,
        flow.received,
        flow.reordered,
        flow.gap(0.999) * 1e3,
        quiet.gap(0.999) * 1e3
    );
    assert!(flow.sent > 100);
    assert_eq!(
        (flow.sent, flow.reordered),
        (flow.received, 0),
        "without: {} of {}",
        quiet.received,
        quiet.sent
    );
    assert!(sent > 0);
    assert_eq!(sent, received);
}

#[test]
fn no_packet_is_lost_when_the_process_is_killed_and_another_takes_over() {
    let room = Room::new();
    room.up("flow", &PATH.replace("NUMBER", "0"));
    let address = "10.81.0.2:7000".parse().expect("an address");
    let flow =
        Datagrams::start(&room.netns("c"), &room.netns("s"), address, Duration::from_millis(1))
            .expect("it starts");
    for round in 1..=5 {
        std::thread::sleep(Duration::from_millis(100));
        room.kill("flow");
        room.script("flow", &PATH.replace("NUMBER", &round.to_string()));
        room.run(&["up", "flow.lua"]).expect(0, "flow is up");
    }
    std::thread::sleep(Duration::from_millis(100));
    let flow = flow.stop();
    assert!(flow.sent > 500);
    assert_eq!((flow.sent, flow.reordered), (flow.received, 0));
}
