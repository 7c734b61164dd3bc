//! Links: made in their final namespace under their final name, both ends of a pair in one request.
//!
//! [`kinds`] says what each kind has, [`mod@info`] reads, [`change`] alters and deletes.

pub mod change;
pub mod info;
pub mod kinds;
mod lost;
mod message;
mod missing;
pub mod name;
mod refusal;
#[cfg(test)]
mod speed;
mod tun;
pub mod undo;
pub mod value;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub use change::{Change, delete, delete_many, move_to, rename, set};
pub use info::{LinkInfo, Stats, info, info_by_name, is_there, list, stats};
pub use kinds::Kind;
pub use lost::{Lost, Things};
pub use name::{check_name, parse_mac};
pub use undo::Undo;
pub use value::Value;

use message::Made;

use crate::kernel::address;
use crate::kernel::netlink::{Batch, Netlink, NetlinkError};
use crate::{Error, Result};

/// How IPv6 makes a link's own link-local address (IN6_ADDR_GEN_MODE_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddrGenMode {
    /// From the MAC.
    Eui64,
    /// None at all: also no wait for one.
    None,
    StablePrivacy,
    Random,
}

/// What every link has: the attributes of one end.
#[derive(Debug, Clone)]
pub struct End {
    pub name: String,
    /// Chosen by the caller (it wants to know it beforehand), else by [`next_index`].
    pub index: Option<u32>,
    pub mac: Option<[u8; 6]>,
    /// Bytes.
    pub mtu: Option<u32>,
    pub group: Option<u32>,
    pub alias: Option<String>,
    /// Packets.
    pub txqueuelen: Option<u32>,
    pub num_tx_queues: Option<u32>,
    pub num_rx_queues: Option<u32>,
    /// Index of a bridge, bond or vrf in the same namespace.
    pub master: Option<u32>,
    /// Usable at once: IPv6 ones skip duplicate address detection.
    pub addresses: Vec<IpNetwork>,
    pub addrgenmode: Option<AddrGenMode>,
    pub up: bool,
}

impl Default for End {
    fn default() -> Self {
        End {
            name: String::new(),
            index: None,
            mac: None,
            mtu: None,
            group: None,
            alias: None,
            txqueuelen: None,
            num_tx_queues: None,
            num_rx_queues: None,
            master: None,
            addresses: Vec::new(),
            addrgenmode: None,
            up: true,
        }
    }
}

impl End {
    /// An end with that name, up, the rest left to the kernel.
    pub fn named(name: impl Into<String>) -> Self {
        End { name: name.into(), ..End::default() }
    }
}

/// A link to be made.
pub struct NewLink<'a> {
    /// The namespace it is made in.
    pub netlink: &'a Netlink,
    pub kind: &'static Kind,
    pub end: End,
    /// The link it stands on, for the kinds where [`Kind::on_link`] is set.
    pub link: Option<u32>,
    /// The kind's own options, by the words of its table.
    pub values: Vec<(String, Value)>,
    /// Indexes of links that become its ports (bridge, bond, vrf).
    pub ports: Vec<u32>,
    /// The other end of a pair, and the namespace it is made in.
    pub peer: Option<(&'a Netlink, End)>,
}

impl<'a> NewLink<'a> {
    /// A link of that kind, without options.
    pub fn new(netlink: &'a Netlink, kind: &'static Kind, end: End) -> Self {
        NewLink {
            netlink,
            kind,
            end,
            link: None,
            values: Vec::new(),
            ports: Vec::new(),
            peer: None,
        }
    }

    /// Made by a request to `sender` in another namespace and moved, which takes it down.
    fn is_moved(&self, sender: &Netlink) -> bool {
        sender.cookie() != self.netlink.cookie()
    }

    fn op(&self) -> String {
        match self.kind.name {
            "netkit" => "netkit.pair".to_owned(),
            name => format!("link.{name}"),
        }
    }
}

/// What to say to whoever asks about a link that is there no more.
pub const GONE: &str =
    "it was deleted, alone or with its other end or namespace; event.on(\"link\", ...) tells when";

/// The indexes of a link that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    pub index: u32,
    pub peer_index: Option<u32>,
}

/// An interface index that no link of ours has in any namespace.
///
/// The ends of a pair need distinct ones: with equal ones the kernel takes their carrier events for unimportant and delays
/// them by half a second (`linkwatch_urgent_event`). The kernel's own choices stay far below these.
pub fn next_index() -> u32 {
    const FIRST: u32 = 1 << 20;
    const SPAN: u32 = 1 << 29;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static START: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    // Processes start at different places, so that they seldom meet in a namespace they share.
    let start = *START.get_or_init(|| random() % SPAN);
    FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % SPAN
}

