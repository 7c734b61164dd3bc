//! `cnfscript logs NAME`: what a background instance has written to its standard output and error.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use clap::Args;

use super::{reach, status};
use crate::own::instance::{Found, Instances};
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
}

/// Between two looks at a log that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn logs(args: &LogsArgs) -> Result<u8> {
    const OP: &str = "logs";
    let found = reach::find(OP, &args.name)?;
    let mut log = match Log::open(&found) {
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

/// An open log, read up to its end.
struct Log {
    file: File,
    old: Option<File>,
}

impl Log {
    fn open(found: &Found) -> io::Result<Log> {
        Ok(Log {
            file: File::open(found.paths.log())?,
            old: File::open(found.paths.old_log()).ok(),
        })
    }

    /// All there is, or its last lines.
    fn show(&mut self, lines: Option<usize>) -> io::Result<()> {
        let mut text = Vec::new();
        if let Some(old) = &mut self.old {
            old.read_to_end(&mut text)?;
        }
        self.file.read_to_end(&mut text)?;
        let start = lines.map_or(0, |count| last_lines(&text, count));
        io::stdout().write_all(&text[start..])
    }

    fn follow(&mut self, found: &Found) -> io::Result<()> {
        loop {
            // Asked before the last look, so that nothing said before the end is missed.
            let alive = matches!(Instances::here().get(&found.name), Ok(Some(now)) if now.alive);
            // Shorter than where we are: it has become log.1, and begins anew.
            if self.file.stream_position()? > self.file.metadata()?.len() {
                self.file.seek(SeekFrom::Start(0))?;
            }
            let mut news = Vec::new();
            self.file.read_to_end(&mut news)?;
            let mut out = io::stdout().lock();
            out.write_all(&news)?;
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
