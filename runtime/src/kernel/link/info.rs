//! What the kernel says about links, decoded by the kinds' own tables.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::errno::Errno;
use rustix::net::netdevice::index_to_name_inlined;

use super::name::format_mac;
use super::value::Value;
use super::{kinds, message};
use crate::kernel::netlink::attribute::{attributes, find, number, text};
use crate::kernel::netlink::{Netlink, NetlinkError, Raw};
use crate::nearest::nearest;
use crate::{Error, Result};

/// A link as it is now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkInfo {
    pub index: u32,
    pub name: String,
    /// "veth"; empty for hardware and loopback.
    pub kind: String,
    pub mac: Option<String>,
    pub broadcast: Option<String>,
    /// Bytes.
    pub mtu: u32,
    /// IFF_* (`netdevice(7)`).
    pub flags: u32,
    pub up: bool,
    /// IFF_LOWER_UP: there is a carrier.
    pub carrier: bool,
    /// IFF_RUNNING: it is up and operational.
    pub running: bool,
    /// "up", "down", "unknown", "lowerlayerdown", "dormant", "notpresent", "testing"
    pub operstate: &'static str,
    pub master: Option<u32>,
    /// The pair's other end, or the link it stands on; in namespace `link_netnsid` when that is set.
    pub link: Option<u32>,
    /// As the link's own namespace numbers others (`ip netns list-id`).
    pub link_netnsid: Option<i32>,
    pub group: u32,
    pub alias: Option<String>,
    pub txqueuelen: u32,
    pub num_tx_queues: u32,
    pub num_rx_queues: u32,
    pub qdisc: Option<String>,
    pub promiscuity: u32,
    pub min_mtu: u32,
    pub max_mtu: u32,
    /// The kind's own options.
    pub data: Vec<(&'static str, Value)>,
}

const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_QDISC: u16 = 6;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_MIN_MTU: u16 = 50;
const IFLA_MAX_MTU: u16 = 51;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// `struct ifinfomsg`
const HEADER: usize = 16;

const OPERSTATES: [&str; 7] =
    ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];

/// The link with that index.
///
/// # Errors
/// ENODEV when there is none.
pub fn info(netlink: &Netlink, index: u32) -> Result<LinkInfo> {
    query(netlink, without_stats(message::change(index)))
        .map_err(|e| e.into_error("link.info").subject(format!("index {index}")))
}

/// Whether there is a link with that index. Some ten times cheaper than [`info`]: it takes no lock of all namespaces and
/// describes nothing (SIOCGIFNAME of netdevice(7); `dev_ifname` in net/core/dev_ioctl.c).
pub fn is_there(netlink: &Netlink, index: u32) -> bool {
    index_to_name_inlined(netlink.fd(), index) != Err(rustix::io::Errno::NODEV)
}

/// The link with that name.
///
/// # Errors
/// ENODEV when there is none, with the nearest name as hint.
pub fn info_by_name(netlink: &Netlink, name: &str) -> Result<LinkInfo> {
    super::check_name(name)?;
    query(netlink, without_stats(named(name))).map_err(|e| {
        let error = e.clone().into_error("link.info").subject(name);
        match e.errno {
            Errno::ENODEV => not_found(netlink, error, name),
            _ => error,
        }
    })
}

fn not_found(netlink: &Netlink, error: Error, name: &str) -> Error {
    let error = error.because(format!("there is no link of that name in {}", netlink.label()));
    let links = list(netlink).unwrap_or_default();
    match nearest(name, links.iter().map(|link| &link.name)) {
        Some(near) => error.hint(format!("did you mean {near:?}?")),
        None if links.len() <= 8 => {
            let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
            error.hint(format!("there is {}", names.join(", ")))
        }
        None => error,
    }
}

