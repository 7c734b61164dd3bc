//! Forwarding through 10,000 source policies beside 10,000 `ip rule`s.
//!
//! A sender, a router and a receiver in a row. One thread, pinned to one processor, puts UDP frames on the sender's veth;
//! the softirq that forwards them runs on the same processor, so the time until all have arrived is the whole path's:
//! sending, receiving, looking up, forwarding. The router's own table has no way to the destination: what arrives took a
//! policy, or a rule.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cnfscript::kernel::bpf::Target as Hooked;
use cnfscript::kernel::link::{self, Stats};
use cnfscript::kernel::route::{self, Options};
use cnfscript::kernel::rule::{self, Rule};
use cnfscript::kernel::{socket, sysctl};
use cnfscript::program::router::{
    Action, Attach, Device, Hook, Hop, Match, Policy, Router, RouterSpec,
};
use cnfscript::{Error, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::lookup::Random;
use super::report::{Target, compare, heading, median, side};
use super::scratch::{Scratch, veth};

const POLICIES: u32 = 10_000;
const ROUNDS: usize = 9;
/// Packets of a burst: few where each takes long.
const FAST: usize = 40_000;
const SLOW: usize = 1_000;

const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 2);
const TABLE: u32 = 100;

pub fn measure() -> Result<()> {
    // Only this thread is pinned, and it ends.
    std::thread::scope(|scope| scope.spawn(measure_pinned).join().expect("no panic"))
}

fn measure_pinned() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &one))
        .map_err(|e| Error::errno("bench", e).because("the sender cannot be pinned"))?;
    let [plain, policies, rules, quick] =
        [Path::new("p")?, Path::new("o")?, Path::new("u")?, Path::new("q")?];
    plain.by_default_route()?;
    let _router = policies.by_policies()?;
    rules.by_rules()?;
    quick.by_rules()?;
    sysctl::write(&quick.router.netns.fd, "net.ipv4.conf.in.accept_local", "1")?;
    let last = [POLICIES - 1; 64];
    let mut random = Random(7);
    let spread: Vec<u32> = (0..1024).map(|_| random.next() as u32 % POLICIES).collect();
    let bursts: [(&Path, &[u32], usize); 7] = [
        (&plain, &spread, FAST),
        (&policies, &last, FAST),
        (&policies, &spread, FAST),
        (&rules, &last, SLOW),
        (&rules, &spread, SLOW),
        (&quick, &last, SLOW),
        (&quick, &spread, SLOW),
    ];
    let mut times: [Vec<f64>; 7] = Default::default();
    for round in 0..=ROUNDS {
        for (times, (path, sources, count)) in times.iter_mut().zip(bursts) {
            let seconds = path.burst(sources, count)?;
            // The first round resolves neighbours.
            if round > 0 {
                times.push(seconds);
            }
        }
    }
    print(times.map(|all| median(&all)));
    Ok(())
}

fn print(medians: [f64; 7]) {
    let [plain, last, spread, rules_last, rules_spread, quick_last, quick_spread] = medians;
    heading(&format!(
        "Forwarding, the whole path of a packet: sent, routed by its source among {POLICIES}, received"
    ));
    println!(
        "  With rules, Linux walks them twice: for the way, and to check the source; accept_local spares the check."
    );
    let ours = |seconds| side("cnfscript", seconds);
    let (rules, quick) = ("ip rule", "ip rule with accept_local");
    let to_last = "the last policy's source";
    compare(to_last, &ours(last), &side(rules, rules_last), Target::Faster(25.0));
    compare(to_last, &ours(last), &side(quick, quick_last), Target::Faster(25.0));
    let evenly = "any policy's source";
    compare(evenly, &ours(spread), &side(rules, rules_spread), Target::None);
    compare(evenly, &ours(spread), &side(quick, quick_spread), Target::None);
    compare(evenly, &ours(spread), &side("one route, no policy", plain), Target::None);
}

/// A sender, a router, a receiver.
struct Path {
    sender: Scratch,
    router: Scratch,
    receiver: Scratch,
}

