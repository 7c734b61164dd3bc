//! The kernel's own notifications about links, addresses, routes and neighbours of one namespace.
//!
//! The descriptor is non-blocking: wait for it with poll(2) on a thread or AsyncFd in tokio, then drain it with [`Notifications::receive`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;

use super::address::{self, AddressInfo};
use super::link::info::{self as link_info, LinkInfo};
use super::neigh::{self, NeighInfo};
use super::netlink::{Raw, messages, open_socket};
use super::netns::NetnsFd;
use super::route::{self, RouteInfo};
use crate::{Error, Result};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    New,
    /// Only for links: the kernel tells nothing apart for the others, where a new state of an old object is `New`.
    Change,
    Delete,
}

/// One notification.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Link(Action, Box<LinkInfo>),
    Address(Action, AddressInfo),
    Route(Action, Box<RouteInfo>),
    Neigh(Action, NeighInfo),
    /// The queue overran (ENOBUFS): some notifications are gone, so look at the present state again.
    Lost,
}

/// What to be told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Topics {
    pub link: bool,
    pub address: bool,
    pub route: bool,
    pub neigh: bool,
}

impl Topics {
    fn groups(self) -> impl Iterator<Item = u32> {
        [
            (self.link, libc::RTNLGRP_LINK),
            (self.address, libc::RTNLGRP_IPV4_IFADDR),
            (self.address, libc::RTNLGRP_IPV6_IFADDR),
            (self.route, libc::RTNLGRP_IPV4_ROUTE),
            (self.route, libc::RTNLGRP_IPV6_ROUTE),
            (self.neigh, libc::RTNLGRP_NEIGH),
        ]
        .into_iter()
        .filter_map(|(wanted, group)| wanted.then_some(group))
    }
}

/// A subscription. Ends when dropped; keeps its namespace alive until then.
pub struct Notifications {
    socket: Socket,
    ready: VecDeque<Event>,
    buffer: Vec<u8>,
}

/// Bytes: a notification is far smaller; a datagram holds one or few.
const READ: usize = 64 << 10;

impl Notifications {
    /// Subscribes inside `netns`; everything from the return on is delivered.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN for a namespace that is not the host's, EMFILE.
    pub fn open(netns: &NetnsFd, topics: Topics) -> Result<Self> {
        let failed = |e: io::Error| Error::io("event.on", &e);
        let (socket, _) = netns.within(|| open_socket().map_err(failed))?;
        socket.set_non_blocking(true).map_err(failed)?;
        for group in topics.groups() {
            socket.add_membership(group).map_err(failed)?;
        }
        Ok(Notifications { socket, ready: VecDeque::new(), buffer: Vec::with_capacity(READ) })
    }

    /// For waiting in a tokio runtime, which must be the current one: `readable_mut`, then [`Notifications::receive`] until
    /// nothing comes, then `clear_ready`.
    ///
    /// # Errors
    /// What epoll_ctl(2) gives.
    pub fn into_async(self) -> Result<tokio::io::unix::AsyncFd<Self>> {
        // SAFETY: the descriptor is the socket's, which is neither replaced nor closed before self is dropped.
        unsafe { tokio::io::unix::AsyncFd::register(self) }
            .map_err(|e| Error::io("event.on", &e.into_parts().1))
    }

    /// The next event, or nothing when none is waiting.
    ///
    /// # Errors
    /// What recv(2) gives, except ENOBUFS, which is [`Event::Lost`].
    pub fn receive(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(Event::Lost)),
                Err(e) => return Err(Error::io("event", &e)),
            }
            for (header, body) in messages(&self.buffer) {
                self.ready.extend(decode(header.message_type, body));
            }
        }
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as self, which the borrow holds.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

impl AsRawFd for Notifications {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn decode(kind: u16, body: &[u8]) -> Option<Event> {
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => return decode_link(kind, body),
        libc::RTM_NEWADDR..=libc::RTM_DELADDR
        | libc::RTM_NEWROUTE..=libc::RTM_DELROUTE
        | libc::RTM_NEWNEIGH..=libc::RTM_DELNEIGH => {}
        _ => return None,
    }
    let parsed = Raw { kind, body: body.to_vec() }.parse()?;
    match parsed {
        RouteNetlinkMessage::NewAddress(m) => {
            Some(Event::Address(Action::New, address::decode(&m)?))
        }
        RouteNetlinkMessage::DelAddress(m) => {
            Some(Event::Address(Action::Delete, address::decode(&m)?))
        }
        RouteNetlinkMessage::NewRoute(m) => {
            Some(Event::Route(Action::New, Box::new(route::decode(&m)?)))
        }
        RouteNetlinkMessage::DelRoute(m) => {
            Some(Event::Route(Action::Delete, Box::new(route::decode(&m)?)))
        }
        RouteNetlinkMessage::NewNeighbour(m) => Some(Event::Neigh(Action::New, neigh::decode(&m)?)),
        RouteNetlinkMessage::DelNeighbour(m) => {
            Some(Event::Neigh(Action::Delete, neigh::decode(&m)?))
        }
        _ => None,
    }
}

