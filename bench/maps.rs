//! Maps from Lua beside a C program with libbpf: a million entries loaded, elements read one by one, records of a ring
//! buffer handed to a handler. The C side is bench/maps/peer.c, compiled for the run.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::report::{Side, Target, compare, heading, median, side};
use super::scratch::{CNFSCRIPT, run};
use cnfscript::kernel::bpf::{LoadOptions, Object};
use cnfscript::{Error, Result};

const ENTRIES: &str = "1000000";
const LOOKUPS: &str = "1000000";
const ROUNDS: usize = 5;
/// Records that a buffer of 4 MiB holds, and how often one is filled and drained.
const DRAINED: &str = "150000";
const DRAINS: &str = "10";
/// How long records are counted, and how long they are sent: the consumer starts first.
const COUNTED: &str = "1";
const SENT: &str = "1.5";
const BULK: &str = "bench/maps/bulk.lua";
const EVENTS: &str = "bench/maps/events.lua";
const BCC: &str = "bench/maps/events.py";
/// The distribution's, whose bcc it is.
const PYTHON: &str = "/usr/bin/python3";

pub fn measure() -> Result<()> {
    let peer = Peer::compile()?;
    bulk(&peer)?;
    drained(&peer)?;
    records(&peer)
}

/// What is compiled for the run; it goes with this value.
struct Peer {
    directory: tempfile::TempDir,
}

impl Peer {
    fn compile() -> Result<Peer> {
        let directory = tempfile::tempdir().map_err(|e| Error::io("bench", &e))?;
        let peer = Peer { directory };
        let (program, object) = (text(&peer.program()), text(&peer.object()));
        run("clang", &["-O2", "-o", &program, "bench/maps/peer.c", "-lbpf"], None)?;
        let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let bpf = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", &include, "-c"];
        run("clang", &[&bpf[..], &["bench/maps/events.bpf.c", "-o", &object]].concat(), None)?;
        Ok(peer)
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("peer")
    }

    fn object(&self) -> PathBuf {
        self.directory.path().join("events.o")
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Processor time: other load on the machine changes it little.
fn bulk(peer: &Peer) -> Result<()> {
    let peer = text(&peer.program());
    let ways: [(&str, &[&str]); 8] = [
        (CNFSCRIPT, &["-q", BULK, "packed", ENTRIES]),
        (CNFSCRIPT, &["-q", BULK, "table", ENTRIES]),
        (&peer, &["batch", ENTRIES]),
        (&peer, &["single", ENTRIES]),
        (CNFSCRIPT, &["-q", BULK, "get", LOOKUPS]),
        (&peer, &["get", LOOKUPS]),
        (CNFSCRIPT, &["-q", BULK, "set", LOOKUPS]),
        (&peer, &["set", LOOKUPS]),
    ];
    let mut times: [Vec<f64>; 8] = Default::default();
    for _ in 0..ROUNDS {
        for (which, (program, arguments)) in ways.iter().enumerate() {
            let mut child = spawn(program, arguments)?;
            times[which].push(number(&last_line(&mut child)?)?);
        }
    }
    let [packed, table, batch, single, get, bare_get, set, bare_set] =
        times.map(|all| median(&all));
    heading("A hash map of 1,000,000 entries, processor time");
    let packed = side("set_many{keys, values}", packed);
    let table = side("set_many(table)", table);
    let batch = side("C, one batch", batch);
    let single = side("C, single updates", single);
    // At least 0.8 of the batch: at most 1.25 times its time.
    compare("packed strings", &packed, &batch, Target::AtMost(1.25));
    compare("packed strings", &packed, &single, Target::Faster(1.5));
    compare("a table", &table, &batch, Target::AtMost(1.25));
    compare("a table", &table, &single, Target::Faster(1.5));
    let get = side("m:get", get);
    let what = "1,000,000 lookups in a loop";
    compare(what, &get, &side("C, the bare system call", bare_get), Target::AtMost(1.5));
    let set = side("m:set", set);
    let what = "1,000,000 updates in a loop";
    compare(what, &set, &side("C, the bare system call", bare_set), Target::AtMost(1.5));
    Ok(())
}

/// An object that is loaded for a consumer that does not load one itself.
fn loaded(peer: &Peer) -> Result<(Object, String, u32)> {
    let bytes = std::fs::read(peer.object()).map_err(|e| Error::io("bench", &e))?;
    let loaded = Object::load(&bytes, &LoadOptions::default())?;
    let (map, program) = (loaded.map("events")?.id().to_string(), loaded.program("send")?.id());
    Ok((loaded, map, program))
}

fn has_bcc() -> bool {
    let bcc = Command::new("/usr/bin/python3").args(["-c", "import bcc"]).output();
    bcc.is_ok_and(|output| output.status.success())
}

/// Processor time for each record of a buffer that was filled before: what a consumer can do at most.
fn drained(peer: &Peer) -> Result<()> {
    let (program, object) = (text(&peer.program()), text(&peer.object()));
    let ours = |handler| ["-q", EVENTS, handler, &object, DRAINS, &program, DRAINED];
    let (reads, keeps) = (ours("reads"), ours("keeps"));
    let c = ["drain", &object, DRAINS, DRAINED];
    let loaded = if has_bcc() { Some(loaded(peer)?) } else { None };
    let mut python = Vec::new();
    if let Some((_, map, sends)) = &loaded {
        let words = [BCC, "drain", map, DRAINS, &program, "fill"].map(str::to_owned);
        python.extend(words);
        python.extend([sends.to_string(), DRAINED.to_owned()]);
    }
    let python: Vec<&str> = python.iter().map(String::as_str).collect();
    let mut ways: Vec<(&str, &[&str])> =
        vec![(CNFSCRIPT, &reads), (CNFSCRIPT, &keeps), (&program, &c)];
    if loaded.is_some() {
        ways.push((PYTHON, &python));
    }
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (which, (program, arguments)) in ways.iter().enumerate() {
            times[which].push(number(&last_line(&mut spawn(program, arguments)?)?)?);
        }
    }
    heading("Records of a ring buffer that is full, processor time of one");
    let mut times = times.iter().map(|all| median(all));
    let mut next = |name| times.next().map(|time| side(name, time));
    let reads = next("a handler that reads a field").expect("it was measured");
    let keeps = next("a handler that keeps records").expect("it was measured");
    let c = next("C, libbpf").expect("it was measured");
    for ours in [&reads, &keeps] {
        compare("m:on_record", ours, &c, Target::None);
    }
    match next("bcc in Python") {
        Some(bcc) => {
            compare("m:on_record", &reads, &bcc, Target::Faster(20.0));
            compare("m:on_record", &keeps, &bcc, Target::None);
        }
        None => println!("  bcc in Python: not installed (python3-bpfcc)"),
    }
    Ok(())
}

/// What a consumer did while more was sent than it could take.
struct Live {
    /// Records a second.
    rate: f64,
    /// Seconds of processor time for each.
    each: f64,
    /// Records that found no room.
    lost: u64,
}

/// Records of a program that is run over and over meanwhile on another processor.
fn records(peer: &Peer) -> Result<()> {
    let (program, object) = (text(&peer.program()), text(&peer.object()));
    let bcc = has_bcc();
    let (mut ours, mut c, mut python) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let script = ["-q", EVENTS, "rate", &object, COUNTED];
        ours.push(consume(peer, spawn(CNFSCRIPT, &script)?, None)?);
        c.push(consume(peer, spawn(&program, &["rate", &object, COUNTED])?, None)?);
        if bcc {
            let (loaded, map, _) = loaded(peer)?;
            let sends = loaded.program("burst")?.id();
            let child = spawn(PYTHON, &[BCC, "rate", &map, COUNTED])?;
            python.push(consume(peer, child, Some(sends))?);
        }
    }
    heading("Records of a ring buffer to a handler, while one processor sends all it can");
    let (ours, ours_spent) = consumer("m:on_record", &ours);
    let (c, c_spent) = consumer("C, libbpf", &c);
    // At least half of the records: at most twice the time of each.
    compare("a record", &ours, &c, Target::AtMost(2.0));
    compare("a record, processor time", &ours_spent, &c_spent, Target::None);
    if bcc {
        // Neither waits for the sender: what they spend is what bounds them, whatever else the machine does.
        let (_, python_spent) = consumer("bcc in Python", &python);
        compare("a record, processor time", &ours_spent, &python_spent, Target::Faster(20.0));
    }
    Ok(())
}

