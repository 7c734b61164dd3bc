//! `bpf`: objects, programs, and what is loaded on this system.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::{Lua, Table, Value};
use sha2::{Digest, Sha256};

use super::error::from_lua;
use super::handle::{Returned, held};
use super::host::Host;
use super::map::{self, Map};
use super::module::{Args, Module};
use super::object::Object;
use super::option::{Options, expected, nearest};
use super::program;
use super::value::Data;
use crate::kernel::bpf::compile::{self, CompileOptions, Source};
use crate::kernel::bpf::{LoadOptions, inventory, probe};
use crate::record;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "bpf")
        .function("load", load)
        .function("compile", compile)
        .function("builtin", builtin)
        .function("attach", super::hook::attach_auto)
        .function("pinned", super::pinned::open)
        .function("attach_cgroup", super::beyond::attach_cgroup)
        .function("attach_sk_lookup", super::beyond::attach_sk_lookup)
        .function("attach_sockmap", super::beyond::attach_sockmap)
        .function("attach_tracing", super::beyond::attach_tracing)
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
fn load(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Object>> {
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
    loaded(lua, host, args, name, bytes.into())
}

/// The object in these bytes, as the options that come next have it.
fn loaded(
    lua: &Lua,
    host: &Rc<Host>,
    mut args: Args,
    name: String,
    bytes: Cow<'static, [u8]>,
) -> Result<Returned<Object>> {
    let mut options = args.options()?;
    options.set_subject(name.clone());
    let load = load_options(&mut options, name)?;
    options.finish()?;
    Object::load(lua, host, args.op(), bytes, load)
}

fn read(host: &Host, op: &str, path: &str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|e| {
        host.read_by_other(path);
        Error::io(op.to_owned(), &e).subject(path)
    })?;
    host.loaded(path, &bytes);
    Ok(bytes)
}

/// What every way of loading takes.
fn load_options(options: &mut Options, default_name: String) -> Result<LoadOptions> {
    let mut load = LoadOptions {
        name: options.get("name")?.unwrap_or(default_name),
        ..LoadOptions::default()
    };
    for (name, value) in named_values(options, "globals")? {
        load.globals.insert(name, map::to_kernel(&value)?.in_order());
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
    load.pins = options.get::<String>("pins")?.map(PathBuf::from);
    let programs: Option<Vec<String>> = options.get("programs")?;
    load.programs = programs.map(BTreeSet::from_iter);
    let fresh: Option<Vec<String>> = options.get("fresh")?;
    load.fresh = fresh.into_iter().flatten().collect();
    let said: Option<Vec<u8>> = options.get("said")?;
    load.said = said.map(|said| Sha256::digest(said).into());
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
fn compile(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Object>> {
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
    Object::load(lua, host, &op, compiled.bytes.into(), load)
}

/// `bpf.builtin(name, opts)`: a program that comes with cnfscript.
fn builtin(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Object>> {
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
    loaded(lua, host, args, name, bytes.into())
}

fn programs(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Vec<Data>> {
    Ok(inventory::programs()?.into_iter().map(program::info_data).collect())
}

fn maps(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Vec<Data>> {
    Ok(inventory::maps()?.into_iter().map(|info| map::info_data(&info, Vec::new())).collect())
}

fn links(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Vec<Data>> {
    Ok(inventory::links()?.iter().map(super::pinned::info_data).collect())
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
