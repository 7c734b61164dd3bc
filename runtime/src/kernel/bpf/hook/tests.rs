//! Every hook on a real veth pair, in a namespace of its own.

use super::*;
use crate::kernel::bpf::object::Object;
use crate::kernel::bpf::pinned::{self, Pinned};
use crate::kernel::bpf::probe;
use crate::kernel::bpf::testing::{delete_link, load, netkit, transmit, veth};
use crate::kernel::bpf::{Map, MapKind, MapSpec, Value};

impl Order {
    fn first() -> Self {
        Order { first: true, ..Order::default() }
    }

    fn before(anchor: Anchor) -> Self {
        Order { before: Some(anchor), ..Order::default() }
    }

    fn after(anchor: Anchor) -> Self {
        Order { after: Some(anchor), ..Order::default() }
    }
}

fn programs() -> Object {
    load(
        r#"
SEC("tc") int one(struct __sk_buff *skb) { return -1; }
SEC("tc") int two(struct __sk_buff *skb) { return -1; }
SEC("tc") int three(struct __sk_buff *skb) { return -1; }
SEC("tc") int four(struct __sk_buff *skb) { return 0; }
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp.frags") int frags(struct xdp_md *ctx) { return XDP_PASS; }"#,
    )
}

fn order(target: &Target, hook: Hook) -> Vec<String> {
    query(target, hook).expect("query").programs.into_iter().map(|p| p.name).collect()
}

fn available(hook: Hook) -> bool {
    probe::has(hook.row().feature).expect("probe").available
}

/// A pair of links of the kind a hook wants.
fn pair(hook: Hook) -> (Target, Target) {
    if hook.family() == "netkit" { netkit() } else { veth() }
}

/// Each hook sees the packets that pass it, and another program right after a replacement.
#[test]
fn packets_are_seen() {
    let object = load(
        r#"
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32);
  __type(value, __u64); } seen SEC(".maps");
static void count(__u32 slot) {
  __u64 *n = bpf_map_lookup_elem(&seen, &slot);
  if (n) __sync_fetch_and_add(n, 1);
}
#define MINE bpf_htons(0x88b5)
SEC("tc") int one(struct __sk_buff *skb) { if (skb->protocol == MINE) count(0); return -1; }
SEC("tc") int two(struct __sk_buff *skb) { if (skb->protocol == MINE) count(1); return -1; }
SEC("xdp") int xone(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
  if (data + 14 <= end && *(__be16 *)(data + 12) == MINE) count(0);
  return XDP_PASS;
}
SEC("xdp") int xtwo(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
  if (data + 14 <= end && *(__be16 *)(data + 12) == MINE) count(1);
  return XDP_DROP;
}"#,
    );
    let seen = |map: &Map| {
        [0, 1].map(|slot| match map.get(&Value::Int(slot)).expect("get") {
            Some(Value::Uint(n)) => n,
            other => panic!("{other:?}"),
        })
    };
    let map = &object.maps["seen"];
    for hook in Hook::ALL.into_iter().filter(|hook| available(*hook)) {
        let (link, other) = pair(hook);
        let prefix = if hook == Hook::Xdp { "x" } else { "" };
        let program = |name: &str| &object.programs[&format!("{prefix}{name}")];
        let attachment = attach(&link, hook, program("one"), &Order::default()).expect("attach");
        let from = match hook {
            Hook::TcxEgress | Hook::ClsactEgress | Hook::NetkitPrimary => &link,
            _ => &other,
        };
        map.clear().expect("clear");
        transmit(from, 10);
        wait_for(|| seen(map) == [10, 0], || format!("{hook:?}: {:?}", seen(map)));
        attachment.replace(program("two")).expect("replace");
        transmit(from, 5);
        wait_for(|| seen(map) == [10, 5], || format!("{hook:?}: {:?}", seen(map)));
        attachment.detach().expect("detach");
        transmit(from, 5);
        assert_eq!(seen(map), [10, 5], "{hook:?}");
    }
}

/// Ingress runs in softirq, a moment after the packet was sent.
fn wait_for(done: impl Fn() -> bool, state: impl Fn() -> String) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 10, "{}", state());
        std::thread::yield_now();
    }
}

