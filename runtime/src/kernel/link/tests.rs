//! Every kind of link on real namespaces.

use super::*;
use crate::kernel::netns::named;

/// A namespace that is gone after the test, however it ends.
pub struct Scratch(pub named::Netns, pub Netlink);

impl Scratch {
    pub fn new(what: &str) -> Self {
        let name = format!("cnft-{what}-{:x}", random());
        let (netns, netlink) = named::create(&name).unwrap();
        Scratch(netns, netlink)
    }

    /// A pair in it: `a`, which has these addresses, and `b`.
    pub fn veth(&self, addresses: &[&str]) -> Created {
        let mut pair = NewLink::new(&self.1, kind("veth"), End::named("a"));
        pair.end.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        pair.peer = Some((&self.1, End::named("b")));
        create(&pair).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.0.delete();
    }
}

fn kind(name: &str) -> &'static Kind {
    kinds::find(name).unwrap()
}

fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}

#[test]
fn veth_across_namespaces() {
    let (a, b) = (Scratch::new("va"), Scratch::new("vb"));
    let mut link = NewLink::new(&a.1, kind("veth"), End::named("left"));
    link.end.addresses = vec!["10.1.0.1/24".parse().unwrap(), "fd00:1::1/64".parse().unwrap()];
    link.end.mtu = Some(1400);
    link.end.mac = Some([2, 0, 0, 0, 0, 1]);
    link.end.alias = Some("an alias".into());
    let mut peer = End::named("right");
    peer.addresses = vec!["10.1.0.2/24".parse().unwrap()];
    link.peer = Some((&b.1, peer));
    let made = create(&link).unwrap();
    let left = info(&a.1, made.index).unwrap();
    assert_eq!((left.name.as_str(), left.kind.as_str(), left.mtu), ("left", "veth", 1400));
    assert_eq!(left.mac.as_deref(), Some("02:00:00:00:00:01"));
    assert_eq!(left.alias.as_deref(), Some("an alias"));
    assert!(left.up && left.carrier && left.running, "{left:?}");
    assert_eq!(left.link, made.peer_index);
    assert_eq!(named::nsid(&a.1, &b.0.fd).unwrap(), left.link_netnsid);
    assert!(left.link_netnsid.is_some());
    assert_eq!(named::nsid(&a.1, &Scratch::new("vc").0.fd).unwrap(), None);
    assert_ne!(made.peer_index, Some(made.index));
    let right = info_by_name(&b.1, "right").unwrap();
    assert_eq!((right.index, right.up), (made.peer_index.unwrap(), true));
    let addresses = address::list(&a.1, Some(made.index)).unwrap();
    let v6 = addresses.iter().find(|x| x.address == "fd00:1::1/64".parse().unwrap()).unwrap();
    assert!(!v6.tentative);
    let error = create(&link).unwrap_err();
    assert!(error.is("EEXIST"), "{error}");
    assert!(error.to_string().contains(&a.0.name), "{error}");
}

/// Options that make each kind, with what `info` must then say of one of them.
fn every_kind() -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    let ip = |text: &str| Value::Address(text.parse().unwrap());
    vec![
        (
            "bridge",
            vec![
                ("forward_delay", Value::Number(4)),
                ("stp", text("off")),
                ("ageing_time", Value::Number(60)),
            ],
        ),
        ("vlan", vec![("id", Value::Number(100)), ("protocol", text("802.1ad"))]),
        (
            "vxlan",
            vec![
                ("id", Value::Number(7)),
                ("dstport", Value::Number(4789)),
                ("local", ip("10.0.0.1")),
                ("remote", ip("10.0.0.2")),
                ("learning", Value::Bool(false)),
            ],
        ),
        ("geneve", vec![("id", Value::Number(7)), ("remote", ip("fd00::2"))]),
        ("dummy", vec![]),
        ("ifb", vec![]),
        ("macvlan", vec![("mode", text("bridge"))]),
        ("ipvlan", vec![("mode", text("l3"))]),
        ("vrf", vec![("table", Value::Number(100))]),
        ("bond", vec![("mode", text("active-backup")), ("miimon", Value::Number(50))]),
        ("tun", vec![("mode", text("tap")), ("vnet_hdr", Value::Bool(true))]),
        (
            "gre",
            vec![
                ("local", ip("10.0.0.1")),
                ("remote", ip("10.0.0.2")),
                ("okey", Value::Number(5)),
                ("ttl", Value::Number(64)),
            ],
        ),
        ("gretap", vec![("local", ip("10.0.0.1")), ("remote", ip("10.0.0.3"))]),
        ("ip6gre", vec![("local", ip("fd00::1")), ("remote", ip("fd00::2"))]),
        ("ipip", vec![("local", ip("10.0.0.1")), ("remote", ip("10.0.0.2"))]),
        ("sit", vec![("local", ip("10.0.0.1")), ("remote", ip("10.0.0.2"))]),
        (
            "ip6tnl",
            vec![("local", ip("fd00::1")), ("remote", ip("fd00::2")), ("mode", text("ip6ip6"))],
        ),
        ("wireguard", vec![]),
    ]
}

