//! Attached prompts: what is typed into running instances, from terminals and pipes, by several at once, and by clients
//! that die, lie or stand still.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cnfscript::life::socket::address;
use cnfscript::own::instance::Instances;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

mod room;
#[path = "room/terminal.rs"]
mod terminal;

use room::*;
use terminal::*;

/// A script that goes on: `cnf.state.turns` counts.
const COUNTS: &str = "
cnf.state.turns = cnf.state.turns or 0
cnf.task.spawn(function()
  while true do cnf.task.sleep(0.01) cnf.state.turns = cnf.state.turns + 1 end
end)
";

/// What comes of lines in a pipe.
fn typed(room: &Room, words: &[&str], lines: &str) -> Said {
    let mut command = room.command(&[&["attach"], words].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    // It may have been refused already.
    let _ = child.stdin.take().expect("piped").write_all(lines.as_bytes());
    child.wait_with_output().expect("it ends").into()
}

/// A prompt on a terminal, attached to the instance.
fn attached(room: &Room, name: &str) -> Terminal {
    let home = room.scripts.path();
    let mut terminal = Terminal::start_at("xterm", &["attach", name], home, room.run.path());
    terminal.expect(&format!("attached to {name}: generation "));
    terminal.ready();
    terminal
}

/// How often the script's task has run so far.
fn turns(room: &Room) -> i64 {
    let said = typed(room, &[], "cnf.state.turns");
    said.out.trim().parse().unwrap_or_else(|e| panic!("{e}: {said:?}"))
}

#[track_caller]
fn expect_alive(room: &Room) {
    let before = turns(room);
    eventually(|| turns(room) > before);
}

#[test]
fn lines_of_a_pipe_are_evaluated_as_at_the_prompt() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let lines = "1 + 1\n_ * 21\nx = {a = 1}\nx\n1, nil, 'a'\nprint('printed')\nfor i = 1, 2 do\n\
                 print('turn', i)\nend\n\ntask.sleep('20ms') return 'waited'\nio.write('written\\n') return\n\
                 cnf.instance, cnf.generation\n'last'";
    let said = typed(&room, &["setup"], lines);
    let expected = "2\n42\n{ a = 1 }\n1\tnil\t\"a\"\nprinted\nturn\t1\nturn\t2\n\"waited\"\nwritten\n\
                    \"setup\"\t1\n\"last\"\n";
    assert_eq!((said.out.as_str(), said.err.as_str(), said.status), (expected, "", 0));
    // By its script, too; each attached prompt has variables of its own.
    let said = typed(&room, &["setup.lua"], "x");
    said.expect(1, "undeclared global \"x\"");
    // Nothing of it went to where the script writes.
    room.run(&["logs", "setup"]).expect(0, "");
    assert_eq!(room.run(&["logs", "setup"]).out, "");
    expect_alive(&room);
}

#[test]
fn errors_come_with_line_and_hint_and_the_next_line_runs() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let said =
        typed(&room, &[], "error('boom')\ntask.slep\n1 +* 2\nnetns.get('PREFIXno')\n'on'\nif\n");
    assert_eq!((said.out.as_str(), said.status), ("\"on\"\n", 1));
    for expected in [
        "error: boom\n --> attached[1.1]:1\n  |\n1 | error('boom')\n  |\n",
        "hint: did you mean \"sleep\"?",
        "near '*'\n --> attached[1.3]:1\n  |\n1 | 1 +* 2\n  |\n",
        "netns.get(PREFIXno): ",
        // What the end of the input cuts off.
        "near <eof>\n --> attached[1.6]:",
    ] {
        assert!(said.err.contains(expected), "{expected:?} in {}", said.err);
    }
    let said = typed(&room, &[], ":nope\n");
    said.expect(1, "no command :nope; there are :help, :reload and :quit");
    typed(&room, &[], ":help\n").expect(0, "detaches: the instance goes on");
    let said = typed(&room, &[], "'one'\n:quit\n'never'\n");
    assert_eq!((said.out.as_str(), said.status), ("\"one\"\n", 0));
    let said = typed(&room, &[], &format!("'{}'\n'on'\n", "x".repeat(70_000)));
    said.expect(1, "attach(setup): a line has at most 65536 bytes (EMSGSIZE)\n");
    said.expect(1, "\"on\"\n");
    expect_alive(&room);
}

#[test]
fn what_lines_make_is_the_instances_own() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let name = format!("{}typed", room.prefix);
    typed(&room, &[], &format!("n = netns.new('{name}')")).expect(0, "");
    assert_eq!(room.namespaces(), [name.as_str()]);
    assert_eq!(room.status("setup")["owns"]["netns"], 1);
    let said = typed(
        &room,
        &[],
        "task.spawn(function() task.sleep('300ms') print('in the log') end)\ntask.spawn(function() print('heard') end)\n\
         task.sleep('50ms')",
    );
    said.expect(0, "heard\n");
    // Its terminal has gone: the script's output has it.
    eventually(|| room.run(&["logs", "setup"]).out == "in the log\n");
    // The script has not said its name: it goes with the load.
    room.run(&["reload", "setup"]).expect(0, &format!("- netns {name}"));
    assert_eq!(room.namespaces(), [""; 0]);
}

