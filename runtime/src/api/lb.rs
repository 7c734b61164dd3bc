//! `lb`, the native half: reads what a service is given, computes its table, counts its connections. The rest is
//! lua-stdlib/lb.lua.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::error::{from_lua, raise};
use super::handle::{Given, Handle, held, intern};
use super::host::Host;
use super::link::Link;
use super::map::Map;
use super::module::{Args, Module};
use super::option::{Options, expected};
use super::selector::mapped;
use super::value::Data;
use crate::program::lb::{self, Alive, Member};
use crate::record;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "lb")
        .function("service", service)
        .function("backends", backends)
        .function("backend", one_backend)
        .function("table", table)
        .function("established", established)
        .function("flows_of", flows_of)
        .build()
}

/// Backends of one service; number 0 is nobody.
const MOST_BACKENDS: usize = 4095;
const DEFAULT_CONNECTIONS: u32 = 65536;
const DEFAULT_IDLE: u32 = 60;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The options of `lb.service`, checked.
fn service(lua: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Table> {
    let mut options = args.options()?;
    let name: String = options.required("name")?;
    options.set_subject(name.clone());
    let vip = virtual_address(&mut options)?;
    let (proto, protocol) = options
        .choice("proto", &[("tcp", ("tcp", TCP)), ("udp", ("udp", UDP))])?
        .unwrap_or(("tcp", TCP));
    let places = places(&mut options)?;
    let list = options.get::<Vec<Value>>("backends")?.unwrap_or_default();
    let backends = read_backends(&options, "backends", vip, list)?;
    let idle: Option<std::time::Duration> = options.get("idle")?;
    if idle.is_some() && protocol == TCP {
        return Err(options.bad("idle is of UDP services: a TCP connection ends when it says so"));
    }
    let connections = options.get::<u32>("connections")?.unwrap_or(DEFAULT_CONNECTIONS);
    if !(1..=1 << 24).contains(&connections) {
        return Err(options.bad(format!(
            "connections must be an integer from 1 to {}, got {connections}",
            1 << 24
        )));
    }
    options.finish()?;
    let build = || -> mlua::Result<Table> {
        let table = lua.create_table()?;
        table.raw_set("name", name)?;
        table.raw_set("vip", vip.to_string())?;
        table.raw_set("address", mapped(vip.ip()))?;
        table.raw_set("port", vip.port())?;
        table.raw_set("proto", proto)?;
        table.raw_set("protocol", protocol)?;
        table.raw_set("idle", idle.map_or(DEFAULT_IDLE, |idle| idle.as_secs().max(1) as u32))?;
        table.raw_set("connections", connections)?;
        table.raw_set("backends", Data::Array(backends))?;
        let list = lua.create_table()?;
        for (link, side) in places {
            let place = lua.create_table()?;
            place.raw_set(1, intern(lua, link).map_err(raise)?)?;
            place.raw_set(2, side)?;
            list.raw_push(place)?;
        }
        table.raw_set("places", list)?;
        Ok(table)
    };
    build().map_err(from_lua)
}

fn virtual_address(options: &mut Options) -> Result<SocketAddr> {
    let text: String = options.required("vip")?;
    let vip = endpoint(&text, None).map_err(|problem| {
        options.bad(format!("vip {problem}")).hint("\"192.168.100.5:80\" or \"[fd00::5]:80\"")
    })?;
    Ok(vip)
}

/// An address and port that packets can be sent to: what the programs take from the kernel (`stays4` and `stays6` of
/// bpf/include/parse.h).
fn endpoint(text: &str, default_port: Option<u16>) -> std::result::Result<SocketAddr, String> {
    let address = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>(), default_port) {
        (Ok(address), _, _) => address,
        (_, Ok(ip), Some(port)) => SocketAddr::new(ip, port),
        (_, Ok(_), None) => return Err(format!("\"{text}\" has no port")),
        _ => return Err(format!("\"{text}\" is not an address and a port")),
    };
    let unicast = match address.ip() {
        IpAddr::V4(a) => {
            !(a.octets()[0] == 0
                || a.is_loopback()
                || a.is_link_local()
                || a.is_multicast()
                || a.is_broadcast())
        }
        IpAddr::V6(a) => {
            !(a.is_unspecified()
                || a.is_loopback()
                || a.is_unicast_link_local()
                || a.is_multicast())
        }
    };
    if !unicast {
        return Err(format!("\"{text}\" is no unicast address that is routed"));
    }
    if address.port() == 0 {
        return Err(format!("\"{text}\" has port 0"));
    }
    Ok(address)
}

