//! `packet`: frames from tables of their headers, and back.

mod decode;
mod tcp;
mod words;

use std::net::IpAddr;
use std::rc::Rc;

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, IpDscp, IpEcn, IpFragOffset,
    IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, SingleVlanHeader, UdpHeader, VlanId, VlanPcp,
};
use mlua::{Lua, Table, Value};

use super::host::Host;
use super::module::{Args, Module};
use super::option::{Options, nearest};
use super::value::Data;
use crate::Result;
use crate::kernel::link::name::parse_mac;
use crate::packet::{Frame, Icmp, Net, Transport, Vlan};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "packet").function("build", build).function("decode", decode::decode).build()
}

/// Addresses of a frame that says none: locally administered (IEEE 802c).
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Ports of a datagram that says none: a dynamic one, and discard (RFC 863).
const SPORT: u16 = 49152;
const DPORT: u16 = 9;

/// `packet.build{eth=, vlan=, ip=, ip6=, arp=, udp=, tcp=, icmp=, payload=}`
fn build(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Data> {
    let op = args.op().to_owned();
    let mut options = args.options()?;
    let mut frame = Frame {
        eth: eth(&mut options)?,
        vlans: vlans(&mut options)?,
        net: None,
        transport: None,
        payload: options.get("payload")?.unwrap_or_default(),
        wrong: Default::default(),
    };
    frame.net = net(&mut options, &mut frame)?;
    let v6 = matches!(frame.net, Some(Net::V6(_)));
    frame.transport = transport(&mut options, &mut frame, v6)?;
    if frame.eth.is_none() && !frame.vlans.is_empty() {
        return Err(options.bad("a vlan tag needs an Ethernet header"));
    }
    if let (Some(Net::Arp(_)), Some(_)) = (&frame.net, &frame.transport) {
        return Err(options.bad("arp has no transport header"));
    }
    options.finish()?;
    Ok(Data::Str(frame.bytes().map_err(|e| e.operation(op))?))
}

/// `eth = {src=, dst=, type=}`, or false for none.
fn eth(options: &mut Options) -> Result<Option<Ethernet2Header>> {
    let mut header = Ethernet2Header {
        source: SOURCE,
        destination: DESTINATION,
        // Local Experimental EtherType 1 (IEEE 802), when nothing follows that has a type.
        ether_type: EtherType(0x88b5),
    };
    match options.raw("eth")? {
        Value::Nil => return Ok(Some(header)),
        Value::Boolean(false) => return Ok(None),
        _ => {}
    }
    let Some(mut given) = options.nested("eth")? else { return Ok(None) };
    header.source = mac(&mut given, "src")?.unwrap_or(SOURCE);
    header.destination = mac(&mut given, "dst")?.unwrap_or(DESTINATION);
    header.ether_type = given.get("type")?.map_or(header.ether_type, EtherType);
    given.finish()?;
    Ok(Some(header))
}

fn mac(options: &mut Options, word: &'static str) -> Result<Option<[u8; 6]>> {
    let Some(text) = options.get::<String>(word)? else { return Ok(None) };
    parse_mac(&text).map(Some).map_err(|_| {
        options
            .bad(format!("{word} must be a MAC address, got \"{text}\""))
            .hint("write it as \"02:00:00:00:00:01\"")
    })
}

/// `vlan = 7`, or `{id=, priority=, dei=, type="802.1q"|"802.1ad", inner=...}`, outermost first.
fn vlans(options: &mut Options) -> Result<Vec<Vlan>> {
    let mut found = Vec::new();
    if options.raw("vlan")?.is_integer() {
        let id = options.get::<u16>("vlan")?.unwrap_or_default();
        found.push(tag(options, id, 0, false, EtherType::VLAN_TAGGED_FRAME)?);
        return Ok(found);
    }
    let mut next = options.nested("vlan")?;
    while let Some(mut given) = next {
        let id = given.required("id")?;
        let priority = given.get("priority")?.unwrap_or(0);
        let dei = given.flag("dei")?;
        let kinds =
            [("802.1q", EtherType::VLAN_TAGGED_FRAME), ("802.1ad", EtherType::PROVIDER_BRIDGING)];
        let announced = given.choice("type", &kinds)?.unwrap_or(EtherType::VLAN_TAGGED_FRAME);
        found.push(tag(&given, id, priority, dei, announced)?);
        if found.len() == 2 && !given.raw("inner")?.is_nil() {
            return Err(given.bad("a frame has two tags at most"));
        }
        if given.raw("inner")?.is_integer() {
            let id = given.get::<u16>("inner")?.unwrap_or_default();
            found.push(tag(&given, id, 0, false, EtherType::VLAN_TAGGED_FRAME)?);
            given.finish()?;
            break;
        }
        next = given.nested("inner")?;
        given.finish()?;
    }
    Ok(found)
}

fn tag(options: &Options, id: u16, priority: u8, dei: bool, announced: EtherType) -> Result<Vlan> {
    let out_of =
        |what, got, most| options.bad(format!("{what} must be from 0 to {most}, got {got}"));
    let header = SingleVlanHeader {
        pcp: VlanPcp::try_new(priority).map_err(|_| out_of("priority", u16::from(priority), 7))?,
        drop_eligible_indicator: dei,
        vlan_id: VlanId::try_new(id).map_err(|_| out_of("the vlan id", id, 4095))?,
        ether_type: EtherType(0),
    };
    Ok(Vlan { announced, header })
}

/// What stands above Ethernet: `ip` of either family, `ip6`, or `arp`.
fn net(options: &mut Options, frame: &mut Frame) -> Result<Option<Net>> {
    let (ip, ip6, arp) = (options.nested("ip")?, options.nested("ip6")?, options.nested("arp")?);
    match (ip, ip6, arp) {
        (None, None, None) => Ok(None),
        (Some(mut given), None, None) => {
            let (source, destination) = (address(&mut given, "src")?, address(&mut given, "dst")?);
            let net = match (source, destination) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    frame.wrong.ip = given.get("checksum")?;
                    Net::V4(v4(&mut given, from.octets(), to.octets())?)
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    Net::V6(v6(&mut given, from.octets(), to.octets())?)
                }
                _ => return Err(given.bad("src and dst are of different families")),
            };
            given.finish()?;
            Ok(Some(net))
        }
        (None, Some(mut given), None) => {
            let (source, destination) = (address(&mut given, "src")?, address(&mut given, "dst")?);
            let (IpAddr::V6(from), IpAddr::V6(to)) = (source, destination) else {
                return Err(given
                    .bad("src and dst must be IPv6 addresses")
                    .hint("ip takes both families"));
            };
            let net = v6(&mut given, from.octets(), to.octets())?;
            given.finish()?;
            Ok(Some(Net::V6(net)))
        }
        (None, None, Some(mut given)) => {
            let arp = arp_packet(&mut given, frame)?;
            given.finish()?;
            Ok(Some(Net::Arp(arp)))
        }
        _ => Err(options.bad("takes one of ip, ip6 and arp")),
    }
}

