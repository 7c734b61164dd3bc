//! Policies as Lua tables, both ways: the links they name come back as the handles they were given as.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use mlua::{IntoLua, Lua, Table, Value};

use crate::Result;
use crate::api::error::{from_lua, raise};
use crate::api::handle::{Given, intern};
use crate::api::link::{Link, local_link};
use crate::api::netns::Net;
use crate::api::option::Options;
use crate::api::route::ip_protocol;
use crate::program::router::{self, Action, Device, Hop, Hops, Match, Policy, Prefix};

/// The links that policies named, so that they come back as the handles they were given as.
pub struct Devices {
    /// The router's.
    net: Net,
    known: RefCell<HashMap<u32, (Link, Device)>>,
    /// Links by the names that the set being read gives them.
    names: RefCell<HashMap<String, Link>>,
}

impl Devices {
    pub fn new(net: Net) -> Devices {
        Devices { net, known: RefCell::default(), names: RefCell::default() }
    }

    /// The link that an option names, which has to be in the router's namespace.
    fn option(&self, options: &mut Options, word: &'static str) -> Result<Option<Device>> {
        let link = match options.raw(word)? {
            Value::Nil => return Ok(None),
            Value::String(name) => self.named(options, word, name.to_string_lossy())?,
            _ => options.required::<Given<Link>>(word)?.0,
        };
        if link.net().cookie() != self.net.cookie() {
            let place = |net: &Net| match net.name() {
                "" => "the host's namespace".to_owned(),
                name => format!("namespace {name}"),
            };
            let text = format!(
                "{word} {} is in {}, the router in {}",
                link.name(),
                place(&link.net()),
                place(&self.net)
            );
            let error = crate::Error::new(options.op().to_owned(), "EXDEV", text)
                .hint("all hooks and devices of a router must share one namespace");
            return Err(match options.subject() {
                Some(subject) => error.subject(subject),
                None => error,
            });
        }
        let index = link.index();
        let mut known = self.known.borrow_mut();
        let (_, device) =
            known.entry(index).and_modify(|known| known.0 = link.clone()).or_insert_with(|| {
                let name = link.name().into();
                (link, Device { index, name })
            });
        Ok(Some(device.clone()))
    }

    /// A name means a link of the router's namespace; it is looked up once a set, which can be large.
    fn named(&self, options: &mut Options, word: &'static str, name: String) -> Result<Link> {
        if let Some(link) = self.names.borrow().get(&name) {
            return Ok(link.clone());
        }
        let link = local_link(options, &self.net, word)?.expect("it was given");
        self.names.borrow_mut().insert(name, link.clone());
        Ok(link)
    }

    /// Before each set: names can mean other links than they did.
    pub fn forget_names(&self) {
        self.names.borrow_mut().clear();
    }

    pub fn give(&self, lua: &Lua, device: &Device) -> Result<Value> {
        match self.known.borrow().get(&device.index) {
            Some((link, _)) => intern(lua, link.clone()).map(Value::UserData),
            None => device.name.as_ref().into_lua(lua).map_err(from_lua),
        }
    }
}

/// A policy from its table; `place` says which of several, for errors.
pub fn policy(
    outer: &Options,
    place: &dyn Fn() -> String,
    table: Table,
    devices: &Devices,
) -> Result<Policy> {
    // What an error is about is only worked out when there is one: sets can be large.
    read_policy(outer, None, table.clone(), devices)
        .or_else(|_| read_policy(outer, Some(&place()), table, devices))
}

fn read_policy(
    outer: &Options,
    place: Option<&str>,
    table: Table,
    devices: &Devices,
) -> Result<Policy> {
    let mut options = Options::new(outer.op(), Value::Table(table))?;
    if let Some(place) = place {
        options.set_subject(place);
    }
    let matching = matching(&mut options)?;
    if let Some(place) = place.filter(|p| matching != Match::default() || !p.is_empty()) {
        let text = matching.to_string();
        options.set_subject(if place.is_empty() { text } else { format!("{place} {text}") });
    }
    let word = options.get::<String>("action")?;
    let hops = hops(&mut options, devices)?;
    let action = match word.as_deref() {
        None | Some("route") => {
            if hops.is_empty() {
                return Err(options
                    .bad("says neither where to go nor what to do")
                    .hint("give via, dev or nexthops, or action = \"drop\" or \"pass\""));
            }
            Action::Route(hops)
        }
        Some(action @ ("drop" | "pass")) => {
            if !hops.is_empty() {
                return Err(options.bad(format!(
                    "action \"{action}\" goes nowhere: via, dev and nexthops are for \"route\""
                )));
            }
            if action == "drop" { Action::Drop } else { Action::Pass }
        }
        Some(other) => {
            return Err(options
                .bad(format!("there is no action \"{other}\""))
                .hint("\"route\", \"drop\" or \"pass\""));
        }
    };
    let mut policy = Policy::new(matching, action);
    if let Some(priority) = options.get("priority")? {
        policy.priority = priority;
    }
    policy.mirror = devices.option(&mut options, "mirror")?;
    options.finish()?;
    Ok(policy)
}

