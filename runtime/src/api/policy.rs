//! `policy`: the policy router, and policies as Lua tables.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{IntoLua, Lua, Table, Value};

use super::error::from_lua;
use super::handle::{Class, Given, Handle, Returned, held, intern};
use super::host::Host;
use super::link::{Link, local_link};
use super::module::{Args, Module};
use super::netns::Net;
use super::option::{FromOption, Options, expected};
use super::route::ip_protocol;
use crate::Result;
use crate::kernel::bpf::Target;
use crate::own::Owned;
use crate::program::router::{
    self, Action, Attach, Count, Device, Explanation, Hook, Hop, Match, Policy, Prefix, Query,
    RouterSpec, Totals,
};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "policy").function("router", new).build()
}

/// `policy.router{name=, attach={{link, "egress"}, ...}, default=policy}`
fn new(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Router>> {
    let mut options = args.options()?;
    let name = options.get::<String>("name")?.unwrap_or_else(|| "router".to_owned());
    options.set_subject(name.clone());
    let (links, attach) = attachments(&mut options)?;
    // What a netkit's primary end sends is routed where the other end receives it.
    let net = match attach[0].hook {
        Hook::Primary => links[0].peer(host, options.op())?.map_or(links[0].net(), |end| end.net()),
        _ => links[0].net(),
    };
    let devices =
        Devices { net: net.clone(), known: RefCell::default(), names: RefCell::default() };
    let fallback = match options.get::<Table>("default")? {
        Some(table) => Some(policy(&options, &|| "default".to_owned(), table, &devices)?),
        None => None,
    };
    options.finish()?;
    let netns = net.netns()?;
    let spec =
        RouterSpec { name: name.clone(), netns: netns.fd.clone(), attach, default: fallback };
    let made = router::Router::new(spec)?;
    let undone = made.clone();
    let number = host.ledger.add(Owned::Other {
        netns: Some(netns),
        kind: "router",
        name: name.clone(),
        undo: Arc::new(move || undone.detach()),
    })?;
    Ok(Returned(Router(Rc::new(Inner { name, router: made, devices, number }))))
}

fn attachments(options: &mut Options) -> Result<(Vec<Link>, Vec<Attach>)> {
    const HOOKS: &[(&str, Hook)] = &[
        ("ingress", Hook::Ingress),
        ("egress", Hook::Egress),
        ("primary", Hook::Primary),
        ("peer", Hook::Peer),
    ];
    let pairs = options.required::<Table>("attach")?;
    let (mut links, mut attach): (Vec<Link>, Vec<Attach>) = (Vec::new(), Vec::new());
    for (link, word) in link_and_hook(options, &pairs)? {
        let Some((_, hook)) = HOOKS.iter().find(|(name, _)| *name == word) else {
            return Err(options
                .bad(format!("there is no hook \"{word}\""))
                .hint("\"ingress\" or \"egress\" of any link, \"primary\" or \"peer\" of a netkit's primary end"));
        };
        let open = link.net().open()?;
        if attach.iter().any(|a| {
            a.target.index == link.index() && a.hook == *hook && a.target.netns.same(&open.netns.fd)
        }) {
            return Err(options.bad(format!("attach names {}, {word} twice", link.name())));
        }
        attach.push(Attach {
            target: Target::new(&open.netns.fd, link.index(), link.name()),
            hook: *hook,
        });
        links.push(link);
    }
    Ok((links, attach))
}

/// The rows of `attach`, which is an array of `{link, hook}`.
fn link_and_hook(options: &Options, rows: &Table) -> Result<Vec<(Link, String)>> {
    let shape =
        || options.bad("attach must be an array of {link, hook}, such as {{eth0, \"egress\"}}");
    let first: Value = rows.raw_get(1).map_err(from_lua)?;
    if rows.raw_len() == 0 || !matches!(first, Value::Table(_)) {
        let single = held::<Link>(&first).is_some();
        let hint = "one hook is an array of one: attach = {{link, \"egress\"}}";
        return Err(if single { shape().hint(hint) } else { shape() });
    }
    rows.sequence_values::<Value>()
        .map(|row| {
            let Value::Table(row) = row.map_err(from_lua)? else { return Err(shape()) };
            let link: Value = row.raw_get(1).map_err(from_lua)?;
            let hook: Value = row.raw_get(2).map_err(from_lua)?;
            match (held::<Link>(&link), hook) {
                (Some(link), Value::String(hook)) => Ok((link, hook.to_string_lossy())),
                (None, _) => match Given::<Link>::instead(&link) {
                    Some(hint) => Err(shape().hint(hint)),
                    None => Err(shape()),
                },
                _ => Err(shape()),
            }
        })
        .collect()
}

/// The links that policies named, so that they come back as the handles they were given as.
struct Devices {
    /// The router's.
    net: Net,
    known: RefCell<HashMap<u32, Link>>,
    /// Links by the names that the set being read gives them.
    names: RefCell<HashMap<String, Link>>,
}

impl Devices {
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
        self.known.borrow_mut().insert(link.index(), link.clone());
        Ok(Some(Device { index: link.index(), name: link.name() }))
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
    fn forget_names(&self) {
        self.names.borrow_mut().clear();
    }

    fn give(&self, lua: &Lua, device: &Device) -> Result<Value> {
        match self.known.borrow().get(&device.index) {
            Some(link) => intern(lua, link.clone()).map(Value::UserData),
            None => device.name.as_str().into_lua(lua).map_err(from_lua),
        }
    }
}

/// A router as scripts hold it.
#[derive(Clone)]
pub struct Router(Rc<Inner>);

struct Inner {
    name: String,
    router: router::Router,
    devices: Devices,
    number: u64,
}

impl Handle for Router {
    const TYPE: &'static str = "Router";
    const WORD: &'static str = "router";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.0.name.clone()))
            .method("set", set)
            .method("add", add)
            .method("remove", remove)
            .method("list", list)
            .method("clear", |_, _, this, _| this.0.router.clear())
            .method("stats", stats)
            .method("explain", explain)
            .method("detach", |_, host, this, _| {
                this.0.router.detach()?;
                host.ledger.forget(this.0.number);
                Ok(())
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!("Router({}, {} policies)", self.0.name, self.0.router.list().len())
    }
}

/// Replaces the whole set at once.
fn set(_: &Lua, _: &Rc<Host>, this: &Router, mut args: Args) -> Result<()> {
    let options = Options::new(args.op(), Value::Nil)?;
    let table: Table = args.required("policies")?;
    this.0.devices.forget_names();
    let policies = table
        .sequence_values::<Value>()
        .enumerate()
        .map(|(i, value)| match value.map_err(from_lua)? {
            Value::Table(one) => policy(&options, &|| format!("[{}]", i + 1), one, &this.0.devices),
            other => Err(options.bad(format!(
                "[{}] must be a policy, got {}",
                i + 1,
                expected::describe(&other)
            ))),
        })
        .collect::<Result<Vec<Policy>>>()?;
    if policies.is_empty() && table.pairs::<Value, Value>().next().is_some() {
        return Err(options
            .bad("takes an array of policies")
            .hint("r:set{{from = ..., via = ...}, ...}"));
    }
    this.0.router.set(policies)
}

fn add(_: &Lua, _: &Rc<Host>, this: &Router, mut args: Args) -> Result<()> {
    let options = Options::new(args.op(), Value::Nil)?;
    this.0.devices.forget_names();
    let one = policy(&options, &String::new, args.required("policy")?, &this.0.devices)?;
    this.0.router.add(one)
}

/// Takes a policy, or what one matches.
fn remove(_: &Lua, _: &Rc<Host>, this: &Router, mut args: Args) -> Result<()> {
    let table: Table = args.required("policy")?;
    let mut options = Options::new(args.op(), Value::Table(table))?;
    let matching = matching(&mut options)?;
    for word in ["via", "dev", "nexthops", "action", "priority", "mirror", "onlink"] {
        options.raw(word)?;
    }
    options.finish()?;
    this.0.router.remove(&matching)
}

fn list(lua: &Lua, _: &Rc<Host>, this: &Router, _: Args) -> Result<Table> {
    let tables = this
        .0
        .router
        .list()
        .iter()
        .map(|one| policy_table(lua, this, one))
        .collect::<Result<Vec<_>>>()?;
    lua.create_sequence_from(tables).map_err(from_lua)
}

/// An array of {policy, packets, bytes}, and `.total`.
fn stats(lua: &Lua, _: &Rc<Host>, this: &Router, _: Args) -> Result<Table> {
    let stats = this.0.router.stats();
    let build = || -> mlua::Result<Table> {
        let all = lua.create_table_with_capacity(stats.policies.len(), 1)?;
        for (i, one) in stats.policies.iter().enumerate() {
            let row = lua.create_table_with_capacity(0, 3)?;
            row.raw_set(
                "policy",
                policy_table(lua, this, &one.policy).map_err(super::error::raise)?,
            )?;
            row.raw_set("packets", one.packets as i64)?;
            row.raw_set("bytes", one.bytes as i64)?;
            all.raw_set(i + 1, row)?;
        }
        all.raw_set("total", totals(lua, &stats.total)?)?;
        Ok(all)
    };
    build().map_err(from_lua)
}

fn totals(lua: &Lua, total: &Totals) -> mlua::Result<Table> {
    let rows: [(&str, Count); 12] = [
        ("routed", total.routed),
        ("passed", total.passed),
        ("dropped", total.dropped),
        ("unmatched", total.unmatched),
        ("local", total.local),
        ("too_big", total.too_big),
        ("answered", total.answered),
        ("redirected", total.redirected),
        ("no_hop", total.no_hop),
        ("failed", total.failed),
        ("mirrored", total.mirrored),
        ("expired", total.expired),
    ];
    let table = lua.create_table_with_capacity(0, rows.len())?;
    for (word, count) in rows {
        let one = lua.create_table_with_capacity(0, 2)?;
        one.raw_set("packets", count.packets as i64)?;
        one.raw_set("bytes", count.bytes as i64)?;
        table.raw_set(word, one)?;
    }
    Ok(table)
}

/// Which policy and hop would take this packet, and why.
fn explain(lua: &Lua, _: &Rc<Host>, this: &Router, mut args: Args) -> Result<Table> {
    let mut options = args.options()?;
    let query = Query {
        from: options.required::<IpAddr>("from")?,
        to: options.required::<IpAddr>("to")?,
        proto: ip_protocol(&mut options, "proto")?,
        sport: options.get("sport")?,
        dport: options.get("dport")?,
        mark: options.get("mark")?.unwrap_or(0),
        vlan: options.get("vlan")?,
    };
    if query.from.is_ipv4() != query.to.is_ipv4() {
        return Err(options.bad("from and to are of different families"));
    }
    options.finish()?;
    let Explanation { policy, hop, why, skipped } = this.0.router.explain(&query);
    let table = lua.create_table().map_err(from_lua)?;
    let fill = || -> mlua::Result<()> {
        let convert = |one: &Policy| policy_table(lua, this, one).map_err(super::error::raise);
        table.raw_set("policy", policy.as_ref().map(convert).transpose()?)?;
        table.raw_set(
            "hop",
            hop.as_ref()
                .map(|hop| hop_table(lua, this, hop).map_err(super::error::raise))
                .transpose()?,
        )?;
        table.raw_set("why", why.as_str())?;
        let skipped = skipped.iter().map(convert).collect::<mlua::Result<Vec<_>>>()?;
        table.raw_set("skipped", lua.create_sequence_from(skipped)?)
    };
    fill().map_err(from_lua)?;
    Ok(table)
}

// Policies as tables ----------------------------------------------------------------------------------------------

/// A policy from its table; `place` says which of several, for errors.
fn policy(
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

fn matching(options: &mut Options) -> Result<Match> {
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
fn hops(options: &mut Options, devices: &Devices) -> Result<Vec<Hop>> {
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

fn policy_table(lua: &Lua, router: &Router, one: &Policy) -> Result<Table> {
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
        let give =
            |device: &Device| router.0.devices.give(lua, device).map_err(super::error::raise);
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
                            .map(|hop| hop_table(lua, router, hop).map_err(super::error::raise))
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

fn hop_table(lua: &Lua, router: &Router, hop: &Hop) -> Result<Table> {
    let build = || -> mlua::Result<Table> {
        let table = lua.create_table()?;
        table.raw_set("via", hop.via.map(|via| via.to_string()))?;
        if let Some(device) = &hop.dev {
            table
                .raw_set("dev", router.0.devices.give(lua, device).map_err(super::error::raise)?)?;
        }
        table.raw_set("weight", hop.weight)?;
        table.raw_set("onlink", hop.onlink.then_some(true))?;
        Ok(table)
    };
    build().map_err(from_lua)
}
