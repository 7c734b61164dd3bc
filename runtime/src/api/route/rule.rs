//! Rules of a namespace: `ns:rule{}`, `ns:rules{}`.

use std::rc::Rc;

use mlua::{Lua, Value};

use super::entry::{Entry, Kind, keep};
use super::words::{family, ip_protocol, named, table, word};
use crate::Result;
use crate::api::handle::{Returned, held};
use crate::api::host::Host;
use crate::api::link::Link;
use crate::api::module::Args;
use crate::api::netns::Net;
use crate::api::option::{Options, expected};
use crate::api::value::Data;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::route;
use crate::kernel::rule::{self, Action, Rule};
use crate::own::Owned;
use crate::record;

pub fn add(
    lua: &Lua,
    host: &Rc<Host>,
    this: &Net,
    mut args: Args,
) -> Result<Returned<Entry<Rule>>> {
    let mut options = args.options()?;
    let wanted = wanted(&mut options)?;
    options.finish()?;
    keep(lua, host, this, wanted, args.op())
}

fn wanted(options: &mut Options) -> Result<Rule> {
    let table = table(options)?;
    let (fwmark, fwmask) = mark(options)?;
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
        protocol: named(options, "proto", route::protocol)?,
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

pub fn list(_: &Lua, _: &Rc<Host>, this: &Net, mut args: Args) -> Result<Data> {
    let mut options = args.options()?;
    let ipv6 = family(&mut options)?;
    let priority: Option<u32> = options.get("priority")?;
    let table = named(&mut options, "table", route::table)?;
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
