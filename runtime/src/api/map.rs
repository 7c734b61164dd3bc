//! `Map` handles: elements as Lua values by BTF, in batches where many.

mod bulk;
mod convert;
mod quick;

use std::rc::Rc;

use mlua::{AnyUserData, Lua, MetaMethod, Table, Value};

pub use convert::to_kernel;

use super::error::from_lua;
use super::handle::{Class, Handle, held};
use super::host::Host;
use super::link::Link;
use super::map_stage::{self, Deposit};
use super::module::Args;
use super::option::expected;
use super::program::Program;
use super::serve::Server;
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
            .quick_method("get", quick(|lua, this, key: Value| get(lua, this, &key)))
            .quick_method(
                "set",
                quick(|lua, this, (key, value, flag): (Value, Value, Value)| {
                    set(lua, this, &key, &value, &flag)
                }),
            )
            .quick_method(
                "delete",
                quick(|lua, this, key: Value| {
                    with_key(this, &key, |key| match map_stage::write(lua, &this.0)? {
                        Some(waiting) => waiting.remove(key),
                        None => this.0.remove(key),
                    })
                }),
            )
            .method("pairs", about(bulk::pairs))
            .method("len", about(|lua, this, _| len(lua, this)))
            .method("clear", about(clear))
            .method("set_many", about(bulk::set_many))
            .method("delete_many", about(bulk::delete_many))
            .method("push", about(push))
            .method("pop", about(pop))
            .method("peek", about(peek))
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
            .meta(MetaMethod::Len, |lua, this| {
                len(lua, this).map_err(|e| this.named(e, "map:len"))
            });
    }

    fn prepare(&self, lua: &Lua, userdata: &AnyUserData) -> Result<()> {
        quick::prepare(lua, userdata, self)
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
    move |lua, _, this, mut args| call(lua, this, &mut args).map_err(|e| this.named(e, args.op()))
}

/// As [`about`], of a method whose arguments mlua converts.
fn quick<A, R>(
    call: impl Fn(&Lua, &Map, A) -> Result<R>,
) -> impl Fn(&Lua, &str, &Map, A) -> Result<R> {
    move |lua, op, this, args| call(lua, this, args).map_err(|e| this.named(e, op))
}

