//! `Object` handles, and what a later load of the script makes of the objects of the one before: the same one again is
//! adopted, a changed one goes on with its maps of equal shape.

use std::borrow::Cow;
use std::cell::{Ref, RefCell};
use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::error::from_lua;
use super::handle::{Class, Handle, Returned, intern};
use super::host::Host;
use super::map::Map;
use super::map_stage;
use super::option::nearest;
use super::program::Program;
use crate::kernel::bpf::{self, LoadOptions};
use crate::{Error, Result};

/// A loaded object file.
#[derive(Clone)]
pub struct Object(Rc<Loaded>);

struct Loaded {
    name: String,
    /// Taken away by `unload`.
    object: RefCell<Option<bpf::Object>>,
    /// Under which the next load finds it.
    shelf: String,
}

/// What the next load of the script can adopt.
struct Kept {
    bytes: Cow<'static, [u8]>,
    options: LoadOptions,
    object: bpf::Object,
}

impl Object {
    /// Loads it, or adopts what the load before made of the same bytes and options. Its identity is its name and, among
    /// several of that name, which of them it is.
    ///
    /// # Errors
    /// As [`bpf::Object::load`]. ESTALE.
    pub fn load(
        lua: &Lua,
        host: &Host,
        op: &str,
        bytes: Cow<'static, [u8]>,
        options: LoadOptions,
    ) -> Result<Returned<Object>> {
        let stage = &host.stage;
        stage.check()?;
        let shelf = format!("object/{}", options.name);
        let shelf = format!("{shelf}#{}", stage.ordinal(&shelf));
        let before = if stage.is_loading() { stage.take::<Kept>(&shelf) } else { None };
        let kept = match before {
            Some(before)
                if before.bytes == bytes
                    && before.options == options
                    && (options.fresh.is_empty() || options.said.is_some()) =>
            {
                before
            }
            before => {
                let old = before.as_ref().map(|before| &before.object);
                let (object, differences) = bpf::Object::load_after(&bytes, &options, old)
                    .map_err(|e| e.operation(op.to_owned()))?;
                for difference in differences {
                    tracing::warn!("{}: {difference}", options.name);
                }
                let own = object.maps.iter().filter(|(name, _)| !object.pinned.contains(*name));
                let own = own.map(|(_, map)| map).filter(|map| {
                    let shared = old.is_some_and(|old| old.maps.values().any(|o| o == *map));
                    !shared && !options.maps.values().any(|given| given == *map)
                });
                map_stage::made(lua, own);
                Rc::new(Kept { bytes, options, object })
            }
        };
        let object = RefCell::new(Some(kept.object.clone()));
        let name = kept.object.name.clone();
        map_stage::belong(lua, kept.object.maps.values(), &name);
        stage.shelve(&shelf, kept as _);
        Ok(Returned(Object(Rc::new(Loaded { name, object, shelf }))))
    }

    /// # Errors
    /// ENODEV when it has been unloaded.
    fn loaded(&self) -> Result<Ref<'_, bpf::Object>> {
        Ref::filter_map(self.0.object.borrow(), Option::as_ref).map_err(|_| {
            Error::new("object", "ENODEV", "it has been unloaded").subject(self.0.name.clone())
        })
    }
}

impl Handle for Object {
    const TYPE: &'static str = "Object";
    const WORD: &'static str = "object";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.0.name.clone()))
            .field("programs", |lua, this| {
                let programs = this.loaded()?.programs.clone().into_iter();
                strict(lua, &this.0.name, "program", programs.map(|(n, p)| (n, Program::new(p))))
            })
            .field("globals", |lua, this| {
                let maps = &this.loaded()?.maps;
                super::globals::table(lua, &this.0.name, bpf::globals::variables(maps))
            })
            .field("maps", |lua, this| {
                let maps = this.loaded()?.maps.clone().into_iter();
                strict(lua, &this.0.name, "map", maps.map(|(n, m)| (n, Map::new(m))))
            })
            // Programs on hooks and maps in programs stay: the kernel counts its own references.
            .method("unload", |_, host, this, _| {
                host.stage.check()?;
                this.0.object.take();
                host.stage.unshelve(&this.0.shelf);
                Ok(())
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        match self.loaded() {
            Ok(object) => format!(
                "Object({}, {}, {})",
                self.0.name,
                counted(object.programs.len(), "program"),
                counted(object.maps.len(), "map")
            ),
            Err(_) => format!("Object({}, unloaded)", self.0.name),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A table of handles by name, which names the nearest for one it does not have.
fn strict<T: Handle>(
    lua: &Lua,
    object: &str,
    what: &'static str,
    items: impl Iterator<Item = (String, T)>,
) -> Result<Table> {
    let build = || -> mlua::Result<Table> {
        let table = lua.create_table()?;
        let mut names = Vec::new();
        for (name, handle) in items {
            table.raw_set(name.as_str(), intern(lua, handle).map_err(super::error::raise)?)?;
            names.push(name);
        }
        let meta = lua.create_table()?;
        let object = object.to_owned();
        meta.raw_set(
            "__index",
            lua.create_function(move |lua, (_, key): (Value, Value)| {
                let key = key.to_string()?;
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let error = Error::new("object", "ENOENT", format!("there is no {what} \"{key}\""));
                let error = match nearest(&key, &known) {
                    Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                    None if known.is_empty() => error.hint(format!("it has no {what}s")),
                    None => error.hint(format!("it has {}", known.join(", "))),
                };
                let error = error.subject(object.clone());
                Err::<(), _>(super::error::raise(error.at(super::error::site(lua, 1))))
            })?,
        )?;
        table.set_metatable(Some(meta))?;
        Ok(table)
    };
    build().map_err(from_lua)
}
