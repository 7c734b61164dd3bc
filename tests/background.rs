//! Background instances from outside: up, status, reload, logs, down; scripts that fail, hang and die.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cnfscript::own::instance::{DIRECTORY_VARIABLE, Instances};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

mod room;

use room::*;

const WAITS: &str = "cnf.task.spawn(function() cnf.task.sleep(1000) end)\n";
const PAIR: &str = "
local a = cnf.netns.new('PREFIXa')
cnf.link.veth { name = 'eth0', netns = a, peer = { name = 'eth1', netns = a } }
";

#[test]
fn from_up_to_down() {
    let room = Room::new();
    let script = room.script("setup", &format!("{PAIR}{WAITS}print(cnf.args[1], cnf.instance)"));
    let script = script.to_str().expect("text");
    let said = room.run(&["up", "setup.lua", "--", "one"]);
    said.expect(0, "setup is up: pid ");
    assert_eq!(said.err, "");
    let expected = "owns        2 links, 1 netns\n  tasks       1\n";
    room.run(&["status", "setup"]).expect(0, expected);
    let table = room.run(&["status"]);
    let line = table.out.lines().nth(1).expect("one line each");
    assert!(line.starts_with("setup   running   ") && line.ends_with(script), "{table:?}");
    let status = room.status(script);
    assert_eq!(status["state"], "running");
    assert_eq!(status["owns"], json!({ "link": 2, "netns": 1 }));
    assert_eq!((&status["generation"], &status["tasks"]), (&json!(1), &json!(1)));
    room.run(&["logs", "setup"]).expect(0, "one\tsetup\n");
    assert_eq!(room.namespaces().len(), 1);

    // Taken once.
    let refused = room.run(&["up", "setup.lua"]);
    refused.expect(1, "instance(setup): already runs: pid ");
    refused.expect(1, "hint: cnfscript reload setup, or cnfscript down setup");
    let other = room.script("other", WAITS);
    let refused = room.run(&["up", "--name", "setup", other.to_str().expect("text")]);
    refused.expect(1, "hint: --name gives this one another name");
    room.run(&["up", "--name", "second", "other.lua"]).expect(0, "second is up: pid ");
    room.run(&["down", "second"]).expect(0, "second is down");

    let said = room.run(&["down", "setup"]);
    said.expect(0, "setup is down\n");
    said.expect(0, "removed 2 links, 1 netns\n");
    assert_eq!(room.namespaces(), [""; 0]);
    assert_eq!(room.left(), [""; 0]);
}

#[test]
fn a_script_that_fails_is_told_where_it_was_started() {
    let room = Room::new();
    room.script("bad", "cnf.log.warn('careful')\nerror('on line three')");
    let said = room.run(&["up", "bad.lua"]);
    assert_eq!(said.status, 1);
    let place = "error: on line three\n --> bad.lua:3\n  |\n3 | error('on line three')\n  |\n";
    assert_eq!(said.err, format!("warning: careful\n{place}"));
    let status = room.status("bad");
    assert_eq!((&status["state"], &status["ended"]["status"]), (&json!("ended"), &json!(1)));
    room.run(&["status"]).expect(0, "ended (1)");
    room.run(&["status", "bad"]).expect(1, "hint: cnfscript down bad removes its log");
    room.run(&["logs", "bad"]).expect(0, "on line three");
    room.run(&["reload", "bad"]).expect(1, "does not run: it ended 0s ago with status 1 (ESRCH)");
    // The next one has the same log, of which only its own part is shown.
    room.script("bad", "error('again')");
    let said = room.run(&["up", "bad.lua"]);
    assert!(said.err.starts_with("error: again\n"), "{said:?}");
    room.run(&["down", "bad"]).expect(0, "bad had ended with status 1");
    assert_eq!(room.left(), [""; 0]);
}

#[test]
fn the_status_of_a_script_is_the_status_of_up() {
    let room = Room::new();
    let cases = [
        ("cnf.exit(7)", 7, ""),
        ("local x = 1", 0, "case has ended: it owned nothing and waited for nothing"),
        ("syntax error", 1, "case.lua:2"),
    ];
    for (text, status, expected) in cases {
        room.script("case", text);
        room.run(&["up", "case.lua"]).expect(status, expected);
    }
    room.run(&["up", "nowhere.lua"]).expect(2, "up(nowhere.lua): no such file or directory");
    room.run(&["up", "-"]).expect(2, "a script in the background is a file");
    room.run(&["up"]).expect(2, "SCRIPT");
    room.script("-x", WAITS);
    room.run(&["up", "./-x.lua"]).expect(2, "an instance's name cannot begin with \"-\"");
}