/// A veth pair to stand things on.
fn pair(scratch: &Scratch, a: &str, b: &str) -> Created {
    let mut link = NewLink::new(&scratch.1, kind("veth"), End::named(a));
    link.peer = Some((&scratch.1, End::named(b)));
    create(&link).unwrap()
}

#[test]
fn every_kind_is_made_as_asked_or_named_as_missing() {
    let scratch = Scratch::new("kinds");
    let below = pair(&scratch, "below", "other");
    for (name, values) in every_kind() {
        let mut link = NewLink::new(&scratch.1, kind(name), End::named(format!("x-{name}")));
        link.values = values.iter().map(|(w, v)| ((*w).to_owned(), v.clone())).collect();
        link.link = link.kind.on_link.then_some(below.index);
        match create(&link) {
            Ok(made) => {
                println!("{name}: made");
                let now = info(&scratch.1, made.index).unwrap();
                assert_eq!((now.kind.as_str(), now.name.as_str()), (name, &*link.end.name));
                assert!(now.up, "{now:?}");
                for asked in &values {
                    assert!(now.data.contains(asked), "{name}: {asked:?} in {:?}", now.data);
                }
                delete(&scratch.1, made.index).unwrap();
            }
            Err(error) => {
                println!("{error}");
                assert!(error.is("EOPNOTSUPP"), "{name}: {error}");
                assert!(error.to_string().contains("CONFIG_"), "{name}: {error}");
            }
        }
        assert!(info_by_name(&scratch.1, &link.end.name).unwrap_err().is("ENODEV"));
    }
}

#[test]
fn netkit_in_every_manner_or_named_as_missing() {
    let (a, b) = (Scratch::new("nka"), Scratch::new("nkb"));
    for (mode, policy) in [("l2", "blackhole"), ("l3", "forward")] {
        let mut link = NewLink::new(&a.1, kind("netkit"), End::named("nk0"));
        link.values = vec![
            ("mode".into(), text(mode)),
            ("policy".into(), text(policy)),
            ("peer_policy".into(), text("blackhole")),
        ];
        link.end.addresses = vec!["10.9.0.1/24".parse().unwrap()];
        let mut peer = End::named("nk1");
        peer.addresses = vec!["10.9.0.2/24".parse().unwrap(), "fd00:9::2/64".parse().unwrap()];
        link.peer = Some((&b.1, peer));
        match create(&link) {
            Ok(made) => {
                let now = info(&a.1, made.index).unwrap();
                assert!(now.data.contains(&("mode", text(mode))), "{now:?}");
                assert!(now.data.contains(&("policy", text(policy))), "{now:?}");
                assert!(now.running, "{now:?}");
                assert!(info_by_name(&b.1, "nk1").unwrap().up);
                delete(&a.1, made.index).unwrap();
            }
            Err(error) => {
                println!("{error}");
                assert!(error.is("EOPNOTSUPP") && error.op() == "netkit.pair", "{error}");
            }
        }
    }
    // Younger options work, or the kernel that would ignore them is named.
    for (word, value) in [("scrub", text("none")), ("headroom", Value::Number(32))] {
        let mut link = NewLink::new(&a.1, kind("netkit"), End::named("nk0"));
        link.values = vec![(word.into(), value.clone())];
        link.peer = Some((&b.1, End::named("nk1")));
        match create(&link) {
            Ok(made) => {
                assert!(info(&a.1, made.index).unwrap().data.contains(&(word, value)));
                delete(&a.1, made.index).unwrap();
            }
            Err(error) => {
                println!("{error}");
                assert!(error.is("EOPNOTSUPP"), "{error}");
                assert!(info_by_name(&b.1, "nk1").unwrap_err().is("ENODEV"));
            }
        }
    }
    let mut link = NewLink::new(&a.1, kind("netkit"), End::named("nk0"));
    link.end.mac = Some([2, 0, 0, 0, 0, 1]);
    link.peer = Some((&b.1, End::named("nk1")));
    let error = create(&link).unwrap_err();
    assert!(error.to_string().contains("l3 mode"), "{error}");
}

