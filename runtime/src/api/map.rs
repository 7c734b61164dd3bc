//! `Map` handles: elements as Lua values by BTF, in batches where many.

use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use mlua::{Function, Lua, MetaMethod, MultiValue, Table, Value};

use super::error::from_lua;
use super::handle::{Class, Handle, held};
use super::host::Host;
use super::link::Link;
use super::module::Args;
use super::option::expected;
use super::program::Program;
use super::value::Data;
use super::{records, stack};
use crate::kernel::bpf::map::MapInfo;
use crate::kernel::bpf::{self, MapKind, Type, Write};
use crate::record;
use crate::{Error, Result};

/// A map as scripts hold it.
#[derive(Clone)]
pub struct Map(bpf::Map);

impl Map {
    pub fn new(map: bpf::Map) -> Self {
        Map(map)
    }

    pub fn kernel(&self) -> &bpf::Map {
        &self.0
    }
}

impl Handle for Map {
    const TYPE: &'static str = "Map";
    const WORD: &'static str = "map";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.0.name().to_owned()))
            .field("id", |_, this| Ok(this.0.id()))
            .method("get", about(get))
            .method("set", about(set))
            .method("delete", about(delete))
            .method("pairs", about(pairs))
            .method("len", about(|_, this, _| this.0.len()))
            .method("clear", about(|_, this, _| this.0.clear()))
            .method("set_many", about(set_many))
            .method("delete_many", about(delete_many))
            .method("push", about(|_, this, args| this.0.push(&to_kernel(&args.any())?)))
            .method("pop", about(|lua, this, _| optional(lua, this, this.0.pop_bytes()?)))
            .method("peek", about(|lua, this, _| optional(lua, this, this.0.peek_bytes()?)))
            .method("on_record", |lua, _, this, mut args| records::on_record(lua, this, &mut args))
            .method("info", |_, _, this, _| {
                let types =
                    vec![("key_type", this.0.key_type()), ("value_type", this.0.value_type())];
                let info = MapInfo { name: this.0.name().to_owned(), ..this.0.info().clone() };
                Ok(info_data(&info, types))
            })
            .method(
                "pin",
                about(|_, this, args| {
                    let path: String = args.required("path")?;
                    this.0.pin(std::path::Path::new(&path))
                }),
            )
            .meta(MetaMethod::Len, |_, this| this.0.len());
    }

    fn identity(&self) -> String {
        self.0.id().to_string()
    }

    fn display(&self) -> String {
        let info = self.0.info();
        format!("Map({}, {} {})", self.0.name(), info.kind.name().unwrap_or("map"), self.0.id())
    }
}

/// A method whose errors name it as the script does, and the map.
fn about<R>(
    call: impl Fn(&Lua, &Map, &mut Args) -> Result<R>,
) -> impl Fn(&Lua, &Rc<Host>, &Map, Args) -> Result<R> {
    move |lua, _, this, mut args| {
        call(lua, this, &mut args).map_err(|e| match e.op() {
            // An error out of a script's own iterator stays as it is.
            op if op == "map" || op.starts_with("map.") => {
                e.operation(args.op().to_owned()).about(this.0.name())
            }
            _ => e,
        })
    }
}

