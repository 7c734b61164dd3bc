//! What the library's own Lua modules stand on, so that their arguments are checked, and their errors read, like those of
//! natives: `cnf._library`, whose Lua half (`lua-stdlib/library.lua`) makes classes of it.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, Lua, Table, Value};

use super::host::Host;
use super::library_options as options;
use super::module::{Args, Module};
use super::option::nearest;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "_library")
        .function("check", check)
        .function("unknown", unknown)
        .function("read", options::read)
        .function("prefixes", options::prefixes)
        .function("clock", options::clock)
        .build()
}

/// `check(op, position, name, kind, value)` -> the value, a duration in seconds.
///
/// # Errors
/// EINVAL about the argument `name` of `op` when the value is not of that kind.
fn check(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Value> {
    let op: String = args.required("op")?;
    let position: usize = args.required("position")?;
    let name: String = args.required("name")?;
    let kind: String = args.required("kind")?;
    let mut given = Args::one(&op, position, args.any());
    Ok(match kind.as_str() {
        "function" => Value::Function(given.required::<Function>(&name)?),
        "table" => Value::Table(given.required::<Table>(&name)?),
        "duration" => Value::Number(given.required::<Duration>(&name)?.as_secs_f64()),
        "count" => {
            let count: u32 = given.required(&name)?;
            Value::Integer(count.into())
        }
        other => return Err(Error::invalid(args.op().to_owned(), format!("no kind \"{other}\""))),
    })
}

/// `unknown(type, key, names)` raises what a handle says about a name it does not have.
fn unknown(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<()> {
    let class: String = args.required("type")?;
    let key = args.any().to_string().map_err(super::error::from_lua)?;
    let names: Vec<String> = args.required("names")?;
    Err(no_member(class, &key, &names.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// The error of a handle that has no such field or method.
pub fn no_member(
    class: impl Into<std::borrow::Cow<'static, str>>,
    key: &str,
    names: &[&str],
) -> Error {
    let error = Error::new(class, "EINVAL", format!("has no field or method \"{key}\""));
    match nearest(key, names) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None => error.hint(format!("it has {}", names.join(", "))),
    }
}
