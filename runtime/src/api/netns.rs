//! `netns`: namespaces, and what is asked of one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::error::said;
use super::handle::{Class, Handle, Returned, held};
use super::host::Host;
use super::link::Link;
use super::module::{Args, Module};
use super::option::{FromOption, Options};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::NetnsFd;
use crate::kernel::netns::named::{self, Netns};
use crate::kernel::{link, sysctl};
use crate::own::{Ledger, Owned};
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "netns")
        .function("new", new)
        .function("get", get)
        .function("host", |_, host, _| host.nets.host().map(Returned))
        .function("list", |_, _, _| named::list())
        .function("exists", |_, _, mut args: Args| {
            Ok(named::exists(&args.required::<String>("name")?))
        })
        .build()
}

fn new(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Net>> {
    let name: String = args.required("name")?;
    let options = Options::new("netns.new", args.any())?;
    options.finish()?;
    host.stage.check()?;
    if let Some((number, Owned::Netns(netns))) = host.stage.adopt(&format!("netns/{name}")) {
        match netns.check() {
            Ok(()) => return host.nets.adopted(host, &netns).map(Returned),
            Err(_) => host.stage.lost(number),
        }
    }
    let number = host.ledger.reserve();
    let ledger: &Ledger = &host.ledger;
    let made = named::create_noting(&name, &|cookie| ledger.intend_netns(number, &name, cookie));
    let (netns, netlink) = match made {
        Ok(made) => made,
        Err(error) => {
            host.ledger.forget(number);
            return Err(error);
        }
    };
    host.ledger.settle(number, Owned::Netns(netns.clone()));
    Ok(Returned(host.nets.enter(host, netns, netlink)))
}

fn get(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Net>> {
    host.nets.named(&args.required::<String>("name")?).map(Returned)
}

/// The namespaces this VM has handles of, by cookie: one socket each.
#[derive(Default)]
pub struct Nets {
    known: RefCell<HashMap<u64, Net>>,
    host: RefCell<Option<Net>>,
}

impl Nets {
    /// The namespace the process was started in.
    pub fn host(&self) -> Result<Net> {
        if let Some(net) = &*self.host.borrow() {
            return Ok(net.clone());
        }
        let netlink = Netlink::open(NetnsFd::host()?)?.with_label("the host's namespace");
        let netns =
            Netns { name: String::new(), fd: NetnsFd::host()?.clone(), cookie: netlink.cookie() };
        let net = self.known(Rc::new(Open { netns, netlink }));
        *self.host.borrow_mut() = Some(net.clone());
        Ok(net)
    }

    /// The namespace under that name.
    pub fn named(&self, name: &str) -> Result<Net> {
        let netns = named::open(name)?;
        if let Some(net) = self.known.borrow().get(&netns.cookie) {
            return Ok(net.clone());
        }
        let netlink = Netlink::open(&netns.fd)?.with_label(name);
        Ok(self.known(Rc::new(Open { netns, netlink })))
    }

    /// One that is in the ledger: the generation before has left its socket.
    pub fn adopted(&self, host: &Host, netns: &Netns) -> Result<Net> {
        if let Some(net) = self.known.borrow().get(&netns.cookie) {
            return Ok(net.clone());
        }
        if netns.name.is_empty() {
            return self.host();
        }
        let key = shelf_key(netns.cookie);
        let open = match host.stage.take::<Open>(&key) {
            Some(open) => open,
            None => {
                let netlink = Netlink::open(&netns.fd)?.with_label(&netns.name);
                Rc::new(Open { netns: netns.clone(), netlink })
            }
        };
        host.stage.shelve(&key, Rc::clone(&open) as _);
        Ok(self.known(open))
    }

    /// One that was just made.
    fn enter(&self, host: &Host, netns: Netns, netlink: Netlink) -> Net {
        let open = Rc::new(Open { netns, netlink });
        host.stage.shelve(&shelf_key(open.netns.cookie), Rc::clone(&open) as _);
        self.known(open)
    }

    fn known(&self, open: Rc<Open>) -> Net {
        let net = Net(Rc::new(Inner {
            name: open.netns.name.clone(),
            cookie: open.netns.cookie,
            open: RefCell::new(Some(open)),
            checked: Cell::new(None),
        }));
        self.known.borrow_mut().insert(net.0.cookie, net.clone());
        net
    }

    /// Every namespace known so far.
    pub fn all(&self) -> Vec<Net> {
        self.known.borrow().values().cloned().collect()
    }

    fn forget(&self, cookie: u64) {
        self.known.borrow_mut().remove(&cookie);
    }
}

fn shelf_key(cookie: u64) -> String {
    format!("netns/{cookie}")
}

/// A namespace as scripts hold it.
#[derive(Clone)]
pub struct Net(Rc<Inner>);

struct Inner {
    /// Empty for the host's.
    name: String,
    cookie: u64,
    /// Taken away when the script deletes the namespace, so that no descriptor of ours keeps it alive.
    open: RefCell<Option<Rc<Open>>>,
    checked: Cell<Option<std::time::Instant>>,
}

/// A namespace and a socket in it.
pub struct Open {
    pub netns: Netns,
    pub netlink: Netlink,
}

impl Net {
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn cookie(&self) -> u64 {
        self.0.cookie
    }

    /// The socket in the namespace, if the namespace is still there under its name.
    ///
    /// # Errors
    /// ENODEV when it is gone.
    pub fn open(&self) -> Result<Rc<Open>> {
        let gone = || {
            Error::new("netns", "ENODEV", "the namespace was deleted")
                .subject(self.name())
                .hint(named::GONE)
        };
        let open = self.0.open.borrow().clone().ok_or_else(gone)?;
        // The name is looked up on every use but a burst of them: a check costs more than most requests.
        let now = std::time::Instant::now();
        let fresh = |at: std::time::Instant| now - at < std::time::Duration::from_millis(1);
        if !self.name().is_empty() && !self.0.checked.get().is_some_and(fresh) {
            open.netns.check()?;
            self.0.checked.set(Some(now));
        }
        Ok(open)
    }

    /// As messages name it: "netns client", "the host's namespace".
    pub fn place(&self) -> String {
        match self.name() {
            "" => "the host's namespace".into(),
            name => format!("netns {name}"),
        }
    }

    /// The namespace as the ledger knows it.
    pub fn netns(&self) -> Result<Netns> {
        Ok(self.open()?.netns.clone())
    }
}

impl Handle for Net {
    const TYPE: &'static str = "Netns";
    const WORD: &'static str = "netns";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.name().to_owned()))
            .method("link", link_named)
            .method("links", links)
            .method("sysctl", |lua, host, this, args| {
                sysctl(lua, host, this, args).map_err(|e| e.operation("netns:sysctl"))
            })
            .method("delete", delete);
        super::route::methods(class);
        super::process::methods(class);
    }

    fn identity(&self) -> String {
        self.0.cookie.to_string()
    }

    fn display(&self) -> String {
        match self.name() {
            "" => "Netns(host)".into(),
            name => format!("Netns({name})"),
        }
    }
}

/// A namespace as an option: a handle, or the name of one.
pub struct NetOption(pub Option<Net>, pub Option<String>);

impl FromOption for NetOption {
    fn expects() -> String {
        "a Netns, or the name of one".into()
    }
    fn from_option(value: Value) -> std::result::Result<Self, Option<String>> {
        match &value {
            Value::String(name) => Ok(NetOption(None, Some(name.to_string_lossy()))),
            other => held(other).map(|net| NetOption(Some(net), None)).ok_or(None),
        }
    }
}

impl NetOption {
    /// The next argument, which is a namespace.
    pub fn argument(args: &mut Args, host: &Host) -> Result<Net> {
        let given: NetOption = args.required("netns")?;
        given.resolve(host).map_err(|e| e.operation(args.op().to_owned()))
    }

    pub fn resolve(self, host: &Host) -> Result<Net> {
        match self {
            NetOption(Some(net), _) => Ok(net),
            NetOption(None, name) => host.nets.named(&name.unwrap_or_default()),
        }
    }
}

fn link_named(_: &Lua, _: &Rc<Host>, this: &Net, mut args: Args) -> Result<Returned<Link>> {
    let name: String = args.required("name")?;
    let info = link::info_by_name(&this.open()?.netlink, &name)
        .map_err(|e| e.operation(args.op().to_owned()))?;
    Ok(Returned(Link::found(this, &info)))
}

fn links(_: &Lua, _: &Rc<Host>, this: &Net, _: Args) -> Result<Vec<Returned<Link>>> {
    let infos = link::list(&this.open()?.netlink)?;
    Ok(infos.iter().map(|info| Returned(Link::found(this, info))).collect())
}

fn sysctl(lua: &Lua, host: &Rc<Host>, this: &Net, mut args: Args) -> Result<String> {
    let key: String = args.required("key")?;
    let value = match args.any() {
        Value::Nil => None,
        Value::Integer(i) => Some(i.to_string()),
        Value::Boolean(b) => Some(i32::from(b).to_string()),
        Value::String(text) => Some(text.to_string_lossy()),
        other => {
            let got = super::option::expected::describe(&other);
            return Err(Error::invalid(
                "netns:sysctl",
                format!("value must be a string or a number, got {got}"),
            )
            .subject(key));
        }
    };
    let netns = this.netns()?;
    let Some(value) = value else { return sysctl::read(&netns.fd, &key) };
    let wanted = Owned::Sysctl {
        netns,
        key,
        index: 0,
        before: String::new(),
        after: value.clone(),
        settled: false,
        followers: Vec::new(),
        lost: link::Lost::default(),
    };
    let number = host.stage.own(wanted, &this.open()?.netlink, || said(lua, "netns:sysctl"))?;
    Ok(match host.ledger.get(number) {
        Some(Owned::Sysctl { after, .. }) => after,
        _ => value,
    })
}

fn delete(_: &Lua, host: &Rc<Host>, this: &Net, _: Args) -> Result<()> {
    if this.name().is_empty() {
        return Err(Error::new(
            "netns:delete",
            "EPERM",
            "the host's own namespace cannot be deleted",
        ));
    }
    let netns = this.netns()?;
    let Some(number) = host.ledger.owns_netns(netns.cookie) else {
        return Err(Error::new("netns:delete", "EPERM", "this script did not make that namespace")
            .subject(this.name())
            .hint("what was there before is left alone; `ip netns delete` removes it"));
    };
    if host.stage.disown(number)? {
        for (inside, _) in host
            .ledger
            .entries(|_, owned| owned.netns().is_some_and(|netns| netns.cookie == this.cookie()))
        {
            host.stage.disown(inside)?;
        }
        return Ok(());
    }
    host.ledger.leave_netns(netns.cookie);
    netns.delete()?;
    this.0.open.borrow_mut().take();
    host.nets.forget(netns.cookie);
    host.stage.unshelve(&shelf_key(netns.cookie));
    Ok(())
}

/// An option that names a namespace; the host's when absent.
pub fn netns_option(options: &mut Options, host: &Host) -> Result<Net> {
    match options.get::<NetOption>("netns")? {
        Some(net) => net.resolve(host).map_err(|e| e.operation(options.op().to_owned())),
        None => host.nets.host(),
    }
}
