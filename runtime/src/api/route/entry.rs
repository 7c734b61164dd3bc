//! What routes, rules and neighbours have in common: each is added, kept in the ledger, and held by a handle.

use std::rc::Rc;

use mlua::Lua;

use crate::api::error::said;
use crate::api::handle::{Class, Handle, Returned};
use crate::api::host::Host;
use crate::api::netns::Net;
use crate::api::value::Data;
use crate::kernel::link;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::own::Owned;
use crate::{Error, Result};

/// A route, rule or neighbour as scripts hold it.
#[derive(Clone)]
pub struct Entry<K>(Rc<Kept<K>>);

struct Kept<K> {
    net: Net,
    what: K,
    /// For people: `10.0.0.0/8 via 10.1.0.1`.
    text: String,
    number: u64,
}

/// What differs between routes, rules and neighbours.
pub trait Kind: Clone + Send + Sync + 'static {
    const TYPE: &'static str;
    const WORD: &'static str;
    /// The part of its text that needs no look at the kernel.
    fn text(&self) -> String;
    /// The link it names apart from its text, if any.
    fn dev(&self) -> Option<u32> {
        None
    }
    /// As the ledger holds it.
    fn owned(&self, netns: Netns, text: String) -> Owned;
    fn delete(&self, netlink: &Netlink) -> Result<()>;
    fn info(&self, netlink: &Netlink) -> Result<Option<Data>>;
}

impl<K: Kind> Handle for Entry<K> {
    const TYPE: &'static str = K::TYPE;
    const WORD: &'static str = K::WORD;

    fn class(class: &mut Class<'_, Self>) {
        class
            .method("delete", |_, host, this, args| {
                let open = this.0.net.open()?;
                if host.stage.disown(this.0.number)? {
                    return Ok(());
                }
                this.0
                    .what
                    .delete(&open.netlink)
                    .map_err(|e| e.operation(args.op().to_owned()).subject(this.0.text.clone()))?;
                host.ledger.forget(this.0.number);
                Ok(())
            })
            .method("info", |_, _, this, args| {
                let open = this.0.net.open()?;
                this.0.what.info(&open.netlink)?.ok_or_else(|| {
                    Error::new(args.op().to_owned(), "ENODEV", format!("the {} is gone", K::WORD))
                        .subject(this.0.text.clone())
                })
            });
    }

    /// Each was added once: an equal one that comes after its deletion is another.
    fn identity(&self) -> String {
        self.0.number.to_string()
    }

    fn display(&self) -> String {
        match self.0.net.name() {
            "" => format!("{}({})", K::TYPE, self.0.text),
            netns => format!("{}({} in netns {netns})", K::TYPE, self.0.text),
        }
    }
}

/// Adds it, now or when the load commits.
pub fn keep<K: Kind>(
    lua: &Lua,
    host: &Host,
    net: &Net,
    what: K,
    op: &str,
) -> Result<Returned<Entry<K>>> {
    let open = net.open()?;
    let mut text = what.text();
    if let Some(dev) = what.dev() {
        let name = link::info(&open.netlink, dev).map(|link| link.name);
        text += &format!(" dev {}", name.unwrap_or_else(|_| dev.to_string()));
    }
    let owned = what.owned(open.netns.clone(), text.clone());
    let number = host
        .stage
        .own(owned, &open.netlink, || said(lua, op).about(text.as_str()))
        .map_err(|e| e.operation(op.to_owned()).about(text.clone()))?;
    Ok(Returned(Entry(Rc::new(Kept { net: net.clone(), what, text, number }))))
}
