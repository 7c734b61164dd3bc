//! tun and tap devices: made through /dev/net/tun inside the namespace and left persistent (Documentation/networking/tuntap.rst).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::{NewLink, Value, check_name};
use crate::{Error, Result};

const DEVICE: &str = "/dev/net/tun";

/// Makes the device with that index; its other attributes are set as a change.
///
/// # Errors
/// EEXIST or EBUSY when the name is taken, ENOENT without /dev/net/tun.
pub fn create(link: &NewLink<'_>, index: u32) -> Result<()> {
    check_name(&link.end.name)?;
    let flags = flags(&link.values)?;
    link.netlink.netns().within(|| {
        // TUNSETIFF would attach to an existing persistent device instead of refusing.
        if super::info_by_name(link.netlink, &link.end.name).is_ok() {
            return Err(Error::errno("link", nix::errno::Errno::EEXIST).because(format!(
                "a link of that name exists already in {}",
                link.netlink.label()
            )));
        }
        open(&link.end.name, flags, index).map_err(|e| {
            let error = Error::io("link", &e);
            match e.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV) => error
                    .because(super::missing::lacking(link.kind))
                    .hint("tun devices need /dev/net/tun"),
                _ => error,
            }
        })
    })
}

fn flags(values: &[(String, Value)]) -> Result<i16> {
    let mut mode = libc::IFF_TUN;
    let mut flags = libc::IFF_NO_PI;
    for (word, value) in values {
        let on = matches!(value, Value::Bool(true));
        match (word.as_str(), value) {
            ("mode", Value::Text(text)) if text == "tun" => mode = libc::IFF_TUN,
            ("mode", Value::Text(text)) if text == "tap" => mode = libc::IFF_TAP,
            ("mode", _) => {
                return Err(Error::invalid("link", "mode is \"tun\" or \"tap\""));
            }
            ("packet_info", Value::Bool(_)) => flags = if on { 0 } else { libc::IFF_NO_PI },
            ("multi_queue" | "vnet_hdr", Value::Bool(_)) => {}
            _ => {
                let text = format!("a tun has no such option, or it takes true or false: {word:?}");
                return Err(Error::invalid("link", text));
            }
        }
    }
    let on = |name: &str| values.iter().any(|(w, v)| w == name && *v == Value::Bool(true));
    if on("multi_queue") {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if on("vnet_hdr") {
        flags |= libc::IFF_VNET_HDR;
    }
    Ok((mode | flags) as i16)
}

fn open(name: &str, flags: i16, index: u32) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(DEVICE)?;
    // SAFETY: ifreq is plain data for which zeros are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags;
    let fd = file.as_raw_fd();
    let check = |outcome: i32| {
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: fd is open; each request gets the argument that tun(4) names for it: a pointer to int, a pointer to ifreq, an int.
    unsafe {
        check(libc::ioctl(fd, libc::TUNSETIFINDEX, &raw const index))?;
        check(libc::ioctl(fd, libc::TUNSETIFF, &raw mut request))?;
        check(libc::ioctl(fd, libc::TUNSETPERSIST, 1))
    }
}