#[test]
fn mistakes_are_explained_and_leave_nothing() {
    let scratch = Scratch::new("wrong");
    let before = list(&scratch.1).unwrap().len();
    let refused = |change: &dyn Fn(&mut NewLink<'_>), code: &str, says: &str| {
        let mut link = NewLink::new(&scratch.1, kind("bridge"), End::named("br0"));
        change(&mut link);
        let error = create(&link).unwrap_err();
        let shown = format!("{error} [{}]", error.get_hint().unwrap_or(""));
        assert!(error.is(code) && shown.contains(says), "{shown}");
    };
    refused(
        &|l| l.end.name = "a-name-of-sixteen".into(),
        "EINVAL",
        "at most 15 bytes, this has 17",
    );
    refused(
        &|l| l.values = vec![("vlan_filterin".into(), Value::Bool(true))],
        "EINVAL",
        "did you mean \"vlan_filtering\"",
    );
    refused(&|l| l.values = vec![("stp".into(), text("maybe"))], "EINVAL", "one of off, on");
    refused(
        &|l| l.values = vec![("priority".into(), Value::Number(70_000))],
        "EINVAL",
        "at most 65535",
    );
    refused(&|l| l.end.name = "lo".into(), "EEXIST", &scratch.0.name);
    refused(&|l| l.end.master = Some(1), "EOPNOTSUPP", "the master must be a bridge");
    refused(&|l| l.ports = vec![999_999], "ENODEV", "br0");
    refused(&|l| l.end.addresses = vec!["10.0.0.1/24".parse().unwrap(); 2], "EEXIST", "br0");
    refused(&|l| l.kind = kind("macvlan"), "EINVAL", "the link it stands on");
    refused(&|l| l.kind = kind("veth"), "EINVAL", "needs a peer");
    assert_eq!(list(&scratch.1).unwrap().len(), before);
}

#[test]
fn links_change_move_and_go() {
    let (a, b) = (Scratch::new("ca"), Scratch::new("cb"));
    let made = pair(&a, "one", "two");
    let peer = made.peer_index.unwrap();
    let mut link = NewLink::new(&a.1, kind("bridge"), End::named("br0"));
    link.ports = vec![made.index];
    let bridge = create(&link).unwrap().index;
    assert_eq!(info(&a.1, made.index).unwrap().master, Some(bridge));
    let change = Change {
        mtu: Some(1300),
        mac: Some([2, 0, 0, 0, 0, 9]),
        master: Some(0),
        alias: Some("x".into()),
        txqueuelen: Some(7),
        group: Some(3),
        up: Some(false),
        ..Change::default()
    };
    set(&a.1, made.index, &change).unwrap();
    let now = info(&a.1, made.index).unwrap();
    assert_eq!((now.mtu, now.txqueuelen, now.group, now.up), (1300, 7, 3, false));
    assert_eq!((now.master, now.alias.as_deref()), (None, Some("x")));
    set(&a.1, made.index, &Change { alias: Some(String::new()), ..Change::default() }).unwrap();
    assert_eq!(info(&a.1, made.index).unwrap().alias, None);
    assert!(set(&a.1, made.index, &Change { mtu: Some(1), ..Change::default() }).is_err());
    rename(&a.1, made.index, "uno").unwrap();
    assert!(rename(&a.1, made.index, "br0").unwrap_err().is("EEXIST"));
    let there = move_to(&a.1, peer, &b.1, Some("due")).unwrap();
    assert_eq!(info_by_name(&b.1, "due").unwrap().index, there);
    assert!(info(&a.1, made.index).unwrap().link_netnsid.is_some());
    let counted = stats(&b.1, there).unwrap();
    assert_eq!(Stats::get(&counted.rx, "errors"), 0);
    assert!(counted.rx.len() > 10 && counted.tx.len() > 8);
    assert!(is_there(&a.1, made.index) && is_there(&b.1, there));
    delete(&a.1, made.index).unwrap();
    assert!(info_by_name(&b.1, "due").unwrap_err().is("ENODEV"));
    assert!(delete(&a.1, made.index).unwrap_err().is("ENODEV"));
    assert!(!is_there(&a.1, made.index) && !is_there(&b.1, there));
    let hint = info_by_name(&a.1, "br1").unwrap_err();
    assert_eq!(hint.get_hint(), Some("did you mean \"br0\"?"));
}

