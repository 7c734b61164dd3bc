//! The part of `_library` that reads options: as natives read theirs, what packets match as `struct selector`, prefixes as map
//! keys. And the clock that eBPF programs see, for deadlines.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use mlua::{IntoLua, Lua, Table, Value};
use nix::time::{ClockId, clock_gettime};

use super::error::from_lua;
use super::handle::Given;
use super::host::Host;
use super::link::Link;
use super::module::Args;
use super::option::{Options, Rate, Share, Size, expected};
use super::selector::selector;
use super::value::Data;
use crate::record;
use crate::{Error, Result};

/// `read(op, subject, options, kinds) -> values`: every option decoded as its kind says. `kinds` maps words to a kind's name,
/// with "!" behind it when the option must be there, or to an array of the words that it may be.
pub fn read(lua: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Table> {
    let op: String = args.required("op")?;
    let subject: Option<String> = args.optional("subject")?;
    let mut options = Options::new(&op, args.any())?;
    if let Some(subject) = subject {
        options.set_subject(subject);
    }
    let kinds: Table = args.required("kinds")?;
    let mut kinds: Vec<(String, Value)> =
        kinds.pairs().collect::<mlua::Result<_>>().map_err(from_lua)?;
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    let values = lua.create_table().map_err(from_lua)?;
    for (word, kind) in kinds {
        let word = interned(&word);
        let value = match kind {
            Value::Table(words) => choice(lua, &mut options, word, &words)?,
            kind => {
                let kind = kind.to_string().map_err(from_lua)?;
                option(lua, &mut options, word, &kind)?
            }
        };
        values.raw_set(word, value).map_err(from_lua)?;
    }
    options.finish()?;
    Ok(values)
}

/// Option words as `Options` keeps them. There are as many as the library's own modules have.
fn interned(word: &str) -> &'static str {
    static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut words = WORDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = words.get(word) {
        return known;
    }
    let kept: &'static str = Box::leak(word.to_owned().into_boxed_str());
    words.insert(kept);
    kept
}

fn choice(lua: &Lua, options: &mut Options, word: &'static str, words: &Table) -> Result<Value> {
    let words: Vec<String> =
        words.sequence_values().collect::<mlua::Result<_>>().map_err(from_lua)?;
    let choices: Vec<(&'static str, &'static str)> =
        words.iter().map(|choice| (interned(choice), interned(choice))).collect();
    options.choice(word, &choices)?.into_lua(lua).map_err(from_lua)
}

/// One option of a kind, as Lua has it: durations in seconds, shares from 0 to 1, rates in bits a second, sizes in bytes.
fn option(lua: &Lua, options: &mut Options, word: &'static str, kind: &str) -> Result<Value> {
    let (kind, required) = match kind.strip_suffix('!') {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    macro_rules! plain {
        ($type:ty, $convert:expr) => {{
            let value = match required {
                true => Some(options.required::<$type>(word)?),
                false => options.get::<$type>(word)?,
            };
            value.map($convert).into_lua(lua).map_err(from_lua)
        }};
    }
    match kind {
        "any" => options.raw(word),
        "boolean" => plain!(bool, |value| value),
        "string" => plain!(String, |value| value),
        "table" => plain!(Table, |value| value),
        "function" => plain!(mlua::Function, |value| value),
        "number" => plain!(f64, |value| value),
        "integer" => plain!(i64, |value| value),
        "port" => plain!(u16, |value| value),
        "count" => {
            let value = plain!(u32, |value| value)?;
            match value {
                Value::Integer(0) => Err(options.bad(format!("{word} must be 1 or more, got 0"))),
                value => Ok(value),
            }
        }
        "share" => plain!(Share, |share| share.0),
        "rate" => plain!(Rate, |rate| rate.0 as i64),
        "size" => plain!(Size, |size| size.0 as i64),
        "duration" => plain!(Duration, |duration| duration.as_secs_f64()),
        "address" => plain!(IpAddr, |address| address.to_string()),
        "link" => {
            let link = match required {
                true => Some(options.required::<Given<Link>>(word)?),
                false => options.get::<Given<Link>>(word)?,
            };
            link.map(|link| super::handle::intern(lua, link.0).map(Value::UserData))
                .transpose()
                .map(|link| link.unwrap_or(Value::Nil))
        }
        // These two of options of that name, and no other.
        "sample" => match options.raw("sample")? {
            Value::Nil => Ok(Value::Nil),
            _ => Ok(Value::Number(super::mirror::share(options)?)),
        },
        "match" => selector(options)?.into_lua(lua).map_err(from_lua),
        other => Err(options.bad(format!("there is no kind \"{other}\" of option"))),
    }
}

/// `prefixes(op, subject, what, cidr | array) -> {keys4=, keys6=, lengths4=, lengths6=, count4=, count6=}`: packed map keys of a
/// prefix length (host order) and an address (network order), and the distinct prefix lengths.
pub fn prefixes(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Data> {
    let (op, subject): (String, String) = (args.required("op")?, args.required("subject")?);
    let what: String = args.required("what")?;
    let mut options = Options::new(&op, Value::Nil)?;
    options.set_subject(subject);
    let list: Vec<Value> = match args.any() {
        Value::Nil => Vec::new(),
        Value::Table(list) => {
            list.sequence_values().collect::<mlua::Result<_>>().map_err(from_lua)?
        }
        one => vec![one],
    };
    let (mut keys4, mut keys6) = (Vec::new(), Vec::new());
    let (mut lengths4, mut lengths6) = (BTreeSet::new(), BTreeSet::new());
    for (i, value) in list.iter().enumerate() {
        let Value::String(text) = value else {
            let got = expected::describe(value);
            let place = i + 1;
            return Err(options.bad(format!("{what}[{place}] must be a network, got {got}")));
        };
        let prefix = options.parse_network(&what, &text.to_string_lossy())?;
        let length = u32::from(prefix.prefix());
        match prefix.ip() {
            IpAddr::V4(address) => {
                lengths4.insert(length);
                keys4.extend(length.to_ne_bytes());
                keys4.extend(address.octets());
            }
            IpAddr::V6(address) => {
                lengths6.insert(length);
                keys6.extend(length.to_ne_bytes());
                keys6.extend(address.octets());
            }
        }
    }
    let (count4, count6) = (keys4.len() / 8, keys6.len() / 20);
    let lengths = |set: BTreeSet<u32>| Data::from(set.into_iter().collect::<Vec<u32>>());
    Ok(record! {
        keys4: Data::Str(keys4), keys6: Data::Str(keys6), count4: count4, count6: count6,
        lengths4: lengths(lengths4), lengths6: lengths(lengths6),
    })
}

/// Now: nanoseconds of `bpf_ktime_get_ns()`, and seconds since 1970.
pub fn clock(_: &Lua, _: &Rc<Host>, _: Args) -> Result<(i64, f64)> {
    let at = |clock: ClockId| {
        let now = clock_gettime(clock).map_err(|e| Error::errno("_library.clock", e))?;
        Ok::<_, Error>(Duration::from(now))
    };
    let now = at(ClockId::CLOCK_MONOTONIC)?.as_nanos() as i64;
    Ok((now, at(ClockId::CLOCK_REALTIME)?.as_secs_f64()))
}