#[test]
fn a_terminal_has_the_manners_of_the_plain_prompt() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let mut prompt = attached(&room, "setup");
    prompt.line("1 + 1", "2\r\n");
    prompt.incomplete("for i = 1, 2 do");
    prompt.line("print('turn', i) end", "turn\t1\r\nturn\t2\r\n");
    prompt.incomplete("for i = 1, 2 do");
    prompt.press(CONTROL_C);
    prompt.ready();
    prompt.tasks_go_on();
    for (keys, expected) in [("task.sp\t", "task.spawn"), ("math.maxi\t", "math.maxinteger")] {
        prompt.press(keys);
        prompt.expect(expected);
        prompt.press(CONTROL_C);
        prompt.ready();
    }
    prompt.press(&format!("{UP}{UP}\r"));
    prompt.expect("\"half typed\"\r\n");
    prompt.ready();
    prompt.press(CONTROL_D);
    assert_eq!(prompt.ended(), Some(0));
    assert_eq!(room.status("setup")["state"], "running");
    expect_alive(&room);
}

#[test]
fn completion_that_never_ends_is_given_up() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let mut prompt = attached(&room, "setup");
    prompt.line(
        "bad = setmetatable({}, {__index = function() while true do pcall(error) end end})",
        "",
    );
    prompt.press("bad.x.y\t");
    std::thread::sleep(Duration::from_millis(500));
    prompt.press(CONTROL_C);
    prompt.ready();
    prompt.line("6 * 7", "42\r\n");
    expect_alive(&room);
}

#[test]
fn control_c_ends_the_line_and_nothing_of_the_script() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let mut prompt = attached(&room, "setup");
    for hanging in [
        "while true do end",
        "while true do pcall(error) end",
        "task.sleep(1000)",
        "netns.host():exec({'sleep', '1000'})",
        "setmetatable({}, {__tostring = function() while true do end end})",
    ] {
        let line = format!("print('go') return {hanging}").replace("return while", "while");
        prompt.interrupts(&line);
    }
    assert_eq!(room.status("setup")["tasks"], 1, "the script's own goes on");
    let pid = room.pid("setup").as_raw() as u32;
    // One that has ended may still be waited for.
    let ended = |pid: &Pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.contains(") ") || stat.contains(") Z ")
    };
    eventually(|| children(pid).iter().all(ended));
    // A task of a line that never waits keeps all others from their work, until Ctrl-C.
    prompt.interrupts_a_task();
    prompt.press("task.spawn(function() while true do end end) task.sleep(0)\r");
    prompt.expect("\n");
    std::thread::sleep(Duration::from_millis(100));
    prompt.press(CONTROL_C);
    prompt.expect("interrupted\r\n");
    prompt.ready();
    assert_eq!(room.status("setup")["tasks"], 1);
    expect_alive(&room);
}

#[test]
fn a_reload_is_told_and_the_next_line_runs_in_the_new_generation() {
    let room = Room::new();
    let script = "local n = cnf.netns.new('PREFIXa') print('generation', cnf.generation)\n";
    room.up("setup", &format!("{script}{COUNTS}"));
    let (mut one, mut two) = (attached(&room, "setup"), attached(&room, "setup"));
    one.line("x = 1", "");
    two.press("print('go') task.sleep(1000)\r");
    two.expect("go\r\n");
    // From outside; the line that ran in the old generation ends with it.
    room.reload("setup", &format!("{script}cnf.netns.new('PREFIXb')\n{COUNTS}"))
        .expect(0, "reload 2: created 1, kept 1");
    one.expect("reload 2: created 1, kept 1 in ");
    one.expect(&format!("+ netns {}b", room.prefix));
    one.expect("this is generation 2");
    two.expect("this is generation 2");
    two.expect("interrupted\r\n");
    two.ready();
    one.line("cnf.generation", "2\r\n");
    one.line("x", "undeclared global \"x\"");
    // From one of them: both are told, once each.
    one.line(":reload", "reload 3: kept 2 in ");
    two.expect("this is generation 3");
    two.line("cnf.generation", "3\r\n");
    one.line("cnf.generation", "3\r\n");
    assert_eq!(one.seen.matches("this is generation 3").count(), 1);
    // One that fails leaves everything, the variables of prompts too.
    one.line("x = 'kept'", "");
    room.script("setup", "error('half done')");
    one.line(":reload", "error: not reloaded: half done\r\n --> ");
    one.line("x", "\"kept\"\r\n");
    assert_eq!(room.namespaces().len(), 2);
    let said = typed(&room, &["setup"], ":reload\ncnf.generation\n");
    said.expect(1, "error: not reloaded: half done\n");
    assert_eq!(said.out, "3\n");
}

