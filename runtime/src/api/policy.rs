//! `policy`: the policy router. Its policies as Lua tables are in `table`, many of them in `plain`, what a later load makes of it in `stage`.

mod plain;
mod stage;
mod table;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Lua, Table, Value};

use stage::{Book, Change, Waiting};
use table::{Devices, hop_table, matching, policy, policy_table};

use super::error::{from_lua, site};
use super::handle::{Class, Given, Handle, Returned, held};
use super::host::Host;
use super::link::Link;
use super::module::{Args, Module};
use super::netns::Net;
use super::option::{FromOption, Options, nearest};
use super::route::ip_protocol;
use crate::Result;
use crate::kernel::bpf::{self, Target};
use crate::own::{AttachmentPlace, Owned, Trace};
use crate::program::router::{
    self, Attach, Count, Explanation, Hook, Policy, Query, RouterSpec, Totals,
};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "policy").function("router", new).build()
}

/// `policy.router{name=, attach={{link, "egress"}, ...}, default=policy}`
fn new(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Router>> {
    let mut options = args.options()?;
    let name = options.get::<String>("name")?.unwrap_or_else(|| "router".to_owned());
    options.set_subject(name.clone());
    let (links, attach) = attachments(&mut options)?;
    // What a netkit's primary end sends is routed where the other end receives it.
    let net = match attach[0].hook {
        Hook::Primary => links[0].peer(host, options.op())?.map_or(links[0].net(), |end| end.net()),
        _ => links[0].net(),
    };
    let devices = Devices::new(net.clone());
    let default = match options.get::<Table>("default")? {
        Some(table) => Some(policy(&options, &|| "default".to_owned(), table, &devices)?),
        None => None,
    };
    options.finish()?;
    host.stage.check()?;
    let wanted = Waiting::new(default, attach, site(lua, 1));
    make(host, name, &net, devices, &links, wanted).map(Returned)
}

/// The router of that name in that namespace: the one there is, or a new one. Its hooks and its default wait for the
/// commit when they are live.
fn make(
    host: &Rc<Host>,
    name: String,
    net: &Net,
    devices: Devices,
    links: &[Link],
    waiting: Waiting,
) -> Result<Router> {
    let stage = &host.stage;
    let netns = net.netns()?;
    let label = match stage.ordinal(&format!("router/{}/{name}", netns.cookie)) {
        1 => name.clone(),
        ordinal => format!("{name}#{ordinal}"),
    };
    let slot = format!("router:{}:{label}", netns.cookie);
    let shelf = format!("router/{}/{label}", netns.cookie);
    let places = places(links, &slot)?;
    let book = Book::new(host, slot.clone(), places.clone());
    let live = places.iter().any(|place| {
        let (place, pin) = (place.clone(), None);
        let trace = Trace::default();
        stage.is_live(&Owned::Attachment { place, pin, filter: None, trace, mounted: None })
    });
    let before = if stage.is_loading() { stage.take::<router::Router>(&shelf) } else { None };
    let adopted = before.and_then(|router| Some((stage.adopt(&shelf)?.0, router)));
    let is_adopted = adopted.is_some();
    let (number, router) = match adopted {
        Some((number, router)) => {
            book.adopt(host, |_| true);
            book.mend(&router);
            (number, (*router).clone())
        }
        None => {
            book.adopt(host, |there| places.iter().any(|p| p.index == there.index));
            let attach = waiting.wanted().attach;
            let fd = netns.fd.clone();
            let spec = RouterSpec { name: name.clone(), netns: fd, attach, default: None };
            let router = router::Router::idle(&spec)?;
            if host.instance.pins.is_some() {
                router.remember();
            }
            if stage.is_loading() {
                book.inherit(&router);
            }
            let undone = router.clone();
            let entry = Owned::Other {
                netns: Some(netns),
                kind: "router",
                name: label,
                undo: Arc::new(move || undone.detach()),
            };
            (host.ledger.add(entry)?, router)
        }
    };
    let text = format!("router {name} in {}", net.place());
    let waiting = Rc::new(RefCell::new(waiting));
    let change = Change::new(router.clone(), Rc::clone(&waiting), book, text);
    let waits = is_adopted || live;
    stage.change(waits, Box::new(change), None).inspect_err(|_| {
        host.ledger.forget(number);
    })?;
    stage.hooks_changed();
    stage.shelve(&shelf, Rc::new(router.clone()));
    let waiting = (waits && stage.is_loading()).then_some(waiting);
    Ok(Router(Rc::new(Inner { name, slot, shelf, router, devices, number, waiting })))
}

/// The links' places in the ledger; what their hooks are is known when they are attached.
fn places(links: &[Link], slot: &str) -> Result<Vec<AttachmentPlace>> {
    let place = |link: &Link| {
        let (netns, hook) = (link.net().netns()?, bpf::Hook::TcxEgress);
        Ok(AttachmentPlace {
            netns,
            index: link.index(),
            link: link.name(),
            hook,
            slot: slot.to_owned(),
        })
    };
    links.iter().map(place).collect()
}

fn attachments(options: &mut Options) -> Result<(Vec<Link>, Vec<Attach>)> {
    const HOOKS: &[(&str, Hook)] = &[
        ("ingress", Hook::Ingress),
        ("egress", Hook::Egress),
        ("primary", Hook::Primary),
        ("peer", Hook::Peer),
    ];
    let Some(pairs) = options.get::<Table>("attach")? else {
        return Err(options
            .bad("attach is missing: it says which hooks it stands on")
            .hint("attach = {{link, \"egress\"}}"));
    };
    let (mut links, mut attach): (Vec<Link>, Vec<Attach>) = (Vec::new(), Vec::new());
    for (link, word) in link_and_hook(options, &pairs)? {
        let Some((_, hook)) = HOOKS.iter().find(|(name, _)| *name == word) else {
            let known: Vec<&str> = HOOKS.iter().map(|(name, _)| *name).collect();
            let error = options.bad(format!("there is no hook \"{word}\""));
            return Err(match nearest(&word, &known) {
                Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                None => error.hint("\"ingress\" or \"egress\" of any link, \"primary\" or \"peer\" of a netkit's primary end"),
            });
        };
        let open = link.net().open()?;
        if attach.iter().any(|a| {
            a.target.index == link.index() && a.hook == *hook && a.target.netns.same(&open.netns.fd)
        }) {
            return Err(options.bad(format!("attach names {}, {word} twice", link.name())));
        }
        attach.push(Attach {
            target: Target::new(&open.netns.fd, link.index(), link.name()),
            hook: *hook,
        });
        links.push(link);
    }
    Ok((links, attach))
}

/// The rows of `attach`, which is an array of `{link, hook}`.
fn link_and_hook(options: &Options, rows: &Table) -> Result<Vec<(Link, String)>> {
    let shape =
        || options.bad("attach must be an array of {link, hook}, such as {{eth0, \"egress\"}}");
    let first: Value = rows.raw_get(1).map_err(from_lua)?;
    if rows.raw_len() == 0 || !matches!(first, Value::Table(_)) {
        let single = held::<Link>(&first).is_some();
        let hint = "one hook is an array of one: attach = {{link, \"egress\"}}";
        return Err(if single { shape().hint(hint) } else { shape() });
    }
    rows.sequence_values::<Value>()
        .map(|row| {
            let Value::Table(row) = row.map_err(from_lua)? else { return Err(shape()) };
            let link: Value = row.raw_get(1).map_err(from_lua)?;
            let hook: Value = row.raw_get(2).map_err(from_lua)?;
            match (held::<Link>(&link), hook) {
                (Some(link), Value::String(hook)) => Ok((link, hook.to_string_lossy())),
                (None, _) => match Given::<Link>::instead(&link) {
                    Some(hint) => Err(shape().hint(hint)),
                    None => Err(shape()),
                },
                _ => Err(shape()),
            }
        })
        .collect()
}

/// A router as scripts hold it.
#[derive(Clone)]
pub struct Router(Rc<Inner>);

struct Inner {
    name: String,
    /// Of its attachments in the ledger.
    slot: String,
    /// Under which the next load finds it.
    shelf: String,
    router: router::Router,
    devices: Devices,
    number: u64,
    /// What it is to be, while the load runs that named it again.
    waiting: Option<Rc<RefCell<Waiting>>>,
}

impl Router {
    /// What waits for the commit; none when changes happen at once.
    ///
    /// # Errors
    /// ESTALE.
    fn waiting(&self, host: &Host) -> Result<Option<&RefCell<Waiting>>> {
        host.stage.check()?;
        Ok(self.0.waiting.as_deref().filter(|_| host.stage.is_loading()))
    }
}

impl Handle for Router {
    const TYPE: &'static str = "Router";
    const WORD: &'static str = "router";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.0.name.clone()))
            .method("set", set)
            .method("add", add)
            .method("remove", remove)
            .method("list", list)
            .method("clear", |_, host, this, _| match this.waiting(host)? {
                Some(waiting) => waiting.borrow_mut().clear(),
                None => this.0.router.clear(),
            })
            .method("stats", stats)
            .method("explain", explain)
            .method("detach", |_, host, this, _| detach(host, this));
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        let policies = match self.0.router.len() {
            1 => "1 policy".to_owned(),
            count => format!("{count} policies"),
        };
        format!("Router({}, {policies})", self.0.name)
    }
}