#[test]
fn a_script_that_hangs_is_seen_and_goes_down() {
    let room = Room::new();
    let hang = "cnf.wait() cnf.task.spawn(function() while true do pcall(error) end end)";
    let script = room.script("hangs", &format!("{PAIR}{hang}"));
    room.run(&["up", script.to_str().expect("text")]).expect(0, "hangs is up");
    eventually(|| room.status("hangs")["state"] == "busy");
    assert_eq!(room.status("hangs")["owns"], json!({ "link": 2, "netns": 1 }));
    room.run(&["reload", "hangs"]).expect(1, "the script computes and does not wait for anything");
    let start = Instant::now();
    room.run(&["down", "hangs"]).expect(0, "hangs is down");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(room.namespaces(), [""; 0]);
    assert_eq!(room.left(), [""; 0]);
}

#[test]
fn ctrl_c_ends_what_is_still_being_set_up() {
    let room = Room::new();
    room.script("slow", "print('begun') cnf.task.sleep(1000)");
    let mut up = room.command(&["up", "slow.lua"]).stderr(Stdio::piped()).spawn().expect("started");
    eventually(|| room.run(&["logs", "slow"]).out == "begun\n");
    assert_eq!(room.status("slow")["state"], "loading");
    let up_itself = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", up.id()));
    let up_itself = up_itself.expect("timeout has a child").trim().parse().expect("one pid");
    kill(Pid::from_raw(up_itself), Signal::SIGINT).expect("it waits");
    assert_eq!(up.wait().expect("it ends").code(), Some(130));
    assert_eq!(room.status("slow")["state"], "ended");
}

#[test]
fn one_that_was_killed_is_dead_and_its_name_is_free() {
    let room = Room::new();
    room.up("setup", WAITS);
    room.kill("setup");
    room.run(&["reload", "setup"]).expect(1, "does not run: it died (ESRCH)");
    room.run(&["up", "setup.lua"]).expect(0, "setup is up");
    room.kill("setup");
    room.run(&["down", "setup"]).expect(0, "setup had died");
    assert_eq!(room.left(), [""; 0]);
}

/// What a dead one is pointed to is done as it is written, by a shell.
#[test]
fn what_hints_of_a_dead_one_say_works() {
    let room = Room::new();
    let shell = |hint: &str| -> Said {
        let line = hint.replacen("cnfscript", &format!("timeout 20 {BINARY}"), 1);
        // From elsewhere than the script is.
        let mut sh = Command::new("sh");
        sh.args(["-c", &line]).current_dir("/").env(DIRECTORY_VARIABLE, room.run.path());
        sh.output().expect("sh is there").into()
    };
    let hint = |said: &Said| -> Vec<String> {
        let all = format!("{}{}", said.out, said.err);
        let hint = all.split_once("hint: ").expect("a hint").1.trim().to_owned();
        hint.split("; ").map(str::to_owned).collect()
    };
    let cases = [
        ("plain", &[][..], "plain"),
        ("plain", &["--name", "other"][..], "other"),
        ("it's two words", &[][..], "it's two words"),
        ("two words", &["--name", "three more words"][..], "three more words"),
    ];
    for (script, words, name) in cases {
        let path = room.script(script, PAIR);
        let path = path.to_str().expect("text").to_owned();
        let up = [&["up", path.as_str()][..], words].concat();
        for take_over in [false, true] {
            room.run(&up).expect(0, "is up");
            room.kill(name);
            let said = room.run(&["down", name]);
            said.expect(1, "does not run: it died and left things behind (ESRCH)");
            let hints = hint(&said);
            let clean = hints[0].strip_suffix(" removes them").expect("what to do");
            let up = hints[1].strip_suffix(" takes them over").expect("what to do");
            // `status` says the same.
            let told = format!("hint: {up} takes over what {name} left, {clean} removes it");
            room.run(&["status", name]).expect(1, &told);
            match take_over {
                true => {
                    shell(up).expect(0, &format!("{name} took over what process "));
                    room.run(&["down", name]).expect(0, "is down");
                }
                false => shell(clean).expect(0, &format!("{name}: removed 2 links, 1 netns\n")),
            }
            assert_eq!((room.left(), room.namespaces()), (vec![], vec![]), "{name}");
        }
    }
}