/// All links of the namespace, by index.
pub fn list(netlink: &Netlink) -> Result<Vec<LinkInfo>> {
    let request = RouteNetlinkMessage::GetLink(without_stats(LinkMessage::default()));
    let found = netlink.dump(&request).map_err(|e| e.into_error("netns.links"))?;
    Ok(found.iter().filter_map(|raw| decode(&raw.body)).collect())
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn without_stats(mut message: LinkMessage) -> LinkMessage {
    let mask = DefaultNla::new(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.to_ne_bytes().to_vec());
    message.attributes.push(LinkAttribute::Other(mask));
    message
}

fn ask(netlink: &Netlink, message: LinkMessage) -> std::result::Result<Raw, NetlinkError> {
    netlink.answer(RouteNetlinkMessage::GetLink(message))
}

fn query(netlink: &Netlink, message: LinkMessage) -> std::result::Result<LinkInfo, NetlinkError> {
    decode(&ask(netlink, message)?.body).ok_or(NetlinkError::new(Errno::EBADMSG))
}

/// Reads the body of RTM_NEWLINK or RTM_DELLINK.
pub(in crate::kernel) fn decode(body: &[u8]) -> Option<LinkInfo> {
    let word = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let flags = word(8)?;
    let set = |flag: i32| flags & flag as u32 != 0;
    let mut link = LinkInfo {
        index: word(4)?,
        flags,
        up: set(libc::IFF_UP),
        running: set(libc::IFF_RUNNING),
        carrier: set(libc::IFF_LOWER_UP),
        operstate: OPERSTATES[0],
        ..LinkInfo::default()
    };
    let some = |value: &[u8]| Some(number(value) as u32).filter(|n| *n != 0);
    for attribute in attributes(body.get(HEADER..)?) {
        let value = attribute.value;
        let int = || number(value) as u32;
        match attribute.kind {
            IFLA_ADDRESS => link.mac = Some(format_mac(value)).filter(|m| !m.is_empty()),
            IFLA_BROADCAST => link.broadcast = Some(format_mac(value)).filter(|m| !m.is_empty()),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = int(),
            IFLA_LINK => link.link = some(value),
            IFLA_QDISC => link.qdisc = Some(text(value)),
            IFLA_MASTER => link.master = some(value),
            IFLA_TXQLEN => link.txqueuelen = int(),
            IFLA_OPERSTATE => {
                link.operstate = OPERSTATES.get(int() as usize).copied().unwrap_or(OPERSTATES[0]);
            }
            IFLA_LINKINFO => decode_kind(value, &mut link),
            IFLA_IFALIAS => link.alias = Some(text(value)).filter(|a| !a.is_empty()),
            IFLA_GROUP => link.group = int(),
            IFLA_PROMISCUITY => link.promiscuity = int(),
            IFLA_NUM_TX_QUEUES => link.num_tx_queues = int(),
            IFLA_NUM_RX_QUEUES => link.num_rx_queues = int(),
            IFLA_LINK_NETNSID => link.link_netnsid = Some(int() as i32),
            IFLA_MIN_MTU => link.min_mtu = int(),
            IFLA_MAX_MTU => link.max_mtu = int(),
            _ => {}
        }
    }
    Some(link)
}

fn decode_kind(info: &[u8], link: &mut LinkInfo) {
    link.kind = find(info, IFLA_INFO_KIND).map(text).unwrap_or_default();
    let (Some(kind), Some(data)) = (kinds::find(&link.kind), find(info, IFLA_INFO_DATA)) else {
        return;
    };
    for field in kind.fields {
        let Some(value) = field.read(data) else { continue };
        // vxlan has one attribute for both words.
        let multicast = matches!(value, Value::Address(ip) if ip.is_multicast());
        let other = match field.word {
            "group" => !multicast,
            "remote" => multicast,
            _ => matches!(value, Value::Link(0)),
        };
        if !other {
            link.data.push((field.word, value));
        }
    }
}

/// One direction of `struct rtnl_link_stats64`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub rx: Vec<(&'static str, u64)>,
    pub tx: Vec<(&'static str, u64)>,
}

/// Direction (true: received) and word of each counter, in the order of `struct rtnl_link_stats64`.
const COUNTERS: [(bool, &str); 25] = [
    (true, "packets"),
    (false, "packets"),
    (true, "bytes"),
    (false, "bytes"),
    (true, "errors"),
    (false, "errors"),
    (true, "dropped"),
    (false, "dropped"),
    (true, "multicast"),
    (false, "collisions"),
    (true, "length_errors"),
    (true, "over_errors"),
    (true, "crc_errors"),
    (true, "frame_errors"),
    (true, "fifo_errors"),
    (true, "missed_errors"),
    (false, "aborted_errors"),
    (false, "carrier_errors"),
    (false, "fifo_errors"),
    (false, "heartbeat_errors"),
    (false, "window_errors"),
    (true, "compressed"),
    (false, "compressed"),
    (true, "nohandler"),
    (true, "otherhost_dropped"),
];

/// The link's counters since it was made.
///
/// # Errors
/// ENODEV when there is no link with that index.
pub fn stats(netlink: &Netlink, index: u32) -> Result<Stats> {
    let failed = |e: NetlinkError| e.into_error("link.stats").subject(format!("index {index}"));
    let raw = ask(netlink, message::change(index)).map_err(failed)?;
    let counters = raw.body.get(HEADER..).and_then(|b| find(b, IFLA_STATS64)).unwrap_or_default();
    let mut stats = Stats::default();
    for ((received, word), bytes) in COUNTERS.iter().zip(counters.chunks_exact(8)) {
        let side = if *received { &mut stats.rx } else { &mut stats.tx };
        side.push((*word, number(bytes)));
    }
    Ok(stats)
}

impl Stats {
    /// A counter by direction and word; 0 when this kernel does not count it.
    pub fn get(side: &[(&'static str, u64)], word: &str) -> u64 {
        side.iter().find(|(w, _)| *w == word).map_or(0, |(_, n)| *n)
    }
}