impl Map {
    fn named(&self, error: Error, op: &str) -> Error {
        match error.op() {
            // An error out of a script's own iterator stays as it is.
            inner if inner == "map" || inner.starts_with("map.") => {
                error.operation(op.to_owned()).about(self.0.name())
            }
            _ => error,
        }
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

fn get(lua: &Lua, this: &Map, key: &Value) -> Result<Value> {
    with_key(this, key, |key| {
        if let Some(waiting) = map_stage::read(lua, &this.0) {
            return optional(lua, this, waiting.lookup(key)?);
        }
        on_stack(this.0.stride(), |value| match this.0.lookup_into(key, value)? {
            true => element(lua, this, value),
            false => Ok(Value::Nil),
        })
    })
}

/// Elements are small, as a rule: then they need no memory of the heap.
fn on_stack<R>(size: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    match size {
        0..=16 => work(&mut [0u8; 16][..size]),
        17..=128 => work(&mut [0u8; 128][..size]),
        _ => work(&mut vec![0u8; size]),
    }
}

fn with_key<R>(map: &Map, key: &Value, work: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
    on_stack(map.0.key_type().size(), |bytes| {
        encode_key(map, key, bytes)?;
        work(bytes)
    })
}

/// The bytes of a key into a place of its size.
fn encode_key(map: &Map, key: &Value, out: &mut [u8]) -> Result<()> {
    if let Value::Integer(number) = key
        && map.0.key_type().encode_number(*number, out)
    {
        return Ok(());
    }
    if out.is_empty() {
        return Err(no_keys(map.0.info().kind));
    }
    if key.is_nil() {
        return Err(Error::invalid("map", "a key is missing").subject(map.0.name()));
    }
    if map.0.info().kind == MapKind::SK_STORAGE
        && let Some(server) = held::<Server>(key)
    {
        let descriptor = server.socket()?.descriptor();
        return map.0.encode_key_into(&bpf::Value::Int(descriptor.into()), out);
    }
    map.0.encode_key_into(&to_kernel(key)?, out)
}

fn no_keys(kind: MapKind) -> Error {
    Error::invalid("map", format!("{kind} maps have no keys")).hint(match kind {
        _ if kind.has_records() => "m:on_record(fn) is called with what programs send",
        MapKind::BLOOM_FILTER => {
            "m:push(value) adds a value, m:peek(value) tells whether it may be there"
        }
        _ => "m:push(value) adds a value, m:pop() and m:peek() give one",
    })
}

fn len(lua: &Lua, this: &Map) -> Result<usize> {
    match map_stage::read(lua, &this.0) {
        Some(waiting) => waiting.len(),
        None => this.0.len(),
    }
}

fn clear(lua: &Lua, this: &Map, _: &mut Args) -> Result<()> {
    match map_stage::write(lua, &this.0)? {
        Some(waiting) => {
            waiting.clear();
            Ok(())
        }
        None => this.0.clear(),
    }
}

fn push(lua: &Lua, this: &Map, args: &mut Args) -> Result<()> {
    let value = this.0.encode_value(&to_kernel(&args.any())?)?;
    match map_stage::write(lua, &this.0)? {
        Some(waiting) => waiting.push(value),
        None => this.0.push_bytes(&value),
    }
}

fn pop(lua: &Lua, this: &Map, _: &mut Args) -> Result<Value> {
    let value = match map_stage::write(lua, &this.0)? {
        Some(waiting) => waiting.pop()?,
        None => this.0.pop_bytes()?,
    };
    optional(lua, this, value)
}

/// Of a queue or stack the next value; of a bloom filter whether it may hold the one given.
fn peek(lua: &Lua, map: &Map, args: &mut Args) -> Result<Value> {
    if map.0.info().kind != MapKind::BLOOM_FILTER {
        return match map_stage::read(lua, &map.0) {
            Some(waiting) => optional(lua, map, waiting.peek()?),
            None => optional(lua, map, map.0.peek_bytes()?),
        };
    }
    match args.any() {
        Value::Nil => {
            Err(Error::invalid("map", "a bloom filter is asked for a value: m:peek(value)"))
        }
        value => map.0.may_hold(&map.0.encode_value(&to_kernel(&value)?)?).map(Value::Boolean),
    }
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

fn set(lua: &Lua, this: &Map, key: &Value, value: &Value, flag: &Value) -> Result<()> {
    let write = match flag {
        Value::Nil => Write::Any,
        Value::String(word) => match &*word.to_string_lossy() {
            "any" => Write::Any,
            "noexist" => Write::NoExist,
            "exist" => Write::Exist,
            other => return Err(no_flag(&format!("\"{other}\""))),
        },
        other => return Err(no_flag(&expected::describe(other))),
    };
    with_key(this, key, |key| store(lua, this, key, value, write))
}

fn no_flag(given: &str) -> Error {
    Error::invalid("map", format!("there is no flag {given}"))
        .hint("it is \"any\", \"noexist\" or \"exist\"")
}

/// Writes one element, now or at the commit.
fn store(lua: &Lua, map: &Map, key: &[u8], value: &Value, write: Write) -> Result<()> {
    if let Some(waiting) = map_stage::write(lua, &map.0)? {
        return waiting.update(key, deposit(map, value)?, write);
    }
    let kind = map.0.info().kind;
    if kind.holds_descriptors() || kind.holds_sockets() || kind.is_redirect() {
        return deposit(map, value)?.put(&map.0, key, write);
    }
    on_stack(map.0.stride(), |bytes| {
        map.0.encode_value_into(&to_kernel(value)?, bytes)?;
        map.0.update(key, bytes, write)
    })
}

/// A value as it goes into the map: a descriptor, an interface index in its own namespace, or plain bytes.
fn deposit(map: &Map, value: &Value) -> Result<Deposit> {
    let kind = map.0.info().kind;
    if kind.holds_descriptors() {
        let (wanted, given) = match kind.is_of_maps() {
            true => ("a Map", held::<Map>(value).map(|inner| Deposit::Map(inner.0))),
            false => {
                ("a Program", held::<Program>(value).map(|p| Deposit::Program(p.kernel().clone())))
            }
        };
        return given.ok_or_else(|| {
            let got = expected::describe(value);
            Error::invalid("map", format!("value: {kind} maps take {wanted}, not {got}"))
        });
    }
    if let Some(server) = held::<Server>(value).filter(|_| kind.holds_sockets()) {
        return server.socket().map(Deposit::Socket);
    }
    let mut bytes = vec![0; map.0.stride()];
    match to_kernel(value)? {
        // With or without a program behind it, the device's index or the queue's size comes first.
        number @ (bpf::Value::Int(_) | bpf::Value::Uint(_)) if kind.is_redirect() => {
            Type::untyped(4).encode_into(&number, &mut bytes[..4])?;
        }
        other => map.0.encode_value_into(&other, &mut bytes)?,
    }
    match link_of(value).filter(|_| kind.is_redirect()) {
        Some(link) => Ok(Deposit::Within(super::hook::target(&link, "map")?.netns, bytes)),
        None => Ok(Deposit::Bytes(bytes)),
    }
}

/// The link of a devmap's value: itself, or as the index in a `struct bpf_devmap_val`.
fn link_of(value: &Value) -> Option<Link> {
    match value {
        Value::Table(table) => held::<Link>(&table.raw_get("ifindex").ok()?),
        other => held::<Link>(other),
    }
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
