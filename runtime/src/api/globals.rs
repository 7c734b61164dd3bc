//! `o.globals`: an object's global variables, read and written by name while its programs run.

use std::collections::BTreeMap;

use mlua::{Lua, MultiValue, Table, Value};

use super::error::{from_lua, raise, site};
use super::option::nearest;
use super::{map, map_stage, stack};
use crate::kernel::bpf::globals::Variable;
use crate::{Error, Result};

/// An empty table that reads and writes the variables: `o.globals.limit = 5`.
pub fn table(lua: &Lua, object: &str, variables: BTreeMap<String, Variable>) -> Result<Table> {
    build(lua, object.to_owned(), variables).map_err(from_lua)
}

fn build(lua: &Lua, object: String, variables: BTreeMap<String, Variable>) -> mlua::Result<Table> {
    let find = move |variables: &BTreeMap<String, Variable>, key: &Value| -> Result<Variable> {
        let name = key.to_string().map_err(from_lua)?;
        variables
            .get(&name)
            .cloned()
            .ok_or_else(|| unknown(&name, variables).subject(object.clone()))
    };
    let here = |lua: &Lua, e: Error| raise(e.at(site(lua, 1)));
    let meta = lua.create_table()?;
    let (all, of) = (variables.clone(), find.clone());
    let index = lua.create_function(move |lua, (_, key): (Value, Value)| {
        let value = of(&all, &key).and_then(|variable| read(lua, &variable));
        value.map_err(|e| here(lua, e))
    })?;
    let (all, of) = (variables.clone(), find);
    let newindex = lua.create_function(move |lua, (_, key, value): (Value, Value, Value)| {
        let written = of(&all, &key).and_then(|variable| {
            let bytes = variable.encode(&map::to_kernel(&value)?)?;
            map_stage::write_global(lua, variable, bytes)
        });
        written.map_err(|e| here(lua, e))
    })?;
    let pairs = lua.create_function(move |lua, _: MultiValue| {
        let mut left = variables.clone().into_iter();
        lua.create_function_mut(move |lua, _: MultiValue| {
            let Some((name, variable)) = left.next() else { return Ok((None, Value::Nil)) };
            let value = read(lua, &variable);
            Ok((Some(name), value.map_err(|e| here(lua, e))?))
        })
    })?;
    meta.raw_set("__index", index)?;
    meta.raw_set("__newindex", newindex)?;
    meta.raw_set("__pairs", pairs)?;
    meta.raw_set("__name", "globals")?;
    let table = lua.create_table()?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

fn read(lua: &Lua, variable: &Variable) -> Result<Value> {
    let bytes = match map_stage::read_global(lua, variable) {
        Some(waiting) => waiting,
        None => variable.read()?,
    };
    stack::value(lua, variable.kind(), &bytes).map_err(from_lua)
}

fn unknown(name: &str, variables: &BTreeMap<String, Variable>) -> Error {
    let known: Vec<&str> = variables.keys().map(String::as_str).collect();
    let error = Error::new("object", "ENOENT", format!("there is no global variable \"{name}\""));
    match nearest(name, &known) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None if known.is_empty() => {
            error.hint("it has none that are known by name: they need BTF (clang -g)")
        }
        None => error.hint(format!("it has {}", known.join(", "))),
    }
}
