//! Reloads: what a flow sees of them, from a save to the first packet that follows it, and a topology that has not changed.

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cnfscript::kernel::bpf::hook::{self, Hook, Order, Target};
use cnfscript::kernel::bpf::{LoadOptions, Object};
use cnfscript::kernel::link;
use cnfscript::kernel::netns::named;
use cnfscript::{Error, Result};

use super::flow::{Datagrams, Stream, go_first};
use super::report::{Target as Goal, compare, heading, side, time};
use super::scratch::{CNFSCRIPT, Scratch, prefix, settle, veth};

const RELOADS: u32 = 1000;
const SAVES: usize = 200;
/// Of the flow that a save moves. Sending a packet takes the processor from whatever runs there, which may be what is measured,
/// for 20 us and more; a longer rest counts as latency.
const BETWEEN_PACKETS: Duration = Duration::from_micros(200);
/// Nobody saves more often by hand; of saves 30 ms apart, one may wait until packets are done with the set before the last.
const BETWEEN_SAVES: Duration = Duration::from_millis(100);
const NAMESPACES: u32 = 200;

pub fn measure() -> Result<()> {
    heading(&format!(
        "{RELOADS} reloads that swap a program, a policy set and what stands beside them, under traffic"
    ));
    under_traffic()?;
    settle()?;
    heading(&format!(
        "From a save to the first packet that follows it: one policy of 1,000, {SAVES} saves"
    ));
    save_to_live()?;
    settle()?;
    heading(&format!("A topology of {NAMESPACES} namespaces that has not changed"));
    unchanged()
}

/// An instance in the background, with its own run directory; down when this is dropped.
struct Instance {
    directory: tempfile::TempDir,
    script: PathBuf,
}

fn io(error: std::io::Error) -> Error {
    Error::io("bench", &error)
}

impl Instance {
    fn up(text: &str, words: &[&str]) -> Result<Instance> {
        let directory = tempfile::tempdir().map_err(io)?;
        let script = directory.path().join("bench.lua");
        std::fs::write(&script, text).map_err(io)?;
        let instance = Instance { directory, script };
        instance.run(&[&["up", "--load-timeout", "60"], words, &["bench.lua"]].concat())?;
        Ok(instance)
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(CNFSCRIPT)
            .args(words)
            .current_dir(self.directory.path())
            .env("CNFSCRIPT_RUN_DIR", self.directory.path().join("run"))
            .stdin(Stdio::null())
            .output()
            .map_err(io)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::new("bench", "ECHILD", format!("it ended with {}", output.status))
            .subject(format!("cnfscript {}", words.join(" ")))
            .detail(String::from_utf8_lossy(&output.stderr)))
    }

    /// Reloads; how long the instance says that took.
    fn reload(&self) -> Result<f64> {
        let said = self.run(&["reload", "--json", "bench"])?;
        let data: serde_json::Value = serde_json::from_str(&said)
            .map_err(|e| Error::new("bench", "EINVAL", e.to_string()))?;
        Ok(data["seconds"].as_f64().unwrap_or(f64::NAN))
    }

    fn save(&self, text: &str) -> Result<Instant> {
        std::fs::write(&self.script, text).map_err(io)?;
        Ok(Instant::now())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down", "bench"]) {
            eprintln!("left behind: {error}");
        }
    }
}

fn text(name: &str) -> Result<String> {
    let path = Path::new("bench").join(name);
    let text = std::fs::read_to_string(&path).map_err(io)?;
    Ok(text.replace("PREFIX", &prefix()))
}

fn under_traffic() -> Result<()> {
    let script = text("reload_path.lua")?;
    let nth = |n: u32| script.replace("NUMBER", &n.to_string());
    let instance = Instance::up(&nth(0), &[])?;
    let netns = |name: &str| named::open(&format!("{}{name}", prefix())).map(|found| found.fd);
    let (client, server) = (netns("c")?, netns("s")?);
    let flow = || {
        let address = "10.81.0.2:7000".parse().expect("an address");
        Datagrams::start(&client, &server, address, Duration::from_millis(1))
    };
    let stream = Stream::start(&client, &server, "10.81.0.2:7001".parse().expect("an address"))?;
    let quiet = flow()?;
    std::thread::sleep(Duration::from_secs(10));
    let quiet = quiet.stop();
    let live = flow()?;
    for n in 1..=RELOADS {
        instance.save(&nth(n))?;
        instance.reload()?;
    }
    let live = live.stop();
    let (sent, received) = stream.stop()?;
    println!(
        "  {} datagrams sent, {} lost, {} reordered; {} bytes over TCP, {} missing",
        live.sent,
        live.sent - live.received,
        live.reordered,
        sent,
        sent - received
    );
    let ours = side("p99.9 of gaps, with reloads", live.gap(0.999));
    compare("flow", &ours, &side("without", quiet.gap(0.999)), Goal::AtMost(2.0));
    Ok(())
}

