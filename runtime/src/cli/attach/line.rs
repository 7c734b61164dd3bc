//! The connection of an attached prompt: asks go out, a thread reads what comes in.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use tokio::sync::mpsc;

use crate::life::socket::LONGEST;
use crate::life::socket::wire::{self, Ask, Event};
use crate::{Error, Result, report};

/// No event is longer.
const LONGEST_EVENT: u64 = 16 << 20;
/// So many events wait for a terminal that is slow; then the instance waits.
const EVENTS: usize = 16;

pub struct Wire(UnixStream);

impl Wire {
    /// What the instance says is received until it closes the connection.
    pub fn start(
        op: &'static str,
        stream: BufReader<UnixStream>,
    ) -> Result<(Wire, mpsc::Receiver<Event>)> {
        let writer = stream.get_ref().try_clone().map_err(|e| Error::io(op, &e))?;
        let (send, events) = mpsc::channel(EVENTS);
        std::thread::Builder::new()
            .name("events".into())
            .spawn(move || receive(op, stream, &send))
            .map_err(|e| Error::io("thread", &e))?;
        Ok((Wire(writer), events))
    }

    /// # Errors
    /// EMSGSIZE; what the connection says.
    pub fn ask(&mut self, ask: &Ask) -> Result<()> {
        let mut line = serde_json::to_string(ask).expect("asks have a JSON form");
        line.push('\n');
        if line.len() > LONGEST {
            return Err(Error::new("", "EMSGSIZE", format!("a line has at most {LONGEST} bytes"))
                .hint("put it into a file: dofile(\"/path\")"));
        }
        match self.0.write_all(line.as_bytes()) {
            // The end of the events says so.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|e| Error::io("", &e)),
        }
    }
}

fn receive(op: &'static str, mut stream: BufReader<UnixStream>, events: &mpsc::Sender<Event>) {
    loop {
        let mut line = Vec::new();
        // A connection that breaks is at its end.
        let read = (&mut stream).take(LONGEST_EVENT).read_until(b'\n', &mut line);
        if line.is_empty() || read.is_err() {
            return;
        }
        match serde_json::from_slice(&line) {
            Ok(event) => {
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
            Err(_) => {
                let error = match wire::parse_answer(&line) {
                    Some((_, Err(refused))) => refused.operation(op),
                    _ => Error::new(op, "EPROTO", "what the instance says cannot be read"),
                };
                return report::error(&error, None);
            }
        }
    }
}
