//! Objects as sources write them, loaded into the kernel that runs the tests.

use std::collections::BTreeSet;

use super::*;
use crate::kernel::bpf::ProgramKind;
use crate::kernel::bpf::map::{MapKind, Write};
use crate::kernel::bpf::testing::{load, load_with, object, try_load};

const SPELLINGS: &str = r#"
SEC("tc") int p1(struct __sk_buff *skb) { return 1; }
SEC("tc/named") int p2(struct __sk_buff *skb) { return 2; }
SEC("classifier") int p3(struct __sk_buff *skb) { return 3; }
SEC("classifier/x") int p4(struct __sk_buff *skb) { return 4; }
SEC("tcx/ingress") int p5(struct __sk_buff *skb) { return 5; }
SEC("tcx/egress") int p6(struct __sk_buff *skb) { return 6; }
SEC("tcx/egress/x") int p7(struct __sk_buff *skb) { return 7; }
SEC("netkit/primary") int p8(struct __sk_buff *skb) { return 8; }
SEC("netkit/peer") int p9(struct __sk_buff *skb) { return 9; }
SEC("action") int p10(struct __sk_buff *skb) { return 10; }
SEC("xdp") int p11(struct xdp_md *ctx) { return 11; }
SEC("xdp/named") int p12(struct xdp_md *ctx) { return 12; }
SEC("xdp.frags") int p13(struct xdp_md *ctx) { return 13; }
SEC("xdp.frags/named") int p14(struct xdp_md *ctx) { return 14; }
SEC("tc") int p15(struct __sk_buff *skb) { return 15; }
SEC("xdp") int p16(struct xdp_md *ctx) { return 16; }
SEC("?tc") int p17(struct __sk_buff *skb) { return 17; }
SEC("tc_ingress") int p18(struct __sk_buff *skb) { return 18; }
SEC("xdp_drop") int p19(struct xdp_md *ctx) { return 19; }
"#;

#[test]
fn every_spelling_of_a_section_loads_and_runs() {
    let object = load(SPELLINGS);
    assert_eq!(object.programs.len(), 18, "the optional one is left out");
    for (name, program) in &object.programs {
        let wanted: u32 = name[1..].parse().expect("a number");
        let kind = match wanted {
            10 => ProgramKind::TC_ACTION,
            11..=14 | 16 | 19 => ProgramKind::XDP,
            _ => ProgramKind::TC,
        };
        assert_eq!(program.kind(), kind, "{name}");
        let run = program.test_run(&[0; 64], &[], 1).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(run.retval, wanted, "{name}");
    }
    assert_eq!(object.programs["p9"].section(), "netkit/peer");
    assert_eq!(object.programs["p5"].tag().len(), 16);
}

#[test]
fn only_the_named_programs_are_loaded() {
    let names = BTreeSet::from(["p17".to_owned(), "p1".to_owned()]);
    let options = LoadOptions { programs: Some(names), ..LoadOptions::default() };
    let object = load_with(SPELLINGS, &options);
    assert_eq!(object.programs.keys().collect::<Vec<_>>(), ["p1", "p17"]);
    let missing = LoadOptions { programs: Some(["p99".to_owned()].into()), ..Default::default() };
    let error = try_load(SPELLINGS, &missing).expect_err("no such program");
    assert_eq!(error.code(), "ENOENT");
    assert!(error.get_hint().is_some(), "{error:?}");
}

const RICH: &str = r#"
struct task_struct { int pid; } __attribute__((preserve_access_index));
struct net_device { int ifindex; } __attribute__((preserve_access_index));
struct net_device___none { int no_such_field; } __attribute__((preserve_access_index));
volatile const __u32 answer = 1;
volatile const __u8 mac[6] = {1, 2, 3, 4, 5, 6};
volatile const char label[8] = "abc";
__u64 counter = 7;
__u64 zeroed;
struct key { __be32 address; __u16 port; };
struct value { __u64 packets; __u8 flags : 3; __u8 rest : 5; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16); __type(key, struct key);
  __type(value, struct value); } flows SEC(".maps");

static __attribute__((noinline)) int twice(int x) { return x * 2 + (int)counter; }
__attribute__((noinline)) int thrice(struct __sk_buff *skb) { return twice(skb->len) + answer; }