pub fn matching(options: &mut Options) -> Result<Match> {
    Ok(Match {
        from: prefix(options, "from")?,
        to: prefix(options, "to")?,
        proto: ip_protocol(options, "proto")?,
        sport: options.get("sport")?,
        dport: options.get("dport")?,
        mark: options.get("mark")?,
        vlan: options.get("vlan")?,
    })
}

fn prefix(options: &mut Options, word: &'static str) -> Result<Option<Prefix>> {
    let Some(network) = options.network(word)? else { return Ok(None) };
    Prefix::new(network.ip(), network.prefix()).map(Some)
}

/// `via` and `dev` are one hop; `nexthops` several.
fn hops(options: &mut Options, devices: &Devices) -> Result<Hops> {
    let via: Option<IpAddr> = options.get("via")?;
    let dev = devices.option(options, "dev")?;
    let onlink = options.flag("onlink")?;
    let many: Option<Vec<Table>> = options.get("nexthops")?;
    let Some(many) = many else {
        let one = (via.is_some() || dev.is_some()).then_some(Hop { via, dev, weight: 1, onlink });
        return Ok(one.into_iter().collect());
    };
    if via.is_some() || dev.is_some() {
        return Err(options.bad("takes via and dev, or nexthops, not both"));
    }
    many.into_iter()
        .enumerate()
        .map(|(i, table)| {
            let mut hop = Options::new(options.op(), Value::Table(table))?;
            let policy = options.subject().map_or_else(String::new, |policy| format!("{policy}, "));
            hop.set_subject(format!("{policy}nexthops[{}]", i + 1));
            let one = Hop {
                via: hop.get("via")?,
                dev: devices.option(&mut hop, "dev")?,
                weight: hop.get("weight")?.unwrap_or(1),
                onlink: hop.flag("onlink")? || onlink,
            };
            if one.via.is_none() && one.dev.is_none() {
                return Err(hop.bad("each needs via, dev or both"));
            }
            hop.finish()?;
            Ok(one)
        })
        .collect()
}

pub fn policy_table(lua: &Lua, devices: &Devices, one: &Policy) -> Result<Table> {
    let build = || -> mlua::Result<Table> {
        let table = lua.create_table()?;
        let m = &one.matching;
        table.raw_set("from", m.from.map(|p| p.to_string()))?;
        table.raw_set("to", m.to.map(|p| p.to_string()))?;
        table.raw_set("proto", m.proto.map(router::protocol_name))?;
        table.raw_set("sport", m.sport)?;
        table.raw_set("dport", m.dport)?;
        table.raw_set("mark", m.mark)?;
        table.raw_set("vlan", m.vlan)?;
        if m.is_conditional() {
            table.raw_set("priority", one.priority)?;
        }
        let give = |device: &Device| devices.give(lua, device).map_err(raise);
        if let Some(mirror) = &one.mirror {
            table.raw_set("mirror", give(mirror)?)?;
        }
        let word = match &one.action {
            Action::Route(hops) => {
                match hops.as_slice() {
                    [hop] => {
                        table.raw_set("via", hop.via.map(|via| via.to_string()))?;
                        table.raw_set("dev", hop.dev.as_ref().map(give).transpose()?)?;
                        table.raw_set("onlink", hop.onlink.then_some(true))?;
                    }
                    many => {
                        let hops = many
                            .iter()
                            .map(|hop| hop_table(lua, devices, hop).map_err(raise))
                            .collect::<mlua::Result<Vec<_>>>()?;
                        table.raw_set("nexthops", lua.create_sequence_from(hops)?)?;
                    }
                }
                "route"
            }
            Action::Drop => "drop",
            Action::Pass => "pass",
        };
        table.raw_set("action", word)?;
        Ok(table)
    };
    build().map_err(from_lua)
}

pub fn hop_table(lua: &Lua, devices: &Devices, hop: &Hop) -> Result<Table> {
    let build = || -> mlua::Result<Table> {
        let table = lua.create_table()?;
        table.raw_set("via", hop.via.map(|via| via.to_string()))?;
        if let Some(device) = &hop.dev {
            table.raw_set("dev", devices.give(lua, device).map_err(raise)?)?;
        }
        table.raw_set("weight", hop.weight)?;
        table.raw_set("onlink", hop.onlink.then_some(true))?;
        Ok(table)
    };
    build().map_err(from_lua)
}
