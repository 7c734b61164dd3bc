//! What a program prints beside the script, a line at a time, until somebody reads it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::Notify;

/// What a program has printed and nobody has read yet. Read all the time: a full pipe would stop the program.
#[derive(Default)]
pub struct Output {
    lines: RefCell<VecDeque<Vec<u8>>>,
    bytes: Cell<usize>,
    ended: Cell<bool>,
    more: Notify,
}

/// Bytes that are kept of what nobody reads; the oldest lines go first.
const KEPT: usize = 1 << 20;

/// Reads until the program closes its standard output.
pub async fn collect(stdout: ChildStdout, output: Rc<Output>, shown: String) {
    let mut reader = BufReader::new(stdout);
    let mut lost = false;
    loop {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        output.bytes.set(output.bytes.get() + line.len());
        output.lines.borrow_mut().push_back(line);
        while output.bytes.get() > KEPT {
            let Some(oldest) = output.lines.borrow_mut().pop_front() else { break };
            output.bytes.set(output.bytes.get() - oldest.len());
            if !std::mem::replace(&mut lost, true) {
                tracing::warn!(
                    "{shown}: nobody reads its output; only the last {KEPT} bytes are kept"
                );
            }
        }
        output.more.notify_one();
    }
    output.ended.set(true);
    output.more.notify_waiters();
    output.more.notify_one();
}

impl Output {
    /// The next line without its end; `None` after the last.
    pub async fn next(&self) -> Option<Vec<u8>> {
        loop {
            let line = self.lines.borrow_mut().pop_front();
            if let Some(line) = line {
                self.bytes.set(self.bytes.get() - line.len());
                return Some(line);
            }
            if self.ended.get() {
                // Another reader may wait too.
                self.more.notify_one();
                return None;
            }
            self.more.notified().await;
        }
    }
}
