//! What the world outside a running script has to do with it: who waits for its first commit, and the requests that
//! come over the control socket.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::control::Control;
use super::socket::{Local, Request, Socket};
use crate::Result;
use crate::own::Ledger;
use crate::own::instance::{Claim, Ending};

/// More requests than that wait in their clients' connections.
const QUEUE: usize = 16;

/// Reachable from every thread through [`Control::outside`].
pub struct Outside {
    /// Taken by the one script that answers.
    requests: tokio::sync::Mutex<mpsc::Receiver<Request>>,
    waiting: Mutex<Option<Waiting>>,
    ending: Ending,
}

/// Who waits for the first commit.
pub enum Waiting {
    /// `up`, at the other end of this pipe.
    Up(std::fs::File),
    /// The service manager, if one started this process.
    Systemd,
}

/// What `up` reads when its instance is set up. An end of the pipe without it means that it failed.
pub const READY: &[u8] = b"ready\n";

impl Outside {
    /// Listens on the claim's control socket until the returned [`Socket`] is dropped. `waiting` is told of the first
    /// commit.
    pub fn open(
        claim: &Claim,
        waiting: Waiting,
        control: &Arc<Control>,
        ledger: &Arc<Ledger>,
    ) -> Result<Socket> {
        let (send, requests) = mpsc::channel(QUEUE);
        let record = claim.record().clone();
        let ledger = Arc::clone(ledger);
        let status = move || {
            let mut status = Map::new();
            let mut add = |key: &str, value: Value| status.insert(key.to_owned(), value);
            add("name", json!(record.name));
            add("script", json!(record.script));
            add("pid", json!(record.pid));
            add("started", json!(record.started));
            add("uptime", json!(record.uptime().as_secs_f64()));
            add("background", json!(record.background));
            add("owns", json!(ledger.counts()));
            status
        };
        let down = {
            let control = Arc::clone(control);
            move || control.down()
        };
        let hasten = {
            let control = Arc::clone(control);
            move || control.look_at_limits()
        };
        let local =
            Local { status: Box::new(status), down: Box::new(down), hasten: Box::new(hasten) };
        let socket = Socket::start(&claim.paths().socket(), local, send, |listener, begin| {
            control.when_readable(listener, begin);
        })?;
        control.set_outside(Outside {
            requests: tokio::sync::Mutex::new(requests),
            waiting: Mutex::new(Some(waiting)),
            ending: claim.ending(),
        });
        Ok(socket)
    }

    /// The first commit: whoever started the instance may go on. Later ones are nothing.
    pub fn committed(&self) {
        let waiting = self.waiting.lock().expect("no panic while held").take();
        match waiting {
            // An `up` that was killed is not waiting.
            Some(Waiting::Up(mut pipe)) => drop(pipe.write_all(READY)),
            Some(Waiting::Systemd) => tell_systemd("READY=1"),
            None => {}
        }
    }

    /// Writes the end down for a process that leaves without the thread that has the claim.
    pub fn end(&self, status: u8) {
        self.ending.clone().finish(status);
    }

    /// The next request.
    pub async fn next(&self) -> Request {
        match self.requests.lock().await.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

/// `READY=1` to whoever NOTIFY_SOCKET names (`sd_notify(3)`); nobody, if no service manager started this process.
fn tell_systemd(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let name = name.as_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::path::Path::new(&*String::from_utf8_lossy(name))),
    };
    let told = address.and_then(|address| {
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
    });
    if let Err(error) = told {
        tracing::warn!("systemd was not told {state}: {error}");
    }
}