/// Replaces the whole set at once.
fn set(lua: &Lua, host: &Rc<Host>, this: &Router, mut args: Args) -> Result<()> {
    let options = Options::new(args.op(), Value::Nil)?;
    let table: Table = args.required("policies")?;
    this.0.devices.forget_names();
    let policies = plain::policies(lua, &options, &table, &this.0.devices)?;
    if policies.is_empty() && table.pairs::<Value, Value>().next().is_some() {
        return Err(options
            .bad("takes an array of policies")
            .hint("r:set{{from = ..., via = ...}, ...}"));
    }
    match this.waiting(host)? {
        Some(waiting) => waiting.borrow_mut().set(policies, site(lua, 1)),
        None => this.0.router.set(policies),
    }
}

fn add(lua: &Lua, host: &Rc<Host>, this: &Router, mut args: Args) -> Result<()> {
    let options = Options::new(args.op(), Value::Nil)?;
    this.0.devices.forget_names();
    let one = policy(&options, &String::new, args.required("policy")?, &this.0.devices)?;
    match this.waiting(host)? {
        Some(waiting) => waiting.borrow_mut().add(one, site(lua, 1)),
        None => this.0.router.add(one),
    }
}

/// Takes a policy, or what one matches.
fn remove(_: &Lua, host: &Rc<Host>, this: &Router, mut args: Args) -> Result<()> {
    let table: Table = args.required("policy")?;
    let mut options = Options::new(args.op(), Value::Table(table))?;
    let matching = matching(&mut options)?;
    for word in ["via", "dev", "nexthops", "action", "priority", "mirror", "onlink"] {
        options.raw(word)?;
    }
    options.finish()?;
    match this.waiting(host)? {
        Some(waiting) => waiting.borrow_mut().remove(&matching),
        None => this.0.router.remove(&matching),
    }
}