#[test]
fn netkit_sides() {
    if !available(Hook::NetkitPeer) {
        return;
    }
    let object = programs();
    let p = |name: &str| &object.programs[name];
    let (primary, peer) = netkit();
    let error =
        attach(&peer, Hook::NetkitPeer, p("one"), &Order::default()).expect_err("the peer end");
    assert_eq!((error.code(), error.message()), ("EACCES", "this is the peer end".into()));
    let attachment =
        attach(&primary, Hook::NetkitPeer, p("one"), &Order::default()).expect("attach");
    assert_eq!(attachment.info().expect("info").index, primary.index);
    assert_eq!(order(&primary, Hook::NetkitPeer), ["one"]);
    assert!(order(&primary, Hook::NetkitPrimary).is_empty());
    let error = query(&peer, Hook::NetkitPeer).expect_err("the peer end");
    assert_eq!(error.code(), "EACCES");
    let current = query(&primary, Hook::NetkitPeer).expect("query").revision;
    let stale = Order { expected_revision: Some(current + 1), ..Order::default() };
    let error = attach(&primary, Hook::NetkitPeer, p("two"), &stale).expect_err("stale");
    assert!(error.is("ESTALE"), "{error}");
    delete_link(&primary);
    assert!(attachment.replace(p("two")).expect_err("gone").is("ENODEV"));
}

/// A pinned link outlives its handle and is taken over without a gap.
#[test]
fn pins() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let object = programs();
    let (link, _peer) = veth();
    let dir = tempfile::tempdir().expect("a directory");
    let none: Option<&str> = None;
    let attachment =
        attach(&link, Hook::Xdp, &object.programs["pass"], &Order::default()).expect("attach");
    let error = attachment.pin(&dir.path().join("x")).expect_err("no bpffs");
    assert!(error.message().contains("not on a bpf file system"), "{error}");
    mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), none).expect("a bpffs");
    let outcome = std::panic::catch_unwind(|| {
        let path = dir.path().join("link");
        attachment.pin(&path).expect("pin");
        assert!(attachment.pin(&path).expect_err("taken").is("EEXIST"));
        drop(attachment);
        let again = Attachment::pinned(&path, &link, Hook::Xdp).expect("taken over");
        assert_eq!(again.program().name(), "pass");
        assert_eq!(again.info().expect("info").mode, Some(XdpMode::Native));
        let error = Attachment::pinned(&path, &link, Hook::TcxEgress).expect_err("another hook");
        assert_eq!(error.message(), "it is not on a, egress");
        let map = Map::create(&MapSpec::new("pinned", MapKind::ARRAY, 4, 4, 1)).expect("map");
        map.pin(&dir.path().join("map")).expect("pin");
        assert_eq!(Map::pinned(&dir.path().join("map")).expect("open"), map);
        object.programs["one"].pin(&dir.path().join("one")).expect("pin");
        let open = pinned::open(&dir.path().join("one")).expect("open");
        let Pinned::Program(program) = open else { panic!("a program") };
        assert_eq!(program, object.programs["one"]);
        let error = Map::pinned(&path).expect_err("a link");
        assert!(error.is("EINVAL"), "{error}");
        assert_eq!(error.message(), "a link is pinned there, not a map");
        let Ok(Pinned::Link(found)) = pinned::open(&path) else { panic!("a link") };
        let info = found.info().expect("info");
        assert_eq!((info.kind_name(), info.index), ("xdp", Some(link.index)));
        assert_eq!(info.program_id, object.programs["pass"].id());
        found.detach().expect("detach");
        found.detach().expect("it is off already");
        assert_eq!(found.info().expect("info").index, Some(0));
        assert!(order(&link, Hook::Xdp).is_empty());
    });
    umount2(dir.path(), MntFlags::MNT_DETACH).expect("unmounted");
    outcome.expect("no panic");
}

/// The same order words give the same order on every hook that has several programs.
#[test]
fn order_words() {
    let object = programs();
    let p = |name: &str| &object.programs[name];
    for hook in Hook::ALL.into_iter().filter(|hook| hook.row().ordered && available(*hook)) {
        let (link, _peer) = pair(hook);
        assert!(order(&link, hook).is_empty(), "{hook:?}");
        let one = attach(&link, hook, p("one"), &Order::default()).expect("one");
        let _two = attach(&link, hook, p("two"), &Order::first()).expect("two");
        assert_eq!(order(&link, hook), ["two", "one"], "{hook:?}");
        let three = attach(&link, hook, p("three"), &Order::before(one.anchor())).expect("three");
        assert_eq!(order(&link, hook), ["two", "three", "one"], "{hook:?}");
        let after = Order::after(Anchor::Program(p("two").clone()));
        let four = attach(&link, hook, p("four"), &after).expect("four");
        assert_eq!(order(&link, hook), ["two", "four", "three", "one"], "{hook:?}");
        four.detach().expect("detach");
        let by_id = Order::before(Anchor::ProgramId(p("three").id()));
        let four = attach(&link, hook, p("four"), &by_id).expect("by id");
        assert_eq!(order(&link, hook), ["two", "four", "three", "one"], "{hook:?}");
        four.detach().expect("detach");
        let four = attach(&link, hook, p("four"), &Order::last()).expect("last");
        assert_eq!(order(&link, hook), ["two", "three", "one", "four"], "{hook:?}");
        three.detach().expect("detach");
        assert_eq!(order(&link, hook), ["two", "one", "four"], "{hook:?}");
        let gone =
            attach(&link, hook, p("three"), &Order::after(three.anchor())).expect_err("gone");
        assert!(gone.is("ENOENT"), "{hook:?}: {gone}");
        assert_eq!(four.info().expect("info").program.name(), "four");
    }
}

