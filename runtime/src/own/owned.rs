//! The kinds of things an instance can own, each plain data: what it is, what tells it from others, what was there before.
//!
//! How each is put in place and undone is in `deed`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::kernel::bpf::hook::{self, Hook, Order};
use crate::kernel::link::Lost;
use crate::kernel::link::{self, Change};
use crate::kernel::netns::named::Netns;
use crate::kernel::qdisc::{Qdisc, QdiscInfo};
use crate::kernel::{bpf, neigh, route, rule};

/// Something created or changed, and where.
#[derive(Clone, Serialize, Deserialize)]
pub enum Owned {
    Netns(Netns),
    /// A link and, if it is one end of a pair, with it the other (which has an entry of its own).
    Link {
        netns: Netns,
        index: u32,
        name: String,
        /// What its constructor was given: tells a reload what has changed.
        end: Box<LinkEnd>,
    },
    Address {
        netns: Netns,
        index: u32,
        link: String,
        address: IpNetwork,
        /// promote_secondaries of the link, which is 1 while the address is taken away.
        promote: Option<String>,
    },
    /// An address that was there before, and what went with it.
    DeletedAddress {
        netns: Netns,
        index: u32,
        link: String,
        address: IpNetwork,
        lost: Lost,
    },
    /// Attributes of a link that were set.
    LinkSetting {
        netns: Netns,
        index: u32,
        link: String,
        wanted: Box<Change>,
        before: Box<link::Undo>,
    },
    /// A link that was there before and got another name.
    LinkName {
        netns: Netns,
        index: u32,
        before: String,
        after: String,
    },
    /// A kernel setting: written back if it still has the value we gave it.
    Sysctl {
        netns: Netns,
        key: String,
        /// Of somebody else's link that the key names, whose name can change; 0 for none.
        #[serde(default)]
        index: u32,
        before: String,
        /// As it was wanted, and once it is settled, as the kernel shows it.
        after: String,
        settled: bool,
        /// What the kernel changes along with it.
        followers: Vec<Follower>,
        lost: Lost,
    },
    Route {
        netns: Netns,
        route: Box<route::Options>,
        /// For people: `10.0.0.0/8 via 10.1.0.1`.
        text: String,
    },
    Rule {
        netns: Netns,
        rule: Box<rule::Rule>,
        text: String,
    },
    Neigh {
        netns: Netns,
        neigh: Box<neigh::Options>,
        text: String,
    },
    Qdisc {
        netns: Netns,
        index: u32,
        link: String,
        qdisc: Box<Qdisc>,
        /// What stood at the root, if it was not the kernel's default.
        before: Option<Box<QdiscInfo>>,
    },
    /// A program on a link; it goes with its link. (Taking many off in bulk would gain nothing: the kernel waits for RCU
    /// once for each hook with programs, 12 ms, even when it deletes the link: `tcx_uninstall`, kernel/bpf/tcx.c.)
    Attachment {
        place: AttachmentPlace,
        /// Where its bpf link is pinned, so that it outlives the process.
        pin: Option<PathBuf>,
        /// Of a clsact filter: priority and handle.
        filter: Option<(u16, u32)>,
        trace: Trace,
        #[serde(skip)]
        mounted: Option<Mounted>,
    },
    /// A map of a link's programs that is pinned, because what it holds would go with the last process that has it open
    /// (a program array).
    Pin {
        netns: Netns,
        index: u32,
        path: PathBuf,
        /// For people: `stages of eth0`.
        text: String,
        #[serde(skip)]
        map: Option<bpf::Map>,
    },
    /// A child process and its group.
    Process {
        netns: Netns,
        /// 0 while it is being started.
        pid: u32,
        /// When it started, in clock ticks after boot: tells it from a later one with the same number.
        started: u64,
        /// What it and its children have in their environment ([`MARK`]): tells its group when it has itself ended.
        mark: String,
        text: String,
    },
    /// What ends with this process anyway: a sentence's subject, and a closure that undoes it.
    Other {
        #[serde(skip)]
        netns: Option<Netns>,
        #[serde(skip)]
        kind: &'static str,
        name: String,
        #[serde(skip, default = "nothing")]
        undo: Undo,
    },
}

/// The environment variable of children that says whose they are.
pub const MARK: &str = "CNFSCRIPT_CHILD";

/// A setting that changes with another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Follower {
    /// `net/ipv4/conf/eth0/forwarding`
    pub key: String,
    /// Of the link that the key names, whose name can change; 0 for `all` and `default`.
    pub index: u32,
    pub before: String,
    /// What the kernel made it, once that is settled.
    pub after: Option<String>,
}

