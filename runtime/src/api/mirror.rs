//! `mirror`, the native half: reads what `mirror.to` is given. The rest is lua-stdlib/mirror.lua.

use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::error::from_lua;
use super::handle::{Given, intern};
use super::host::Host;
use super::link::Link;
use super::module::{Args, Module};
use super::option::{FromOption, Options, Share, expected};
use super::selector::selector;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "mirror").function("to", read).build()
}

/// The words that say where on the hook it runs; `bpf.attach` reads them.
const ORDER: [&str; 4] = ["first", "last", "before", "after"];

/// The options of `mirror.to`, checked: links, `directions`, `sample` of 2^32, `match` for the map, and `order`.
fn read(lua: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Table> {
    let mut options = args.options()?;
    let name: Option<String> = options.get("name")?;
    let Given(from) = options.required::<Given<Link>>("from")?;
    let Given(to) = options.required::<Given<Link>>("to")?;
    options
        .set_subject(name.clone().unwrap_or_else(|| format!("{} to {}", from.name(), to.name())));
    let both: &[&str] = &["ingress", "egress"];
    let directions = options
        .choice("direction", &[("ingress", &both[..1]), ("egress", &both[1..]), ("both", both)])?
        .unwrap_or(both);
    let sample = share(&mut options)?;
    let selected = selector(&mut options)?;
    let order = lua.create_table().map_err(from_lua)?;
    for word in ORDER {
        order.raw_set(word, options.raw(word)?).map_err(from_lua)?;
    }
    one_namespace(&options, &from, &to)?;
    options.finish()?;
    let build = || -> mlua::Result<Table> {
        let table = lua.create_table()?;
        table.raw_set("name", name.unwrap_or_else(|| to.name()))?;
        table.raw_set("from", intern(lua, from).map_err(super::error::raise)?)?;
        table.raw_set("to", intern(lua, to).map_err(super::error::raise)?)?;
        table.raw_set("directions", lua.create_sequence_from(directions.iter().copied())?)?;
        table.raw_set("sample", (sample * 4294967296.0).round().max(1.0) as i64)?;
        table.raw_set("match", selected)?;
        table.raw_set("order", order)?;
        Ok(table)
    };
    build().map_err(from_lua)
}

/// Interface indexes mean what they mean in the namespace of the hook.
fn one_namespace(options: &Options, from: &Link, to: &Link) -> Result<()> {
    if from.net().cookie() != to.net().cookie() {
        let text = format!("{} and {} are in different namespaces", from.name(), to.name());
        let error = Error::new(options.op().to_owned(), "EXDEV", text)
            .hint("copy to one end of a veth pair here, whose other end is there");
        return Err(error.subject(options.subject().unwrap_or_default().to_owned()));
    }
    if from.index() == to.index() {
        return Err(options.bad("from and to are the same link"));
    }
    Ok(())
}

/// `"1/64"`, `"5%"`, or a share from 0 to 1; everything when it is not given.
pub fn share(options: &mut Options) -> Result<f64> {
    let value = options.raw("sample")?;
    let share = match &value {
        Value::Nil => return Ok(1.0),
        Value::String(text) => match ratio(&text.to_string_lossy()) {
            Some(share) => Some(share),
            None => Share::from_option(value.clone()).ok().map(|share| share.0),
        },
        other => Share::from_option(other.clone()).ok().map(|share| share.0),
    };
    match share {
        Some(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => {
            let got = expected::describe(&value);
            Err(options
                .bad(format!("sample must be a share of the packets, got {got}"))
                .hint("\"1/64\", \"5%\", or a share above 0, up to 1"))
        }
    }
}

/// `"1/64"`
fn ratio(text: &str) -> Option<f64> {
    let (part, whole) = text.split_once('/')?;
    let (part, whole): (u32, u32) = (part.trim().parse().ok()?, whole.trim().parse().ok()?);
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}
