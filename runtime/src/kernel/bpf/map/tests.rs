//! Maps of every shape, in the kernel that runs the tests.

use super::*;
use crate::kernel::bpf::testing::load;
use crate::kernel::bpf::{Value, probe};

fn make(kind: MapKind, key: u32, value: u32, entries: u32) -> Map {
    let flags = if kind == MapKind::LPM_TRIE { sys::F_NO_PREALLOC } else { 0 };
    Map::create(&MapSpec::new("test", kind, key, value, entries).flags(flags)).expect("a map")
}

fn text(s: &str) -> Value {
    Value::Str(s.into())
}

#[test]
fn set_get_delete() {
    let map = make(MapKind::HASH, 4, 8, 2);
    let (one, two) = (Value::Int(1), Value::Int(2));
    assert_eq!(map.get(&one).expect("get"), None);
    map.set(&one, &Value::Int(10), Write::NoExist).expect("set");
    let error = map.set(&one, &one, Write::NoExist).expect_err("there already");
    assert_eq!(error.to_string(), "map.set(test): the key exists already (EEXIST)");
    let error = map.set(&two, &one, Write::Exist).expect_err("not there");
    assert!(error.is("ENOENT"), "{error}");
    map.set(&two, &Value::Uint(u64::MAX), Write::Any).expect("set");
    assert_eq!(map.get(&two).expect("get"), Some(Value::Uint(u64::MAX)));
    let error = map.set(&Value::Int(3), &one, Write::Any).expect_err("full");
    assert_eq!(error.to_string(), "map.set(test): the map is full: it holds 2 entries (E2BIG)");
    assert_eq!(map.len().expect("len"), 2);
    assert!(map.delete(&one).expect("delete"));
    assert!(!map.delete(&one).expect("delete"));
    map.clear().expect("clear");
    assert!(map.is_empty().expect("len"));
    let error = map.set(&Value::Int(-1), &one, Write::Any).expect_err("range");
    assert_eq!(
        error.to_string(),
        "map.set(test): key: -1 does not fit __u32 (0 to 4294967295) (ERANGE)"
    );
    let error = map.lookup(&[0; 3]).expect_err("size");
    assert_eq!(error.message(), "the key has 3 bytes, the map's keys have 4");
}

#[test]
fn many_at_once_in_every_keyed_kind() {
    for kind in [
        MapKind::HASH,
        MapKind::LRU_HASH,
        MapKind::PERCPU_HASH,
        MapKind::LPM_TRIE,
        MapKind::ARRAY,
        MapKind::PERCPU_ARRAY,
    ] {
        let total = 10_000u32;
        let key_size = if kind == MapKind::LPM_TRIE { 8 } else { 4 };
        let map = make(kind, key_size, 8, total * 2);
        let key = |i: u32| match kind {
            MapKind::LPM_TRIE => [32u32.to_ne_bytes(), i.to_be_bytes()].concat(),
            _ => i.to_ne_bytes().to_vec(),
        };
        let keys: Vec<u8> = (0..total).flat_map(key).collect();
        let value = |i: u32| u64::from(i).to_ne_bytes().repeat(map.stride() / 8);
        let values: Vec<u8> = (0..total).flat_map(value).collect();
        assert_eq!(map.update_many(&keys, &values, Write::Any).expect("written"), 10_000, "{kind}");
        let mut seen: Vec<(Vec<u8>, Vec<u8>)> =
            map.entries().collect::<Result<_>>().expect("entries");
        seen.retain(|(_, v)| v.iter().any(|b| *b != 0));
        seen.sort_by_key(|(_, v)| u64::from_ne_bytes(v[..8].try_into().expect("8")));
        if kind != MapKind::LRU_HASH {
            assert_eq!(seen.len(), 9_999, "{kind}");
            assert_eq!(seen[4], (key(5), value(5)), "{kind}");
        }
        if !kind.is_array() {
            let doubled = [keys.clone(), keys.clone()].concat();
            let removed = map.remove_many(&doubled).expect("removed");
            assert!(removed > 9_000 && removed <= 10_000, "{kind}: {removed}");
        }
        map.clear().expect("cleared");
        let left =
            map.entries().filter(|e| e.as_ref().is_ok_and(|(_, v)| v.iter().any(|b| *b != 0)));
        assert_eq!(left.count(), 0, "{kind}");
    }
}

