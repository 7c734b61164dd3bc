//! What a load asks for by way of something that it takes away itself: a route through a link that it makes no more, by a
//! gateway whose subnet goes. The kernel would drop such a thing after the commit, and a first load would not get that far:
//! so it is refused while nothing has changed.
//!
//! Only what is certain is refused. Whatever else goes with a deletion is found after it (`put_back`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::{Deed, Said, Stage};
use crate::kernel::address;
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::named::Netns;
use crate::kernel::route::{self, RouteInfo};
use crate::own::owned::{LinkPlace, Owned};
use crate::{Error, Result};

const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
pub(super) const RTPROT_KERNEL: u8 = 2;

/// What a commit is about to take away, by what tells it, and how people call it.
#[derive(Default)]
pub(super) struct Going {
    netns: HashMap<u64, String>,
    pub(super) links: HashMap<LinkPlace, String>,
    pub(super) addresses: HashMap<(LinkPlace, IpNetwork), String>,
    /// Namespaces where something goes, or comes back, that cannot be foreseen.
    unclear: HashSet<u64>,
}

/// Something that is to be there after the commit.
struct Asked {
    number: u64,
    owned: Owned,
    said: Option<Said>,
}

impl Stage {
    /// Refuses a load that takes away what it needs itself. Asks the kernel only if something goes. The numbers of routes
    /// that will have to be put again: the kernel has found their gateways by a way that goes, and there is another.
    ///
    /// # Errors
    /// As the kernel would refuse it then: ENODEV for what is on a link or in a namespace that goes, ENETUNREACH and
    /// EHOSTUNREACH for a gateway (`fib_check_nh_v4_gw`, net/ipv4/fib_semantics.c; `ip6_route_check_nh`, net/ipv6/route.c),
    /// EINVAL for a source address; with the line that asks for it.
    pub fn check_ways(&self) -> Result<Vec<u64>> {
        let mut again = Vec::new();
        let going = self.going();
        if going.is_empty() {
            return Ok(again);
        }
        let asked = self.asked();
        asked.iter().try_for_each(|asked| going.check_place(asked))?;
        let mut routes: HashMap<u64, Vec<&Asked>> = HashMap::new();
        for one in &asked {
            if let Owned::Route { netns, .. } = &one.owned
                && going.is_told(netns.cookie)
            {
                routes.entry(netns.cookie).or_default().push(one);
            }
        }
        for routes in routes.into_values() {
            let Some(netns) = routes.first().and_then(|asked| asked.owned.netns()) else {
                continue;
            };
            let mut ways = Ways::now(netns, &going)?;
            asked.iter().for_each(|one| ways.add_asked(netns.cookie, &one.owned));
            for route in routes {
                if ways.check(route)? {
                    again.push(route.number);
                }
            }
        }
        Ok(again)
    }

    pub(super) fn going(&self) -> Going {
        let mut going = Going::default();
        let named = self.named.borrow();
        let unwanted = |number: u64, _: &Owned| self.is_older(number) && !named.contains(&number);
        let unwanted = self.ledger.entries(unwanted);
        for (_, owned) in &unwanted {
            let text = owned.to_string();
            match (owned, owned.link()) {
                (Owned::Netns(netns), _) => drop(going.netns.insert(netns.cookie, text)),
                (Owned::Link { .. }, Some(place)) => drop(going.links.insert(place, text)),
                (Owned::Address { address, .. }, Some(place)) => {
                    going.addresses.insert((place, *address), text);
                }
                _ => {}
            }
        }
        for (_, owned) in &unwanted {
            let on_going = owned.link().is_some_and(|place| going.links.contains_key(&place));
            if !on_going && brings_back(owned) {
                going.unclear.extend(owned.netns().map(|netns| netns.cookie));
            }
        }
        for action in &*self.actions.borrow() {
            match &action.deed {
                Deed::Put { new, old, .. } => {
                    let old = old.and_then(|old| self.ledger.get(old));
                    going.put(new, old.as_ref());
                }
                Deed::Other(staged) => {
                    going.unclear.extend(staged.unsettled());
                    going.unclear.extend(staged.shakes());
                }
            }
        }
        for handed in self.hand_overs().0 {
            going.addresses.remove(&(handed.place, handed.address));
        }
        for action in &*self.actions.borrow() {
            if let Deed::Put { new, .. } = &action.deed
                && let (Owned::DeletedAddress { address, .. }, Some(place)) = (&**new, new.link())
            {
                going.addresses.insert((place, *address), new.to_string());
            }
        }
        going
    }

