//! `cnfscript logs NAME`: what a background instance has written to its standard output and error.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Common, reach, status};
use crate::life::log::times::Marks;
use crate::own::instance::{Found, Instances, Paths};
use crate::report::LogFormat;
use crate::{Error, Result};

#[derive(Args, Debug)]
pub struct LogsArgs {
    /// The instance, or its script
    #[arg(value_name = "NAME")]
    name: String,
    /// Go on until the instance ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<usize>,
    /// Begin each line with when it was written (UTC, as docker logs does); --log-format json shows objects with "time"
    #[arg(short, long)]
    timestamps: bool,
}

/// Between two looks at a log that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn logs(args: &LogsArgs, common: &Common) -> Result<u8> {
    const OP: &str = "logs";
    let found = reach::find(OP, &args.name)?;
    let show = match (common.log_format, args.timestamps) {
        (LogFormat::Json, _) => Show::Json,
        (LogFormat::Text, true) => Show::Stamped,
        (LogFormat::Text, false) => Show::Plain,
    };
    let mut log = match Log::open(&found, show) {
        Ok(log) => log,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(OP, "ENOENT", "has no log: it writes where it was started")
                .subject(&found.name)
                .hint(format!("journalctl -u cnfscript@{}, if systemd started it", found.name)));
        }
        Err(e) => return Err(Error::io(OP, &e).subject(found.paths.log().display().to_string())),
    };
    let shown = log.show(args.lines).and_then(|()| match args.follow {
        true => log.follow(&found),
        false => Ok(()),
    });
    match shown {
        // A reader that has gone (`| head`) has seen enough.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io(OP, &e)),
        _ => Ok(status::DONE),
    }
}

/// How lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// As they were written.
    Plain,
    /// Behind the time at which they were written.
    Stamped,
    /// As JSON objects.
    Json,
}

impl Show {
    /// One line, without its end.
    fn line(self, line: &[u8], written: SystemTime) -> Vec<u8> {
        let stamp = || humantime::format_rfc3339_millis(written).to_string().into_bytes();
        match self {
            Show::Plain => [line, b"\n"].concat(),
            Show::Stamped => [&stamp()[..], b" ", line, b"\n"].concat(),
            // An instance that was started with --log-format json has written its own.
            Show::Json if serde_json::from_slice::<Map<String, Value>>(line).is_ok() => {
                [line, b"\n"].concat()
            }
            Show::Json => {
                let since = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let text = String::from_utf8_lossy(line);
                let object = json!({ "time": since.as_secs_f64(), "message": text });
                format!("{object}\n").into_bytes()
            }
        }
    }
}

/// An open log, read up to its end.
struct Log {
    file: File,
    old: Option<File>,
    paths: Paths,
    show: Show,
    /// How much of `file` has been shown.
    shown: u64,
}

impl Log {
    fn open(found: &Found, show: Show) -> io::Result<Log> {
        let paths = found.paths.clone();
        let old = File::open(paths.old_log()).ok();
        Ok(Log { file: File::open(paths.log())?, old, paths, show, shown: 0 })
    }

    /// All there is, or its last lines.
    fn show(&mut self, lines: Option<usize>) -> io::Result<()> {
        let mut text = Vec::new();
        if let Some(old) = &mut self.old {
            old.read_to_end(&mut text)?;
        }
        let old = text.len();
        self.file.read_to_end(&mut text)?;
        self.shown = (text.len() - old) as u64;
        let start = lines.map_or(0, |count| last_lines(&text, count));
        let mut out = io::stdout().lock();
        if self.show == Show::Plain {
            return out.write_all(&text[start..]);
        }
        if start < old {
            let marks = Marks::read(&self.paths.old_log_times());
            out.write_all(&self.rendered(&text[start..old], start as u64, &marks))?;
        }
        let marks = Marks::read(&self.paths.log_times());
        let from = start.max(old);
        out.write_all(&self.rendered(&text[from..], (from - old) as u64, &marks))
    }

    /// The lines of `text`, which stands at `position` of a log with these marks.
    fn rendered(&self, text: &[u8], mut position: u64, marks: &Marks) -> Vec<u8> {
        // Of what its process did not come to mark: when the log was last written to.
        let last = || self.file.metadata().and_then(|file| file.modified());
        let mut out = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let written =
                marks.at(position).or_else(|| last().ok()).unwrap_or(SystemTime::UNIX_EPOCH);
            out.extend(self.show.line(line.strip_suffix(b"\n").unwrap_or(line), written));
            position += line.len() as u64;
        }
        out
    }

    fn follow(&mut self, found: &Found) -> io::Result<()> {
        loop {
            // Asked before the last look, so that nothing said before the end is missed.
            let alive = matches!(Instances::here().get(&found.name), Ok(Some(now)) if now.alive);
            // Shorter than where we are: it has become log.1, and begins anew.
            if self.shown > self.file.metadata()?.len() {
                self.shown = 0;
            }
            self.file.seek(SeekFrom::Start(self.shown))?;
            let mut news = Vec::new();
            self.file.read_to_end(&mut news)?;
            if self.show != Show::Plain && alive {
                // The rest of a line that is being written comes with its end.
                news.truncate(news.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
            }
            let position = self.shown;
            self.shown += news.len() as u64;
            let mut out = io::stdout().lock();
            match self.show {
                Show::Plain => out.write_all(&news)?,
                _ if news.is_empty() => {}
                _ => {
                    let marks = Marks::read(&self.paths.log_times());
                    out.write_all(&self.rendered(&news, position, &marks))?;
                }
            }
            out.flush()?;
            if !alive {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Where the last `count` lines begin.
fn last_lines(text: &[u8], count: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match count {
        0 => text.len(),
        _ => ends.nth(count - 1).map_or(0, |(position, _)| position + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_of_a_text() {
        let cases: &[(&str, usize, &str)] = &[
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ];
        for (text, count, expected) in cases {
            assert_eq!(&text[last_lines(text.as_bytes(), *count)..], *expected, "{text:?} {count}");
        }
    }
}
