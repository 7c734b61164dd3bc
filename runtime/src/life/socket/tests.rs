//! Clients of every manner against a socket whose Lua is a few lines of Rust.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{CLIENTS, LONGEST, Local, PATIENCE, Request, Socket, What, address, wire};
use crate::Error;
use crate::error::Site;

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).expect("an object")
}

struct Bench {
    directory: tempfile::TempDir,
    socket: Option<Socket>,
    /// Unread: Lua hangs.
    lua: Option<mpsc::Receiver<Request>>,
    went_down: std::sync::mpsc::Receiver<()>,
}

impl Bench {
    fn hanging() -> Bench {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (send, lua) = mpsc::channel(16);
        let (down, went_down) = std::sync::mpsc::channel();
        let local = Local {
            status: Box::new(|| object(json!({ "pid": 7, "tasks": null }))),
            down: Box::new(move || down.send(()).expect("the test listens")),
            hasten: Box::new(|| {}),
        };
        let socket =
            Socket::start(&directory.path().join("control"), local, send, |_, begin| begin());
        Bench { directory, socket: Some(socket.expect("it listens")), lua: Some(lua), went_down }
    }

    /// With a Lua that answers.
    fn answering() -> Bench {
        let mut bench = Bench::hanging();
        let mut lua = bench.lua.take().expect("just made");
        std::thread::spawn(move || {
            while let Some(request) = lua.blocking_recv() {
                let answer = match &request.what {
                    What::Status => Ok(object(json!({ "tasks": 3 }))),
                    What::Reload => Ok(object(json!({ "text": "nothing changed" }))),
                    What::Actions { script } => Err(Error::new("load", "ENOENT", "no such file")
                        .subject(script.as_ref().expect("given").display().to_string())
                        .hint("look")
                        .at(Some(Site { file: "a.lua".into(), line: 3, text: None }))),
                    _ => Err(Error::new("", "EOPNOTSUPP", "no prompts here")),
                };
                request.answer(answer);
            }
        });
        bench
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    fn client(&self) -> Client {
        let (_held, path) = address(&self.path()).expect("the directory is there");
        let stream = UnixStream::connect(path).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE + Duration::from_secs(5))).expect("set");
        Client { reader: BufReader::new(stream) }
    }
}

struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("it takes them");
    }

    fn answer(&mut self) -> crate::Result<Map<String, Value>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("an answer in time");
        let (version, answer) = wire::parse_answer(line.as_bytes()).expect(&line);
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        answer
    }

    fn ask(&mut self, line: &str) -> crate::Result<Map<String, Value>> {
        self.send(format!("{line}\n").as_bytes());
        self.answer()
    }

    #[track_caller]
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b""),
            // What was sent and not read resets the stream.
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn several_requests_on_one_connection() {
    let bench = Bench::answering();
    let mode = bench.path().metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = bench.client();
    let status = client.ask(r#"{"do":"status","more":1}"#).expect("answered");
    assert_eq!(Value::from(status), json!({ "pid": 7, "tasks": 3, "busy": false }));
    let reload = client.ask(r#"{"do":"reload"}"#).expect("answered");
    assert_eq!(reload["text"], "nothing changed");
    let error = client.ask(r#"{"do":"actions","script":"/x.lua"}"#).expect_err("refused");
    assert_eq!(error.to_string(), "load(/x.lua): no such file (ENOENT)");
    assert_eq!((error.get_hint(), error.site().map(|s| s.line)), (Some("look"), Some(3)));
}

#[test]
fn a_script_that_hangs_has_a_status_and_goes_down() {
    let mut bench = Bench::hanging();
    let status = bench.client().ask(r#"{"do":"status"}"#).expect("answered without Lua");
    assert_eq!(Value::from(status), json!({ "pid": 7, "tasks": null, "busy": true }));
    let refused = bench.client().ask(r#"{"do":"reload"}"#).expect_err("nobody could");
    assert!(refused.is("EBUSY"), "{refused}");
    let mut client = bench.client();
    client.ask(r#"{"do":"down"}"#).expect("answered");
    bench.went_down.recv_timeout(PATIENCE).expect("it goes down after its answer");
    bench.socket = None;
    client.expect_end();
    assert!(!bench.path().exists());
}

#[test]
fn garbage_is_refused_and_does_no_harm() {
    let bench = Bench::answering();
    let mut client = bench.client();
    let cases = [
        ("", "EINVAL"),
        ("status", "EINVAL"),
        ("[1]", "EINVAL"),
        ("{}", "EINVAL"),
        (r#"{"do":7}"#, "EINVAL"),
        (r#"{"do":"frobnicate"}"#, "EOPNOTSUPP"),
        (r#"{"do":"actions","script":7}"#, "EINVAL"),
        (&"[".repeat(10_000), "EINVAL"),
        ("\u{0}\u{1}\u{fffd}", "EINVAL"),
    ];
    for (line, code) in cases {
        let error = client.ask(line).expect_err(line);
        assert!(error.is(code), "{line:.40}: {error}");
    }
    client.send(b"\xff\xfe\n");
    assert!(client.answer().expect_err("not text").is("EINVAL"));
    // Still in step.
    client.ask(r#"{"do":"status"}"#).expect("answered");
}

#[test]
fn a_request_that_is_too_long_ends_its_client_only() {
    let bench = Bench::answering();
    let mut client = bench.client();
    let padding = " ".repeat(LONGEST - r#"{"do":"status"}"#.len() - 1);
    client.ask(&format!(r#"{{"do":"status"}}{padding}"#)).expect("just short enough");
    client.send(&b"x".repeat(LONGEST + 1));
    assert!(client.answer().expect_err("too long").is("EMSGSIZE"));
    client.expect_end();
    bench.client().ask(r#"{"do":"status"}"#).expect("others go on");
}

#[test]
fn clients_that_say_nothing_keep_nobody_out_for_long() {
    let bench = Bench::answering();
    let mut half = bench.client();
    half.send(br#"{"do":"sta"#);
    let start = Instant::now();
    let silent: Vec<Client> = (1..CLIENTS).map(|_| bench.client()).collect();
    let refused = loop {
        // They are counted when the server gets to them.
        match bench.client().answer_to_status() {
            Err(error) => break error,
            Ok(_) => assert!(start.elapsed() < PATIENCE, "never full"),
        }
    };
    assert!(refused.is("EAGAIN"), "{refused}");
    half.expect_end();
    assert!(start.elapsed() >= PATIENCE - Duration::from_secs(1));
    drop(silent);
    while bench.client().answer_to_status().is_err() {
        assert!(start.elapsed() < 2 * PATIENCE, "never free again");
    }
}

impl Client {
    /// As `ask`, of a server that may have ended the stream before it reads.
    fn answer_to_status(&mut self) -> crate::Result<Map<String, Value>> {
        let _ = self.reader.get_mut().write_all(b"{\"do\":\"status\"}\n");
        self.answer()
    }
}

#[test]
fn a_path_may_be_longer_than_an_address() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let deep = directory.path().join("x".repeat(200));
    std::fs::create_dir(&deep).expect("made");
    // What an earlier process left.
    std::fs::write(deep.join("control"), "").expect("written");
    let local =
        Local { status: Box::new(Map::new), down: Box::new(|| ()), hasten: Box::new(|| ()) };
    let (send, _lua) = mpsc::channel(1);
    let _socket =
        Socket::start(&deep.join("control"), local, send, |_, begin| begin()).expect("it listens");
    let (_held, short) = address(&deep.join("control")).expect("there");
    UnixStream::connect(short).expect("it accepts");
}