SEC("tcx/ingress") int numbers(struct __sk_buff *skb) {
  struct key k = { .port = 5 };
  struct value *v = bpf_map_lookup_elem(&flows, &k);
  __sync_fetch_and_add(&zeroed, 1);
  return thrice(skb) + (v ? v->packets : 0);
}
SEC("netkit/peer") int fields(struct __sk_buff *skb) {
  return bpf_core_field_exists(((struct net_device *)0)->ifindex) * 10
    + bpf_core_field_exists(((struct net_device___none *)0)->no_such_field)
    + (bpf_core_field_offset(struct net_device, ifindex) > 4 ? 100 : 0);
}
"#;

fn rich(options: &LoadOptions) -> Object {
    load_with(&format!("#include <bpf/bpf_core_read.h>\n{RICH}"), options)
}

#[test]
fn globals_subprograms_maps_and_core() {
    let object = rich(&LoadOptions { name: "dir/rich.bpf.o".into(), ..Default::default() });
    let run = |name: &str| object.programs[name].test_run(&[0; 64], &[], 1).expect("runs").retval;
    assert_eq!(run("numbers"), 64 * 2 + 7 + 1);
    assert_eq!(run("fields"), 110);
    assert_eq!(object.maps[".rodata"].info().name, "rich.rodata");
    let zeroed = object.maps[".bss"].get(&Value::Uint(0)).expect("read").expect("there");
    assert_eq!(zeroed, Value::Struct(vec![("zeroed".into(), Value::Uint(1))]));
    let flows = &object.maps["flows"];
    assert_eq!(
        (flows.key_type().name(), flows.value_type().name()),
        ("struct key".into(), "struct value".into())
    );
    let info = flows.info();
    assert!(
        info.btf_id != 0 && info.btf_key != 0 && info.btf_value != 0,
        "the kernel keeps the types"
    );
    let again = Map::by_id(flows.id()).expect("by id");
    assert_eq!(again.key_type(), flows.key_type());
    let program = object.program("numbers").expect("there");
    assert!(program.info().expect("info").btf_id != 0);
    assert_eq!(
        object.program("number").expect_err("absent").get_hint(),
        Some("did you mean \"numbers\"?")
    );
}

#[test]
fn options_change_globals_sizes_and_maps() {
    let first = rich(&LoadOptions::default());
    let options = LoadOptions {
        globals: [
            ("answer".to_owned(), Value::Int(1000)),
            ("counter".to_owned(), Value::Uint(0)),
            ("mac".to_owned(), Value::Array(vec![Value::Int(9)])),
            ("label".to_owned(), Value::Str("xyz".into())),
        ]
        .into(),
        maps: [("flows".to_owned(), first.maps["flows"].clone())].into(),
        ..Default::default()
    };
    let second = rich(&options);
    assert_eq!(second.maps["flows"], first.maps["flows"]);
    let key = Value::Struct(vec![("port".into(), Value::Int(5))]);
    let value = Value::Struct(vec![("packets".into(), Value::Int(10_000))]);
    first.maps["flows"].set(&key, &value, Write::Any).expect("set");
    let run = second.programs["numbers"].test_run(&[0; 64], &[], 1).expect("runs");
    assert_eq!(run.retval, 64 * 2 + 1000 + 10_000);
    let sized =
        LoadOptions { max_entries: [("flows".to_owned(), 99)].into(), ..Default::default() };
    assert_eq!(rich(&sized).maps["flows"].info().max_entries, 99);
}

#[test]
fn options_that_do_not_fit_are_explained() {
    let source = format!("#include <bpf/bpf_core_read.h>\n{RICH}");
    let refuse = |options: LoadOptions| try_load(&source, &options).expect_err("refused");
    let globals = |name: &str, value| LoadOptions {
        globals: [(name.to_owned(), value)].into(),
        ..Default::default()
    };
    let error = refuse(globals("answr", Value::Int(1)));
    assert_eq!(error.get_hint(), Some("did you mean \"answer\"?"));
    let error = refuse(globals("answer", Value::Int(-1)));
    assert_eq!((error.code(), error.op()), ("ERANGE", "bpf.load"));
    assert!(error.message().starts_with("global \"answer\": -1 does not fit"), "{error}");
    let other = Map::create(&MapSpec::new("other", MapKind::ARRAY, 4, 8, 1)).expect("a map");
    let error =
        refuse(LoadOptions { maps: [("flows".to_owned(), other)].into(), ..Default::default() });
    assert!(error.message().contains("type is hash in the source and array in the map"), "{error}");
}