#[test]
fn nothing_takes_over_what_has_no_script_any_more() {
    let room = Room::new();
    let script = room.script("lost", PAIR);
    room.run(&["up", "lost.lua"]).expect(0, "is up");
    room.kill("lost");
    std::fs::remove_file(script).expect("removed");
    let only = "hint: cnfscript clean lost removes them\n";
    room.run(&["down", "lost"]).expect(1, only);
    room.run(&["status"]).expect(0, "hint: cnfscript clean lost removes what lost left behind\n");
    room.run(&["clean"]).expect(0, "hint: cnfscript clean lost removes it\n");
    room.run(&["clean", "lost"]).expect(0, "lost: removed 2 links, 1 netns\n");
    room.run(&["down", "lost"]).expect(1, "no such instance (ENOENT)");
}

#[test]
fn what_one_that_was_killed_left_is_taken_over() {
    let room = Room::new();
    room.up("left", PAIR);
    let link = || {
        let netns = format!("{}a", room.prefix);
        let words = ["-n", &netns, "-o", "link", "show", "eth0"];
        Said::from(Command::new("ip").args(words).output().expect("ip is there")).out
    };
    let before = link();
    assert!(before.contains("eth0"), "{before}");
    room.kill("left");
    assert_eq!(room.status("left")["left_something"], true);
    let script = room.scripts.path().join("left.lua");
    let hint = format!("hint: cnfscript up {} takes over what left left", script.display());
    room.run(&["status", "left"]).expect(1, &hint);
    // Its journal knows what that is.
    room.run(&["status", "left"]).expect(1, "  owns        2 links, 1 netns\n");
    assert_eq!(room.status("left")["owns"], serde_json::json!({ "link": 2, "netns": 1 }));
    let pid = room.status("left")["pid"].clone();
    // Not to be forgotten by mistake, and not another script's.
    room.run(&["down", "left"]).expect(1, "does not run: it died and left things behind (ESRCH)");
    room.script("other", WAITS);
    let refused = room.run(&["up", "--name", "left", "other.lua"]);
    refused.expect(1, "died under this name and left things behind (EEXIST)");
    assert_eq!(link(), before);
    let said = room.run(&["up", "left.lua"]);
    said.expect(0, "left is up: pid ");
    let taken =
        format!("left took over what process {pid}, which had died, left: 2 links, 1 netns\n");
    said.expect(0, &taken);
    assert_eq!(link(), before);
    room.run(&["down", "left"]).expect(0, "removed 2 links, 1 netns");
    assert_eq!((room.namespaces().len(), room.left().len()), (0, 0));
}

#[test]
fn one_that_is_stopped_is_silent_and_not_waited_for_without_end() {
    let room = Room::new();
    room.up("setup", WAITS);
    let pid = room.pid("setup");
    kill(pid, Signal::SIGSTOP).expect("it is alive");
    eventually(|| room.status("setup")["state"] == "silent");
    let said = room.run(&["down", "--timeout", "1", "setup"]);
    said.expect(1, "down(setup): it does not end (ETIMEDOUT)");
    said.expect(1, &format!("hint: kill -9 {pid}, then cnfscript clean setup"));
    // SIGTERM was sent meanwhile.
    kill(pid, Signal::SIGCONT).expect("it is alive");
    eventually(|| room.status("setup")["state"] == "ended");
}

#[test]
fn names_that_are_not_there() {
    let room = Room::new();
    room.run(&["status"]).expect(0, "no instances\n");
    room.run(&["down", "setup"]).expect(1, "cnfscript up SCRIPT starts one");
    room.up("setup", WAITS);
    for command in ["status", "reload", "logs", "down"] {
        let said = room.run(&[command, "setpu"]);
        said.expect(1, &format!("{command}(setpu): no such instance (ENOENT)"));
        said.expect(1, "did you mean \"setup\"?");
    }
    room.run(&["down", "another"]).expect(1, "cnfscript status shows which there are");
    room.run(&["up", "--name", "twin", "setup.lua"]).expect(0, "twin is up");
    room.run(&["down", "setup.lua"]).expect(1, "hint: name one: setup, twin");
    room.run(&["down", "./twin.lua"]).expect(1, "no such instance");
}

