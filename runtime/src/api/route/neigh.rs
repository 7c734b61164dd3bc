//! Neighbours of a namespace: `ns:neigh{}`, `ns:neighs{}`.

use std::net::IpAddr;
use std::rc::Rc;

use mlua::Lua;

use super::entry::{Entry, Kind, keep};
use super::words::{as_option, dev};
use crate::Result;
use crate::api::address::Mac;
use crate::api::handle::Returned;
use crate::api::host::Host;
use crate::api::module::Args;
use crate::api::netns::Net;
use crate::api::value::Data;
use crate::kernel::link;
use crate::kernel::neigh::{self, NeighInfo};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::own::Owned;
use crate::record;

pub fn add(
    lua: &Lua,
    host: &Rc<Host>,
    this: &Net,
    mut args: Args,
) -> Result<Returned<Entry<neigh::Options>>> {
    let mut options = args.options()?;
    let dst: IpAddr = options.required("dst")?;
    options.set_subject(dst.to_string());
    let state = options.get::<String>("state")?.map(|w| neigh::state(&w));
    let wanted = neigh::Options {
        dst,
        dev: match dev(&mut options, this)? {
            Some(dev) => dev,
            None => return Err(options.bad("dev is missing: it must be a Link or the name of one")),
        },
        lladdr: options.get::<Mac>("lladdr")?.map(|mac| mac.0.to_vec()),
        state: as_option(&options, state)?,
        proxy: options.flag("proxy")?,
    };
    options.finish()?;
    keep(lua, host, this, wanted, args.op())
}

impl Kind for neigh::Options {
    const TYPE: &'static str = "Neigh";
    const WORD: &'static str = "neigh";

    fn text(&self) -> String {
        self.dst.to_string()
    }

    fn dev(&self) -> Option<u32> {
        Some(self.dev)
    }

    fn owned(&self, netns: Netns, text: String) -> Owned {
        Owned::Neigh { netns, neigh: Box::new(self.clone()), text }
    }

    fn delete(&self, netlink: &Netlink) -> Result<()> {
        neigh::delete(netlink, self)
    }

    fn info(&self, netlink: &Netlink) -> Result<Option<Data>> {
        let found = neigh::list(netlink, Some(self.dev))?;
        Ok(found.into_iter().find(|n| n.dst == self.dst).map(|n| neigh_data(netlink, n)))
    }
}

fn neigh_data(netlink: &Netlink, n: NeighInfo) -> Data {
    let dev = link::info(netlink, n.dev).ok().map(|link| link.name);
    record! { dst: n.dst, dev: dev, lladdr: n.lladdr, state: n.state, router: n.router, proxy: n.proxy }
}

pub fn list(_: &Lua, _: &Rc<Host>, this: &Net, mut args: Args) -> Result<Data> {
    let mut options = args.options()?;
    let dst: Option<IpAddr> = options.get("dst")?;
    let dev = dev(&mut options, this)?;
    options.finish()?;
    let open = this.open()?;
    let found = neigh::list(&open.netlink, dev)?;
    let wanted = found.into_iter().filter(|n| dst.is_none_or(|dst| n.dst == dst));
    Ok(wanted.map(|n| neigh_data(&open.netlink, n)).collect::<Vec<_>>().into())
}
