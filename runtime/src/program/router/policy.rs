//! What a script says to a router: policies, checked, compared and printed. Nothing of the kernel here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::{Error, Result};

/// The most hops a policy can have (MAX_HOPS of bpf/include/router_abi.h).
pub const MAX_HOPS: usize = 64;
pub const DEFAULT_PRIORITY: u32 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Of an address.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

/// An address as a number, IPv4 in the low 32 bits.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// A network; bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    family: Family,
    bits: u128,
    length: u8,
}

impl Prefix {
    /// The network of `length` bits that holds `address`.
    ///
    /// # Errors
    /// EINVAL when the length is longer than the address.
    pub fn new(address: IpAddr, length: u8) -> Result<Prefix> {
        let family = Family::of(address);
        if length > family.bits() {
            return Err(Error::invalid(
                "policy",
                format!("a prefix of {address} has at most {} bits, not {length}", family.bits()),
            ));
        }
        Ok(Prefix { family, bits: number(address) & mask(family, length), length })
    }

    pub fn family(&self) -> Family {
        self.family
    }
    /// The address as a number, IPv4 in the low 32 bits.
    pub fn bits(&self) -> u128 {
        self.bits
    }
    /// In bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family
            && number(address) & mask(self.family, self.length) == self.bits
    }
}

/// The bits that a prefix of that length compares.
pub fn mask(family: Family, length: u8) -> u128 {
    let all = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    all & !all.checked_shr(u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(self.bits as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(self.bits)),
        };
        if self.length == self.family.bits() {
            write!(f, "{address}")
        } else {
            write!(f, "{address}/{}", self.length)
        }
    }
}

/// "10.0.0.0/24" or an address alone.
impl std::str::FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Prefix> {
        let bad = || Error::invalid("policy", format!("{text:?} is no address or network"));
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        Prefix::new(address, length.unwrap_or(Family::of(address).bits()))
    }
}

/// What a policy matches: all that is given. Two policies with equal matches are the same policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Match {
    pub from: Option<Prefix>,
    pub to: Option<Prefix>,
    /// IPPROTO_*, `protocols(5)`.
    pub proto: Option<u8>,
    pub sport: Option<u16>,
    pub dport: Option<u16>,
    /// The packet's mark in the kernel.
    pub mark: Option<u32>,
    /// 802.1Q id, 0 to 4095; without it only untagged frames match.
    pub vlan: Option<u16>,
}

impl Match {
    /// Which family's packets can match; both for `None`.
    pub fn family(&self) -> Option<Family> {
        self.from.or(self.to).map(|prefix| prefix.family)
    }

    /// Conditional policies are ranked; the others are found by their one prefix.
    pub fn is_conditional(&self) -> bool {
        self.fields() > 0 || (self.from.is_some() && self.to.is_some())
    }

    /// How many fields besides the addresses.
    pub fn fields(&self) -> u8 {
        [
            self.proto.is_some(),
            self.sport.is_some(),
            self.dport.is_some(),
            self.mark.is_some(),
            self.vlan.is_some(),
        ]
        .into_iter()
        .map(u8::from)
        .sum()
    }

    /// Smaller is more specific: longer from, longer to, more fields.
    pub fn specificity(&self) -> u32 {
        let length = |prefix: &Option<Prefix>| prefix.map_or(0, |p| u32::from(p.length));
        (128 - length(&self.from)) << 16
            | (128 - length(&self.to)) << 8
            | (8 - u32::from(self.fields()))
    }
}

/// `from 10.0.0.0/24 proto tcp dport 80`, `all` when it matches everything.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.from.map(|p| format!("from {p}")));
        words.extend(self.to.map(|p| format!("to {p}")));
        words.extend(self.proto.map(|p| format!("proto {}", protocol_name(p))));
        words.extend(self.sport.map(|p| format!("sport {p}")));
        words.extend(self.dport.map(|p| format!("dport {p}")));
        words.extend(self.mark.map(|m| format!("mark {m:#x}")));
        words.extend(self.vlan.map(|v| format!("vlan {v}")));
        f.write_str(if words.is_empty() { "all" } else { "" })?;
        f.write_str(&words.join(" "))
    }
}

const PROTOCOLS: &[(u8, &str)] = &[
    (1, "icmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (132, "sctp"),
    (136, "udplite"),
];

/// As policies print it: a name, or the number.
pub fn protocol_name(number: u8) -> String {
    match PROTOCOLS.iter().find(|(n, _)| *n == number) {
        Some((_, name)) => (*name).to_owned(),
        None => number.to_string(),
    }
}

/// The number of a protocol's name, as policies print it.
pub fn protocol(name: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(_, n)| *n == name).map(|(n, _)| *n)
}

/// A link in the router's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    pub index: u32,
    /// For messages. Shared: large sets name few devices.
    pub name: Arc<str>,
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The neighbour; `None` for the destination itself.
    pub via: Option<IpAddr>,
    /// `None`: the device of the kernel's route to `via`, looked up once by [`super::Router::set`].
    pub dev: Option<Device>,
    /// Its share of the flows beside the other hops', 1 and more.
    pub weight: u32,
    /// `via` is on the link though no route says so.
    pub onlink: bool,
}

