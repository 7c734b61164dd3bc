//! `event`, the native half: a stream of the kernel's own notifications. `lua-stdlib/event.lua` calls handlers with it.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, Table};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::handle::{Class, Handle, Returned, held};
use super::host::Host;
use super::link::{Link, local_link};
use super::module::{Args, Module};
use super::netns::{Net, netns_option};
use super::option::Options;
use super::value::Data;
use crate::kernel::notify::{Action, Event, Notifications, Topics};
use crate::kernel::route;
use crate::record;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "event")
        .function("stream", stream)
        .function("failed", failed)
        .value("located", super::error::located_by(lua)?)
        .build()
}

/// A subscription: `s:next()` waits for the next event that it wants.
#[derive(Clone)]
pub struct Stream(Rc<Inner>);

struct Inner {
    net: Net,
    topic: String,
    /// Only events about that link.
    index: Option<u32>,
    socket: Mutex<AsyncFd<Notifications>>,
    names: RefCell<std::collections::HashMap<u32, String>>,
}

fn stream(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Stream>> {
    const OP: &str = "event.on";
    let topic: String = args.required("what")?;
    let topics = match topic.as_str() {
        "link" => Topics { link: true, ..Topics::default() },
        "address" => Topics { address: true, ..Topics::default() },
        "route" => Topics { route: true, ..Topics::default() },
        "neigh" => Topics { neigh: true, ..Topics::default() },
        other => {
            return Err(Error::invalid(OP, format!("there is no event \"{other}\""))
                .hint("one of \"link\", \"address\", \"route\", \"neigh\""));
        }
    };
    let mut options = Options::new(OP, args.any())?;
    options.set_subject(topic.clone());
    // A Link says where it is; a name needs the namespace.
    let named_net = !options.raw("netns")?.is_nil();
    let net = match held::<Link>(&options.raw("link")?) {
        Some(link) if !named_net => link.net(),
        _ => netns_option(&mut options, host)?,
    };
    let link = local_link(&mut options, &net, "link")?;
    options.finish()?;
    let socket = Notifications::open(&net.open()?.netns.fd, topics)?.into_async()?;
    Ok(Returned(Stream(Rc::new(Inner {
        net,
        topic,
        index: link.map(|link| link.index()),
        socket: Mutex::new(socket),
        names: RefCell::default(),
    }))))
}

/// Reports a handler's error; the subscription lives on.
fn failed(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<()> {
    let error = super::error::from_value(&args.any());
    crate::report::error(&error, Some("event handler"));
    Ok(())
}

impl Handle for Stream {
    const TYPE: &'static str = "EventStream";
    const WORD: &'static str = "event";

    fn class(class: &mut Class<'_, Self>) {
        class.async_method("next", |_, _, this, _| Ok(next(this.clone())));
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!("EventStream({} in {})", self.0.topic, self.0.net.display())
    }
}

async fn next(stream: Stream) -> Result<Data> {
    let failed = |e: std::io::Error| Error::io("event.on", &e);
    let mut socket = stream.0.socket.lock().await;
    loop {
        while let Some(event) = socket.get_mut().receive()? {
            if let Some(data) = stream.wanted(event) {
                return Ok(data);
            }
        }
        let mut ready = socket.readable().await.map_err(failed)?;
        ready.clear_ready();
    }
}

impl Stream {
    fn wanted(&self, event: Event) -> Option<Data> {
        let mine = |index: Option<u32>| self.0.index.is_none() || self.0.index == index;
        let netns = self.0.net.name();
        match event {
            Event::Link(action, link) if mine(Some(link.index)) => Some(record! {
                kind: "link", action: word(action), netns: netns, name: link.name, index: link.index, up: link.up,
                carrier: link.carrier, running: link.running, operstate: link.operstate, mtu: link.mtu, mac: link.mac,
                master: link.master,
            }),
            Event::Address(action, a) if mine(Some(a.index)) => Some(record! {
                kind: "address", action: word(action), netns: netns, address: a.address, dev: self.device(a.index),
                scope: a.scope, secondary: a.secondary, tentative: a.tentative,
            }),
            Event::Route(action, r) if mine(r.dev) => Some(record! {
                kind: "route", action: word(action), netns: netns,
                dst: r.dst.map_or("default".to_owned(), |d| d.to_string()), via: r.via,
                dev: r.dev.and_then(|index| self.device(index)), table: r.table, metric: r.metric,
                proto: route::protocol_name(r.protocol), r#type: route::kind_name(r.kind),
            }),
            Event::Neigh(action, n) if mine(Some(n.dev)) => Some(record! {
                kind: "neigh", action: word(action), netns: netns, dst: n.dst, dev: self.device(n.dev),
                lladdr: n.lladdr, state: n.state,
            }),
            // Some are gone: the script must look at the present state again.
            Event::Lost => {
                Some(record! { kind: self.0.topic.as_str(), action: "lost", netns: netns })
            }
            _ => None,
        }
    }

    fn device(&self, index: u32) -> Option<String> {
        if let Some(name) = self.0.names.borrow().get(&index) {
            return Some(name.clone());
        }
        let open = self.0.net.open().ok()?;
        let name = crate::kernel::link::info(&open.netlink, index).ok()?.name;
        self.0.names.borrow_mut().insert(index, name.clone());
        Some(name)
    }
}

fn word(action: Action) -> &'static str {
    match action {
        Action::New => "new",
        Action::Change => "change",
        Action::Delete => "delete",
    }
}
