//! Routes, rules and neighbours on a real namespace with two links, IPv4 and IPv6 alike.

use super::*;
use crate::kernel::link::tests::Scratch;
use crate::kernel::{address, neigh, rule};

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace with a link that has addresses; returns its index.
fn with_link(what: &str) -> (Scratch, u32) {
    let scratch = Scratch::new(what);
    let index = scratch.veth(&["10.3.0.1/24", "fd00:3::1/64"]).index;
    (scratch, index)
}

/// Routes of one table that are not the kernel's own.
fn ours(netlink: &Netlink, ipv6: bool) -> Vec<RouteInfo> {
    let filter = Filter { table: Some(ALL_TABLES), ipv6: Some(ipv6), ..Filter::default() };
    let mut routes = list(netlink, &filter).unwrap();
    routes.retain(|route| route.protocol != 2);
    routes
}

#[test]
fn routes_of_both_families() {
    let (scratch, dev) = with_link("route");
    let netlink = &scratch.1;
    for (ipv6, via, dst, src) in [
        (false, ip("10.3.0.2"), net("10.8.0.0/16"), ip("10.3.0.1")),
        (true, ip("fd00:3::2"), net("fd00:8::/32"), ip("fd00:3::1")),
    ] {
        let options = Options {
            dst: Some(dst),
            via: Some(via),
            dev: Some(dev),
            src: Some(src),
            metric: Some(77),
            mtu: Some(1400),
            table: Some(1000),
            protocol: Some(protocol("static").unwrap()),
            ..Options::default()
        };
        add(netlink, &options).unwrap();
        let error = add(netlink, &options).unwrap_err();
        assert!(error.is("EEXIST") && error.to_string().contains("via"), "{error}");
        let now = ours(netlink, ipv6);
        assert_eq!(now.len(), 1, "{now:?}");
        let read = now[0].options();
        assert_eq!((read.dst, read.via, read.dev), (options.dst, options.via, options.dev));
        assert_eq!((read.src, read.metric, read.mtu), (options.src, options.metric, options.mtu));
        assert_eq!((read.table, read.protocol), (options.table, options.protocol));
        replace(netlink, &Options { mtu: Some(1300), ..options.clone() }).unwrap();
        assert_eq!(ours(netlink, ipv6)[0].mtu, Some(1300));
        delete(netlink, &ours(netlink, ipv6)[0].options()).unwrap();
        assert!(delete(netlink, &options).unwrap_err().is("ESRCH"));

        let default = Options { via: Some(via), ..Options::default() };
        add(netlink, &default).unwrap();
        let got = get(netlink, if ipv6 { ip("2001:db8::1") } else { ip("8.8.8.8") }, None).unwrap();
        assert_eq!((got.via, got.dev), (Some(via), Some(dev)));
        let filter = Filter { ipv6: Some(ipv6), dst: Some(None), ..Filter::default() };
        assert_eq!(list(netlink, &filter).unwrap().len(), 1);
        delete(netlink, &default).unwrap();

        for word in ["blackhole", "unreachable", "prohibit", "throw"] {
            let options =
                Options { dst: Some(dst), kind: Some(kind(word).unwrap()), ..Options::default() };
            add(netlink, &options).unwrap();
            assert_eq!(kind_name(ours(netlink, ipv6)[0].kind), word);
            delete(netlink, &options).unwrap();
        }
        assert!(ours(netlink, ipv6).is_empty());
    }
}

#[test]
fn nexthops_ipv6_gateways_and_onlink() {
    let (scratch, dev) = with_link("hops");
    let netlink = &scratch.1;
    let hop = |via, weight| NextHop { via: Some(via), dev: Some(dev), weight, onlink: false };
    for (dst, a, b) in [
        (net("10.8.0.0/16"), ip("10.3.0.2"), ip("10.3.0.3")),
        (net("fd00:8::/32"), ip("fd00:3::2"), ip("fd00:3::3")),
    ] {
        let nexthops = vec![hop(a, 1), hop(b, 3)];
        let options = Options { dst: Some(dst), nexthops: nexthops.clone(), ..Options::default() };
        add(netlink, &options).unwrap();
        let now = ours(netlink, dst.is_ipv6());
        assert_eq!(now.len(), 1, "{now:?}");
        assert_eq!(now[0].nexthops, nexthops);
        delete(netlink, &now[0].options()).unwrap();
    }
    let over6 = Options {
        dst: Some(net("10.9.0.0/16")),
        via: Some(ip("fd00:3::2")),
        dev: Some(dev),
        ..Options::default()
    };
    add(netlink, &over6).unwrap();
    assert_eq!(ours(netlink, false)[0].via, over6.via);
    delete(netlink, &over6).unwrap();
    let far = Options {
        dst: Some(net("10.9.0.0/16")),
        via: Some(ip("192.0.2.1")),
        dev: Some(dev),
        ..Options::default()
    };
    let error = add(netlink, &far).unwrap_err();
    assert!(error.is("ENETUNREACH") && error.get_hint().unwrap().contains("onlink"), "{error}");
    add(netlink, &Options { onlink: true, ..far.clone() }).unwrap();
    assert!(ours(netlink, false)[0].onlink);
    let wrong = Options { via: Some(ip("10.3.0.2")), ..Options::default() };
    let wrong = Options { dst: Some(net("fd00:8::/32")), ..wrong };
    assert!(add(netlink, &wrong).unwrap_err().is("EINVAL"));
    assert!(add(netlink, &over6).unwrap_err().is("EEXIST"));
}

