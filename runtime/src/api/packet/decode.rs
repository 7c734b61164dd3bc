//! `packet.decode`: every header that can be read, in the words that `packet.build` takes.

use std::rc::Rc;

use etherparse::{
    IpNumber, Ipv4Header, Ipv6Extensions, Ipv6Header, LinkExtHeader, LinkHeader, NetHeaders,
    TransportHeader, UdpHeader,
};
use mlua::Lua;

use super::words;
use crate::Result;
use crate::api::host::Host;
use crate::api::module::Args;
use crate::api::value::Data;
use crate::kernel::link::name::format_mac;
use crate::packet::{self, Addresses, First, Icmp};
use crate::record;

type Fields = Vec<(&'static str, Data)>;

/// `packet.decode(bytes [, {first = "eth"|"ip"}])`
pub fn decode(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Data> {
    let bytes: Vec<u8> = args.required("bytes")?;
    let mut options = args.options()?;
    let first = options.choice("first", &[("eth", First::Eth), ("ip", First::Ip)])?;
    options.finish()?;
    read(&bytes, first.unwrap_or(First::Eth)).map_err(|e| e.operation(args.op().to_owned()))
}

/// A packet as scripts see it.
pub fn read(bytes: &[u8], first: First) -> Result<Data> {
    let found = packet::take_apart(bytes, first)?;
    let (payload, incomplete) = packet::payload(&found);
    let mut fields: Fields = vec![("length", bytes.len().into())];
    if let Some(LinkHeader::Ethernet2(eth)) = &found.link {
        fields.push((
            "eth",
            record! { src: format_mac(&eth.source), dst: format_mac(&eth.destination), r#type: eth.ether_type.0 },
        ));
    }
    let tags: Vec<(u16, &etherparse::SingleVlanHeader)> = tags(&found);
    fields.push(("vlan", tags.into_iter().rev().fold(Data::Nil, vlan)));
    let addresses = found.net.as_ref().and_then(|net| self::net(net, &mut fields));
    let whole = !incomplete && found.stop_err.is_none();
    if let (Some(transport), Some(addresses)) = (&found.transport, addresses) {
        fields.push(self::transport(transport, &addresses, payload, whole));
    }
    fields.push(("payload", Data::Str(payload.to_vec())));
    let problem = match &found.stop_err {
        Some((error, layer)) => Some(format!("{layer}: {error}")),
        None => incomplete.then(|| "the packet is cut off".to_owned()),
    };
    fields.push(("problem", problem.into()));
    Ok(Data::Record(fields))
}

/// The VLAN tags, outermost first, each with the type that announces it.
fn tags<'a>(
    found: &'a etherparse::LaxPacketHeaders<'_>,
) -> Vec<(u16, &'a etherparse::SingleVlanHeader)> {
    let mut announced = match &found.link {
        Some(LinkHeader::Ethernet2(eth)) => eth.ether_type.0,
        _ => 0,
    };
    let mut tags = Vec::new();
    for extension in &found.link_exts {
        if let LinkExtHeader::Vlan(tag) = extension {
            tags.push((announced, tag));
            announced = tag.ether_type.0;
        }
    }
    tags
}

fn vlan(inner: Data, (announced, tag): (u16, &etherparse::SingleVlanHeader)) -> Data {
    let kind = if announced == 0x88a8 { "802.1ad" } else { "802.1q" };
    record! {
        id: tag.vlan_id.value(), priority: u16::from(tag.pcp.value()), dei: tag.drop_eligible_indicator,
        r#type: kind, inner: inner,
    }
}

/// Adds what stands above Ethernet; the addresses that checksums are made with.
fn net(net: &NetHeaders, fields: &mut Fields) -> Option<Addresses> {
    match net {
        NetHeaders::Ipv4(ip, _) => {
            fields.push(("ip", v4(ip)));
            Some(Addresses::V4(ip.source, ip.destination))
        }
        NetHeaders::Ipv6(ip, extensions) => {
            fields.push(("ip6", v6(ip, extensions)));
            Some(Addresses::V6(ip.source, ip.destination))
        }
        NetHeaders::Arp(arp) => {
            let Ok(arp) = arp.try_eth_ipv4() else { return None };
            let op: Data = match arp.operation.0 {
                1 => "request".into(),
                2 => "reply".into(),
                other => other.into(),
            };
            fields.push((
                "arp",
                record! {
                    op: op, src: arp.sender_ipv4_addr().to_string(), dst: arp.target_ipv4_addr().to_string(),
                    src_mac: format_mac(&arp.sender_mac), dst_mac: format_mac(&arp.target_mac),
                },
            ));
            None
        }
    }
}

fn v4(ip: &Ipv4Header) -> Data {
    let addresses = Addresses::V4(ip.source, ip.destination);
    let options = (!ip.options.is_empty()).then(|| Data::Str(ip.options.to_vec()));
    record! {
        src: addresses.source(), dst: addresses.destination(), ttl: u16::from(ip.time_to_live),
        tos: u16::from(ip.dscp.value() << 2 | ip.ecn.value()), id: ip.identification,
        df: ip.dont_fragment, mf: ip.more_fragments, offset: ip.fragment_offset.value() * 8,
        proto: proto(ip.protocol), length: ip.total_len, options: options.unwrap_or_default(),
        checksum: ip.header_checksum, checksum_ok: ip.header_checksum == ip.calc_header_checksum(),
    }
}

fn v6(ip: &Ipv6Header, extensions: &Ipv6Extensions) -> Data {
    let addresses = Addresses::V6(ip.source, ip.destination);
    let fragment = extensions.fragment.as_ref().map(|fragment| {
        record! {
            id: fragment.identification, offset: fragment.fragment_offset.value() * 8,
            mf: fragment.more_fragments,
        }
    });
    record! {
        src: addresses.source(), dst: addresses.destination(), hop_limit: u16::from(ip.hop_limit),
        tclass: u16::from(ip.traffic_class), flow_label: ip.flow_label.value(), proto: proto(ip.next_header),
        length: ip.payload_length, fragment: fragment,
    }
}

fn proto(number: IpNumber) -> Data {
    let name = words::proto_name(number.0);
    match name.parse::<u16>() {
        Ok(number) => number.into(),
        Err(_) => name.into(),
    }
}

/// The transport header; whether its checksum is right is said only of packets that are there whole.
fn transport(
    header: &TransportHeader,
    addresses: &Addresses,
    payload: &[u8],
    whole: bool,
) -> (&'static str, Data) {
    let ok =
        |right: Option<u16>, checksum: u16| right.filter(|_| whole).map(|right| right == checksum);
    match header {
        TransportHeader::Udp(udp) => {
            // Zero: the sender made none (RFC 768).
            let right = addresses.udp(udp, payload).ok().filter(|_| udp.checksum != 0);
            ("udp", self::udp(udp, ok(right, udp.checksum)))
        }
        TransportHeader::Tcp(tcp) => {
            let right = addresses.tcp(tcp, payload).ok();
            ("tcp", super::tcp::read(tcp, ok(right, tcp.checksum)))
        }
        TransportHeader::Icmpv4(icmp) => {
            let bytes = icmp.to_bytes();
            ("icmp", self::icmp(&bytes, icmp.checksum, addresses, payload, whole))
        }
        TransportHeader::Icmpv6(icmp) => {
            let bytes = icmp.to_bytes();
            ("icmp", self::icmp(&bytes, icmp.checksum, addresses, payload, whole))
        }
        TransportHeader::Igmp(igmp) => ("igmp", record! { checksum: igmp.checksum }),
    }
}

fn udp(udp: &UdpHeader, ok: Option<bool>) -> Data {
    record! {
        sport: udp.source_port, dport: udp.destination_port, length: udp.length, checksum: udp.checksum,
        checksum_ok: ok,
    }
}

/// `header` may be longer than eight bytes: what follows belongs to the message of some types.
fn icmp(header: &[u8], checksum: u16, addresses: &Addresses, payload: &[u8], whole: bool) -> Data {
    let v6 = matches!(addresses, Addresses::V6(..));
    let rest: [u8; 4] = header.get(4..8).and_then(|b| b.try_into().ok()).unwrap_or_default();
    let icmp = Icmp { kind: header[0], code: header[1], rest };
    let message = [header.get(8..).unwrap_or_default(), payload].concat();
    let right = addresses.icmp(&icmp, &message).ok().filter(|_| whole);
    let half = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let echo = packet::is_echo(icmp.kind, v6);
    let mtu = match (v6, icmp.kind, icmp.code) {
        (true, 2, _) => Some(u32::from_be_bytes(rest)),
        (false, 3, 4) => Some(u32::from(half(2))),
        _ => None,
    };
    let kind: Data = match words::icmp_name(icmp.kind, v6) {
        Some(name) => name.into(),
        None => u16::from(icmp.kind).into(),
    };
    record! {
        r#type: kind, code: u16::from(icmp.code), id: echo.then(|| half(0)), seq: echo.then(|| half(2)),
        mtu: mtu, checksum: checksum, checksum_ok: right.map(|right| right == checksum),
    }
}
