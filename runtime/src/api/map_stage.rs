//! Writes to live maps while a later load of the script runs: they wait for the commit, and that load reads its own.
//!
//! `waiting` is one map with the writes that wait. Maps that this load itself has made are written at once: nothing live
//! reads them yet.

mod socket;
mod waiting;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use mlua::Lua;

use super::error::site;
use super::host::Host;
use crate::Result;
use crate::kernel::bpf::Map;
use crate::kernel::bpf::globals::Variable;
use crate::own::stage::Staged;
pub use socket::MapSocket;
pub use waiting::{Change, Deposit, Waiting};

/// Of one VM.
#[derive(Default)]
struct Maps {
    /// Ids of the maps that this load itself has made.
    made: RefCell<HashSet<u32>>,
    /// What maps of the library's programs belong to, in words, by their ids.
    owners: RefCell<HashMap<u32, Rc<str>>>,
    /// Maps with writes that wait, by id.
    waiting: RefCell<HashMap<u32, Rc<Waiting>>>,
    /// Global variables that wait, by the id of their section's map and by name.
    globals: RefCell<HashMap<(u32, String), Vec<u8>>>,
}

/// Whether a load that is not the first runs.
fn is_loading(lua: &Lua) -> bool {
    Host::of(lua).stage.is_loading()
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

/// These maps are those of a program of the library that goes by this name. One that belongs to another already, and is shared,
/// stays that one's.
pub fn belong<'a>(lua: &Lua, maps: impl Iterator<Item = &'a Map>, name: &str) {
    let Some(owner) = owner(name).map(Rc::from) else { return };
    let all = of(lua);
    let mut owners = all.owners.borrow_mut();
    for map in maps {
        owners.entry(map.id()).or_insert_with(|| Rc::clone(&owner));
    }
}

/// `lb/edge/web` is "service web in netns edge": what a person knows of it. Other names are those that scripts give.
fn owner(name: &str) -> Option<String> {
    let mut parts = name.splitn(3, '/');
    let (kind, netns, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let text = match kind {
        "chaos" => format!("fault on {rest}"),
        "dispatch" => format!("programs at XDP of {rest}"),
        "filter" => format!("filter of {rest}"),
        "flow" => format!("flow accounting of {rest}"),
        "forward" => format!("forwarding of {rest}"),
        "lb" => format!("service {rest}"),
        "mirror" => {
            let (from, name) = rest.split_once('/')?;
            format!("mirror {name} of {from}")
        }
        "police" => format!("limit on {rest}"),
        _ => return None,
    };
    Some(if netns.is_empty() { text } else { format!("{text} in netns {netns}") })
}

/// Whether writes to the map wait for the commit.
///
/// # Errors
/// ESTALE in a generation that has ended.
fn waits(lua: &Lua, map: &Map) -> Result<Option<Rc<Host>>> {
    let host = Host::of(lua);
    host.stage.check().map_err(|e| e.operation("map"))?;
    let waits = host.stage.is_loading() && !of(lua).made.borrow().contains(&map.id());
    Ok(waits.then_some(host))
}

/// The map as this load sees it, when it has written to it and the writes wait; else it is read as it is.
pub fn read(lua: &Lua, map: &Map) -> Option<Rc<Waiting>> {
    if !is_loading(lua) {
        return None;
    }
    let maps = of(lua);
    let waiting = maps.waiting.borrow();
    waiting.get(&map.id()).cloned()
}

/// What takes writes to the map when they have to wait; none when they happen at once.
///
/// # Errors
/// ESTALE in a generation that has ended.
pub fn write(lua: &Lua, map: &Map) -> Result<Option<Rc<Waiting>>> {
    let Some(host) = waits(lua, map)? else { return Ok(None) };
    let maps = of(lua);
    if let Some(found) = maps.waiting.borrow().get(&map.id()) {
        // Maps are written in the order in which the script was done with them: what names others comes after them.
        host.stage.put_last(&waiting::key(map));
        return Ok(Some(Rc::clone(found)));
    }
    let owner = maps.owners.borrow().get(&map.id()).cloned();
    let waiting = Rc::new(Waiting::new(map.clone(), owner));
    maps.waiting.borrow_mut().insert(map.id(), Rc::clone(&waiting));
    host.stage.change(true, Box::new(Change::new(Rc::clone(&waiting))), site(lua, 1))?;
    Ok(Some(waiting))
}

/// Takes back what this load has said of one key, which waits: it is as it was.
pub fn unsay(lua: &Lua, map: &Map, key: &[u8]) {
    if let Some(waiting) = read(lua, map) {
        waiting.forget(key);
    }
}

/// A global variable's bytes as this load has set them, when that waits.
pub fn read_global(lua: &Lua, variable: &Variable) -> Option<Vec<u8>> {
    if !is_loading(lua) {
        return None;
    }
    let key = (variable.section().id(), variable.name().to_owned());
    of(lua).globals.borrow().get(&key).cloned()
}

/// Sets a global variable, now or at the commit.
///
/// # Errors
/// As [`Variable::write`]. ESTALE.
pub fn write_global(lua: &Lua, variable: Variable, bytes: Vec<u8>) -> Result<()> {
    let Some(host) = waits(lua, variable.section())? else { return variable.write(&bytes) };
    let key = (variable.section().id(), variable.name().to_owned());
    of(lua).globals.borrow_mut().insert(key, bytes.clone());
    let change = GlobalChange { variable, other: bytes };
    host.stage.change(true, Box::new(change), site(lua, 1))
}

/// A global variable about to get another value.
struct GlobalChange {
    variable: Variable,
    /// What it gets; after that, what it was.
    other: Vec<u8>,
}

impl Staged for GlobalChange {
    fn key(&self) -> String {
        format!("global/{}/{}", self.variable.section().id(), self.variable.name())
    }
    fn text(&self) -> String {
        format!("global variable {}", self.variable.name())
    }
    fn is_void(&self) -> bool {
        self.variable.read().is_ok_and(|now| now == self.other)
    }
    fn apply(&mut self) -> Result<()> {
        let before = self.variable.read()?;
        self.variable.write(&self.other)?;
        self.other = before;
        Ok(())
    }
    fn revert(&mut self) -> Result<()> {
        self.apply()
    }
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn names_of_the_librarys_objects_in_words() {
        for (name, words) in [
            ("lb/edge/web/1", Some("service web/1 in netns edge")),
            ("mirror/a/eth0/tap0", Some("mirror tap0 of eth0 in netns a")),
            ("filter//eth0", Some("filter of eth0")),
            ("counter.o", None),
            ("made/by/scripts", None),
        ] {
            assert_eq!(owner(name).as_deref(), words, "{name}");
        }
    }
}
