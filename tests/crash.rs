//! Death at every step: a script that leaves one of everything, most of it on things of others, is killed at its n-th step,
//! for every n, while it loads, reloads and tears down; after each death `cnfscript clean` restores what was before, exactly.
//!
//! What is "others'" is in namespaces that the test makes; the binary runs in one of them, so that to it that is the host.
//! By default every k-th step is tried, from a place that is printed and that is another in each run: CRASH_FROM=n begins
//! there, CRASH_EVERY=1 tries all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cnfscript::kernel::bpf::inventory;
use cnfscript::own::instance::DIRECTORY_VARIABLE;

const BINARY: &str = env!("CARGO_BIN_EXE_cnfscript");
/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// As the kernel's processors; more only wait for one another.
const ROOMS: usize = 2;
/// The environment variable by which children of one room are known.
const ROOM: &str = "CRASH_ROOM";

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash").join(name)
}

/// Namespaces with other people's things in them, and an instance's directory.
struct Room {
    name: String,
    run: tempfile::TempDir,
    /// The script, which a reload finds changed.
    script: PathBuf,
    before: String,
}

impl Room {
    fn new() -> Room {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short: programs are called so too.
        let name = format!("k{:x}x{count}", std::process::id());
        let run = tempfile::tempdir().expect("a temporary directory");
        let script = run.path().join("script.lua");
        let mut room = Room { name, run, script, before: String::new() };
        room.furnish();
        room
    }

    fn far(&self) -> String {
        format!("{}far", self.name)
    }

    fn furnish(&mut self) {
        for name in [self.name.clone(), self.far()] {
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
            must(Command::new("ip").args(["netns", "add", &name]));
        }
        must(Command::new("sh").arg(here("foreign.sh")).args([&self.name, &self.far()]));
        // Carriers and addresses of IPv6 settle a moment later.
        let limit = Instant::now() + PATIENCE;
        loop {
            let first = self.snapshot();
            std::thread::sleep(Duration::from_millis(200));
            self.before = self.snapshot();
            if first == self.before {
                break;
            }
            assert!(Instant::now() < limit, "what is there before does not settle");
        }
    }

    /// A program in the namespace that is the host's here.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command.env(DIRECTORY_VARIABLE, self.run.path().join("run")).env(ROOM, &self.name);
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// All that a script could have changed, as text.
    fn snapshot(&self) -> String {
        let output = self.command("sh").arg(here("snapshot.sh")).output().expect("sh runs");
        let mut text = String::from_utf8(output.stdout).expect("it is text");
        text += &files(Path::new("/run/netns"), &self.name);
        text += &files(Path::new("/sys/fs/bpf/cnfscript"), &self.name);
        text += &files(&self.run.path().join("run"), "");
        let ours = |name: &str| name.starts_with(&self.name);
        let programs = inventory::programs().expect("they are listed").into_iter();
        programs.filter(|p| ours(&p.name)).for_each(|p| text += &format!("program {}\n", p.name));
        let maps = inventory::maps().expect("they are listed").into_iter();
        maps.filter(|m| ours(&m.name)).for_each(|m| text += &format!("map {}\n", m.name));
        text += &self.children().into_iter().map(|c| format!("process {c}\n")).collect::<String>();
        text
    }

    /// What children of the binary still run.
    fn children(&self) -> Vec<String> {
        let mark = format!("{ROOM}={}", self.name);
        let processes = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
        let read = |path: PathBuf| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        processes
            .filter(|p| read(p.path().join("environ")).split('\0').any(|one| one == mark))
            .map(|p| read(p.path().join("cmdline")).replace('\0', " "))
            .filter(|line| line.starts_with("sleep "))
            .collect()
    }

    fn write(&self, script: &str) {
        std::fs::copy(here(script), &self.script).expect("it can be copied");
        let common = self.script.with_file_name("common.lua");
        std::fs::copy(here("common.lua"), common).expect("it can be copied");
    }

