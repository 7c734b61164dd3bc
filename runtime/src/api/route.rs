//! Routes of a namespace, and with them its rules and neighbours: `ns:route{}`, `ns:rules{}` and their siblings.

mod entry;
mod neigh;
mod rule;
mod words;

use std::net::IpAddr;
use std::rc::Rc;

use mlua::{Lua, Table, Value};

use entry::{Entry, Kind, keep};
pub use words::ip_protocol;
use words::{destination, dev, family, named, table};

use super::handle::{Class, Returned};
use super::host::Host;
use super::module::Args;
use super::netns::Net;
use super::option::Options;
use super::value::Data;
use crate::Result;
use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::route::{self, NextHop, RouteInfo};
use crate::own::Owned;
use crate::record;

/// What `Netns` handles get from here.
pub fn methods(class: &mut Class<'_, Net>) {
    class
        .method("route", add_route)
        .method("rule", rule::add)
        .method("neigh", neigh::add)
        .method("routes", routes)
        .method("rules", rule::list)
        .method("neighs", neigh::list);
}

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
        scope: named(&mut options, "scope", route::scope)?,
        protocol: named(&mut options, "proto", route::protocol)?,
        kind: named(&mut options, "type", route::kind)?,
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
    let name = |index: Option<u32>| index.and_then(|i| link::info(netlink, i).ok()).map(|l| l.name);
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
    let table = |word: &str| match word {
        "all" => Ok(route::ALL_TABLES),
        word => route::table(word),
    };
    // "0.0.0.0/0" and "::/0" are one family's default route.
    let zero = dst.flatten().filter(|dst| dst.prefix() == 0);
    let dst = dst.map(|dst| dst.filter(|dst| dst.prefix() > 0));
    let filter = route::Filter {
        table: named(&mut options, "table", table)?,
        ipv6: family(&mut options)?.or(zero.map(|dst| dst.is_ipv6())),
        dev: dev(&mut options, this)?,
        protocol: named(&mut options, "proto", route::protocol)?,
        kind: named(&mut options, "type", route::kind)?,
        dst,
        via: options.get("via")?,
    };
    options.finish()?;
    let open = this.open()?;
    let found = route::list(&open.netlink, &filter)?;
    Ok(found.into_iter().map(|r| route_data(&open.netlink, r)).collect::<Vec<_>>().into())
}