impl Path {
    fn new(name: &str) -> Result<Path> {
        let path = Path {
            sender: Scratch::new(&format!("{name}s"))?,
            router: Scratch::new(&format!("{name}r"))?,
            receiver: Scratch::new(&format!("{name}d"))?,
        };
        veth(&path.sender, ("out", "10.61.0.2/24"), &path.router, ("in", "10.61.0.1/24"))?;
        veth(&path.router, ("far", "10.62.0.1/24"), &path.receiver, ("end", "10.62.0.2/24"))?;
        sysctl::write(&path.router.netns.fd, "net.ipv4.ip_forward", "1")?;
        Ok(path)
    }

    fn by_default_route(&self) -> Result<()> {
        let options = Options { via: Some(FAR.into()), ..Options::default() };
        route::add(&self.router.netlink, &options)
    }

    fn by_rules(&self) -> Result<()> {
        let options = Options { via: Some(FAR.into()), table: Some(TABLE), ..Options::default() };
        route::add(&self.router.netlink, &options)?;
        for i in 0..POLICIES {
            let rule = Rule {
                from: Some(std::net::IpAddr::from(source(i)).into()),
                table: Some(TABLE),
                priority: Some(1000 + i),
                ..Rule::default()
            };
            rule::add(&self.router.netlink, &rule)?;
        }
        Ok(())
    }

    fn by_policies(&self) -> Result<Router> {
        let index = |name| link::info_by_name(&self.router.netlink, name).map(|info| info.index);
        let netns = self.router.netns.fd.clone();
        let target = Hooked::new(&netns, index("in")?, "in");
        let router = Router::new(RouterSpec {
            name: "bench".to_owned(),
            netns,
            attach: vec![Attach { target, hook: Hook::Ingress }],
            default: None,
        })?;
        let hop = Hop {
            via: Some(FAR.into()),
            dev: Some(Device { index: index("far")?, name: "far".into() }),
            weight: 1,
            onlink: false,
        };
        let policies = (0..POLICIES).map(|i| {
            let from = source(i).to_string().parse().ok();
            Policy::new(
                Match { from, ..Match::default() },
                Action::Route(smallvec::smallvec![hop.clone()]),
            )
        });
        router.set(policies.collect())?;
        Ok(router)
    }

    /// Sends `count` packets from `sources` in turn; seconds per packet until all have arrived.
    fn burst(&self, sources: &[u32], count: usize) -> Result<f64> {
        let out = link::info_by_name(&self.sender.netlink, "out")?;
        let router = link::info_by_name(&self.router.netlink, "in")?;
        let (from, to) = (mac(out.mac)?, mac(router.mac)?);
        let frames: Vec<Vec<u8>> = sources.iter().map(|&i| frame(from, to, source(i))).collect();
        let frames = frames.iter().map(Vec::as_slice).cycle().take(count);
        let before = self.received()?;
        let start = Instant::now();
        socket::send_frames(&self.sender.netns.fd, "bench", out.index, frames, None)?;
        let (mut arrived, mut end) = (0, Instant::now());
        while arrived < count as u64 && end.elapsed() < Duration::from_millis(200) {
            let now = self.received()? - before;
            if now != arrived {
                (arrived, end) = (now, Instant::now());
            }
        }
        // ARP may add one or two; a first burst may wait for it.
        match arrived * 100 >= count as u64 * 98 {
            true => Ok((end - start).as_secs_f64() / arrived as f64),
            false => {
                Err(Error::new("bench", "EIO", format!("{arrived} of {count} packets arrived"))
                    .subject(self.router.netns.name.clone()))
            }
        }
    }

    fn received(&self) -> Result<u64> {
        let end = link::info_by_name(&self.receiver.netlink, "end")?;
        Ok(Stats::get(&link::stats(&self.receiver.netlink, end.index)?.rx, "packets"))
    }
}

fn source(i: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST_SOURCE) + i)
}

fn mac(text: Option<String>) -> Result<[u8; 6]> {
    link::parse_mac(&text.unwrap_or_default())
}

/// UDP without a checksum, to a port where nobody listens, nor is the receiver the destination.
fn frame(from: [u8; 6], to: [u8; 6], source: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    let built = etherparse::PacketBuilder::ethernet2(from, to)
        .ipv4(source.octets(), DESTINATION.octets(), 64)
        .udp(9, 9)
        .write(&mut frame, &[0; 18]);
    built.expect("a vector takes all that is written");
    frame
}
