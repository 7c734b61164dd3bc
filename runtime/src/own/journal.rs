//! The ledger on disk: what a process that dies leaves is written down before it is made.
//!
//! One JSON object a line, only ever appended: `{"n": 7, "own": {...}}` when entry 7 is about to be or has become that,
//! `{"n": 7}` when it is gone. The last line about a number counts; a line cut off by death was never acted on.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Owned;
use crate::kernel::netns::named;
use crate::{Error, Result, fault};

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
}

/// What a journal says is there, each by its number.
#[derive(Default)]
pub struct Recovered {
    pub entries: Vec<(u64, Owned)>,
    /// Namespaces that were being made or deleted: their files, while nothing is mounted on them.
    pub placeholders: Vec<(u64, String)>,
    /// What cannot be reached from here, in words.
    pub unreachable: Vec<(u64, String)>,
    /// As it was written.
    lines: BTreeMap<u64, Value>,
}

impl Recovered {
    /// Writes the journal anew with only these of what was read: what could not be undone.
    ///
    /// # Errors
    /// ENOSPC and its like; then the journal is as it was.
    pub fn keep(&self, path: &Path, numbers: &HashSet<u64>) -> Result<()> {
        let new = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let text: String = numbers
                .iter()
                .filter_map(|number| self.lines.get(number))
                .map(|line| format!("{line}\n"))
                .collect();
            std::fs::write(&new, text)?;
            fault::point();
            std::fs::rename(&new, path)
        };
        write().map_err(|e| Error::io("journal", &e).subject(path.display().to_string()))
    }
}

impl Journal {
    /// Starts one; a journal that is there is gone on with.
    ///
    /// # Errors
    /// ENOSPC, EROFS, EACCES: before anything is created, since nothing can be undone later without it.
    pub fn open(path: &Path) -> Result<Journal> {
        let file =
            File::options().append(true).create(true).open(path).map_err(|e| refused(&e, path))?;
        Ok(Journal { path: path.to_owned(), file, lines: 0 })
    }

    /// Entry `number` is about to be this, or has become it.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn write(&mut self, number: u64, owned: &Owned) -> Result<()> {
        let own = serde_json::to_value(owned)
            .map_err(|e| Error::new("journal", "EINVAL", e.to_string()))?;
        self.line(&json!({ "n": number, "own": own }))
    }

    /// A namespace of that name is about to be made.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn write_placeholder(&mut self, number: u64, name: &str) -> Result<()> {
        self.line(&json!({ "n": number, "placeholder": name }))
    }

    /// The namespace of that name is about to get it; it has this cookie.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn write_netns(&mut self, number: u64, name: &str, cookie: u64) -> Result<()> {
        self.line(&json!({ "n": number, "placeholder": name, "own": { "Netns": [name, cookie] } }))
    }

    /// Entry `number` is gone.
    pub fn forget(&mut self, number: u64) {
        // When this cannot be written, cleaning finds nothing where the entry was.
        let _ = self.line(&json!({ "n": number }));
    }

    /// These are gone, in this order, at once: what is told as gone first is newer, for an older one is part of its undo.
    pub fn forget_all(&mut self, numbers: impl Iterator<Item = u64>) {
        let text: String = numbers.map(|number| format!("{}\n", json!({ "n": number }))).collect();
        fault::point();
        let _ = self.file.write_all(text.as_bytes());
        self.lines += text.lines().count();
        fault::point();
    }

    /// Writes anew what is there now, when most lines are about what is gone. Empty when nothing is.
    pub fn shorten(&mut self, entries: &BTreeMap<u64, Owned>) {
        if self.file.metadata().is_ok_and(|file| file.len() == 0) {
            return;
        }
        let there = || entries.iter().filter(|(_, owned)| owned.outlives_the_process());
        if there().next().is_some() && self.lines < 1000 + 4 * entries.len() {
            return;
        }
        let rewrite = || -> Result<Journal> {
            let path = self.path.with_extension("new");
            let _ = std::fs::remove_file(&path);
            let mut journal = Journal::open(&path)?;
            for (number, owned) in there() {
                journal.write(*number, owned)?;
            }
            fault::point();
            std::fs::rename(&path, &self.path).map_err(|e| refused(&e, &self.path))?;
            Ok(Journal { path: self.path.clone(), ..journal })
        };
        match rewrite() {
            Ok(shorter) => *self = shorter,
            Err(error) => tracing::debug!("the journal was not shortened: {error}"),
        }
    }

    fn line(&mut self, line: &Value) -> Result<()> {
        fault::point();
        // One write: what another process reads is whole lines.
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|e| refused(&e, &self.path))?;
        self.lines += 1;
        fault::point();
        Ok(())
    }
}

