//! eBPF objects, maps, programs and the hooks that run them. No Lua here.
//!
//! `object` makes programs and maps out of an ELF file, `map` reads and writes them, `btf` says what their bytes mean
//! (`decode`, `encode`), `records` takes what programs send,
//! `hook` puts programs on links, `inventory` lists what is loaded, `probe` tries what this kernel can do, `compile`
//! makes objects out of C. `sys` is bpf(2) itself; `elf` and `verifier` are `object`'s two hard parts.

pub mod beyond;
pub mod btf;
pub mod compile;
mod decode;
pub mod elf;
mod encode;
pub mod globals;
pub mod hook;
pub mod inventory;
pub mod map;
pub mod object;
pub mod pinned;
pub mod pins;
pub mod probe;
pub mod program;
pub mod records;
pub mod sys;
pub mod verifier;

pub use btf::{Type, Value};
pub use decode::{Build, Column};
pub use hook::{Attachment, Hook, Order, Target, attach};
pub use map::{Map, MapKind, MapSpec, Write};
pub use object::{LoadOptions, Object, ObjectFile};
pub use program::{Program, ProgramKind};

#[cfg(test)]
mod testing;
