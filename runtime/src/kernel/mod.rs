//! System calls: netlink, network namespaces, bpf(2), sysctl, sockets. No Lua here.

pub mod address;
pub mod bpf;
pub mod capability;
pub mod features;
pub mod link;
pub mod neigh;
pub mod netlink;
pub mod netns;
pub mod notify;
pub mod process;
pub mod processes;
pub mod qdisc;
pub mod release;
pub mod route;
pub mod rule;
pub mod slice;
pub mod socket;
pub mod sysctl;
