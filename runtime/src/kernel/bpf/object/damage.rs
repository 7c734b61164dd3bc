//! Damaged objects: whatever is wrong with one, the answer is an error, never a panic, and comes in time.
//!
//! The same damage in every run: bytes changed by a generator with fixed seeds, in the places that are read most
//! closely: types, section headers, symbols, relocations. What still parses is loaded, and its maps are read, as a script
//! would. `CNF_FUZZ=SECONDS cargo test --lib damage` goes on for that long with seeds that nobody has tried, and names the
//! one that fails.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{LoadOptions, ObjectFile, Type, Value};
use crate::kernel::bpf::testing::object;

const SOURCE: &str = r#"
enum verdict { PASS, DROP = 7 };
struct inner { __u16 words[3]; enum verdict verdict; };
struct outer { struct inner in[2]; union { __u32 word; char text[4]; }; __u32 low : 3, high : 29; struct in6_addr v6; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, struct inner);
  __type(value, struct outer); } hash SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); __type(value, struct outer); } ring SEC(".maps");
struct one { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
  __array(values, struct one); } slots SEC(".maps");
const volatile __u32 limit = 3;
struct outer state = {};
static __attribute__((noinline)) int twice(int n) { return n * 2; }
SEC("tc") int p(struct __sk_buff *skb) {
  struct inner key = {};
  struct outer *found = bpf_map_lookup_elem(&hash, &key);
  return found ? found->word + twice(skb->len) + limit + state.word : 0;
}
SEC("xdp") int q(struct xdp_md *ctx) { return bpf_ringbuf_output(&ring, &state, sizeof(state), 0) ? 1 : 2; }
"#;

/// The other half of what objects have: maps as before BTF, CO-RE relocations, a program array with its programs.
const OLDER: &str = r#"
struct old_map_def { unsigned int type, key_size, value_size, max_entries, map_flags; };
struct old_map_def SEC("maps") old = { BPF_MAP_TYPE_HASH, 4, 8, 4 };
struct old_map_def SEC("maps") older = { BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 2 };
struct net_device { int ifindex; unsigned int mtu; } __attribute__((preserve_access_index));
struct sk_buff { struct net_device *dev; unsigned int len; } __attribute__((preserve_access_index));
int step(struct __sk_buff *skb);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4);
  __array(values, int (void *)); } steps SEC(".maps") = { .values = { [1] = (void *)&step } };
SEC("tc") int step(struct __sk_buff *skb) { return 7; }
SEC("tc") int offsets(struct __sk_buff *skb) {
  __u32 key = 0;
  __u64 *found = bpf_map_lookup_elem(&old, &key), *other = bpf_map_lookup_elem(&older, &key);
  bpf_tail_call(skb, &steps, 1);
  return (found && other ? *found + *other : 0) +
    __builtin_preserve_field_info(((struct sk_buff *)0)->len, 0) + bpf_core_field_exists(struct sk_buff, dev);
}
"#;
const CORE: &str = "#include <bpf/bpf_core_read.h>\n";

/// A generator that is good enough to choose bytes, and the same everywhere (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides.max(1)
    }

    /// Changes a few bytes of a part of the object; lengths and offsets are words, so words are hit as words.
    fn damage(&mut self, bytes: &mut [u8], part: std::ops::Range<usize>) {
        for _ in 0..1 + self.roll(4) {
            let at = part.start + self.roll(part.len());
            match self.roll(4) {
                0 => bytes[at] ^= 1 << self.roll(8),
                1 => bytes[at] = self.roll(256) as u8,
                kind => {
                    let values = [0, 1, 0x7fff_ffff, u32::MAX, 0x8000_0000, self.roll(64) as u32];
                    let value = values[self.roll(values.len())].to_le_bytes();
                    let at = at & !3;
                    let width = if kind == 2 { 4 } else { 2 };
                    let end = (at + width).min(bytes.len());
                    bytes[at..end].copy_from_slice(&value[..end - at]);
                }
            }
        }
    }
}

/// A part of an object, and whether what it says decides how large maps are.
struct Part {
    range: std::ops::Range<usize>,
    sizes: bool,
}

