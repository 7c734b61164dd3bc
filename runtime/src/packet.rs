//! Packets byte by byte: frames put together from their headers, with lengths and checksums, and taken apart again. No
//! Lua and no kernel here; the headers are etherparse's.

use std::net::IpAddr;

use etherparse::{
    ArpEthIpv4Packet, ArpPacket, EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Type,
    IpNumber, Ipv4Header, Ipv6Header, LaxPacketHeaders, LaxPayloadSlice, NetHeaders,
    SingleVlanHeader, TcpHeader, UdpHeader,
};

use crate::{Error, Result};

/// The headers of a frame, outermost first. Lengths, and types that follow from the next header, are filled in by
/// [`Frame::bytes`].
#[derive(Debug, Clone)]
pub struct Frame {
    pub eth: Option<Ethernet2Header>,
    /// 802.1ad before 802.1Q.
    pub vlans: Vec<Vlan>,
    pub net: Option<Net>,
    pub transport: Option<Transport>,
    pub payload: Vec<u8>,
    /// Checksums to write instead of the right ones.
    pub wrong: Checksums,
}

/// A VLAN tag, and the type that announces it (0x8100, 0x88a8).
#[derive(Debug, Clone)]
pub struct Vlan {
    pub announced: EtherType,
    pub header: SingleVlanHeader,
}

#[derive(Debug, Clone)]
pub enum Net {
    V4(Ipv4Header),
    V6(Ipv6Header),
    Arp(ArpEthIpv4Packet),
}

#[derive(Debug, Clone)]
pub enum Transport {
    Udp(UdpHeader),
    Tcp(TcpHeader),
    Icmp(Icmp),
}

/// ICMP of either family: type, code, and the four bytes behind the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub rest: [u8; 4],
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Checksums {
    pub ip: Option<u16>,
    pub transport: Option<u16>,
}

/// Types whose third and fourth bytes are an identifier and a sequence number: echo requests and replies.
pub fn is_echo(kind: u8, v6: bool) -> bool {
    if v6 { matches!(kind, 128 | 129) } else { matches!(kind, 0 | 8) }
}

/// IP and UDP count 16 bits of length.
fn too_long(payload: usize) -> Error {
    Error::new("packet.build", "EMSGSIZE", format!("a payload of {payload} bytes is too long"))
        .hint("the IP and UDP headers count at most 65535 bytes")
}

impl Frame {
    /// The frame as it goes on the wire.
    ///
    /// # Errors
    /// EMSGSIZE when the payload does not fit the length fields; EINVAL for a transport header without an IP header.
    pub fn bytes(mut self) -> Result<Vec<u8>> {
        let transport = self.transport_bytes()?;
        let mut out = Vec::with_capacity(64 + transport.len() + self.payload.len());
        self.announce();
        if let Some(eth) = &self.eth {
            out.extend(eth.to_bytes());
            out.extend(self.vlans.iter().flat_map(|vlan| vlan.header.to_bytes()));
        }
        let length = transport.len() + self.payload.len();
        match &mut self.net {
            Some(Net::V4(ip)) => {
                ip.set_payload_len(length).map_err(|_| too_long(self.payload.len()))?;
                ip.header_checksum = self.wrong.ip.unwrap_or(ip.calc_header_checksum());
                out.extend(ip.to_bytes());
            }
            Some(Net::V6(ip)) => {
                ip.set_payload_length(length).map_err(|_| too_long(self.payload.len()))?;
                out.extend(ip.to_bytes());
            }
            Some(Net::Arp(arp)) => out.extend(ArpPacket::from(arp.clone()).to_bytes()),
            None => {}
        }
        out.extend(transport);
        out.extend(&self.payload);
        Ok(out)
    }

    /// Writes what follows each header into it, where nothing was asked for.
    fn announce(&mut self) {
        let inner = match &self.net {
            Some(Net::V4(_)) => Some(EtherType::IPV4),
            Some(Net::V6(_)) => Some(EtherType::IPV6),
            Some(Net::Arp(_)) => Some(EtherType::ARP),
            None => None,
        };
        let Some(eth) = &mut self.eth else { return };
        let mut next = inner.unwrap_or(eth.ether_type);
        for vlan in self.vlans.iter_mut().rev() {
            vlan.header.ether_type = next;
            next = vlan.announced;
        }
        eth.ether_type = next;
    }

