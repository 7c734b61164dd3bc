//! What this layer's tests share: compiled C, namespaces with a veth pair.

use std::path::PathBuf;

use super::compile::{CompileOptions, Source, compile};
use super::hook::Target;
use super::object::{LoadOptions, Object};
use super::probe::scratch_netns;
use crate::Result;
use crate::kernel::link::{self, End, NewLink};
use crate::kernel::netlink::Netlink;

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
    pair("veth")
}

/// As [`veth`], netkit: the primary end first.
pub fn netkit() -> (Target, Target) {
    pair("netkit")
}

fn pair(kind: &str) -> (Target, Target) {
    let netns = scratch_netns().expect("a namespace");
    let netlink = Netlink::open(&netns).expect("a socket");
    let kind = link::kinds::find(kind).expect("a kind");
    let mut pair = NewLink::new(&netlink, kind, End::named("a"));
    pair.peer = Some((&netlink, End::named("b")));
    let made = link::create(&pair).expect("a pair");
    let peer = made.peer_index.expect("two ends");
    (Target::new(&netns, made.index, "a"), Target::new(&netns, peer, "b"))
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
    let netlink = Netlink::open(&target.netns).expect("a socket");
    link::delete(&netlink, target.index).expect("deleted");
}