    fn start(&self, words: &[&str], die_at: u64) -> Child {
        let mut command = self.command(BINARY);
        command.args(words).env("CNFSCRIPT_DIE_AT", die_at.to_string());
        // Where common.lua is found.
        command.current_dir(self.run.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// One life: load, with `reload` load again, and tear down; true when it died on the way. What it said.
    fn live(&self, reload: bool, die_at: u64) -> (bool, String) {
        self.write("first.lua");
        let script = self.script.to_str().expect("text");
        let mut child = self.start(&["--name", &self.name, script, &self.name], die_at);
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        let signal = |signal| nix::sys::signal::kill(pid, signal).expect("it is ours");
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().expect("it is piped")).lines() {
            let line = line.expect("it is text");
            said += &format!("{line}\n");
            if line.contains("set up") && reload {
                self.write("second.lua");
                signal(nix::sys::signal::Signal::SIGHUP);
            } else if line.contains("set up") || line.starts_with("reload 2") {
                signal(nix::sys::signal::Signal::SIGTERM);
            } else if line.starts_with("error") {
                let _ = child.kill();
            }
        }
        let status = child.wait().expect("it ends");
        let died = status.signal() == Some(nix::libc::SIGKILL);
        assert!(!said.contains("error"), "at {die_at}: {said}");
        (died, said)
    }

    fn clean(&self, die_at: u64) -> Output {
        self.start(&["clean"], die_at).wait_with_output().expect("it ends")
    }

    /// What is not as it was, after `clean`.
    fn difference(&self) -> Option<String> {
        // Programs are freed a while after the last hold on them is gone, carriers come back a while after their link.
        let limit = Instant::now() + PATIENCE;
        loop {
            let now = self.snapshot();
            if now == self.before {
                return None;
            }
            if Instant::now() > limit {
                return Some(lines_that_differ(&self.before, &now));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Dies at that step, cleans, compares. False when the life came to its end.
    fn try_step(
        &mut self,
        reload: bool,
        die_at: u64,
        failures: &mut BTreeMap<u64, String>,
    ) -> bool {
        let (died, said) = self.live(reload, die_at);
        let cleaned = self.clean(0);
        let words = String::from_utf8_lossy(&cleaned.stderr).into_owned();
        let mut problem = (!cleaned.status.success() || !words.is_empty()).then_some(words);
        problem = problem.or_else(|| self.difference());
        if let Some(problem) = problem {
            failures.insert(die_at, format!("{problem}\n{said}"));
            self.furnish();
        }
        died
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        for name in names.filter(|name| name.starts_with(&self.name)) {
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}

fn must(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The files of a directory whose names begin so.
fn files(directory: &Path, prefix: &str) -> String {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .map(|name| format!("{}/{name}\n", directory.display()))
        .collect();
    names.sort();
    names.concat()
}

fn lines_that_differ(before: &str, now: &str) -> String {
    let missing = before.lines().filter(|line| !now.lines().any(|l| l == *line));
    let new = now.lines().filter(|line| !before.lines().any(|l| l == *line));
    let missing = missing.map(|line| format!("  - {line}\n"));
    missing.chain(new.map(|line| format!("  + {line}\n"))).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Every `every`-th step from one that is another each time.
fn every_step(reload: bool, every: u64) {
    let every = number("CRASH_EVERY").unwrap_or(every);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = number("CRASH_FROM").unwrap_or(1 + now.as_secs() % every);
    println!(
        "dying at step {from} and every {every}th after it (CRASH_FROM={from} CRASH_EVERY={every})"
    );
    let next = AtomicUsize::new(0);
    let ended = std::sync::atomic::AtomicBool::new(false);
    let work = || {
        let mut room = Room::new();
        let mut failures = BTreeMap::new();
        let mut last = 0;
        while !ended.load(Ordering::Relaxed) && failures.len() < 3 {
            let step = from + every * next.fetch_add(1, Ordering::Relaxed) as u64;
            last = step;
            if !room.try_step(reload, step, &mut failures) {
                ended.store(true, Ordering::Relaxed);
            }
        }
        (last, failures)
    };
    let mut failures = BTreeMap::new();
    let mut last = 0;
    std::thread::scope(|scope| {
        let rooms: Vec<_> = (0..ROOMS).map(|_| scope.spawn(work)).collect();
        for room in rooms {
            let (step, more) = room.join().expect("no room fails by itself");
            last = last.max(step);
            failures.extend(more);
        }
    });
    println!("it has fewer than {last} steps");
    let told: String =
        failures.iter().map(|(step, text)| format!("step {step}:\n{text}\n")).collect();
    assert!(failures.is_empty(), "{told}");
    assert!(last > 50, "hardly a step was tried");
}

#[test]
fn clean_restores_what_was_before_whenever_a_script_dies() {
    every_step(false, 29);
}

#[test]
fn clean_restores_what_was_before_whenever_a_reload_dies() {
    every_step(true, 41);
}
