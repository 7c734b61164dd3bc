//! What a script changes of a link, now or when the load commits; how to put back what was there goes into the ledger.

use std::rc::{Rc, Weak};

use ipnetwork::IpNetwork;
use mlua::{Lua, Value};

use super::Link;
use super::options::{addrgenmode, local};
use crate::api::address::Mac;
use crate::api::error::said;
use crate::api::handle::reintern;
use crate::api::host::Host;
use crate::api::module::Args;
use crate::api::netns::NetOption;
use crate::kernel::address;
use crate::kernel::link::{self, Change};
use crate::kernel::netns::named::Netns;
use crate::own::Owned;
use crate::{Error, Result};

pub fn up(lua: &Lua, host: &Rc<Host>, this: &Link, args: Args) -> Result<()> {
    apply(lua, host, this, &args, Change { up: Some(true), ..Change::default() })
}

pub fn down(lua: &Lua, host: &Rc<Host>, this: &Link, args: Args) -> Result<()> {
    apply(lua, host, this, &args, Change { up: Some(false), ..Change::default() })
}

pub fn set(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let mut options = args.options()?;
    options.set_subject(this.name());
    // `master = false` takes the link out of its bridge, as `nomaster` does.
    let master = match options.raw("master")? {
        Value::Nil => None,
        Value::Boolean(false) => Some(0),
        other => local(&options, &this.net(), "master", other)?.map(|master| master.index()),
    };
    let wanted = Change {
        mtu: options.get("mtu")?,
        mac: options.get::<Mac>("mac")?.map(|mac| mac.0),
        master,
        alias: options.get("alias")?,
        txqueuelen: options.get("txqueuelen")?,
        group: options.get("group")?,
        addrgenmode: addrgenmode(&mut options)?,
        promiscuous: options.get("promisc")?,
        up: options.get("up")?,
    };
    options.finish()?;
    apply(lua, host, this, &args, wanted)
}

fn apply(lua: &Lua, host: &Rc<Host>, this: &Link, args: &Args, wanted: Change) -> Result<()> {
    own(lua, host, this, args.op(), |netns, index, link| {
        let (wanted, before) = (Box::new(wanted), Box::default());
        Owned::LinkSetting { netns, index, link, wanted, before }
    })
}

/// What is made of the link's namespace, index and name happens now or when the load commits, and is the ledger's to undo.
fn own(
    lua: &Lua,
    host: &Rc<Host>,
    this: &Link,
    op: &str,
    owned: impl FnOnce(Netns, u32, String) -> Owned,
) -> Result<()> {
    this.ask(op, |open, index| {
        let owned = owned(open.netns.clone(), index, this.name());
        host.stage.own(owned, &open.netlink, || said(lua, op).of(this.name())).map(drop)
    })
}

pub fn add_address(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let address: IpNetwork = args.required("address")?;
    own(lua, host, this, args.op(), |netns, index, link| Owned::Address {
        netns,
        index,
        link,
        address,
        promote: None,
    })
}

pub fn delete_address(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let address: IpNetwork = args.required("address")?;
    let was_added = this.ask(args.op(), |open, index| {
        let (netns, link) = (open.netns.clone(), this.name());
        let added = Owned::Address { netns, index, link, address, promote: None };
        let Some(number) = host.stage.own_address(&added) else { return Ok(false) };
        if !host.stage.disown(number)? {
            address::delete(&open.netlink, index, address)?;
            host.ledger.forget(number);
        }
        Ok(true)
    })?;
    if was_added {
        return Ok(());
    }
    own(lua, host, this, args.op(), |netns, index, link| Owned::DeletedAddress {
        netns,
        index,
        link,
        address,
        lost: link::Lost::default(),
    })
}

pub fn rename(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let name: String = args.required("name")?;
    link::check_name(&name).map_err(|e| e.operation(args.op().to_owned()))?;
    own(lua, host, this, args.op(), |netns, index, before| Owned::LinkName {
        netns,
        index,
        before,
        after: name.clone(),
    })?;
    *this.0.name.borrow_mut() = name;
    Ok(())
}

/// A link of somebody else's stays where it is.
fn refuse_others(this: &Link, host: &Host, op: &str, hint: &str) -> Result<()> {
    if this.is_ours(host) {
        return Ok(());
    }
    let text = "this script did not make that link";
    Err(Error::new(op.to_owned(), "EPERM", text).subject(this.name()).hint(hint.to_owned()))
}

pub fn move_to(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<()> {
    let target = NetOption::argument(&mut args, host)?;
    let lost = "a link that is moved loses its addresses and routes; make one of your own";
    refuse_others(this, host, args.op(), lost)?;
    host.stage.check()?;
    let entry = host.ledger.owns_link(this.place());
    if entry.is_some_and(|number| host.stage.is_older(number)) {
        if this.net().cookie() == target.cookie() {
            return Ok(());
        }
        return Err(Error::new(
            args.op().to_owned(),
            "EBUSY",
            "a reload does not move a link that is in use",
        )
        .subject(this.name())
        .hint("name its namespace in the constructor: netns = ..."));
    }
    let target_open = target.open()?;
    let moved = entry.and_then(|number| match host.ledger.get(number)? {
        Owned::Link { index, name, end, .. } => {
            let netns = target_open.netns.clone();
            Some((number, host.ledger.reserve(), Owned::Link { netns, index, name, end }))
        }
        _ => None,
    });
    if let Some((_, foreseen, owned)) = &moved {
        host.ledger.foresee(*foreseen, owned)?;
    }
    let outcome = this.ask(args.op(), |open, index| {
        link::move_to(&open.netlink, index, &target_open.netlink, None)
    });
    if let (Some((number, _, Owned::Link { netns, name, end, .. })), Ok(index)) = (&moved, &outcome)
    {
        let (netns, name, end) = (netns.clone(), name.clone(), end.clone());
        host.ledger.settle(*number, Owned::Link { netns, index: *index, name, end });
    }
    moved.into_iter().for_each(|(_, foreseen, _)| drop(host.ledger.forget(foreseen)));
    let index = outcome?;
    *this.0.net.borrow_mut() = target;
    this.0.index.set(index);
    reintern(lua, this)
}

pub fn delete(_: &Lua, host: &Rc<Host>, this: &Link, args: Args) -> Result<()> {
    let left = "what was there before is left alone; `ip link delete` removes it";
    refuse_others(this, host, args.op(), left)?;
    let mut gone = vec![this.place()];
    if let Some(peer) = this.0.peer.borrow().as_ref().and_then(Weak::upgrade) {
        gone.push(Link(peer).place());
    }
    let on_it = |owned: &Owned| owned.link().is_some_and(|link| gone.contains(&link));
    if host.ledger.owns_link(this.place()).is_some_and(|number| host.stage.is_older(number)) {
        for (number, _) in host.ledger.entries(|_, owned| on_it(owned)) {
            host.stage.disown(number)?;
        }
        return Ok(());
    }
    host.stage.check()?;
    this.ask(args.op(), |open, index| link::delete(&open.netlink, index))?;
    host.ledger.forget_where(on_it);
    Ok(())
}