/// By what a clsact filter is found that nobody has come to write down the place of, and told from somebody else's.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Trace {
    /// The id of its program; the kernel gives none twice. 0 for one that its owner replaces without a word: then its place
    /// counts alone.
    pub program: u32,
    /// The qdisc under it is ours.
    pub qdisc: bool,
}

/// How something is undone that has no case of its own. Called at most once, maybe from another thread.
pub type Undo = Arc<dyn Fn() -> Result<()> + Send + Sync>;

fn nothing() -> Undo {
    Arc::new(|| Ok(()))
}

/// What a constructor said of one end of a link.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkEnd {
    /// What cannot be changed in place: kind, options, the link below, where the other end is.
    pub fixed: String,
    pub settings: Change,
    pub addresses: Vec<IpNetwork>,
    /// The namespace that the constructor named, for a link that was moved since.
    pub born: u64,
}

/// Which link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkPlace {
    pub cookie: u64,
    pub index: u32,
}

/// Which hook of which link, and the slot that names an attachment there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentPlace {
    pub netns: Netns,
    pub index: u32,
    pub link: String,
    pub hook: Hook,
    pub slot: String,
}

/// The live half of an attachment.
#[derive(Clone)]
pub struct Mounted {
    pub program: bpf::Program,
    pub order: Order,
    /// None before it is attached.
    pub attached: Option<hook::Attachment>,
}

impl Owned {
    /// The namespace it is in; none for namespaces themselves and what is in none.
    pub fn netns(&self) -> Option<&Netns> {
        match self {
            Owned::Netns(_) => None,
            Owned::Link { netns, .. }
            | Owned::Address { netns, .. }
            | Owned::DeletedAddress { netns, .. }
            | Owned::LinkSetting { netns, .. }
            | Owned::LinkName { netns, .. }
            | Owned::Sysctl { netns, .. }
            | Owned::Route { netns, .. }
            | Owned::Rule { netns, .. }
            | Owned::Neigh { netns, .. }
            | Owned::Qdisc { netns, .. }
            | Owned::Pin { netns, .. }
            | Owned::Process { netns, .. }
            | Owned::Attachment { place: AttachmentPlace { netns, .. }, .. } => Some(netns),
            Owned::Other { netns, .. } => netns.as_ref(),
        }
    }

    /// The link it is, or is on: gone with it.
    pub fn link(&self) -> Option<LinkPlace> {
        let index = match self {
            Owned::Link { index, .. }
            | Owned::Address { index, .. }
            | Owned::DeletedAddress { index, .. }
            | Owned::LinkSetting { index, .. }
            | Owned::LinkName { index, .. }
            | Owned::Qdisc { index, .. }
            | Owned::Pin { index, .. }
            | Owned::Attachment { place: AttachmentPlace { index, .. }, .. } => *index,
            Owned::Neigh { neigh, .. } => neigh.dev,
            Owned::Route { route, .. } => route.dev?,
            _ => return None,
        };
        Some(LinkPlace { cookie: self.netns()?.cookie, index })
    }

    /// What it is to a script that is loaded again: equal keys mean one and the same thing.
    pub fn key(&self) -> String {
        let at = self.netns().map_or(0, |netns| netns.cookie);
        match self {
            Owned::Netns(netns) => format!("netns/{}", netns.name),
            Owned::Link { name, end, .. } => link_key(end.born, name),
            Owned::Address { index, address, .. } => format!("address/{at}/{index}/{address}"),
            Owned::DeletedAddress { index, address, .. } => {
                format!("no-address/{at}/{index}/{address}")
            }
            Owned::LinkSetting { index, .. } => format!("setting/{at}/{index}"),
            Owned::LinkName { index, .. } => format!("name/{at}/{index}"),
            Owned::Sysctl { key, .. } => format!("sysctl/{at}/{}", key.replace('/', ".")),
            Owned::Route { route, .. } => {
                let ipv6 = route.dst.map_or(route.family6, |dst| dst.is_ipv6());
                let (dst, table) = (route.dst, route.table.unwrap_or(254));
                let dst = dst.map_or("default".to_owned(), |dst| dst.to_string());
                format!("route/{at}/{ipv6}/{table}/{dst}/{}/{:?}", route.tos, route.metric)
            }
            Owned::Rule { rule, .. } => {
                // Its action is what can change; everything else says which packets it is about.
                let plain =
                    rule::Rule { table: None, action: rule::Action::Lookup, ..*rule.clone() };
                format!("rule/{at}/{}", serde_json::to_string(&plain).unwrap_or_default())
            }
            Owned::Neigh { neigh, .. } => {
                format!("neigh/{at}/{}/{}/{}", neigh.dev, neigh.dst, neigh.proxy)
            }
            Owned::Qdisc { index, qdisc, .. } => {
                let hook = matches!(**qdisc, Qdisc::Clsact | Qdisc::Ingress);
                format!("qdisc/{at}/{index}/{hook}")
            }
            Owned::Attachment { place, .. } => place.key(),
            Owned::Pin { path, .. } => format!("pin/{}", path.display()),
            Owned::Process { pid, started, .. } => format!("process/{pid}/{started}"),
            Owned::Other { kind, name, .. } => format!("{kind}/{at}/{name}"),
        }
    }