/// Off its hooks; a live one at the commit.
fn detach(host: &Rc<Host>, this: &Router) -> Result<()> {
    if let Some(waiting) = this.waiting(host)? {
        waiting.borrow_mut().drop_it();
    }
    host.stage.unshelve(&this.0.shelf);
    let entries = host.ledger.entries(|_, owned| stage::is_of(owned, &this.0.slot));
    for (number, _) in entries {
        host.stage.disown(number)?;
    }
    if host.stage.disown(this.0.number)? {
        return Ok(());
    }
    this.0.router.detach()?;
    stage::forget(&host.ledger, &this.0.slot);
    host.stage.hooks_changed();
    host.ledger.forget(this.0.number);
    Ok(())
}

/// What waits for the commit when something does.
fn list(lua: &Lua, host: &Rc<Host>, this: &Router, _: Args) -> Result<Table> {
    let waiting = this.0.waiting.as_ref().filter(|_| host.stage.is_loading());
    let policies = match waiting {
        Some(waiting) => {
            let mut wanted = waiting.borrow().wanted();
            // What cannot be resolved now may be at the commit.
            let _ = this.0.router.resolve(&mut wanted);
            wanted.policies
        }
        None => this.0.router.list(),
    };
    let tables = policies
        .iter()
        .map(|one| policy_table(lua, &this.0.devices, one))
        .collect::<Result<Vec<_>>>()?;
    lua.create_sequence_from(tables).map_err(from_lua)
}

