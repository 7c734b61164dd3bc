//! The host halves of the embedded eBPF programs: they turn what a script says into map contents.

pub mod hash;
pub mod lb;
pub mod router;

/// What build.rs compiled from `bpf/*.bpf.c`, by name.
const OBJECTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The object of an embedded program: the ELF bytes of `bpf/NAME.bpf.c`.
pub fn embedded(name: &str) -> Option<&'static [u8]> {
    OBJECTS.iter().find(|(object, _)| *object == name).map(|(_, bytes)| *bytes)
}

/// The embedded programs.
pub fn names() -> Vec<&'static str> {
    OBJECTS.iter().map(|(name, _)| *name).collect()
}
