//! The words that routes, rules, neighbours and policies share: destinations, tables, protocols, devices.

use ipnetwork::IpNetwork;
use mlua::Value;

use crate::Result;
use crate::api::address::parse_cidr;
use crate::api::link::local_link;
use crate::api::netns::Net;
use crate::api::option::{Options, expected};
use crate::kernel::route;

/// A `dev` option: a Link of this namespace, or its name.
pub fn dev(options: &mut Options, net: &Net) -> Result<Option<u32>> {
    Ok(local_link(options, net, "dev")?.map(|link| link.index()))
}

/// `"default"` or a CIDR; a bare address is a host route.
pub fn destination(options: &mut Options) -> Result<Option<Option<IpNetwork>>> {
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
pub fn word(options: &mut Options, name: &'static str) -> Result<Option<String>> {
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

/// As [`word`], read by what the kernel layer has for it.
pub fn named<T>(
    options: &mut Options,
    name: &'static str,
    read: impl FnOnce(&str) -> Result<T>,
) -> Result<Option<T>> {
    let read = word(options, name)?.map(|word| read(&word));
    as_option(options, read)
}

/// A routing table. The kernel reads 0 (RT_TABLE_UNSPEC) as "any": a route would land in main, a rule in one that is empty.
pub fn table(options: &mut Options) -> Result<Option<u32>> {
    match named(options, "table", route::table)? {
        Some(0) => Err(options.bad("table 0 is none (RT_TABLE_UNSPEC)").hint(
            "\"main\" is 254, \"default\" 253, \"local\" 255; any other number is a table of its own",
        )),
        table => Ok(table),
    }
}

/// What a word was read as, if it was given; a word that is none is the option's error.
pub fn as_option<T>(options: &Options, parsed: Option<Result<T>>) -> Result<Option<T>> {
    parsed.transpose().map_err(|e| {
        let error = options.bad(e.message());
        match e.get_hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// Whether the family is IPv6.
pub fn family(options: &mut Options) -> Result<Option<bool>> {
    options.choice("family", &[("inet", false), ("inet6", true)])
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
