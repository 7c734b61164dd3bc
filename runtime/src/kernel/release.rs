//! Which kernel this is, for the reasons that messages give: version numbers help a person, they decide nothing.

/// "6.1.0-28-cloud-amd64", as `uname -r` prints it.
pub fn name() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_else(|_| "an unknown version".to_owned())
}

/// Major and minor number; `None` for a release that does not start with them.
pub fn version() -> Option<(u32, u32)> {
    parse(&name())
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse("6.1.0-28-cloud-amd64"), Some((6, 1)));
        assert_eq!(parse("6.18"), Some((6, 18)));
        assert_eq!(parse("odd"), None);
    }
}
