//! Many elements at once, as a person at a terminal sees it: a bar when it takes long, and an end when it is interrupted.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "room/place.rs"]
mod place;

use place::{BINARY, DIRECTORY_VARIABLE, place};

/// Writes as many elements as take the seconds of its argument; prints how many, and for how many seconds it wrote.
const SCRIPT: &str = r#"
local cnf = require("cnf")
local map = cnf.bpf.compile({ source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 65536); __uint(key_size, 4); __uint(value_size, 1); }
  many SEC(".maps");
SEC("tc") int p(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
]] }).maps.many
local keys = {}
for i = 1, 65536 do
  keys[i] = string.pack("=I4", i)
end
keys = table.concat(keys)
local function write(times)
  local begun = cnf._test.now()
  local count = map:set_many({ keys:rep(times), ("\1"):rep(65536 * times) })
  return count, cnf._test.now() - begun
end
write(1)
local _, took = write(4)
print("begun") io.stdout:flush()
print(write(math.ceil(tonumber(cnf.args[1]) / (took / 4))))
"#;

/// The script, with its standard error on a pseudo-terminal, and the other end of that.
fn start(seconds: &str, script: &tempfile::NamedTempFile) -> (Child, File) {
    let size = nix::pty::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).expect("a pseudo-terminal");
    let child = Command::new(BINARY)
        .args([script.path().as_os_str(), seconds.as_ref()])
        .env("TERM", "xterm")
        .env(DIRECTORY_VARIABLE, place())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(pty.slave))
        .spawn()
        .expect("the binary starts");
    (child, File::from(pty.master))
}

/// What is written to the terminal until nobody has it open: reading ends with an error (EIO) then.
fn all(mut terminal: File) -> String {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn script() -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".lua").tempfile().expect("a temporary file");
    file.write_all(SCRIPT.as_bytes()).expect("it takes the text");
    file
}

#[test]
fn a_bar_is_shown_when_it_takes_longer_than_a_second() {
    let script = script();
    let (child, terminal) = start("3", &script);
    let seen = all(terminal);
    let said = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let took: f64 = said.split_whitespace().last().and_then(|s| s.parse().ok()).expect(&said);
    assert!(took > 1.2, "it was too quick to tell: {took} s");
    assert!(seen.contains("map:set_many many") && seen.contains('█'), "{seen:?}");
    // It clears its line when it is done.
    assert!(seen.trim_end_matches(['\r', '\n']).ends_with("\x1b[2K"), "{seen:?}");

    let (child, terminal) = start("0.1", &script);
    assert_eq!(all(terminal), "", "nothing is shown of what is quick");
    assert!(child.wait_with_output().expect("it ends").status.success());
}

#[test]
fn an_interrupt_ends_it() {
    let script = script();
    let (mut child, terminal) = start("6", &script);
    let mut out = child.stdout.take().expect("a pipe");
    let mut word = [0; 6];
    out.read_exact(&mut word).expect("it begins");
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it runs");
    all(terminal);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
