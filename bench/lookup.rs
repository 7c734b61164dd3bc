//! One policy lookup, IPv4, beside a bare hash map of as many entries and an LPM trie of the same policies.
//!
//! The programs are bench/lookup.bpf.c, run by BPF_PROG_TEST_RUN; the router's tables are those that `Router::set` wrote.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use cnfscript::kernel::bpf::compile::{CompileOptions, Source, compile};
use cnfscript::kernel::bpf::{LoadOptions, Map, Object, Write};
use cnfscript::program::router::{Action, Match, Policy, Prefix, Router, RouterSpec};
use cnfscript::{Error, Result};

use super::report::{Side, Target, compare, heading, median, side, time};
use super::scratch::Scratch;

/// As in bench/lookup.bpf.c.
const SOURCES: usize = 1 << 20;
const LOOKUPS: u32 = 1024;

/// Runs of a program in one measurement, and measurements of each program.
const RUNS: u32 = 64;
const ROUNDS: usize = 11;

const PROGRAMS: [&str; 4] = ["nothing", "bare_hash", "policies", "lpm_trie"];

pub fn measure() -> Result<()> {
    let source = Source::File(PathBuf::from("bench/lookup.bpf.c"));
    let object = compile(&source, &CompileOptions::default())?.bytes;
    let scratch = Scratch::new("lookup")?;
    let spec = RouterSpec {
        name: "bench".to_owned(),
        netns: scratch.netns.fd.clone(),
        attach: Vec::new(),
        default: None,
    };
    let router = Router::new(spec)?;
    let bench = Bench { object, router };
    heading(&format!(
        "One lookup, IPv4, random sources ({ROUNDS} x {RUNS} x {LOOKUPS} lookups; the empty loop is taken off all sides)"
    ));
    let sizes = [
        (10, Target::None),
        (1000, Target::None),
        (100_000, Target::Faster(4.0)),
        (1_000_000, Target::Faster(6.0)),
    ];
    for (count, faster) in sizes {
        // Half of the sources are below policies for /24, and miss the longer length.
        let times = bench.run(count, &[24, 32], &PROGRAMS)?;
        let what = format!("{count} policies, 2 prefix lengths (loop {})", times.empty_loop());
        compare(&what, &times.ours(), &times.peer(1, "bare hash"), Target::AtMost(2.0));
        compare(&what, &times.ours(), &times.peer(3, "LPM trie"), faster);
    }
    let lengths: Vec<u8> = (13..=32).collect();
    for count in [1000, 100_000, 1_000_000] {
        let times = bench.run(count, &lengths, &PROGRAMS[..3])?;
        let what = format!("{count} policies, 20 prefix lengths (loop {})", times.empty_loop());
        compare(&what, &times.ours(), &times.peer(1, "bare hash"), Target::AtMost(5.0));
    }
    Ok(())
}

struct Bench {
    object: Vec<u8>,
    router: Router,
}

/// Seconds per lookup, in the order of [`PROGRAMS`]; the first is the empty loop's.
struct Times(Vec<f64>);

impl Times {
    fn peer(&self, which: usize, name: &str) -> Side {
        side(name, self.0[which] - self.0[0])
    }

    fn ours(&self) -> Side {
        self.peer(2, "cnfscript")
    }

    fn empty_loop(&self) -> String {
        time(self.0[0])
    }
}