pub fn info_data(info: &MapInfo, types: Vec<(&'static str, &Type)>) -> Data {
    let name = info.kind.name().map_or_else(|| info.kind.0.to_string(), str::to_owned);
    let mut record = record! {
        id: info.id, name: info.name.as_str(), r#type: name, key_size: info.key_size, value_size: info.value_size,
        max_entries: info.max_entries, flags: info.flags, btf_id: info.btf_id,
    };
    if let Data::Record(fields) = &mut record {
        fields.extend(types.into_iter().map(|(word, kind)| (word, kind.name().into())));
    }
    record
}

fn get(lua: &Lua, this: &Map, args: &mut Args) -> Result<Value> {
    let key = key(this, &args.any())?;
    optional(lua, this, this.0.lookup(&key)?)
}

fn optional(lua: &Lua, map: &Map, bytes: Option<Vec<u8>>) -> Result<Value> {
    bytes.map_or(Ok(Value::Nil), |bytes| element(lua, map, &bytes))
}

/// A value as Lua sees it: maps of maps and program arrays give handles.
fn element(lua: &Lua, map: &Map, bytes: &[u8]) -> Result<Value> {
    let kind = map.0.info().kind;
    if kind.holds_descriptors() && bytes.len() == 4 {
        let id = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let handle = match kind.is_of_maps() {
            true => super::handle::intern(lua, Map(bpf::Map::by_id(id)?))?,
            false => super::handle::intern(lua, Program::new(bpf::Program::by_id(id)?))?,
        };
        return Ok(Value::UserData(handle));
    }
    if !kind.is_per_cpu() {
        return stack::value(lua, map.0.value_type(), bytes).map_err(from_lua);
    }
    let value = stack::build(lua, |out| map.0.decode_value_to(bytes, out)).map_err(from_lua)?;
    if let Value::Table(cpus) = &value {
        let meta: Table = lua.named_registry_value("cnf.per_cpu").map_err(from_lua)?;
        cpus.set_metatable(Some(meta)).map_err(from_lua)?;
    }
    Ok(value)
}

fn set(_: &Lua, this: &Map, args: &mut Args) -> Result<()> {
    let key = key(this, &args.any())?;
    let value = args.any();
    let write = match args.optional::<String>("flag")?.as_deref() {
        None | Some("any") => Write::Any,
        Some("noexist") => Write::NoExist,
        Some("exist") => Write::Exist,
        Some(other) => {
            return Err(Error::invalid("map", format!("there is no flag \"{other}\""))
                .hint("it is \"any\", \"noexist\" or \"exist\""));
        }
    };
    store(this, &key, &value, write)
}

/// Writes one element: a descriptor, an interface index in its own namespace, or plain bytes.
fn store(map: &Map, key: &[u8], value: &Value, write: Write) -> Result<()> {
    let kind = map.0.info().kind;
    if kind.holds_descriptors() {
        let (wanted, program, inner) = match kind.is_of_maps() {
            true => ("a Map", None, held::<Map>(value)),
            false => ("a Program", held::<Program>(value), None),
        };
        let fd = match (&program, &inner) {
            (Some(program), _) => program.kernel().as_fd(),
            (_, Some(inner)) => inner.0.as_fd(),
            _ => {
                let got = expected::describe(value);
                let message = format!("value: {kind} maps take {wanted}, not {got}");
                return Err(Error::invalid("map", message));
            }
        };
        return map.0.update(key, &fd.as_raw_fd().to_ne_bytes(), write);
    }
    let bytes = map.0.encode_value(&to_kernel(value)?)?;
    match held::<Link>(value) {
        // The index is looked up in the namespace of whoever writes it (`__dev_map_alloc_node`).
        Some(link) if kind == MapKind::DEVMAP || kind == MapKind::DEVMAP_HASH => {
            let target = super::hook::target(&link, "map")?;
            target.netns.within(|| map.0.update(key, &bytes, write))
        }
        _ => map.0.update(key, &bytes, write),
    }
}

/// Whether elements are written one by one, because what they mean is not in their bytes.
fn one_by_one(map: &Map) -> bool {
    let kind = map.0.info().kind;
    kind.holds_descriptors() || kind == MapKind::DEVMAP || kind == MapKind::DEVMAP_HASH
}

fn delete(_: &Lua, this: &Map, args: &mut Args) -> Result<bool> {
    let key = key(this, &args.any())?;
    this.0.remove(&key)
}

fn key(map: &Map, value: &Value) -> Result<Vec<u8>> {
    if value.is_nil() {
        return Err(Error::invalid("map", "a key is missing").subject(map.0.name()));
    }
    map.0.encode_key(&to_kernel(value)?)
}

/// `for k, v in m:pairs()`: read in batches, decoded one by one.
fn pairs(lua: &Lua, this: &Map, _: &mut Args) -> Result<Function> {
    let entries: Vec<(Vec<u8>, Vec<u8>)> = this.0.entries().collect::<Result<_>>()?;
    let entries = std::cell::RefCell::new(entries.into_iter());
    let map = this.clone();
    lua.create_function(move |lua, _: MultiValue| {
        let Some((key, value)) = entries.borrow_mut().next() else {
            return Ok((Value::Nil, Value::Nil));
        };
        let key = stack::value(lua, map.0.key_type(), &key)?;
        Ok((key, element(lua, &map, &value).map_err(super::error::raise)?))
    })
    .map_err(from_lua)
}

/// `set_many(table | iterator | {packed_keys, packed_values})`; how many were written.
fn set_many(_: &Lua, this: &Map, args: &mut Args) -> Result<usize> {
    let mut writer =
        Writer { map: this, single: one_by_one(this), keys: vec![], values: vec![], count: 0 };
    match args.any() {
        Value::Table(table) => {
            if let Some((keys, values)) = packed(this, &table)? {
                return this.0.update_many(&keys, &values, Write::Any);
            }
            for pair in table.pairs::<Value, Value>() {
                let (key, value) = pair.map_err(from_lua)?;
                writer.add(&key, &value)?;
            }
        }
        Value::Function(iterate) => {
            let (state, mut control) = (args.any(), args.any());
            loop {
                let (key, value): (Value, Value) =
                    iterate.call((&state, &control)).map_err(from_lua)?;
                if key.is_nil() {
                    break;
                }
                writer.add(&key, &value)?;
                control = key;
            }
        }
        other => {
            let got = expected::describe(&other);
            return Err(Error::invalid(
                "map",
                format!("takes a table, an iterator or {{packed_keys, packed_values}}, got {got}"),
            ));
        }
    }
    writer.finish()
}

/// Elements on their way into a map: all are encoded before the first is written, where bytes say all.
struct Writer<'a> {
    map: &'a Map,
    single: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
    count: usize,
}