/// The sections of an object, its header and the table of its sections, which is at the end.
fn parts(bytes: &[u8]) -> Vec<Part> {
    use ::object::{Object as _, ObjectSection as _};
    let file = ::object::File::parse(bytes).expect("an object");
    let section = |section: ::object::Section<'_, '_>| {
        let (start, size) = section.file_range().filter(|(_, size)| *size > 0)?;
        let sizes = [".BTF", ".maps", "maps"].contains(&section.name().unwrap_or_default());
        Some(Part { range: start as usize..(start + size) as usize, sizes })
    };
    let mut parts: Vec<Part> = file.sections().filter_map(section).collect();
    parts.push(Part { range: 0..64, sizes: false });
    parts.push(Part { range: bytes.len() - bytes.len() / 8..bytes.len(), sizes: false });
    // Types are half of what there is to read.
    for _ in 0..parts.len() {
        let types = parts.iter().find(|part| part.sizes).map(|part| part.range.clone());
        parts.push(Part { range: types.expect("types"), sizes: true });
    }
    parts
}

const SEEDS: std::ops::Range<u64> = 1..801;
/// How long all of them may take together: on a slow machine the rest is left out.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take.
const ONE: Duration = Duration::from_secs(5);

/// Which seeds, and for how long.
fn plan() -> (std::ops::Range<u64>, Duration) {
    let seconds = std::env::var("CNF_FUZZ").ok().and_then(|seconds| seconds.parse().ok());
    let Some(seconds) = seconds else { return (SEEDS, PATIENCE) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    (now..u64::MAX, Duration::from_secs(seconds))
}

#[test]
fn damaged_objects_are_refused_in_time() {
    try_damage(SOURCE);
}

#[test]
fn damaged_older_objects_are_refused_in_time() {
    try_damage(&format!("{CORE}{OLDER}"));
}

fn try_damage(source: &str) {
    let good = object(source);
    assert!(ObjectFile::parse(&good).is_ok_and(load), "it loads undamaged");
    let parts = parts(&good);
    let (seeds, patience) = plan();
    let begin = Instant::now();
    let (mut tried, mut parsed, mut loaded) = (0, 0, 0);
    for seed in seeds.take_while(|_| begin.elapsed() < patience) {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bad = good.clone();
        let part = &parts[dice.roll(parts.len())];
        dice.damage(&mut bad, part.range.clone());
        if dice.roll(20) == 0 {
            bad.truncate(dice.roll(bad.len()));
        }
        let start = Instant::now();
        tried += 1;
        let (read, held) = std::panic::catch_unwind(|| try_one(&bad, part.sizes))
            .unwrap_or_else(|_| panic!("seed {seed} panics"));
        parsed += usize::from(read);
        loaded += usize::from(held);
        assert!(start.elapsed() < ONE, "seed {seed} took {:?}", start.elapsed());
    }
    assert!(
        tried > 20 && parsed > 0 && loaded > 0,
        "the damage is always fatal: {tried} {parsed} {loaded}"
    );
}

/// Whether it could be parsed, and loaded.
fn try_one(bytes: &[u8], sizes: bool) -> (bool, bool) {
    let Ok(file) = ObjectFile::parse(bytes) else { return (false, false) };
    read_types(&file);
    // Damaged sizes are for us to survive, not for this machine's memory.
    (true, !sizes && load(file))
}

/// Everything that is done with types: all of them, as a map's would be.
fn read_types(file: &ObjectFile) {
    let _ = (file.globals(), file.maps(), file.programs().len());
    let Some(btf) = &file.btf else { return };
    for id in (1..2000).take_while(|id| btf.resolve_type_by_id(*id).is_ok()) {
        let Some(kind) = Type::from_btf(btf, id) else { continue };
        let _ = (kind.name(), kind.declaration(), kind.decode(&[]));
        if kind.size() < 1 << 16 {
            let read = kind.decode(&vec![0xa5; kind.size()]);
            let _ = kind.encode(&read);
            let _ = kind.encode(&Value::Struct(vec![("word".into(), Value::Int(-1))]));
        }
    }
    let _ = Type::named(btf, "struct outr");
}

/// Loads it with small maps, and reads them as a script would; whether it could be loaded.
fn load(file: ObjectFile) -> bool {
    let small = file.maps().into_iter().filter(|name| !name.starts_with('.'));
    let small =
        small.map(|name| (name.to_owned(), if name == "ring" { 4096 } else { 2 })).collect();
    let options = LoadOptions { max_entries: small, ..LoadOptions::default() };
    let Ok(loaded) = file.load(&options) else { return false };
    for map in loaded.maps.values() {
        let _ = map.pairs().take(10).count();
    }
    true
}
