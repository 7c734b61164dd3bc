//! `link` and `netkit`: links, made from the kernel layer's table of kinds, and their handles.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ipnetwork::IpNetwork;
use mlua::{Lua, MultiValue, Table, Value};

use super::address::Mac;
use super::error::said;
use super::handle::{Class, Handle, Returned, held};
use super::host::Host;
use super::make_link::Making;
use super::module::{Args, Module};
use super::netns::{Net, NetOption, netns_option};
use super::option::{OneOrMany, Options, expected};
use super::value::Data;
use crate::kernel::link::kinds::{self, Kind};
use crate::kernel::link::{self, Change, End, LinkInfo};
use crate::kernel::{address, netns};
use crate::own::{LinkPlace, Owned};
use crate::record;
use crate::{Error, Result};

/// `link`: a constructor for each kind that is not a module of its own.
pub fn module(lua: &Lua) -> mlua::Result<Table> {
    let mut module = Module::new(lua, "link");
    for kind in kinds::KINDS.iter().filter(|kind| kind.name != "netkit") {
        module = module.function(kind.name, move |lua, host, args| create(lua, host, args, kind));
    }
    module.build()
}

/// The constructor of `netkit`, `netkit.pair`.
pub fn netkit_pair(lua: &Lua, host: &Rc<Host>, args: Args) -> Result<MultiValue> {
    let kind = kinds::find("netkit").expect("the table has it");
    create(lua, host, args, kind)
}

fn create(lua: &Lua, host: &Rc<Host>, mut args: Args, kind: &'static Kind) -> Result<MultiValue> {
    let mut options = args.options()?;
    let name: String = options.required("name")?;
    options.set_subject(name.clone());
    let net = netns_option(&mut options, host)?;
    let mut values = kind_values(&mut options, &net, kind)?;
    // The kernel would take 0 for a VXLAN without one; `ip` refuses it too.
    let given = |word: &str| values.iter().any(|(known, _)| known == word);
    if kind.name == "vxlan" && !given("id") && !given("external") {
        return Err(options.bad("id is missing: the virtual network identifier, 0 to 16777215"));
    }
    if kind.name == "vxlan" {
        check_vxlan_group(&options, &values)?;
    }
    let end = end(&mut options, &net, kind, name.clone())?;
    let on = below(&mut options, &net, kind)?;
    let ports = match kind.name {
        "bridge" | "bond" | "vrf" => ports(&mut options, &net)?,
        _ => Vec::new(),
    };
    let peer = if kind.is_pair() {
        Some(peer(&mut options, host, kind, &name, &mut values)?)
    } else {
        None
    };
    options.finish()?;
    host.stage.check()?;
    let make = Making { kind, net, end, on, values, ports, peer };
    make.adopt_or_create(lua, host)
}

