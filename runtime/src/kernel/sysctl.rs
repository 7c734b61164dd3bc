//! Kernel settings of a namespace, under /proc/sys (`proc_sys(5)`): `net.ipv4.ip_forward`.
//!
//! The network part of /proc/sys follows the namespace of the thread that opens a file, so both ways go through `within`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::kernel::netns::{NetnsFd, ahead};
use crate::nearest::nearest;
use crate::{Error, Result, fault};

const ROOT: &str = "/proc/sys";

/// The value of `key` inside `netns`, without the final newline.
///
/// `key` is written with dots, or with slashes when a part has dots itself: `net/ipv4/conf/eth0.100/rp_filter`.
///
/// # Errors
/// ENOENT with the nearest key as hint, EACCES for a key that is only written.
pub fn read(netns: &NetnsFd, key: &str) -> Result<String> {
    let path = path(key)?;
    netns.within(|| read_here(&path).map_err(|e| explain(&e, key, &path, None)))
}

/// Sets `key` inside `netns`; returns the value it had.
///
/// # Errors
/// As [`read`], and EACCES or EROFS for what is read-only, EINVAL for what the kernel does not take.
pub fn write(netns: &NetnsFd, key: &str, value: &str) -> Result<String> {
    let path = path(key)?;
    netns.within(|| {
        let failed = |e: io::Error| explain(&e, key, &path, Some(value));
        // A key that can only be written has no old value.
        let old = match read_here(&path) {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => String::new(),
            other => other.map_err(failed)?,
        };
        // One write: each is a value of its own to the kernel.
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).map_err(failed)?;
        fault::point();
        io::Write::write_all(&mut file, format!("{value}\n").as_bytes()).map_err(failed)?;
        fault::point();
        if NetnsFd::host().is_ok_and(|host| host.same(netns)) {
            ahead::forget();
        }
        Ok(old)
    })
}

/// The settings that writing `key` rewrites along with it, and their values inside `netns` now: `ip_forward` and `all` set
/// every device's own (`inet_forward_change`, `addrconf_fixup_forwarding`, `addrconf_disable_ipv6`), IPv4's `default` those
/// that nobody has set (`devinet_copy_dflt_conf`). `default` itself comes first, since writing it back sets others.
pub fn followers(netns: &NetnsFd, key: &str) -> Result<Vec<(String, String)>> {
    let words: Vec<&str> = key.split(['.', '/']).filter(|word| !word.is_empty()).collect();
    let (family, name) = match words.as_slice() {
        ["net", "ipv4", "ip_forward"] | ["net", "ipv4", "conf", "all", "forwarding"] => {
            ("ipv4", "forwarding")
        }
        ["net", "ipv6", "conf", "all", name @ ("forwarding" | "disable_ipv6")] => ("ipv6", *name),
        ["net", "ipv4", "conf", "default", name] => ("ipv4", *name),
        _ => return Ok(Vec::new()),
    };
    let of_default = words.contains(&"default");
    netns.within(|| {
        let mut found = Vec::new();
        let mut add = |key: String| {
            found.extend(read_here(&Path::new(ROOT).join(&key)).ok().map(|value| (key, value)));
        };
        if !of_default {
            add(format!("net/{family}/conf/default/{name}"));
            if family == "ipv4" {
                add("net/ipv4/conf/all/accept_redirects".to_owned());
            }
        }
        for device in names_in(Path::new(&format!("{ROOT}/net/{family}/conf"))) {
            if device != "all" && device != "default" {
                add(format!("net/{family}/conf/{device}/{name}"));
            }
        }
        Ok(found)
    })
}

/// All settings of one link for `family`, with their values: those that can be written and read.
pub fn of_link(netns: &NetnsFd, family: &str, link: &str) -> Result<Vec<(String, String)>> {
    netns.within(|| {
        let mut found = Vec::new();
        for group in ["conf", "neigh"] {
            let group = format!("net/{family}/{group}/{link}");
            for name in names_in(&Path::new(ROOT).join(&group)) {
                let key = format!("{group}/{name}");
                let path = Path::new(ROOT).join(&key);
                let writable = path.metadata().is_ok_and(|m| !m.permissions().readonly());
                if let (true, Ok(value)) = (writable, read_here(&path)) {
                    found.push((key, value));
                }
            }
        }
        Ok(found)
    })
}

fn read_here(path: &Path) -> io::Result<String> {
    let mut text = std::fs::read_to_string(path)?;
    text.truncate(text.trim_end_matches('\n').len());
    Ok(text)
}