/// A number that another process will hardly choose.
pub(in crate::kernel) fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}

/// Makes one link; nothing is left of it after an error.
///
/// # Errors
/// EEXIST when a name or a chosen index is taken, EINVAL for a bad name or option, EOPNOTSUPP when the kernel lacks the
/// kind, EPERM without CAP_NET_ADMIN.
pub fn create(link: &NewLink<'_>) -> Result<Created> {
    create_many(std::slice::from_ref(link)).remove(0)
}

/// As [`create`], for a link that stands on one of the namespace of `below`: the kernel looks it up there, makes the new one
/// there and moves it (~16 ms).
///
/// # Errors
/// As [`create`].
pub fn create_on(link: &NewLink<'_>, below: &Netlink) -> Result<Created> {
    let links = std::slice::from_ref(link);
    let mut outcomes = make_run(links, below);
    finish(links, Some(below), &mut outcomes);
    outcomes.remove(0)
}

/// Makes many links in as few sends as their namespaces allow: one outcome each, in order.
pub fn create_many(links: &[NewLink<'_>]) -> Vec<Result<Created>> {
    let mut outcomes: Vec<Result<Created>> = Vec::with_capacity(links.len());
    // Links of one namespace that follow each other share a send.
    for run in links.chunk_by(|a, b| std::ptr::eq(a.netlink, b.netlink)) {
        let mut made = make_run(run, run[0].netlink);
        outcomes.append(&mut made);
    }
    finish(links, None, &mut outcomes);
    outcomes
}

/// The creation requests of links that are sent to one namespace.
fn make_run(links: &[NewLink<'_>], sender: &Netlink) -> Vec<Result<Created>> {
    let mut batch = Batch::new();
    // Per link: its indexes when it is in the batch, else its outcome.
    let prepared: Vec<(Created, Option<Result<()>>)> = links
        .iter()
        .map(|link| {
            let made = indexes(link);
            if link.kind.name == "tun" {
                return (made, Some(tun::create(link, made.index)));
            }
            match message::creation(link, sender, made) {
                Ok(message) => {
                    batch.push(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
                    (made, None)
                }
                Err(error) => (made, Some(Err(error))),
            }
        })
        .collect();
    let mut answers = batch.run(sender).into_iter();
    links
        .iter()
        .zip(prepared)
        .map(|(link, (made, outcome))| {
            let outcome = outcome.unwrap_or_else(|| match answers.next() {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(missing::explain(link, sender, error)),
                None => Err(Error::new("netlink", "EIO", "an answer is missing")),
            });
            match outcome {
                Ok(()) => Ok(made),
                Err(error) => retry(link, sender, error)
                    .map_err(|error| error.operation(link.op()).about(&*link.end.name)),
            }
        })
        .collect()
}

/// Chosen indexes can meet another process's: once more with fresh ones, if the caller left the choice to us.
fn retry(link: &NewLink<'_>, sender: &Netlink, error: Error) -> Result<Created> {
    if !error.is("EBUSY") || link.end.index.is_some() || link.kind.name == "tun" {
        return Err(error);
    }
    let made = indexes(link);
    let message = message::creation(link, sender, made)?;
    sender
        .request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
        .map_err(|e| missing::explain(link, sender, e))?;
    Ok(made)
}

fn indexes(link: &NewLink<'_>) -> Created {
    let peer = link
        .kind
        .is_pair()
        .then(|| link.peer.as_ref().and_then(|(_, end)| end.index).unwrap_or_else(next_index));
    Created { index: link.end.index.unwrap_or_else(next_index), peer_index: peer }
}

/// One end whose remaining settings are to be made.
struct Follow<'l> {
    netlink: &'l Netlink,
    link: usize,
    end: &'l End,
    index: u32,
    ports: &'l [u32],
    how: Made,
}

/// Addresses, ports, alias and what else a creation request does not take; one send per namespace.
fn finish(links: &[NewLink<'_>], sender: Option<&Netlink>, outcomes: &mut [Result<Created>]) {
    let mut follow = Vec::new();
    for (position, (link, outcome)) in links.iter().zip(outcomes.iter()).enumerate() {
        let Ok(made) = outcome else { continue };
        let how = match link.kind.name {
            "tun" => Made::Bare,
            _ if sender.is_some_and(|sender| link.is_moved(sender)) => Made::Late,
            _ => Made::Whole,
        };
        follow.push(Follow {
            netlink: link.netlink,
            link: position,
            end: &link.end,
            index: made.index,
            ports: &link.ports,
            how,
        });
        if let (Some((netlink, end)), Some(index)) = (&link.peer, made.peer_index) {
            follow.push(Follow {
                netlink,
                link: position,
                end,
                index,
                ports: &[],
                how: Made::Late,
            });
        }
    }
    follow.sort_by_key(|f| f.netlink.cookie());
    for run in follow.chunk_by(|a, b| a.netlink.cookie() == b.netlink.cookie()) {
        let mut batch = Batch::new();
        let mut owners = Vec::new();
        for one in run {
            let before = batch.len();
            one.push(&mut batch);
            owners.extend(std::iter::repeat_n(one, batch.len() - before));
        }
        for (one, answer) in owners.iter().zip(batch.run(run[0].netlink)) {
            if let Err(error) = answer {
                fail(&links[one.link], &mut outcomes[one.link], one.end, error);
            }
        }
    }
    activate(&follow);
    for (link, outcome) in links.iter().zip(outcomes.iter_mut()) {
        if let Ok(made) = *outcome
            && let Err(error) = missing::check_ignored(link, made.index)
        {
            let _ = delete(link.netlink, made.index);
            *outcome = Err(error.operation(link.op()).about(&*link.end.name));
        }
    }
}

/// Waits for the carrier event of every link that is up: until then it drops what is sent, and ARP tries again only after a
/// second.
fn activate(follow: &[Follow<'_>]) {
    for run in follow.chunk_by(|a, b| a.netlink.cookie() == b.netlink.cookie()) {
        let up = run.iter().filter(|one| one.end.up);
        // One that could not be made is gone.
        let there = up.filter(|one| wait_active(one.netlink, one.index));
        let addresses: Vec<IpAddr> =
            there.flat_map(|one| &one.end.addresses).map(IpNetwork::ip).collect();
        address::wait_usable(run[0].netlink, addresses);
    }
}

/// Asks for the link, which makes the kernel finish its event (`linkwatch_sync_dev` in `rtnl_getlink`, Linux 6.8); an older one
/// does so by itself a moment later (`linkwatch_do_dev`). Whether there is such a link.
fn wait_active(netlink: &Netlink, index: u32) -> bool {
    let start = Instant::now();
    while let Ok(link) = info::info(netlink, index) {
        let before = match link.operstate {
            "down" | "lowerlayerdown" => true,
            // What never has a carrier event is so for good.
            "unknown" => link.kind == "veth",
            _ => false,
        };
        let pending = link.up && link.carrier && before;
        if !pending || start.elapsed() > Duration::from_millis(200) {
            return true;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    false
}

impl Follow<'_> {
    fn push(&self, batch: &mut Batch) {
        if let Some(mode) = self.end.addrgenmode {
            // Before the link goes up, so by itself.
            batch.push(RouteNetlinkMessage::SetLink(message::addrgenmode(self.index, mode)), 0);
        }
        for address in &self.end.addresses {
            batch.push(
                address::new_message(self.index, &address::Options::new(*address)),
                address::ADD,
            );
        }
        if let Some(message) = message::remaining(self.end, self.index, self.how) {
            batch.push(RouteNetlinkMessage::SetLink(message), 0);
        }
        for port in self.ports {
            batch.push(RouteNetlinkMessage::SetLink(message::master(*port, self.index)), 0);
        }
    }
}

/// What the kernel has against one end's values, or against one of the ports; the link is still there to be asked.
fn blamed(link: &NewLink<'_>, index: u32, end: &End, error: &NetlinkError) -> Option<Error> {
    let asked = refusal::Asked { mac: end.mac, mtu: end.mtu };
    asked.blame(error.errno, || refusal::mtu_range(link.netlink, index)).or_else(|| {
        link.ports.iter().find_map(|port| refusal::of_port(link.netlink, *port, error.errno))
    })
}

/// A link that could not be finished is not left behind.
fn fail(link: &NewLink<'_>, outcome: &mut Result<Created>, end: &End, error: NetlinkError) {
    if let Ok(made) = *outcome {
        let known = blamed(link, made.index, end, &error);
        let _ = delete(link.netlink, made.index);
        let error = match (known, error.errno) {
            (Some(known), _) => known.operation(link.op()),
            (None, Errno::EINVAL | Errno::EOPNOTSUPP)
                if error.ext_ack.is_none() && end.master.is_some() =>
            {
                error
                    .into_error(link.op())
                    .hint("the master must be a bridge, bond or vrf in the same namespace")
            }
            _ => error.into_error(link.op()),
        };
        *outcome = Err(error.subject(end.name.as_str()));
    }
}

#[cfg(test)]
pub(in crate::kernel) mod tests;
