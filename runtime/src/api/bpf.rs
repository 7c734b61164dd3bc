//! `bpf`: objects, programs, and what is loaded on this system.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::error::from_lua;
use super::handle::{Class, Handle, Returned, intern};
use super::host::Host;
use super::map::{self, Map};
use super::module::{Args, Module};
use super::option::{Options, expected, nearest};
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
        .build()
}

/// `bpf.load(path | {bytes=}, opts)`
fn load(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Returned<Object>> {
    let op = args.op().to_owned();
    let (name, bytes) = match args.any() {
        Value::String(path) => {
            let path = path.to_string_lossy();
            (path.clone(), read(&op, &path)?)
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

fn read(op: &str, path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(op.to_owned(), &e).subject(path))
}

fn object(op: &str, bytes: &[u8], load: LoadOptions) -> Result<Returned<Object>> {
    let object = bpf::Object::load(bytes, &load).map_err(|e| e.operation(op.to_owned()))?;
    Ok(Returned(Object(Rc::new(object))))
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
        match super::handle::held::<Map>(&value) {
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
fn compile(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Returned<Object>> {
    let op = args.op().to_owned();
    let (name, source) = match args.any() {
        Value::String(path) => {
            let path = path.to_string_lossy();
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
    // A source's own folder comes first, then the script's words, then the library's headers.
    let mut folders: Vec<PathBuf> = include.into_iter().map(PathBuf::from).collect();
    folders.extend(crate::program::headers()?);
    let compiled = compile::compile(&source, &CompileOptions { cflags, include: folders })
        .map_err(|e| e.operation(op.clone()).about(name.clone()))?;
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
    Ok(inventory::programs()?.into_iter().map(program_info).collect())
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
fn features(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Data> {
    let mut found = Vec::new();
    for name in probe::names() {
        let feature = probe::has(name)?;
        found
            .push((name, record! { available: feature.available, reason: reason(feature.reason) }));
    }
    Ok(Data::Record(found))
}

/// `bpf.has(name)` -> {available=, reason=}
fn has(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Data> {
    let name: String = args.required("feature")?;
    let feature = probe::has(&name).map_err(|e| e.operation(args.op().to_owned()))?;
    Ok(record! { available: feature.available, reason: reason(feature.reason) })
}

fn reason(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A loaded object file.
#[derive(Clone)]
pub struct Object(Rc<bpf::Object>);

impl Handle for Object {
    const TYPE: &'static str = "Object";
    const WORD: &'static str = "object";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.0.name.clone()))
            .field("programs", |lua, this| {
                let programs = this.0.programs.iter();
                strict(lua, "program", programs.map(|(n, p)| (n.clone(), Program(p.clone()))))
            })
            .field("maps", |lua, this| {
                strict(
                    lua,
                    "map",
                    this.0.maps.iter().map(|(n, m)| (n.clone(), Map::new(m.clone()))),
                )
            })
            // Programs on hooks and maps in programs stay: the kernel counts its own references.
            .method("unload", |lua, _, this, _| super::handle::release(lua, this));
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!(
            "Object({}, {} programs, {} maps)",
            self.0.name,
            self.0.programs.len(),
            self.0.maps.len()
        )
    }
}

/// A table of handles by name, which names the nearest for one it does not have.
fn strict<T: Handle>(
    lua: &Lua,
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
        meta.raw_set(
            "__index",
            lua.create_function(move |lua, (_, key): (Value, Value)| {
                let key = key.to_string()?;
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let error = Error::new("object", "ENOENT", format!("has no {what} \"{key}\""));
                let error = match nearest(&key, &known) {
                    Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                    None => error.hint(format!("it has {}", known.join(", "))),
                };
                Err::<(), _>(super::error::raise(error.at(super::error::site(lua, 1))))
            })?,
        )?;
        table.set_metatable(Some(meta))?;
        Ok(table)
    };
    build().map_err(from_lua)
}

/// A loaded program as scripts hold it.
#[derive(Clone)]
pub struct Program(bpf::Program);

impl Program {
    pub fn new(program: bpf::Program) -> Self {
        Program(program)
    }

    pub fn kernel(&self) -> &bpf::Program {
        &self.0
    }
}

impl Handle for Program {
    const TYPE: &'static str = "Program";
    const WORD: &'static str = "program";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.0.name().to_owned()))
            .field("type", |_, this| Ok(this.0.kind().name()))
            .field("id", |_, this| Ok(this.0.id()))
            .field("tag", |_, this| Ok(this.0.tag()))
            .method("info", |_, _, this, _| Ok(program_info(this.0.info()?)))
            .method("test_run", test_run)
            .method("pin", |_, _, this, mut args| {
                let path: String = args.required("path")?;
                this.0.pin(Path::new(&path)).map_err(|e| e.operation(args.op().to_owned()))
            });
    }

    fn identity(&self) -> String {
        self.0.id().to_string()
    }

    fn display(&self) -> String {
        format!("Program({}, {} {})", self.0.name(), self.0.kind().name(), self.0.id())
    }
}

fn program_info(info: bpf::program::ProgramInfo) -> Data {
    record! {
        id: info.id, name: info.name, r#type: info.kind.name(), tag: info.tag, map_ids: info.map_ids,
        btf_id: info.btf_id, gpl_compatible: info.gpl_compatible, uid: info.uid, load_time: info.load_time as f64 / 1e9,
        translated_size: info.translated_size, jited_size: info.jited_size,
        verified_instructions: info.verified_instructions, run_count: info.run_count,
        run_time: info.run_nanoseconds as f64 / 1e9,
    }
}

/// `p:test_run{packet=, repeat_count=, ctx={ifindex=, mark=, ...}}`
fn test_run(_: &Lua, _: &Rc<Host>, this: &Program, mut args: Args) -> Result<Data> {
    let mut options = args.options()?;
    options.set_subject(this.0.name().to_owned());
    let packet: Vec<u8> = options.get("packet")?.unwrap_or_default();
    let repeat = options.get("repeat_count")?.unwrap_or(1);
    let ctx = match options.nested("ctx")? {
        None => Vec::new(),
        Some(mut ctx) => {
            let bytes = skb_context(&mut ctx)?;
            ctx.finish()?;
            bytes
        }
    };
    options.finish()?;
    let run =
        this.0.test_run(&packet, &ctx, repeat).map_err(|e| e.operation(args.op().to_owned()))?;
    Ok(
        record! { retval: run.retval as i32, packet: Data::Str(run.packet), nanoseconds: run.nanoseconds },
    )
}

/// The fields of `struct __sk_buff` that a test may set (net/bpf/test_run.c, `convert___skb_to_skb`), with their offsets.
fn skb_context(options: &mut Options) -> Result<Vec<u8>> {
    const SIZE: usize = 192;
    const FIELDS: &[(&str, usize)] =
        &[("mark", 8), ("priority", 32), ("ingress_ifindex", 36), ("ifindex", 40)];
    let mut bytes = vec![0; SIZE];
    for (word, offset) in FIELDS {
        if let Some(value) = options.get::<u32>(word)? {
            bytes[*offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
    }
    Ok(bytes)
}
