//! `bpf`: objects, programs, and what is loaded on this system.

use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::error::from_lua;
use super::handle::{Class, Handle, Returned, held, intern};
use super::host::Host;
use super::map::{self, Map};
use super::module::{Args, Module};
use super::option::{Options, expected, nearest};
use super::program::{self, Program};
use super::value::Data;
use crate::kernel::bpf::compile::{self, CompileOptions, Source};
use crate::kernel::bpf::{self, LoadOptions, inventory, probe};
use crate::record;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "bpf")
        .function("load", load)
        .function("compile", compile)
        .function("builtin", builtin)
        .function("attach", super::hook::attach_auto)
        .function("programs", programs)
        .function("maps", maps)
        .function("links", links)
        .function("features", features)
        .function("has", has)
        .function("trace", |lua, _, mut args| super::records::in_lua(lua, "trace", args.any()))
        .function("helpers", helpers)
        .build()
}

/// `bpf.load(path | {bytes=}, opts)`
fn load(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Object>> {
    let op = args.op().to_owned();
    let (name, bytes) = match args.any() {
        Value::String(path) => {
            let path = path.to_string_lossy();
            (path.clone(), read(host, &op, &path)?)
        }
        Value::Table(source) => {
            let mut source = Options::new(&op, Value::Table(source))?;
            let bytes: Vec<u8> = source.required("bytes")?;
            source.finish()?;
            ("bytes".to_owned(), bytes)
        }
        other => {
            let got = expected::describe(&other);
            return Err(Error::invalid(op, format!("takes a path, or {{bytes = ...}}, got {got}")));
        }
    };
    let mut options = args.options()?;
    options.set_subject(name.clone());
    let load = load_options(&mut options, name)?;
    options.finish()?;
    object(&op, &bytes, load)
}

fn read(host: &Host, op: &str, path: &str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|e| {
        host.read_by_other(path);
        Error::io(op.to_owned(), &e).subject(path)
    })?;
    host.loaded(path, &bytes);
    Ok(bytes)
}

fn object(op: &str, bytes: &[u8], load: LoadOptions) -> Result<Returned<Object>> {
    let object = bpf::Object::load(bytes, &load).map_err(|e| e.operation(op.to_owned()))?;
    Ok(Returned(Object::new(object)))
}

/// What every way of loading takes.
fn load_options(options: &mut Options, default_name: String) -> Result<LoadOptions> {
    let mut load = LoadOptions {
        name: options.get("name")?.unwrap_or(default_name),
        ..LoadOptions::default()
    };
    for (name, value) in named_values(options, "globals")? {
        load.globals.insert(name, map::to_kernel(&value)?);
    }
    for (name, value) in named_values(options, "max_entries")? {
        match value {
            Value::Integer(entries) if u32::try_from(entries).is_ok_and(|n| n > 0) => {
                load.max_entries.insert(name, entries as u32);
            }
            other => {
                let got = expected::describe(&other);
                return Err(options
                    .bad(format!("max_entries.{name} must be an integer above 0, got {got}")));
            }
        }
    }
    for (name, value) in named_values(options, "maps")? {
        match held::<Map>(&value) {
            Some(map) => {
                load.maps.insert(name, map.kernel().clone());
            }
            None => {
                let got = expected::describe(&value);
                return Err(options.bad(format!("maps.{name} must be a Map, got {got}")));
            }
        }
    }
    let programs: Option<Vec<String>> = options.get("programs")?;
    load.programs = programs.map(BTreeSet::from_iter);
    Ok(load)
}

fn named_values(options: &mut Options, word: &'static str) -> Result<BTreeMap<String, Value>> {
    let Some(table) = options.get::<Table>(word)? else { return Ok(BTreeMap::new()) };
    table
        .pairs::<Value, Value>()
        .map(|pair| match pair.map_err(from_lua)? {
            (Value::String(name), value) => Ok((name.to_string_lossy(), value)),
            (key, _) => {
                Err(options.bad(format!("{word} takes names, got {}", expected::describe(&key))))
            }
        })
        .collect()
}

