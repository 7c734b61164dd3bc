//! The thread that edits lines: prompt, continuation, history, completion; and printing above the line being edited.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{FileHistory, History, SearchDirection};
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, ExternalPrinter, Helper};
use tokio::sync::mpsc::UnboundedSender;

use crate::{Error, Result};

/// What the editor tells the thread that runs Lua.
pub enum Message {
    /// A whole chunk, of one line or more.
    Line(String),
    /// Ctrl-C while editing.
    Interrupted,
    /// Ctrl-D.
    End,
    /// What could stand at the end of `line`: where the word starts, and the words.
    Complete { line: String, answer: mpsc::Sender<(usize, Vec<String>)> },
}

const PROMPT: &str = "> ";
const CONTINUATION: &str = ">> ";
/// Completion asks Lua, which may be busy.
const COMPLETION_LIMIT: Duration = Duration::from_millis(300);
const HISTORY_LENGTH: usize = 5000;

/// The other end of the editor's thread.
pub struct Editor {
    next: mpsc::Sender<()>,
    printer: Printer,
    /// What was typed of a chunk so far is to be forgotten.
    forget: Arc<AtomicBool>,
}

/// Prints to the terminal, above the line while one is being edited.
#[derive(Clone)]
pub struct Printer {
    editing: Arc<AtomicBool>,
    above: Option<mpsc::Sender<String>>,
}

impl Editor {
    /// `interrupted` is called when Ctrl-C comes while a line is edited, by another thread and before the message.
    pub fn start(
        interrupted: impl Fn() + Send + 'static,
        messages: UnboundedSender<Message>,
    ) -> Result<Editor> {
        let mut lines = new_editor(messages.clone())?;
        let (above, texts) = mpsc::channel::<String>();
        let external = lines.create_external_printer().ok();
        let printer =
            Printer { editing: Arc::default(), above: external.is_some().then_some(above) };
        if let Some(mut external) = external {
            spawn("printer", move || {
                for text in texts {
                    let _ = external.print(text);
                }
            })?;
        }
        let reports = printer.clone();
        crate::report::redirect(move |text| reports.report(text));
        let (next, asked) = mpsc::channel();
        let editing = Arc::clone(&printer.editing);
        let forget = Arc::<AtomicBool>::default();
        let forgotten = Arc::clone(&forget);
        spawn("editor", move || {
            for () in asked {
                editing.store(true, Ordering::SeqCst);
                let message = read_chunk(&mut lines, &forgotten);
                editing.store(false, Ordering::SeqCst);
                if matches!(message, Message::Interrupted) {
                    interrupted();
                }
                if messages.send(message).is_err() {
                    return;
                }
            }
        })?;
        Ok(Editor { next, printer, forget })
    }

    /// Shows the prompt; a message follows.
    pub fn next(&self) {
        let _ = self.next.send(());
    }

    /// Ctrl-C came as a signal, which a terminal that lines cannot be edited on (TERM=dumb) makes of it: it has taken back
    /// the line, and waits for another.
    pub fn interrupted(&self) {
        if self.printer.editing.load(Ordering::SeqCst) && self.printer.above.is_none() {
            self.forget.store(true, Ordering::SeqCst);
            self.printer.print(&format!("\n{PROMPT}"));
        }
    }

    pub fn printer(&self) -> Printer {
        self.printer.clone()
    }
}

/// The prompt ends, perhaps in the middle of a line: what is still printed goes below it.
impl Drop for Editor {
    fn drop(&mut self) {
        if self.printer.editing.swap(false, Ordering::SeqCst) {
            println!();
        }
    }
}

impl Printer {
    pub fn print(&self, text: &str) {
        self.put(text, |text| {
            // A reader that has gone has seen enough.
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        });
    }

    pub fn report(&self, text: &str) {
        self.put(text, |text| drop(std::io::stderr().write_all(text.as_bytes())));
    }

