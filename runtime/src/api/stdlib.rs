//! The Lua half of the product, embedded: the prelude, the modules written in Lua, the stubs.

use mlua::{Lua, Table};

/// Runs first in every VM; see the file.
pub const PRELUDE: &str = include_str!("../../../lua-stdlib/prelude.lua");

/// Modules written in Lua: name and source.
const MODULES: &[(&str, &str)] = &[
    ("chaos", include_str!("../../../lua-stdlib/chaos.lua")),
    ("event", include_str!("../../../lua-stdlib/event.lua")),
    ("filter", include_str!("../../../lua-stdlib/filter.lua")),
    ("flow", include_str!("../../../lua-stdlib/flow.lua")),
    ("forward", include_str!("../../../lua-stdlib/forward.lua")),
    ("lb", include_str!("../../../lua-stdlib/lb.lua")),
    ("mirror", include_str!("../../../lua-stdlib/mirror.lua")),
    ("police", include_str!("../../../lua-stdlib/police.lua")),
    ("task", include_str!("../../../lua-stdlib/task.lua")),
    ("test", include_str!("../../../lua-stdlib/test.lua")),
    ("_chain", include_str!("../../../lua-stdlib/chain.lua")),
    ("_library", include_str!("../../../lua-stdlib/library.lua")),
    ("_records", include_str!("../../../lua-stdlib/records.lua")),
    ("_files", include_str!("../../../lua-stdlib/files.lua")),
    ("_program", include_str!("../../../lua-stdlib/program.lua")),
    ("_stages", include_str!("../../../lua-stdlib/stages.lua")),
    ("_state", include_str!("../../../lua-stdlib/state.lua")),
    ("_show", include_str!("../../../lua-stdlib/show.lua")),
    ("_reference", include_str!("../../../lua-stdlib/reference.lua")),
    ("_help", include_str!("../../../lua-stdlib/help.lua")),
    ("_prompt", include_str!("../../../lua-stdlib/prompt.lua")),
];

/// Type stubs: the single source of the reference.
pub const STUBS: &[(&str, &str)] = &[
    ("bpf", include_str!("../../../lua-stdlib/types/bpf.lua")),
    ("chaos", include_str!("../../../lua-stdlib/types/chaos.lua")),
    ("cnf", include_str!("../../../lua-stdlib/types/cnf.lua")),
    ("event", include_str!("../../../lua-stdlib/types/event.lua")),
    ("filter", include_str!("../../../lua-stdlib/types/filter.lua")),
    ("flow", include_str!("../../../lua-stdlib/types/flow.lua")),
    ("forward", include_str!("../../../lua-stdlib/types/forward.lua")),
    ("lb", include_str!("../../../lua-stdlib/types/lb.lua")),
    ("link", include_str!("../../../lua-stdlib/types/link.lua")),
    ("mirror", include_str!("../../../lua-stdlib/types/mirror.lua")),
    ("netkit", include_str!("../../../lua-stdlib/types/netkit.lua")),
    ("netns", include_str!("../../../lua-stdlib/types/netns.lua")),
    ("packet", include_str!("../../../lua-stdlib/types/packet.lua")),
    ("police", include_str!("../../../lua-stdlib/types/police.lua")),
    ("policy", include_str!("../../../lua-stdlib/types/policy.lua")),
    ("probe", include_str!("../../../lua-stdlib/types/probe.lua")),
    ("task", include_str!("../../../lua-stdlib/types/task.lua")),
    ("tc", include_str!("../../../lua-stdlib/types/tc.lua")),
    ("tcx", include_str!("../../../lua-stdlib/types/tcx.lua")),
    ("test", include_str!("../../../lua-stdlib/types/test.lua")),
    ("xdp", include_str!("../../../lua-stdlib/types/xdp.lua")),
];

/// `_stubs`: the stubs by module name, for help and for the test that holds them against the live modules.
pub fn stubs(lua: &Lua) -> mlua::Result<Table> {
    lua.create_table_from(STUBS.iter().copied())
}

/// The modules by name, compiled when first required.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    lua.create_table_from(MODULES.iter().copied())
}