impl Bench {
    /// Fills the tables of all sides and runs the programs in turn.
    fn run(&self, count: usize, lengths: &[u8], programs: &[&'static str]) -> Result<Times> {
        let mut random = Random(42);
        let prefixes = prefixes(count, lengths, &mut random);
        let policies = prefixes.iter().map(|&(address, length)| {
            let from = Prefix::new(std::net::Ipv4Addr::from(address).into(), length)?;
            Ok(Policy::new(Match { from: Some(from), ..Match::default() }, Action::Drop))
        });
        self.router.set(policies.collect::<Result<_>>()?)?;
        let object = self.load(count, programs)?;
        fill(&object, &prefixes, programs.contains(&"lpm_trie"), &mut random)?;
        let mut times = vec![Vec::new(); programs.len()];
        for round in 0..=ROUNDS {
            for (times, name) in times.iter_mut().zip(programs) {
                let seconds = lookup_time(&object, name)?;
                // The first round warms up.
                if round > 0 {
                    times.push(seconds);
                }
            }
        }
        Ok(Times(times.iter().map(|times| median(times)).collect()))
    }

    /// The programs over the router's own maps.
    fn load(&self, count: usize, programs: &[&'static str]) -> Result<Object> {
        let mut maps = BTreeMap::new();
        for program in self.router.programs() {
            for id in program.info()?.map_ids {
                let map = Map::by_id(id)?;
                if ["state", "sets"].contains(&map.name()) {
                    maps.insert(map.name().to_owned(), map);
                }
            }
        }
        let size = |name: &str| (name.to_owned(), count as u32);
        let options = LoadOptions {
            name: "lookup".to_owned(),
            programs: Some(programs.iter().map(|&name| name.to_owned()).collect()),
            maps,
            max_entries: [size("bare"), size("trie")].into(),
            ..LoadOptions::default()
        };
        Object::load(&self.object, &options)
    }
}

/// Seconds per lookup.
fn lookup_time(object: &Object, program: &str) -> Result<f64> {
    let run = object.program(program)?.test_run(&[0; 64], &[], RUNS)?;
    match run.retval {
        LOOKUPS => Ok(f64::from(run.nanoseconds) / f64::from(LOOKUPS) * 1e-9),
        found => Err(Error::new("bench", "ENOENT", format!("found {found} of {LOOKUPS} sources"))
            .subject(program)),
    }
}

/// Distinct addresses, each with its length, evenly over the lengths as far as the short ones have room.
fn prefixes(count: usize, lengths: &[u8], random: &mut Random) -> Vec<(u32, u8)> {
    let mut prefixes = Vec::with_capacity(count);
    let mut seen = HashSet::with_capacity(count);
    for (i, &length) in lengths.iter().enumerate() {
        let share = (count - prefixes.len()) / (lengths.len() - i);
        let room = 1usize << (length - 3);
        let end = prefixes.len() + if length == 32 { share } else { share.min(room) };
        while prefixes.len() < end {
            let address = random.next() as u32 & (u32::MAX << (32 - length));
            if seen.insert(address) {
                prefixes.push((address, length));
            }
        }
    }
    prefixes
}

/// The sources, each below a random policy, and the peers' tables.
fn fill(object: &Object, prefixes: &[(u32, u8)], trie: bool, random: &mut Random) -> Result<()> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for i in 0..SOURCES as u32 {
        let (address, length) = prefixes[random.next() as usize % prefixes.len()];
        let host = random.next() as u32 & u32::MAX.checked_shr(length.into()).unwrap_or(0);
        keys.extend(i.to_ne_bytes());
        values.extend((address | host).to_ne_bytes());
        values.extend(address.to_ne_bytes());
    }
    object.map("sources")?.update_many(&keys, &values, Write::Any)?;
    let values: Vec<u8> = (1..=prefixes.len() as u64).flat_map(u64::to_ne_bytes).collect();
    let keys: Vec<u8> = prefixes.iter().flat_map(|(address, _)| address.to_ne_bytes()).collect();
    object.map("bare")?.update_many(&keys, &values, Write::Any)?;
    if trie {
        let keys: Vec<u8> = prefixes
            .iter()
            .flat_map(|(address, length)| {
                let length = u32::from(*length).to_ne_bytes();
                length.into_iter().chain(address.to_be_bytes())
            })
            .collect();
        object.map("trie")?.update_many(&keys, &values, Write::Any)?;
    }
    Ok(())
}

/// splitmix64: the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
