//! A room of one test: a run directory, scripts, and namespaces of its own; nothing of it outlives the test.

// Each test binary uses what it needs.
#![allow(dead_code)]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cnfscript::kernel::netns::{NetnsFd, named};
use cnfscript::own::instance::{DIRECTORY_VARIABLE, Instances};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub const BINARY: &str = env!("CARGO_BIN_EXE_cnfscript");
/// No command of these tests takes longer, whatever goes wrong.
pub const BOUND: &str = "30";
/// Nothing that a test waits for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Two pairs: the ends v1 and v2 in one namespace, their peers in another.
pub const LINKS: &str = "
local a, b = cnf.netns.new('PREFIXa'), cnf.netns.new('PREFIXb')
local function pair(n)
  return (cnf.link.veth { name = 'v' .. n, netns = a, address = ('10.77.%d.1/24'):format(n),
    peer = { name = 'w' .. n, netns = b, address = ('10.77.%d.2/24'):format(n) } })
end
local v1, v2 = pair(1), pair(2)
";

/// A run directory and scripts of one test. What still runs at its end is killed, namespaces of its own are deleted.
pub struct Room {
    pub run: tempfile::TempDir,
    pub scripts: tempfile::TempDir,
    /// Of namespaces: unique on this machine.
    pub prefix: String,
}

impl Room {
    pub fn new() -> Room {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = || tempfile::tempdir().expect("a temporary directory");
        let prefix = format!("bg{}-{count}-", std::process::id());
        Room { run: directory(), scripts: directory(), prefix }
    }

    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scripts.path().join(format!("{name}.lua"));
        let text = text.replace("PREFIX", &self.prefix);
        std::fs::write(&path, format!("local cnf = require 'cnf'\n{text}")).expect("written");
        path
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", BOUND, BINARY]).args(words);
        command.env(DIRECTORY_VARIABLE, self.run.path()).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).current_dir(self.scripts.path());
        command
    }

    pub fn run(&self, words: &[&str]) -> Said {
        self.command(words).output().expect("the binary starts").into()
    }

    /// A script that is up under its own name.
    pub fn up(&self, name: &str, text: &str) {
        let script = self.script(name, text);
        let said = self.run(&["up", script.to_str().expect("text")]);
        assert_eq!(said.status, 0, "{said:?}");
    }

    /// A script in the foreground, with its output in a pipe, that has said "ready".
    pub fn start(&self, script: &str) -> Child {
        let mut command = self.command(&[script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut ready = [0; 6];
        child.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("it says ready");
        child
    }

    pub fn status(&self, name: &str) -> Value {
        let said = self.run(&["status", "--json", name]);
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    /// Writes the script anew and reloads it.
    pub fn reload(&self, name: &str, text: &str) -> Said {
        self.script(name, text);
        self.run(&["reload", name])
    }

    /// As [`Room::reload`], which must go well: what it tells as data.
    pub fn turn(&self, name: &str, text: &str) -> Value {
        self.script(name, text);
        self.difference(name)
    }

    /// As [`Room::reload`], with something done while the load waits in the middle, at a line that says `meanwhile()`.
    pub fn reload_with(&self, name: &str, text: &str, act: impl FnOnce()) -> Said {
        let go = self.scripts.path().join("go");
        let _ = std::fs::remove_file(&go);
        let meanwhile = format!(
            "local function meanwhile()
              print('loading ' .. cnf.generation)
              while not io.open({go:?}) do cnf.task.sleep(0.01) end
            end "
        );
        self.script(name, &format!("{meanwhile}{text}"));
        let before = self.log(name).matches("loading").count();
        let mut reload = self.command(&["reload", name]);
        let reload = reload.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        eventually(|| self.log(name).matches("loading").count() > before);
        act();
        std::fs::write(go, "").expect("written");
        reload.wait_with_output().expect("it ends").into()
    }

    /// What a reload tells as data.
    pub fn difference(&self, name: &str) -> Value {
        let said = self.run(&["reload", "--json", name]);
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    pub fn log(&self, name: &str) -> String {
        self.run(&["logs", name]).out
    }

    /// What `ip` says inside a namespace of this room.
    pub fn ip(&self, netns: &str, words: &str) -> String {
        let netns = format!("{}{netns}", self.prefix);
        let mut ip = Command::new("ip");
        let output = ip.args(["-n", &netns]).args(words.split(' ')).output().expect("ip is there");
        // `ip` looks at all namespaces for the name of a peer's: one of another test may have just gone.
        let errors = String::from_utf8_lossy(&output.stderr);
        let errors = errors.replace("Error: Peer netns reference is invalid.\n", "");
        String::from_utf8_lossy(&output.stdout).into_owned() + &errors
    }

    pub fn pid(&self, name: &str) -> Pid {
        Pid::from_raw(self.status(name)["pid"].as_i64().expect("it is known") as i32)
    }

    pub fn signal(&self, name: &str, signal: Signal) {
        kill(self.pid(name), signal).expect("it is alive");
    }

    /// Kills the instance and waits until it is dead.
    pub fn kill(&self, name: &str) {
        self.signal(name, Signal::SIGKILL);
        eventually(|| self.status(name)["state"] == "dead");
    }

    /// A namespace of this room.
    pub fn netns(&self, name: &str) -> NetnsFd {
        named::open(&format!("{}{name}", self.prefix)).expect("it is there").fd
    }

    pub fn namespaces(&self) -> Vec<String> {
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&self.prefix)).collect()
    }

    pub fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.run.path()).expect("it is there").flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let found = Instances::at(self.run.path().to_owned()).all().unwrap_or_default();
        let alive = found.iter().filter(|found| found.alive);
        for pid in alive.filter_map(|found| found.record.as_ref()).map(|record| record.pid) {
            if pid != std::process::id() {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
        }
        // Dead by now, or in a moment; what they had pinned would stay for ever.
        let instances = Instances::at(self.run.path().to_owned());
        let start = Instant::now();
        while instances.all().unwrap_or_default().iter().any(|found| found.alive)
            && start.elapsed() < Duration::from_secs(2)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.run(&["clean", "--all"]);
        for name in self.namespaces() {
            let _ = Command::new("ip").args(["netns", "delete", &name]).status();
        }
    }
}

#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    #[track_caller]
    pub fn expect(&self, status: i32, text: &str) {
        let all = format!("{}{}", self.out, self.err);
        assert!(
            self.status == status && all.contains(text),
            "expected {status} {text:?}\n{self:?}"
        );
    }
}

#[track_caller]
pub fn eventually(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < PATIENCE, "it never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}
