//! The link kinds and queueing disciplines as features: each really made once, in a namespace that nobody sees.
//!
//! They join those of the eBPF layer, so that one list answers `bpf.features()` and a test's `t:requires("vrf")`.

use std::sync::Once;

use super::bpf::probe::{self, Feature, Group, Probe, Row, scratch_netns};
use super::link::{self, End, NewLink, Value, kinds};
use super::netlink::Netlink;
use super::qdisc::{self, Fq, FqCodel, Htb, Netem, Qdisc, Tbf};
use crate::Result;

/// Name and how it is tried.
type Tried = (&'static str, fn() -> Result<Feature>);

/// `netkit` itself is a probe of the eBPF layer.
const LINKS: &[Tried] = &[
    ("veth", || kind("veth", &[])),
    ("netkit_scrub", || netkit("scrub", Value::Text("none".into()))),
    ("netkit_headroom", || netkit("headroom", Value::Number(32))),
    ("bridge", || kind("bridge", &[])),
    ("bridge_vlan", || kind("bridge", &[("vlan_filtering", Value::Bool(true))])),
    ("vlan", || kind("vlan", &[("id", Value::Number(7))])),
    ("vxlan", || kind("vxlan", &[("id", Value::Number(7)), ("dstport", Value::Number(4789))])),
    ("geneve", || kind("geneve", &[("id", Value::Number(7)), ("remote", ip("10.0.0.2"))])),
    ("dummy", || kind("dummy", &[])),
    ("ifb", || kind("ifb", &[])),
    ("macvlan", || kind("macvlan", &[])),
    ("ipvlan", || kind("ipvlan", &[])),
    ("vrf", || kind("vrf", &[("table", Value::Number(100))])),
    ("bond", || kind("bond", &[])),
    ("tun", || kind("tun", &[])),
    ("gre", || kind("gre", &[("remote", ip("10.0.0.2"))])),
    ("gretap", || kind("gretap", &[("remote", ip("10.0.0.2"))])),
    ("ip6gre", || kind("ip6gre", &[("remote", ip("fd00::2"))])),
    ("ip6gretap", || kind("ip6gretap", &[("remote", ip("fd00::2"))])),
    ("ipip", || kind("ipip", &[("remote", ip("10.0.0.2"))])),
    ("sit", || kind("sit", &[("remote", ip("10.0.0.2"))])),
    ("ip6tnl", || kind("ip6tnl", &[("remote", ip("fd00::2"))])),
    ("wireguard", || kind("wireguard", &[])),
];

const QDISCS: &[Tried] = &[
    ("netem", || qdisc(&Qdisc::Netem(Netem { delay: 1_000_000, ..Netem::default() }))),
    ("fq", || qdisc(&Qdisc::Fq(Fq::default()))),
    ("fq_codel", || qdisc(&Qdisc::FqCodel(FqCodel::default()))),
    ("tbf", || {
        let latency = Some(50_000_000);
        qdisc(&Qdisc::Tbf(Tbf { rate: 8_000_000, burst: 10_000, limit: None, latency }))
    }),
    ("htb", || qdisc(&Qdisc::Htb(Htb { rate: 8_000_000, ..Htb::default() }))),
];

/// Makes them known to [`probe::has`]; nothing is tried before it is asked for.
pub fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| probe::register(rows()));
}

fn rows() -> impl Iterator<Item = Row> {
    let row = |group, (name, probe): &Tried, without| Row {
        name: (*name).to_owned(),
        group,
        probe: Probe::Call(*probe),
        without,
    };
    let links = LINKS.iter().map(move |tried| row(Group::Link, tried, without_link(tried.0)));
    let qdiscs = QDISCS.iter().map(move |tried| {
        row(Group::Qdisc, tried, format!("l:qdisc{{kind = \"{}\"}} is refused", tried.0))
    });
    links.chain(qdiscs)
}

fn without_link(name: &str) -> String {
    match name {
        "netkit_scrub" => "netkit.pair refuses scrub=".into(),
        "netkit_headroom" => "netkit.pair refuses headroom= and tailroom=".into(),
        "bridge_vlan" => "link.bridge refuses vlan_filtering=".into(),
        _ => format!("link.{name} is refused"),
    }
}

fn ip(text: &str) -> Value {
    Value::Address(text.parse().expect("it is an address"))
}

/// Tries a link of that kind, on one end of a pair where it needs another link.
fn kind(name: &str, values: &[(&str, Value)]) -> Result<Feature> {
    let netlink = Netlink::open(&scratch_netns()?)?;
    let kind = kinds::find(name).expect("the table has it");
    let mut new = NewLink::new(&netlink, kind, End { up: false, ..End::named("probed") });
    new.values = values.iter().map(|(word, value)| ((*word).to_owned(), value.clone())).collect();
    if kind.is_pair() {
        new.peer = Some((&netlink, End { up: false, ..End::named("peer") }));
    }
    if kind.on_link {
        match pair(&netlink) {
            Ok(index) => new.link = Some(index),
            Err(error) => return answer(Err(error)),
        }
    }
    answer(link::create(&new).map(drop))
}

fn netkit(word: &str, value: Value) -> Result<Feature> {
    match probe::has("netkit")? {
        there if there.available => kind("netkit", &[(word, value)]),
        missing => Ok(missing),
    }
}

fn qdisc(wanted: &Qdisc) -> Result<Feature> {
    let netlink = Netlink::open(&scratch_netns()?)?;
    answer(pair(&netlink).and_then(|index| qdisc::replace(&netlink, index, wanted)))
}

/// A veth pair; the index of its first end.
fn pair(netlink: &Netlink) -> Result<u32> {
    let kind = kinds::find("veth").expect("the table has it");
    let mut new = NewLink::new(netlink, kind, End { up: false, ..End::named("below") });
    new.peer = Some((netlink, End { up: false, ..End::named("below-peer") }));
    Ok(link::create(&new)?.index)
}

/// Without privileges nothing is known; any other refusal is the kernel's "no".
fn answer(tried: Result<()>) -> Result<Feature> {
    match tried {
        Ok(()) => Ok(Feature::yes()),
        Err(error) if error.is("EPERM") => Err(error),
        Err(error) => Ok(Feature::no(error.message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_discipline_is_a_feature() {
        register();
        let known = probe::rows();
        for kind in kinds::KINDS {
            assert!(known.iter().any(|row| row.name == kind.name), "{}", kind.name);
        }
        for (name, _) in LINKS.iter().chain(QDISCS) {
            let feature = probe::has(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            println!("{name}: {feature:?}");
            assert_eq!(feature.available, feature.reason.is_empty(), "{name}");
        }
        assert!(probe::has("veth").unwrap().available);
    }
}