fn address(options: &mut Options, word: &'static str) -> Result<IpAddr> {
    options.required(word)
}

fn v4(given: &mut Options, source: [u8; 4], destination: [u8; 4]) -> Result<Ipv4Header> {
    let tos: u8 = given.get("tos")?.unwrap_or(0);
    let offset: u16 = given.get("offset")?.unwrap_or(0);
    if !offset.is_multiple_of(8) {
        return Err(given.bad(format!("offset must be a multiple of 8 bytes, got {offset}")));
    }
    let mut header = Ipv4Header {
        dscp: IpDscp::try_new(tos >> 2).expect("six bits"),
        ecn: IpEcn::try_new(tos & 3).expect("two bits"),
        identification: given.get("id")?.unwrap_or(0),
        dont_fragment: given.flag("df")?,
        more_fragments: given.flag("mf")?,
        fragment_offset: IpFragOffset::try_new(offset / 8).expect("thirteen bits"),
        time_to_live: given.get("ttl")?.unwrap_or(64),
        protocol: IpNumber(words::proto(given)?.unwrap_or(253)),
        source,
        destination,
        ..Ipv4Header::default()
    };
    if let Some(options) = given.get::<Vec<u8>>("options")? {
        header.options = options.as_slice().try_into().map_err(|_| {
            given.bad(format!("options must be 0 to 40 bytes, in fours, got {}", options.len()))
        })?;
    }
    Ok(header)
}