/// An array of {policy, packets, bytes}, and `.total`.
fn stats(lua: &Lua, _: &Rc<Host>, this: &Router, _: Args) -> Result<Table> {
    let stats = this.0.router.stats();
    let build = || -> mlua::Result<Table> {
        let all = lua.create_table_with_capacity(stats.policies.len(), 1)?;
        for (i, one) in stats.policies.iter().enumerate() {
            let row = lua.create_table_with_capacity(0, 3)?;
            row.raw_set(
                "policy",
                policy_table(lua, &this.0.devices, &one.policy).map_err(super::error::raise)?,
            )?;
            row.raw_set("packets", one.packets as i64)?;
            row.raw_set("bytes", one.bytes as i64)?;
            all.raw_set(i + 1, row)?;
        }
        all.raw_set("total", totals(lua, &stats.total)?)?;
        Ok(all)
    };
    build().map_err(from_lua)
}

fn totals(lua: &Lua, total: &Totals) -> mlua::Result<Table> {
    let rows: [(&str, Count); 12] = [
        ("routed", total.routed),
        ("passed", total.passed),
        ("dropped", total.dropped),
        ("unmatched", total.unmatched),
        ("local", total.local),
        ("too_big", total.too_big),
        ("answered", total.answered),
        ("redirected", total.redirected),
        ("no_hop", total.no_hop),
        ("failed", total.failed),
        ("mirrored", total.mirrored),
        ("expired", total.expired),
    ];
    let table = lua.create_table_with_capacity(0, rows.len())?;
    for (word, count) in rows {
        let one = lua.create_table_with_capacity(0, 2)?;
        one.raw_set("packets", count.packets as i64)?;
        one.raw_set("bytes", count.bytes as i64)?;
        table.raw_set(word, one)?;
    }
    Ok(table)
}

/// Which policy and hop would take this packet, and why.
fn explain(lua: &Lua, _: &Rc<Host>, this: &Router, mut args: Args) -> Result<Table> {
    let mut options = args.options()?;
    let query = Query {
        from: options.required::<IpAddr>("from")?,
        to: options.required::<IpAddr>("to")?,
        proto: ip_protocol(&mut options, "proto")?,
        sport: options.get("sport")?,
        dport: options.get("dport")?,
        mark: options.get("mark")?.unwrap_or(0),
        vlan: options.get("vlan")?,
    };
    if query.from.is_ipv4() != query.to.is_ipv4() {
        return Err(options.bad("from and to are of different families"));
    }
    options.finish()?;
    let Explanation { policy, hop, why, skipped } = this.0.router.explain(&query);
    let table = lua.create_table().map_err(from_lua)?;
    let fill = || -> mlua::Result<()> {
        let convert =
            |one: &Policy| policy_table(lua, &this.0.devices, one).map_err(super::error::raise);
        table.raw_set("policy", policy.as_ref().map(convert).transpose()?)?;
        table.raw_set(
            "hop",
            hop.as_ref()
                .map(|hop| hop_table(lua, &this.0.devices, hop).map_err(super::error::raise))
                .transpose()?,
        )?;
        table.raw_set("why", why.as_str())?;
        let skipped = skipped.iter().map(convert).collect::<mlua::Result<Vec<_>>>()?;
        table.raw_set("skipped", lua.create_sequence_from(skipped)?)
    };
    fill().map_err(from_lua)?;
    Ok(table)
}
