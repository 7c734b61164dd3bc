//! Namespaces with a name, kept exactly as `ip netns` keeps them: a file under /run/netns that a namespace is mounted on.
//!
//! What is made here any tool can enter, and the other way round (`ip/ipnetns.c` of iproute2).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{fstat, stat};
use nix::sys::statfs::{FsType, fstatfs};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{NetnsFd, ahead};
use crate::kernel::netlink::Netlink;
use crate::nearest::nearest;
use crate::{Error, Result, fault};

/// What to say to whoever uses a namespace that was deleted.
pub const GONE: &str = "by ns:delete() or `ip netns delete`; netns.exists(name) tells beforehand";

/// Where iproute2 keeps them (NETNS_RUN_DIR; /var/run is a link to /run).
pub const DIRECTORY: &str = "/run/netns";
/// NAME_MAX of every file system that /run is on.
const NAME_MAX: usize = 255;
/// `include/uapi/linux/magic.h`
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// A namespace under a name, held open: the kernel keeps it while this lives, even after its name is gone.
#[derive(Debug, Clone)]
pub struct Netns {
    pub name: String,
    pub fd: NetnsFd,
    /// `SO_NETNS_COOKIE`; the name is only a label.
    pub cookie: u64,
}

/// In a journal: the name and the cookie.
impl Serialize for Netns {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        (&self.name, self.cookie).serialize(serializer)
    }
}

/// Finds the namespace again; an error when it is gone, or another stands under its name.
impl<'de> Deserialize<'de> for Netns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (name, cookie) = <(String, u64)>::deserialize(deserializer)?;
        find(&name, cookie).map_err(serde::de::Error::custom)
    }
}

/// The namespace of that name, if it still has that cookie. The empty name is the host's.
///
/// # Errors
/// ENOENT when the name is gone, ENODEV when another namespace stands under it.
pub fn find(name: &str, cookie: u64) -> Result<Netns> {
    let found = match name {
        "" => {
            let fd = NetnsFd::host()?.clone();
            Netns { name: String::new(), cookie: fd.cookie()?, fd }
        }
        name => open(name)?,
    };
    if found.cookie == cookie {
        return Ok(found);
    }
    Err(Error::new("netns", "ENODEV", "another namespace stands under its name").subject(name))
}

/// A valid name: a file name that is not hidden from `ip netns list`.
///
/// # Errors
/// EINVAL saying what is wrong.
pub fn check_name(op: &'static str, name: &str) -> Result<()> {
    let wrong = if name.is_empty() {
        "a namespace needs a name".to_owned()
    } else if name.len() > NAME_MAX {
        format!("a namespace name has at most {NAME_MAX} bytes, this has {}", name.len())
    } else if name == "." || name == ".." {
        "\".\" and \"..\" cannot name a namespace".to_owned()
    } else if let Some(bad) = name.chars().find(|c| *c == '/' || *c == '\0') {
        format!("a namespace name cannot contain {bad:?}")
    } else {
        return Ok(());
    };
    Err(Error::invalid(op, wrong).subject(name))
}

/// Where the name lives.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Makes a namespace, visible to `ip netns`, loopback up, with the kernel's default settings ([`super::defaults`]),
/// and a netlink socket in it.
///
/// # Errors
/// EEXIST when the name is taken, EPERM without CAP_SYS_ADMIN, EINVAL for a bad name, ENOSPC at the namespace limit.
pub fn create(name: &str) -> Result<(Netns, Netlink)> {
    create_noting(name, &|_| Ok(()))
}

/// As [`create`], calling `note` before each step that leaves something: with 0 before the file is there, with the
/// namespace's cookie before it has its name.
///
/// # Errors
/// As [`create`], and what `note` returns.
pub fn create_noting(name: &str, note: &dyn Fn(u64) -> Result<()>) -> Result<(Netns, Netlink)> {
    const OP: &str = "netns.new";
    check_name(OP, name)?;
    let about = |e: Error| e.operation(OP).about(name);
    let lock = prepare_directory().map_err(about)?;
    let path = path(name);
    if path.symlink_metadata().is_err() {
        note(0)?;
    }
    // The file with no permissions is iproute2's mark of a namespace being made.
    let placeholder =
        File::options().read(true).write(true).create_new(true).mode(0o000).open(&path).map_err(
            |e| {
                let error = Error::io(OP, &e).subject(name);
                match e.raw_os_error() {
                    Some(libc::EEXIST) => error
                        .because("a namespace of that name exists already")
                        .hint(format!("use netns.get({name:?}) or choose another name")),
                    _ => error,
                }
            },
        )?;
    drop(placeholder);
    let made = make_at(&path, note);
    drop(lock);
    match made {
        Ok(netlink) => {
            let netlink = netlink.with_label(name);
            let netns = Netns {
                name: name.to_owned(),
                fd: netlink.netns().clone(),
                cookie: netlink.cookie(),
            };
            Ok((netns, netlink))
        }
        Err(error) => {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = std::fs::remove_file(&path);
            Err(about(error))
        }
    }
}

