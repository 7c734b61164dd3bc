//! The prompt, in a pseudo-terminal: what is typed, and what is seen.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

#[path = "room/terminal.rs"]
mod terminal;

use terminal::*;

/// The plain prompt, with a directory of its own.
struct Prompt {
    terminal: Terminal,
    home: tempfile::TempDir,
}

impl Prompt {
    fn start() -> Prompt {
        Prompt::start_in(tempfile::tempdir().expect("a temporary directory"))
    }

    fn start_in(home: tempfile::TempDir) -> Prompt {
        let mut prompt = Prompt::start_on("xterm", home);
        prompt.ready();
        prompt
    }

    /// On a terminal of that kind; it may not be ready yet.
    fn start_on(kind: &str, home: tempfile::TempDir) -> Prompt {
        Prompt { terminal: Terminal::start(kind, &[], home.path()), home }
    }
}

impl Deref for Prompt {
    type Target = Terminal;

    fn deref(&self) -> &Terminal {
        &self.terminal
    }
}

impl DerefMut for Prompt {
    fn deref_mut(&mut self) -> &mut Terminal {
        &mut self.terminal
    }
}

#[test]
fn lines_are_expressions_or_statements() {
    let mut prompt = Prompt::start();
    prompt.line("1 + 1", "2\r\n");
    prompt.line("_ * 21", "42\r\n");
    prompt.line("x = {b = {2, 3}, a = 'text'}", "");
    prompt.line("x", "{ a = \"text\", b = { 2, 3 } }\r\n");
    prompt.line("1, nil, 'a'", "1\tnil\t\"a\"\r\n");
    prompt.line("print('printed')", "printed\r\n");
    prompt.line("x.self = x return x", "self = <cycle>");
    prompt.line("task.sleep(0.01) return 'waited'", "\"waited\"\r\n");
    prompt.line("task.spawn(function() end)", "Task(1, running)\r\n");
    prompt.line("nil", "nil\r\n");
}

#[test]
fn errors_show_their_line() {
    let mut prompt = Prompt::start();
    prompt.line("error('boom')", "error: boom\r\n --> prompt[1]:1\r\n  |\r\n1 | error('boom')\r\n");
    prompt.line("nonsense", "undeclared global \"nonsense\"");
    prompt.line("1 +* 2", "near '*'\r\n --> prompt[3]:1\r\n  |\r\n1 | 1 +* 2\r\n  |\r\n");
    prompt.line("function f() error('later') end", "");
    prompt.line("f()", "--> prompt[4]:1\r\n  |\r\n1 | function f() error('later') end");
    prompt.line("task.slep", "did you mean \"sleep\"?");
    prompt.line("'still here'", "\"still here\"");
}

#[test]
fn incomplete_chunks_go_on() {
    let mut prompt = Prompt::start();
    prompt.incomplete("for i = 1, 2 do");
    prompt.incomplete("print('turn', i)");
    prompt.line("end", "turn\t1\r\nturn\t2\r\n");
    prompt.incomplete("x = [[long");
    prompt.line("string]]", "");
    prompt.line("x", "\"long\\nstring\"\r\n");
    // Ctrl-C gives up what was typed so far.
    prompt.incomplete("for i = 1, 2 do");
    prompt.press(CONTROL_C);
    prompt.ready();
    prompt.line("'free'", "\"free\"\r\n");
}

#[test]
fn control_c_interrupts_what_runs() {
    let mut prompt = Prompt::start();
    for hanging in ["while true do end", "while true do pcall(error) end", "task.sleep(1000)"] {
        prompt.interrupts(&format!("print('go') {hanging}"));
    }
    // A task that loops is ended too, from the prompt.
    prompt.interrupts_a_task();
}

#[test]
fn tasks_go_on_while_the_prompt_waits() {
    let mut prompt = Prompt::start();
    prompt.tasks_go_on();
    prompt.line("'after'", "\"after\"\r\n");
}

#[test]
fn tab_completes() {
    let mut prompt = Prompt::start();
    for (typed, expected) in [
        ("task.sp\t", "task.spawn"),
        ("cnf.log.deb\t", "cnf.log.debug"),
        ("tas\t", "task"),
        ("math.maxi\t", "math.maxinteger"),
    ] {
        prompt.press(typed);
        prompt.expect(expected);
        prompt.press(CONTROL_C);
        prompt.ready();
    }
    prompt.line("c = task.channel()", "");
    prompt.press("c:re\t");
    prompt.expect("c:recv");
}

#[test]
fn history_is_kept_once() {
    let mut prompt = Prompt::start();
    prompt.line("'first'", "\"first\"");
    prompt.line("'second'", "\"second\"");
    prompt.line("'first'", "\"first\"");
    prompt.press(&format!("{UP}{UP}\r"));
    prompt.expect("\n");
    prompt.expect("\"second\"\r\n");
    prompt.ready();
    prompt.press(CONTROL_D);
    assert_eq!(prompt.ended(), Some(0));
    let file = prompt.home.path().join("cnfscript/history");
    let text = std::fs::read_to_string(file).expect("it is kept");
    assert_eq!(text, "#V2\n'first'\n'second'\n");
    let home = std::mem::replace(&mut prompt.home, tempfile::tempdir().expect("another"));
    let mut again = Prompt::start_in(home);
    again.press(&format!("{UP}\r"));
    again.expect("\"second\"\r\n");
}