impl Writer<'_> {
    fn add(&mut self, key_value: &Value, value: &Value) -> Result<()> {
        let key = key(self.map, key_value)?;
        if self.single {
            store(self.map, &key, value, Write::Any)?;
            self.count += 1;
            return Ok(());
        }
        self.keys.extend(key);
        self.values.extend(self.map.0.encode_value(&to_kernel(value)?)?);
        Ok(())
    }

    fn finish(self) -> Result<usize> {
        match self.single {
            true => Ok(self.count),
            false => self.map.0.update_many(&self.keys, &self.values, Write::Any),
        }
    }
}

/// Two strings of whole keys and as many whole values.
fn packed(map: &Map, table: &Table) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let first: Value = table.raw_get(1).map_err(from_lua)?;
    let second: Value = table.raw_get(2).map_err(from_lua)?;
    let (Value::String(keys), Value::String(values)) = (&first, &second) else { return Ok(None) };
    if table.raw_len() != 2 {
        return Ok(None);
    }
    let (keys, values) = (keys.as_bytes().to_vec(), values.as_bytes().to_vec());
    let (key_size, stride) = (map.0.info().key_size as usize, map.0.stride());
    let whole = keys.len() % key_size == 0
        && values.len() % stride == 0
        && keys.len() / key_size == values.len() / stride;
    if !whole {
        return Err(Error::invalid(
            "map",
            format!(
                "packed keys are {} bytes and values {}: they must be as many keys of {key_size} as values of {stride}",
                keys.len(),
                values.len()
            ),
        )
        .subject(map.0.name()));
    }
    Ok(Some((keys, values)))
}

/// `delete_many(array of keys | iterator | packed keys)`; how many were there.
fn delete_many(_: &Lua, this: &Map, args: &mut Args) -> Result<usize> {
    let mut keys = Vec::new();
    match args.any() {
        Value::String(packed) => keys = packed.as_bytes().to_vec(),
        Value::Table(table) => {
            for value in table.sequence_values::<Value>() {
                keys.extend(key(this, &value.map_err(from_lua)?)?);
            }
        }
        Value::Function(iterate) => {
            let (state, mut control) = (args.any(), args.any());
            loop {
                let next: Value = iterate.call((&state, &control)).map_err(from_lua)?;
                if next.is_nil() {
                    break;
                }
                keys.extend(key(this, &next)?);
                control = next;
            }
        }
        other => {
            let got = expected::describe(&other);
            return Err(Error::invalid(
                "map",
                format!("takes an array of keys, an iterator or packed keys, got {got}"),
            ));
        }
    }
    this.0.remove_many(&keys)
}

/// A Lua value as the kernel layer's codec takes it.
pub fn to_kernel(value: &Value) -> Result<bpf::Value> {
    Ok(match value {
        Value::Nil => bpf::Value::Nil,
        Value::Boolean(b) => bpf::Value::Bool(*b),
        Value::Integer(i) => bpf::Value::Int(*i),
        Value::Number(n) => bpf::Value::Float(*n),
        Value::String(text) => match text.to_str() {
            Ok(text) => bpf::Value::Str(text.to_owned()),
            Err(_) => bpf::Value::Bytes(text.as_bytes().to_vec()),
        },
        Value::Table(table) => table_to_kernel(table)?,
        other => match held::<Link>(other) {
            // devmaps are written with interface indexes.
            Some(link) => bpf::Value::Uint(link.index().into()),
            None => {
                let got = expected::describe(other);
                return Err(Error::invalid("map", format!("{got} cannot be stored in a map")));
            }
        },
    })
}

fn table_to_kernel(table: &Table) -> Result<bpf::Value> {
    let length = table.raw_len();
    if length > 0 {
        if table.pairs::<Value, Value>().count() != length {
            return Err(Error::invalid("map", "a table is both an array and a table of fields"));
        }
        let items = table.sequence_values::<Value>().map(|v| to_kernel(&v.map_err(from_lua)?));
        return Ok(bpf::Value::Array(items.collect::<Result<_>>()?));
    }
    let fields = table.pairs::<Value, Value>().map(|pair| {
        let (key, value) = pair.map_err(from_lua)?;
        Ok((key.to_string().map_err(from_lua)?, to_kernel(&value)?))
    });
    Ok(bpf::Value::Struct(fields.collect::<Result<_>>()?))
}

/// Makes the metatable of per-CPU values: `value:sum()` adds them up, structs field by field.
pub fn prepare(lua: &Lua) -> mlua::Result<()> {
    let meta: Table = lua
        .load(
            r#"
            local function sum(values)
              if type(values[1]) ~= "table" then
                local total = 0
                for _, value in ipairs(values) do total = total + value end
                return total
              end
              local total = {}
              for name, value in pairs(values[1]) do
                if type(value) == "number" or type(value) == "table" then
                  local column = {}
                  for i, each in ipairs(values) do column[i] = each[name] end
                  total[name] = sum(column)
                else
                  total[name] = value
                end
              end
              return total
            end
            return { __index = { sum = sum } }
            "#,
        )
        .set_name("=[cnf]")
        .eval()?;
    lua.set_named_registry_value("cnf.per_cpu", meta)
}
