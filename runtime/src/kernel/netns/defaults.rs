//! What a new namespace starts with: loopback up, the kernel's own IPv4 settings, IPv6 addresses usable at once.
//!
//! A new namespace copies its IPv4 settings from the first one (`devinet_init_net`), so a host with `rp_filter` 1 makes every
//! namespace drop asymmetric traffic. IPv6 settings start fresh, but each new address waits a second for duplicate address
//! detection.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::kernel::netlink::Netlink;
use crate::{Error, Result};

/// Loopback's index in every namespace.
const LOOPBACK: u32 = 1;

const IPV4_CONF: &str = "/proc/sys/net/ipv4/conf";

/// Keys of its `all` and `default` with the kernel's own values (`ipv4_devconf`, `ipv4_devconf_dflt` in
/// net/ipv4/devinet.c). Where those two differ, the second number is that of `default`.
const IPV4: &[(&str, u8, u8)] = &[
    ("forwarding", 0, 0),
    ("rp_filter", 0, 0),
    ("accept_redirects", 1, 1),
    ("send_redirects", 1, 1),
    ("secure_redirects", 1, 1),
    ("shared_media", 1, 1),
    ("accept_source_route", 0, 1),
    ("accept_local", 0, 0),
    ("route_localnet", 0, 0),
    ("src_valid_mark", 0, 0),
    ("proxy_arp", 0, 0),
    ("arp_ignore", 0, 0),
    ("arp_announce", 0, 0),
    ("arp_filter", 0, 0),
    ("log_martians", 0, 0),
    ("promote_secondaries", 0, 0),
    ("ignore_routes_with_linkdown", 0, 0),
];

/// The first namespace's settings, held open: new namespaces copy them, so what is right there needs no look here.
///
/// Opening a file of a fresh namespace costs 16 us, reading an open one 1: that is half the time a namespace takes.
pub struct Origin {
    settings: Vec<Setting>,
}

struct Setting {
    directory: &'static str,
    key: &'static str,
    wanted: u8,
    file: File,
}

impl Origin {
    /// For a thread in the host's namespace; `None` when that is not the first one (a container), where nothing is known.
    pub fn get() -> Option<&'static Origin> {
        static ORIGIN: OnceLock<Option<Origin>> = OnceLock::new();
        ORIGIN.get_or_init(Origin::open).as_ref()
    }

    fn open() -> Option<Origin> {
        // A setting of the whole machine, which only the first namespace shows (`net_core_table`).
        if !std::path::Path::new("/proc/sys/net/core/netdev_budget").exists() {
            return None;
        }
        let mut settings = Vec::new();
        for (directory, key, wanted) in ipv4() {
            let path = format!("{IPV4_CONF}/{directory}/{key}");
            // What this kernel lacks needs no setting.
            if let Ok(file) = File::open(path) {
                settings.push(Setting { directory, key, wanted, file });
            }
        }
        Some(Origin { settings })
    }

    /// The settings that a namespace made now has copied and should not have.
    fn wrong(&self) -> impl Iterator<Item = (&'static str, &'static str, u8)> {
        self.settings
            .iter()
            .filter(|setting| read(&setting.file).ok() != Some(setting.wanted))
            .map(|setting| (setting.directory, setting.key, setting.wanted))
    }
}

fn ipv4() -> impl Iterator<Item = (&'static str, &'static str, u8)> {
    IPV4.iter().flat_map(|(key, all, default)| [("all", *key, *all), ("default", *key, *default)])
}

/// Sets up the namespace that the calling thread is in and `netlink` works in.
///
/// # Errors
/// EROFS where /proc/sys is read-only (a container without it writable), and what the kernel refuses.
pub fn apply_here(netlink: &Netlink, origin: Option<&Origin>) -> Result<()> {
    let wrong: Vec<_> = match origin {
        Some(origin) => origin.wrong().collect(),
        None => ipv4().collect(),
    };
    for (directory, key, wanted) in wrong {
        settle(&open_directory(&format!("{IPV4_CONF}/{directory}"))?, key, wanted)?;
    }
    // Duplicate address detection is off only when both say so (addrconf_dad_begin). No IPv6 in this kernel: fine.
    for directory in ["all", "default"] {
        if let Ok(conf) = open_directory(&format!("/proc/sys/net/ipv6/conf/{directory}")) {
            settle(&conf, "accept_dad", 0)?;
        }
    }
    loopback_up(netlink)
}

fn open_directory(path: &str) -> Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| Error::errno("netns.new", e).subject(path))
}

/// Writes only what differs: writing `forwarding` walks every device, even when nothing changes.
fn settle(conf: &OwnedFd, key: &'static str, wanted: u8) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("netns.new", &e).subject(key);
    let open = |how| openat(conf, key, how | OFlag::O_CLOEXEC, Mode::empty()).map(File::from);
    let Ok(file) = open(OFlag::O_RDWR) else {
        // Absent in this kernel, or read-only: no harm if it has the value that is wanted.
        let Ok(file) = open(OFlag::O_RDONLY) else { return Ok(()) };
        return match read(&file).map_err(failed)? {
            value if value == wanted => Ok(()),
            _ => Err(Error::new("netns.new", "EROFS", "/proc/sys is read-only").subject(key)),
        };
    };
    if read(&file).map_err(failed)? == wanted {
        return Ok(());
    }
    // At offset 0: elsewhere the kernel ignores it (sysctl_writes_strict).
    file.write_all_at(format!("{wanted}\n").as_bytes(), 0).map_err(failed)
}

fn read(file: &File) -> std::io::Result<u8> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..length]);
    // A value beyond a byte differs from every wanted one.
    Ok(text.trim().parse().unwrap_or(u8::MAX))
}

fn loopback_up(netlink: &Netlink) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = LOOPBACK;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    netlink
        .request(RouteNetlinkMessage::SetLink(message), 0)
        .map_err(|e| e.into_error("netns.new").about("lo"))
}
