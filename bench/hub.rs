//! A hub with 100 namespaces: a script, one `ip` per command, `ip -batch`.
//!
//! The peers create each end in its namespace, as fast as iproute2 can. `ip -batch` enters a namespace only as a whole
//! (`ip -n NS -batch`): one process makes all namespaces, one does everything in the hub, one each does the four
//! commands inside of a namespace.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::report::{Target, compare, heading, median, side};
use super::scratch::{CNFSCRIPT, prefix, run, settle};
use cnfscript::{Error, Result};

const COUNT: usize = 100;
const ROUNDS: usize = 5;
const SCRIPT: &str = "bench/hub.lua";

/// In seconds.
struct Times {
    up: f64,
    /// Until the script has ended, or the last link is deleted; not measured with `ip -batch`.
    down: f64,
    /// As `down`, and until the kernel has freed everything.
    freed: f64,
}

pub fn measure() -> Result<()> {
    let mut times: [Vec<Times>; 3] = Default::default();
    for round in 0..ROUNDS {
        for (which, way) in [script, per_command, batch].into_iter().enumerate() {
            let names = Names(format!("{}{round}{which}-", prefix()));
            times[which].push(way(&names)?);
            drop(names);
            settle()?;
        }
    }
    let [ours, single, batch] = times.map(|all| {
        let middle = |of: fn(&Times) -> f64| median(&all.iter().map(of).collect::<Vec<_>>());
        Times { up: middle(|t| t.up), down: middle(|t| t.down), freed: middle(|t| t.freed) }
    });
    heading(&format!("{COUNT} namespaces, each with a veth to a hub, an address, a default route"));
    let up = side("cnfscript (with its start)", ours.up);
    compare("set-up", &up, &side("one ip per command", single.up), Target::Faster(10.0));
    compare("set-up", &up, &side("ip -batch", batch.up), Target::Faster(1.0));
    let peer = side("one ip link del per link, links alone", single.down);
    compare("removal", &side("cnfscript, until it ends", ours.down), &peer, Target::None);
    let freed = side("cnfscript, until the kernel has freed all", ours.freed);
    compare("removal", &freed, &peer, Target::None);
    Ok(())
}

impl Times {
    fn new(up: Duration, down: Duration, freed: Duration) -> Times {
        Times { up: up.as_secs_f64(), down: down.as_secs_f64(), freed: freed.as_secs_f64() }
    }
}

/// Namespaces by these names are gone when this is dropped.
struct Names(String);

impl Names {
    fn hub(&self) -> String {
        format!("{}hub", self.0)
    }

    fn leaf(&self, i: usize) -> String {
        format!("{}{i}", self.0)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let ours = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(&self.0))
            .fold(String::new(), |text, name| text + "netns delete " + &name + "\n");
        if let Err(error) = run("ip", &["-batch", "-"], Some(&ours)) {
            eprintln!("left behind: {error}");
        }
    }
}

fn script(names: &Names) -> Result<Times> {
    let failed = |e: std::io::Error| Error::io("bench", &e).subject(SCRIPT);
    let start = Instant::now();
    let mut child = Command::new(CNFSCRIPT)
        .args(["-q", SCRIPT, &names.0, &COUNT.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line);
    let up = start.elapsed();
    if read.is_err() || line != "ready\n" {
        let _ = stop(&mut child);
        return Err(Error::new("bench", "ECHILD", "the script did not get ready").subject(SCRIPT));
    }
    let start = Instant::now();
    stop(&mut child).map_err(failed)?;
    let down = start.elapsed();
    settle()?;
    Ok(Times::new(up, down, start.elapsed()))
}

fn stop(child: &mut Child) -> std::io::Result<()> {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
    child.wait().map(drop)
}

fn link(i: usize, leaf: &str) -> String {
    format!("link add leaf{i} up type veth peer name eth0 netns {leaf}")
}

/// A veth refuses to be made with its peer up.
fn inside(i: usize) -> [String; 4] {
    [
        "link set eth0 up".to_owned(),
        "link set lo up".to_owned(),
        format!("address add 10.77.{i}.2/24 dev eth0"),
        format!("route add default via 10.77.{i}.1"),
    ]
}

fn per_command(names: &Names) -> Result<Times> {
    let ip = |netns: Option<&str>, command: &str| {
        let netns = netns.map(|name| ["-n", name]);
        let words: Vec<&str> = netns.iter().flatten().copied().chain(command.split(' ')).collect();
        run("ip", &words, None)
    };
    let hub = names.hub();
    let start = Instant::now();
    ip(None, &format!("netns add {hub}"))?;
    ip(Some(&hub), "link set lo up")?;
    for i in 1..=COUNT {
        let leaf = names.leaf(i);
        ip(None, &format!("netns add {leaf}"))?;
        ip(Some(&hub), &link(i, &leaf))?;
        ip(Some(&hub), &format!("address add 10.77.{i}.1/24 dev leaf{i}"))?;
        for command in inside(i) {
            ip(Some(&leaf), &command)?;
        }
    }
    let up = start.elapsed();
    let start = Instant::now();
    for i in 1..=COUNT {
        ip(Some(&hub), &format!("link delete leaf{i}"))?;
    }
    let down = start.elapsed();
    Ok(Times::new(up, down, down))
}

fn batch(names: &Names) -> Result<Times> {
    let (hub, mut spaces, mut links) = (names.hub(), String::new(), String::new());
    let _ = writeln!(spaces, "netns add {}", names.hub());
    links += "link set lo up\n";
    for i in 1..=COUNT {
        let leaf = names.leaf(i);
        let _ = writeln!(spaces, "netns add {leaf}");
        let _ = writeln!(links, "{}\naddress add 10.77.{i}.1/24 dev leaf{i}", link(i, &leaf));
    }
    let start = Instant::now();
    run("ip", &["-batch", "-"], Some(&spaces))?;
    run("ip", &["-n", &hub, "-batch", "-"], Some(&links))?;
    for i in 1..=COUNT {
        run("ip", &["-n", &names.leaf(i), "-batch", "-"], Some(&(inside(i).join("\n") + "\n")))?;
    }
    Ok(Times::new(start.elapsed(), Duration::ZERO, Duration::ZERO))
}