#[test]
fn replace_in_place() {
    let object = programs();
    let p = |name: &str| &object.programs[name];
    for hook in Hook::ALL.into_iter().filter(|hook| available(*hook)) {
        let (link, _peer) = pair(hook);
        let (first, second) = if hook == Hook::Xdp { ("pass", "frags") } else { ("one", "two") };
        let attachment = attach(&link, hook, p(first), &Order::default()).expect("attach");
        let before = query(&link, hook).expect("query");
        assert_eq!(before.programs[0].tag, p(first).tag());
        if !hook.is_clsact() {
            assert_eq!(before.programs[0].link_id, attachment.link_id(), "{hook:?}");
        }
        attachment.replace(p(second)).expect("replace");
        assert_eq!(order(&link, hook), [second], "{hook:?}");
        assert_eq!(attachment.info().expect("info").program.name(), second);
        let wrong = if hook == Hook::Xdp { p("one") } else { p("pass") };
        assert!(attachment.replace(wrong).expect_err("another type").is("EINVAL"));
        attachment.detach().expect("detach");
        attachment.detach().expect("again");
        assert!(order(&link, hook).is_empty(), "{hook:?}");
    }
}

#[test]
fn dropping_the_last_clone_ends_a_link() {
    let object = programs();
    let (link, _peer) = veth();
    let hook = auto_hook(Direction::Egress).expect("either");
    let attachment =
        attach(&link, hook, &object.programs["one"], &Order::default()).expect("attach");
    let clone = attachment.clone();
    drop(attachment);
    assert_eq!(order(&link, hook), ["one"]);
    drop(clone);
    assert_eq!(order(&link, hook).is_empty(), hook == Hook::TcxEgress);
}

#[test]
fn tcx_refusals_are_explained() {
    if !probe::has("tcx").expect("probe").available {
        return;
    }
    let object = programs();
    let p = |name: &str| &object.programs[name];
    let (link, _peer) = veth();
    let hook = Hook::TcxEgress;
    let first = attach(&link, hook, p("one"), &Order::default()).expect("attach");
    let error = attach(&link, hook, p("one"), &Order::default()).expect_err("twice");
    assert_eq!(
        error.to_string(),
        "tcx.attach(a, egress): program \"one\" is already attached here (EEXIST)"
    );
    let revision = query(&link, hook).expect("query").revision;
    let stale = Order { expected_revision: Some(revision + 5), ..Order::default() };
    let error = attach(&link, hook, p("two"), &stale).expect_err("stale");
    let want =
        format!("the hook has changed: revision {} was expected, it is {revision}", revision + 5);
    assert_eq!((error.code(), error.message()), ("ESTALE", want));
    let current = Order { expected_revision: Some(revision), ..Order::default() };
    let second = attach(&link, hook, p("two"), &current).expect("current");
    let error = second.replace(p("one")).expect_err("it is there already");
    assert_eq!((error.op(), error.code()), ("tcx.replace", "EEXIST"));
    let error = attach(&link, hook, p("pass"), &Order::default()).expect_err("xdp");
    assert_eq!(error.message(), "program \"pass\" is of type xdp, this hook takes tc");
    let both = Order { first: true, last: true, ..Order::default() };
    assert_eq!(
        attach(&link, hook, p("three"), &both).expect_err("both").message(),
        "first and last say different places"
    );
    let error = attach(&link, hook, p("three"), &Order { priority: Some(1), ..Order::default() });
    assert_eq!(error.expect_err("no priority").message(), "tcx hooks have no \"priority\"");
    delete_link(&link);
    for error in [
        attach(&link, hook, p("three"), &Order::default()).expect_err("no device"),
        first.replace(p("three")).expect_err("no device"),
        query(&link, hook).expect_err("no device"),
    ] {
        assert_eq!((error.code(), error.message()), ("ENODEV", "the device a is gone".into()));
    }
    assert_eq!(first.info().expect("info").index, 0);
    first.detach().expect("nothing to do");
}

