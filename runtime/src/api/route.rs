//! Routes, rules and neighbours of a namespace: `ns:route{}`, `ns:rules{}` and their siblings.

use std::net::IpAddr;
use std::rc::Rc;

use ipnetwork::IpNetwork;
use mlua::{Lua, Table, Value};

use super::address::{Mac, parse_cidr};
use super::error::said;
use super::handle::{Class, Handle, Returned, held};
use super::host::Host;
use super::link::{Link, local_link};
use super::module::Args;
use super::netns::Net;
use super::option::{Options, expected};
use super::value::Data;
use crate::kernel::link as kernel_link;
use crate::kernel::neigh::{self, NeighInfo};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::route::{self, NextHop, RouteInfo};
use crate::kernel::rule::{self, Action, Rule};
use crate::own::Owned;
use crate::record;
use crate::{Error, Result};

/// What `Netns` handles get from here.
pub fn methods(class: &mut Class<'_, Net>) {
    class
        .method("route", add_route)
        .method("rule", add_rule)
        .method("neigh", add_neigh)
        .method("routes", routes)
        .method("rules", rules)
        .method("neighs", neighs);
}

/// A route, rule or neighbour as scripts hold it.
#[derive(Clone)]
pub struct Entry<K>(Rc<Kept<K>>);

struct Kept<K> {
    net: Net,
    what: K,
    /// For people: `10.0.0.0/8 via 10.1.0.1`.
    text: String,
    number: u64,
}

/// What differs between routes, rules and neighbours.
pub trait Kind: Clone + Send + Sync + 'static {
    const TYPE: &'static str;
    const WORD: &'static str;
    /// The part of its text that needs no look at the kernel.
    fn text(&self) -> String;
    /// The link it names apart from its text, if any.
    fn dev(&self) -> Option<u32> {
        None
    }
    /// As the ledger holds it.
    fn owned(&self, netns: Netns, text: String) -> Owned;
    fn delete(&self, netlink: &Netlink) -> Result<()>;
    fn info(&self, netlink: &Netlink) -> Result<Option<Data>>;
}

impl<K: Kind> Handle for Entry<K> {
    const TYPE: &'static str = K::TYPE;
    const WORD: &'static str = K::WORD;

    fn class(class: &mut Class<'_, Self>) {
        class
            .method("delete", |_, host, this, args| {
                let open = this.0.net.open()?;
                if host.stage.disown(this.0.number)? {
                    return Ok(());
                }
                this.0
                    .what
                    .delete(&open.netlink)
                    .map_err(|e| e.operation(args.op().to_owned()).subject(this.0.text.clone()))?;
                host.ledger.forget(this.0.number);
                Ok(())
            })
            .method("info", |_, _, this, args| {
                let open = this.0.net.open()?;
                this.0.what.info(&open.netlink)?.ok_or_else(|| {
                    Error::new(args.op().to_owned(), "ENODEV", format!("the {} is gone", K::WORD))
                        .subject(this.0.text.clone())
                })
            });
    }

    /// Each was added once: an equal one that comes after its deletion is another.
    fn identity(&self) -> String {
        self.0.number.to_string()
    }

    fn display(&self) -> String {
        match self.0.net.name() {
            "" => format!("{}({})", K::TYPE, self.0.text),
            netns => format!("{}({} in netns {netns})", K::TYPE, self.0.text),
        }
    }
}

/// Adds it, now or when the load commits.
fn keep<K: Kind>(
    lua: &Lua,
    host: &Host,
    net: &Net,
    what: K,
    op: &str,
) -> Result<Returned<Entry<K>>> {
    let open = net.open()?;
    let mut text = what.text();
    if let Some(dev) = what.dev() {
        let name = kernel_link::info(&open.netlink, dev).map(|link| link.name);
        text += &format!(" dev {}", name.unwrap_or_else(|_| dev.to_string()));
    }
    let owned = what.owned(open.netns.clone(), text.clone());
    let number = host
        .stage
        .own(owned, &open.netlink, || said(lua, op).about(text.as_str()))
        .map_err(|e| e.operation(op.to_owned()).about(text.clone()))?;
    Ok(Returned(Entry(Rc::new(Kept { net: net.clone(), what, text, number }))))
}

/// A `dev` option: a Link of this namespace, or its name.
fn dev(options: &mut Options, net: &Net) -> Result<Option<u32>> {
    Ok(local_link(options, net, "dev")?.map(|link| link.index()))
}

