//! Many requests in few sends: the difference between 100 links in milliseconds and in seconds.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;

use super::{Netlink, NetlinkError, serialize, take};
use crate::fault;

/// Messages per send: their acknowledgements must fit the receive buffer, because the kernel drops what does not.
pub(super) const PER_SEND: usize = 256;
/// Bytes per send, well under the send buffer.
const SEND: usize = 192 << 10;

type Outcome = std::result::Result<(), NetlinkError>;

/// Requests gathered for one namespace. The kernel executes them in order, each on its own.
#[derive(Default)]
pub struct Batch {
    messages: Vec<(RouteNetlinkMessage, u16)>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request; `flags` besides REQUEST and ACK (`NLM_F_CREATE | NLM_F_EXCL`).
    pub fn push(&mut self, message: RouteNetlinkMessage, flags: u16) {
        self.messages.push((message, flags));
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Runs all of them, going on after a refusal (the kernel does not stop inside a send): one outcome each, in order.
    pub fn run(self, netlink: &Netlink) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(self.messages.len());
        let mut rest = self.messages.into_iter().peekable();
        let mut sequence = netlink.lock();
        while rest.peek().is_some() {
            let first = take(&mut sequence, PER_SEND as u32);
            let mut bytes = Vec::with_capacity(4096);
            let mut count = 0;
            while count < PER_SEND && bytes.len() < SEND {
                let Some((message, flags)) = rest.next() else { break };
                let seq = first + count as u32;
                serialize(&mut bytes, message, flags | NLM_F_REQUEST | NLM_F_ACK, seq);
                count += 1;
            }
            exchange(netlink, &bytes, first, count, &mut outcomes);
        }
        outcomes
    }

    /// Runs them one by one and stops at the first refusal; what stood before it is done.
    pub fn run_until_error(self, netlink: &Netlink) -> Outcome {
        for (index, (message, flags)) in self.messages.into_iter().enumerate() {
            netlink.request(message, flags).map_err(|e| NetlinkError { index, ..e })?;
        }
        Ok(())
    }

    /// Runs all of them; the first refusal, if any.
    pub fn run_all(self, netlink: &Netlink) -> Outcome {
        self.run(netlink).into_iter().collect()
    }
}

/// One send and its `count` acknowledgements, whose sequence numbers start at `first`.
fn exchange(
    netlink: &Netlink,
    bytes: &[u8],
    first: u32,
    count: usize,
    outcomes: &mut Vec<Outcome>,
) {
    let base = outcomes.len();
    let lost = |error: NetlinkError, from: usize| {
        (from..count).map(move |i| Err(NetlinkError { index: base + i, ..error.clone() }))
    };
    fault::point();
    let sent = netlink.send(bytes);
    fault::point();
    if let Err(error) = sent {
        outcomes.extend(lost(error, 0));
        return;
    }
    let mut answered = 0;
    let read = netlink.read_until(|header, body| {
        let position = header.sequence_number.wrapping_sub(first) as usize;
        if i32::from(header.message_type) != libc::NLMSG_ERROR || position >= count {
            return None;
        }
        let flags = i32::from(header.flags);
        outcomes.push(NetlinkError::from_answer(header.message_type, flags, body, base + position));
        answered += 1;
        (answered == count).then_some(())
    });
    if let Err(error) = read {
        outcomes.extend(lost(error, answered));
    }
}