    /// All that is to be there, as it is to be then.
    fn asked(&self) -> Vec<Asked> {
        let (named, said) = (self.named.borrow(), self.said.borrow());
        let actions = self.actions.borrow();
        let mut replaced = HashSet::new();
        let mut asked = Vec::new();
        for action in &*actions {
            if let Deed::Put { number, new, old } = &action.deed {
                replaced.extend(*old);
                let (number, owned) = (*number, (**new).clone());
                asked.push(Asked { number, owned, said: Some(action.said.clone()) });
            }
        }
        let stays = |number: u64, _: &Owned| {
            (!self.is_older(number) || named.contains(&number)) && !replaced.contains(&number)
        };
        let mut unsaid = Vec::new();
        for (number, owned) in self.ledger.entries(stays) {
            match said.get(&number) {
                Some(said) => asked.push(Asked { number, owned, said: Some(said.clone()) }),
                // Others that are not said one by one are adopted as a whole, with what is about to go.
                None if matches!(owned, Owned::Link { .. }) => {
                    unsaid.push(Asked { number, owned, said: None });
                }
                None => {}
            }
        }
        asked.extend(unsaid);
        asked
    }
}

impl Going {
    pub(super) fn is_empty(&self) -> bool {
        self.netns.is_empty() && self.links.is_empty() && self.addresses.is_empty()
    }

    /// Whether something goes in that namespace, and all of it is known.
    fn is_told(&self, cookie: u64) -> bool {
        let inside = self.links.keys().chain(self.addresses.keys().map(|(place, _)| place));
        !self.unclear.contains(&cookie) && inside.into_iter().any(|place| place.cookie == cookie)
    }

    /// What a change in place takes away.
    fn put(&mut self, new: &Owned, old: Option<&Owned>) {
        let Some(place) = new.link() else { return };
        match (new, old) {
            (Owned::DeletedAddress { address, .. }, _) => {
                self.addresses.insert((place, *address), new.to_string());
            }
            (Owned::Link { end, name, .. }, Some(Owned::Link { end: old, .. })) => {
                for address in old.addresses.iter().filter(|a| !end.addresses.contains(a)) {
                    let text = format!("address {address} of link {name}");
                    self.addresses.insert((place, *address), text);
                }
            }
            (Owned::LinkSetting { .. }, Some(old)) => {
                self.unclear.extend(brings_back(old).then_some(place.cookie));
            }
            _ => {}
        }
    }

    /// What is on a link, or in a namespace, goes with it.
    fn check_place(&self, asked: &Asked) -> Result<()> {
        let Asked { owned, .. } = asked;
        let Some(netns) = owned.netns() else { return Ok(()) };
        if let Some(text) = self.netns.get(&netns.cookie) {
            let error =
                Error::errno("", Errno::ENODEV).because("the namespace goes with this load");
            return Err(asked.refused(error.hint(not_made(text))));
        }
        // The link that takes the place of one that goes can be meant.
        if self.unclear.contains(&netns.cookie) {
            return Ok(());
        }
        let hops = match owned {
            Owned::Route { route, .. } => route.nexthops.as_slice(),
            _ => &[],
        };
        let hops = hops.iter().filter_map(|hop| hop.dev);
        let mut places = owned
            .link()
            .into_iter()
            .chain(hops.map(|index| LinkPlace { cookie: netns.cookie, index }));
        match places.find_map(|place| self.links.get(&place)) {
            Some(text) => {
                let error = Error::errno("", Errno::ENODEV).because("the link goes with this load");
                Err(asked.refused(error.hint(not_made(text))))
            }
            None => Ok(()),
        }
    }
}

/// Whether its undo puts back addresses or routes.
fn brings_back(owned: &Owned) -> bool {
    owned.lost().is_some_and(|lost| !lost.is_empty())
}

/// A gateway that no subnet need have.
fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn not_made(what: &str) -> String {
    format!("{what} was made by the load before, and the script does not make it any more")
}

impl Asked {
    fn refused(&self, error: Error) -> Error {
        let error = match &self.owned {
            Owned::Route { route, .. } => error.subject(route.subject()),
            _ => error,
        };
        match &self.said {
            Some(said) => said.tell(error),
            None => error.operation("reload"),
        }
        .about(self.owned.to_string())
    }
}

/// Where gateways can be: the subnets of a namespace.
struct Ways(Vec<Way>);

struct Way {
    subnet: Subnet,
    /// Of the link; None for any.
    dev: Option<u32>,
    /// An address of the box itself, if it is one's subnet.
    address: Option<IpAddr>,
    /// What takes it away.
    goes: Option<String>,
}

enum Subnet {
    Net(IpNetwork),
    /// A default route that names no gateway.
    All {
        ipv6: bool,
    },
}

impl Subnet {
    fn has(&self, ip: IpAddr) -> bool {
        match self {
            Subnet::Net(net) => net.contains(ip),
            Subnet::All { ipv6 } => *ipv6 == ip.is_ipv6(),
        }
    }
}

