//! The Lua half of the product, embedded: the prelude, the modules written in Lua, the stubs.

use mlua::{Lua, Table};

/// Runs first in every VM; see the file.
pub const PRELUDE: &str = include_str!("../../../lua-stdlib/prelude.lua");

/// Modules written in Lua: name and source.
const MODULES: &[(&str, &str)] = &[
    ("event", include_str!("../../../lua-stdlib/event.lua")),
    ("task", include_str!("../../../lua-stdlib/task.lua")),
];

/// Type stubs: the single source of the reference.
pub const STUBS: &[(&str, &str)] = &[];

/// The modules by name, compiled when first required.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    lua.create_table_from(MODULES.iter().copied())
}