#[test]
fn netkit_is_refused_with_a_reason() {
    let object = programs();
    let (link, _peer) = veth();
    let error = attach(&link, Hook::NetkitPeer, &object.programs["one"], &Order::default())
        .expect_err("a veth is no netkit");
    let feature = probe::has("netkit").expect("probe");
    match feature.available {
        true => assert_eq!(
            (error.code(), error.message()),
            ("ENXIO", "a is not a netkit device".into())
        ),
        false => assert_eq!((error.code(), error.message()), ("EOPNOTSUPP", feature.reason)),
    }
}

#[test]
fn xdp_modes() {
    let object = programs();
    let p = |name: &str| &object.programs[name];
    let (link, _peer) = veth();
    let native = attach(&link, Hook::Xdp, p("pass"), &Order::default()).expect("native");
    assert_eq!(native.info().expect("info").mode, Some(XdpMode::Native));
    let error = attach(&link, Hook::Xdp, p("frags"), &Order::default()).expect_err("busy");
    assert!(error.is("EBUSY"), "{error}");
    let want = format!(
        "\"pass\" (id {}, native) holds the hook: one xdp program a device",
        p("pass").id()
    );
    assert_eq!(error.message(), want);
    native.detach().expect("detach");
    let mode = |mode| Order { mode, ..Order::default() };
    let generic = attach(&link, Hook::Xdp, p("pass"), &mode(XdpMode::Generic)).expect("generic");
    let seen = query(&link, Hook::Xdp).expect("query");
    assert_eq!(seen.programs[0].mode, Some(XdpMode::Generic));
    generic.detach().expect("detach");
    let error = attach(&link, Hook::Xdp, p("pass"), &mode(XdpMode::Offload)).expect_err("no card");
    assert!(error.message().contains("card"), "{error}");
    // Loopback has no native xdp.
    let lo = Target::new(&link.netns, 1, "lo");
    let error = attach(&lo, Hook::Xdp, p("pass"), &mode(XdpMode::Native)).expect_err("no driver");
    assert!(error.message().contains("natively"), "{error}");
    let auto = attach(&lo, Hook::Xdp, p("pass"), &Order::default()).expect("falls back");
    assert_eq!(auto.info().expect("info").mode, Some(XdpMode::Generic));
}

#[test]
fn clsact_priorities_and_qdisc() {
    let object = programs();
    let p = |name: &str| &object.programs[name];
    let (link, _peer) = veth();
    let hook = Hook::ClsactIngress;
    let at = |priority| Order { priority: Some(priority), ..Order::default() };
    let ten = attach(&link, hook, p("one"), &at(10)).expect("ten");
    let eleven = attach(&link, hook, p("two"), &at(11)).expect("eleven");
    let error = attach(&link, hook, p("three"), &at(10)).expect_err("taken");
    assert_eq!(error.message(), "priority 10 handle 1 is taken");
    let error = attach(&link, hook, p("three"), &Order::after(ten.anchor())).expect_err("no room");
    assert!(error.is("ERANGE"), "{error}");
    let adopted =
        Attachment::filter_of(&link, hook, p("two").id(), Some((11, 1))).expect("adopted");
    assert_eq!(adopted.program().name(), "two");
    let info = ten.info().expect("info");
    assert_eq!((info.priority, info.handle, info.link_id), (Some(10), Some(1), None));
    adopted.detach().expect("detach");
    eleven.detach().expect("gone already is fine");
    let gone = eleven.replace(p("three")).expect_err("detached");
    assert_eq!((gone.code(), gone.message()), ("ENODEV", "it has been detached".into()));
    ten.detach().expect("detach");
    // The qdisc was ours: with the last filter it is gone, so a query finds none and a new attach makes it again.
    assert!(clsact::dump(&link, Hook::ClsactEgress).expect("dump").is_empty());
    attach(&link, hook, p("one"), &Order::default()).expect("again").detach().expect("detach");
}

#[test]
fn links_are_listed() {
    use crate::kernel::bpf::inventory;
    let object = programs();
    let (link, _peer) = veth();
    let attachment =
        attach(&link, Hook::Xdp, &object.programs["pass"], &Order::default()).expect("attach");
    let id = attachment.link_id().expect("a link");
    let links = inventory::links().expect("links");
    let found = links.iter().find(|l| l.id == id).expect("listed");
    assert_eq!((found.kind_name(), found.index), ("xdp", Some(link.index)));
    let id = object.programs["one"].id();
    assert!(inventory::programs().expect("programs").iter().any(|p| p.id == id && p.name == "one"));
    inventory::maps().expect("maps");
}
