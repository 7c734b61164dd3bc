//! What the library's own Lua modules stand on, so that their arguments are checked, and their errors read, like those of
//! natives: `cnf._library`, whose Lua half (`lua-stdlib/library.lua`) makes classes of it.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, Lua, Table, Value};

use super::error::{from_lua, said, site};
use super::frame::standing;
use super::handle::Given;
use super::host::Host;
use super::library_options as options;
use super::link::Link;
use super::map::Map;
use super::module::{Args, Module};
use super::option::nearest;
use super::state::Plain;
use crate::own::Owned;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "_library")
        .function("check", check)
        .function("unknown", unknown)
        .function("keep", keep)
        .function("release", release)
        .function("recall", recall)
        .function("remember", remember)
        .function("forget", forget)
        .function("loading", |_, host, _: Args| Ok(host.stage.is_loading()))
        .function("unsay", unsay)
        .function("standing", |lua, _, mut args: Args| {
            standing(lua, args.required("function")?).map_err(from_lua)
        })
        .function("read", options::read)
        .function("prefixes", options::prefixes)
        .function("clock", options::clock)
        .function("here", |lua, _, _: Args| {
            Ok(site(lua, 1).map(|at| format!("{}:{}", at.file, at.line)))
        })
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
    let key = args.any().to_string().map_err(from_lua)?;
    let names: Vec<String> = args.required("names")?;
    Err(no_member(class, &key, &names.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// `keep(what, link, map) -> number`: pins a map of a link's programs when they are to outlive this process, and the map's
/// contents would not.
fn keep(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Option<u64>> {
    let what: String = args.required("what")?;
    let link = args.required::<Given<Link>>("link")?.0;
    let map = args.required::<Given<Map>>("map")?.0.kernel().clone();
    let Some(pins) = &host.instance.pins else { return Ok(None) };
    let path = pins.join(format!("{what}-{}-{}", link.net().cookie(), link.index()));
    let text = format!("{what} of {}", link.name());
    let open = link.net().open()?;
    let (netns, index) = (link.net().netns()?, link.index());
    let owned = Owned::Pin { netns, index, path, text, map: Some(map) };
    host.stage.own(owned, &open.netlink, || said(lua, args.op()).about(link.name())).map(Some)
}

/// `release(number)` ends what `keep` began.
fn release(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    let number: u64 = args.required("number")?;
    if host.stage.disown(number)? {
        return Ok(());
    }
    if let Some(owned) = host.ledger.get(number) {
        owned.undo()?;
        host.ledger.forget(number);
    }
    Ok(())
}

/// `unsay(map, key)` takes back what this load has said of a packed key of a live map.
fn unsay(lua: &Lua, _: &Rc<Host>, mut args: Args) -> Result<()> {
    let map = args.required::<Given<Map>>("map")?.0;
    let key: Vec<u8> = args.required("key")?;
    super::map_stage::unsay(lua, map.kernel(), &key);
    Ok(())
}

/// `recall(key)` -> what the load before, or this one, has remembered under the key.
fn recall(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Value> {
    let key = memory(&mut args)?;
    let stage = &host.stage;
    match stage.shelved::<Plain>(&key).or_else(|| stage.take::<Plain>(&key)) {
        Some(plain) => super::state::into_value(lua, &plain).map_err(from_lua),
        None => Ok(Value::Nil),
    }
}

/// `remember(key, table)` leaves plain data for the next load of the script.
fn remember(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    let key = memory(&mut args)?;
    let table: Table = args.required("value")?;
    let plain = super::state::from_table(&table).map_err(from_lua)?;
    host.stage.shelve(&key, Rc::new(plain));
    Ok(())
}

/// `forget(key)`: the next load is not to find it.
fn forget(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    host.stage.unshelve(&memory(&mut args)?);
    Ok(())
}

/// Where the shelf has what the library's modules remember.
fn memory(args: &mut Args) -> Result<String> {
    args.required::<String>("key").map(|key| format!("memory/{key}"))
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
