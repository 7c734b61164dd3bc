//! What a link's constructor does once its options are read: takes over the link that the load before made, or makes it,
//! or stages one that takes another's place.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Value};

use super::Link;
use crate::Result;
use crate::api::error::{said, site};
use crate::api::handle::{held, intern};
use crate::api::host::Host;
use crate::api::netns::Net;
use crate::kernel::address;
use crate::kernel::link::kinds::Kind;
use crate::kernel::link::{self, Change, Created, End, NewLink};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::own::stage::Staged;
use crate::own::{LinkEnd, Owned, link_key};

/// A link as a script asked for it.
pub struct Making {
    pub kind: &'static Kind,
    pub net: Net,
    pub end: End,
    /// The link it stands on.
    pub on: Option<Link>,
    pub values: Vec<(String, link::Value)>,
    /// Links that become its ports.
    pub ports: Vec<Link>,
    pub peer: Option<(Net, End)>,
}

/// One end that the ledger has.
struct Known {
    number: u64,
    index: u32,
    net: Net,
    end: LinkEnd,
}

impl Making {
    pub fn adopt_or_create(mut self, lua: &Lua, host: &Rc<Host>) -> Result<MultiValue> {
        let foreign = |port: &mut Link| !host.stage.is_ours(port.place());
        let foreign: Vec<Link> = self.ports.extract_if(.., foreign).collect();
        let (op, name) = (self.op(), self.end.name.clone());
        let handles = self.adopted_or_created(lua, host)?;
        let master = handles.front().and_then(held::<Link>);
        let Some(master) = master.filter(|_| !foreign.is_empty()) else { return Ok(handles) };
        let mut taken = Vec::new();
        for port in &foreign {
            match take_port(lua, host, port, master.index(), (&op, &name)) {
                Ok(number) => taken.push(number),
                Err(error) => {
                    taken.iter().rev().try_for_each(|number| withdraw(host, *number))?;
                    let link = host.ledger.owns_link(master.place());
                    link.map_or(Ok(()), |number| withdraw(host, number))?;
                    return Err(error.operation(op).about(name));
                }
            }
        }
        Ok(handles)
    }

    fn adopted_or_created(&mut self, lua: &Lua, host: &Rc<Host>) -> Result<MultiValue> {
        let Some(known) = self.known(host)? else { return self.create(lua, host) };
        let wanted = self.wanted();
        let same = known.len() == wanted.len()
            && known.iter().zip(&wanted).all(|(known, wanted)| known.end.fixed == wanted.fixed);
        if !same {
            return self.replace(lua, host, &known);
        }
        for (known, (wanted, name)) in known.iter().zip(wanted.into_iter().zip(self.names())) {
            if known.end != wanted {
                let (netns, index) = (known.net.netns()?, known.index);
                let new = Owned::Link { netns, index, name, end: Box::new(wanted) };
                let said = said(lua, &self.op()).of(&self.end.name);
                host.stage.reshape(known.number, new, said);
            }
        }
        let ends: Vec<(Net, u32)> = known.into_iter().map(|k| (k.net, k.index)).collect();
        self.handles(lua, &ends, &self.names())
    }

    fn op(&self) -> String {
        match self.kind.name {
            "netkit" => "netkit.pair".to_owned(),
            name => format!("link.{name}"),
        }
    }

    fn names(&self) -> Vec<String> {
        let peer = self.peer.as_ref().map(|(_, end)| end.name.clone());
        std::iter::once(self.end.name.clone()).chain(peer).collect()
    }

    /// What the ledger is told of each end.
    fn wanted(&self) -> Vec<LinkEnd> {
        let Making { kind, net, end, on, values, ports, peer } = self;
        let on = on.as_ref().map(Link::place);
        let peer_place = peer.as_ref().map(|(net, end)| (net.cookie(), end.name.as_str()));
        let ports: Vec<u32> = ports.iter().map(Link::index).collect();
        let queues = (end.num_tx_queues, end.num_rx_queues);
        let primary = LinkEnd {
            fixed: format!("{} {on:?} {values:?} {ports:?} {peer_place:?} {queues:?}", kind.name),
            settings: settings(end),
            addresses: end.addresses.clone(),
            born: net.cookie(),
        };
        let peer = peer.as_ref().map(|(peer_net, peer)| LinkEnd {
            fixed: format!("of {} {:?}", link_key(net.cookie(), &end.name), peer.num_tx_queues),
            settings: settings(peer),
            addresses: peer.addresses.clone(),
            born: peer_net.cookie(),
        });
        std::iter::once(primary).chain(peer).collect()
    }

    /// The ends that the load before made, if they are still there.
    fn known(&self, host: &Rc<Host>) -> Result<Option<Vec<Known>>> {
        if !host.stage.is_loading() {
            return Ok(None);
        }
        let mut places = vec![(self.net.cookie(), self.end.name.as_str())];
        places.extend(self.peer.as_ref().map(|(net, end)| (net.cookie(), end.name.as_str())));
        let mut found = Vec::new();
        for (cookie, name) in places {
            let Some((number, owned)) = host.stage.adopt(&link_key(cookie, name)) else { continue };
            let Owned::Link { netns, index, end, .. } = owned else { continue };
            let net = host.nets.adopted(host, &netns)?;
            if !link::is_there(&net.open()?.netlink, index) {
                host.stage.lost(number);
                continue;
            }
            found.push(Known { number, index, net, end: *end });
        }
        Ok(if found.is_empty() { None } else { Some(found) })
    }

