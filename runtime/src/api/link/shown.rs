//! What a link shows of itself: its addresses, its attributes, its counters.

use std::rc::Rc;

use mlua::Lua;

use super::Link;
use crate::Result;
use crate::api::host::Host;
use crate::api::module::Args;
use crate::api::value::Data;
use crate::kernel::address;
use crate::kernel::link;
use crate::record;

pub fn addresses(_: &Lua, _: &Rc<Host>, this: &Link, args: Args) -> Result<Data> {
    let list = this.ask(args.op(), |open, index| address::list(&open.netlink, Some(index)))?;
    Ok(list
        .into_iter()
        .map(|a| {
            record! {
                address: a.address, peer: a.peer, broadcast: a.broadcast, scope: a.scope,
                secondary: a.secondary, tentative: a.tentative, permanent: a.permanent,
            }
        })
        .collect::<Vec<_>>()
        .into())
}

pub fn info(_: &Lua, _: &Rc<Host>, this: &Link, args: Args) -> Result<Data> {
    let info = this.ask(args.op(), |open, index| link::info(&open.netlink, index))?;
    let net = this.net();
    let master = info.master.and_then(|index| {
        let open = net.open().ok()?;
        link::info(&open.netlink, index).ok().map(|link| link.name)
    });
    let options = info.data.into_iter().map(|(word, value)| (word, value_data(value))).collect();
    Ok(record! {
        name: info.name, index: info.index, kind: info.kind, netns: net.name(), mac: info.mac, mtu: info.mtu,
        up: info.up, carrier: info.carrier, running: info.running, operstate: info.operstate, master: master,
        link: info.link, link_netnsid: info.link_netnsid, group: info.group, alias: info.alias,
        txqueuelen: info.txqueuelen, numtxqueues: info.num_tx_queues, numrxqueues: info.num_rx_queues,
        qdisc: info.qdisc, promiscuity: info.promiscuity, min_mtu: info.min_mtu, max_mtu: info.max_mtu,
        flags: info.flags, options: Data::Record(options),
    })
}

fn value_data(value: link::Value) -> Data {
    match value {
        link::Value::Bool(b) => b.into(),
        link::Value::Number(n) => n.into(),
        link::Value::Text(text) => text.into(),
        link::Value::Address(address) => address.into(),
        link::Value::Link(index) => index.into(),
    }
}

pub fn stats(_: &Lua, _: &Rc<Host>, this: &Link, args: Args) -> Result<Data> {
    let stats = this.ask(args.op(), |open, index| link::stats(&open.netlink, index))?;
    let side = |side: Vec<(&'static str, u64)>| {
        Data::Record(side.into_iter().map(|(word, n)| (word, n.into())).collect())
    };
    Ok(record! { rx: side(stats.rx), tx: side(stats.tx) })
}