    /// "link": what teardown counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Owned::Netns(_) => "netns",
            Owned::Link { .. } => "link",
            Owned::Address { .. } => "address",
            Owned::DeletedAddress { .. } => "deleted address",
            Owned::LinkSetting { .. } => "link setting",
            Owned::LinkName { .. } => "link name",
            Owned::Sysctl { .. } => "sysctl",
            Owned::Route { .. } => "route",
            Owned::Rule { .. } => "rule",
            Owned::Neigh { .. } => "neigh",
            Owned::Qdisc { .. } => "qdisc",
            Owned::Attachment { .. } => "attachment",
            Owned::Pin { .. } => "pin",
            Owned::Process { .. } => "process",
            Owned::Other { kind, .. } => kind,
        }
    }

    /// Whether the process's death leaves it: then the journal has to know of it.
    pub fn outlives_the_process(&self) -> bool {
        match self {
            Owned::Other { .. } => false,
            Owned::Attachment { place, pin, .. } => pin.is_some() || place.hook.family() == "tc",
            _ => true,
        }
    }
}

/// The key of a link by the namespace and name that its constructor was given.
pub fn link_key(cookie: u64, name: &str) -> String {
    format!("link/{cookie}/{name}")
}

impl AttachmentPlace {
    /// xdp has room for one program, so the slot does not tell attachments apart there.
    pub fn key(&self) -> String {
        let Self { netns, index, hook, slot, .. } = self;
        let slot = if *hook == Hook::Xdp { "" } else { slot };
        format!("attachment/{}/{index}/{}/{}/{slot}", netns.cookie, hook.family(), hook.side())
    }

    /// Where its bpf link is pinned, when there is a directory for what outlives the process; a clsact filter needs none.
    pub fn pin_in(&self, pins: Option<&Path>) -> Option<PathBuf> {
        let pins = pins.filter(|_| self.hook.family() != "tc")?;
        // bpffs refuses dots (`bpf_lookup`, kernel/bpf/inode.c).
        Some(pins.join(self.key().replace('/', "-").replace('%', "%25").replace('.', "%2E")))
    }

    pub fn target(&self) -> hook::Target {
        hook::Target::new(&self.netns.fd, self.index, self.link.clone())
    }
}

/// `link eth0 in netns client`
impl fmt::Display for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owned::Netns(netns) => return write!(f, "netns {}", netns.name),
            Owned::Link { name, .. } => write!(f, "link {name}")?,
            Owned::Address { link, address, .. } => write!(f, "address {address} on {link}")?,
            Owned::DeletedAddress { link, address, .. } => {
                write!(f, "deleted address {address} on {link}")?;
            }
            Owned::LinkSetting { link, .. } => write!(f, "settings of link {link}")?,
            Owned::LinkName { before, after, .. } => write!(f, "name {after} of link {before}")?,
            Owned::Sysctl { key, .. } => write!(f, "sysctl {key}")?,
            Owned::Route { text, .. } => write!(f, "route {text}")?,
            Owned::Rule { text, .. } => write!(f, "rule {text}")?,
            Owned::Neigh { text, .. } => write!(f, "neigh {text}")?,
            Owned::Qdisc { link, qdisc, .. } => write!(f, "qdisc {} on {link}", qdisc.kind())?,
            Owned::Attachment { place, .. } => {
                let AttachmentPlace { link, hook, slot, .. } = place;
                write!(f, "attachment {slot} on {} ", hook.family())?;
                match hook.side() {
                    "" => write!(f, "of {link}")?,
                    side => write!(f, "{side} of {link}")?,
                }
            }
            Owned::Pin { text, .. } => write!(f, "pin of {text}")?,
            Owned::Process { pid, text, .. } => write!(f, "process {pid} ({text})")?,
            Owned::Other { kind, name, .. } => write!(f, "{kind} {name}")?,
        }
        match self.netns() {
            Some(netns) if !netns.name.is_empty() => write!(f, " in netns {}", netns.name),
            _ => Ok(()),
        }
    }
}
