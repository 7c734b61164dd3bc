//! The words of headers: protocols, ICMP types, TCP flags.

use etherparse::TcpHeader;
use mlua::Value;

use crate::Result;
use crate::api::option::Options;
use crate::program::router::{protocol, protocol_name};

/// `proto = "tcp"`, or a number.
pub fn proto(options: &mut Options) -> Result<Option<u8>> {
    match options.raw("proto")? {
        Value::String(text) => {
            let text = text.to_string_lossy();
            protocol(&text).map(Some).ok_or_else(|| {
                options.bad(format!("there is no protocol \"{text}\"")).hint(
                    "it is a number (/etc/protocols), \"tcp\", \"udp\", \"icmp\", \"icmpv6\" ...",
                )
            })
        }
        _ => options.get("proto"),
    }
}

/// "tcp"; the number as text when it has no name here.
pub fn proto_name(number: u8) -> String {
    protocol_name(number)
}

/// A TCP flag's place in the header.
pub type Flag = fn(&mut TcpHeader) -> &mut bool;

/// In the order of their bits.
pub const TCP_FLAGS: [(&str, Flag); 9] = [
    ("fin", |h| &mut h.fin),
    ("syn", |h| &mut h.syn),
    ("rst", |h| &mut h.rst),
    ("psh", |h| &mut h.psh),
    ("ack", |h| &mut h.ack),
    ("urg", |h| &mut h.urg),
    ("ece", |h| &mut h.ece),
    ("cwr", |h| &mut h.cwr),
    ("ns", |h| &mut h.ns),
];

/// By its name, in small letters or capitals.
pub fn tcp_flag(name: &str) -> Option<Flag> {
    TCP_FLAGS.iter().find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|(_, flag)| *flag)
}

/// The types of ICMP and of ICMPv6, as iptables calls them.
const ICMP: [(u8, &str); 9] = [
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
];
const ICMP6: [(u8, &str); 11] = [
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (133, "router-solicitation"),
    (134, "router-advertisement"),
    (135, "neighbour-solicitation"),
    (136, "neighbour-advertisement"),
    (137, "redirect"),
];

fn icmp(v6: bool) -> &'static [(u8, &'static str)] {
    if v6 { &ICMP6 } else { &ICMP }
}

pub fn icmp_number(name: &str, v6: bool) -> Option<u8> {
    icmp(v6).iter().find(|(_, n)| *n == name).map(|(number, _)| *number)
}

pub fn icmp_name(number: u8, v6: bool) -> Option<&'static str> {
    icmp(v6).iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}

pub fn icmp_names(v6: bool) -> Vec<&'static str> {
    icmp(v6).iter().map(|(_, name)| *name).collect()
}
