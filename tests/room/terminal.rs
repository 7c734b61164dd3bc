//! A pseudo-terminal with the program in it: what is typed, and what is seen.

#![allow(dead_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use cnfscript::own::instance::DIRECTORY_VARIABLE;

pub const CONTROL_C: &str = "\x03";
pub const CONTROL_D: &str = "\x04";
pub const UP: &str = "\x1b[A";

/// Nothing that a test waits for takes longer.
const BOUND: Duration = Duration::from_secs(10);

pub struct Terminal {
    pub keys: File,
    screen: Receiver<Vec<u8>>,
    pub seen: String,
    /// How much of `seen` was waited for already.
    pub read: usize,
    child: Child,
}

impl Terminal {
    /// The program with these words, on a terminal of that kind; its history and its instances are in `home`.
    pub fn start(kind: &str, words: &[&str], home: &Path) -> Terminal {
        Terminal::start_at(kind, words, home, &home.join("run"))
    }

    /// With instances elsewhere.
    pub fn start_at(kind: &str, words: &[&str], home: &Path, run: &Path) -> Terminal {
        let size = nix::pty::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).expect("a pseudo-terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        // The terminal must be its controlling one for Ctrl-C to be a signal.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_cnfscript")])
            .args(words)
            .env("XDG_STATE_HOME", home)
            .env(DIRECTORY_VARIABLE, run)
            .env("NO_COLOR", "1")
            .env("TERM", kind)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the binary starts");
        drop(pty.slave);
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().expect("a descriptor");
        let (send, receive) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the other side is an error (EIO) on a pseudo-terminal.
            while let Ok(count) = screen.read(&mut buffer) {
                if count == 0 || send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { keys, screen: receive, seen: String::new(), read: 0, child }
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Types a line and waits for what follows it.
    pub fn line(&mut self, line: &str, expected: &str) {
        self.press(&format!("{line}\r"));
        // The echo ends with the line; the result begins on the next.
        self.expect("\n");
        self.expect(expected);
        self.ready();
    }

    /// Waits for an empty prompt.
    #[track_caller]
    pub fn ready(&mut self) {
        self.expect("> \r\x1b[2C");
    }

    /// Types a line that needs another one.
    pub fn incomplete(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
        self.expect(">> \r\x1b[3C");
    }

    /// Waits until the text is seen after what was waited for before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(at) = self.seen[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            let wait = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(wait) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("waited for {text:?}; seen since: {:?}", &self.seen[self.read..]);
                }
            }
        }
    }

    /// Ctrl-C ends a line that says "go" and then hangs; the next one runs.
    pub fn interrupts(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
        self.expect("go\r\n");
        self.press(CONTROL_C);
        self.expect("interrupted\r\n");
        self.ready();
        self.line("6 * 7", "42\r\n");
    }

    /// Ctrl-C ends a task of a line that has ended itself, which keeps all others from their work.
    pub fn interrupts_a_task(&mut self) {
        self.press(
            "task.spawn(function() task.sleep(0.05) print('on') while true do pcall(error) end end)\r",
        );
        self.expect("running)");
        self.expect("on\r\n");
        self.ready();
        self.press(CONTROL_C);
        self.expect("\r\n");
        self.ready();
        self.line("6 * 7", "42\r\n");
    }

    /// What tasks print and how they fail stands above a line that is being typed.
    pub fn tasks_go_on(&mut self) {
        self.line("task.after(0.2, function() print('from the task') end)", "running");
        self.press("'half typ");
        self.expect("from the task\r\n");
        self.expect("> 'half typ");
        self.press("ed'\r");
        self.expect("\"half typed\"\r\n");
        self.ready();
        self.line("task.after(0.05, function() error('task trouble') end)", "running");
        self.expect("error: task failed: task trouble");
        self.ready();
    }

    /// Waits for the end; the exit status.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + BOUND;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end; seen: {:?}", &self.seen[self.read..]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Closing the terminal ends the program too; setsid waits for it.
            let _ = self.child.kill();
        }
    }
}
