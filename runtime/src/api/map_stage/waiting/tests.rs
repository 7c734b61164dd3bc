//! Waiting writes against the kernel's maps: what is read before, at and after a commit, and what taking it back leaves.

use super::*;
use crate::kernel::bpf::MapSpec;
use crate::kernel::bpf::sys::F_NO_PREALLOC;

fn map(kind: MapKind, key: u32, entries: u32) -> Map {
    let spec = MapSpec::new("waiting", kind, key, 8, entries);
    let trie = kind == MapKind::LPM_TRIE;
    Map::create(&spec.flags(if trie { F_NO_PREALLOC } else { 0 })).expect("a map")
}

fn key(n: u32) -> Vec<u8> {
    n.to_ne_bytes().to_vec()
}

fn value(n: u64) -> Deposit {
    Deposit::Bytes(n.to_ne_bytes().to_vec())
}

fn number(bytes: Option<Vec<u8>>) -> Option<u64> {
    bytes.map(|b| b[..8].try_into().map(u64::from_ne_bytes).expect("8 bytes"))
}

/// All elements, sorted.
fn all((keys, values): (Vec<u8>, Vec<u8>)) -> Vec<(u32, u64)> {
    let keys = keys.chunks(4).map(|k| u32::from_ne_bytes(k.try_into().expect("4 bytes")));
    let values = values.chunks(8).map(|v| u64::from_ne_bytes(v.try_into().expect("8 bytes")));
    let mut all: Vec<_> = keys.zip(values).collect();
    all.sort_unstable();
    all
}

fn live(map: &Map) -> Vec<(u32, u64)> {
    let entries: Vec<_> = map.entries().collect::<Result<_>>().expect("read");
    all((
        entries.iter().flat_map(|e| e.0.clone()).collect(),
        entries.into_iter().flat_map(|e| e.1).collect(),
    ))
}

#[test]
fn a_hash_waits_and_comes_back() {
    let map = map(MapKind::HASH, 4, 8);
    for n in 1..=3 {
        map.update(&key(n), &u64::from(n * 10).to_ne_bytes(), Write::Any).expect("set");
    }
    let before = live(&map);
    let waiting = Rc::new(Waiting::new(map.clone(), None));
    waiting.update(&key(1), value(11), Write::Exist).expect("there");
    waiting.update(&key(4), value(40), Write::NoExist).expect("not there");
    assert!(waiting.update(&key(4), value(41), Write::NoExist).is_err_and(|e| e.is("EEXIST")));
    assert!(waiting.update(&key(9), value(90), Write::Exist).is_err_and(|e| e.is("ENOENT")));
    assert!(waiting.remove(&key(2)).expect("removed"));
    assert!(!waiting.remove(&key(2)).expect("it is gone for this load"));
    assert_eq!(number(waiting.lookup(&key(1)).expect("get")), Some(11));
    assert_eq!(number(waiting.lookup(&key(2)).expect("get")), None);
    assert_eq!(number(waiting.lookup(&key(3)).expect("get")), Some(30));
    let wanted = vec![(1, 11), (3, 30), (4, 40)];
    assert_eq!(all(waiting.packed_entries().expect("pairs")), wanted);
    assert_eq!(waiting.len().expect("len"), 3);
    assert_eq!(live(&map), before, "nothing live has changed");
    let mut change = Change::new(Rc::clone(&waiting));
    assert!(!change.is_void());
    change.apply().expect("applied");
    assert_eq!(live(&map), wanted);
    change.revert().expect("reverted");
    assert_eq!(live(&map), before);
}

#[test]
fn the_same_again_is_nothing() {
    let map = map(MapKind::HASH, 4, 8);
    map.update(&key(1), &7u64.to_ne_bytes(), Write::Any).expect("set");
    let waiting = Rc::new(Waiting::new(map.clone(), None));
    waiting.clear();
    waiting.update(&key(1), value(7), Write::Any).expect("set");
    waiting.remove(&key(5)).expect("remove");
    assert!(Change::new(Rc::clone(&waiting)).is_void());
    waiting.update(&key(1), value(8), Write::Any).expect("set");
    assert!(!Change::new(waiting).is_void());
}