/// The time from one record of a consumer to the next, and the processor time of one. Prints whether it could have had more.
fn consumer(name: &str, runs: &[Live]) -> (Side, Side) {
    let all = |what: fn(&Live) -> f64| median(&runs.iter().map(what).collect::<Vec<_>>());
    let idle = runs.iter().filter(|run| run.lost == 0).count();
    let bound = match idle {
        0 => "the buffer was full in every run".to_owned(),
        some => {
            format!("in {some} of {} runs it took all that the sender could make", runs.len())
        }
    };
    println!("  {name}: {:.2} million a second; {bound}", all(|run| run.rate) / 1e6);
    (side(name, 1.0 / all(|run| run.rate)), side(name, all(|run| run.each)))
}

/// Sends records to a consumer once it is ready.
fn consume(peer: &Peer, mut child: Child, program: Option<u32>) -> Result<Live> {
    let failed = |e: std::io::Error| Error::io("bench", &e);
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().transpose().map_err(failed).map(Option::unwrap_or_default);
    let ready = line()?;
    let program = match program {
        Some(program) => program.to_string(),
        None => ready.trim_start_matches("ready ").to_owned(),
    };
    let sent = last_line(&mut spawn(&text(&peer.program()), &["burst", &program, SENT])?);
    let lost = sent.and_then(|lost| {
        lost.parse().map_err(|_| Error::new("bench", "ECHILD", "the sender failed").subject(lost))
    });
    // It takes records for as long as some are sent: what finds no room does so for want of time.
    let counted = if lost.is_ok() { line() } else { Ok(String::new()) };
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    child.wait().map_err(failed)?;
    let (lost, counted) = (lost?, counted?);
    let (rate, each) = counted.split_once(' ').unwrap_or((&counted, ""));
    Ok(Live { rate: number(rate)?, each: number(each)?, lost })
}

fn spawn(program: &str, arguments: &[&str]) -> Result<Child> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // That the buffer is full is what is wanted here.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Error::io("bench", &e).subject(program))
}

fn last_line(child: &mut Child) -> Result<String> {
    let failed = |e: std::io::Error| Error::io("bench", &e);
    let reader = BufReader::new(child.stdout.take().expect("it is piped"));
    let last = reader.lines().last().transpose().map_err(failed)?.unwrap_or_default();
    child.wait().map_err(failed)?;
    Ok(last)
}

/// What a side measured: above zero, or it had no part in the run.
fn number(line: &str) -> Result<f64> {
    let measured = line.trim().parse().ok().filter(|number: &f64| *number > 0.0);
    measured.ok_or_else(|| Error::new("bench", "ECHILD", "a side measured nothing").subject(line))
}
