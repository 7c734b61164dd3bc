//! Link names and MAC addresses: checked before the kernel is asked, because its answer is a bare EINVAL.

use crate::{Error, Result};

/// IFNAMSIZ without the terminating zero.
const LONGEST: usize = 15;

/// Refuses what `dev_valid_name` refuses, and `%`, which the kernel takes for a template.
///
/// # Errors
/// EINVAL saying what is wrong.
pub fn check_name(name: &str) -> Result<()> {
    if name.len() > LONGEST {
        let text = format!("a link name has at most {LONGEST} bytes, this has {}", name.len());
        let end = (0..=LONGEST).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        let error = Error::invalid("link", text).subject(name);
        return Err(error.hint(format!("shorten it, to {:?} perhaps", &name[..end])));
    }
    let wrong = if name.is_empty() {
        "a link needs a name".to_owned()
    } else if name == "." || name == ".." {
        "\".\" and \"..\" cannot name a link".to_owned()
    } else if let Some(bad) =
        name.chars().find(|c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control())
    {
        format!("a link name cannot contain {bad:?}")
    } else {
        return Ok(());
    };
    Err(Error::invalid("link", wrong).subject(name))
}

/// `02:00:00:00:00:01`
///
/// # Errors
/// EINVAL.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = parts
            .next()
            .filter(|part| (1..=2).contains(&part.len()) && !part.starts_with('+'))
            .and_then(|part| u8::from_str_radix(part, 16).ok())
            .ok_or_else(|| bad_mac(text))?;
    }
    if parts.next().is_some() { Err(bad_mac(text)) } else { Ok(mac) }
}

fn bad_mac(text: &str) -> Error {
    Error::invalid("link", "this is not a MAC address")
        .subject(text)
        .hint("write it as \"02:00:00:00:00:01\"")
}

/// A hardware address of any length, as `ip` prints it.
pub fn format_mac(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "eth0", "eth0.100", "fifteen-letters", "ü"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "eth%d", "sixteen-letters!", "a\0"] {
            assert!(check_name(bad).unwrap_err().is("EINVAL"), "{bad:?}");
        }
    }

    #[test]
    fn macs() {
        assert_eq!(parse_mac("02:0:aa:BB:00:1").unwrap(), [2, 0, 0xaa, 0xbb, 0, 1]);
        assert_eq!(format_mac(&[2, 0, 0xaa]), "02:00:aa");
        for bad in ["", "02:00", "02:00:00:00:00:00:00", "zz:00:00:00:00:00", "+2:0:0:0:0:0"] {
            assert!(parse_mac(bad).is_err(), "{bad:?}");
        }
    }
}