fn save_to_live() -> Result<()> {
    let script = text("reload_save.lua")?;
    let to = |which: &str| script.replace("WHICH", which);
    let instance = Instance::up(&to("A"), &["--watch"])?;
    let netns = |name: &str| named::open(&format!("{}{name}", prefix())).map(|found| found.fd);
    let client = netns("c")?.within(|| UdpSocket::bind("0.0.0.0:0").map_err(io))?;
    let server = |name: &str| -> Result<UdpSocket> {
        let socket = netns(name)?.within(|| UdpSocket::bind("10.99.0.1:7").map_err(io))?;
        socket.set_nonblocking(true).map_err(io)?;
        Ok(socket)
    };
    let servers = [server("a")?, server("b")?];
    client.connect("10.99.0.1:7").map_err(io)?;
    let save = |n: usize| {
        let next = 1 - n % 2;
        let (socket, mut buffer) = (&servers[next], [0; 16]);
        std::thread::sleep(BETWEEN_SAVES);
        while socket.recv(&mut buffer).is_ok() {}
        let saved = instance.save(&to(["A", "B"][next]))?;
        loop {
            client.send(b"x").map_err(io)?;
            if socket.recv(&mut buffer).is_ok() {
                break;
            }
            if saved.elapsed() > Duration::from_secs(5) {
                return Err(Error::new("bench", "ETIMEDOUT", "a save had no effect"));
            }
            std::thread::sleep(BETWEEN_PACKETS);
        }
        Ok(saved.elapsed().as_secs_f64())
    };
    let saves = || {
        go_first();
        (0..SAVES).map(save).collect::<Result<Vec<f64>>>()
    };
    let saves = std::thread::scope(|scope| scope.spawn(saves).join());
    let mut took = saves.expect("the packets are sent to the end")?;
    took.sort_by(f64::total_cmp);
    let (p50, p99) = (took[SAVES / 2], took[SAVES * 99 / 100]);
    println!(
        "  p50 {}, p99 {} (target 5 ms at most): {}",
        time(p50),
        time(p99),
        if p99 <= 5e-3 { "holds" } else { "DOES NOT HOLD" }
    );
    compare(
        "save",
        &side("a save, p50", p50),
        &side("a bare BPF_LINK_UPDATE, p50", bare()?),
        Goal::None,
    );
    Ok(())
}

/// The system call alone that puts a program in another's place.
fn bare() -> Result<f64> {
    let (a, b) = (Scratch::new("bare-a")?, Scratch::new("bare-b")?);
    veth(&a, ("v", "10.70.0.1/24"), &b, ("w", "10.70.0.2/24"))?;
    let bytes = cnfscript::program::embedded("mirror").expect("it comes with the binary");
    let load = || Object::load(bytes, &LoadOptions::default());
    let programs: Vec<_> = [load()?, load()?]
        .iter()
        .filter_map(|object| object.programs.values().next().cloned())
        .collect();
    let info = link::info_by_name(&a.netlink, "v")?;
    let target = Target::new(&a.netns.fd, info.index, "v");
    let attached = hook::attach(&target, Hook::TcxIngress, &programs[0], &Order::default())?;
    let mut took = Vec::new();
    for n in 0..SAVES {
        let start = Instant::now();
        attached.replace(&programs[1 - n % 2])?;
        took.push(start.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    Ok(took[SAVES / 2])
}

fn unchanged() -> Result<()> {
    let arguments = [prefix(), NAMESPACES.to_string()];
    let start = Instant::now();
    let mut child = Command::new(CNFSCRIPT)
        .args(["-q", "bench/hub.lua", &arguments[0], &arguments[1]])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(io)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).map_err(io)?;
    let built = start.elapsed().as_secs_f64();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
        .map_err(|e| Error::errno("kill", e))?;
    child.wait().map_err(io)?;
    settle()?;
    let hub = std::fs::read_to_string("bench/hub.lua").map_err(io)?;
    let hub = hub
        .replace("cnf.args[1]", &format!("{:?}", arguments[0]))
        .replace("cnf.args[2]", &arguments[1]);
    let instance = Instance::up(&hub, &[])?;
    let mut took = (0..5).map(|_| instance.reload()).collect::<Result<Vec<f64>>>()?;
    took.sort_by(f64::total_cmp);
    let ours = side("a reload", took[2]);
    compare("unchanged", &ours, &side("building it", built), Goal::Faster(20.0));
    Ok(())
}
