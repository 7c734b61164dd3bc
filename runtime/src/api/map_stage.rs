//! Writes to live maps while a later load of the script runs: they wait for the commit, and that load reads its own.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use mlua::Lua;

use crate::kernel::bpf::Map;

/// Of one VM.
#[derive(Default)]
struct Maps {
    /// Ids of the maps that this load itself has made: nothing live reads them yet.
    made: RefCell<HashSet<u32>>,
}

fn of(lua: &Lua) -> Rc<Maps> {
    if let Some(maps) = lua.app_data_ref::<Rc<Maps>>() {
        return Rc::clone(&maps);
    }
    let maps = Rc::new(Maps::default());
    lua.set_app_data(Rc::clone(&maps));
    maps
}

/// This load has made these maps.
pub fn made<'a>(lua: &Lua, maps: impl Iterator<Item = &'a Map>) {
    of(lua).made.borrow_mut().extend(maps.map(Map::id));
}