impl Ways {
    /// Those that there are, and what becomes of each.
    fn now(netns: &Netns, going: &Going) -> Result<Ways> {
        let netlink = Netlink::open(&netns.fd)?;
        let place = |index: u32| LinkPlace { cookie: netns.cookie, index };
        let mut ways = Vec::new();
        for there in address::list(&netlink, None)? {
            let at = place(there.index);
            let goes = going.links.get(&at).or_else(|| going.addresses.get(&(at, there.address)));
            let prefix = there.address.prefix();
            let peer = there.peer.and_then(|peer| IpNetwork::new(peer, prefix).ok());
            for net in std::iter::once(there.address).chain(peer) {
                ways.push(Way {
                    subnet: Subnet::Net(net),
                    dev: Some(there.index),
                    address: Some(there.address.ip()),
                    goes: goes.cloned(),
                });
            }
        }
        let all = route::Filter { table: Some(route::ALL_TABLES), ..route::Filter::default() };
        for route in route::list(&netlink, &all)? {
            let hops = route.nexthops.iter().map(|hop| (hop.via, hop.dev));
            for (via, dev) in hops.chain([(route.via, route.dev)]) {
                let (None, Some(dev)) = (via, dev) else { continue };
                if matches!(route.kind, RTN_UNICAST | RTN_LOCAL) {
                    let goes = going.links.get(&place(dev));
                    let goes = goes.or_else(|| going.with_address(place(dev), &route));
                    ways.push(Way::by(&route, dev, goes.cloned()));
                }
            }
        }
        Ok(Ways(ways))
    }

    /// Those that the load is about to make.
    fn add_asked(&mut self, cookie: u64, owned: &Owned) {
        if owned.netns().is_none_or(|netns| netns.cookie != cookie) {
            return;
        }
        let mut add = |subnet: Subnet, dev: Option<u32>, address: Option<IpAddr>| {
            self.0.push(Way { subnet, dev, address, goes: None });
        };
        match owned {
            Owned::Address { index, address, .. } => {
                add(Subnet::Net(*address), Some(*index), Some(address.ip()));
            }
            Owned::Link { index, end, .. } => {
                for address in &end.addresses {
                    add(Subnet::Net(*address), Some(*index), Some(address.ip()));
                }
            }
            Owned::Route { route, .. } if route.via.is_none() && route.dev.is_some() => {
                let all = Subnet::All { ipv6: route.family6 };
                add(route.dst.map_or(all, Subnet::Net), route.dev, None);
            }
            _ => {}
        }
    }

    /// Whether the kernel has to look for its gateways anew.
    fn check(&self, asked: &Asked) -> Result<bool> {
        let Owned::Route { route, .. } = &asked.owned else { return Ok(false) };
        let mut anew = false;
        let hops = route.nexthops.iter().map(|hop| (hop.via, hop.dev, hop.onlink));
        for (via, dev, onlink) in hops.chain([(route.via, route.dev, route.onlink)]) {
            let looked_for = |via: &IpAddr| !onlink && !is_link_local(via);
            let Some(via) = via.filter(looked_for) else { continue };
            let leads = |way: &&Way| {
                way.subnet.has(via) && (dev.is_none() || way.dev.is_none() || way.dev == dev)
            };
            anew |= self.goes_and_stays(asked, leads, || match via {
                IpAddr::V4(_) => {
                    Error::errno("", Errno::ENETUNREACH).extended_ack("Nexthop has invalid gateway")
                }
                IpAddr::V6(_) => Error::errno("", Errno::EHOSTUNREACH),
            })?;
        }
        // IPv6 routes lose their source address and stay.
        let Some(src) = route.src.filter(IpAddr::is_ipv4) else { return Ok(anew) };
        let is_own = |way: &&Way| match way.address {
            Some(address) => address == src,
            None => way.subnet.has(src),
        };
        let gone = || Error::errno("", Errno::EINVAL).extended_ack("Invalid prefsrc address");
        self.goes_and_stays(asked, is_own, gone)?;
        Ok(anew)
    }

    /// Whether of the ways that do one goes. It is refused when none stays.
    fn goes_and_stays(
        &self,
        asked: &Asked,
        does: impl Fn(&&Way) -> bool,
        why: impl FnOnce() -> Error,
    ) -> Result<bool> {
        let (mut gone, mut stays) = (None, false);
        for way in self.0.iter().filter(does) {
            match &way.goes {
                Some(text) => gone = gone.or(Some(text)),
                None => stays = true,
            }
        }
        match gone {
            Some(text) if !stays => Err(asked.refused(why().hint(not_made(text)))),
            gone => Ok(gone.is_some()),
        }
    }
}

impl Way {
    fn by(route: &RouteInfo, dev: u32, goes: Option<String>) -> Way {
        let subnet = route.dst.map_or(Subnet::All { ipv6: route.ipv6 }, Subnet::Net);
        Way { subnet, dev: Some(dev), address: None, goes }
    }
}

impl Going {
    /// The address that goes whose subnet, or whose own, this route of the kernel's is.
    pub(super) fn with_address(&self, place: LinkPlace, route: &RouteInfo) -> Option<&String> {
        let dst = route.dst.filter(|_| route.protocol == RTPROT_KERNEL)?;
        let with = |address: &IpNetwork| {
            address.ip() == dst.ip()
                || (address.network(), address.prefix()) == (dst.network(), dst.prefix())
        };
        let mut addresses = self.addresses.iter();
        addresses.find(|((at, address), _)| *at == place && with(address)).map(|(_, text)| text)
    }
}
