//! Option tables and arguments: words, types and units as the Lua contract states them.
//!
//! `Options` remembers every word it was asked for, so that an unknown one is told the nearest that exists.

mod units;

use compact_str::CompactString;
use indexmap::IndexSet;
use mlua::{Function, Table, Value};
use smallvec::SmallVec;

pub use units::{Rate, Share, Size, parse_duration, parse_size};

pub use super::address::{Mac, parse_cidr};
use crate::{Error, Result};

/// A type that an option or an argument can have.
pub trait FromOption: Sized {
    /// "a string", "an IP address": completes "must be ...".
    fn expects() -> String;
    /// `Err(None)`: not of this type; `Err(Some(problem))`: of this type, and wrong: completes "mtu ...".
    fn from_option(value: Value) -> std::result::Result<Self, Option<String>>;
    /// One thing to try instead of this value, which is not of this type.
    fn instead(_value: &Value) -> Option<String> {
        None
    }
}

/// A table of options on its way into a native. A large set is made of thousands: words are short and few, and lie in it.
pub struct Options {
    op: CompactString,
    subject: Option<String>,
    table: Option<Table>,
    /// What the table holds, once somebody has asked: read in one go, for looking each word up costs far more.
    held: Option<Held>,
    /// What was asked for, some of it more than once.
    words: SmallVec<[&'static str; 16]>,
}

#[derive(Default)]
struct Held {
    named: SmallVec<[(CompactString, Value); 8]>,
    /// The first key that is not a name.
    other: Option<String>,
}

impl Held {
    /// More than any function has options: of so many one is unknown.
    const MOST: usize = 64;

    fn read(table: &Table) -> Held {
        let mut held = Held::default();
        // It ends early by an error of its own.
        let _ = table.for_each::<Value, Value>(|key, value| {
            match &key {
                Value::String(key) => {
                    held.named.push((CompactString::from_utf8_lossy(&key.as_bytes()), value));
                }
                other if held.other.is_none() => {
                    held.other = Some(other.to_string().unwrap_or_default());
                }
                _ => {}
            }
            match held.named.len() == Held::MOST {
                true => Err(mlua::Error::StackError),
                false => Ok(()),
            }
        });
        held
    }
}

impl Options {
    /// From an argument: a table, or nil for none given.
    pub fn new(op: &str, value: Value) -> Result<Options> {
        let table = match value {
            Value::Nil => None,
            Value::Table(table) => Some(table),
            other => {
                return Err(Error::invalid(
                    op.to_owned(),
                    format!("takes a table of options, got {}", expected::describe(&other)),
                )
                .hint(format!("options are named, in braces: {op}{{word = value, ...}}")));
            }
        };
        Ok(Options { op: op.into(), subject: None, table, held: None, words: SmallVec::new() })
    }

    pub fn op(&self) -> &str {
        &self.op
    }

    /// What errors are about from now on: usually the `name` option.
    pub fn set_subject(&mut self, subject: impl Into<String>) {
        self.subject = Some(subject.into());
    }

    /// What errors are about.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The table itself, for its array part.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// An option that may be absent.
    pub fn get<T: FromOption>(&mut self, word: &'static str) -> Result<Option<T>> {
        match self.raw(word)? {
            Value::Nil => Ok(None),
            value => match T::from_option(value) {
                Ok(value) => Ok(Some(value)),
                Err(problem) => {
                    let value = self.raw(word)?;
                    let error = self.bad(match problem {
                        Some(problem) => format!("{word} {problem}"),
                        None => {
                            let got = expected::describe(&value);
                            format!("{word} must be {}, got {got}", T::expects())
                        }
                    });
                    Err(match T::instead(&value) {
                        Some(hint) => error.hint(hint),
                        None => error,
                    })
                }
            },
        }
    }

    /// An option that must be there.
    pub fn required<T: FromOption>(&mut self, word: &'static str) -> Result<T> {
        match self.get(word)? {
            Some(value) => Ok(value),
            None => Err(match self.misspelt(word) {
                Some(key) => self
                    .bad(format!("unknown option \"{key}\""))
                    .hint(format!("did you mean \"{word}\"?")),
                None => self.bad(format!("{word} is missing: it must be {}", T::expects())),
            }),
        }
    }

