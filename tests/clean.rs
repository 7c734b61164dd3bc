//! `cnfscript clean` from outside: what it says and does of dead, living and background instances, prompts and test workers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use cnfscript::kernel::netns::named;
use cnfscript::own::instance::DIRECTORY_VARIABLE;

const BINARY: &str = env!("CARGO_BIN_EXE_cnfscript");
/// No command of these tests takes longer.
const BOUND: &str = "30";

/// A run directory of one test, and names that nobody else has.
struct Room {
    run: tempfile::TempDir,
    prefix: String,
}

struct Said {
    out: String,
    err: String,
    status: i32,
}

impl Room {
    fn new() -> Room {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("cl{:x}-{count}", std::process::id());
        Room { run: tempfile::tempdir().expect("a temporary directory"), prefix }
    }

    fn directory(&self) -> PathBuf {
        self.run.path().join("run")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", BOUND, BINARY]).args(words).stdin(Stdio::null());
        command.env(DIRECTORY_VARIABLE, self.directory()).env("NO_COLOR", "1");
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        let output = self.command(words).output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        Said {
            out: text(output.stdout),
            err: text(output.stderr),
            status: output.status.code().unwrap_or(-1),
        }
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.run.path().join(format!("{name}.lua"));
        let text = text.replace("PREFIX", &self.prefix);
        std::fs::write(&path, format!("local cnf = require 'cnf'\n{text}")).expect("written");
        path.display().to_string()
    }

    /// Runs the words, which print "ready" when they have made what they make.
    fn until_ready(&self, words: &[&str], input: &str) -> Child {
        let mut command = Command::new(BINARY);
        command.args(words).env(DIRECTORY_VARIABLE, self.directory()).env("NO_COLOR", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        child.stdin.as_mut().expect("piped").write_all(input.as_bytes()).expect("it reads");
        let mut lines = BufReader::new(child.stdout.as_mut().expect("piped")).lines();
        assert!(lines.any(|line| line.expect("text").contains("ready")), "never ready");
        child
    }

    /// A script that makes a namespace and was killed.
    fn dead(&self, name: &str) {
        let script = self
            .script(name, &format!("cnf.netns.new 'PREFIX{name}' print 'ready' io.stdout:flush()"));
        kill(self.until_ready(&[&script], ""));
        assert!(self.has_netns(name));
    }

    fn has_netns(&self, name: &str) -> bool {
        PathBuf::from(format!("/run/netns/{}{name}", self.prefix)).exists()
    }

    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.prefix) {
                let _ =
                    Command::new("ip").args(["netns", "delete"]).arg(entry.file_name()).output();
            }
        }
    }
}

fn kill(mut child: Child) {
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
}

#[test]
fn nothing_is_one_line() {
    let said = Room::new().run(&["clean"]);
    assert_eq!((said.out.as_str(), said.err.as_str(), said.status), ("nothing to clean\n", "", 0));
}

