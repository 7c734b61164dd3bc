//! Maps from Lua beside a C program with libbpf: a million entries loaded, elements read one by one, records of a ring
//! buffer handed to a handler. The C side is bench/maps/peer.c, compiled for the run.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::report::{Target, compare, heading, median, side};
use super::scratch::{CNFSCRIPT, run};
use cnfscript::kernel::bpf::{LoadOptions, Object};
use cnfscript::{Error, Result};

const ENTRIES: &str = "1000000";
const LOOKUPS: &str = "1000000";
const ROUNDS: usize = 5;
/// How long records are counted, and how long they are sent: the consumer starts first.
const COUNTED: &str = "1";
const SENT: &str = "1.5";
const BULK: &str = "bench/maps/bulk.lua";

pub fn measure() -> Result<()> {
    let peer = Peer::compile()?;
    bulk(&peer)?;
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
    let ways: [(&str, &[&str]); 6] = [
        (CNFSCRIPT, &["-q", BULK, "packed", ENTRIES]),
        (CNFSCRIPT, &["-q", BULK, "table", ENTRIES]),
        (&peer, &["batch", ENTRIES]),
        (&peer, &["single", ENTRIES]),
        (CNFSCRIPT, &["-q", BULK, "get", LOOKUPS]),
        (&peer, &["get", LOOKUPS]),
    ];
    let mut times: [Vec<f64>; 6] = Default::default();
    for _ in 0..ROUNDS {
        for (which, (program, arguments)) in ways.iter().enumerate() {
            let mut child = spawn(program, arguments)?;
            times[which].push(number(&last_line(&mut child)?)?);
        }
    }
    let [packed, table, batch, single, get, bare] = times.map(|all| median(&all));
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
    compare(what, &get, &side("C, the bare system call", bare), Target::AtMost(1.5));
    Ok(())
}

/// Records a second, of a program that is run over and over meanwhile.
fn records(peer: &Peer) -> Result<()> {
    let (program, object) = (text(&peer.program()), text(&peer.object()));
    let bcc = Command::new("/usr/bin/python3").args(["-c", "import bcc"]).output();
    let bcc = bcc.is_ok_and(|output| output.status.success());
    let (mut ours, mut c, mut python) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let script = ["-q", "bench/maps/events.lua", &object, COUNTED];
        ours.push(consume(peer, spawn(CNFSCRIPT, &script)?, None)?);
        c.push(consume(peer, spawn(&program, &["events", &object, COUNTED])?, None)?);
        if bcc {
            let bytes = std::fs::read(peer.object()).map_err(|e| Error::io("bench", &e))?;
            let loaded = Object::load(&bytes, &LoadOptions::default())?;
            let map = loaded.map("events")?.id().to_string();
            let script = ["bench/maps/events.py", &map, COUNTED];
            let child = spawn("/usr/bin/python3", &script)?;
            python.push(consume(peer, child, Some(loaded.program("send")?.id()))?);
        }
    }
    heading(
        "Records of a ring buffer to a handler, the time of one, while one processor sends all it can",
    );
    let each = |rates: &[f64]| 1.0 / median(rates);
    let ours = side("m:on_record", each(&ours));
    // At least half of the records: at most twice the time of each.
    compare("a record", &ours, &side("C, libbpf", each(&c)), Target::AtMost(2.0));
    match bcc {
        true => {
            compare("a record", &ours, &side("bcc in Python", each(&python)), Target::Faster(20.0))
        }
        false => println!("  bcc in Python: not installed (python3-bpfcc)"),
    }
    Ok(())
}

/// Sends records to a consumer once it is ready; how many came to it a second.
fn consume(peer: &Peer, mut child: Child, program: Option<u32>) -> Result<f64> {
    let failed = |e: std::io::Error| Error::io("bench", &e);
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().transpose().map_err(failed).map(Option::unwrap_or_default);
    let ready = line()?;
    let program = match program {
        Some(program) => program.to_string(),
        None => ready.trim_start_matches("ready ").to_owned(),
    };
    let sent = run(&text(&peer.program()), &["send", &program, SENT], None);
    let counted = line();
    if sent.is_err() {
        let _ = child.kill();
    }
    child.wait().map_err(failed)?;
    sent?;
    number(&counted?)
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
