//! How long a hub with a hundred spokes takes, beside `ip -batch`. Run with
//! `cargo test --lib link::speed -- --ignored --nocapture`.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::tests::Scratch;
use super::*;
use crate::kernel::netns::named;
use crate::kernel::route;

const SPOKES: usize = 100;

fn address(spoke: usize, host: u8) -> String {
    format!("10.{}.{}.{host}/24", 50 + spoke / 250, spoke % 250)
}

fn names(what: &str) -> Vec<String> {
    let mark = random();
    (0..SPOKES).map(|i| format!("cnft-{what}-{mark:x}-{i}")).collect()
}

/// Deletes the namespaces at the end, however it comes.
struct Gone(Vec<String>);

impl Drop for Gone {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = named::delete(name);
        }
    }
}

fn ours() -> [Duration; 4] {
    let hub = Scratch::new("hub");
    let names = Gone(names("ours"));
    let start = Instant::now();
    let made: Vec<_> = names.0.iter().map(|name| named::create(name).unwrap()).collect();
    let namespaces = start.elapsed();
    let links: Vec<_> = made
        .iter()
        .enumerate()
        .map(|(i, (_, netlink))| {
            let mut end = End::named(format!("s{i}"));
            end.addresses = vec![address(i, 1).parse().unwrap()];
            let mut link = NewLink::new(&hub.1, kinds::find("veth").unwrap(), end);
            let mut peer = End::named("eth0");
            peer.addresses = vec![address(i, 2).parse().unwrap()];
            link.peer = Some((netlink, peer));
            link
        })
        .collect();
    assert!(create_many(&links).iter().all(Result::is_ok));
    let linked = start.elapsed();
    for (i, (_, netlink)) in made.iter().enumerate() {
        let via = address(i, 1).split('/').next().unwrap().parse().unwrap();
        route::add(netlink, &route::Options { via: Some(via), ..Default::default() }).unwrap();
    }
    let total = start.elapsed();
    assert_eq!(list(&hub.1).unwrap().len(), SPOKES + 1);
    let down = Instant::now();
    let indexes: Vec<_> =
        list(&hub.1).unwrap().iter().map(|l| l.index).filter(|i| *i > 1).collect();
    delete_many(&hub.1, &indexes).unwrap();
    drop(links);
    drop(made);
    drop(names);
    [namespaces, linked, total, down.elapsed()]
}

fn batch(netns: Option<&str>, lines: &str) {
    let mut ip = Command::new("ip");
    if let Some(netns) = netns {
        ip.args(["-n", netns]);
    }
    let mut ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success());
}

/// `ip -batch` works in one namespace, so each has its own.
fn theirs() -> [Duration; 2] {
    let hub = Scratch::new("hub");
    let names = Gone(names("ip"));
    let start = Instant::now();
    let add: String = names.0.iter().map(|name| format!("netns add {name}\n")).collect();
    batch(None, &add);
    let namespaces = start.elapsed();
    let mut lines = String::new();
    for (i, name) in names.0.iter().enumerate() {
        lines += &format!("link add s{i} type veth peer name eth0 netns {name}\n");
        lines += &format!("address add {} dev s{i}\nlink set s{i} up\n", address(i, 1));
    }
    batch(Some(&hub.0.name), &lines);
    for (i, name) in names.0.iter().enumerate() {
        let via = address(i, 1).replace("/24", "");
        let lines = format!(
            "link set lo up\naddress add {} dev eth0\nlink set eth0 up\nroute add default via {via}\n",
            address(i, 2)
        );
        batch(Some(name), &lines);
    }
    [namespaces, start.elapsed()]
}

#[test]
#[ignore = "a measurement"]
fn a_hub_with_a_hundred_spokes() {
    for _ in 0..3 {
        println!("ours: namespaces, and links, and routes, removal: {:?}", ours());
        println!("ip -batch: namespaces, all: {:?}", theirs());
    }
}
