//! `cnf.state`, the host's half: plain data is copied out of the VM of one generation and into the next one's.
//!
//! What scripts see of it, and what they may put there, is said in `lua-stdlib/state.lua`.

use mlua::{Lua, Table, Value};

use super::error::from_lua;
use super::host::Host;
use super::module::{Args, Module};
use crate::Result;

/// A value of `cnf.state` outside of any VM.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(Vec<u8>),
    Table(Vec<(Plain, Plain)>),
}

/// Where the VM keeps the table behind `cnf.state`.
const ROOT: &str = "cnf.state";

/// `root()` is the table behind `cnf.state`: what the generation before left, or empty.
pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "state")
        .function("root", |lua, host, _: Args| root(lua, host).map_err(from_lua))
        .build()
}

fn root(lua: &Lua, host: &Host) -> mlua::Result<Table> {
    if let Ok(root) = lua.named_registry_value::<Table>(ROOT) {
        return Ok(root);
    }
    let root = match host.inherited.take() {
        Some(Plain::Table(pairs)) => into_table(lua, &pairs)?,
        _ => lua.create_table()?,
    };
    lua.set_named_registry_value(ROOT, &root)?;
    Ok(root)
}

fn into_table(lua: &Lua, pairs: &[(Plain, Plain)]) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (key, value) in pairs {
        table.raw_set(into_value(lua, key)?, into_value(lua, value)?)?;
    }
    Ok(table)
}

/// In this VM.
pub(super) fn into_value(lua: &Lua, plain: &Plain) -> mlua::Result<Value> {
    Ok(match plain {
        Plain::Boolean(b) => Value::Boolean(*b),
        Plain::Integer(i) => Value::Integer(*i),
        Plain::Number(n) => Value::Number(*n),
        Plain::Text(text) => Value::String(lua.create_string(text)?),
        Plain::Table(pairs) => Value::Table(into_table(lua, pairs)?),
    })
}

/// The state as the next generation is to find it.
///
/// # Errors
/// None that a script could cause: only plain data was let in.
pub fn copy(lua: &Lua, host: &Host) -> Result<Option<Plain>> {
    // A script that never asked for it has what it inherited.
    match lua.named_registry_value::<Table>(ROOT) {
        Ok(root) => from_table(&root).map(Some).map_err(from_lua),
        Err(_) => {
            let inherited = host.inherited.take();
            host.inherited.set(inherited.clone());
            Ok(inherited)
        }
    }
}

/// What is plain data in a table.
pub(super) fn from_table(table: &Table) -> mlua::Result<Plain> {
    let mut pairs = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        if let (Some(key), Some(value)) = (from_value(&key)?, from_value(&value)?) {
            pairs.push((key, value));
        }
    }
    Ok(Plain::Table(pairs))
}

fn from_value(value: &Value) -> mlua::Result<Option<Plain>> {
    Ok(match value {
        Value::Boolean(b) => Some(Plain::Boolean(*b)),
        Value::Integer(i) => Some(Plain::Integer(*i)),
        Value::Number(n) => Some(Plain::Number(*n)),
        Value::String(text) => Some(Plain::Text(text.as_bytes().to_vec())),
        Value::Table(table) => Some(from_table(table)?),
        _ => None,
    })
}