#[test]
fn addresses() {
    let (scratch, dev) = with_link("addr");
    let netlink = &scratch.1;
    for (text, peer) in [("10.4.0.1/32", "10.4.0.2"), ("fd00:4::1/128", "fd00:4::2")] {
        let options = address::Options { peer: Some(ip(peer)), ..address::Options::new(net(text)) };
        address::add(netlink, dev, &options).unwrap();
        assert!(address::add(netlink, dev, &options).unwrap_err().is("EEXIST"));
        let now = address::list(netlink, Some(dev)).unwrap();
        let found = now.iter().find(|a| a.address == net(text)).unwrap();
        assert_eq!((found.peer, found.tentative), (Some(ip(peer)), false));
        assert_eq!(found.broadcast, None);
    }
    address::delete(netlink, dev, net("fd00:3::1/64")).unwrap();
    let gone = address::delete(netlink, dev, net("fd00:3::1/64")).unwrap_err();
    assert!(gone.is("EADDRNOTAVAIL"), "{gone}");
    let several = ["10.5.0.1/24", "10.5.1.1/24"].map(|a| address::Options::new(net(a)));
    address::add_many(netlink, dev, &several).unwrap();
    assert!(address::add(netlink, 999_999, &several[0]).unwrap_err().is("ENODEV"));
}

#[test]
fn rules_of_both_families() {
    let (scratch, _) = with_link("rule");
    let netlink = &scratch.1;
    for (ipv6, from, to) in [
        (false, net("10.0.0.0/8"), net("192.168.0.0/16")),
        (true, net("fd00::/16"), net("2001:db8::/32")),
    ] {
        let before = rule::list(netlink, Some(ipv6)).unwrap();
        let full = rule::Rule {
            ipv6,
            from: Some(from),
            to: Some(to),
            iif: Some("a".into()),
            fwmark: Some(0x10),
            fwmask: Some(0xff),
            ipproto: Some(6),
            dport: Some((80, 88)),
            table: Some(1000),
            priority: Some(500),
            protocol: Some(4),
            ..rule::Rule::default()
        };
        rule::add(netlink, &full).unwrap();
        assert!(rule::add(netlink, &full).unwrap_err().is("EEXIST"));
        let now = rule::list(netlink, Some(ipv6)).unwrap();
        assert!(now.contains(&full), "{now:?}");
        rule::delete(netlink, &full).unwrap();
        assert!(rule::delete(netlink, &full).unwrap_err().is("ENOENT"));
        let block = rule::Rule {
            ipv6,
            priority: Some(9),
            protocol: Some(0),
            action: rule::Action::Prohibit,
            ..rule::Rule::default()
        };
        rule::add(netlink, &block).unwrap();
        assert!(rule::list(netlink, Some(ipv6)).unwrap().contains(&block));
        rule::delete(netlink, &block).unwrap();
        assert_eq!(rule::list(netlink, Some(ipv6)).unwrap(), before);
    }
}

#[test]
fn neighbours_of_both_families() {
    let (scratch, dev) = with_link("neigh");
    let netlink = &scratch.1;
    for dst in [ip("10.3.0.9"), ip("fd00:3::9")] {
        let lladdr = Some(vec![2, 0, 0, 0, 0, 9]);
        let options = neigh::Options { dst, dev, lladdr, state: None, proxy: false };
        neigh::add(netlink, &options).unwrap();
        assert!(neigh::add(netlink, &options).unwrap_err().is("EEXIST"));
        let other = neigh::Options { lladdr: Some(vec![2, 0, 0, 0, 0, 8]), ..options.clone() };
        neigh::replace(netlink, &other).unwrap();
        let now = neigh::list(netlink, Some(dev)).unwrap();
        let found = now.iter().find(|n| n.dst == dst).unwrap();
        assert_eq!(found.lladdr.as_deref(), Some("02:00:00:00:00:08"));
        assert_eq!(found.state, "permanent");
        neigh::delete(netlink, &options).unwrap();
        assert!(neigh::list(netlink, Some(dev)).unwrap().iter().all(|n| n.dst != dst));
        assert!(neigh::delete(netlink, &options).unwrap_err().is("ENOENT"));
    }
}
