//! Lua values <-> Rust values: every native module is one file here and one line in [`modules`]. No system calls.

pub mod address;
mod beyond;
pub mod bpf;
pub mod cnf;
pub mod error;
pub mod event;
mod frame;
mod gate;
mod globals;
pub mod handle;
mod help;
mod hook;
pub mod host;
mod lb;
mod library;
mod library_options;
pub mod limit;
pub mod link;
mod map;
mod map_stage;
mod mirror;
pub mod module;
pub mod netns;
mod object;
pub mod option;
mod packet;
mod ping;
mod pinned;
pub mod policy;
pub mod probe;
pub mod process;
pub mod program;
pub mod prompt;
mod qdisc;
mod reads;
mod records;
mod route;
mod selector;
mod serve;
mod shell;
pub mod source;
mod stack;
pub mod state;
pub mod stdlib;
pub mod task;
pub mod testing;
pub mod value;
pub mod vm;
mod waited;

use mlua::{Lua, Table};

/// The native modules by name, each built when a script first asks for it.
pub fn modules(lua: &Lua) -> mlua::Result<Table> {
    type Build = fn(&Lua) -> mlua::Result<Table>;
    // Those that begin with an underscore are the library's own.
    const MODULES: &[(&str, Build)] = &[
        ("bpf", bpf::module),
        ("cnf", cnf::module),
        ("event", event::module),
        ("lb", lb::module),
        ("link", link::module),
        ("mirror", mirror::module),
        ("netkit", hook::netkit),
        ("netns", netns::module),
        ("packet", packet::module),
        ("policy", policy::module),
        ("probe", probe::module),
        ("task", task::module),
        ("tc", hook::tc),
        ("tcx", hook::tcx),
        ("xdp", hook::xdp),
        ("_help", help::module),
        ("_library", library::module),
        ("_prompt", prompt::module),
        ("_records", records::module),
        ("_state", state::module),
        ("_shell", shell::module),
        ("_test", testing::module),
        ("_stubs", stdlib::stubs),
    ];
    crate::kernel::features::register();
    let table = lua.create_table()?;
    for (name, build) in MODULES {
        table.set(*name, lua.create_function(move |lua, ()| build(lua))?)?;
    }
    Ok(table)
}