    /// Makes it, with the ledger knowing its indexes beforehand.
    fn create(&mut self, lua: &Lua, host: &Rc<Host>) -> Result<MultiValue> {
        let chosen = self.end.index.is_some();
        let made = match self.try_create(host) {
            // The index was another process's: once more with fresh ones.
            Err(error) if error.is("EBUSY") && !chosen => {
                self.end.index = None;
                self.try_create(host)?
            }
            other => other?,
        };
        let mut ends = vec![(self.net.clone(), made.index)];
        if let (Some((net, _)), Some(index)) = (&self.peer, made.peer_index) {
            ends.push((net.clone(), index));
        }
        self.handles(lua, &ends, &self.names())
    }

    fn try_create(&mut self, host: &Rc<Host>) -> Result<Created> {
        self.end.index.get_or_insert_with(link::next_index);
        if let Some((_, end)) = &mut self.peer {
            end.index.get_or_insert_with(link::next_index);
        }
        self.make(host, &self.owned()?)
    }

    fn owned(&self) -> Result<Vec<Owned>> {
        self.ends()
            .zip(self.wanted())
            .map(|((net, end), wanted)| {
                let (netns, index) = (net.netns()?, end.index.unwrap_or_default());
                Ok(Owned::Link { netns, index, name: end.name.clone(), end: Box::new(wanted) })
            })
            .collect()
    }

    /// The ledger knows its ends, one or two, before they are there.
    fn make(&self, host: &Host, owned: &[Owned]) -> Result<Created> {
        let mut numbers = Vec::new();
        for owned in owned {
            let number = host.ledger.reserve();
            host.ledger.intend(number, owned)?;
            numbers.push(number);
        }
        self.request().inspect_err(|_| {
            numbers.into_iter().for_each(|number| drop(host.ledger.forget(number)));
        })
    }

    fn request(&self) -> Result<Created> {
        let open = self.net.open()?;
        let peer_open = self.peer.as_ref().map(|(net, _)| net.open()).transpose()?;
        let new = NewLink {
            netlink: &open.netlink,
            kind: self.kind,
            end: self.end.clone(),
            link: self.on.as_ref().map(Link::index),
            values: self.values.clone(),
            ports: self.ports.iter().map(Link::index).collect(),
            peer: match (&peer_open, &self.peer) {
                (Some(open), Some((_, end))) => Some((&open.netlink, end.clone())),
                _ => None,
            },
        };
        match &self.on {
            Some(on) if on.net().cookie() != self.net.cookie() => {
                link::create_on(&new, &on.net().open()?.netlink)
            }
            _ => link::create(&new),
        }
    }

    fn handles(&self, lua: &Lua, ends: &[(Net, u32)], names: &[String]) -> Result<MultiValue> {
        let made = |at: usize| Link::made(&ends[at].0, ends[at].1, &names[at], self.kind.name);
        let primary = made(0);
        let mut handles = MultiValue::new();
        if ends.len() > 1 {
            let peer = made(1);
            primary.0.peer.replace(Some(Rc::downgrade(&peer.0)));
            peer.0.peer.replace(Some(Rc::downgrade(&primary.0)));
            // Interned here, so that the weak references stay good while the script holds either.
            handles.push_front(Value::UserData(intern(lua, peer)?));
        }
        handles.push_front(Value::UserData(intern(lua, primary)?));
        Ok(handles)
    }

    fn ends(&self) -> impl Iterator<Item = (&Net, &End)> {
        std::iter::once((&self.net, &self.end)).chain(self.peer.iter().map(|(net, end)| (net, end)))
    }

    /// Another link stands where this one is wanted, and cannot become it: this one is made beside it, down and bare and
    /// under another name, and takes its place at the commit.
    fn replace(&mut self, lua: &Lua, host: &Rc<Host>, known: &[Known]) -> Result<MultiValue> {
        for known in known {
            host.stage.disown(known.number)?;
        }
        let (names, wanted) = (self.names(), self.wanted());
        let mut swap = Swap { ends: Vec::new() };
        for (net, end) in self.ends() {
            let new = link::next_index();
            let old =
                known.iter().find(|k| k.net.cookie() == net.cookie() && k.end.born == net.cookie());
            let old = old.filter(|k| names_of(host, k.number) == end.name).map(|k| k.index);
            swap.ends.push(SwapEnd { netns: net.netns()?, new, old, end: end.clone(), undo: None });
        }
        let bare = |end: &mut End, index: u32| {
            *end = End {
                name: temporary(index),
                index: Some(index),
                up: false,
                addresses: Vec::new(),
                ..end.clone()
            };
        };
        bare(&mut self.end, swap.ends[0].new);
        if let Some((_, end)) = &mut self.peer {
            bare(end, swap.ends[1].new);
        }
        let owned: Vec<Owned> = swap
            .ends
            .iter()
            .zip(wanted)
            .map(|(end, wanted)| {
                let (netns, index, name) = (end.netns.clone(), end.new, end.end.name.clone());
                Owned::Link { netns, index, name, end: Box::new(wanted) }
            })
            .collect();
        self.make(host, &owned)?;
        let ends: Vec<(Net, u32)> =
            self.ends().map(|(net, _)| net.clone()).zip(swap.ends.iter().map(|e| e.new)).collect();
        host.stage.change(true, Box::new(swap), site(lua, 1))?;
        self.handles(lua, &ends, &names)
    }
}