#[test]
fn a_full_map_says_how_far_it_came() {
    let map = make(MapKind::HASH, 4, 4, 100);
    let keys: Vec<u8> = (0..200u32).flat_map(u32::to_ne_bytes).collect();
    let error = map.update_many(&keys, &keys, Write::Any).expect_err("full");
    assert!(error.is("E2BIG"), "{error}");
    assert!(error.message().ends_with("after 100 of 200 entries"), "{error}");
    assert_eq!(error.op(), "map.set_many");
}

#[test]
fn lpm_keys_are_cidrs() {
    let map = make(MapKind::LPM_TRIE, 8, 4, 16);
    map.set(&text("10.1.2.3/8"), &Value::Int(8), Write::Any).expect("set");
    map.set(&text("10.1.0.0/16"), &Value::Int(16), Write::Any).expect("set");
    map.set(&text("0.0.0.0/0"), &Value::Int(99), Write::Any).expect("set");
    assert_eq!(map.get(&text("10.1.9.9")).expect("get"), Some(Value::Uint(16)));
    assert_eq!(map.get(&text("10.2.0.0/16")).expect("get"), Some(Value::Uint(8)));
    assert_eq!(map.get(&text("11.0.0.1")).expect("get"), Some(Value::Uint(99)));
    let mut keys: Vec<Value> = map.pairs().map(|p| p.expect("pair").0).collect();
    keys.sort_by_key(|k| format!("{k:?}"));
    assert_eq!(keys, [text("0.0.0.0/0"), text("10.0.0.0/8"), text("10.1.0.0/16")]);
    let wide = make(MapKind::LPM_TRIE, 20, 4, 16);
    wide.set(&text("fd00::1/8"), &Value::Int(6), Write::Any).expect("set");
    assert_eq!(wide.get(&text("fd12::1")).expect("get"), Some(Value::Uint(6)));
    for bad in ["10.0.0.0/33", "fd00::/8", "x", "10.0.0.0/"] {
        let error = map.get(&text(bad)).expect_err(bad);
        assert!(error.message().contains("takes an IPv4 CIDR"), "{error}");
    }
}

#[test]
fn per_cpu_values_are_arrays() {
    let map = make(MapKind::PERCPU_ARRAY, 4, 4, 4);
    let cpus = probe::possible_cpus();
    map.set(&Value::Int(0), &Value::Int(7), Write::Any).expect("set");
    assert_eq!(
        map.get(&Value::Int(0)).expect("get"),
        Some(Value::Array(vec![Value::Uint(7); cpus]))
    );
    map.set(&Value::Int(1), &Value::Array(vec![Value::Int(1)]), Write::Any).expect("set");
    let Some(Value::Array(values)) = map.get(&Value::Int(1)).expect("get") else {
        panic!("an array")
    };
    assert_eq!((values[0].clone(), values.len()), (Value::Uint(1), cpus));
    let error = map.remove(&0u32.to_ne_bytes()).expect_err("arrays stay");
    assert!(error.is("EINVAL"), "{error}");
}

