//! `match = {...}` of the program library: which packets a program is meant for (`struct selector` of
//! bpf/include/selector.h).

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::option::Options;
use super::route::ip_protocol;
use super::value::Data;
use crate::Result;
use crate::record;

/// The bits of `fields`, as selector.h has them.
const FAMILY: u32 = 0x01;
const FROM: u32 = 0x02;
const TO: u32 = 0x04;
const PROTOCOL: u32 = 0x08;
const SOURCE_PORT: u32 = 0x10;
const DESTINATION_PORT: u32 = 0x20;
const PORT: u32 = 0x40;
const MARK: u32 = 0x80;
const VLAN: u32 = 0x100;
const VLAN_TAGGED: u16 = 0x1000;

/// Reads `from`, `to`, `proto`, `sport`, `dport`, `port`, `mark` and `vlan` of the option `match`, as a value for a map
/// whose BTF has `struct selector`. Without the option it takes every packet.
///
/// # Errors
/// EINVAL for a bad value, an unknown word, or `from` and `to` of two families.
pub fn selector(options: &mut Options) -> Result<Data> {
    let Some(mut given) = options.nested("match")? else { return Ok(record! { fields: 0u32 }) };
    let from = given.network("from")?;
    let to = given.network("to")?;
    let protocol = ip_protocol(&mut given, "proto")?;
    let source_port: Option<u16> = given.get("sport")?;
    let destination_port: Option<u16> = given.get("dport")?;
    let port: Option<u16> = given.get("port")?;
    let mark: Option<u32> = given.get("mark")?;
    let vlan: Option<u16> = given.get("vlan")?;
    if from.as_ref().zip(to.as_ref()).is_some_and(|(from, to)| from.is_ipv4() != to.is_ipv4()) {
        return Err(given.bad("from and to are of different families"));
    }
    if vlan.is_some_and(|vlan| vlan > 0xfff) {
        return Err(given.bad("vlan must be an integer from 0 to 4095"));
    }
    given.finish()?;
    let bits = [
        (FAMILY, from.is_some() || to.is_some()),
        (FROM, from.is_some()),
        (TO, to.is_some()),
        (PROTOCOL, protocol.is_some()),
        (SOURCE_PORT, source_port.is_some()),
        (DESTINATION_PORT, destination_port.is_some()),
        (PORT, port.is_some()),
        (MARK, mark.is_some()),
        (VLAN, vlan.is_some()),
    ];
    let fields = bits.iter().filter(|(_, given)| *given).fold(0, |all, (bit, _)| all | bit);
    let family = from.as_ref().or(to.as_ref()).is_some_and(|net| net.is_ipv6());
    let address = |net: &Option<IpNetwork>| net.map(|net| mapped(net.network()));
    let length = |net: &Option<IpNetwork>| net.map_or(0, |net| u32::from(net.prefix()));
    Ok(record! {
        fields: fields, family: u32::from(family), from: address(&from), to: address(&to),
        from_length: length(&from), to_length: length(&to), protocol: protocol.map(u32::from),
        source_port: source_port, destination_port: destination_port, port: port, mark: mark,
        vlan: vlan.map(|vlan| VLAN_TAGGED | vlan),
    })
}

/// An address as the 16 bytes that programs keep: IPv4 as ::ffff:a.b.c.d.
pub fn mapped(address: IpAddr) -> String {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().to_string(),
        IpAddr::V6(a) => a.to_string(),
    }
}
