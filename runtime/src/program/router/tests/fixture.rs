//! A client behind a router with two ways to the same server addresses:
//!
//! client c0 - rc router ra - a0 (203.0.113.1, fd99::1)
//!                       rb - b0 (203.0.113.1, fd99::1)
//!
//! The kernel's own route leads to a; policies lead to b.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::super::instance::Router;
use super::super::policy::{Action, Device, Hop as NextHop, Match, Policy};
use super::super::spec::{Attach, Hook, RouterSpec};
use crate::kernel::bpf::Target;
use crate::kernel::link::{self, End, NewLink, Stats, kinds};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named;
use crate::kernel::{address, route};

pub const SERVER: &str = "203.0.113.1";
pub const SERVER6: &str = "fd99::1";

/// A namespace that is gone after the test.
pub struct Scratch {
    pub netns: named::Netns,
    pub netlink: Netlink,
}

impl Scratch {
    pub fn new(what: &str) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cnfr-{what}-{}-{number}", std::process::id());
        let (netns, netlink) = named::create(&name).expect("a namespace");
        Scratch { netns, netlink }
    }

    /// Writes below /proc/sys inside of the namespace.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.netns
            .fd
            .within(|| {
                std::fs::write(format!("/proc/sys/{path}"), value)
                    .map_err(|e| crate::Error::io("sysctl", &e).subject(path))
            })
            .expect("a setting");
    }

    pub fn socket(&self, address: &str, port: u16) -> UdpSocket {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let socket = self
            .netns
            .fd
            .within(|| UdpSocket::bind(address).map_err(|e| crate::Error::io("bind", &e)))
            .expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    }

    pub fn index(&self, name: &str) -> u32 {
        link::info_by_name(&self.netlink, name).expect(name).index
    }

    pub fn add_route(&self, dst: Option<&str>, via: &str) {
        let options = route::Options {
            dst: dst.map(|d| d.parse().unwrap()),
            via: Some(via.parse().unwrap()),
            ..route::Options::default()
        };
        route::add(&self.netlink, &options).expect("a route");
    }

    pub fn add_address(&self, link: &str, text: &str) {
        let options = address::Options::new(text.parse().unwrap());
        address::add(&self.netlink, self.index(link), &options).expect(text);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.netns.delete();
    }
}

pub fn veth(a: &Scratch, a_end: (&str, &[&str]), b: &Scratch, b_end: (&str, &[&str])) {
    let end = |(name, addresses): (&str, &[&str])| {
        let mut end = End::named(name);
        end.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        end
    };
    let mut pair = NewLink::new(&a.netlink, kinds::find("veth").unwrap(), end(a_end));
    pair.peer = Some((&b.netlink, end(b_end)));
    link::create(&pair).expect("a veth pair");
}

pub struct Net {
    pub client: Scratch,
    pub router: Scratch,
    pub a: Scratch,
    pub b: Scratch,
}

impl Net {
    pub fn new() -> Net {
        let net = Net {
            client: Scratch::new("c"),
            router: Scratch::new("r"),
            a: Scratch::new("a"),
            b: Scratch::new("b"),
        };
        let r = &net.router;
        r.sysctl("net/ipv4/ip_forward", "1");
        r.sysctl("net/ipv6/conf/all/forwarding", "1");
        veth(
            &net.client,
            ("c0", &["10.1.0.2/24", "fd01::2/64"]),
            r,
            ("rc", &["10.1.0.1/24", "fd01::1/64"]),
        );
        veth(
            &net.a,
            ("a0", &["10.2.0.2/24", "fd02::2/64"]),
            r,
            ("ra", &["10.2.0.1/24", "fd02::1/64"]),
        );
        veth(
            &net.b,
            ("b0", &["10.3.0.2/24", "fd03::2/64"]),
            r,
            ("rb", &["10.3.0.1/24", "fd03::1/64"]),
        );
        net.client.add_route(None, "10.1.0.1");
        net.client.add_route(Some("::/0"), "fd01::1");
        for (end, via, via6) in [(&net.a, "10.2.0.1", "fd02::1"), (&net.b, "10.3.0.1", "fd03::1")] {
            end.add_address("lo", "203.0.113.1/32");
            end.add_address("lo", "fd99::1/128");
            end.add_route(None, via);
            end.add_route(Some("::/0"), via6);
        }
        r.add_route(Some("203.0.113.0/24"), "10.2.0.2");
        r.add_route(Some("fd99::/64"), "fd02::2");
        net
    }

    pub fn router(&self, places: &[(&str, Hook)]) -> Router {
        let attach = places
            .iter()
            .map(|(name, hook)| Attach {
                target: Target::new(&self.router.netns.fd, self.router.index(name), *name),
                hook: *hook,
            })
            .collect();
        let netns = self.router.netns.fd.clone();
        let spec = RouterSpec { name: "test".into(), netns, attach, default: None };
        Router::new(spec).unwrap_or_else(|e| panic!("{e}\n{}", e.get_detail().unwrap_or_default()))
    }

    pub fn hop(&self, via: &str, dev: &str) -> NextHop {
        NextHop {
            via: Some(via.parse().unwrap()),
            dev: Some(Device { index: self.router.index(dev), name: dev.into() }),
            weight: 1,
            onlink: false,
        }
    }

    pub fn to_b(&self) -> Action {
        Action::Route(smallvec::smallvec![self.hop("10.3.0.2", "rb")])
    }

    pub fn to_b6(&self) -> Action {
        Action::Route(smallvec::smallvec![self.hop("fd03::2", "rb")])
    }

    /// Packets that b's link took in.
    pub fn b_received(&self) -> u64 {
        let stats = link::stats(&self.b.netlink, self.b.index("b0")).expect("statistics");
        Stats::get(&stats.rx, "packets")
    }

    /// Who gets a datagram from that client address and port: "a", "b" or "nobody".
    pub fn who(&self, from: (&str, u16), port: u16, payload: &[u8]) -> &'static str {
        let ip: IpAddr = from.0.parse().unwrap();
        let to = if ip.is_ipv4() { SERVER } else { SERVER6 };
        let (a, b) = (self.a.socket(to, port), self.b.socket(to, port));
        let sender = self.client.socket(from.0, from.1);
        sender.send_to(payload, (to, port)).expect("sent");
        for socket in [&a, &b] {
            socket.set_nonblocking(true).unwrap();
        }
        let mut buffer = vec![0; 70000];
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            if matches!(a.recv(&mut buffer), Ok(n) if n == payload.len()) {
                return "a";
            }
            if matches!(b.recv(&mut buffer), Ok(n) if n == payload.len()) {
                return "b";
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        "nobody"
    }
}

pub fn from(prefix: &str, action: Action) -> Policy {
    Policy::new(Match { from: Some(prefix.parse().unwrap()), ..Match::default() }, action)
}

pub fn to(prefix: &str, action: Action) -> Policy {
    Policy::new(Match { to: Some(prefix.parse().unwrap()), ..Match::default() }, action)
}
