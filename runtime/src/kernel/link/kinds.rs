//! The kinds of links, one row each: what the kernel calls them, their options, and what a kernel needs to have them.

use super::value::Form::{
    Address, Be16, BeWord, Bool, Flag, GreKey, Link, Ticks, U8, U16, U32, Word,
};
use super::value::{Field, field};

/// A kind of link.
#[derive(Debug)]
pub struct Kind {
    /// IFLA_INFO_KIND, as `ip link ... type` names it.
    pub name: &'static str,
    pub fields: &'static [Field],
    /// It stands on another link (`link=` in IFLA_LINK): vlan, macvlan, ipvlan.
    pub on_link: bool,
    /// The first kernel that has it, for kinds younger than the oldest supported.
    pub since: Option<(u32, u32)>,
    /// The kernel's build option.
    pub config: &'static str,
}

impl Kind {
    pub fn field(&self, word: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.word == word)
    }

    /// Both ends are made in one request.
    pub fn is_pair(&self) -> bool {
        matches!(self.name, "veth" | "netkit")
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

const fn kind(name: &'static str, config: &'static str, fields: &'static [Field]) -> Kind {
    Kind { name, fields, on_link: false, since: None, config }
}

/// The kind of that name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Every kind that can be made here. Numbers are those of include/uapi/linux/if_link.h and if_tunnel.h.
pub static KINDS: &[Kind] = &[
    kind("veth", "CONFIG_VETH", &[]),
    Kind { since: Some((6, 7)), ..kind("netkit", "CONFIG_NETKIT", NETKIT) },
    kind("bridge", "CONFIG_BRIDGE", BRIDGE),
    Kind { on_link: true, ..kind("vlan", "CONFIG_VLAN_8021Q", VLAN) },
    kind("vxlan", "CONFIG_VXLAN", VXLAN),
    kind("geneve", "CONFIG_GENEVE", GENEVE),
    kind("dummy", "CONFIG_DUMMY", &[]),
    kind("ifb", "CONFIG_IFB", &[]),
    Kind { on_link: true, ..kind("macvlan", "CONFIG_MACVLAN", MACVLAN) },
    Kind { on_link: true, ..kind("ipvlan", "CONFIG_IPVLAN", IPVLAN) },
    kind("vrf", "CONFIG_NET_VRF", VRF),
    kind("bond", "CONFIG_BONDING", BOND),
    kind("tun", "CONFIG_TUN", TUN),
    kind("gre", "CONFIG_NET_IPGRE", GRE),
    kind("gretap", "CONFIG_NET_IPGRE", GRE),
    kind("ip6gre", "CONFIG_IPV6_GRE", GRE6),
    kind("ip6gretap", "CONFIG_IPV6_GRE", GRE6),
    kind("ipip", "CONFIG_NET_IPIP", IPTUNNEL),
    kind("sit", "CONFIG_IPV6_SIT", IPTUNNEL),
    kind("ip6tnl", "CONFIG_IPV6_TUNNEL", IP6TUNNEL),
    kind("wireguard", "CONFIG_WIREGUARD", &[]),
];

const POLICIES: &[(&str, u64)] = &[("forward", 0), ("pass", 0), ("blackhole", 2), ("drop", 2)];
/// NETKIT_SCRUB_NONE leaves skb->mark and priority as they are; the kernel's default clears them.
const SCRUBS: &[(&str, u64)] = &[("none", 0), ("default", 1)];

static NETKIT: &[Field] = &[
    field("mode", 5, Word(&[("l2", 0), ("l3", 1)], 4)),
    field("policy", 3, Word(POLICIES, 4)),
    field("peer_policy", 4, Word(POLICIES, 4)),
    field("scrub", 6, Word(SCRUBS, 4)),
    field("peer_scrub", 7, Word(SCRUBS, 4)),
    field("headroom", 8, U16),
    field("tailroom", 9, U16),
];

static BRIDGE: &[Field] = &[
    field("forward_delay", 1, Ticks),
    field("hello_time", 2, Ticks),
    field("max_age", 3, Ticks),
    field("ageing_time", 4, Ticks),
    field("stp", 5, Word(&[("off", 0), ("on", 1)], 4)),
    field("priority", 6, U16),
    field("vlan_filtering", 7, Bool),
    field("vlan_protocol", 8, BeWord(VLAN_PROTOCOLS)),
    field("group_fwd_mask", 9, U16),
    field("mcast_snooping", 23, Bool),
    field("mcast_querier", 25, Bool),
    field("nf_call_iptables", 36, Bool),
    field("nf_call_ip6tables", 37, Bool),
    field("vlan_default_pvid", 39, U16),
];

const VLAN_PROTOCOLS: &[(&str, u64)] = &[("802.1q", 0x8100), ("802.1ad", 0x88a8)];

static VLAN: &[Field] = &[field("id", 1, U16), field("protocol", 5, BeWord(VLAN_PROTOCOLS))];

static VXLAN: &[Field] = &[
    field("id", 1, U32),
    // One attribute in the kernel: a unicast remote and a multicast group differ by the address alone.
    field("remote", 2, Address { v6: 16 }),
    field("group", 2, Address { v6: 16 }),
    field("dev", 3, Link),
    field("local", 4, Address { v6: 17 }),
    field("ttl", 5, U8),
    field("tos", 6, U8),
    field("learning", 7, Bool),
    field("ageing", 8, U32),
    field("maxaddress", 9, U32),
    field("proxy", 11, Bool),
    field("rsc", 12, Bool),
    field("l2miss", 13, Bool),
    field("l3miss", 14, Bool),
    field("dstport", 15, Be16),
    field("udpcsum", 18, Bool),
    field("udp6zerocsumtx", 19, Bool),
    field("udp6zerocsumrx", 20, Bool),
    field("gbp", 23, Flag),
    field("external", 25, Bool),
];

static GENEVE: &[Field] = &[
    field("id", 1, U32),
    field("remote", 2, Address { v6: 7 }),
    field("ttl", 3, U8),
    field("tos", 4, U8),
    field("dstport", 5, Be16),
    field("external", 6, Flag),
    field("udpcsum", 8, Bool),
    field("udp6zerocsumtx", 9, Bool),
    field("udp6zerocsumrx", 10, Bool),
];

static MACVLAN: &[Field] = &[field(
    "mode",
    1,
    Word(&[("private", 1), ("vepa", 2), ("bridge", 4), ("passthru", 8), ("source", 16)], 4),
)];

static IPVLAN: &[Field] = &[
    field("mode", 1, Word(&[("l2", 0), ("l3", 1), ("l3s", 2)], 2)),
    field("flags", 2, Word(&[("bridge", 0), ("private", 1), ("vepa", 2)], 2)),
];

static VRF: &[Field] = &[field("table", 1, U32)];

static BOND: &[Field] = &[
    field("mode", 1, Word(BOND_MODES, 1)),
    field("miimon", 3, U32),
    field("updelay", 4, U32),
    field("downdelay", 5, U32),
    field("arp_interval", 7, U32),
    field("primary", 11, Link),
    field("fail_over_mac", 13, Word(&[("none", 0), ("active", 1), ("follow", 2)], 1)),
    field("xmit_hash_policy", 14, Word(BOND_HASHES, 1)),
    field("num_peer_notif", 16, U8),
    field("all_ports_active", 17, Bool),
    field("min_links", 18, U32),
    field("lacp_rate", 21, Word(&[("slow", 0), ("fast", 1)], 1)),
];

const BOND_MODES: &[(&str, u64)] = &[
    ("balance-rr", 0),
    ("active-backup", 1),
    ("balance-xor", 2),
    ("broadcast", 3),
    ("802.3ad", 4),
    ("balance-tlb", 5),
    ("balance-alb", 6),
];

const BOND_HASHES: &[(&str, u64)] =
    &[("layer2", 0), ("layer3+4", 1), ("layer2+3", 2), ("encap2+3", 3), ("encap3+4", 4)];

/// Made through /dev/net/tun, so these only read; `mode`, `multi_queue` and `vnet_hdr` are options of [`super::tun`].
static TUN: &[Field] = &[
    field("mode", 3, Word(&[("tun", 1), ("tap", 2)], 1)),
    field("packet_info", 4, Bool),
    field("vnet_hdr", 5, Bool),
    field("multi_queue", 7, Bool),
];

static GRE: &[Field] = &[
    field("dev", 1, Link),
    field("ikey", 4, GreKey { flags: 2 }),
    field("okey", 5, GreKey { flags: 3 }),
    field("local", 6, Address { v6: 0 }),
    field("remote", 7, Address { v6: 0 }),
    field("ttl", 8, U8),
    field("tos", 9, U8),
    field("pmtudisc", 10, Bool),
    field("external", 18, Flag),
];

static GRE6: &[Field] = &[
    field("dev", 1, Link),
    field("ikey", 4, GreKey { flags: 2 }),
    field("okey", 5, GreKey { flags: 3 }),
    field("local", 0, Address { v6: 6 }),
    field("remote", 0, Address { v6: 7 }),
    field("ttl", 8, U8),
    field("encap_limit", 11, U8),
    field("external", 18, Flag),
];

static IPTUNNEL: &[Field] = &[
    field("dev", 1, Link),
    field("local", 2, Address { v6: 0 }),
    field("remote", 3, Address { v6: 0 }),
    field("ttl", 4, U8),
    field("tos", 5, U8),
    field("pmtudisc", 10, Bool),
    field("external", 19, Flag),
];

static IP6TUNNEL: &[Field] = &[
    field("dev", 1, Link),
    field("local", 0, Address { v6: 2 }),
    field("remote", 0, Address { v6: 3 }),
    field("ttl", 4, U8),
    field("encap_limit", 6, U8),
    // What it carries: IPPROTO_IPIP, IPPROTO_IPV6, or both.
    field("mode", 9, Word(&[("any", 0), ("ipip6", 4), ("ip6ip6", 41)], 1)),
    field("external", 19, Flag),
];
