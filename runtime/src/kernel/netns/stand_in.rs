//! A throw-away copy of this machine's namespaces, for a rehearsal: the same names and links, none of them the real ones.
//!
//! The process gets a network and a mount namespace of its own; all that is made in them ends with it.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::NetnsFd;
use super::named::{self, DIRECTORY};
use crate::kernel::address;
use crate::kernel::link::{self, Change, End, LinkInfo, NewLink, kinds};
use crate::kernel::netlink::Netlink;
use crate::{Error, Result};

/// The namespaces as they were before [`enter`].
pub struct Originals {
    host: NetnsFd,
    named: Vec<(String, NetnsFd)>,
}

/// Leaves the machine's network and mounts for ones of its own. Before any thread is started and any namespace opened.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn enter() -> Result<Originals> {
    const OP: &str = "check";
    let own = "/proc/self/ns/net";
    let host = std::fs::File::open(own).map_err(|e| Error::io(OP, &e).subject(own))?;
    let host = NetnsFd::new(host.into());
    // Files of namespaces that somebody is just making are none yet.
    let named = named::list()?
        .into_iter()
        .filter_map(|name| named::open_file(&name).ok().map(|fd| (name, fd)))
        .collect();
    let failed = |what: &'static str| {
        move |e| {
            let error = Error::errno(OP, e).subject(what);
            match e {
                nix::errno::Errno::EPERM => error.hint("a rehearsal needs CAP_SYS_ADMIN: sudo"),
                _ => error,
            }
        }
    };
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(failed("namespaces of its own"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(failed("/"))?;
    if !Path::new(DIRECTORY).is_dir() {
        std::fs::create_dir(DIRECTORY).map_err(|e| Error::io(OP, &e).subject(DIRECTORY))?;
    }
    let fresh = |kind: &'static str, path: &'static str| {
        mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>).map_err(failed(path))
    };
    fresh("tmpfs", DIRECTORY)?;
    // The new namespace's own view; kernels without bpffs have nothing to hide.
    fresh("sysfs", "/sys")?;
    let _ = fresh("bpf", "/sys/fs/bpf");
    Ok(Originals { host, named })
}

impl Originals {
    /// Makes a stand-in of every namespace and every link but those for which `skips` is true, of the name of a namespace,
    /// empty for the host's, and that of a link, if it is about one. They are there until the result is dropped.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn copy(self, skips: &dyn Fn(&str, Option<&str>) -> bool) -> Result<Copies> {
        let host = Netlink::open(NetnsFd::host()?)?;
        link::set(&host, 1, &Change { up: Some(true), ..Change::default() })?;
        // The far ends of all stand-ins, in a namespace that has no name any more.
        let (far, far_netlink) = named::create("cnfscript-far-ends")?;
        far.delete()?;
        copy_links(&self.host, &host, &far_netlink, &|link| skips("", Some(link)))?;
        for (name, original) in self.named.iter().filter(|(name, _)| !skips(name, None)) {
            let (_, netlink) = named::create(name)?;
            copy_links(original, &netlink, &far_netlink, &|link| skips(name, Some(link)))?;
        }
        Ok(Copies { _far: far_netlink })
    }
}

/// The far ends of the stand-ins: a pair goes with either end.
pub struct Copies {
    _far: Netlink,
}

fn copy_links(
    original: &NetnsFd,
    netlink: &Netlink,
    far: &Netlink,
    skips: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let original = Netlink::open(original)?;
    let addresses = address::list(&original, None)?;
    let mut found = link::list(&original)?;
    // Bridges first: their ports name them.
    found.sort_by_key(|info| info.kind != "bridge");
    let kind = |name| kinds::find(name).expect("the table has it");
    let mut made: Vec<(u32, u32)> = Vec::new();
    found.retain(|info| info.name != "lo" && info.index != 1 && !skips(&info.name));
    for info in &found {
        let end = End {
            name: info.name.clone(),
            mtu: Some(info.mtu).filter(|mtu| (68..=65535).contains(mtu)),
            master: info.master.and_then(|master| {
                made.iter().find(|(old, _)| *old == master).map(|(_, new)| *new)
            }),
            addresses: addresses
                .iter()
                .filter(|a| a.index == info.index && a.permanent && a.scope != "link")
                .map(|a| a.address)
                .collect(),
            up: info.up,
            ..End::default()
        };
        let new = match info.kind.as_str() {
            "bridge" => NewLink::new(netlink, kind("bridge"), end),
            _ => {
                let peer = End { up: info.up, ..End::named(format!("f{}", link::next_index())) };
                NewLink { peer: Some((far, peer)), ..NewLink::new(netlink, kind("veth"), end) }
            }
        };
        made.push((info.index, stand_in(&new, info)?));
    }
    Ok(())
}

/// A device that every kernel has, such as a tunnel's fallback, is there already.
fn stand_in(new: &NewLink<'_>, info: &LinkInfo) -> Result<u32> {
    match link::create(new) {
        Ok(made) => Ok(made.index),
        Err(error) if error.is("EEXIST") => {
            link::info_by_name(new.netlink, &info.name).map(|there| there.index)
        }
        Err(error) => Err(error),
    }
}