/// The kernel takes either for the other; `ip` refuses it too.
fn check_vxlan_group(options: &Options, values: &[(String, link::Value)]) -> Result<()> {
    for (word, value) in values {
        let link::Value::Address(address) = value else { continue };
        match (word.as_str(), address.is_multicast()) {
            ("group", false) => {
                let text = format!("group {address} is not a multicast address");
                return Err(options.bad(text).hint("remote is the word for one other end"));
            }
            ("remote", true) => {
                let text = format!("remote {address} is a multicast address");
                return Err(options.bad(text).hint("group is the word for many other ends"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The link that a kind such as vlan stands on: a name in this namespace, or a Link of any.
fn below(options: &mut Options, net: &Net, kind: &Kind) -> Result<Option<Link>> {
    if !kind.on_link {
        return Ok(None);
    }
    let value = options.raw("link")?;
    match held::<Link>(&value) {
        Some(link) => Ok(Some(link)),
        None if value.is_nil() => {
            Err(options.bad("link is missing: it must be a Link or the name of one"))
        }
        None => local(options, net, "link", value),
    }
}

fn ports(options: &mut Options, net: &Net) -> Result<Vec<Link>> {
    let ports = options.get::<OneOrMany<Value>>("ports")?.unwrap_or_default().0;
    let links = ports.into_iter().map(|port| local(options, net, "ports", port));
    Ok(links.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// An option that is a link of the namespace: a Link or its name.
pub fn local_link(options: &mut Options, net: &Net, word: &'static str) -> Result<Option<Link>> {
    let value = options.raw(word)?;
    local(options, net, word, value)
}

/// Indexes mean nothing outside their namespace: a Link of another one is refused.
fn local(options: &Options, net: &Net, word: &str, value: Value) -> Result<Option<Link>> {
    match &value {
        Value::Nil => Ok(None),
        Value::String(name) => {
            let info = link::info_by_name(&net.open()?.netlink, &name.to_string_lossy())
                .map_err(|e| e.operation(options.op().to_owned()))?;
            Ok(Some(Link::found(net, &info)))
        }
        other => match held::<Link>(other) {
            Some(link) if link.net().cookie() == net.cookie() => Ok(Some(link)),
            Some(link) => Err(options.bad(format!(
                "{word} is {}, which is in {}, not in {}",
                link.name(),
                link.net().place(),
                net.place()
            ))),
            None => {
                let got = expected::describe(other);
                Err(options.bad(format!("{word} must be a Link or the name of one, got {got}")))
            }
        },
    }
}

/// The other end of a pair; its own `policy` and `scrub` are options of the pair in the kernel.
fn peer(
    options: &mut Options,
    host: &Rc<Host>,
    kind: &'static Kind,
    name: &str,
    values: &mut Vec<(String, link::Value)>,
) -> Result<(Net, End)> {
    let default_name = || format!("{name}-peer");
    let Some(mut peer) = options.nested("peer")? else {
        return Ok((host.nets.host()?, End::named(default_name())));
    };
    let peer_name = peer.get::<String>("name")?.unwrap_or_else(default_name);
    let net = netns_option(&mut peer, host)?;
    if kind.name == "netkit" {
        for (word, peer_word) in [("policy", "peer_policy"), ("scrub", "peer_scrub")] {
            let value = peer.raw(word)?;
            if !value.is_nil() {
                values.push((peer_word.to_owned(), kind_value(&peer, word, value)?));
            }
        }
    }
    let end = end(&mut peer, &net, kind, peer_name)?;
    peer.finish()?;
    Ok((net, end))
}

/// What every link and every end of a pair takes.
fn end(options: &mut Options, net: &Net, kind: &Kind, name: String) -> Result<End> {
    link::check_name(&name).map_err(|e| e.operation(options.op().to_owned()))?;
    // Of the many queues that it else makes, one for each processor, the kernel turns off all but one, and waits for a
    // grace period at each end (`veth_init_queues` of drivers/net/veth.c).
    let queues = (kind.name == "veth").then_some(1);
    Ok(End {
        name,
        index: options.get("index")?,
        mac: options.get::<Mac>("mac")?.map(|mac| mac.0),
        mtu: options.get("mtu")?,
        group: match options.raw("group")? {
            value if is_kinds_own(kind, "group", &value) => None,
            _ => options.get("group")?,
        },
        alias: options.get("alias")?,
        txqueuelen: options.get("txqueuelen")?,
        num_tx_queues: options.get("numtxqueues")?.or(queues),
        num_rx_queues: options.get("numrxqueues")?.or(queues),
        master: local_link(options, net, "master")?.map(|master| master.index()),
        addresses: addresses_given(options)?,
        addrgenmode: addrgenmode(options)?,
        up: options.get("up")?.unwrap_or(true),
    })
}

/// `address = "10.0.0.1/24"`, or several, none of them twice.
fn addresses_given(options: &mut Options) -> Result<Vec<IpNetwork>> {
    let list = options.get::<OneOrMany<IpNetwork>>("address")?.unwrap_or_default().0;
    for (i, address) in list.iter().enumerate() {
        // With IPv6 the address alone counts (`ipv6_add_addr`, net/ipv6/addrconf.c).
        let same = |other: &IpNetwork| match address {
            IpNetwork::V4(_) => other == address,
            IpNetwork::V6(_) => other.ip() == address.ip(),
        };
        if let Some(first) = list[..i].iter().position(same) {
            return Err(options.bad(format!(
                "address[{}] {address} is address[{}] again",
                i + 1,
                first + 1
            )));
        }
    }
    Ok(list)
}

fn addrgenmode(options: &mut Options) -> Result<Option<link::AddrGenMode>> {
    use link::AddrGenMode::{Eui64, None, Random, StablePrivacy};
    options.choice(
        "addrgenmode",
        &[("eui64", Eui64), ("none", None), ("stable-privacy", StablePrivacy), ("random", Random)],
    )
}

/// vxlan's `group` is a multicast address, every link's `group` a number: one word for both, as with `ip`.
fn is_kinds_own(kind: &Kind, word: &str, value: &Value) -> bool {
    kind.field(word).is_some() && (word != "group" || matches!(value, Value::String(_)))
}

/// The kind's own options, by the words of its table.
fn kind_values(
    options: &mut Options,
    net: &Net,
    kind: &'static Kind,
) -> Result<Vec<(String, link::Value)>> {
    let mut values = Vec::new();
    // One key for both directions, as with `ip`.
    if kind.field("ikey").is_some()
        && let Some(key) = options.get::<u32>("key")?
    {
        let key = link::Value::Number(key.into());
        values.extend([("ikey".to_owned(), key.clone()), ("okey".to_owned(), key)]);
    }
    for field in kind.fields {
        // These are the peer's own words; a script says them inside `peer`.
        if field.word.starts_with("peer_") {
            continue;
        }
        let value = options.raw(field.word)?;
        if field.form == link::value::Form::Link {
            let link = local(options, net, field.word, value)?;
            values.extend(link.map(|l| (field.word.to_owned(), link::Value::Link(l.index()))));
        } else if !value.is_nil() && is_kinds_own(kind, field.word, &value) {
            values.push((field.word.to_owned(), kind_value(options, field.word, value)?));
        }
    }
    // IANA's port; the kernel's own default (8472) is older than the standard.
    if kind.name == "vxlan" && !values.iter().any(|(word, _)| word == "dstport") {
        values.push(("dstport".to_owned(), link::Value::Number(4789)));
    }
    Ok(values)
}

/// What the table's forms make of it is the kernel layer's to say.
fn kind_value(options: &Options, word: &str, value: Value) -> Result<link::Value> {
    match &value {
        Value::Boolean(b) => Ok(link::Value::Bool(*b)),
        Value::Integer(i) if *i >= 0 => Ok(link::Value::Number(*i as u64)),
        Value::Number(n) if *n >= 0.0 && n.fract() == 0.0 => Ok(link::Value::Number(*n as u64)),
        Value::String(text) => {
            let text = text.to_string_lossy();
            Ok(match text.parse() {
                Ok(address) => link::Value::Address(address),
                Err(_) => link::Value::Text(text),
            })
        }
        other => Err(options.bad(format!(
            "{word} must be a number, a string, true or false, got {}",
            expected::describe(other)
        ))),
    }
}

/// A link as scripts hold it: namespace and index say which, wherever it is renamed or moved to.
#[derive(Clone)]
pub struct Link(pub(super) Rc<Inner>);

pub(super) struct Inner {
    net: RefCell<Net>,
    index: Cell<u32>,
    name: RefCell<String>,
    kind: String,
    pub(super) peer: RefCell<Option<std::rc::Weak<Inner>>>,
}

impl Link {
    pub(super) fn made(net: &Net, index: u32, name: &str, kind: &str) -> Link {
        Link(Rc::new(Inner {
            net: RefCell::new(net.clone()),
            index: Cell::new(index),
            name: RefCell::new(name.to_owned()),
            kind: kind.to_owned(),
            peer: RefCell::new(None),
        }))
    }

    /// A link that was looked up.
    pub fn found(net: &Net, info: &LinkInfo) -> Link {
        Link::made(net, info.index, &info.name, &info.kind)
    }

    pub fn index(&self) -> u32 {
        self.0.index.get()
    }

    pub fn name(&self) -> String {
        self.0.name.borrow().clone()
    }

    pub fn net(&self) -> Net {
        self.0.net.borrow().clone()
    }

    /// Runs a request about this link; its errors name the operation and the link.
    pub fn ask<T>(
        &self,
        op: &str,
        request: impl FnOnce(&super::netns::Open, u32) -> Result<T>,
    ) -> Result<T> {
        let net = self.net();
        let open = net.open().map_err(|e| e.operation(op.to_owned()).subject(self.name()))?;
        request(&open, self.index()).map_err(|e| {
            let gone = e.is("ENODEV");
            let e = e.operation(op.to_owned()).subject(self.name());
            if gone { e.because("the link is gone").hint(link::GONE) } else { e }
        })
    }

    /// The other end of a pair; `None` for any other kind of link.
    ///
    /// # Errors
    /// ENODEV: the link is gone. ENOENT: the other end is in a namespace without a name.
    pub fn peer(&self, host: &Host, op: &str) -> Result<Option<Link>> {
        if let Some(peer) = self.0.peer.borrow().as_ref().and_then(std::rc::Weak::upgrade) {
            return Ok(Some(Link(peer)));
        }
        let info = self.ask(op, |open, index| link::info(&open.netlink, index))?;
        // Elsewhere IFLA_LINK is the link below.
        let is_pair = kinds::find(&info.kind).is_some_and(Kind::is_pair);
        let Some(index) = info.link.filter(|_| is_pair) else { return Ok(None) };
        let here = self.net();
        let Some(nsid) = info.link_netnsid else {
            let peer = link::info(&here.open()?.netlink, index)?;
            return Ok(Some(Link::found(&here, &peer)));
        };
        for net in candidates(host) {
            let Ok(there) = net.open() else { continue };
            if netns::nsid(&here.open()?.netlink, &there.netns.fd)? == Some(nsid) {
                let peer = link::info(&there.netlink, index)?;
                return Ok(Some(Link::found(&net, &peer)));
            }
        }
        let text = "the other end is in a namespace without a name";
        Err(Error::new(op.to_owned(), "ENOENT", text).subject(self.name()))
    }

    /// Whether this instance made it, or the namespace it is in.
    pub fn is_ours(&self, host: &Host) -> bool {
        host.stage.is_ours(self.place())
    }

    pub fn place(&self) -> LinkPlace {
        LinkPlace { cookie: self.net().cookie(), index: self.index() }
    }
}

impl Handle for Link {
    const TYPE: &'static str = "Link";
    const WORD: &'static str = "link";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.name()))
            .field("index", |_, this| Ok(this.index()))
            .field("netns", |_, this| Ok(Returned(this.net())))
            .field("kind", |_, this| Ok(this.0.kind.clone()))
            .method("up", |lua, host, this, args| {
                change(lua, host, this, &args, Change { up: Some(true), ..Change::default() })
            })
            .method("down", |lua, host, this, args| {
                change(lua, host, this, &args, Change { up: Some(false), ..Change::default() })
            })
            .method("set", set)
            .method("add_address", add_address)
            .method("delete_address", delete_address)
            .method("addresses", addresses)
            .method("info", info)
            .method("stats", stats)
            .method("qdisc", super::qdisc::qdisc)
            .method("rename", rename)
            .method("move", move_to)
            .method("peer", peer_of)
            .method("delete", delete);
    }

    fn identity(&self) -> String {
        format!("{}/{}", self.net().cookie(), self.index())
    }

    fn from_name(name: &str) -> Option<String> {
        Some(format!("a Link comes from its namespace: ns:link({name:?})"))
    }

    fn display(&self) -> String {
        match self.net().name() {
            "" => format!("Link({})", self.name()),
            netns => format!("Link({} in netns {netns})", self.name()),
        }
    }
}

fn set(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let mut options = args.options()?;
    options.set_subject(this.name());
    // `master = false` takes the link out of its bridge, as `nomaster` does.
    let master = match options.raw("master")? {
        Value::Nil => None,
        Value::Boolean(false) => Some(0),
        other => local(&options, &this.net(), "master", other)?.map(|master| master.index()),
    };
    let wanted = Change {
        mtu: options.get("mtu")?,
        mac: options.get::<Mac>("mac")?.map(|mac| mac.0),
        master,
        alias: options.get("alias")?,
        txqueuelen: options.get("txqueuelen")?,
        group: options.get("group")?,
        addrgenmode: addrgenmode(&mut options)?,
        promiscuous: options.get("promisc")?,
        up: options.get("up")?,
    };
    options.finish()?;
    change(lua, host, this, &args, wanted)
}

/// Changes attributes, now or when the load commits; how to put back what was there goes into the ledger.
fn change(lua: &Lua, host: &Rc<Host>, this: &Link, args: &Args, wanted: Change) -> Result<()> {
    this.ask(args.op(), |open, index| {
        let (netns, link, wanted) = (open.netns.clone(), this.name(), Box::new(wanted));
        let owned = Owned::LinkSetting { netns, index, link, wanted, before: Box::default() };
        host.stage.own(owned, &open.netlink, || said(lua, args.op()).of(this.name())).map(drop)
    })
}

fn add_address(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let address: IpNetwork = args.required("address")?;
    this.ask(args.op(), |open, index| {
        let (netns, link) = (open.netns.clone(), this.name());
        let owned = Owned::Address { netns, index, link, address, promote: None };
        host.stage.own(owned, &open.netlink, || said(lua, args.op()).of(this.name())).map(drop)
    })
}

fn delete_address(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let address: IpNetwork = args.required("address")?;
    this.ask(args.op(), |open, index| {
        let (netns, link) = (open.netns.clone(), this.name());
        let (at, on) = (netns.clone(), link.clone());
        let added = Owned::Address { netns: at, index, link: on, address, promote: None };
        if let Some((number, _)) = host.ledger.by_key(&added.key()) {
            if !host.stage.disown(number)? {
                address::delete(&open.netlink, index, address)?;
                host.ledger.forget(number);
            }
            return Ok(());
        }
        let lost = link::Lost::default();
        let owned = Owned::DeletedAddress { netns, index, link, address, lost };
        host.stage.own(owned, &open.netlink, || said(lua, args.op()).of(this.name())).map(drop)
    })
}

fn addresses(_: &Lua, _: &Rc<Host>, this: &Link, args: Args) -> Result<Data> {
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

fn info(_: &Lua, _: &Rc<Host>, this: &Link, args: Args) -> Result<Data> {
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

fn stats(_: &Lua, _: &Rc<Host>, this: &Link, args: Args) -> Result<Data> {
    let stats = this.ask(args.op(), |open, index| link::stats(&open.netlink, index))?;
    let side = |side: Vec<(&'static str, u64)>| {
        Data::Record(side.into_iter().map(|(word, n)| (word, n.into())).collect())
    };
    Ok(record! { rx: side(stats.rx), tx: side(stats.tx) })
}

fn rename(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let name: String = args.required("name")?;
    link::check_name(&name).map_err(|e| e.operation(args.op().to_owned()))?;
    let before = this.name();
    this.ask(args.op(), |open, index| {
        let (netns, after) = (open.netns.clone(), name.clone());
        let owned = Owned::LinkName { netns, index, before, after };
        host.stage.own(owned, &open.netlink, || said(lua, args.op()).of(this.name())).map(drop)
    })?;
    *this.0.name.borrow_mut() = name;
    Ok(())
}

fn move_to(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let target = NetOption::argument(&mut args, host)?;
    if !this.is_ours(host) {
        return Err(Error::new(
            args.op().to_owned(),
            "EPERM",
            "this script did not make that link",
        )
        .subject(this.name())
        .hint("a link that is moved loses its addresses and routes; make one of your own"));
    }
    host.stage.check()?;
    let entry = host.ledger.owns_link(this.place());
    if entry.is_some_and(|number| host.stage.is_older(number)) {
        if this.net().cookie() == target.cookie() {
            return Ok(());
        }
        return Err(Error::new(
            args.op().to_owned(),
            "EBUSY",
            "a reload does not move a link that is in use",
        )
        .subject(this.name())
        .hint("name its namespace in the constructor: netns = ..."));
    }
    let target_open = target.open()?;
    let moved = entry.and_then(|number| match host.ledger.get(number)? {
        Owned::Link { index, name, end, .. } => {
            let netns = target_open.netns.clone();
            Some((number, host.ledger.reserve(), Owned::Link { netns, index, name, end }))
        }
        _ => None,
    });
    if let Some((_, foreseen, owned)) = &moved {
        host.ledger.foresee(*foreseen, owned)?;
    }
    let outcome = this.ask(args.op(), |open, index| {
        link::move_to(&open.netlink, index, &target_open.netlink, None)
    });
    if let (Some((number, _, Owned::Link { netns, name, end, .. })), Ok(index)) = (&moved, &outcome)
    {
        let (netns, name, end) = (netns.clone(), name.clone(), end.clone());
        host.ledger.settle(*number, Owned::Link { netns, index: *index, name, end });
    }
    moved.into_iter().for_each(|(_, foreseen, _)| drop(host.ledger.forget(foreseen)));
    let index = outcome?;
    *this.0.net.borrow_mut() = target;
    this.0.index.set(index);
    super::handle::reintern(lua, this)
}

fn peer_of(_: &Lua, host: &Rc<Host>, this: &Link, args: Args) -> Result<Option<Returned<Link>>> {
    Ok(this.peer(host, args.op())?.map(Returned))
}

/// Namespaces that another link may be in: those known, then those with a name.
fn candidates(host: &Host) -> Vec<Net> {
    let mut nets = host.nets.all();
    nets.extend(host.nets.host().ok());
    nets.extend(
        netns::named::list()
            .unwrap_or_default()
            .iter()
            .filter_map(|name| host.nets.named(name).ok()),
    );
    nets
}

fn delete(_: &Lua, host: &Rc<Host>, this: &Link, args: Args) -> Result<()> {
    if !this.is_ours(host) {
        return Err(Error::new(
            args.op().to_owned(),
            "EPERM",
            "this script did not make that link",
        )
        .subject(this.name())
        .hint("what was there before is left alone; `ip link delete` removes it"));
    }
    let mut gone = vec![this.place()];
    if let Some(peer) = this.0.peer.borrow().as_ref().and_then(std::rc::Weak::upgrade) {
        gone.push(Link(peer).place());
    }
    let on_it = |owned: &Owned| owned.link().is_some_and(|link| gone.contains(&link));
    if host.ledger.owns_link(this.place()).is_some_and(|number| host.stage.is_older(number)) {
        for (number, _) in host.ledger.entries(|_, owned| on_it(owned)) {
            host.stage.disown(number)?;
        }
        return Ok(());
    }
    host.stage.check()?;
    this.ask(args.op(), |open, index| link::delete(&open.netlink, index))?;
    host.ledger.forget_where(on_it);
    Ok(())
}
