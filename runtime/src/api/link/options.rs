//! What the constructors of links take: the words of every link, of its kind, and of the other end.

use std::rc::Rc;

use ipnetwork::IpNetwork;
use mlua::{Lua, MultiValue, Value};

use super::Link;
use super::making::Making;
use crate::Result;
use crate::api::address::Mac;
use crate::api::handle::held;
use crate::api::host::Host;
use crate::api::module::Args;
use crate::api::netns::{Net, netns_option};
use crate::api::option::{OneOrMany, Options, expected};
use crate::kernel::link::kinds::Kind;
use crate::kernel::link::{self, End};

pub fn create(
    lua: &Lua,
    host: &Rc<Host>,
    mut args: Args,
    kind: &'static Kind,
) -> Result<MultiValue> {
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
pub fn local(options: &Options, net: &Net, word: &str, value: Value) -> Result<Option<Link>> {
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

/// How IPv6 makes the link-local address.
pub fn addrgenmode(options: &mut Options) -> Result<Option<link::AddrGenMode>> {
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
