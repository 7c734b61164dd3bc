//! What a person reads on stderr: errors with their source line and hint, and the log.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, filter::LevelFilter};

use crate::Error;
use crate::hearer::{self, Said};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

static FORMAT: std::sync::OnceLock<LogFormat> = std::sync::OnceLock::new();

/// Starts the log. `verbosity`: 0 is info, 1 debug, 2 trace, -1 errors only.
pub fn start(verbosity: i8, format: LogFormat) {
    let level = match verbosity {
        i8::MIN..=-1 => LevelFilter::ERROR,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let _ = FORMAT.set(format);
    let _ = tracing_subscriber::registry().with(Lines { format }.with_filter(level)).try_init();
}

/// Prints an error as the golden tests hold it:
///
/// ```text
/// error: link.veth(eth0): file exists (EEXIST)
///   --> setup.lua:3
///    |
///  3 | link.veth{name = "eth0", peer = {name = "eth1"}}
///    |
///    = hint: choose another name
/// ```
pub fn error(error: &Error, context: Option<&str>) {
    write(&match FORMAT.get() {
        Some(LogFormat::Json) => json_error(error, context),
        _ => render(error, context),
    });
}

/// Tells what happened: to people as text, of several lines perhaps, to machines as its first line and data.
pub fn happened(text: &str, data: serde_json::Map<String, serde_json::Value>) {
    match FORMAT.get() {
        Some(LogFormat::Json) => {
            let fields = serde_json::Value::Object(data).to_string();
            tracing::info!(fields, "{}", text.lines().next().unwrap_or_default());
        }
        _ => tracing::info!("{text}"),
    }
}

type Sink = Box<dyn Fn(&str) + Send + Sync>;
static SINK: std::sync::Mutex<Option<Sink>> = std::sync::Mutex::new(None);

/// From now on all that is reported goes through `sink`: a prompt keeps its line intact so.
pub fn redirect(sink: impl Fn(&str) + Send + Sync + 'static) {
    *SINK.lock().expect("no panic while held") = Some(Box::new(sink));
}

/// Writes text, whole lines, to whoever hears the task that calls, to stderr or wherever reports go.
fn write(text: &str) {
    let heard = hearer::current().is_some_and(|h| h.hear_now(&Said::Err(text.into())).is_ok());
    if heard {
        return;
    }
    match &*SINK.lock().expect("no panic while held") {
        Some(sink) => sink(text),
        None => {
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

/// The text that [`error`] prints.
pub fn render(error: &Error, context: Option<&str>) -> String {
    let mut out = String::new();
    let bold = color("1;31", "error");
    match context {
        Some(context) => {
            let _ = writeln!(out, "{bold}: {context}: {error}");
        }
        None => {
            let _ = writeln!(out, "{bold}: {error}");
        }
    }
    let mut gutter = 1;
    if let Some(site) = error.site() {
        let number = site.line.to_string();
        gutter = number.len();
        let bar = color("1;34", "|");
        let _ = writeln!(out, "{:gutter$}{} {}:{}", "", color("1;34", "-->"), site.file, site.line);
        if let Some(text) = &site.text {
            let _ = writeln!(out, "{:gutter$} {bar}", "");
            let _ = writeln!(out, "{} {bar} {}", color("1;34", &number), text.trim_end());
            let _ = writeln!(out, "{:gutter$} {bar}", "");
        }
    }
    if let Some(detail) = error.get_detail() {
        for line in detail.trim_end().lines() {
            let _ = writeln!(out, "{:gutter$}   {line}", "");
        }
    }
    if let Some(hint) = error.get_hint() {
        let _ = writeln!(out, "{:gutter$} {} hint: {hint}", "", color("1;34", "="));
    }
    out
}

fn json_error(error: &Error, context: Option<&str>) -> String {
    let mut line = serde_json::json!({
        "time": now(), "level": "error", "message": error.to_string(), "op": error.op(), "code": error.code(),
    });
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            line[key] = value.into();
        }
    };
    add("context", context.map(str::to_owned));
    add("subject", error.get_subject().map(str::to_owned));
    add("where", error.site().map(|site| format!("{}:{}", site.file, site.line)));
    add("hint", error.get_hint().map(str::to_owned));
    add("detail", error.get_detail().map(str::to_owned));
    format!("{line}\n")
}

fn color(code: &str, text: &str) -> String {
    static COLORED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let colored = *COLORED.get_or_init(|| {
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
    });
    if colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Seconds since the epoch, for log lines that machines read.
fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |d| (d.as_secs_f64() * 1e6).round() / 1e6)
}

/// The log layer: one line an event.
struct Lines {
    format: LogFormat,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = *event.metadata().level();
        let line = match self.format {
            LogFormat::Json => parts.json(level),
            LogFormat::Text => parts.text(level),
        };
        write(&format!("{line}\n"));
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: serde_json::Map<String, serde_json::Value>,
}

impl Parts {
    fn text(&self, level: Level) -> String {
        let mut line = match level {
            Level::ERROR => format!("{}: ", color("1;31", "error")),
            Level::WARN => format!("{}: ", color("1;33", "warning")),
            Level::INFO => String::new(),
            _ => format!("{}: ", color("2", &level.as_str().to_lowercase())),
        };
        line.push_str(&self.message);
        for (key, value) in &self.fields {
            match value {
                serde_json::Value::String(text) => {
                    let _ = write!(line, " {key}={text}");
                }
                other => {
                    let _ = write!(line, " {key}={other}");
                }
            }
        }
        line
    }

    fn json(self, level: Level) -> String {
        let mut line = serde_json::Map::new();
        line.insert("time".into(), now().into());
        line.insert("level".into(), level.as_str().to_lowercase().into());
        line.insert("message".into(), self.message.into());
        line.extend(self.fields);
        serde_json::Value::Object(line).to_string()
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            // A script's own fields arrive as one JSON object.
            "fields" => {
                if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(value) {
                    self.fields.extend(fields);
                }
            }
            name => {
                self.fields.insert(name.to_owned(), value.into());
            }
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}
