//! Routing policy rules (`ip-rule(8)`, net/core/fib_rules.c).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{
    RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::kernel::netlink::Netlink;
use crate::{Error, Result};

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Action {
    /// Look the packet up in the rule's table.
    #[default]
    Lookup,
    /// Go on at the rule with that priority.
    Goto(u32),
    Nop,
    Blackhole,
    Unreachable,
    Prohibit,
}

/// A rule, to be added, deleted or as it is now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// For rules without addresses; IPv4 when false.
    pub ipv6: bool,
    pub from: Option<IpNetwork>,
    pub to: Option<IpNetwork>,
    pub iif: Option<String>,
    pub oif: Option<String>,
    pub fwmark: Option<u32>,
    /// All bits when not given.
    pub fwmask: Option<u32>,
    /// IPPROTO_*
    pub ipproto: Option<u8>,
    /// First and last port.
    pub sport: Option<(u16, u16)>,
    pub dport: Option<(u16, u16)>,
    pub tos: u8,
    pub invert: bool,
    pub table: Option<u32>,
    /// Lower is asked first; the kernel puts it before the lowest one (from 32765 down) when not given.
    pub priority: Option<u32>,
    pub suppress_prefixlength: Option<u32>,
    /// RTPROT_*, see [`super::route::protocol`].
    pub protocol: Option<u8>,
    pub action: Action,
}

/// FIB_RULE_INVERT
const INVERT: u32 = 2;

/// Adds the rule.
///
/// # Errors
/// EEXIST when there is an equal one, EINVAL for a selector this kernel does not take.
pub fn add(netlink: &Netlink, rule: &Rule) -> Result<()> {
    let message = message(rule, true)?;
    netlink.request(RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL).map_err(|e| {
        let errno = e.errno;
        let error = e.into_error("rule.add").subject(rule.to_string());
        match errno {
            Errno::EEXIST => error.because("there is an equal rule already"),
            _ => error,
        }
    })
}

impl Rule {
    /// Whether that is the rule which adding this one makes.
    pub fn is(&self, there: &Rule) -> bool {
        let ipv6 = self.from.or(self.to).map_or(self.ipv6, |net| net.is_ipv6());
        let selectors = |r: &Rule| (r.from, r.to, r.fwmark, r.table, r.ipproto);
        there.ipv6 == ipv6
            && selectors(there) == selectors(self)
            && (&there.iif, &there.oif) == (&self.iif, &self.oif)
            && self.priority.is_none_or(|priority| there.priority == Some(priority))
    }
}

/// Deletes the first rule that matches all that is given.
///
/// # Errors
/// ENOENT when none does.
pub fn delete(netlink: &Netlink, rule: &Rule) -> Result<()> {
    let message = message(rule, false)?;
    netlink.request(RouteNetlinkMessage::DelRule(message), 0).map_err(|e| {
        let errno = e.errno;
        let error = e.into_error("rule.delete").subject(rule.to_string());
        match errno {
            Errno::ENOENT => error.because("there is no such rule"),
            _ => error,
        }
    })
}

/// The rules of one family, or of both, as they are asked.
pub fn list(netlink: &Netlink, ipv6: Option<bool>) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for family in [false, true] {
        if ipv6.is_some_and(|wanted| wanted != family) {
            continue;
        }
        let mut request = RuleMessage::default();
        request.header.family = family_of(family);
        let found = netlink
            .dump_parsed(&RouteNetlinkMessage::GetRule(request))
            .map_err(|e| e.into_error("netns.rules"))?;
        rules.extend(found.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRule(message) => Some(decode(message)),
            _ => None,
        }));
    }
    Ok(rules)
}