#[test]
fn the_dead_go_and_the_living_stay() {
    let room = Room::new();
    room.dead("a");
    let script = room.script("b", "cnf.netns.new 'PREFIXb' print 'ready' io.stdout:flush()");
    let living = room.until_ready(&[&script], "");
    let told = room.run(&["clean", "--dry-run"]);
    assert_eq!(told.out, format!("a: would remove\n  netns {}a\n", room.prefix));
    assert!(room.has_netns("a"));
    let said = room.run(&["clean"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("a: removed 1 netns\n", ""));
    assert!(!room.has_netns("a") && room.has_netns("b"));
    assert_eq!(room.left(), ["b"]);
    let refused = room.run(&["clean", "b"]);
    let pid = living.id();
    let expected =
        format!("error: clean(b): it is alive: pid {pid} (EBUSY)\n  = hint: kill {pid} ends it\n");
    assert_eq!((refused.err.replace("   = hint", "  = hint"), refused.status), (expected, 1));
    kill(living);
    assert_eq!(room.run(&["clean", "b"]).out, "b: removed 1 netns\n");
    let unknown = room.run(&["clean", "b"]);
    assert!(unknown.err.contains("no such instance (ENOENT)"), "{}", unknown.err);
    assert_eq!(unknown.status, 1);
}

#[test]
fn the_background_goes_when_it_is_named() {
    let room = Room::new();
    let script = room.script("web", "cnf.netns.new 'PREFIXweb'");
    assert_eq!(room.run(&["up", &script]).status, 0);
    let status: serde_json::Value =
        serde_json::from_str(&room.run(&["status", "--json", "web"]).out).expect("it is JSON");
    let pid = nix::unistd::Pid::from_raw(status["pid"].as_i64().expect("a number") as i32);
    let refused = room.run(&["clean", "web"]);
    assert!(refused.err.contains("hint: cnfscript down web ends it"), "{}", refused.err);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
    while !room.run(&["status", "web"]).out.contains("dead") {}
    let told = room.run(&["clean"]);
    let hint =
        format!("  = hint: cnfscript clean web removes it, cnfscript up {script} takes it over\n");
    assert_eq!(told.out, format!("web: left, packets may still flow through it\n{hint}"));
    assert!(room.has_netns("web"));
    assert_eq!(room.run(&["clean", "web"]).out, "web: removed 1 netns\n");
    assert!(!room.has_netns("web") && room.left().is_empty());
}

#[test]
fn what_cannot_be_undone_stays_written_down() {
    let room = Room::new();
    room.dead("a");
    let journal = room.directory().join("a/journal");
    // In a host's namespace that is not this one.
    let elsewhere = r#"{"n":77,"own":{"Address":{"netns":["",1],"index":1,"link":"lo","address":"10.0.0.1/8"}}}"#;
    let text =
        std::fs::read_to_string(&journal).expect("there is one") + elsewhere + "\n{\"n\":78,\"ow";
    std::fs::write(&journal, text).expect("written");
    for again in [false, true] {
        let said = room.run(&["clean"]);
        assert_eq!(said.status, 1, "{}", said.err);
        assert!(
            said.err.contains("a network namespace that is not this one (EXDEV)"),
            "{}",
            said.err
        );
        assert_eq!(said.out, if again { "" } else { "a: removed 1 netns\n" });
        assert!(!room.has_netns("a"));
        let left = std::fs::read_to_string(&journal).expect("it is kept");
        assert_eq!(left.trim_end(), elsewhere);
    }
}

#[test]
fn another_boot_left_nothing_but_a_directory() {
    let room = Room::new();
    room.dead("a");
    let record = room.directory().join("a/instance.json");
    let text = std::fs::read_to_string(&record).expect("there is one");
    let mut record_now: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    record_now["boot"] = "another".into();
    std::fs::write(&record, record_now.to_string()).expect("written");
    assert_eq!(room.run(&["clean"]).out, "a: removed its directory\n");
    // Something of that name, made since, is another's.
    assert!(room.has_netns("a") && room.left().is_empty());
}

#[test]
fn prompts_and_test_workers_are_cleaned_after() {
    let room = Room::new();
    let line = format!("netns.new '{}repl' print 'ready'\n", room.prefix);
    let prompt = Command::new("script").arg("--version").output();
    if prompt.is_ok_and(|found| found.status.success()) {
        // A prompt wants a terminal.
        let inner = format!("{BINARY} --name typed");
        let mut command = Command::new("script");
        command.args(["-qec", &inner, "/dev/null"]).env(DIRECTORY_VARIABLE, room.directory());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("script starts");
        child.stdin.as_mut().expect("piped").write_all(line.as_bytes()).expect("it reads");
        // There is a file of that name before there is a namespace.
        while !named::exists(&format!("{}repl", room.prefix)) {
            std::thread::yield_now();
        }
        let record =
            std::fs::read(room.directory().join("typed/instance.json")).expect("there is one");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("it is JSON");
        let pid = nix::unistd::Pid::from_raw(record["pid"].as_i64().expect("a number") as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
        child.wait().expect("it ends");
        assert_eq!(room.run(&["clean", "typed"]).out, "typed: removed 1 netns\n");
    }
    // A worker that dies is cleaned by its runner.
    let file = room.script(
        "worker",
        "cnf.test.case('dies', function() cnf.netns.new 'PREFIXwork' os.execute('kill -9 $PPID') end)",
    );
    let said = room.run(&["test", &file]);
    assert_eq!(said.status, 1, "{}{}", said.out, said.err);
    assert!(!room.has_netns("work") && room.left().is_empty(), "{:?}", room.left());
}

#[test]
fn nothing_is_created_where_nothing_can_be_written_down() {
    let room = Room::new();
    let script = room.script("a", "cnf.netns.new 'PREFIXa'");
    // Not even root makes a directory under a file.
    std::fs::write(room.directory(), "").expect("written");
    let said = room.run(&[&script]);
    assert_eq!(said.status, 1, "{}", said.err);
    assert!(said.err.contains("hint") && said.err.contains(DIRECTORY_VARIABLE), "{}", said.err);
    assert!(!room.has_netns("a"));
    std::fs::remove_file(room.directory()).expect("ours");
    // One that others write is not trusted.
    std::fs::create_dir(room.directory()).expect("made");
    let mode = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(room.directory(), mode).expect("ours");
    let said = room.run(&[&script]);
    assert!(said.status == 1 && said.err.contains("chmod 700"), "{}", said.err);
    assert!(!room.has_netns("a"));
}

#[test]
fn what_someone_else_has_changed_since_is_left_and_said() {
    let room = Room::new();
    let theirs = format!("{}theirs", room.prefix);
    let ip = |words: &[&str]| {
        let output = Command::new("ip").args(words).output().expect("ip runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    };
    ip(&["netns", "add", &theirs]);
    ip(&["-n", &theirs, "link", "add", "name", "tb0", "type", "bridge"]);
    let script = room.script(
        "a",
        "local ns = cnf.netns.get 'PREFIXtheirs'
        ns:sysctl('net.ipv4.ip_default_ttl', 77)
        ns:sysctl('net.ipv4.tcp_syn_retries', 3)
        ns:link 'tb0':set { alias = 'ours', mtu = 1400, txqueuelen = 7 }
        print 'ready' io.stdout:flush()",
    );
    kill(room.until_ready(&[&script], ""));
    let exec = |line: &str| ip(&["netns", "exec", &theirs, "sh", "-c", line]);
    exec("echo 55 > /proc/sys/net/ipv4/ip_default_ttl");
    ip(&["-n", &theirs, "link", "set", "tb0", "alias", "theirs"]);
    let said = room.run(&["clean"]);
    assert_eq!((said.status, said.out.as_str()), (0, "a: removed 1 link setting, 2 sysctls\n"));
    let ttl = format!("sysctl net.ipv4.ip_default_ttl in netns {theirs} left at \"55\"");
    assert!(said.err.contains(&ttl) && said.err.contains("alias of link"), "{}", said.err);
    let values = exec("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/net/ipv4/tcp_syn_retries");
    assert_eq!(values, "55\n6\n");
    let link = ip(&["-n", &theirs, "link", "show", "tb0"]);
    assert!(link.contains("mtu 1500") && link.contains("alias theirs"), "{link}");
    assert!(link.contains("qlen 1000"), "{link}");
}

/// Where the pins of an instance in that room are.
fn pins(room: &Room, name: &str) -> Option<PathBuf> {
    let all = std::fs::read_dir("/sys/fs/bpf/cnfscript").into_iter().flatten().flatten();
    let name = format!("{}{name}%", room.prefix);
    let mut mine = all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
    mine.next().map(|entry| entry.path())
}

#[test]
fn pins_of_instances_that_nobody_knows_of_go_with_all() {
    let room = Room::new();
    let elsewhere = Room::new();
    let text = "local ns = cnf.netns.new 'PREFIXpins'
        local d0 = cnf.link.veth { name = 'd0', netns = ns, peer = { name = 'd1', netns = ns } }
        cnf.policy.router { attach = { { d0, 'ingress' } }, default = { action = 'pass' } }";
    let up = |room: &Room, name: &str| {
        let script = room.script(name, text);
        let said = room.run(&["up", "--name", &format!("{}{name}", room.prefix), &script]);
        assert_eq!(said.status, 0, "{}", said.err);
        let record = room.directory().join(format!("{}{name}/instance.json", room.prefix));
        let record = std::fs::read(record).expect("there is one");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("it is JSON");
        nix::unistd::Pid::from_raw(record["pid"].as_i64().expect("a number") as i32)
    };
    let (pid, other) = (up(&room, "a"), up(&elsewhere, "a"));
    let (mine, theirs) = (pins(&room, "a").expect("made"), pins(&elsewhere, "a").expect("made"));
    // Somebody empties the directory under a living one: it stays as it is.
    std::fs::remove_dir_all(room.directory()).expect("ours");
    let name = format!("{}a", room.prefix);
    let said = room.run(&["clean", "--all"]);
    assert_eq!(
        (said.out, said.status),
        (
            format!(
                "{name}: left, process {pid} lives, though its directory is gone\n  = hint: kill {pid} ends it in order\n"
            ),
            0
        )
    );
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
    // It is dying: until then it is left.
    let start = std::time::Instant::now();
    while room.run(&["clean", "--all", "--dry-run"]).out.contains("lives") {
        assert!(start.elapsed().as_secs() < 10, "it never ended");
    }
    let told = room.run(&["clean", "--all", "--dry-run"]);
    let count = std::fs::read_dir(&mine).expect("still there").count();
    assert!(count > 0);
    let words = if count == 1 { "1 pin".to_owned() } else { format!("{count} pins") };
    let expected = format!("{name}: would remove\n  {words} of an instance that is no more\n");
    assert_eq!(told.out, expected);
    // Without --all they stay.
    assert_eq!(room.run(&["clean"]).out, "nothing to clean\n");
    assert!(mine.exists());
    let said = room.run(&["clean", "--all"]);
    let expected = format!("{name}: removed {words} of an instance that is no more\n");
    assert_eq!((said.out, said.err.as_str(), said.status), (expected, "", 0));
    assert!(!mine.exists() && room.left().is_empty(), "{:?}", room.left());
    assert!(theirs.exists(), "another directory's instances are left");
    nix::sys::signal::kill(other, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
    while !elsewhere.run(&["clean", "--all"]).out.contains("removed") {}
    assert!(!theirs.exists());
}

#[test]
fn directories_of_the_dead_who_made_nothing_go_by_themselves() {
    let room = Room::new();
    let script = room.script("husk", "print 'ready' io.stdout:flush() cnf.task.sleep(1000)");
    for words in
        [&[script.as_str()] as &[&str], &["-e", "print 'ready' io.stdout:flush() task.sleep(1000)"]]
    {
        kill(room.until_ready(words, ""));
        assert_eq!(room.left().len(), 1);
        assert_eq!(room.run(&["status"]).out, "no instances\n");
        assert_eq!(room.run(&["status", "--json"]).out, "[]\n");
        // Whoever comes next removes it: under another name here.
        assert_eq!(room.run(&["-e", ""]).status, 0);
        assert_eq!(room.left(), [""; 0]);
    }
    // What something was left of, is told and stays.
    room.dead("a");
    assert_eq!(room.run(&["-e", ""]).status, 0);
    assert!(room.run(&["status"]).out.contains("a      dead") && room.has_netns("a"));
    assert_eq!(room.run(&["clean"]).out, "a: removed 1 netns\n");
}
