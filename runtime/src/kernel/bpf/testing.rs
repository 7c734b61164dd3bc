//! What this layer's tests share: compiled C, namespaces with a veth pair.

use std::path::PathBuf;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoNetkit, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::compile::{CompileOptions, Source, compile};
use super::hook::{Target, rtnl};
use super::object::{LoadOptions, Object};
use super::probe::scratch_netns;
use crate::Result;
use crate::kernel::netns::NetnsFd;

/// What every test source starts with.
pub const HEAD: &str = "\
#include <linux/bpf.h>
#include <linux/in6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC(\"license\") = \"GPL\";
";

/// The object of C `source`, with [`HEAD`] before it.
pub fn object(source: &str) -> Vec<u8> {
    let source = Source::Text { source: format!("{HEAD}{source}"), directory: PathBuf::from(".") };
    match compile(&source, &CompileOptions::default()) {
        Ok(compiled) => compiled.bytes,
        Err(e) => panic!("{e}\n{}", e.get_detail().unwrap_or_default()),
    }
}

pub fn try_load(source: &str, options: &LoadOptions) -> Result<Object> {
    Object::load(&object(source), options)
}

pub fn load(source: &str) -> Object {
    load_with(source, &LoadOptions { name: "test".into(), ..LoadOptions::default() })
}

pub fn load_with(source: &str, options: &LoadOptions) -> Object {
    try_load(source, options)
        .unwrap_or_else(|e| panic!("{e}\n{}", e.get_detail().unwrap_or_default()))
}

/// A fresh namespace with a veth pair, both ends up; it goes with the targets.
pub fn veth() -> (Target, Target) {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName("b".into()));
    let data = InfoData::Veth(InfoVeth::Peer(peer));
    pair(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)])
}

/// As [`veth`], netkit: the primary end first.
pub fn netkit() -> (Target, Target) {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName("b".into()));
    let data = InfoData::Netkit(vec![InfoNetkit::Peer(peer)]);
    pair(vec![LinkInfo::Kind(InfoKind::Netkit), LinkInfo::Data(data)])
}

fn pair(info: Vec<LinkInfo>) -> (Target, Target) {
    let netns = scratch_netns().expect("a namespace");
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName("a".into()));
    link.attributes.push(LinkAttribute::LinkInfo(info));
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    netns.within(|| rtnl::request(RouteNetlinkMessage::NewLink(link), flags)).expect("a pair");
    let [a, b] = ["a", "b"].map(|name| {
        let index = index(&netns, name);
        let mut up = LinkMessage::default();
        up.header.index = index;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        let request = RouteNetlinkMessage::SetLink(up);
        netns.within(|| rtnl::request(request, NLM_F_REQUEST)).expect("up");
        Target::new(&netns, index, name)
    });
    (a, b)
}

fn index(netns: &NetnsFd, name: &str) -> u32 {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    let request = RouteNetlinkMessage::GetLink(message);
    let replies = netns.within(|| rtnl::request(request, NLM_F_REQUEST)).expect("the link");
    let index = replies.into_iter().find_map(|reply| match reply.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(l)) => Some(l.header.index),
        _ => None,
    });
    index.expect("an index")
}

/// Sends `count` frames of an experimental protocol out of a link.
pub fn transmit(target: &Target, count: u32) {
    let mut frame = vec![0u8; 64];
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&TEST_PROTOCOL.to_be_bytes());
    let sent = target.netns.within(|| {
        let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)
            .expect("a packet socket");
        // SAFETY: sockaddr_ll is plain integers, all-zero is valid; it fits the storage.
        let ((), address) = unsafe {
            socket2::SockAddr::try_init(|storage, length| {
                let address = storage.cast::<libc::sockaddr_ll>();
                (*address).sll_family = libc::AF_PACKET as u16;
                (*address).sll_ifindex = target.index as i32;
                (*address).sll_halen = 6;
                *length = size_of::<libc::sockaddr_ll>() as u32;
                Ok(())
            })
        }
        .expect("an address");
        for _ in 0..count {
            socket.send_to(&frame, &address).expect("sent");
        }
        Ok(())
    });
    sent.expect("in the namespace");
}

/// Local Experimental EtherType 1 (IEEE 802): nothing else sends it.
pub const TEST_PROTOCOL: u16 = 0x88b5;

/// Deletes a link.
pub fn delete_link(target: &Target) {
    let mut message = LinkMessage::default();
    message.header.index = target.index;
    let request = RouteNetlinkMessage::DelLink(message);
    target.netns.within(|| rtnl::request(request, NLM_F_REQUEST)).expect("deleted");
}
