//! The load balancer's host half (`bpf/lb.bpf.c`): what Lua would be slow at. `maglev` computes the table that shares
//! connections among backends, `flows` reads those that exist. All else is lua-stdlib/lb.lua.

mod flows;
mod maglev;

pub use flows::{Alive, established, of_backend};
pub use maglev::{Member, table};