/// Makes somebody else's link a port, now or at the commit: what it was a port of before comes back at the end.
fn take_port(
    lua: &Lua,
    host: &Rc<Host>,
    port: &Link,
    master: u32,
    (op, name): (&str, &str),
) -> Result<u64> {
    let net = port.net();
    let open = net.open()?;
    let wanted = Change { master: Some(master), ..Change::default() };
    let owned = Owned::LinkSetting {
        netns: open.netns.clone(),
        index: port.index(),
        link: port.name(),
        wanted: Box::new(wanted),
        before: Box::default(),
    };
    host.stage.own(owned, &open.netlink, || said(lua, op).of(name))
}

/// What belongs to a link that could not be finished is not left behind.
fn withdraw(host: &Rc<Host>, number: u64) -> Result<()> {
    if host.stage.disown(number)? {
        return Ok(());
    }
    host.ledger.forget(number).map_or(Ok(()), |owned| owned.undo())
}

/// A name that no person gives.
fn temporary(index: u32) -> String {
    format!("cnf{index:08x}")
}

fn names_of(host: &Host, number: u64) -> String {
    match host.ledger.get(number) {
        Some(Owned::Link { name, .. }) => name,
        _ => String::new(),
    }
}

/// Links that take the places of others.
struct Swap {
    ends: Vec<SwapEnd>,
}

struct SwapEnd {
    netns: Netns,
    new: u32,
    /// The link that has the name now; it is deleted after the commit.
    old: Option<u32>,
    /// What the new one is to become.
    end: End,
    /// How the old one was.
    undo: Option<link::Undo>,
}

impl Staged for Swap {
    fn key(&self) -> String {
        format!("swap/{}/{}", self.ends[0].netns.cookie, self.ends[0].new)
    }

    fn text(&self) -> String {
        format!("link {}: made anew, traffic on it is interrupted", self.ends[0].end.name)
    }

    fn shakes(&self) -> Option<u64> {
        self.ends.iter().find(|end| end.old.is_some()).map(|end| end.netns.cookie)
    }

    fn unsettled(&self) -> Vec<u64> {
        self.ends.iter().map(|end| end.netns.cookie).collect()
    }

    fn apply(&mut self) -> Result<()> {
        for at in 0..self.ends.len() {
            if let Err(error) = self.ends[at].take_place() {
                for end in self.ends[..=at].iter_mut().rev() {
                    let _ = end.step_back();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn revert(&mut self) -> Result<()> {
        self.ends.iter_mut().rev().map(SwapEnd::step_back).fold(Ok(()), Result::and)
    }
}

impl SwapEnd {
    fn take_place(&mut self) -> Result<()> {
        let netlink = Netlink::open(&self.netns.fd)?;
        if let Some(old) = self.old {
            let down = Change { up: Some(false), ..Change::default() };
            self.undo = Some(link::Undo::snapshot(&netlink, old, &down, true)?);
            link::set(&netlink, old, &down)?;
            link::rename(&netlink, old, &temporary(old))?;
        }
        link::rename(&netlink, self.new, &self.end.name)?;
        let addresses: Vec<address::Options> =
            self.end.addresses.iter().map(|a| address::Options::new(*a)).collect();
        address::add_many(&netlink, self.new, &addresses)?;
        link::set(&netlink, self.new, &Change { up: Some(self.end.up), ..Change::default() })
    }

    fn step_back(&mut self) -> Result<()> {
        let netlink = Netlink::open(&self.netns.fd)?;
        let down = Change { up: Some(false), ..Change::default() };
        link::set(&netlink, self.new, &down)?;
        for address in &self.end.addresses {
            let _ = address::delete(&netlink, self.new, *address);
        }
        link::rename(&netlink, self.new, &temporary(self.new))?;
        if let (Some(old), Some(mut undo)) = (self.old, self.undo.take()) {
            link::rename(&netlink, old, &self.end.name)?;
            undo.settle(&netlink)?;
            undo.restore(&netlink)?;
        }
        Ok(())
    }
}

fn settings(end: &End) -> Change {
    Change {
        mtu: end.mtu,
        mac: end.mac,
        master: end.master,
        alias: end.alias.clone(),
        txqueuelen: end.txqueuelen,
        group: end.group,
        addrgenmode: end.addrgenmode,
        promiscuous: None,
        up: Some(end.up),
    }
}