#[test]
fn one_in_the_foreground_and_its_end() {
    let room = Room::new();
    let script = room.script("front", &format!("{COUNTS}print('ready') io.stdout:flush()"));
    let mut child = room.start(script.to_str().expect("text"));
    let mut prompt = attached(&room, "front");
    prompt.line("print(cnf.instance)", "front\r\n");
    let said = typed(&room, &["front"], "print('bye')\ncnf.exit(7)\n'never'\n");
    assert_eq!((said.out.as_str(), said.err.as_str(), said.status), ("bye\n", "front ends\n", 0));
    prompt.expect("front has ended");
    assert_eq!(prompt.ended(), Some(0));
    let mut rest = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut rest).expect("text");
    assert_eq!((rest.as_str(), child.wait().expect("it ends").code()), ("", Some(7)));
    assert_eq!(room.left().iter().filter(|name| *name == "front").count(), 0);
}

#[test]
fn which_instance_is_meant() {
    let room = Room::new();
    let none = room.run(&["attach"]);
    none.expect(1, "error: attach: no instance runs (ENOENT)\n");
    none.expect(1, "hint: cnfscript up SCRIPT starts one in the background\n");
    room.up("edge", COUNTS);
    room.run(&["attach", "egde"]).expect(1, "attach(egde): no such instance (ENOENT)\n");
    room.run(&["attach", "egde"]).expect(1, "hint: did you mean \"edge\"?\n");
    typed(&room, &[], "cnf.instance").expect(0, "\"edge\"\n");
    room.up("core", COUNTS);
    let several = room.run(&["attach"]);
    several.expect(1, "error: attach: several instances run (EINVAL)\n");
    several.expect(1, "hint: name one: core, edge\n");
    room.kill("edge");
    room.run(&["attach", "edge"]).expect(1, "attach(edge): does not run: it died (ESRCH)\n");
    // The dead do not count.
    typed(&room, &[], "cnf.instance").expect(0, "\"core\"\n");
    room.run(&["down", "core"]).expect(0, "core is down");
    let mut held =
        Terminal::start_at("xterm", &["--name", "plain"], room.scripts.path(), room.run.path());
    held.ready();
    room.run(&["attach"]).expect(1, "no instance runs");
    room.run(&["attach", "plain"]).expect(1, "it does not listen for requests");
}

/// A client by hand.
struct Client(BufReader<UnixStream>);