/// Gives a new namespace its name: mounts it on `path`.
fn make_at(path: &Path, note: &dyn Fn(u64) -> Result<()>) -> Result<Netlink> {
    let netlink = ahead::blank()?;
    note(netlink.cookie())?;
    fault::point();
    let own = format!("/proc/self/fd/{}", netlink.netns().as_fd().as_raw_fd());
    mount(Some(own.as_str()), path, Some("none"), MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| Error::errno("mount", e))?;
    fault::point();
    Ok(netlink)
}

/// Makes /run/netns a shared mount point, so that namespaces mounted there appear in other mount namespaces too, and
/// locks it against another `ip netns add` doing the same.
fn prepare_directory() -> Result<Flock<OwnedFd>> {
    let failed = |e: io::Error| Error::io("netns.new", &e).subject(DIRECTORY);
    match std::fs::DirBuilder::new().mode(0o755).create(DIRECTORY) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
        _ => {}
    }
    let directory: OwnedFd = File::open(DIRECTORY).map_err(failed)?.into();
    let lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, e)| Error::errno("netns.new", e).subject(DIRECTORY))?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(Some(""), DIRECTORY, Some("none"), flags, None::<&str>)
    };
    let bind = || {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(DIRECTORY), DIRECTORY, Some("none"), flags, None::<&str>)
    };
    // EINVAL: not a mount point yet.
    match share() {
        Err(Errno::EINVAL) => bind().and_then(|()| share()),
        other => other,
    }
    .map_err(|e| {
        let error = Error::errno("netns.new", e).subject(DIRECTORY);
        match e {
            Errno::EPERM => error.hint("making a network namespace needs CAP_SYS_ADMIN"),
            _ => error,
        }
    })?;
    Ok(lock)
}

/// Opens the namespace of that name.
///
/// # Errors
/// ENOENT when there is none, with the nearest name as hint.
pub fn open(name: &str) -> Result<Netns> {
    const OP: &str = "netns.get";
    check_name(OP, name)?;
    let fd = open_file(name).map_err(|e| {
        let error = Error::io(OP, &e).subject(name);
        match e.kind() {
            io::ErrorKind::NotFound => missing(error, name),
            _ => error,
        }
    })?;
    let cookie = fd.cookie().map_err(|e| e.operation(OP).about(name))?;
    Ok(Netns { name: name.to_owned(), fd, cookie })
}

fn missing(error: Error, name: &str) -> Error {
    let error = error.because("there is no namespace of that name");
    let names = list().unwrap_or_default();
    match nearest(name, &names) {
        Some(near) => error.hint(format!("did you mean {near:?}?")),
        None => error.hint("`ip netns list` shows what there is"),
    }
}

/// Refuses files that no namespace is mounted on.
pub(super) fn open_file(name: &str) -> io::Result<NetnsFd> {
    let file = File::open(path(name))?;
    if fstatfs(file.as_fd())?.filesystem_type() != NSFS_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(NetnsFd::new(file.into()))
}

/// Removes the file that [`create_noting`] made before a namespace was mounted on it; what anything is mounted on, and
/// any other file, is left.
pub fn delete_placeholder(name: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = path(name);
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    let ours = found.is_file() && found.len() == 0 && found.permissions().mode() & 0o7777 == 0;
    if ours && open_file(name).is_err() {
        std::fs::remove_file(&path).map_err(|e| Error::io("netns.delete", &e).subject(name))?;
    }
    Ok(())
}

/// The names of all namespaces, sorted.
pub fn list() -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("netns.list", &e).subject(DIRECTORY)),
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Whether a namespace of that name is there.
pub fn exists(name: &str) -> bool {
    check_name("netns.exists", name).is_ok() && open_file(name).is_ok()
}

/// Takes the name away; the namespace ends with its last user (process, socket, handle).
///
/// # Errors
/// ENOENT when there is none, EINVAL when the file under that name is no namespace: that is never deleted.
pub fn delete(name: &str) -> Result<()> {
    const OP: &str = "netns.delete";
    check_name(OP, name)?;
    if let Err(e) = open_file(name) {
        let error = Error::io(OP, &e).subject(name);
        return Err(match e.raw_os_error() {
            Some(libc::ENOENT) => missing(error, name),
            Some(libc::EINVAL) => error
                .because(format!("{} is not a network namespace", path(name).display()))
                .hint("it was left alone; remove the file yourself if nothing needs it"),
            _ => error,
        });
    }
    let path = path(name);
    umount2(&path, MntFlags::MNT_DETACH).map_err(|e| Error::errno(OP, e).subject(name))?;
    std::fs::remove_file(&path).map_err(|e| Error::io(OP, &e).subject(name))
}