/// `"default"` or a CIDR; a bare address is a host route.
fn destination(options: &mut Options) -> Result<Option<Option<IpNetwork>>> {
    let Some(text) = options.get::<String>("dst")? else { return Ok(None) };
    options.set_subject(text.clone());
    if text == "default" {
        return Ok(Some(None));
    }
    if let Err(problem) = parse_cidr(&text) {
        return Err(options.bad(format!("dst {problem}, nor \"default\"")));
    }
    // "0.0.0.0/0" and "::/0" are the default route, as with `ip`; the family is told apart below.
    options.parse_network("dst", &text).map(|net| Some(Some(net)))
}

/// A word or a number, as iproute2 takes tables and protocols.
fn word(options: &mut Options, name: &'static str) -> Result<Option<String>> {
    match options.raw(name)? {
        Value::Nil => Ok(None),
        Value::Integer(i) => Ok(Some(i.to_string())),
        Value::String(text) => Ok(Some(text.to_string_lossy())),
        other => {
            let got = expected::describe(&other);
            Err(options.bad(format!("{name} must be a name or a number, got {got}")))
        }
    }
}

/// A routing table. The kernel reads 0 (RT_TABLE_UNSPEC) as "any": a route would land in main, a rule in one that is empty.
fn table(options: &mut Options) -> Result<Option<u32>> {
    let table = word(options, "table")?.map(|w| route::table(&w));
    match as_option(options, table)? {
        Some(0) => Err(options.bad("table 0 is none (RT_TABLE_UNSPEC)").hint(
            "\"main\" is 254, \"default\" 253, \"local\" 255; any other number is a table of its own",
        )),
        table => Ok(table),
    }
}