    fn put(&self, text: &str, directly: impl Fn(&str)) {
        match &self.above {
            Some(above) if self.editing.load(Ordering::SeqCst) => {
                // The terminal is raw: a line feed alone would not return the carriage.
                let _ = above.send(text.to_owned());
            }
            _ => directly(text),
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map(drop)
        .map_err(|e| Error::io("thread", &e))
}

type Lines = rustyline::Editor<Asking, FileHistory>;

fn new_editor(messages: UnboundedSender<Message>) -> Result<Lines> {
    let failed = |e: ReadlineError| Error::new("prompt", "EIO", e.to_string());
    let config = Config::builder()
        .max_history_size(HISTORY_LENGTH)
        .map_err(failed)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut lines = Lines::with_config(config).map_err(failed)?;
    lines.set_helper(Some(Asking(messages)));
    if let Some(path) = history_file() {
        // There is none the first time.
        let _ = lines.load_history(&path);
    }
    Ok(lines)
}

/// Reads lines until they are a whole chunk, or one that no further line can complete.
fn read_chunk(lines: &mut Lines, forget: &AtomicBool) -> Message {
    let mut chunk = String::new();
    forget.store(false, Ordering::SeqCst);
    loop {
        match lines.readline(if chunk.is_empty() { PROMPT } else { CONTINUATION }) {
            Ok(line) => {
                if forget.swap(false, Ordering::SeqCst) {
                    chunk.clear();
                }
                chunk.push_str(&line);
                if !incomplete(&chunk) {
                    remember(lines, &chunk);
                    return Message::Line(chunk);
                }
                chunk.push('\n');
            }
            Err(ReadlineError::Interrupted) => return Message::Interrupted,
            Err(_) => return Message::End,
        }
    }
}

/// Whether Lua's complaint is that the chunk ends too early.
pub fn incomplete(chunk: &str) -> bool {
    if chunk.trim_start().starts_with(':') {
        return false;
    }
    let lua = mlua::Lua::new();
    let early = |text: String| {
        matches!(
            lua.load(text).into_function(),
            Err(mlua::Error::SyntaxError { incomplete_input: true, .. })
        )
    };
    let expression = lua.load(format!("return {chunk}")).into_function();
    expression.is_err() && (early(format!("return {chunk}")) || early(chunk.to_owned()))
}

/// The history holds each line once, at its latest place, and is on disk at once.
fn remember(lines: &mut Lines, chunk: &str) {
    let entry = chunk.trim_end();
    if entry.is_empty() {
        return;
    }
    let history = lines.history_mut();
    let mut earlier: Vec<String> = (0..history.len())
        .filter_map(|index| history.get(index, SearchDirection::Forward).ok().flatten())
        .map(|found| found.entry.into_owned())
        .collect();
    if earlier.iter().any(|line| line == entry) {
        earlier.retain(|line| line != entry);
        let _ = history.clear();
        for line in earlier {
            let _ = history.add(&line);
        }
    }
    let _ = lines.add_history_entry(entry);
    if let Some(path) = history_file() {
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = lines.save_history(&path);
    }
}

fn history_file() -> Option<PathBuf> {
    let state = match std::env::var_os("XDG_STATE_HOME").map(PathBuf::from) {
        Some(path) if path.is_absolute() => path,
        _ => PathBuf::from(std::env::var_os("HOME")?).join(".local/state"),
    };
    Some(state.join("cnfscript/history"))
}

/// How many columns the terminal has.
pub fn width() -> i64 {
    nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills the struct it is given (ioctl_tty(2)).
    let asked = unsafe { window_size(nix::libc::STDOUT_FILENO, &raw mut size) };
    if asked.is_ok() && size.ws_col > 0 { i64::from(size.ws_col) } else { 80 }
}

/// Completion by asking the thread that runs Lua.
struct Asking(UnboundedSender<Message>);

impl Completer for Asking {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let (answer, answered) = mpsc::channel();
        let _ = self.0.send(Message::Complete { line: line[..position].to_owned(), answer });
        Ok(answered.recv_timeout(COMPLETION_LIMIT).unwrap_or((position, Vec::new())))
    }
}
impl Hinter for Asking {
    type Hint = String;
}
impl Highlighter for Asking {}
impl Validator for Asking {}
impl Helper for Asking {}

/// The terminal's settings, put back at the end: the editor may be in the middle of a line then.
pub struct Terminal(Option<nix::sys::termios::Termios>);

impl Terminal {
    pub fn save() -> Terminal {
        Terminal(nix::sys::termios::tcgetattr(std::io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        if let Some(settings) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, settings);
        }
    }
}
