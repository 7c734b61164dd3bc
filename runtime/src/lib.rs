//! cnfscript: Lua scripts that build Linux networks and steer their packets with eBPF.
//!
//! Layers, every arrow points down: `cli` (what a person types) -> `life` (generations) -> `api` (Lua values to Rust
//! values) -> `own` (what this instance owns and how to undo it) -> `program` (the host halves of the embedded eBPF
//! programs) -> `kernel` (netlink, netns, bpf(2), sysctl, sockets).

pub mod api;
pub mod cli;
pub mod error;
pub mod fault;
pub mod hearer;
pub mod kernel;
pub mod life;
mod nearest;
pub mod own;
pub mod packet;
pub mod program;
pub mod report;
pub mod stop;

pub use error::{Error, Result};