#[test]
fn leaving_tears_down() {
    for (keys, status) in [(CONTROL_D, 0), (":quit\r", 0), ("os.exit(3)\r", 3)] {
        let mut prompt = Prompt::start();
        prompt.line("cnf.on_stop(function(reason) print('stopping:', reason) end)", "");
        prompt.press(keys);
        prompt.expect("stopping:\texit\r\n");
        assert_eq!(prompt.ended(), Some(status), "{keys:?}");
    }
}

#[test]
fn a_signal_ends_it_and_restores_the_terminal() {
    use nix::sys::termios::{LocalFlags, tcgetattr};
    let mut prompt = Prompt::start();
    prompt.line("cnf.on_stop(function(reason) print('stopping:', reason) end)", "");
    prompt.line("local f = io.open('/proc/self/stat') return 'pid ' .. f:read('n')", "\"pid ");
    let before = &prompt.seen[..prompt.read];
    let at = before.rfind("\"pid ").expect("it was waited for") + 5;
    let pid: i32 = before[at..].split('"').next().and_then(|n| n.parse().ok()).expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
        .expect("it is alive");
    prompt.expect("stopping:\texit\r\n");
    assert_eq!(prompt.ended(), Some(130));
    let settings = tcgetattr(&prompt.keys).expect("a terminal");
    assert!(settings.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
}

#[test]
fn a_name_without_a_value_is_told_what_a_prompt_does_with_names() {
    let mut prompt = Prompt::start();
    prompt.line("local gone = 1", "");
    prompt.line("gone", "hint: give it a value first, `name = ...`: a `local` ends with its line");
    prompt.line("counter = 1", "");
    // A line that is nothing but a call of the library's Lua has its place, too.
    prompt.line("task.sleep()", " --> prompt[4]:1\r\n");
    prompt.line("conter", "hint: did you mean \"counter\"?");
}

#[test]
fn help_tells() {
    let mut prompt = Prompt::start();
    prompt.line(":help", "Ctrl-D");
    prompt.line("help(task)", "task.spawn(fn, ...)");
    prompt.line("help(task.sleep)", "Waits.");
    prompt.line("help('Task:join')", "its results, or its error");
    prompt.line("help", "help(ns.route), help \"Netns:route\"");
    // A method is told by the object that has it, in Rust or in Lua.
    prompt.line("help(netns.host().route)", "Netns:route(options)");
    prompt.line("t = task.spawn(function() end)", "");
    prompt.line("help(t.join)", "Task:join()");
    prompt.line("help(t)", "Task:cancel()");
    // Names: whatever their case, by their last part, with the object's name that a script has for it.
    prompt.line("help 'router.set'", "Router:set(policies)");
    prompt.line("help 'veth'", "link.veth(options)");
    prompt.line("help 'veth'", "local eth0, eth1 = link.veth {");
    prompt.line("help 'route'", "\"route\" is the name of several:");
    prompt.line(
        "help 'Map.set_may'",
        "nothing is called \"Map.set_may\"; did you mean \"Map.set_many\"?",
    );
    prompt.line("help 'nosuch'", "nothing is called \"nosuch\"; help() says what can be asked");
    prompt.line("help(string.format)", "string.format is Lua's own");
    prompt.line("help(lb.service)", "connections?: integer");
    prompt.line(":nothing", "no command");
    prompt.line(":reload", "hint: cnfscript attach NAME");
}

#[test]
fn ctrl_c_clears_the_line_on_a_dumb_terminal_too() {
    let mut prompt = Prompt::start_on("dumb", tempfile::tempdir().expect("a temporary directory"));
    prompt.expect("> ");
    // The chunk so far, and what is typed of its next line.
    prompt.press("for i = 1, 3 do\r");
    prompt.expect(">> ");
    prompt.press("error('never')");
    prompt.expect("error('never')");
    prompt.press("\x03");
    prompt.expect("\n> ");
    prompt.press("6 * 7\r");
    prompt.expect("42");
    prompt.expect("> ");
    // It still interrupts what runs.
    prompt.press("while true do end\r");
    prompt.expect("end\r\n");
    std::thread::sleep(Duration::from_millis(50));
    prompt.press("\x03");
    prompt.expect("interrupted");
    prompt.expect("> ");
    prompt.press("\x04");
    assert_eq!(prompt.ended(), Some(0));
}

#[test]
fn a_signal_while_the_prompt_waits_spoils_no_later_line() {
    let mut prompt = Prompt::start();
    let pid: i32 = {
        prompt.press("cnf._test.pid()\r");
        prompt.expect("\n");
        prompt.ready();
        let number = prompt.seen.rsplit("\n").nth(1).and_then(|line| line.trim().parse().ok());
        number.expect("a process id")
    };
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it is ours");
    std::thread::sleep(Duration::from_millis(100));
    prompt.line("task.sleep('20ms') return 6 * 7", "42");
}
