//! Lua values <-> Rust values: every native module is one file here and one line in [`modules`]. No system calls.

pub mod cnf;
pub mod error;
pub mod handle;
pub mod host;
pub mod module;
pub mod option;
pub mod source;
pub mod stdlib;
pub mod task;
pub mod testing;
pub mod value;
pub mod vm;

use mlua::{Lua, Table};

/// The native modules by name, each built when a script first asks for it.
pub fn modules(lua: &Lua) -> mlua::Result<Table> {
    type Build = fn(&Lua) -> mlua::Result<Table>;
    // Those that begin with an underscore are the library's own.
    const MODULES: &[(&str, Build)] = &[
        ("cnf", cnf::module),
        ("task", task::module),
        ("_test", testing::module),
        ("_stubs", stdlib::stubs),
    ];
    let table = lua.create_table()?;
    for (name, build) in MODULES {
        table.set(*name, lua.create_function(move |lua, ()| build(lua))?)?;
    }
    Ok(table)
}