fn refused(error: &std::io::Error, path: &Path) -> Error {
    Error::io("journal", error)
        .subject(path.display().to_string())
        .hint("nothing is created that could not be undone after a crash; make room or writable what is named here")
}

/// The last line about each number.
fn last_lines(path: &Path) -> Result<BTreeMap<u64, Value>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(Error::io("journal", &e).subject(path.display().to_string())),
    };
    let mut last: BTreeMap<u64, Value> = BTreeMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let line =
            line.map_err(|e| Error::io("journal", &e).subject(path.display().to_string()))?;
        let Ok(line) = serde_json::from_slice::<Value>(&line) else { continue };
        let Some(number) = line.get("n").and_then(Value::as_u64) else { continue };
        last.insert(number, line);
    }
    Ok(last)
}

/// The namespaces and the links that a journal tells of, by their names; nothing is opened for it, whoever's journal it is.
///
/// # Errors
/// As [`read`].
pub fn names(path: &Path) -> Result<Names> {
    let mut names = Names::default();
    for line in last_lines(path)?.values() {
        let text = |place: &str| line.pointer(place).and_then(Value::as_str).map(str::to_owned);
        names.netns.extend(text("/placeholder").or_else(|| text("/own/Netns/0")));
        names.links.extend(text("/own/Link/netns/0").zip(text("/own/Link/name")));
    }
    Ok(names)
}

/// See [`names`].
#[derive(Debug, Default, Clone)]
pub struct Names {
    pub netns: HashSet<String>,
    /// Each with the name of its namespace, which is empty for the host's.
    pub links: HashSet<(String, String)>,
}

/// Reads what a dead process wrote. What is gone by itself is left out.
///
/// # Errors
/// EIO and its like; a journal that is not there is empty.
pub fn read(path: &Path) -> Result<Recovered> {
    let last = last_lines(path)?;
    let mut found = Recovered::default();
    for (number, line) in &last {
        let number = *number;
        if let Some(name) = line.get("placeholder").and_then(Value::as_str) {
            found.placeholders.push((number, name.to_owned()));
        }
        let Some(own) = line.get("own") else { continue };
        match serde_json::from_value::<Owned>(own.clone()) {
            Ok(owned) => found.entries.push((number, owned)),
            Err(_) => {
                found.unreachable.extend(out_of_reach(own).map(|words| (number, words)));
                // Its mount is gone, maybe not yet its file.
                let name = own.pointer("/Netns/0").and_then(Value::as_str);
                found.placeholders.extend(name.map(|name| (number, name.to_owned())));
            }
        }
    }
    found.lines = last;
    Ok(found)
}

/// An entry that cannot be opened is gone with its namespace, unless that is one of another host.
fn out_of_reach(own: &Value) -> Option<String> {
    fn netns(value: &Value) -> Option<(String, u64)> {
        match value {
            Value::Array(pair) if pair.len() == 2 => {
                Some((pair[0].as_str()?.to_owned(), pair[1].as_u64()?))
            }
            Value::Object(fields) => fields
                .get("netns")
                .and_then(netns)
                .or_else(|| fields.values().filter(|v| v.is_object()).find_map(netns)),
            _ => None,
        }
    }
    let (kind, fields) = own.as_object()?.iter().next()?;
    let (name, cookie) = netns(fields)?;
    let elsewhere = name.is_empty() && named::find(&name, cookie).is_err();
    elsewhere.then(|| format!("{kind} in the namespace it was started in"))
}