#[test]
fn queues_and_stacks() {
    for (kind, order) in [(MapKind::QUEUE, [1, 2]), (MapKind::STACK, [2, 1])] {
        let map = make(kind, 0, 4, 2);
        map.push(&Value::Int(1)).expect("push");
        map.push(&Value::Int(2)).expect("push");
        assert!(map.push(&Value::Int(3)).expect_err("full").is("E2BIG"));
        assert_eq!(map.peek().expect("peek"), Some(Value::Uint(order[0])));
        assert_eq!(map.pop().expect("pop"), Some(Value::Uint(order[0])));
        assert_eq!(map.pop().expect("pop"), Some(Value::Uint(order[1])));
        assert_eq!(map.pop().expect("pop"), None);
        assert!(map.keys().expect_err("no keys").is("EOPNOTSUPP"));
    }
}

#[test]
fn a_mapped_array_shares_memory() {
    use std::sync::atomic::Ordering;
    let spec = MapSpec::new("shared", MapKind::ARRAY, 4, 8, 1000).flags(sys::F_MMAPABLE);
    let map = Map::create(&spec).expect("a map");
    let memory = map.mmap().expect("mapped");
    map.set(&Value::Int(999), &Value::Int(5), Write::Any).expect("set");
    assert_eq!(memory.u64_at(999 * 8).load(Ordering::Relaxed), 5);
    memory.u64_at(0).store(6, Ordering::Relaxed);
    assert_eq!(map.get(&Value::Int(0)).expect("get"), Some(Value::Uint(6)));
    assert!(make(MapKind::HASH, 4, 4, 1).mmap().expect_err("a hash").is("EINVAL"));
}

#[test]
fn maps_of_maps_made_without_an_object() {
    let inner = MapSpec::new("inner", MapKind::HASH, 4, 4, 8);
    let mut outer = MapSpec::new("outer", MapKind::ARRAY_OF_MAPS, 4, 4, 2);
    outer.inner = Some(Box::new(inner.clone()));
    let outer = Map::create(&outer).expect("outer");
    let one = Map::create(&MapSpec { max_entries: 1000, ..inner }).expect("inner");
    outer.update_fd(&0u32.to_ne_bytes(), one.as_fd()).expect("set");
    assert_eq!(outer.get(&Value::Int(0)).expect("get"), Some(Value::Uint(one.id().into())));
    assert_eq!(outer.pairs().count(), 1);
    let lacking = Map::create(&MapSpec::new("outer", MapKind::ARRAY_OF_MAPS, 4, 4, 2));
    assert!(lacking.expect_err("no template").get_hint().is_some_and(|h| h.contains("inner")));
}

const TYPED: &str = r#"
enum verdict { PASS = 1, DROP = 2, NEGATIVE = -3 };
struct deep { __u16 a; __s8 b; };
struct wide {
  __be32 v4; __be16 port; struct in6_addr v6; char name[16]; enum verdict verdict; _Bool on;
  unsigned int low : 3; int high : 5; struct deep pair[2]; __u8 mac[6]; __s64 big; __be64 id;
  union { __u32 word; __u8 bytes[4]; }; void *pointer; double real;
};
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, struct wide); } wides SEC(".maps");
SEC("tc") int p(struct __sk_buff *skb) {
  __u32 k = 1;
  struct wide *w = bpf_map_lookup_elem(&wides, &k);
  if (!w) return 0;
  return w->v4 == bpf_htonl(0x0a000001) && w->port == bpf_htons(80) && w->low == 5 && w->high == -3
    && w->verdict == NEGATIVE && w->on && w->pair[1].b == -7 && w->name[0] == 'h' && w->mac[5] == 6
    && w->id == bpf_cpu_to_be64(77) && w->bytes[0] == 4 && w->v6.s6_addr[15] == 1 && w->big == -9;
}"#;

