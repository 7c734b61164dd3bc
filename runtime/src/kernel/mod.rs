//! System calls: netlink, network namespaces, bpf(2), sysctl, sockets. No Lua here.

pub mod bpf;
pub mod netns;
