//! The words of `ip route` for numbers: scopes, protocols, types, tables (/etc/iproute2/rt_*, include/uapi/linux/rtnetlink.h).

use super::{RTN_LOCAL, RTN_UNICAST, RTPROT_BOOT, SCOPE_HOST, SCOPE_LINK, TABLE_MAIN};
use crate::{Error, Result};

const SCOPES: &[(&str, u8)] =
    &[("global", 0), ("site", 200), ("link", SCOPE_LINK), ("host", SCOPE_HOST), ("nowhere", 255)];
const PROTOCOLS: &[(&str, u8)] = &[
    ("unspec", 0),
    ("redirect", 1),
    ("kernel", 2),
    ("boot", RTPROT_BOOT),
    ("static", 4),
    ("gated", 8),
    ("ra", 9),
    ("mrt", 10),
    ("zebra", 11),
    ("bird", 12),
    ("dnrouted", 13),
    ("xorp", 14),
    ("ntk", 15),
    ("dhcp", 16),
    ("mrouted", 17),
    ("keepalived", 18),
    ("babel", 42),
    ("openr", 99),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
    ("eigrp", 192),
];
const KINDS: &[(&str, u8)] = &[
    ("unicast", RTN_UNICAST),
    ("local", RTN_LOCAL),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
    ("prohibit", 8),
    ("throw", 9),
    ("nat", 10),
];
const TABLES: &[(&str, u32)] = &[("default", 253), ("main", TABLE_MAIN), ("local", 255)];

/// "link" -> 253; a number is taken too.
pub fn scope(word: &str) -> Result<u8> {
    by_word("scope", SCOPES, word)
}

/// "static" -> 4; a number is taken too.
pub fn protocol(word: &str) -> Result<u8> {
    by_word("proto", PROTOCOLS, word)
}

/// "blackhole" -> 6
pub fn kind(word: &str) -> Result<u8> {
    by_word("type", KINDS, word)
}

/// "main" -> 254; a number is taken too.
pub fn table(word: &str) -> Result<u32> {
    by_word("table", TABLES, word)
}

pub fn scope_name(number: u8) -> String {
    name_of(SCOPES, number)
}

pub fn protocol_name(number: u8) -> String {
    name_of(PROTOCOLS, number)
}

pub fn kind_name(number: u8) -> String {
    name_of(KINDS, number)
}

fn by_word<T: Copy + std::str::FromStr>(
    what: &str,
    words: &[(&'static str, T)],
    word: &str,
) -> Result<T> {
    let known = words.iter().find(|(w, _)| *w == word).map(|(_, n)| *n);
    known.or_else(|| word.parse().ok()).ok_or_else(|| {
        let all: Vec<_> = words.iter().map(|(w, _)| *w).collect();
        Error::invalid("route", format!("{what} cannot be {word:?}"))
            .hint(format!("one of {}", all.join(", ")))
    })
}

fn name_of(words: &[(&'static str, u8)], number: u8) -> String {
    let known = words.iter().find(|(_, n)| *n == number);
    known.map_or_else(|| number.to_string(), |(word, _)| (*word).to_owned())
}