fn wide() -> Vec<(&'static str, Value)> {
    let deep =
        |a, b| Value::Struct(vec![("a".into(), Value::Uint(a)), ("b".into(), Value::Int(b))]);
    let bytes = |b: &[u64]| Value::Array(b.iter().map(|b| Value::Uint(*b)).collect());
    vec![
        ("v4", text("10.0.0.1")),
        ("port", Value::Uint(80)),
        ("v6", text("fd00::1")),
        ("name", text("hello")),
        ("verdict", text("NEGATIVE")),
        ("on", Value::Bool(true)),
        ("low", Value::Uint(5)),
        ("high", Value::Int(-3)),
        ("pair", Value::Array(vec![deep(1, 2), deep(65535, -7)])),
        ("mac", bytes(&[1, 2, 3, 4, 5, 6])),
        ("big", Value::Int(-9)),
        ("id", Value::Uint(77)),
        ("word", Value::Uint(0x0102_0304)),
        ("bytes", bytes(&[4, 3, 2, 1])),
        ("pointer", Value::Uint(0)),
        ("real", Value::Float(1.5)),
    ]
}

fn fields(given: Vec<(&str, Value)>) -> Value {
    Value::Struct(given.into_iter().map(|(n, v)| (n.to_owned(), v)).collect())
}

#[test]
fn values_follow_btf() {
    let object = load(TYPED);
    let map = &object.maps["wides"];
    let value = fields(wide());
    map.set(&Value::Int(1), &value, Write::Any).expect("set");
    assert_eq!(map.get(&Value::Int(1)).expect("get"), Some(value));
    assert_eq!(object.programs["p"].test_run(&[0; 64], &[], 1).expect("runs").retval, 1);
    let bytes = map.lookup(&1u32.to_ne_bytes()).expect("get").expect("there");
    map.set(&Value::Int(2), &Value::Bytes(bytes), Write::Any).expect("packed bytes");
    assert_eq!(map.get(&Value::Int(2)).expect("get"), map.get(&Value::Int(1)).expect("get"));
    let numbers =
        vec![("v4", Value::Int(0x0a000001)), ("verdict", Value::Int(2)), ("on", Value::Int(1))];
    map.set(&Value::Int(3), &fields(numbers), Write::Any).expect("numbers");
    let Some(Value::Struct(read)) = map.get(&Value::Int(3)).expect("get") else {
        panic!("a struct")
    };
    assert_eq!(
        (&read[0].1, &read[4].1, &read[5].1),
        (&text("10.0.0.1"), &text("DROP"), &Value::Bool(true))
    );
}

#[test]
fn values_that_do_not_fit_name_their_field() {
    let object = load(TYPED);
    let map = &object.maps["wides"];
    let cases = [
        ("port", Value::Int(65536), "value: port: 65536 does not fit __be16 (0 to 65535)"),
        ("low", Value::Int(8), "value: low: 8 does not fit unsigned int : 3 (0 to 7)"),
        ("high", Value::Int(-17), "value: high: -17 does not fit int : 5 (-16 to 15)"),
        ("name", text("a name that is too long"), "value: name: 23 bytes do not fit char[16]"),
        (
            "verdict",
            text("PAS"),
            "value: verdict: enum verdict takes one of PASS, DROP, NEGATIVE, not \"PAS\"",
        ),
        (
            "v4",
            text("10.0.0"),
            "value: v4: __be32 takes an IPv4 address or an integer, not \"10.0.0\"",
        ),
        ("prt", Value::Int(1), "value: struct wide has no field \"prt\""),
        (
            "pair",
            Value::Array(vec![fields(vec![]), fields(vec![("b", Value::Int(200))])]),
            "value: pair[2].b: 200 does not fit __s8 (-128 to 127)",
        ),
        ("mac", Value::Array(vec![Value::Int(0); 7]), "value: mac: 7 elements do not fit __u8[6]"),
        ("big", Value::Float(1.5), "value: big: __s64 takes an integer, not a number"),
    ];
    for (name, value, message) in cases {
        let error =
            map.set(&Value::Int(1), &fields(vec![(name, value)]), Write::Any).expect_err(name);
        assert_eq!(error.message(), message);
        assert!(
            error.get_detail().is_some_and(|d| d.contains("unsigned int low : 3;")),
            "{error:?}"
        );
    }
}