#[test]
fn a_log_is_followed_to_its_end() {
    let room = Room::new();
    let say = "for i = 1, 5 do print('line', i) end\nprint('last')";
    room.up("says", &format!("{WAITS}cnf.on_stop(function() print('bye') end)\n{say}"));
    assert_eq!(room.run(&["logs", "-n", "2", "says"]).out, "line\t5\nlast\n");
    let mut follow = room.command(&["logs", "-f", "-n", "1", "says"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().map(|line| line.expect("text"));
    assert_eq!(line().as_deref(), Some("last"));
    // With the time at which each was written, which is neither that of the script's start nor that of the look.
    let lines_at =
        |words: &[&str]| room.run(words).out.lines().map(str::to_owned).collect::<Vec<_>>();
    let stamped = lines_at(&["logs", "-t", "says"]);
    let time = stamped[5].strip_suffix(" last").expect("a time and the line");
    let written = humantime::parse_rfc3339(time).expect("as docker shows it");
    let age = written.elapsed().expect("it has been written").as_secs();
    assert!(age < 60, "{stamped:?}");
    assert_eq!(lines_at(&["logs", "-t", "says"]), stamped, "times stay");
    let last = lines_at(&["logs", "--log-format", "json", "-n", "1", "says"]).remove(0);
    let last: serde_json::Value = serde_json::from_str(&last).expect("an object a line");
    assert_eq!(last["message"], "last");
    let since = written.duration_since(std::time::UNIX_EPOCH).expect("after it").as_secs_f64();
    assert!((last["time"].as_f64().expect("a number") - since).abs() < 0.002, "{last} {time}");
    room.signal("says", Signal::SIGTERM);
    assert_eq!(line().as_deref(), Some("bye"));
    assert_eq!(line(), None);
    assert!(follow.wait().expect("it ends").success());
}

#[test]
fn a_log_does_not_grow_without_end() {
    let room = Room::new();
    let flood = "for i = 1, 200000 do io.write(('x'):rep(50), '\\n') end print('over')";
    room.up("flood", &format!("{WAITS}{flood}"));
    let directory = room.run.path().join("flood");
    let length = |name: &str| directory.join(name).metadata().map_or(0, |found| found.len());
    // 10 MB were written. The last turn may still be under way.
    eventually(|| length("log") <= 1 << 20 && (1..=2 << 20).contains(&length("log.1")));
    assert!(room.run(&["logs", "flood"]).out.len() <= 3 << 20);
}

/// An instance whose socket says whatever it likes.
fn impostor(room: &Room, answer: &'static str) -> cnfscript::own::instance::Claim {
    let instances = Instances::at(room.run.path().to_owned());
    let claim = instances.claim("odd", None).expect("the name is free");
    let listener = UnixListener::bind(claim.paths().socket()).expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let _ = reader.read_line(&mut String::new());
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    claim
}

#[test]
fn answers_that_are_none_are_errors() {
    let hint = "hint: it is cnfscript 9.9.9, this is ";
    let cases = [
        ("garbage\n", "reload(odd): its answer is not one (EPROTO)"),
        ("{}\n", "EPROTO"),
        ("{\"version\":\"9\",\"ok\":{},\"error\":{}}\n", "EPROTO"),
        ("\u{0}\n", "EPROTO"),
        ("", "reload(odd): it ended before it answered (ECONNRESET)"),
        (
            "{\"version\":\"9.9.9\",\"error\":{\"op\":\"socket\",\"code\":\"EOPNOTSUPP\",\"message\":\"no\"}}\n",
            hint,
        ),
    ];
    for (answer, expected) in cases {
        let room = Room::new();
        let _claim = impostor(&room, answer);
        room.run(&["reload", "odd"]).expect(1, expected);
    }
    let room = Room::new();
    let _claim = impostor(&room, "garbage\n");
    assert_eq!(room.status("odd")["state"], "silent");
    room.run(&["logs", "odd"]).expect(1, "has no log: it writes where it was started");
}

#[test]
fn others_may_not_ask() {
    let room = Room::new();
    room.up("setup", WAITS);
    let nobody = |words: &[&str]| -> Said {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", BINARY]).args(words);
        command.env(DIRECTORY_VARIABLE, room.run.path()).env("NO_COLOR", "1");
        command.output().expect("setpriv is there").into()
    };
    nobody(&["status"]).expect(1, "permission denied (EACCES)");
    // Even when every door is open.
    let open = |path: PathBuf, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    open(room.run.path().to_owned(), 0o755);
    open(room.run.path().join("setup"), 0o755);
    for file in ["lock", "control", "instance.json"] {
        open(room.run.path().join("setup").join(file), 0o666);
    }
    let refused = "reload(setup): only root and the instance's user may ask (EPERM)";
    nobody(&["reload", "setup"]).expect(1, refused);
}

#[test]
fn a_full_run_is_an_error_before_anything_is_created() {
    let room = Room::new();
    room.script("setup", &format!("{PAIR}{WAITS}"));
    let run = room.run.path().display();
    for limit in ["nr_inodes=3", "nr_inodes=4,size=4k"] {
        let fill = format!("head -c 4096 /dev/zero > {run}/fill 2>&-");
        let fill = if limit.contains("size") { &fill } else { "true" };
        let line = format!(
            "mount -t tmpfs -o mode=700,{limit} tmpfs {run} && {fill}; exec {BINARY} up setup.lua"
        );
        let said: Said = Command::new("unshare")
            .args(["--mount", "sh", "-c", &line])
            .env(DIRECTORY_VARIABLE, room.run.path())
            .env("NO_COLOR", "1")
            .current_dir(room.scripts.path())
            .output()
            .expect("unshare is there")
            .into();
        said.expect(1, "no space left on device (ENOSPC)");
        said.expect(1, "hint: CNFSCRIPT_RUN_DIR=DIRECTORY names another place than this");
        assert_eq!(room.namespaces(), [""; 0], "{limit}");
    }
}

#[test]
fn a_service_manager_is_told_when_the_script_is_set_up() {
    let room = Room::new();
    let path = room.run.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("bound");
    manager.set_read_timeout(Some(PATIENCE)).expect("set");
    room.script("setup", &format!("print('begun') {WAITS}"));
    let mut command = room.command(&["up", "--foreground", "setup.lua"]);
    let mut child: Child =
        command.env("NOTIFY_SOCKET", &path).stdout(Stdio::piped()).spawn().expect("started");
    let mut buffer = [0; 64];
    let count = manager.recv(&mut buffer).expect("told in time");
    assert_eq!(&buffer[..count], b"READY=1");
    assert_eq!(room.status("setup")["state"], "running");
    room.run(&["down", "setup"]).expect(0, "setup is down");
    assert!(child.wait().expect("it ends").success(), "down is not a failure");
    let mut said = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(said, "begun\n");
}

#[test]
fn one_in_the_foreground_is_asked_the_same_way() {
    let room = Room::new();
    let script = room.script("front", &format!("{PAIR}{WAITS}print('ready') io.stdout:flush()"));
    let child = room.start(script.to_str().expect("text"));
    eventually(|| room.status("front")["state"] == "running");
    let status = room.status("front");
    assert_eq!(status["owns"], json!({ "link": 2, "netns": 1 }));
    assert_eq!(status["background"], false);
    room.run(&["reload", "front"]).expect(0, "reload 2: ");
    assert_eq!(room.status("front")["generation"], 2);
    room.run(&["logs", "front"]).expect(1, "has no log: it writes where it was started");
    let refused = room.run(&[script.to_str().expect("text")]);
    refused.expect(1, "instance(front): already runs: pid ");
    room.run(&["down", "front"]).expect(0, "front is down");
    let said: Said = child.wait_with_output().expect("it ends").into();
    said.expect(0, "removed 2 links, 1 netns");
    assert_eq!(room.left(), [""; 0]);
}

#[test]
fn a_script_that_no_interrupt_reaches_is_ended_and_leaves_nothing() {
    let room = Room::new();
    let stuck =
        "print('ready') io.stdout:flush() local _ = ('a'):rep(1 << 16):find(('a*'):rep(30) .. 'b')";
    room.script("stuck", stuck);
    let mut child = room.start("stuck.lua");
    room.run(&["down", "stuck"]).expect(0, "stuck is down");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(room.left(), [""; 0]);

    let mut up = room.command(&["up", "stuck.lua"]).spawn().expect("started");
    eventually(|| room.run(&["logs", "stuck"]).out == "ready\n");
    room.signal("stuck", Signal::SIGTERM);
    assert_eq!(up.wait().expect("it ends").code(), Some(130));
    let status = room.status("stuck");
    assert_eq!((&status["state"], &status["ended"]["status"]), (&json!("ended"), &json!(130)));
}