#[test]
fn map_in_map_templates() {
    let object = load(
        r#"
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
  __type(value, __u64); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
  __array(values, struct inner); } outer SEC(".maps");
SEC("tc") int read(struct __sk_buff *skb) {
  __u32 k = 1;
  void *in = bpf_map_lookup_elem(&outer, &k);
  if (!in) return 0;
  __u64 *v = bpf_map_lookup_elem(in, &k);
  return v ? *v : 1;
}"#,
    );
    use std::os::fd::AsFd;
    let run = || object.programs["read"].test_run(&[0; 64], &[], 1).expect("runs").retval;
    assert_eq!(run(), 0);
    let inner = Map::create(&MapSpec::new("inner", MapKind::ARRAY, 4, 8, 4)).expect("inner");
    inner.set(&Value::Int(1), &Value::Int(42), Write::Any).expect("set");
    object.maps["outer"].update_fd(&1u32.to_ne_bytes(), inner.as_fd()).expect("outer");
    assert_eq!(run(), 42);
    assert_eq!(
        object.maps["outer"].get(&Value::Int(1)).expect("read"),
        Some(Value::Uint(inner.id().into()))
    );
}

#[test]
fn declared_values_fill_maps() {
    let object = load(
        r#"
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
  __type(value, __u64); } low SEC(".maps"), high SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
  __array(values, struct inner); } outer SEC(".maps") = { .values = { [1] = &low, [3] = &high } };
SEC("tc") int end(struct __sk_buff *skb) { return 9; }
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 3); __uint(key_size, 4);
  __array(values, int (struct __sk_buff *)); } jumps SEC(".maps") = { .values = { [2] = &end } };
SEC("tc") int start(struct __sk_buff *skb) { bpf_tail_call(skb, &jumps, 2); return 1; }
SEC("tc") int use(struct __sk_buff *skb) { __u32 k = 1; return !!bpf_map_lookup_elem(&outer, &k); }"#,
    );
    let outer = |slot: i64| object.maps["outer"].get(&Value::Int(slot)).expect("get");
    let id = |name: &str| Some(Value::Uint(object.maps[name].id().into()));
    assert_eq!([outer(0), outer(1), outer(2), outer(3)], [None, id("low"), None, id("high")]);
    assert_eq!(object.programs["start"].test_run(&[0; 64], &[], 1).expect("runs").retval, 9);
}

#[test]
fn programs_of_all_tc_sections_share_a_program_array() {
    let object = load(
        r#"
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __type(key, __u32);
  __type(value, __u32); } jumps SEC(".maps");
SEC("tc") int start(struct __sk_buff *skb) { bpf_tail_call(skb, &jumps, 0); return 1; }
SEC("tcx/egress") int next(struct __sk_buff *skb) { bpf_tail_call(skb, &jumps, 1); return 2; }
SEC("netkit/peer") int end(struct __sk_buff *skb) { return 3; }"#,
    );
    use std::os::fd::AsFd;
    for (slot, name) in ["next", "end"].into_iter().enumerate() {
        let key = (slot as u32).to_ne_bytes();
        object.maps["jumps"].update_fd(&key, object.programs[name].as_fd()).expect(name);
    }
    assert_eq!(object.programs["start"].test_run(&[0; 64], &[], 1).expect("runs").retval, 3);
}

#[test]
fn the_verifier_is_quoted() {
    let source = r#"SEC("tc") int bad(struct __sk_buff *skb) {
  return *(int *)(long)skb->data;
}"#;
    let error = try_load(source, &LoadOptions::default()).expect_err("refused");
    assert_eq!(error.get_subject(), Some("bad"));
    assert!(error.message().ends_with("not compared with data_end, at source:8"), "{error}");
    let detail = error.get_detail().expect("it has one");
    let lines: Vec<&str> = detail.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "source:8:10",
            "  return *(int *)(long)skb->data;",
            "         ^",
            "r1: the packet, not compared with data_end"
        ]
    );
    assert!(detail.contains("the verifier: invalid access to packet"), "{detail}");
    assert!(error.is("EACCES") && error.get_hint().is_some());
}

