//! Why the kernel refused a value or a place of a link: its bare errno in terms of what was asked, looked up after it failed.

use nix::errno::Errno;

use super::{LinkInfo, NewLink, info, list, name::format_mac};
use crate::Error;
use crate::error::errno_name;
use crate::kernel::netlink::{Netlink, NetlinkError};

/// What was asked of one end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    pub mac: Option<[u8; 6]>,
    /// Bytes.
    pub mtu: Option<u32>,
}

/// Bytes, both ends included; no upper end for `None`.
type Range = (u32, Option<u32>);

/// ETH_MIN_MTU and ETH_MAX_MTU, which veth, netkit and bridges take (drivers/net/veth.c, net/bridge/br_device.c); of other
/// kinds the kernel's sentence says it.
const ETHERNET: Range = (68, Some(65535));

impl Asked {
    /// The refusal of this link's values, if it is about them.
    pub fn blame(self, errno: Errno, range: impl FnOnce() -> Option<Range>) -> Option<Error> {
        let (text, hint) = match errno {
            Errno::EADDRNOTAVAIL => mac_problem(self.mac?)?,
            Errno::EINVAL => mtu_problem(self.mtu?, range()?)?,
            _ => return None,
        };
        let error = Error::new("link", errno_name(errno), text);
        Some(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }
}

/// What `is_valid_ether_addr` has against it.
fn mac_problem(mac: [u8; 6]) -> Option<(String, Option<String>)> {
    let text = format_mac(&mac);
    if mac == [0; 6] {
        let hint = "leave mac out: the kernel chooses one";
        return Some((format!("mac {text} is no address"), Some(hint.into())));
    }
    let multicast = mac[0] & 1 == 1;
    multicast.then(|| {
        let mut unicast = mac;
        unicast[0] = mac[0] & !1 | 2;
        let hint = format!("a link's own has an even first byte: {}", format_mac(&unicast));
        (format!("mac {text} is a multicast address"), Some(hint))
    })
}

fn mtu_problem(mtu: u32, (least, most): Range) -> Option<(String, Option<String>)> {
    if mtu >= least && most.is_none_or(|most| mtu <= most) {
        return None;
    }
    let range = match most {
        Some(most) => format!("{least} to {most}"),
        None => format!("{least} or more"),
    };
    Some((format!("mtu {mtu} is out of its range: {range} bytes"), None))
}

/// The MTUs that a link takes, as the kernel says them.
pub fn mtu_range(netlink: &Netlink, index: u32) -> Option<Range> {
    let link = info(netlink, index).ok()?;
    Some((link.min_mtu, (link.max_mtu != 0).then_some(link.max_mtu)))
}

/// The refusal of a creation, if it is about the ends' values or the link it stands on.
pub fn of_creation(link: &NewLink<'_>, sender: &Netlink, error: &NetlinkError) -> Option<Error> {
    let range = || matches!(link.kind.name, "veth" | "netkit" | "bridge").then_some(ETHERNET);
    let ends = std::iter::once(&link.end).chain(link.peer.as_ref().map(|(_, end)| end));
    for end in ends {
        let asked = Asked { mac: end.mac, mtu: end.mtu };
        if let Some(error) = asked.blame(error.errno, range) {
            return Some(error.subject(&*end.name));
        }
    }
    let below = info(sender, link.link?).ok()?;
    let text = match error.errno {
        Errno::EBUSY => occupied(sender, &below)?,
        Errno::EINVAL if error.ext_ack.is_none() => unfit(link.kind.name, sender, &below)?,
        _ => return None,
    };
    Some(Error::new("link", errno_name(error.errno), text))
}

/// The refusal of a port, if it is about the link that was to become one.
pub fn of_port(netlink: &Netlink, port: u32, errno: Errno) -> Option<Error> {
    const IFF_LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;
    let port = info(netlink, port).ok()?;
    let text = match errno {
        Errno::EBUSY => occupied(netlink, &port)?,
        Errno::EINVAL if port.flags & IFF_LOOPBACK != 0 => {
            format!("{} is the loopback: it cannot be a port", port.name)
        }
        _ => return None,
    };
    Some(Error::new("link", errno_name(errno), text))
}

/// Who has what the link receives: only one can (`netdev_rx_handler_register`).
fn occupied(netlink: &Netlink, link: &LinkInfo) -> Option<String> {
    let name = &link.name;
    if let Some(master) = link.master.and_then(|index| info(netlink, index).ok()) {
        return Some(format!(
            "what {name} receives is {}'s already: {name} is a port of that {}",
            master.name, master.kind
        ));
    }
    let above = list(netlink).ok()?.into_iter().find(|one| {
        one.link == Some(link.index)
            && matches!(one.kind.as_str(), "macvlan" | "macvtap" | "ipvlan")
    })?;
    Some(format!(
        "what {name} receives is {}'s already: that {} stands on it",
        above.name, above.kind
    ))
}

/// What a macvlan or ipvlan cannot stand on (drivers/net/macvlan.c: `macvlan_port_create`, `macvlan_common_newlink`).
fn unfit(kind: &str, netlink: &Netlink, below: &LinkInfo) -> Option<String> {
    if !matches!(kind, "macvlan" | "ipvlan") {
        return None;
    }
    if below.flags & libc::IFF_LOOPBACK as u32 != 0 {
        return Some(format!("a {kind} cannot stand on the loopback"));
    }
    if below.mac.is_none() {
        return Some(format!("a {kind} needs an Ethernet link; {} has no MAC", below.name));
    }
    let sibling = list(netlink)
        .ok()?
        .into_iter()
        .find(|one| one.link == Some(below.index) && one.kind == kind)?;
    Some(format!(
        "{} stands on {} already: one of mode \"passthru\" has it for itself",
        sibling.name, below.name
    ))
}
