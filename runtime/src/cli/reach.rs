//! From a word on the command line to an instance, and to its control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::next;
use crate::life::socket::{address, wire};
use crate::own::instance::{Found, Instances};
use crate::{Error, Result};

/// An answer is not longer, whatever it is about.
const LONGEST_ANSWER: u64 = 64 << 20;

/// The instance that `word` names: by its own name, or by its script's path.
///
/// # Errors
/// ENOENT naming the nearest; EINVAL for a script that several instances run.
pub fn find(op: &'static str, word: &str) -> Result<Found> {
    let instances = Instances::here();
    let by_name = if word.contains('/') { None } else { instances.get(word)? };
    if let Some(found) = by_name {
        return Ok(found);
    }
    let all = instances.all()?;
    let Ok(script) = Path::new(word).canonicalize() else { return Err(unknown(op, word, &all)) };
    let runs = |found: &&Found| {
        found.record.as_ref().is_some_and(|record| record.script.as_ref() == Some(&script))
    };
    match all.iter().filter(runs).collect::<Vec<_>>()[..] {
        [one] => Ok(one.clone()),
        [] => Err(unknown(op, word, &all)),
        ref several => {
            let names: Vec<&str> = several.iter().map(|found| found.name.as_str()).collect();
            Err(Error::invalid(op, "several instances run this script")
                .subject(word)
                .hint(format!("name one: {}", names.join(", "))))
        }
    }
}

fn unknown(op: &'static str, word: &str, all: &[Found]) -> Error {
    let nearest = all
        .iter()
        .map(|found| (strsim::damerau_levenshtein(&found.name, word), &found.name))
        .filter(|(distance, _)| *distance <= 1 + word.len() / 3)
        .min();
    let hint = match nearest {
        Some((_, name)) => format!("did you mean \"{name}\"?"),
        None if all.is_empty() => "there is none at all; cnfscript up SCRIPT starts one".to_owned(),
        None => "cnfscript status shows which there are".to_owned(),
    };
    Error::new(op, "ENOENT", "no such instance").subject(word).hint(hint)
}

/// Shows what an instance has answered: its words, or all of it as data.
pub fn show(answer: Map<String, Value>, json: bool) {
    let text = match answer.get("text").and_then(Value::as_str) {
        Some(text) if !json => text.trim_end().to_owned(),
        _ => Value::Object(answer).to_string(),
    };
    // A reader that has gone has seen enough.
    let _ = writeln!(io::stdout(), "{text}");
}

/// One that lives, or an error that says how it came to its end.
pub fn alive(op: &'static str, found: &Found) -> Result<()> {
    if found.alive {
        return Ok(());
    }
    let error = |message: String| Error::new(op, "ESRCH", message).subject(&found.name);
    let script = found.record.as_ref().and_then(|record| record.script.as_deref());
    let up = next::up(&found.name, script);
    let again = |error: Error| match &up {
        Some(up) => error.hint(up.as_str()),
        None => error,
    };
    Err(match found.record.as_ref().and_then(|record| record.ended) {
        Some(end) => {
            let status = end.status;
            again(error(format!("does not run: it ended {} ago with status {status}", ago(end.at))))
        }
        None if found.paths.left_something() => {
            let over = up.map_or_else(String::new, |up| format!("; {up} takes them over"));
            error("does not run: it died and left things behind".into())
                .hint(format!("{} removes them{over}", next::clean(&found.name)))
        }
        None => again(error("does not run: it died".into())),
    })
}

/// How long ago that was, in seconds since the epoch.
fn ago(at: f64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    span(now.saturating_sub(Duration::try_from_secs_f64(at).unwrap_or_default()))
}

/// "2h 3m": as much as a person wants to know.
pub fn span(duration: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    whole.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// A connection to an instance's control socket.
pub struct Connection {
    op: &'static str,
    name: String,
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// `patience` is for each answer; none waits for as long as it takes.
    ///
    /// # Errors
    /// ECONNREFUSED, ENOENT when it does not listen: it has only begun, or is about to end.
    pub fn open(op: &'static str, found: &Found, patience: Option<Duration>) -> Result<Connection> {
        let connect = || {
            let (_held, path) = address(&found.paths.socket())?;
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(patience)?;
            stream.set_write_timeout(patience)?;
            Ok(stream)
        };
        let stream = connect().map_err(|e: io::Error| {
            Error::io(op, &e).subject(&found.name).because("it does not listen for requests")
        })?;
        Ok(Connection { op, name: found.name.clone(), stream: BufReader::new(stream) })
    }

    /// # Errors
    /// What the instance says; ETIMEDOUT; EPROTO for an answer that is none.
    pub fn ask(&mut self, command: &wire::Command) -> Result<Map<String, Value>> {
        let line = serde_json::to_string(command).expect("commands have a JSON form");
        let mut answer = Vec::new();
        let asked = match writeln!(self.stream.get_mut(), "{line}") {
            // It has refused us before it heard us, and said why.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
        .and_then(|()| (&mut self.stream).take(LONGEST_ANSWER).read_until(b'\n', &mut answer));
        asked.map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => {
                self.error("ETIMEDOUT", "it does not answer").hint("cnfscript down ends it")
            }
            _ => Error::io(self.op, &e).subject(&self.name),
        })?;
        if answer.is_empty() {
            return Err(self.error("ECONNRESET", "it ended before it answered"));
        }
        let Some((version, outcome)) = wire::parse_answer(&answer) else {
            return Err(self.error("EPROTO", "its answer is not one"));
        };
        outcome.map_err(|error| {
            let ours = env!("CARGO_PKG_VERSION");
            // An error of the script has its own operation.
            let error = match error.op() {
                "" | "socket" => error.operation(self.op).about(&self.name),
                _ => error,
            };
            match error.is("EOPNOTSUPP") && version != ours {
                true => error.hint(format!(
                    "it is cnfscript {version}, this is {ours}: down and up renew it"
                )),
                false => error,
            }
        })
    }

    /// Waits until the other side closes, which it does at the latest when its process ends; false after `patience`.
    pub fn wait_for_end(mut self, patience: Duration) -> bool {
        let _ = self.stream.get_ref().set_read_timeout(Some(patience));
        // Nothing more is sent; a reset is an end too.
        !matches!(self.stream.read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// For what is more than requests and answers.
    pub fn into_stream(self) -> BufReader<UnixStream> {
        self.stream
    }

    fn error(&self, code: &'static str, message: &str) -> Error {
        Error::new(self.op, code, message).subject(&self.name)
    }
}
