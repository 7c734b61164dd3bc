//! What this layer's tests share: compiled C, namespaces with a veth pair.

use std::path::PathBuf;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::compile::{CompileOptions, Source, compile};
use super::hook::{Target, rtnl};
use super::object::{LoadOptions, Object};
use super::probe::scratch_netns;
use crate::Result;

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
    let netns = scratch_netns().expect("a namespace");
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName("b".into()));
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName("a".into()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    netns.within(|| rtnl::request(RouteNetlinkMessage::NewLink(link), flags)).expect("a veth pair");
    let index = |name: &str| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        let request = RouteNetlinkMessage::GetLink(message);
        let replies = netns.within(|| rtnl::request(request, NLM_F_REQUEST)).expect("the link");
        replies
            .into_iter()
            .find_map(|reply| match reply.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(l)) => {
                    Some(l.header.index)
                }
                _ => None,
            })
            .expect("an index")
    };
    let ends = [("a", index("a")), ("b", index("b"))].map(|(name, index)| {
        let mut up = LinkMessage::default();
        up.header.index = index;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        let request = RouteNetlinkMessage::SetLink(up);
        netns.within(|| rtnl::request(request, NLM_F_REQUEST)).expect("up");
        Target::new(&netns, index, name)
    });
    let [a, b] = ends;
    (a, b)
}

/// Deletes a link.
pub fn delete_link(target: &Target) {
    let mut message = LinkMessage::default();
    message.header.index = target.index;
    let request = RouteNetlinkMessage::DelLink(message);
    target.netns.within(|| rtnl::request(request, NLM_F_REQUEST)).expect("deleted");
}
