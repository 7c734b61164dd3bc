//! Many elements at once: tables, iterators and packed strings, with a progress bar when it takes long.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mlua::{Function, Lua, MultiValue, Table, Value};

use super::{Map, element, encode_key, store, to_kernel};
use crate::api::error::{from_lua, raise};
use crate::api::module::Args;
use crate::api::option::expected;
use crate::api::{map_stage, stack, vm};
use crate::kernel::bpf::Write;
use crate::{Error, Result};

/// `for k, v in m:pairs()`: read in batches, decoded one by one.
pub fn pairs(lua: &Lua, this: &Map, args: &mut Args) -> Result<Function> {
    let mut progress = Progress::new(args.op(), this.0.name(), None);
    let (keys, values) = match map_stage::read(lua, &this.0) {
        Some(waiting) => waiting.packed_entries()?,
        None => this.0.packed_entries(&mut |done| progress.at(done))?,
    };
    let (key_size, stride) = (this.0.info().key_size as usize, this.0.stride());
    let (at, map) = (Cell::new(0), this.clone());
    lua.create_function(move |lua, _: MultiValue| {
        let index = at.get();
        let Some(key) = keys.get(index * key_size..(index + 1) * key_size) else {
            return Ok((Value::Nil, Value::Nil));
        };
        at.set(index + 1);
        let key = stack::value(lua, map.0.key_type(), key)?;
        let value = element(lua, &map, &values[index * stride..(index + 1) * stride]);
        Ok((key, value.map_err(raise)?))
    })
    .map_err(from_lua)
}

/// `set_many(table | iterator | {packed_keys, packed_values})`; how many were written.
pub fn set_many(lua: &Lua, this: &Map, args: &mut Args) -> Result<usize> {
    let mut writer = Writer::new(this);
    let from = args.any();
    if let Value::Table(table) = &from
        && let Some((keys, values)) = packed(this, table)?
    {
        if let Some(waiting) = map_stage::write(lua, &this.0)? {
            return waiting.update_many(&keys.as_bytes(), &values.as_bytes());
        }
        let mut progress = writer.progress(args.op(), keys.as_bytes().len());
        return this.0.update_watched(
            &keys.as_bytes(),
            &values.as_bytes(),
            Write::Any,
            &mut |done| progress.at(done),
        );
    }
    each(&from, args, "a table, an iterator or {packed_keys, packed_values}", |key, value| {
        writer.add(lua, &key, &value)
    })?;
    writer.finish(lua, args.op())
}

/// `delete_many(array of keys | iterator | packed keys)`; how many were there.
pub fn delete_many(lua: &Lua, this: &Map, args: &mut Args) -> Result<usize> {
    let mut writer = Writer::new(this);
    let from = args.any();
    let packed;
    let keys: &[u8] = match &from {
        Value::String(keys) => {
            packed = keys.as_bytes();
            &packed
        }
        Value::Table(array) => {
            let mut add = |key: Value| writer.add_key(&key).map_err(raise);
            array.for_each_value(|key: Value| add(key)).map_err(from_lua)?;
            &writer.keys
        }
        _ => {
            each(&from, args, "an array of keys, an iterator or packed keys", |key, _| {
                writer.add_key(&key)
            })?;
            &writer.keys
        }
    };
    if let Some(waiting) = map_stage::write(lua, &this.0)? {
        return waiting.remove_many(keys);
    }
    let mut progress = writer.progress(args.op(), keys.len());
    this.0.remove_watched(keys, &mut |done| progress.at(done))
}

/// Calls `add` with every pair of a table or an iterator.
fn each(
    from: &Value,
    args: &mut Args,
    wanted: &str,
    mut add: impl FnMut(Value, Value) -> Result<()>,
) -> Result<()> {
    match from {
        Value::Table(table) => {
            let add = |key, value| add(key, value).map_err(raise);
            table.for_each::<Value, Value>(add).map_err(from_lua)
        }
        Value::Function(iterate) => {
            let (state, mut control) = (args.any(), args.any());
            loop {
                let (key, value): (Value, Value) =
                    iterate.call((&state, &control)).map_err(from_lua)?;
                if key.is_nil() {
                    return Ok(());
                }
                control = key.clone();
                add(key, value)?;
            }
        }
        other => {
            let got = expected::describe(other);
            Err(Error::invalid("map", format!("takes {wanted}, got {got}")))
        }
    }
}