/// `attach = {link, {link, "ingress"}, ...}`; a link alone means both directions.
fn places(options: &mut Options) -> Result<Vec<(Link, &'static str)>> {
    const SIDES: [&str; 4] = ["ingress", "egress", "primary", "peer"];
    let shape = |options: &Options, i: usize, value: &Value| {
        let got = expected::describe(value);
        options.bad(format!("attach[{i}] must be a Link, or {{link, side}}, got {got}")).hint(
            "attach = {eth0} for both directions, or {{eth0, \"ingress\"}, {eth1, \"egress\"}}",
        )
    };
    let mut found: Vec<(Link, &'static str)> = Vec::new();
    for (i, value) in options.required::<Vec<Value>>("attach")?.into_iter().enumerate() {
        let (link, sides) = match (&value, held::<Link>(&value)) {
            (_, Some(link)) => (link, SIDES[..2].to_vec()),
            (Value::Table(pair), _) => {
                let link = held::<Link>(&pair.raw_get(1).map_err(from_lua)?)
                    .ok_or_else(|| shape(options, i + 1, &value))?;
                let word: Value = pair.raw_get(2).map_err(from_lua)?;
                let word = word.as_string().map(|s| s.to_string_lossy()).unwrap_or_default();
                let side = SIDES.into_iter().find(|side| *side == word).ok_or_else(|| {
                    options
                        .bad(format!("there is no side \"{word}\""))
                        .hint("\"ingress\" or \"egress\" of any link, \"primary\" or \"peer\" of a netkit's primary end")
                })?;
                (link, vec![side])
            }
            _ => return Err(shape(options, i + 1, &value)),
        };
        for side in sides {
            if found.iter().any(|(l, s)| l.identity() == link.identity() && *s == side) {
                return Err(options.bad(format!("attach names {}, {side} twice", link.name())));
            }
            found.push((link.clone(), side));
        }
    }
    let Some((first, _)) = found.first() else {
        return Err(options.bad("attach names no link").hint("attach = {eth0}"));
    };
    if let Some((other, _)) = found.iter().find(|(l, _)| l.net().cookie() != first.net().cookie()) {
        let text = format!("{} and {} are in different namespaces", first.name(), other.name());
        let error = Error::new(options.op().to_owned(), "EXDEV", text);
        return Err(error.subject(options.subject().unwrap_or_default().to_owned()));
    }
    Ok(found)
}

/// `backends(op, subject, vip, list)` -> the backends, checked.
fn backends(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Data> {
    let (options, vip) = about(&mut args)?;
    let list: Value = args.any();
    let Value::Table(list) = list else {
        let got = expected::describe(&list);
        return Err(options.bad(format!("takes an array of backends, got {got}")));
    };
    let count = list.pairs::<Value, Value>().count();
    if count != list.raw_len() {
        return Err(options
            .bad("takes an array of backends")
            .hint("{{address = ..., port = ...}, ...}"));
    }
    let list = list.sequence_values::<Value>().collect::<mlua::Result<_>>().map_err(from_lua)?;
    Ok(Data::Array(read_backends(&options, "", vip, list)?))
}

/// `backend(op, subject, vip, value)` -> one backend, checked.
fn one_backend(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Data> {
    let (options, vip) = about(&mut args)?;
    let value = args.any();
    read_backend(&options, "backend", vip, value).map(|(_, backend)| backend)
}

/// What the errors of a method are about, and the service's address.
fn about(args: &mut Args) -> Result<(Options, SocketAddr)> {
    let op: String = args.required("op")?;
    let subject: String = args.required("subject")?;
    let vip: String = args.required("vip")?;
    let vip = vip.parse().map_err(|_| Error::invalid(op.clone(), "no address"))?;
    let mut options = Options::new(&op, Value::Nil)?;
    options.set_subject(subject);
    Ok((options, vip))
}

fn read_backends(
    options: &Options,
    word: &str,
    vip: SocketAddr,
    list: Vec<Value>,
) -> Result<Vec<Data>> {
    if list.len() > MOST_BACKENDS {
        let text = format!("{} backends, a service has at most {MOST_BACKENDS}", list.len());
        let error = Error::new(options.op().to_owned(), "E2BIG", text);
        return Err(error.subject(options.subject().unwrap_or_default().to_owned()));
    }
    let mut seen = std::collections::HashSet::new();
    let mut all = Vec::with_capacity(list.len());
    for (i, value) in list.into_iter().enumerate() {
        let (address, backend) = read_backend(options, &format!("{word}[{}]", i + 1), vip, value)?;
        if !seen.insert(address) {
            return Err(options.bad(format!("{word}[{}] {address} is named twice", i + 1)));
        }
        all.push(backend);
    }
    Ok(all)
}

/// `"10.0.0.2:80"`, or {address=, port=, weight=}: port and weight are the service's and 1 by default.
fn read_backend(
    options: &Options,
    place: &str,
    vip: SocketAddr,
    value: Value,
) -> Result<(SocketAddr, Data)> {
    let subject = options.subject().unwrap_or_default();
    let (address, weight) = match value {
        Value::Table(table) => {
            let mut one = Options::new(options.op(), Value::Table(table))?;
            one.set_subject(format!("{subject}, {place}"));
            let text: String = one.required("address")?;
            let port = one.get::<u16>("port")?;
            let weight = one.get::<u16>("weight")?.unwrap_or(1);
            let address = endpoint(&text, Some(port.unwrap_or(vip.port())))
                .map_err(|problem| one.bad(format!("address {problem}")))?;
            if port.is_some_and(|port| port != address.port()) {
                return Err(one.bad("address and port name different ports"));
            }
            // A backend of s:stats() can be given back.
            for word in ["state", "begun", "requests", "replies"] {
                one.raw(word)?;
            }
            one.finish()?;
            (address, weight)
        }
        Value::String(text) => {
            let text = text.to_string_lossy();
            let address = endpoint(&text, Some(vip.port()))
                .map_err(|problem| options.bad(format!("{place} {problem}")))?;
            (address, 1)
        }
        other => {
            let got = expected::describe(&other);
            return Err(options
                .bad(format!("{place} must be a backend, got {got}"))
                .hint("{address = \"10.0.0.2\", port = 80, weight = 1}, or \"10.0.0.2:80\""));
        }
    };
    if address.is_ipv4() != vip.is_ipv4() {
        return Err(options.bad(format!("{place} {address} and {vip} are of different families")));
    }
    if address == vip {
        return Err(options.bad(format!("{place} {address} is the service itself")));
    }
    let backend = record! {
        address: address.ip(), port: address.port(), weight: weight, mapped: mapped(address.ip()),
    };
    Ok((address, backend))
}

/// `table({{number=, address=, port=, weight=}, ...})` -> the table as the map holds it.
fn table(lua: &Lua, _: &Rc<Host>, mut args: Args) -> Result<mlua::LuaString> {
    let list: Vec<Table> = args.required("members")?;
    let member = |table: Table| -> mlua::Result<Member> {
        let address: String = table.raw_get("address")?;
        Ok(Member {
            number: table.raw_get("number")?,
            address: address.parse().map_err(mlua::Error::external)?,
            port: table.raw_get("port")?,
            weight: table.raw_get("weight")?,
        })
    };
    let members: Vec<Member> =
        list.into_iter().map(member).collect::<mlua::Result<_>>().map_err(from_lua)?;
    let mut bytes: Vec<u8> = lb::table(&members).into_iter().flat_map(u16::to_ne_bytes).collect();
    // `struct table` ends with padding to eight bytes.
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    lua.create_string(bytes).map_err(from_lua)
}

/// `established(flows, protocol, idle)` -> connections that are alive, by backend number.
fn established(lua: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Table> {
    let flows = args.required::<Given<Map>>("flows")?.0;
    let alive = match args.required::<u8>("protocol")? {
        TCP => Alive::NotClosed,
        _ => Alive::SeenWithin(args.required("idle")?),
    };
    let counts = lb::established(flows.kernel(), alive)?;
    lua.create_table_from(counts).map_err(from_lua)
}

/// `flows_of(flows, number)` -> the keys of a backend's connections, packed, and how many connections there are.
fn flows_of(lua: &Lua, _: &Rc<Host>, mut args: Args) -> Result<(mlua::LuaString, usize)> {
    let flows = args.required::<Given<Map>>("flows")?.0;
    let (keys, count) = lb::of_backend(flows.kernel(), args.required("number")?)?;
    Ok((lua.create_string(keys).map_err(from_lua)?, count))
}