/// Most policies have one, and sets have many policies: that one is in the policy itself.
pub type Hops = smallvec::SmallVec<[Hop; 1]>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// To one of these, each flow staying with its own.
    Route(Hops),
    Drop,
    /// To the programs behind and the kernel's own routing.
    Pass,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub matching: Match,
    pub action: Action,
    /// Of conditional policies; lower goes first.
    pub priority: u32,
    /// Gets a copy of every packet first.
    pub mirror: Option<Device>,
}

impl Policy {
    pub fn new(matching: Match, action: Action) -> Policy {
        Policy { matching, action, priority: DEFAULT_PRIORITY, mirror: None }
    }

    /// The hops that packets of `family` can take.
    ///
    /// Where no address says the family, a hop's `via` does: an IPv4 neighbour serves IPv4, an IPv6 one IPv6. An IPv6
    /// neighbour also serves a policy for IPv4 addresses (RFC 5549).
    pub fn hops(&self, family: Family) -> impl Iterator<Item = &Hop> {
        let hops = match &self.action {
            Action::Route(hops) => hops.as_slice(),
            Action::Drop | Action::Pass => &[],
        };
        let named = self.matching.family().is_some();
        hops.iter().filter(move |hop| hop.via.is_none_or(|via| named || Family::of(via) == family))
    }

    /// Whether packets of `family` can match at all.
    pub fn serves(&self, family: Family) -> bool {
        self.matching.family().is_none_or(|f| f == family)
            && (!matches!(self.action, Action::Route(_)) || self.hops(family).next().is_some())
    }

    /// What can be refused without asking the kernel.
    ///
    /// # Errors
    /// EINVAL: the policy contradicts itself.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::invalid("policy", text).subject(self.to_string()));
        let m = &self.matching;
        if let (Some(from), Some(to)) = (m.from, m.to)
            && from.family != to.family
        {
            return wrong("from and to are of different families");
        }
        if m.vlan.is_some_and(|vlan| vlan > 4095) {
            return wrong("a VLAN id is from 0 to 4095");
        }
        if (m.sport.is_some() || m.dport.is_some())
            && m.proto.is_some_and(|p| ![6, 17, 33, 132, 136].contains(&p))
        {
            return wrong("only tcp, udp, udplite, sctp and dccp have ports");
        }
        let Action::Route(hops) = &self.action else { return Ok(()) };
        if hops.is_empty() {
            return wrong("there is no via, dev or nexthops to route to");
        }
        if hops.len() > MAX_HOPS {
            return wrong("a policy has at most 64 next hops");
        }
        for hop in hops {
            if hop.weight == 0 {
                return wrong("a weight is at least 1");
            }
            if hop.via.is_none() && hop.dev.is_none() {
                return wrong("a next hop needs via or dev");
            }
            if m.family() == Some(Family::V6) && hop.via.is_some_and(|via| via.is_ipv4()) {
                return wrong("IPv6 packets cannot go by an IPv4 next hop");
            }
            if hop
                .via
                .is_some_and(|via| via.is_unspecified() || via.is_multicast() || via.is_loopback())
            {
                return wrong("via must be a neighbour's own address");
            }
        }
        Ok(())
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.via.map(|via| format!("via {via}")));
        words.extend(self.dev.as_ref().map(|dev| format!("dev {}", dev.name)));
        if self.weight != 1 {
            words.push(format!("weight {}", self.weight));
        }
        if self.onlink {
            words.push("onlink".to_owned());
        }
        f.write_str(&words.join(" "))
    }
}

/// `from 10.0.0.0/24 via 10.0.1.1 dev eth0`, several hops with `nexthop` before each, as `ip route` prints them.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.matching)?;
        match &self.action {
            Action::Drop => write!(f, " drop")?,
            Action::Pass => write!(f, " pass")?,
            Action::Route(hops) if hops.len() == 1 => write!(f, " {}", hops[0])?,
            Action::Route(hops) => {
                for hop in hops {
                    write!(f, " nexthop {hop}")?;
                }
            }
        }
        if self.priority != DEFAULT_PRIORITY {
            write!(f, " priority {}", self.priority)?;
        }
        if let Some(mirror) = &self.mirror {
            write!(f, " mirror {}", mirror.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let prefix: Prefix = "10.1.2.3/8".parse().unwrap();
        assert_eq!(prefix.to_string(), "10.0.0.0/8");
        assert!("10.0.0.0/33".parse::<Prefix>().is_err());
        assert!("x".parse::<Prefix>().is_err());
        let hop = Hop {
            via: Some("10.0.1.1".parse().unwrap()),
            dev: Some(Device { index: 1, name: "eth0".into() }),
            weight: 2,
            onlink: false,
        };
        let matching =
            Match { from: Some(prefix), proto: Some(6), dport: Some(80), ..Match::default() };
        let policy = Policy::new(matching, Action::Route(Hops::from_elem(hop, 1)));
        assert_eq!(
            policy.to_string(),
            "from 10.0.0.0/8 proto tcp dport 80 via 10.0.1.1 dev eth0 weight 2"
        );
        assert!(policy.check().is_ok());
        assert_eq!(Policy::new(Match::default(), Action::Drop).to_string(), "all drop");
    }

    #[test]
    fn masks() {
        assert_eq!(mask(Family::V4, 0), 0);
        assert_eq!(mask(Family::V4, 24), 0xffff_ff00);
        assert_eq!(mask(Family::V4, 32), 0xffff_ffff);
        assert_eq!(mask(Family::V6, 128), u128::MAX);
        assert_eq!(mask(Family::V6, 1), 1 << 127);
    }
}
