//! Global variables of a loaded object: places in the maps of its data sections (`.data`, `.bss`, `.rodata`).
//!
//! Written in place, through memory that the programs share: a program that changes the next variable at the same moment
//! loses nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::btf::{Field, Shape, Type, Value};
use super::map::{Map, Mapped};
use crate::{Error, Result};

/// A variable and where it lies.
#[derive(Debug, Clone)]
pub struct Variable {
    name: String,
    section: Map,
    /// Whether it was fixed when the programs were verified.
    constant: bool,
    /// Bytes from the start of the section.
    offset: usize,
    kind: Type,
}

/// The variables of an object that BTF knows, by name. One of several sections: the first by the section's name.
pub fn variables(maps: &BTreeMap<String, Map>) -> BTreeMap<String, Variable> {
    let mut found = BTreeMap::new();
    for (section_name, section) in maps.iter().filter(|(name, _)| name.starts_with('.')) {
        let Shape::Struct { fields, .. } = &section.value_type().shape else { continue };
        for Field { name, bit_offset, kind, .. } in fields {
            let variable = Variable {
                name: name.clone(),
                section: section.clone(),
                constant: section_name.starts_with(".rodata"),
                offset: bit_offset / 8,
                kind: kind.clone(),
            };
            found.entry(name.clone()).or_insert(variable);
        }
    }
    found
}

impl Variable {
    pub fn kind(&self) -> &Type {
        &self.kind
    }

    /// Its bytes now.
    ///
    /// # Errors
    /// EPERM without CAP_BPF; EINVAL when the section is shorter than its types say.
    pub fn read(&self) -> Result<Vec<u8>> {
        let about = |e: Error| e.operation("object.globals").subject(self.name.clone());
        let whole = self.section.lookup(&0u32.to_ne_bytes()).map_err(about)?.unwrap_or_default();
        match whole.get(self.offset..self.offset + self.kind.size()) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(about(Error::invalid("", "it lies beyond its section"))),
        }
    }

    /// Its bytes for a value.
    ///
    /// # Errors
    /// EPERM for a constant; EINVAL and ERANGE for a value that is not of its type.
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>> {
        let about = |e: Error| e.operation("object.globals").subject(self.name.clone());
        if self.constant {
            return Err(about(Error::new(
                "",
                "EPERM",
                "a constant is fixed when programs are loaded",
            ))
            .hint("set it before: bpf.load(path, {globals = {name = value}})"));
        }
        self.kind.encode(value).map_err(about)
    }

    /// Writes its bytes; numbers of 1, 2, 4 and 8 bytes in one step.
    ///
    /// # Errors
    /// EPERM without CAP_BPF.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let memory = self.section.mmap();
        let memory =
            memory.map_err(|e| e.operation("object.globals").subject(self.name.clone()))?;
        put(&memory, self.offset, bytes);
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The map it lies in.
    pub fn section(&self) -> &Map {
        &self.section
    }
}

/// Copies into shared memory in the largest steps that the place allows.
fn put(memory: &Mapped, mut offset: usize, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let step =
            [8, 4, 2, 1].into_iter().find(|n| offset.is_multiple_of(*n) && bytes.len() >= *n);
        let step = step.unwrap_or(1);
        let (now, rest) = bytes.split_at(step);
        match now {
            [a] => memory.u8_at(offset).store(*a, Ordering::Relaxed),
            [a, b] => memory.u16_at(offset).store(u16::from_ne_bytes([*a, *b]), Ordering::Relaxed),
            [a, b, c, d] => {
                memory
                    .u32_at(offset)
                    .store(u32::from_ne_bytes([*a, *b, *c, *d]), Ordering::Relaxed);
            }
            word => {
                let word = word.try_into().map_or(0, u64::from_ne_bytes);
                memory.u64_at(offset).store(word, Ordering::Relaxed);
            }
        }
        (offset, bytes) = (offset + step, rest);
    }
}