fn path(key: &str) -> Result<PathBuf> {
    let relative = if key.contains('/') {
        key.trim_start_matches("/proc/sys/").trim_start_matches('/').to_owned()
    } else {
        key.replace('.', "/")
    };
    let bad = relative.is_empty()
        || relative.contains('\0')
        || relative.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    if bad {
        return Err(Error::invalid("sysctl", "this is not the name of a setting")
            .subject(key)
            .hint("write it as \"net.ipv4.ip_forward\""));
    }
    Ok(Path::new(ROOT).join(relative))
}

fn explain(error: &io::Error, key: &str, path: &Path, value: Option<&str>) -> Error {
    let subject = match value {
        Some(value) => format!("{key} = {value}"),
        None => key.to_owned(),
    };
    let explained = Error::io("sysctl", error).subject(subject);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => {
            let explained = explained.because("there is no such setting in this namespace");
            let near = near(path).or_else(|| with_its_group(key));
            match near {
                Some(near) => explained.hint(format!("did you mean {near:?}?")),
                None => explained,
            }
        }
        Some(libc::EISDIR) => explained.because("this is a group of settings, not one"),
        Some(libc::EACCES | libc::EPERM) if value.is_some() => explained
            .because("this setting is read-only here")
            .hint("some settings exist only in the first namespace, or need CAP_SYS_ADMIN"),
        Some(libc::EROFS) => explained.because("/proc/sys is mounted read-only"),
        Some(libc::EINVAL | libc::ERANGE) => {
            explained.because("the kernel does not take this value")
        }
        _ => explained,
    }
}

/// The known key nearest to the first part of `path` that does not exist.
fn near(path: &Path) -> Option<String> {
    let missing = path.ancestors().take_while(|p| !p.exists()).last()?;
    let wanted = missing.file_name()?.to_str()?;
    let names = names_in(missing.parent()?);
    let near = nearest(wanted, &names)?;
    let tail = path.strip_prefix(missing).ok()?;
    Some(key_of(&missing.with_file_name(near).join(tail)))
}

/// The key that ends as `key` does, which leaves out the groups that it is in: "ip_forward", "ipv4.ip_forward".
fn with_its_group(key: &str) -> Option<String> {
    const GROUPS: &[&str] =
        &["net", "net/ipv4", "net/ipv6", "net/core", "net/ipv4/conf/all", "net/ipv6/conf/all"];
    let tail = key.replace('.', "/");
    GROUPS
        .iter()
        .map(|group| Path::new(ROOT).join(group).join(&tail))
        .find(|path| path.is_file())
        .map(|path| key_of(&path))
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// As scripts write it: with dots, unless a part has some itself.
fn key_of(path: &Path) -> String {
    let key = path.strip_prefix(ROOT).unwrap_or(path).display().to_string();
    let key = key.trim_end_matches('/');
    if key.contains('.') { key.to_owned() } else { key.replace('/', ".") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_paths() {
        assert_eq!(
            path("net.ipv4.ip_forward").unwrap(),
            Path::new("/proc/sys/net/ipv4/ip_forward")
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.7/rp_filter").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/eth0.7/rp_filter")
        );
        for bad in ["", ".", "net..ipv4", "net/../../etc/passwd", "/"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn settings_of_a_namespace() {
        let scratch = crate::kernel::link::tests::Scratch::new("sysctl");
        let netns = &scratch.0.fd;
        assert_eq!(write(netns, "net.ipv4.ip_forward", "1").unwrap(), "0");
        assert_eq!(read(netns, "net/ipv4/ip_forward").unwrap(), "1");
        let error = read(netns, "net.ipv4.ip_forwad").unwrap_err();
        assert!(error.is("ENOENT"), "{error}");
        assert_eq!(error.get_hint(), Some("did you mean \"net.ipv4.ip_forward\"?"));
        for short in ["ip_forward", "ipv4.ip_forward"] {
            let error = read(netns, short).unwrap_err();
            assert_eq!(error.get_hint(), Some("did you mean \"net.ipv4.ip_forward\"?"), "{short}");
        }
        assert_eq!(read(netns, "net.ipv4.nothing_like_it").unwrap_err().get_hint(), None);
        let error = write(netns, "net.ipv4.ip_forward", "maybe").unwrap_err();
        assert!(error.is("EINVAL"), "{error}");
        assert!(read(netns, "net.ipv4").unwrap_err().is("EISDIR"));
        let followers = followers(netns, "net.ipv4.ip_forward").unwrap();
        let lo = ("net/ipv4/conf/lo/forwarding".to_owned(), "1".to_owned());
        assert!(followers.contains(&lo), "{followers:?}");
    }
}
