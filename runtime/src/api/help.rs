//! `help`, the native half: the words that are near a wrong one, and the handles that there are. The rest is
//! lua-stdlib/help.lua.

use std::rc::Rc;

use mlua::{Lua, Table};

use super::error::from_lua;
use super::handle;
use super::host::Host;
use super::module::{Args, Module};
use crate::Result;

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "_help").function("nearest", nearest).function("handles", handles).build()
}

/// `nearest(word, names)` -> the name that was probably meant, if one is near enough.
fn nearest(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Option<String>> {
    let word: String = args.required("word")?;
    let names: Vec<String> = args.required("names")?;
    Ok(crate::nearest::nearest(&word, &names).map(str::to_owned))
}

/// `handles()` -> one handle of each type of which the script holds any: a method can be told only by asking them for theirs.
fn handles(lua: &Lua, _: &Rc<Host>, _: Args) -> Result<Table> {
    handle::one_of_each(lua).map_err(from_lua)
}