/// `bpf.compile(path | {source=}, opts)`
fn compile(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Object>> {
    let op = args.op().to_owned();
    let (name, source) = match args.any() {
        Value::String(path) => {
            let path = path.to_string_lossy();
            if path.contains(['\n', ';', '{']) && !Path::new(&path).exists() {
                return Err(Error::new(op, "ENOENT", "this is C text, where a path was expected")
                    .hint("bpf.compile{source = text} compiles text"));
            }
            (path.clone(), Source::File(PathBuf::from(path)))
        }
        Value::Table(source) => {
            let mut source = Options::new(&op, Value::Table(source))?;
            let text: String = source.required("source")?;
            source.finish()?;
            ("source".to_owned(), Source::Text { source: text, directory: PathBuf::from(".") })
        }
        other => {
            let got = expected::describe(&other);
            return Err(Error::invalid(
                op,
                format!("takes a path, or {{source = ...}}, got {got}"),
            ));
        }
    };
    let mut options = args.options()?;
    options.set_subject(name.clone());
    let cflags = options.get::<Vec<String>>("cflags")?.unwrap_or_default();
    let include = options.get::<Vec<String>>("include")?.unwrap_or_default();
    let load = load_options(&mut options, name.clone())?;
    options.finish()?;
    let include = include.into_iter().map(PathBuf::from).collect();
    if let Source::File(path) = &source {
        host.read_by_other(path);
    }
    let compiled = compile::compile(&source, &CompileOptions { cflags, include })
        .map_err(|e| e.operation(op.clone()).about(name.clone()))?;
    compiled.inputs.iter().for_each(|input| host.read_by_other(input));
    if !compiled.diagnostics.is_empty() {
        tracing::warn!("clang on {name}:\n{}", compiled.diagnostics.trim_end());
    }
    object(&op, &compiled.bytes, load)
}

/// `bpf.builtin(name, opts)`: a program that comes with cnfscript.
fn builtin(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Returned<Object>> {
    let op = args.op().to_owned();
    let name: String = args.required("name")?;
    let Some(bytes) = crate::program::embedded(&name) else {
        let known = crate::program::names();
        let error = Error::new(op, "ENOENT", "there is no such program").subject(name.clone());
        return Err(match nearest(&name, &known) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error.hint(format!("there is {}", known.join(", "))),
        });
    };
    let mut options = args.options()?;
    options.set_subject(name.clone());
    let load = load_options(&mut options, name)?;
    options.finish()?;
    object(&op, bytes, load)
}

fn programs(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Vec<Data>> {
    Ok(inventory::programs()?.into_iter().map(program::info_data).collect())
}

fn maps(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Vec<Data>> {
    Ok(inventory::maps()?.into_iter().map(|info| map::info_data(&info, Vec::new())).collect())
}

fn links(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Vec<Data>> {
    let found = inventory::links()?;
    Ok(found
        .into_iter()
        .map(|l| record! { id: l.id, r#type: l.kind_name(), program_id: l.program_id, index: l.index })
        .collect())
}

/// Every feature and whether this kernel has it.
fn features(_: &Lua, _: &Rc<Host>, args: Args) -> Result<Data> {
    let found = probe::rows().into_iter().map(|row| {
        let name = row.name.clone();
        Ok((name, feature(row).map_err(|e| e.operation(args.op().to_owned()))?))
    });
    found.collect::<Result<_>>().map(Data::Map)
}

/// `bpf.has(name)` -> {available=, reason=, group=, without=}
fn has(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Data> {
    let name: String = args.required("feature")?;
    probe::row(&name).and_then(feature).map_err(|e| e.operation(args.op().to_owned()))
}

fn feature(row: probe::Row) -> Result<Data> {
    let feature = probe::has(&row.name)?;
    let reason = (!feature.available).then_some(feature.reason);
    Ok(record! {
        available: feature.available, reason: reason, group: row.group.name(), without: row.without,
    })
}

/// `bpf.helpers()` -> program type -> names
fn helpers(_: &Lua, _: &Rc<Host>, args: Args) -> Result<Data> {
    let found = probe::helpers().map_err(|e| e.operation(args.op().to_owned()))?;
    let of = |h: probe::Helpers| (h.program.name().to_owned(), h.names.into());
    Ok(Data::Map(found.into_iter().map(of).collect()))
}

/// A loaded object file.
#[derive(Clone)]
pub struct Object(Rc<Loaded>);

struct Loaded {
    name: String,
    /// Taken away by `unload`.
    object: RefCell<Option<bpf::Object>>,
}

impl Object {
    fn new(object: bpf::Object) -> Self {
        let name = object.name.clone();
        Object(Rc::new(Loaded { name, object: RefCell::new(Some(object)) }))
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
            .method("unload", |_, _, this, _| {
                this.0.object.take();
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