/// Elements on their way into a map: all are encoded before the first is written, where bytes say all.
struct Writer<'a> {
    map: &'a Map,
    /// Written one by one, because what they mean is not in their bytes.
    single: bool,
    /// One value each.
    plain: bool,
    key_size: usize,
    stride: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
    count: usize,
}

impl<'a> Writer<'a> {
    fn new(map: &'a Map) -> Writer<'a> {
        let kind = map.0.info().kind;
        Writer {
            map,
            single: kind.holds_descriptors() || kind.holds_sockets() || kind.is_redirect(),
            plain: !kind.is_per_cpu(),
            key_size: map.0.key_type().size(),
            stride: map.0.stride(),
            keys: Vec::new(),
            values: Vec::new(),
            count: 0,
        }
    }

    fn add(&mut self, lua: &Lua, key: &Value, value: &Value) -> Result<()> {
        self.add_key(key)?;
        if self.single {
            store(lua, self.map, &self.keys, value, Write::Any)?;
            self.count += 1;
            self.keys.clear();
            return Ok(());
        }
        let start = self.values.len();
        self.values.resize(start + self.stride, 0);
        if let Value::Integer(number) = value
            && self.plain
            && self.map.0.value_type().encode_number(*number, &mut self.values[start..])
        {
            return Ok(());
        }
        self.map.0.encode_value_into(&to_kernel(value)?, &mut self.values[start..])
    }

    fn add_key(&mut self, key: &Value) -> Result<()> {
        let start = self.keys.len();
        self.keys.resize(start + self.key_size, 0);
        encode_key(self.map, key, &mut self.keys[start..])
    }

    fn finish(self, lua: &Lua, op: &str) -> Result<usize> {
        if self.single {
            return Ok(self.count);
        }
        if let Some(waiting) = map_stage::write(lua, &self.map.0)? {
            return waiting.update_many(&self.keys, &self.values);
        }
        let mut progress = self.progress(op, self.keys.len());
        let watch = &mut |done| progress.at(done);
        self.map.0.update_watched(&self.keys, &self.values, Write::Any, watch)
    }

    /// Of writing that many bytes of keys.
    fn progress(&self, op: &str, keys: usize) -> Progress {
        Progress::new(op, self.map.0.name(), Some(keys / self.key_size.max(1)))
    }
}

/// Two strings of whole keys and as many whole values.
fn packed(map: &Map, table: &Table) -> Result<Option<(mlua::LuaString, mlua::LuaString)>> {
    let first: Value = table.raw_get(1).map_err(from_lua)?;
    let second: Value = table.raw_get(2).map_err(from_lua)?;
    let (Value::String(keys), Value::String(values)) = (first, second) else { return Ok(None) };
    if table.raw_len() != 2 {
        return Ok(None);
    }
    let (key_bytes, value_bytes) = (keys.as_bytes().len(), values.as_bytes().len());
    let (key_size, stride) = (map.0.info().key_size as usize, map.0.stride());
    let whole = key_size > 0
        && stride > 0
        && key_bytes % key_size == 0
        && value_bytes % stride == 0
        && key_bytes / key_size == value_bytes / stride;
    if !whole {
        return Err(Error::invalid(
            "map",
            format!(
                "packed keys are {key_bytes} bytes and values {value_bytes}: they must be as many keys of {key_size} as values of {stride}"
            ),
        )
        .subject(map.0.name()));
    }
    Ok(Some((keys, values)))
}

/// How far a long operation is: a bar on a terminal after the first second, and the place where it is interrupted.
struct Progress {
    title: String,
    total: Option<usize>,
    started: Instant,
    bar: Option<ProgressBar>,
}

/// Shorter operations show nothing.
const PATIENCE: Duration = Duration::from_secs(1);

impl Progress {
    fn new(op: &str, map: &str, total: Option<usize>) -> Progress {
        Progress { title: format!("{op} {map}"), total, started: Instant::now(), bar: None }
    }

    /// # Errors
    /// EINTR when the script is to stop.
    fn at(&mut self, done: usize) -> Result<()> {
        if vm::stopping() {
            let message = format!("interrupted after {done} entries");
            return Err(Error::new("map", "EINTR", message));
        }
        if self.started.elapsed() >= PATIENCE {
            self.bar.get_or_insert_with(|| bar(&self.title, self.total)).set_position(done as u64);
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Drawn on standard error, and only when that is a terminal.
fn bar(title: &str, total: Option<usize>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total as u64), "{msg} {wide_bar} {human_pos}/{human_len}"),
        None => (ProgressBar::no_length(), "{msg} {spinner} {human_pos}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(title.to_owned())
}
