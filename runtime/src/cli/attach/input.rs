//! Where lines come from and where answers go: an editor on a terminal, or plain standard input and output.

use std::io::{BufRead, Write};
use std::sync::mpsc;

use tokio::sync::mpsc::UnboundedSender;

use crate::cli::repl::editor::{Editor, Message, Printer, incomplete};
use crate::{Error, Result};

pub enum Input {
    Edited { editor: Editor, printer: Printer },
    Piped { next: mpsc::Sender<()> },
}

impl Input {
    pub fn edited(messages: UnboundedSender<Message>) -> Result<Input> {
        let editor = Editor::start(|| {}, messages)?;
        let printer = editor.printer();
        Ok(Input::Edited { editor, printer })
    }

    /// Chunks from standard input, of one line or more.
    pub fn piped(messages: UnboundedSender<Message>) -> Result<Input> {
        let (next, asked) = mpsc::channel();
        let read = move || {
            let mut lines = std::io::stdin().lock().split(b'\n');
            for () in asked {
                if messages.send(chunk(&mut lines)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("input".into())
            .spawn(read)
            .map_err(|e| Error::io("thread", &e))?;
        Ok(Input::Piped { next })
    }

    /// Asks for a line: a message follows.
    pub fn next(&self) {
        match self {
            Input::Edited { editor, .. } => editor.next(),
            Input::Piped { next } => drop(next.send(())),
        }
    }

    /// To standard output.
    pub fn print(&self, text: &str) {
        match self {
            Input::Edited { printer, .. } => printer.print(text),
            Input::Piped { .. } => {
                // A reader that has gone has seen enough.
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
        }
    }

    /// To standard error.
    pub fn report(&self, text: &str) {
        match self {
            Input::Edited { printer, .. } => printer.report(text),
            Input::Piped { .. } => drop(std::io::stderr().write_all(text.as_bytes())),
        }
    }

    /// Ctrl-C came as a signal while the prompt waits.
    pub fn interrupted(&self) {
        if let Input::Edited { editor, .. } = self {
            editor.interrupted();
        }
    }
}

/// Lines until they are a whole chunk; what the end of the input cuts off is one, too.
fn chunk(lines: &mut impl Iterator<Item = std::io::Result<Vec<u8>>>) -> Message {
    let mut chunk = String::new();
    while let Some(Ok(line)) = lines.next() {
        chunk.push_str(&String::from_utf8_lossy(&line));
        if !incomplete(&chunk) {
            return Message::Line(chunk);
        }
        chunk.push('\n');
    }
    if chunk.is_empty() { Message::End } else { Message::Line(chunk) }
}
