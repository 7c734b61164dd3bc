//! The policy router: source-based policy routing in eBPF (`bpf/router.bpf.c`).
//!
//! `policy` is what a script says, `set` turns a set of policies into the bytes that packets read (`abi` their layout,
//! `table` their hash tables, `group` the hops' shares), `explain` evaluates the same policies plainly. `instance` owns the
//! kernel's objects, `turn` makes it into another in one step (`programs` on their hooks, `slots` the two sets, `counters`, `memory` for the process after this one), `hops` asks the kernel about next
//! hops, `links` and `monitor` follow its links.

mod abi;
mod counters;
mod explain;
mod group;
mod hops;
mod instance;
mod links;
mod memory;
mod monitor;
mod policy;
mod programs;
mod set;
mod shapes;
mod slots;
mod spec;
mod table;
mod turn;

pub use counters::Count;
pub use explain::{Explanation, Query};
pub use instance::{Router, match_the_same, no_such_policy};
pub use policy::{
    Action, DEFAULT_PRIORITY, Device, Family, Hop, Hops, Match, Policy, Prefix, protocol,
    protocol_name,
};
pub use spec::{Attach, Hook, Keeper, NoKeeper, PolicyStats, RouterSpec, Stats, Totals, Wanted};
pub use turn::{Taken, Turned};

#[cfg(test)]
mod tests;
