//! Which of the capabilities that networks and eBPF need this process has (`capabilities(7)`).

/// What is needed, by bit number: namespaces and mounts, links and hooks, programs and maps, ping.
const NEEDED: &[(&str, u32)] =
    &[("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39)];

/// The needed capabilities that are not in effect; none for root.
pub fn missing() -> Vec<&'static str> {
    needed().into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

/// Every needed capability, and whether it is in effect.
pub fn needed() -> Vec<(&'static str, bool)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // No /proc: the first refusal will tell.
    let effective = effective.unwrap_or(u64::MAX);
    NEEDED.iter().map(|(name, bit)| (*name, effective & (1 << bit) != 0)).collect()
}
