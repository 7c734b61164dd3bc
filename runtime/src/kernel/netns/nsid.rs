//! How one namespace numbers another: the ids that a link's other end is given with (`ip-netns(8)`, `list-id`).

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::NetnsFd;
use crate::Result;
use crate::kernel::netlink::Netlink;

/// The id that the namespace of `netlink` knows `other` by; none if it has given it no id.
pub fn nsid(netlink: &Netlink, other: &NetnsFd) -> Result<Option<i32>> {
    let mut request = NsidMessage::default();
    request.attributes.push(NsidAttribute::Fd(other.as_fd().as_raw_fd() as u32));
    let answers = netlink
        .answer(RouteNetlinkMessage::GetNsId(request), 0)
        .map_err(|e| e.into_error("netns.nsid"))?;
    Ok(answers.iter().filter_map(|raw| raw.parse()).find_map(|message| match message {
        RouteNetlinkMessage::NewNsId(message) => {
            message.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                _ => None,
            })
        }
        _ => None,
    }))
}