/// A new link is announced with all its flags in the change mask (`rtnl_configure_link`).
fn decode_link(kind: u16, body: &[u8]) -> Option<Event> {
    // Bridges send their ports' state under their own family: no link event.
    if i32::from(*body.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let mask = u32::from_ne_bytes(body.get(12..16)?.try_into().ok()?);
    let action = match kind {
        libc::RTM_DELLINK => Action::Delete,
        _ if mask == u32::MAX => Action::New,
        _ => Action::Change,
    };
    Some(Event::Link(action, Box::new(link_info::decode(body)?)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use nix::poll::{PollFd, PollFlags, poll};

    use super::*;
    use crate::kernel::link::tests::Scratch;
    use crate::kernel::link::{self, Change};
    use crate::kernel::{address as addresses, neigh as neighs, route as routes};

    const ALL: Topics = Topics { link: true, address: true, route: true, neigh: true };

    /// Waits for the event that `wanted` means; the limit only ends a broken test.
    fn until(events: &mut Notifications, wanted: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            while let Some(event) = events.receive().unwrap() {
                if wanted(&event) {
                    return event;
                }
            }
            assert!(Instant::now() < deadline, "the event did not come");
            poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], 5000u16).unwrap();
        }
    }

    #[test]
    fn each_topic_is_told() {
        let scratch = Scratch::new("event");
        let netlink = &scratch.1;
        let mut events = Notifications::open(&scratch.0.fd, ALL).unwrap();
        assert_eq!(events.receive().unwrap(), None);
        let made = scratch.veth(&[]);
        let index = made.index;
        until(&mut events, |e| matches!(e, Event::Link(Action::New, l) if l.index == index));
        until(
            &mut events,
            |e| matches!(e, Event::Link(Action::Change, l) if l.index == index && l.running),
        );
        // Distinct indexes: the loss of carrier is told at once, not after half a second.
        let start = Instant::now();
        let down = Change { up: Some(false), ..Change::default() };
        link::set(netlink, made.peer_index.unwrap(), &down).unwrap();
        until(&mut events, |e| matches!(e, Event::Link(_, l) if l.index == index && !l.running));
        println!("carrier loss told after {:?}", start.elapsed());
        let up = Change { up: Some(true), ..Change::default() };
        link::set(netlink, made.peer_index.unwrap(), &up).unwrap();
        until(&mut events, |e| matches!(e, Event::Link(_, l) if l.index == index && l.running));

        let cidr = "10.6.0.1/24".parse().unwrap();
        addresses::add(netlink, index, &addresses::Options::new(cidr)).unwrap();
        until(&mut events, |e| matches!(e, Event::Address(Action::New, a) if a.address == cidr));
        let via = Some("10.6.0.2".parse().unwrap());
        let default = routes::Options { via, ..Default::default() };
        routes::add(netlink, &default).unwrap();
        until(&mut events, |e| matches!(e, Event::Route(Action::New, r) if r.via == via));
        routes::delete(netlink, &default).unwrap();
        until(&mut events, |e| matches!(e, Event::Route(Action::Delete, r) if r.via == via));
        let dst = "10.6.0.3".parse().unwrap();
        let lladdr = Some(vec![2, 0, 0, 0, 0, 3]);
        let neighbour = neighs::Options { dst, dev: index, lladdr, state: None, proxy: false };
        neighs::add(netlink, &neighbour).unwrap();
        until(&mut events, |e| matches!(e, Event::Neigh(Action::New, n) if n.dst == dst));
        link::delete(netlink, index).unwrap();
        until(&mut events, |e| matches!(e, Event::Link(Action::Delete, l) if l.index == index));
    }

    #[test]
    fn tokio_can_wait_for_it() {
        let scratch = Scratch::new("async");
        let events = Notifications::open(&scratch.0.fd, ALL).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(async {
            let mut events = events.into_async().unwrap();
            let netlink = &scratch.1;
            let cidr = "127.0.0.2/8".parse().unwrap();
            addresses::add(netlink, 1, &addresses::Options::new(cidr)).unwrap();
            loop {
                let mut ready = events.readable_mut().await.unwrap();
                if let Some(event) = ready.get_inner_mut().receive().unwrap() {
                    break event;
                }
                ready.clear_ready();
            }
        });
        assert!(matches!(told, Event::Route(..) | Event::Address(..)), "{told:?}");
    }

    #[test]
    fn an_overrun_is_told() {
        let scratch = Scratch::new("lost");
        let topics = Topics { route: true, ..Topics::default() };
        let mut events = Notifications::open(&scratch.0.fd, topics).unwrap();
        let size: i32 = 4096;
        nix::sys::socket::setsockopt(&events, nix::sys::socket::sockopt::RcvBuf, &(size as usize))
            .unwrap();
        let all: Vec<_> = (0..200u32)
            .map(|i| routes::Options {
                dst: Some(format!("10.7.{i}.0/24").parse().unwrap()),
                kind: Some(6),
                ..Default::default()
            })
            .collect();
        all.iter().for_each(|route| routes::add(&scratch.1, route).unwrap());
        assert_eq!(until(&mut events, |e| *e == Event::Lost), Event::Lost);
    }
}