#[test]
fn many_links_are_made_and_deleted_together() {
    let scratch = Scratch::new("many");
    let links: Vec<_> = (0..300)
        .map(|i| {
            let mut link = NewLink::new(&scratch.1, kind("veth"), End::named(format!("a{i}")));
            link.peer = Some((&scratch.1, End::named(format!("b{i}"))));
            link
        })
        .collect();
    let made: Vec<_> = create_many(&links).into_iter().map(|made| made.unwrap().index).collect();
    assert_eq!(list(&scratch.1).unwrap().len(), 601);
    // One is gone already, and one that nobody named stays.
    delete(&scratch.1, made[5]).unwrap();
    let start = std::time::Instant::now();
    delete_many(&scratch.1, &made[..299]).unwrap();
    println!("298 pairs deleted in {:?}", start.elapsed());
    assert_eq!(list(&scratch.1).unwrap().len(), 3);
    delete_many(&scratch.1, &made).unwrap();
    // Loopback cannot be deleted; the others go all the same.
    let last = pair(&scratch, "x", "y");
    assert!(delete_many(&scratch.1, &[1, last.index]).unwrap_err().is("EOPNOTSUPP"));
    assert_eq!(list(&scratch.1).unwrap().len(), 1);
}

#[test]
fn a_chosen_index_that_is_taken_is_refused() {
    let scratch = Scratch::new("index");
    let made = pair(&scratch, "a", "b");
    let mut link = NewLink::new(&scratch.1, kind("bridge"), End::named("br0"));
    link.end.index = Some(made.index);
    let error = create(&link).unwrap_err();
    assert!(error.is("EBUSY") || error.is("EEXIST"), "{error}");
    assert_eq!(info(&scratch.1, made.index).unwrap().name, "a");
}

#[test]
fn an_option_that_the_kernel_lacks_is_named() {
    let scratch = Scratch::new("option");
    let mut link = NewLink::new(&scratch.1, kind("bridge"), End::named("br0"));
    link.values = vec![("vlan_filtering".into(), Value::Bool(true))];
    match create(&link) {
        Ok(made) => {
            let now = info(&scratch.1, made.index).unwrap();
            assert!(now.data.contains(&("vlan_filtering", Value::Bool(true))), "{now:?}");
        }
        Err(error) => {
            assert!(error.is("EOPNOTSUPP"), "{error}");
            assert!(error.get_hint().unwrap().contains("vlan_filtering"), "{error}");
        }
    }
}

#[test]
fn a_link_stands_on_one_of_another_namespace() {
    let (a, b) = (Scratch::new("lowa"), Scratch::new("lowb"));
    let below = pair(&a, "below", "other");
    let mut link = NewLink::new(&b.1, kind("macvlan"), End::named("mv0"));
    link.link = Some(below.index);
    link.end.addresses = vec!["10.8.0.1/24".parse().unwrap(), "fd00:8::1/64".parse().unwrap()];
    let made = create_on(&link, &a.1).unwrap();
    let now = info(&b.1, made.index).unwrap();
    assert_eq!((now.name.as_str(), now.up, now.link), ("mv0", true, Some(below.index)));
    assert_eq!(
        address::list(&b.1, Some(made.index))
            .unwrap()
            .iter()
            .filter(|a| a.scope == "global")
            .count(),
        2
    );
    let error = create_on(&link, &a.1).unwrap_err();
    assert!(error.is("EEXIST") && error.to_string().contains(&b.0.name), "{error}");
    link.link = Some(999_999);
    link.end.name = "mv1".into();
    assert!(create_on(&link, &a.1).unwrap_err().is("ENODEV"));
}
