//! `link` and `netkit`: links, made from the kernel layer's table of kinds, and their handles.

mod change;
mod making;
mod options;
mod shown;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use mlua::{Lua, MultiValue, Table};

pub use options::local_link;

use super::handle::{Class, Handle, Returned};
use super::host::Host;
use super::module::{Args, Module};
use super::netns::{Net, Open};
use crate::kernel::link::kinds::{self, Kind};
use crate::kernel::link::{self, LinkInfo};
use crate::kernel::netns;
use crate::own::LinkPlace;
use crate::{Error, Result};

/// `link`: a constructor for each kind that is not a module of its own.
pub fn module(lua: &Lua) -> mlua::Result<Table> {
    let mut module = Module::new(lua, "link");
    for kind in kinds::KINDS.iter().filter(|kind| kind.name != "netkit") {
        module = module
            .function(kind.name, move |lua, host, args| options::create(lua, host, args, kind));
    }
    module.build()
}

/// The constructor of `netkit`, `netkit.pair`.
pub fn netkit_pair(lua: &Lua, host: &Rc<Host>, args: Args) -> Result<MultiValue> {
    let kind = kinds::find("netkit").expect("the table has it");
    options::create(lua, host, args, kind)
}

/// A link as scripts hold it: namespace and index say which, wherever it is renamed or moved to.
#[derive(Clone)]
pub struct Link(Rc<Inner>);

struct Inner {
    net: RefCell<Net>,
    index: Cell<u32>,
    name: RefCell<String>,
    kind: String,
    peer: RefCell<Option<Weak<Inner>>>,
}

impl Link {
    fn made(net: &Net, index: u32, name: &str, kind: &str) -> Link {
        Link(Rc::new(Inner {
            net: RefCell::new(net.clone()),
            index: Cell::new(index),
            name: RefCell::new(name.to_owned()),
            kind: kind.to_owned(),
            peer: RefCell::new(None),
        }))
    }

    /// A link that was looked up.
    pub fn found(net: &Net, info: &LinkInfo) -> Link {
        Link::made(net, info.index, &info.name, &info.kind)
    }

    pub fn index(&self) -> u32 {
        self.0.index.get()
    }

    pub fn name(&self) -> String {
        self.0.name.borrow().clone()
    }

    pub fn net(&self) -> Net {
        self.0.net.borrow().clone()
    }

    /// Runs a request about this link; its errors name the operation and the link.
    pub fn ask<T>(&self, op: &str, request: impl FnOnce(&Open, u32) -> Result<T>) -> Result<T> {
        let net = self.net();
        let open = net.open().map_err(|e| e.operation(op.to_owned()).subject(self.name()))?;
        request(&open, self.index()).map_err(|e| {
            let gone = e.is("ENODEV");
            let e = e.operation(op.to_owned()).subject(self.name());
            if gone { e.because("the link is gone").hint(link::GONE) } else { e }
        })
    }

    /// The other end of a pair; `None` for any other kind of link.
    ///
    /// # Errors
    /// ENODEV: the link is gone. ENOENT: the other end is in a namespace without a name.
    pub fn peer(&self, host: &Host, op: &str) -> Result<Option<Link>> {
        if let Some(peer) = self.0.peer.borrow().as_ref().and_then(Weak::upgrade) {
            return Ok(Some(Link(peer)));
        }
        let info = self.ask(op, |open, index| link::info(&open.netlink, index))?;
        // Elsewhere IFLA_LINK is the link below.
        let is_pair = kinds::find(&info.kind).is_some_and(Kind::is_pair);
        let Some(index) = info.link.filter(|_| is_pair) else { return Ok(None) };
        let here = self.net();
        let Some(nsid) = info.link_netnsid else {
            let peer = link::info(&here.open()?.netlink, index)?;
            return Ok(Some(Link::found(&here, &peer)));
        };
        for net in candidates(host) {
            let Ok(there) = net.open() else { continue };
            if netns::nsid(&here.open()?.netlink, &there.netns.fd)? == Some(nsid) {
                let peer = link::info(&there.netlink, index)?;
                return Ok(Some(Link::found(&net, &peer)));
            }
        }
        let text = "the other end is in a namespace without a name";
        Err(Error::new(op.to_owned(), "ENOENT", text).subject(self.name()))
    }

    /// Whether this instance made it, or the namespace it is in.
    pub fn is_ours(&self, host: &Host) -> bool {
        host.stage.is_ours(self.place())
    }

    pub fn place(&self) -> LinkPlace {
        LinkPlace { cookie: self.net().cookie(), index: self.index() }
    }
}

impl Handle for Link {
    const TYPE: &'static str = "Link";
    const WORD: &'static str = "link";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.name()))
            .field("index", |_, this| Ok(this.index()))
            .field("netns", |_, this| Ok(Returned(this.net())))
            .field("kind", |_, this| Ok(this.0.kind.clone()))
            .method("up", change::up)
            .method("down", change::down)
            .method("set", change::set)
            .method("add_address", change::add_address)
            .method("delete_address", change::delete_address)
            .method("addresses", shown::addresses)
            .method("info", shown::info)
            .method("stats", shown::stats)
            .method("qdisc", super::qdisc::qdisc)
            .method("rename", change::rename)
            .method("move", change::move_to)
            .method("peer", peer_of)
            .method("delete", change::delete);
    }

    fn identity(&self) -> String {
        format!("{}/{}", self.net().cookie(), self.index())
    }

    fn from_name(name: &str) -> Option<String> {
        Some(format!("a Link comes from its namespace: ns:link({name:?})"))
    }

    fn display(&self) -> String {
        match self.net().name() {
            "" => format!("Link({})", self.name()),
            netns => format!("Link({} in netns {netns})", self.name()),
        }
    }
}

fn peer_of(_: &Lua, host: &Rc<Host>, this: &Link, args: Args) -> Result<Option<Returned<Link>>> {
    Ok(this.peer(host, args.op())?.map(Returned))
}

/// Namespaces that another link may be in: those known, then those with a name.
fn candidates(host: &Host) -> Vec<Net> {
    let mut nets = host.nets.all();
    nets.extend(host.nets.host().ok());
    nets.extend(
        netns::named::list()
            .unwrap_or_default()
            .iter()
            .filter_map(|name| host.nets.named(name).ok()),
    );
    nets
}
