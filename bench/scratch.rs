//! What the measurements make and remove again: namespaces with this run's prefix, commands that must succeed.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cnfscript::kernel::link::{self, End, NewLink, kinds};
use cnfscript::kernel::netlink::Netlink;
use cnfscript::kernel::netns::named::{self, Netns};
use cnfscript::{Error, Result};

/// The product itself, as built for this run.
pub const CNFSCRIPT: &str = env!("CARGO_BIN_EXE_cnfscript");

/// What every namespace of this run is called by; bench/run removes what an interrupted run leaves.
pub fn prefix() -> String {
    std::env::var("CNF_BENCH_PREFIX")
        .unwrap_or_else(|_| format!("cnfbench-{}-", std::process::id()))
}

/// A namespace that goes with this value.
pub struct Scratch {
    pub netns: Netns,
    pub netlink: Netlink,
}

impl Scratch {
    pub fn new(what: &str) -> Result<Scratch> {
        let (netns, netlink) = named::create(&format!("{}{what}", prefix()))?;
        Ok(Scratch { netns, netlink })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.netns.delete() {
            eprintln!("left behind: {error}");
        }
    }
}

/// Two ends, each in its namespace with its name and address, up.
pub fn veth(a: &Scratch, a_end: (&str, &str), b: &Scratch, b_end: (&str, &str)) -> Result<()> {
    let end = |(name, address): (&str, &str)| {
        let mut end = End::named(name);
        end.addresses.push(address.parse().expect("an address"));
        end
    };
    let kind = kinds::find("veth").expect("a kind of link");
    let mut pair = NewLink::new(&a.netlink, kind, end(a_end));
    pair.peer = Some((&b.netlink, end(b_end)));
    link::create(&pair).map(drop)
}

/// Waits until the kernel has freed the namespaces that were deleted before: it does so later, one after the other, and
/// whoever runs meanwhile pays for it.
///
/// # Errors
/// ETIMEDOUT after 20 seconds.
pub fn settle() -> Result<()> {
    let (last, stays) = (Scratch::new("last")?, Scratch::new("stays")?);
    veth(&last, ("a", "10.60.0.1/24"), &stays, ("b", "10.60.0.2/24"))?;
    drop(last);
    let start = Instant::now();
    while link::list(&stays.netlink)?.iter().any(|link| link.name == "b") {
        if start.elapsed() > Duration::from_secs(20) {
            return Err(Error::new("bench", "ETIMEDOUT", "the kernel keeps deleted namespaces"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Runs a command to its end; `input` is what it reads.
///
/// # Errors
/// ECHILD with what it said, when it does not succeed.
pub fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("bench", &e).subject(program);
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(text) = input {
        child.stdin.take().expect("it is piped").write_all(text.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::new("bench", "ECHILD", format!("it ended with {}", output.status))
            .subject(format!("{program} {}", arguments.join(" ")))
            .detail(String::from_utf8_lossy(&output.stderr))),
    }
}