fn as_option<T>(options: &Options, parsed: Option<Result<T>>) -> Result<Option<T>> {
    parsed.transpose().map_err(|e| {
        let error = options.bad(e.message());
        match e.get_hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

// Routes --------------------------------------------------------------------------------------------------------------

fn add_route(
    lua: &Lua,
    host: &Rc<Host>,
    this: &Net,
    mut args: Args,
) -> Result<Returned<Entry<route::Options>>> {
    let mut options = args.options()?;
    let Some(dst) = destination(&mut options)? else {
        return Err(options
            .bad("dst is missing: it must be \"default\" or an address with a prefix length"));
    };
    let via: Option<IpAddr> = options.get("via")?;
    let src: Option<IpAddr> = options.get("src")?;
    let mut nexthops = Vec::new();
    for hop in options.get::<Vec<Table>>("nexthops")?.unwrap_or_default() {
        let mut hop = Options::new(args.op(), Value::Table(hop))?;
        hop.set_subject("nexthops");
        let weight: u16 = hop.get("weight")?.unwrap_or(1);
        if !(1..=256).contains(&weight) {
            return Err(hop.bad(format!("weight must be an integer from 1 to 256, got {weight}")));
        }
        let next = NextHop {
            via: hop.get("via")?,
            dev: dev(&mut hop, this)?,
            weight,
            onlink: hop.flag("onlink")?,
        };
        hop.finish()?;
        nexthops.push(next);
    }
    let table = table(&mut options)?;
    let scope = word(&mut options, "scope")?.map(|w| route::scope(&w));
    let protocol = word(&mut options, "proto")?.map(|w| route::protocol(&w));
    let kind = word(&mut options, "type")?.map(|w| route::kind(&w));
    let hop6 = nexthops.iter().find_map(|hop| hop.via).is_some_and(|via| via.is_ipv6());
    let ipv6 = family(&mut options)?.unwrap_or(false)
        || via.is_some_and(|a| a.is_ipv6())
        || src.is_some_and(|a| a.is_ipv6())
        || hop6;
    let wanted = route::Options {
        dst,
        family6: ipv6,
        via,
        dev: dev(&mut options, this)?,
        src,
        table,
        metric: options.get("metric")?,
        mtu: options.get("mtu")?,
        scope: as_option(&options, scope)?,
        protocol: as_option(&options, protocol)?,
        kind: as_option(&options, kind)?,
        nexthops,
        onlink: options.flag("onlink")?,
        tos: options.get("tos")?.unwrap_or(0),
    }
    .normalised();
    options.finish()?;
    keep(lua, host, this, wanted, args.op())
}

impl Kind for route::Options {
    const TYPE: &'static str = "Route";
    const WORD: &'static str = "route";

    fn text(&self) -> String {
        let mut text = match self.dst {
            Some(dst) => dst.to_string(),
            None if self.family6 => "default (inet6)".into(),
            None => "default".into(),
        };
        if let Some(via) = self.via {
            text += &format!(" via {via}");
        }
        for hop in &self.nexthops {
            let via = hop.via.map_or_else(String::new, |via| format!(" via {via}"));
            text += &format!(" nexthop{via} weight {}", hop.weight);
        }
        if let Some(table) = self.table {
            text += &format!(" table {table}");
        }
        if let Some(metric) = self.metric {
            text += &format!(" metric {metric}");
        }
        text
    }

    fn dev(&self) -> Option<u32> {
        self.dev
    }

    fn owned(&self, netns: Netns, text: String) -> Owned {
        Owned::Route { netns, route: Box::new(self.clone()), text }
    }

    fn delete(&self, netlink: &Netlink) -> Result<()> {
        route::delete(netlink, self)
    }

    fn info(&self, netlink: &Netlink) -> Result<Option<Data>> {
        let filter = route::Filter {
            table: self.table,
            ipv6: Some(self.family6),
            dst: Some(self.dst),
            dev: self.dev,
            via: self.via,
            ..Default::default()
        };
        let found = route::list(netlink, &filter)?;
        let same = |r: &RouteInfo| self.metric.is_none() || r.metric == self.metric;
        Ok(found.into_iter().find(same).map(|r| route_data(netlink, r)))
    }
}

fn route_data(netlink: &Netlink, r: RouteInfo) -> Data {
    let name =
        |index: Option<u32>| index.and_then(|i| kernel_link::info(netlink, i).ok()).map(|l| l.name);
    let nexthops: Vec<Data> = r
        .nexthops
        .iter()
        .map(|hop| record! { via: hop.via, dev: name(hop.dev), weight: u32::from(hop.weight), onlink: hop.onlink })
        .collect();
    record! {
        dst: r.dst.map_or("default".to_owned(), |d| d.to_string()), family: if r.ipv6 { "inet6" } else { "inet" },
        via: r.via, dev: name(r.dev), src: r.src, table: r.table, metric: r.metric, mtu: r.mtu,
        scope: route::scope_name(r.scope), proto: route::protocol_name(r.protocol), r#type: route::kind_name(r.kind),
        nexthops: if nexthops.is_empty() { Data::Nil } else { nexthops.into() },
        onlink: r.onlink.then_some(true), linkdown: r.linkdown.then_some(true),
    }
}

fn routes(_: &Lua, _: &Rc<Host>, this: &Net, mut args: Args) -> Result<Data> {
    let mut options = args.options()?;
    let dst = destination(&mut options)?;
    let table = match word(&mut options, "table")? {
        Some(all) if all == "all" => Some(Ok(route::ALL_TABLES)),
        word => word.map(|w| route::table(&w)),
    };
    let protocol = word(&mut options, "proto")?.map(|w| route::protocol(&w));
    let kind = word(&mut options, "type")?.map(|w| route::kind(&w));
    // "0.0.0.0/0" and "::/0" are one family's default route.
    let zero = dst.flatten().filter(|dst| dst.prefix() == 0);
    let dst = dst.map(|dst| dst.filter(|dst| dst.prefix() > 0));
    let filter = route::Filter {
        table: as_option(&options, table)?,
        ipv6: family(&mut options)?.or(zero.map(|dst| dst.is_ipv6())),
        dev: dev(&mut options, this)?,
        protocol: as_option(&options, protocol)?,
        kind: as_option(&options, kind)?,
        dst,
        via: options.get("via")?,
    };
    options.finish()?;
    let open = this.open()?;
    let found = route::list(&open.netlink, &filter)?;
    Ok(found.into_iter().map(|r| route_data(&open.netlink, r)).collect::<Vec<_>>().into())
}

fn family(options: &mut Options) -> Result<Option<bool>> {
    options.choice("family", &[("inet", false), ("inet6", true)])
}

// Rules ---------------------------------------------------------------------------------------------------------------

fn add_rule(
    lua: &Lua,
    host: &Rc<Host>,
    this: &Net,
    mut args: Args,
) -> Result<Returned<Entry<Rule>>> {
    let mut options = args.options()?;
    let wanted = rule(&mut options)?;
    options.finish()?;
    keep(lua, host, this, wanted, args.op())
}

fn rule(options: &mut Options) -> Result<Rule> {
    let table = table(options)?;
    let (fwmark, fwmask) = mark(options)?;
    let protocol = word(options, "proto")?.map(|w| route::protocol(&w));
    let action = match options.raw("goto")? {
        Value::Nil => options
            .choice(
                "type",
                &[
                    ("unicast", Action::Lookup),
                    ("nop", Action::Nop),
                    ("blackhole", Action::Blackhole),
                    ("unreachable", Action::Unreachable),
                    ("prohibit", Action::Prohibit),
                ],
            )?
            .unwrap_or_default(),
        _ => Action::Goto(options.required("goto")?),
    };
    Ok(Rule {
        ipv6: family(options)?.unwrap_or(false),
        from: options.network("from")?,
        to: options.network("to")?,
        iif: device_name(options, "iif")?,
        oif: device_name(options, "oif")?,
        fwmark,
        fwmask,
        ipproto: ip_protocol(options, "ipproto")?,
        sport: ports(options, "sport")?,
        dport: ports(options, "dport")?,
        tos: options.get("tos")?.unwrap_or(0),
        invert: options.flag("invert")?,
        table,
        priority: options.get("priority")?,
        suppress_prefixlength: options.get("suppress_prefixlength")?,
        protocol: as_option(options, protocol)?,
        action,
    })
}

fn device_name(options: &mut Options, name: &'static str) -> Result<Option<String>> {
    match options.raw(name)? {
        Value::Nil => Ok(None),
        Value::String(text) => Ok(Some(text.to_string_lossy())),
        other => match held::<Link>(&other) {
            Some(link) => Ok(Some(link.name())),
            None => {
                let got = expected::describe(&other);
                Err(options.bad(format!("{name} must be a Link or the name of one, got {got}")))
            }
        },
    }
}

/// A number, or `"0x10/0xff"`.
fn mark(options: &mut Options) -> Result<(Option<u32>, Option<u32>)> {
    let Some(text) = word(options, "fwmark")? else { return Ok((None, None)) };
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    let (mark, mask) = match text.split_once('/') {
        Some((mark, mask)) => (number(mark), Some(number(mask))),
        None => (number(&text), None),
    };
    match (mark, mask) {
        (Some(mark), None) => Ok((Some(mark), None)),
        (Some(mark), Some(Some(mask))) => Ok((Some(mark), Some(mask))),
        _ => Err(options.bad(format!("fwmark \"{text}\" is not a number, nor \"MARK/MASK\""))),
    }
}

/// The protocols that have names here, as /etc/protocols has them.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
];

/// A protocol of IP by name or number.
pub fn ip_protocol(options: &mut Options, name: &'static str) -> Result<Option<u8>> {
    let Some(text) = word(options, name)? else { return Ok(None) };
    match PROTOCOLS
        .iter()
        .find(|(known, _)| *known == text)
        .map(|(_, n)| *n)
        .or_else(|| text.parse().ok())
    {
        Some(number) => Ok(Some(number)),
        None => {
            let known: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            Err(options
                .bad(format!("{name} \"{text}\" is not a protocol"))
                .hint(format!("a number from 0 to 255, or one of {}", known.join(", "))))
        }
    }
}

/// A port, or `"1000-2000"`.
fn ports(options: &mut Options, name: &'static str) -> Result<Option<(u16, u16)>> {
    let Some(text) = word(options, name)? else { return Ok(None) };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(Some((first, last))),
        _ => {
            Err(options.bad(format!("{name} \"{text}\" is not a port, nor a range \"1000-2000\"")))
        }
    }
}

impl Kind for Rule {
    const TYPE: &'static str = "Rule";
    const WORD: &'static str = "rule";

    fn text(&self) -> String {
        self.to_string()
    }

    fn owned(&self, netns: Netns, text: String) -> Owned {
        Owned::Rule { netns, rule: Box::new(self.clone()), text }
    }

    fn delete(&self, netlink: &Netlink) -> Result<()> {
        rule::delete(netlink, self)
    }

    fn info(&self, netlink: &Netlink) -> Result<Option<Data>> {
        let ipv6 = self.from.or(self.to).map_or(self.ipv6, |net| net.is_ipv6());
        let same = |rule: &Rule| {
            (rule.from, rule.to, &rule.iif, &rule.oif, rule.fwmark)
                == (self.from, self.to, &self.iif, &self.oif, self.fwmark)
                && (self.priority.is_none() || rule.priority == self.priority)
                && (self.table.is_none() || rule.table == self.table)
        };
        Ok(rule::list(netlink, Some(ipv6))?.into_iter().find(same).map(rule_data))
    }
}

fn rule_data(r: Rule) -> Data {
    let range = |ports: Option<(u16, u16)>| match ports {
        Some((first, last)) if first == last => Data::Int(first.into()),
        Some((first, last)) => format!("{first}-{last}").into(),
        None => Data::Nil,
    };
    let (action, goto) = match r.action {
        Action::Lookup => ("unicast", None),
        Action::Goto(priority) => ("goto", Some(priority)),
        Action::Nop => ("nop", None),
        Action::Blackhole => ("blackhole", None),
        Action::Unreachable => ("unreachable", None),
        Action::Prohibit => ("prohibit", None),
    };
    record! {
        priority: r.priority.unwrap_or(0), family: if r.ipv6 { "inet6" } else { "inet" }, from: r.from, to: r.to,
        iif: r.iif, oif: r.oif, fwmark: r.fwmark, fwmask: r.fwmask, ipproto: r.ipproto.map(u32::from),
        sport: range(r.sport), dport: range(r.dport), table: r.table, r#type: action, goto: goto,
        invert: r.invert.then_some(true), suppress_prefixlength: r.suppress_prefixlength,
    }
}

fn rules(_: &Lua, _: &Rc<Host>, this: &Net, mut args: Args) -> Result<Data> {
    let mut options = args.options()?;
    let ipv6 = family(&mut options)?;
    let priority: Option<u32> = options.get("priority")?;
    let table = word(&mut options, "table")?.map(|w| route::table(&w));
    let table = as_option(&options, table)?;
    let from = options.network("from")?;
    let to = options.network("to")?;
    options.finish()?;
    let wanted = |r: &Rule| {
        (priority.is_none() || r.priority == priority)
            && (table.is_none() || r.table == table)
            && (from.is_none() || r.from == from)
            && (to.is_none() || r.to == to)
    };
    let found = rule::list(&this.open()?.netlink, ipv6)?;
    Ok(found.into_iter().filter(wanted).map(rule_data).collect::<Vec<_>>().into())
}

// Neighbours ----------------------------------------------------------------------------------------------------------

fn add_neigh(
    lua: &Lua,
    host: &Rc<Host>,
    this: &Net,
    mut args: Args,
) -> Result<Returned<Entry<neigh::Options>>> {
    let mut options = args.options()?;
    let dst: IpAddr = options.required("dst")?;
    options.set_subject(dst.to_string());
    let state = options.get::<String>("state")?.map(|w| neigh::state(&w));
    let wanted = neigh::Options {
        dst,
        dev: match dev(&mut options, this)? {
            Some(dev) => dev,
            None => return Err(options.bad("dev is missing: it must be a Link or the name of one")),
        },
        lladdr: options.get::<Mac>("lladdr")?.map(|mac| mac.0.to_vec()),
        state: as_option(&options, state)?,
        proxy: options.flag("proxy")?,
    };
    options.finish()?;
    keep(lua, host, this, wanted, args.op())
}

impl Kind for neigh::Options {
    const TYPE: &'static str = "Neigh";
    const WORD: &'static str = "neigh";

    fn text(&self) -> String {
        self.dst.to_string()
    }

    fn dev(&self) -> Option<u32> {
        Some(self.dev)
    }

    fn owned(&self, netns: Netns, text: String) -> Owned {
        Owned::Neigh { netns, neigh: Box::new(self.clone()), text }
    }

    fn delete(&self, netlink: &Netlink) -> Result<()> {
        neigh::delete(netlink, self)
    }

    fn info(&self, netlink: &Netlink) -> Result<Option<Data>> {
        let found = neigh::list(netlink, Some(self.dev))?;
        Ok(found.into_iter().find(|n| n.dst == self.dst).map(|n| neigh_data(netlink, n)))
    }
}

fn neigh_data(netlink: &Netlink, n: NeighInfo) -> Data {
    let dev = kernel_link::info(netlink, n.dev).ok().map(|link| link.name);
    record! { dst: n.dst, dev: dev, lladdr: n.lladdr, state: n.state, router: n.router, proxy: n.proxy }
}

fn neighs(_: &Lua, _: &Rc<Host>, this: &Net, mut args: Args) -> Result<Data> {
    let mut options = args.options()?;
    let dst: Option<IpAddr> = options.get("dst")?;
    let dev = dev(&mut options, this)?;
    options.finish()?;
    let open = this.open()?;
    let found = neigh::list(&open.netlink, dev)?;
    let wanted = found.into_iter().filter(|n| dst.is_none_or(|dst| n.dst == dst));
    Ok(wanted.map(|n| neigh_data(&open.netlink, n)).collect::<Vec<_>>().into())
}