/// The number under which the namespace of `here` knows `other` (`ip netns list-id`), as [`link_netnsid`] says it;
/// `None` when it has none, because no link leads there yet.
///
/// [`link_netnsid`]: crate::kernel::link::LinkInfo::link_netnsid
pub fn nsid(here: &Netlink, other: &NetnsFd) -> Result<Option<i32>> {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
    let mut request = NsidMessage::default();
    request.attributes.push(NsidAttribute::Fd(other.as_fd().as_raw_fd() as u32));
    let found = here
        .answer(RouteNetlinkMessage::GetNsId(request))
        .map_err(|e| e.into_error("netns.nsid"))?;
    let id = match found.parse() {
        Some(RouteNetlinkMessage::NewNsId(message)) => {
            message.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) => Some(*id),
                _ => None,
            })
        }
        _ => None,
    };
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    Ok(id.filter(|id| *id >= 0))
}

impl Netns {
    /// Whether the name still means this namespace.
    ///
    /// # Errors
    /// ENODEV when the name is gone or another namespace stands under it now.
    pub fn check(&self) -> Result<()> {
        let gone = |message: &str| {
            Err(Error::new("netns", "ENODEV", message).subject(self.name.as_str()).hint(GONE))
        };
        // Every operation on a namespace asks this: opening the file would take three times as long.
        match (stat(&path(&self.name)), fstat(&self.fd)) {
            (Ok(now), Ok(ours)) if now.st_dev != ours.st_dev => gone("the namespace was deleted"),
            (Ok(now), Ok(ours)) if now.st_ino == ours.st_ino => Ok(()),
            (Ok(_), Ok(_)) => gone("the namespace was deleted, and another made under its name"),
            _ => gone("the namespace was deleted"),
        }
    }

    /// Deletes the name, if it still means this namespace.
    pub fn delete(&self) -> Result<()> {
        self.check().map_err(|e| e.operation("netns.delete"))?;
        delete(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::link::tests::Scratch;
    use crate::kernel::netns::defaults;
    use crate::kernel::{link, sysctl};

    #[test]
    fn names() {
        for bad in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(create(bad).unwrap_err().is("EINVAL"), "{bad:?}");
            assert!(!exists(bad));
        }
        assert!(check_name("x", &"x".repeat(255)).is_ok());
    }

    #[test]
    fn made_found_and_deleted() {
        let scratch = Scratch::new("ns");
        let name = scratch.0.name.as_str();
        assert!(exists(name) && list().unwrap().iter().any(|n| n == name));
        let error = create(name).unwrap_err();
        assert!(error.is("EEXIST") && error.op() == "netns.new", "{error}");
        assert!(link::info(&scratch.1, 1).unwrap().up, "loopback");
        for (key, value) in [
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv4.conf.all.send_redirects", "1"),
            ("net.ipv6.conf.default.accept_dad", "0"),
        ] {
            assert_eq!(sysctl::read(&scratch.0.fd, key).unwrap(), value, "{key}");
        }
        let again = open(name).unwrap();
        assert_eq!(again.cookie, scratch.0.cookie);
        assert!(again.fd.same(&scratch.0.fd));
        assert!(!again.fd.same(NetnsFd::host().unwrap()));
        let near = open(&format!("{name}x")).unwrap_err();
        assert!(near.is("ENOENT") && near.get_hint().unwrap().contains(name), "{near}");
    }

    #[test]
    fn inherited_settings_are_set_right() {
        let scratch = Scratch::new("inherit");
        for key in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.arp_ignore"] {
            sysctl::write(&scratch.0.fd, key, "1").unwrap();
            scratch.0.fd.within(|| defaults::apply_here(&scratch.1, None)).unwrap();
            assert_eq!(sysctl::read(&scratch.0.fd, key).unwrap(), "0", "{key}");
        }
    }

    #[test]
    fn another_under_the_same_name_is_noticed() {
        let scratch = Scratch::new("swap");
        scratch.0.check().unwrap();
        delete(&scratch.0.name).unwrap();
        assert!(scratch.0.check().unwrap_err().is("ENODEV"));
        let (other, _) = create(&scratch.0.name).unwrap();
        let error = scratch.0.delete().unwrap_err();
        assert!(error.is("ENODEV") && error.to_string().contains("another"), "{error}");
        assert!(exists(&other.name));
        other.delete().unwrap();
    }

    #[test]
    fn a_file_that_is_no_namespace_is_never_deleted() {
        let scratch = Scratch::new("file");
        let name = format!("{}-plain", scratch.0.name);
        std::fs::write(path(&name), "mine").unwrap();
        let refused = delete(&name).unwrap_err();
        assert!(refused.is("EINVAL"), "{refused}");
        assert_eq!(std::fs::read_to_string(path(&name)).unwrap(), "mine");
        std::fs::remove_file(path(&name)).unwrap();
    }
}