    /// A key that nobody has asked for and that is nearly `word`.
    fn misspelt(&mut self, word: &'static str) -> Option<String> {
        self.held();
        let keys = self.held.iter().flat_map(|held| &held.named).map(|(key, _)| key.as_str());
        let near = |key: &&str| strsim::damerau_levenshtein(key, word) == 1;
        keys.filter(|key| !self.words.contains(key)).find(near).map(str::to_owned)
    }

    fn held(&mut self) -> &Held {
        let table = self.table.as_ref();
        self.held.get_or_insert_with(|| table.map(Held::read).unwrap_or_default())
    }

    /// A flag; absent is false.
    pub fn flag(&mut self, word: &'static str) -> Result<bool> {
        Ok(self.get(word)?.unwrap_or(false))
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        word: &'static str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>> {
        let Some(text) = self.get::<String>(word)? else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                let error = self.bad(format!("{word} must be {}, got \"{text}\"", one_of(&names)));
                Err(match nearest(&text, &names) {
                    Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                    None => error,
                })
            }
        }
    }

    /// A nested table of options, as `peer = {...}`; its errors are about "peer".
    pub fn nested(&mut self, word: &'static str) -> Result<Option<Options>> {
        Ok(self.get::<Table>(word)?.map(|table| Options {
            op: self.op.clone(),
            subject: Some(match &self.subject {
                Some(subject) => format!("{subject}, {word}"),
                None => word.to_owned(),
            }),
            table: Some(table),
            held: None,
            words: SmallVec::new(),
        }))
    }

    /// An option as it is.
    pub fn raw(&mut self, word: &'static str) -> Result<Value> {
        self.words.push(word);
        let found = self.held().named.iter().find(|(key, _)| key == word);
        Ok(found.map_or(Value::Nil, |(_, value)| value.clone()))
    }

    /// Call when every known word was asked for, and before anything is done: refuses the words nobody asked for.
    pub fn finish(mut self) -> Result<()> {
        self.held();
        let held = self.held.take().unwrap_or_default();
        if let Some(other) = held.other {
            return Err(self.bad(format!("takes named options only, got one at [{other}]")));
        }
        for (key, _) in held.named {
            if self.words.iter().any(|word| *word == key) {
                continue;
            }
            let error = self.bad(format!("unknown option \"{key}\""));
            return Err(match nearest(&key, &self.words) {
                Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                None if self.words.is_empty() => error.hint("it takes no options"),
                None => {
                    let words: IndexSet<&str> = self.words.iter().copied().collect();
                    let words: Vec<&str> = words.into_iter().collect();
                    error.hint(format!("it takes {}", words.join(", ")))
                }
            });
        }
        Ok(())
    }

    /// An error about these options.
    pub fn bad(&self, message: impl Into<String>) -> Error {
        let error = Error::invalid(self.op.to_string(), message);
        match &self.subject {
            Some(subject) => error.subject(subject.clone()),
            None => error,
        }
    }
}

/// The valid word nearest to a wrong one, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, valid: &[&'a str]) -> Option<&'a str> {
    crate::nearest::nearest(word, valid).and_then(|near| valid.iter().copied().find(|v| *v == near))
}

fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.as_slice() {
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
        [] => "nothing".into(),
    }
}

/// How values are named in errors.
pub mod expected {
    use mlua::Value;

    /// `"abc"`, `12`, `a table`: short enough for an error line.
    pub fn describe(value: &Value) -> String {
        match value {
            Value::Nil => "nothing".into(),
            Value::Boolean(b) => b.to_string(),
            Value::Integer(i) => i.to_string(),
            Value::Number(n) => n.to_string(),
            Value::String(s) => {
                let text = s.to_string_lossy();
                let short: String = text.chars().take(40).collect();
                if short.len() < text.len() {
                    format!("\"{short}...\"")
                } else {
                    format!("{short:?}")
                }
            }
            Value::Table(_) => "a table".into(),
            Value::Function(_) => "a function".into(),
            Value::UserData(_) => value.to_string().unwrap_or_else(|_| "a handle".into()),
            other => other.type_name().into(),
        }
    }
}

