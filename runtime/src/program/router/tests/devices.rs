//! Devices that are not Ethernet: without a link header, and netkit.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;

use super::super::policy::{Action, Device, Hop};
use super::super::spec::Hook;
use super::fixture::{Net, from};
use crate::kernel::link::{self, Change, End, NewLink, kinds};

/// A tun device in the router's namespace, 10.8.0.1/24, and what it sends and receives.
fn tun(net: &Net) -> File {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const IFF_TUN_NO_PI: u16 = 0x1001;
    let file = net
        .router
        .netns
        .fd
        .within(|| {
            let file = File::options()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .map_err(|e| crate::Error::io("tun", &e))?;
            let mut request = [0u8; 40];
            request[..4].copy_from_slice(b"tun0");
            request[16..18].copy_from_slice(&IFF_TUN_NO_PI.to_ne_bytes());
            // SAFETY: `request` has the size of struct ifreq and outlives the call.
            let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            Ok(file)
        })
        .unwrap();
    let up = Change { up: Some(true), ..Change::default() };
    link::set(&net.router.netlink, net.router.index("tun0"), &up).unwrap();
    net.router.add_address("tun0", "10.8.0.1/24");
    file
}

/// The next IPv4 packet that the device sends.
fn sent_by(tun: &mut File) -> Option<Vec<u8>> {
    let mut buffer = [0; 2000];
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        match tun.read(&mut buffer) {
            Ok(n) if buffer[0] >> 4 == 4 => return Some(buffer[..n].to_vec()),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

fn packet(size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4([10, 8, 0, 2], [203, 0, 113, 1], 64)
        .udp(4000, 5000)
        .write(&mut out, &vec![1; size])
        .unwrap();
    out
}

#[test]
fn headerless_devices_are_sources_and_targets() {
    let net = Net::new();
    let mut tun = tun(&net);
    let router = net.router(&[("tun0", Hook::Ingress), ("rc", Hook::Ingress)]);
    let dev = Device { index: net.router.index("tun0"), name: "tun0".into() };
    let into = Action::Route(smallvec::smallvec![Hop {
        via: None,
        dev: Some(dev),
        weight: 1,
        onlink: false
    }]);
    router.set(vec![from("10.8.0.0/24", net.to_b()), from("10.1.0.0/24", into)]).unwrap();
    let b = net.b.socket("203.0.113.1", 5000);
    tun.write_all(&packet(32)).unwrap();
    assert_eq!(b.recv(&mut [0; 100]).unwrap(), 32, "{:?}", router.stats().total);
    // From Ethernet into the tunnel.
    net.client.socket("10.1.0.2", 4000).send_to(b"hello", "203.0.113.1:5000").unwrap();
    let out = sent_by(&mut tun).expect("a packet from the tunnel");
    assert_eq!((out.len(), &out[28..]), (33, &b"hello"[..]));
    // What does not fit comes back through the tunnel, from the router's address there.
    let small = Change { mtu: Some(1300), ..Change::default() };
    link::set(&net.router.netlink, net.router.index("rb"), &small).unwrap();
    tun.write_all(&packet(1400)).unwrap();
    let answer = sent_by(&mut tun).expect("an ICMP error");
    assert_eq!(
        (answer[9], &answer[12..16], &answer[16..20]),
        (1, &[10, 8, 0, 1][..], &[10, 8, 0, 2][..])
    );
    let icmp = etherparse::Icmpv4Slice::from_slice(&answer[20..]).unwrap();
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 4));
    assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), 1300);
    assert_eq!(
        etherparse::checksum::Sum16BitWords::new().add_slice(&answer[20..]).ones_complement(),
        0,
        "the ICMP checksum"
    );
    assert_eq!(answer[28..124], packet(1400)[..96]);
}

#[test]
fn both_sides_of_netkit() {
    let net = Net::new();
    let mut end = End::named("nk0");
    end.addresses = vec!["10.5.0.1/24".parse().unwrap()];
    let mut pair = NewLink::new(&net.router.netlink, kinds::find("netkit").unwrap(), end);
    let mut peer = End::named("nk1");
    peer.addresses = vec!["10.5.0.2/24".parse().unwrap()];
    pair.peer = Some((&net.client.netlink, peer));
    match link::create(&pair) {
        Ok(_) => {}
        Err(e) if e.is("EOPNOTSUPP") => return println!("skipped: no netkit here"),
        Err(e) => panic!("{e}"),
    }
    let router = net.router(&[("nk0", Hook::Peer)]);
    router.set(vec![from("10.5.0.0/24", net.to_b())]).unwrap();
    // The client reaches the server through netkit for this source.
    let rule = crate::kernel::route::Options {
        dst: Some("203.0.113.1/32".parse().unwrap()),
        via: Some("10.5.0.1".parse().unwrap()),
        ..crate::kernel::route::Options::default()
    };
    crate::kernel::route::add(&net.client.netlink, &rule).unwrap();
    assert_eq!(net.who(("10.5.0.2", 4000), 5000, b"x"), "b", "{:?}", router.stats().total);
    assert_eq!(router.stats().total.routed.packets, 1);
}