#[test]
fn a_full_map_refuses_all_or_nothing() {
    let map = map(MapKind::HASH, 4, 2);
    map.update(&key(1), &1u64.to_ne_bytes(), Write::Any).expect("set");
    let before = live(&map);
    let waiting = Rc::new(Waiting::new(map.clone(), None));
    for n in 2..=4 {
        waiting.update(&key(n), value(0), Write::Any).expect("waits");
    }
    let error = Change::new(Rc::clone(&waiting)).apply().expect_err("it holds 2");
    assert_eq!(error.code(), "E2BIG", "{error}");
    assert_eq!(live(&map), before);
}

#[test]
fn an_array_is_cleared_to_zero() {
    let map = map(MapKind::ARRAY, 4, 3);
    map.update(&key(2), &5u64.to_ne_bytes(), Write::Any).expect("set");
    let waiting = Rc::new(Waiting::new(map.clone(), None));
    assert!(waiting.update(&key(3), value(1), Write::Any).is_err_and(|e| e.is("E2BIG")));
    assert!(waiting.remove(&key(1)).is_err_and(|e| e.is("EINVAL")));
    waiting.clear();
    waiting.update(&key(0), value(9), Write::Any).expect("set");
    assert_eq!(all(waiting.packed_entries().expect("pairs")), [(0, 9), (1, 0), (2, 0)]);
    assert_eq!(number(waiting.lookup(&key(2)).expect("get")), Some(0));
    assert_eq!(waiting.lookup(&key(3)).expect("get"), None);
    let mut change = Change::new(Rc::clone(&waiting));
    change.apply().expect("applied");
    assert_eq!(live(&map), [(0, 9), (1, 0), (2, 0)]);
    change.revert().expect("reverted");
    assert_eq!(live(&map), [(0, 0), (1, 0), (2, 5)]);
}

#[test]
fn a_trie_finds_the_longest_of_both() {
    let prefix = |length: u32, a: [u8; 4]| [&length.to_ne_bytes()[..], &a].concat();
    let map = map(MapKind::LPM_TRIE, 8, 8);
    map.update(&prefix(8, [10, 0, 0, 0]), &8u64.to_ne_bytes(), Write::Any).expect("set");
    map.update(&prefix(24, [10, 1, 2, 0]), &24u64.to_ne_bytes(), Write::Any).expect("set");
    let waiting = Rc::new(Waiting::new(map.clone(), None));
    let at = |a| number(waiting.lookup(&prefix(32, a)).expect("get"));
    waiting.update(&prefix(16, [10, 1, 0, 0]), value(16), Write::NoExist).expect("new");
    assert_eq!(
        [at([10, 1, 2, 3]), at([10, 1, 9, 9]), at([10, 9, 9, 9])],
        [Some(24), Some(16), Some(8)]
    );
    assert!(waiting.remove(&prefix(24, [10, 1, 2, 0])).expect("there"));
    assert_eq!(at([10, 1, 2, 3]), Some(16));
    let mut change = Change::new(Rc::clone(&waiting));
    change.apply().expect("applied");
    let stored = || number(map.lookup(&prefix(32, [10, 1, 2, 3])).expect("get"));
    assert_eq!(stored(), Some(16));
    change.revert().expect("reverted");
    assert_eq!(stored(), Some(24));
}

#[test]
fn queues_and_stacks_come_back_in_order() {
    for kind in [MapKind::QUEUE, MapKind::STACK] {
        let bytes = |n: u64| n.to_ne_bytes().to_vec();
        let map = map(kind, 0, 8);
        map.push_bytes(&bytes(1)).expect("push");
        map.push_bytes(&bytes(2)).expect("push");
        for cleared in [false, true] {
            let waiting = Rc::new(Waiting::new(map.clone(), None));
            if cleared {
                waiting.clear();
            }
            waiting.push(bytes(3)).expect("waits");
            assert!(waiting.pop().is_err_and(|e| e.is("EAGAIN")));
            let first = if kind == MapKind::STACK || cleared { 3 } else { 1 };
            assert_eq!(number(waiting.peek().expect("peek")), Some(first));
            let mut change = Change::new(Rc::clone(&waiting));
            change.apply().expect("applied");
            assert_eq!(number(map.peek_bytes().expect("peek")), Some(first));
            change.revert().expect("reverted");
        }
        let popped = [0, 1, 2].map(|_| number(map.pop_bytes().expect("pop")));
        let wanted = if kind == MapKind::STACK {
            [Some(2), Some(1), None]
        } else {
            [Some(1), Some(2), None]
        };
        assert_eq!(popped, wanted, "{kind}");
    }
}