/// `ttl` and `tos` mean what they mean in IPv4, beside IPv6's own words.
fn v6(given: &mut Options, source: [u8; 16], destination: [u8; 16]) -> Result<Ipv6Header> {
    let label: u32 = given.get("flow_label")?.unwrap_or(0);
    let ttl: Option<u8> = given.get("ttl")?;
    let tos: Option<u8> = given.get("tos")?;
    Ok(Ipv6Header {
        traffic_class: given.get("tclass")?.or(tos).unwrap_or(0),
        flow_label: Ipv6FlowLabel::try_new(label)
            .map_err(|_| given.bad(format!("flow_label must be from 0 to 1048575, got {label}")))?,
        payload_length: 0,
        next_header: IpNumber(words::proto(given)?.unwrap_or(253)),
        hop_limit: given.get("hop_limit")?.or(ttl).unwrap_or(64),
        source,
        destination,
    })
}

/// `arp = {op=, src=, dst=, src_mac=, dst_mac=}`: MAC addresses from the Ethernet header, none where it is asked for.
fn arp_packet(given: &mut Options, frame: &mut Frame) -> Result<ArpEthIpv4Packet> {
    let operations = [("request", ArpOperation::REQUEST), ("reply", ArpOperation::REPLY)];
    let operation = given.choice("op", &operations)?.unwrap_or(ArpOperation::REQUEST);
    let (source, destination) = (address(given, "src")?, address(given, "dst")?);
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        return Err(given.bad("src and dst must be IPv4 addresses"));
    };
    let sender = frame.eth.as_ref().map_or(SOURCE, |eth| eth.source);
    let target = match operation {
        ArpOperation::REPLY => frame.eth.as_ref().map_or(DESTINATION, |eth| eth.destination),
        _ => [0; 6],
    };
    Ok(ArpEthIpv4Packet {
        operation,
        sender_mac: mac(given, "src_mac")?.unwrap_or(sender),
        sender_ipv4: source.octets(),
        target_mac: mac(given, "dst_mac")?.unwrap_or(target),
        target_ipv4: destination.octets(),
    })
}

fn transport(options: &mut Options, frame: &mut Frame, v6: bool) -> Result<Option<Transport>> {
    let (udp, tcp, icmp) =
        (options.nested("udp")?, options.nested("tcp")?, options.nested("icmp")?);
    let (mut given, transport) = match (udp, tcp, icmp) {
        (None, None, None) => return Ok(None),
        (Some(mut given), None, None) => {
            let (source_port, destination_port) = ports(&mut given)?;
            let header = UdpHeader { source_port, destination_port, ..UdpHeader::default() };
            (given, Transport::Udp(header))
        }
        (None, Some(mut given), None) => {
            let header = tcp::header(&mut given)?;
            (given, Transport::Tcp(header))
        }
        (None, None, Some(mut given)) => {
            let header = icmp_header(&mut given, v6)?;
            (given, Transport::Icmp(header))
        }
        _ => return Err(options.bad("takes one of udp, tcp and icmp")),
    };
    frame.wrong.transport = given.get("checksum")?;
    given.finish()?;
    Ok(Some(transport))
}

fn ports(given: &mut Options) -> Result<(u16, u16)> {
    Ok((given.get("sport")?.unwrap_or(SPORT), given.get("dport")?.unwrap_or(DPORT)))
}

/// `icmp = {type="echo-request"|number, code=, id=, seq=, mtu=}`
fn icmp_header(given: &mut Options, v6: bool) -> Result<Icmp> {
    let kind = match given.raw("type")? {
        Value::Nil => {
            if v6 {
                128
            } else {
                8
            }
        }
        Value::Integer(_) => given.get::<u8>("type")?.unwrap_or_default(),
        _ => {
            let name: String = given.required("type")?;
            words::icmp_number(&name, v6).ok_or_else(|| {
                let known = words::icmp_names(v6);
                let error = given.bad(format!("there is no type \"{name}\""));
                match nearest(&name, &known) {
                    Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                    None => error.hint(format!("it is a number, or one of {}", known.join(", "))),
                }
            })?
        }
    };
    let code = given.get("code")?.unwrap_or(0);
    let id = given.get::<u16>("id")?.unwrap_or(0).to_be_bytes();
    let seq = given.get::<u16>("seq")?.unwrap_or(0).to_be_bytes();
    let rest = match given.get::<u32>("mtu")? {
        Some(mtu) if v6 => mtu.to_be_bytes(),
        Some(mtu) => {
            let mtu = u16::try_from(mtu)
                .map_err(|_| given.bad(format!("mtu must be from 0 to 65535, got {mtu}")))?;
            [[0; 2], mtu.to_be_bytes()].concat().try_into().expect("four bytes")
        }
        None => [id, seq].concat().try_into().expect("four bytes"),
    };
    Ok(Icmp { kind, code, rest })
}