#[test]
fn what_is_not_an_object_is_named() {
    let good = object("SEC(\"tc\") int p(struct __sk_buff *skb) { return 0; }");
    let mut arm = good.clone();
    arm[18..20].copy_from_slice(&183u16.to_le_bytes());
    let (mut narrow, mut big) = (good.clone(), good.clone());
    narrow[4] = 1;
    big[5] = 2;
    let cases: [(&[u8], &str); 9] = [
        (b"", "the file is empty"),
        (b"#include <linux/bpf.h>\nint x;", "C source, not an object"),
        (b"hello", "text, not an ELF object"),
        (b"\x00\x01\x02", "not an ELF object"),
        (&good[..40], "the object is truncated"),
        (&good[..good.len() / 2], "the object is truncated"),
        (&arm, "built for arm64, not for eBPF"),
        (&narrow, "a 32-bit ELF file"),
        (&big, "a big-endian object"),
    ];
    for (bytes, message) in cases {
        let error = Object::load(bytes, &LoadOptions::default()).expect_err(message);
        assert!(error.is("EINVAL") && error.message().starts_with(message), "{message}: {error}");
    }
    let error = try_load("int x;", &LoadOptions::default()).expect_err("no programs");
    assert_eq!(error.message(), "the object has no programs");
    let source = "SEC(\"packet/foo\") int p(void *ctx) { return 0; }";
    let error = try_load(source, &LoadOptions::default()).expect_err("unknown section");
    assert!(error.message().contains("SEC(\"packet/foo\")"), "{error}");
    assert!(error.get_hint().is_some_and(|h| h.contains("netkit/peer")), "{error:?}");
}

/// A damaged object is refused, or loads; it never crashes and never hangs.
#[test]
fn damage_is_survived() {
    let good = object(&format!("#include <bpf/bpf_core_read.h>\n{RICH}"));
    std::panic::set_hook(Box::new(|_| {}));
    for at in (0..good.len()).step_by(good.len() / 300) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        let _ = ObjectFile::parse(&bad);
        let _ = ObjectFile::parse(&good[..at]);
    }
    let _ = std::panic::take_hook();
}

const COUNTER: &str = r#"
struct value { __u64 packets; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16); __type(key, __u32);
  __type(value, struct value); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
  __type(value, __u64); } total SEC(".maps");
volatile const __u32 step = 1;
__u64 started = 7;
__u64 seen;
SEC("tc") int count(struct __sk_buff *skb) {
  __u32 zero = 0;
  __u64 *sum = bpf_map_lookup_elem(&total, &zero);
  struct value *v = bpf_map_lookup_elem(&flows, &zero);
  if (v) v->packets++;
  if (sum) *sum += step;
  seen += started;
  return 0;
}"#;

/// Loads `first`, runs it three times, and loads `second` after it; both, and the differences.
fn versions(first: &str, second: &str) -> (Object, Object, Vec<String>) {
    let old = load(first);
    old.programs["count"].test_run(&[0; 64], &[], 3).expect("runs");
    let options = LoadOptions { name: "test".into(), ..Default::default() };
    let (new, differences) =
        Object::load_after(&object(second), &options, Some(&old)).expect("loads");
    (old, new, differences)
}

#[test]
fn a_new_version_keeps_maps_of_equal_shape() {
    let (old, new, differences) = versions(COUNTER, &COUNTER.replace("step = 1", "step = 10"));
    assert_eq!(differences, [""; 0]);
    for name in ["flows", "total", ".bss", ".data"] {
        assert_eq!(new.maps[name], old.maps[name], "{name}");
    }
    assert_ne!(new.maps[".rodata"], old.maps[".rodata"], "constants are never kept");
    new.programs["count"].test_run(&[0; 64], &[], 1).expect("runs");
    let total = |object: &Object| object.maps["total"].get(&Value::Int(0)).expect("get");
    assert_eq!([total(&old), total(&new)], [Some(Value::Uint(13)), Some(Value::Uint(13))]);
}

#[test]
fn a_map_of_another_shape_is_new_and_said_so() {
    for (from, to, said) in [
        ("u64 packets; };", "u64 packets; __u64 bytes; };", "map flows is new: value_size 8 -> 16"),
        (
            "__uint(max_entries, 16)",
            "__uint(max_entries, 32)",
            "map flows is new: max_entries 16 -> 32",
        ),
        ("BPF_MAP_TYPE_HASH", "BPF_MAP_TYPE_LRU_HASH", "map flows is new: type hash -> lru_hash"),
        (
            "__u64 packets; }",
            "__s64 packets; }",
            "map flows is new: the fields of value_type struct value changed",
        ),
        ("started = 7", "started = 8", "map .data is new: its initial values changed"),
        ("__u64 seen;", "__u32 before; __u64 seen;", "map .bss is new: value_size 8 -> 16"),
    ] {
        let second = COUNTER.replace(from, to).replace(
            "seen +=",
            if to.contains("before") { "before++; seen +=" } else { "seen +=" },
        );
        let (old, new, differences) = versions(COUNTER, &second);
        assert_eq!(differences, [said]);
        let changed = said.split(' ').nth(1).expect("a name");
        assert_ne!(new.maps[changed], old.maps[changed], "{said}");
        assert_eq!(new.maps["total"], old.maps["total"], "{said}");
    }
}