impl Client {
    fn attach(room: &Room, name: &str) -> Client {
        let found =
            Instances::at(room.run.path().to_owned()).get(name).expect("readable").expect("there");
        let (_held, path) = address(&found.paths.socket()).expect("its directory is there");
        let stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut client = Client(BufReader::new(stream));
        client.say(r#"{"do":"attach"}"#);
        client
    }

    fn say(&mut self, line: &str) {
        // What is said to one that has closed is lost.
        let _ = self.0.get_mut().write_all(format!("{line}\n").as_bytes());
    }

    /// The next thing it says; none at the end.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect("JSON")),
            // What was sent and not read resets the stream.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn clients_that_lie_are_refused_and_the_instance_goes_on() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let too_long = "x".repeat(80_000);
    let line = r#"{"do":"line","text":"task.sleep(1000)","width":80}"#;
    for (said, code) in [
        (vec!["garbage"], "EINVAL"),
        (vec![r#"{"do":"line"}"#], "EINVAL"),
        (vec![r#"{"do":"line","text":7,"width":80}"#], "EINVAL"),
        (vec![r#"{"do":"down"}"#], "EINVAL"),
        (vec!["\0\x01\x02"], "EINVAL"),
        (vec![too_long.as_str()], "EMSGSIZE"),
        (vec![line, line], "EBUSY"),
    ] {
        let mut client = Client::attach(&room, "setup");
        assert_eq!(client.hear().expect("it is attached")["ok"]["generation"], 1);
        said.iter().for_each(|line| client.say(line));
        let refused = client.hear().expect("it says why");
        assert_eq!(refused["error"]["code"], code, "{said:?}");
        assert_eq!(client.hear(), None);
    }
    // Of widths and interrupts, any.
    let mut client = Client::attach(&room, "setup");
    client.hear().expect("it is attached");
    for width in [i64::MIN, -1, 0, i64::MAX] {
        client.say(r#"{"do":"interrupt"}"#);
        client.say(&format!(r#"{{"do":"line","text":"{{{{1, 2}}, 3}}","width":{width}}}"#));
        while client.hear().expect("it goes on")["done"] != "ok" {}
    }
    expect_alive(&room);
}

#[test]
fn a_line_ends_with_its_client() {
    let room = Room::new();
    room.up("setup", COUNTS);
    for hanging in ["while true do end", "task.sleep(1000)", "while true do pcall(print, 'x') end"]
    {
        let mut command = room.command(&["attach"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // The binary itself, and not what bounds it.
        let mut child = command.spawn().expect("the binary starts");
        let line = format!("print('go') {hanging}\n");
        child.stdin.as_mut().expect("piped").write_all(line.as_bytes()).expect("it reads");
        let mut go = [0; 3];
        child.stdout.as_mut().expect("piped").read_exact(&mut go).expect("it runs");
        let client = children(child.id());
        client.iter().for_each(|pid| kill(*pid, Signal::SIGKILL).expect("it is alive"));
        child.wait().expect("it ends");
        expect_alive(&room);
    }
    assert_eq!(room.status("setup")["tasks"], 1);
}

/// The processes that a process has started, by whichever thread.
fn children(pid: u32) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is alive").flatten();
    let lists = threads.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    let text: String = lists.collect::<Vec<_>>().join(" ");
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().expect("a number"))).collect()
}

#[test]
fn a_client_that_does_not_read_slows_its_own_line_only() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let mut deaf = Client::attach(&room, "setup");
    let flood = "local s = ('x'):rep(1 << 16) for i = 1, 2000 do print(s) end";
    deaf.say(&format!(r#"{{"do":"line","text":"{flood}","width":80}}"#));
    expect_alive(&room);
    // 128 MiB were not kept for it.
    let pid = room.pid("setup");
    let memory = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("it is alive");
    let pages: u64 = memory.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    assert!(pages * 4 < 100 << 10, "{} KiB", pages * 4);
    // When it reads at last, all of it comes.
    let mut count = 0;
    loop {
        let event = deaf.hear().expect("it goes on");
        if event["done"] == "ok" {
            break;
        }
        count += event["out"].as_str().map_or(0, str::len);
    }
    assert_eq!(count, 2000 * ((1 << 16) + 1));
}

#[test]
fn many_prompts_do_not_keep_commands_out() {
    let room = Room::new();
    room.up("setup", COUNTS);
    let mut clients: Vec<Client> = (0..16).map(|_| Client::attach(&room, "setup")).collect();
    clients.iter_mut().for_each(|client| drop(client.hear().expect("it is attached")));
    let refused = room.run(&["attach", "setup"]);
    refused.expect(1, "attach(setup): 16 prompts are attached already (EAGAIN)");
    assert_eq!(room.status("setup")["state"], "running");
    room.run(&["reload", "setup"]).expect(0, "reload 2: ");
    for client in &mut clients {
        assert_eq!(client.hear().expect("it is told")["reloaded"]["generation"], 2);
    }
    drop(clients.pop());
    eventually(|| typed(&room, &["setup"], "cnf.generation").out == "2\n");
    room.run(&["down", "setup"]).expect(0, "setup is down");
    clients.iter_mut().for_each(|client| assert_eq!(client.hear(), None));
}

#[test]
fn an_instance_that_computes_is_not_waited_for_for_ever() {
    let room = Room::new();
    let hangs = "cnf.task.spawn(function()
      while not package.loaded.hang do cnf.task.sleep(0.01) end
      while true do end
    end)";
    room.up("busy", &format!("{COUNTS}{hangs}"));
    let mut prompt = attached(&room, "busy");
    prompt.line("package.loaded.hang = true", "");
    eventually(|| room.status("busy")["state"] == "busy");
    let began = Instant::now();
    prompt.press("1 + 1\r");
    prompt.expect("\n");
    prompt.press(CONTROL_C);
    prompt.expect("attach(busy): the instance is busy and does not end the line (EBUSY)");
    assert!(began.elapsed() < Duration::from_secs(4));
    prompt.ready();
    let refused = room.run(&["attach"]);
    refused.expect(1, "attach(busy): the script computes and does not wait for anything (EBUSY)");
    refused.expect(1, "hint: cnfscript down ends it");
    prompt.press(CONTROL_D);
    assert_eq!(prompt.ended(), Some(0));
}

#[test]
fn where_the_script_fails_to_load_there_is_nothing_to_type_into() {
    let room = Room::new();
    let script = room.script("broken", "error('not yet')");
    let mut command = room.command(&["--watch", script.to_str().expect("text")]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("text").contains("not yet")));
    let said = typed(&room, &["broken"], "1 + 1");
    said.expect(1, "the script has failed to load, and there is nothing to type into (EAGAIN)");
    room.script("broken", COUNTS);
    eventually(|| typed(&room, &["broken"], "1 + 1").out == "2\n");
    room.run(&["down", "broken"]).expect(0, "broken is down");
    child.wait().expect("it ends");
}