    /// The transport header with length and checksum; the IP header's protocol is set by the way.
    fn transport_bytes(&mut self) -> Result<Vec<u8>> {
        let payload = &self.payload;
        let number = match &self.transport {
            None => return Ok(Vec::new()),
            Some(Transport::Udp(_)) => IpNumber::UDP,
            Some(Transport::Tcp(_)) => IpNumber::TCP,
            Some(Transport::Icmp(_)) if matches!(self.net, Some(Net::V6(_))) => IpNumber::IPV6_ICMP,
            Some(Transport::Icmp(_)) => IpNumber::ICMP,
        };
        let addresses = match &mut self.net {
            Some(Net::V4(ip)) => {
                ip.protocol = number;
                Addresses::V4(ip.source, ip.destination)
            }
            Some(Net::V6(ip)) => {
                ip.next_header = number;
                Addresses::V6(ip.source, ip.destination)
            }
            _ => {
                return Err(Error::invalid(
                    "packet.build",
                    "a transport header needs an IP header",
                )
                .hint("give ip = {src = \"10.0.0.1\", dst = \"10.0.0.2\"}"));
            }
        };
        Ok(match self.transport.as_mut() {
            Some(Transport::Udp(udp)) => {
                udp.length = u16::try_from(UdpHeader::LEN + payload.len())
                    .map_err(|_| too_long(payload.len()))?;
                let right = addresses.udp(udp, payload).map_err(|_| too_long(payload.len()))?;
                udp.checksum = self.wrong.transport.unwrap_or(right);
                udp.to_bytes().to_vec()
            }
            Some(Transport::Tcp(tcp)) => {
                let right = addresses.tcp(tcp, payload).map_err(|_| too_long(payload.len()))?;
                tcp.checksum = self.wrong.transport.unwrap_or(right);
                tcp.to_bytes().to_vec()
            }
            Some(Transport::Icmp(icmp)) => {
                let right = addresses.icmp(icmp, payload).map_err(|_| too_long(payload.len()))?;
                let checksum = self.wrong.transport.unwrap_or(right).to_be_bytes();
                [&[icmp.kind, icmp.code], &checksum[..], &icmp.rest].concat()
            }
            None => Vec::new(),
        })
    }
}

/// What the pseudo header of checksums has.
#[derive(Debug, Clone, Copy)]
pub enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

type Sum = std::result::Result<u16, etherparse::err::ValueTooBigError<usize>>;

impl Addresses {
    pub fn udp(&self, header: &UdpHeader, payload: &[u8]) -> Sum {
        match *self {
            Addresses::V4(from, to) => header.calc_checksum_ipv4_raw(from, to, payload),
            Addresses::V6(from, to) => header.calc_checksum_ipv6_raw(from, to, payload),
        }
    }

    pub fn tcp(&self, header: &TcpHeader, payload: &[u8]) -> Sum {
        match *self {
            Addresses::V4(from, to) => header.calc_checksum_ipv4_raw(from, to, payload),
            Addresses::V6(from, to) => header.calc_checksum_ipv6_raw(from, to, payload),
        }
    }

    pub fn icmp(&self, icmp: &Icmp, payload: &[u8]) -> Sum {
        let Icmp { kind: type_u8, code: code_u8, rest: bytes5to8 } = *icmp;
        match *self {
            Addresses::V4(..) => {
                let header = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
                Ok(Icmpv4Header::with_checksum(header, payload).checksum)
            }
            Addresses::V6(from, to) => {
                Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 }.calc_checksum(from, to, payload)
            }
        }
    }

    pub fn source(&self) -> IpAddr {
        match *self {
            Addresses::V4(from, _) => from.into(),
            Addresses::V6(from, _) => from.into(),
        }
    }

    pub fn destination(&self) -> IpAddr {
        match *self {
            Addresses::V4(_, to) => to.into(),
            Addresses::V6(_, to) => to.into(),
        }
    }
}

/// Where a packet starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Eth,
    Ip,
}

/// Takes a packet apart as far as it goes: what cannot be read is left as payload, and `stop_err` says why.
///
/// # Errors
/// EINVAL for bytes that do not hold the first header.
pub fn take_apart(bytes: &[u8], first: First) -> Result<LaxPacketHeaders<'_>> {
    let wrong = |message: String| Error::invalid("packet.decode", message);
    match first {
        First::Eth => LaxPacketHeaders::from_ethernet(bytes).map_err(|_| {
            wrong(format!("{} bytes are no Ethernet frame", bytes.len()))
                .hint("an Ethernet header has 14 bytes; packets without one: {first = \"ip\"}")
        }),
        First::Ip => LaxPacketHeaders::from_ip(bytes)
            .map_err(|e| wrong(format!("this is no IP packet: {e}"))),
    }
}

/// The bytes behind the last header that could be read; whether some of them are missing.
pub fn payload<'a>(found: &LaxPacketHeaders<'a>) -> (&'a [u8], bool) {
    match &found.payload {
        // What follows an ARP packet is padding.
        _ if matches!(found.net, Some(NetHeaders::Arp(_))) => (&[], false),
        LaxPayloadSlice::Empty => (&[], false),
        LaxPayloadSlice::Ether(ether) => (ether.payload, ether.incomplete),
        LaxPayloadSlice::Ip(ip) => (ip.payload, ip.incomplete),
        LaxPayloadSlice::MacsecModified { payload, incomplete }
        | LaxPayloadSlice::Udp { payload, incomplete }
        | LaxPayloadSlice::Tcp { payload, incomplete }
        | LaxPayloadSlice::Icmpv4 { payload, incomplete }
        | LaxPayloadSlice::Icmpv6 { payload, incomplete }
        | LaxPayloadSlice::Igmp { payload, incomplete } => (payload, *incomplete),
        LaxPayloadSlice::LinuxSll(sll) => (sll.payload, false),
    }
}