pub(super) type Converted<T> = std::result::Result<T, Option<String>>;

impl FromOption for Value {
    fn expects() -> String {
        "a value".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        Ok(value)
    }
}

impl FromOption for String {
    fn expects() -> String {
        "a string".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        match value {
            Value::String(s) => {
                s.to_str().map(|s| s.to_owned()).map_err(|_| Some("must be UTF-8 text".into()))
            }
            _ => Err(None),
        }
    }
}

/// A Lua string as bytes: packets, packed keys.
impl FromOption for Vec<u8> {
    fn expects() -> String {
        "a string of bytes".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        match value {
            Value::String(s) => Ok(s.as_bytes().to_vec()),
            _ => Err(None),
        }
    }
}

impl FromOption for bool {
    fn expects() -> String {
        "true or false".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        value.as_boolean().ok_or(None)
    }
}

impl FromOption for f64 {
    fn expects() -> String {
        "a number".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        match value {
            Value::Integer(i) => Ok(i as f64),
            Value::Number(n) => Ok(n),
            _ => Err(None),
        }
    }
}

impl FromOption for Table {
    fn expects() -> String {
        "a table".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        match value {
            Value::Table(table) => Ok(table),
            _ => Err(None),
        }
    }
}

impl FromOption for Function {
    fn expects() -> String {
        "a function".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        match value {
            Value::Function(function) => Ok(function),
            _ => Err(None),
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl FromOption for $type {
            fn expects() -> String {
                format!("an integer from {} to {}", <$type>::MIN, <$type>::MAX)
            }
            fn from_option(value: Value) -> Converted<Self> {
                let number = match value {
                    Value::Integer(i) => i,
                    Value::Number(n) if n.fract() == 0.0 && n.abs() < 9.0e15 => n as i64,
                    _ => return Err(None),
                };
                <$type>::try_from(number).map_err(|_| None)
            }
        }
    )*};
}
integers!(u8, u16, u32, i32, i64, u64, usize);

/// One value, or an array of them.
#[derive(Debug, Clone)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany(Vec::new())
    }
}

impl<T: FromOption> FromOption for OneOrMany<T> {
    fn expects() -> String {
        format!("{}, or an array of them", T::expects())
    }
    fn from_option(value: Value) -> Converted<Self> {
        match value {
            Value::Table(table) => list(&table).map(OneOrMany),
            one => T::from_option(one).map(|one| OneOrMany(vec![one])),
        }
    }
    fn instead(value: &Value) -> Option<String> {
        match value {
            Value::Table(table) => table.sequence_values::<Value>().flatten().find_map(|one| {
                T::from_option(one.clone()).is_err().then(|| T::instead(&one)).flatten()
            }),
            one => T::instead(one),
        }
    }
}

/// An array.
impl<T: FromOption> FromOption for Vec<T>
where
    T: ListItem,
{
    fn expects() -> String {
        format!("an array, each {}", T::expects())
    }
    fn from_option(value: Value) -> Converted<Self> {
        match value {
            Value::Table(table) => list(&table),
            _ => Err(None),
        }
    }
}

/// Types whose arrays are options. Bytes are not: a `Vec<u8>` is a string.
pub trait ListItem {}
impl ListItem for String {}
impl ListItem for Table {}
impl ListItem for Value {}

fn list<T: FromOption>(table: &Table) -> Converted<Vec<T>> {
    let length = table.raw_len();
    let count = table.pairs::<Value, Value>().count();
    if count != length {
        return Err(Some("must be an array without holes or names".into()));
    }
    (1..=length)
        .map(|i| {
            let value: Value = table.raw_get(i).map_err(|e| Some(e.to_string()))?;
            let got = expected::describe(&value);
            T::from_option(value).map_err(|problem| {
                Some(match problem {
                    None => format!("[{i}] must be {}, got {got}", T::expects()),
                    Some(problem) => format!("[{i}] {problem}"),
                })
            })
        })
        .collect()
}