fn family_of(ipv6: bool) -> AddressFamily {
    if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn message(rule: &Rule, new: bool) -> Result<RuleMessage> {
    let ipv6 = rule.from.or(rule.to).map_or(rule.ipv6, |net| net.is_ipv6());
    if rule.to.is_some_and(|to| to.is_ipv6() != ipv6) {
        return Err(Error::invalid("rule", "from and to are of different families"));
    }
    for name in [&rule.iif, &rule.oif].into_iter().flatten() {
        super::link::check_name(name)?;
    }
    let mut message = RuleMessage::default();
    message.header.family = family_of(ipv6);
    message.header.tos = rule.tos;
    message.header.flags.set(RuleFlags::from_bits_retain(INVERT), rule.invert);
    let attributes = &mut message.attributes;
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix();
        attributes.push(RuleAttribute::Source(from.network()));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix();
        attributes.push(RuleAttribute::Destination(to.network()));
    }
    message.header.action = match rule.action {
        Action::Lookup if new || rule.table.is_some() => RuleAction::ToTable,
        Action::Lookup => RuleAction::Unspec,
        Action::Goto(_) => RuleAction::Goto,
        Action::Nop => RuleAction::Nop,
        Action::Blackhole => RuleAction::Blackhole,
        Action::Unreachable => RuleAction::Unreachable,
        Action::Prohibit => RuleAction::Prohibit,
    };
    if let Action::Goto(target) = rule.action {
        attributes.push(RuleAttribute::Goto(target));
    }
    let table = rule.table.or((new && rule.action == Action::Lookup).then_some(MAIN));
    attributes.extend(table.map(RuleAttribute::Table));
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    attributes.extend(rule.oif.clone().map(RuleAttribute::Oifname));
    attributes.extend(rule.fwmark.map(RuleAttribute::FwMark));
    attributes.extend(rule.fwmask.map(RuleAttribute::FwMask));
    attributes.extend(rule.ipproto.map(|number| RuleAttribute::IpProtocol(number.into())));
    attributes.extend(rule.sport.map(|p| RuleAttribute::SourcePortRange(range(p))));
    attributes.extend(rule.dport.map(|p| RuleAttribute::DestinationPortRange(range(p))));
    attributes.extend(rule.priority.map(RuleAttribute::Priority));
    attributes.extend(rule.suppress_prefixlength.map(RuleAttribute::SuppressPrefixLen));
    attributes.extend(rule.protocol.map(|number| RuleAttribute::Protocol(number.into())));
    Ok(message)
}

const MAIN: u32 = super::route::TABLE_MAIN;

fn range((start, end): (u16, u16)) -> RulePortRange {
    RulePortRange { start, end }
}

fn decode(message: &RuleMessage) -> Rule {
    let header = &message.header;
    let mut rule = Rule {
        ipv6: header.family == AddressFamily::Inet6,
        tos: header.tos,
        invert: header.flags.bits() & INVERT != 0,
        table: Some(header.table.into()),
        // The kernel leaves it out when it is 0.
        priority: Some(0),
        ..Rule::default()
    };
    let mut goto = 0;
    let net = |ip: &IpAddr, prefix| IpNetwork::new(*ip, prefix).ok();
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(ip) => rule.from = net(ip, header.src_len),
            RuleAttribute::Destination(ip) => rule.to = net(ip, header.dst_len),
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::Oifname(name) => rule.oif = Some(name.clone()),
            RuleAttribute::FwMark(mark) => rule.fwmark = Some(*mark),
            RuleAttribute::FwMask(mask) => rule.fwmask = Some(*mask),
            RuleAttribute::IpProtocol(protocol) => rule.ipproto = Some((*protocol).into()),
            RuleAttribute::SourcePortRange(r) => rule.sport = Some((r.start, r.end)),
            RuleAttribute::DestinationPortRange(r) => rule.dport = Some((r.start, r.end)),
            RuleAttribute::Table(table) => rule.table = Some(*table),
            RuleAttribute::Priority(priority) => rule.priority = Some(*priority),
            // All ones is the kernel's "not set".
            RuleAttribute::SuppressPrefixLen(n) if *n != u32::MAX => {
                rule.suppress_prefixlength = Some(*n);
            }
            RuleAttribute::Protocol(protocol) => rule.protocol = Some((*protocol).into()),
            RuleAttribute::Goto(target) => goto = *target,
            _ => {}
        }
    }
    rule.fwmask = rule.fwmask.filter(|_| rule.fwmark.is_some());
    rule.action = match header.action {
        RuleAction::Goto => Action::Goto(goto),
        RuleAction::Nop => Action::Nop,
        RuleAction::Blackhole => Action::Blackhole,
        RuleAction::Unreachable => Action::Unreachable,
        RuleAction::Prohibit => Action::Prohibit,
        _ => Action::Lookup,
    };
    if rule.action != Action::Lookup {
        rule.table = None;
    }
    rule
}

/// As `ip rule` shows it: `500: from 10.0.0.0/8 lookup 100`
impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(priority) = self.priority {
            write!(f, "{priority}: ")?;
        }
        match self.from {
            Some(from) => write!(f, "from {from}")?,
            None => f.write_str("from all")?,
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        for (word, device) in [("iif", &self.iif), ("oif", &self.oif)] {
            if let Some(device) = device {
                write!(f, " {word} {device}")?;
            }
        }
        if let Some(mark) = self.fwmark {
            write!(f, " fwmark {mark:#x}")?;
        }
        for (word, ports) in [("sport", self.sport), ("dport", self.dport)] {
            match ports {
                Some((first, last)) if first != last => write!(f, " {word} {first}-{last}")?,
                Some((port, _)) => write!(f, " {word} {port}")?,
                None => {}
            }
        }
        match (self.action, self.table) {
            (Action::Lookup, Some(table)) => write!(f, " lookup {table}"),
            (Action::Lookup, None) => Ok(()),
            (Action::Goto(target), _) => write!(f, " goto {target}"),
            (action, _) => write!(f, " {}", format!("{action:?}").to_lowercase()),
        }
    }
}
