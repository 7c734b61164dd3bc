//! Objects: ELF bytes in, loaded programs and maps out.
//!
//! `aya_obj` parses and relocates; here are the maps made, globals set, BTF and programs loaded, so that existing maps can
//! be used again, only some programs loaded, and the kernel's BTF parsed once and only when needed.

mod by_name;
mod maps;
mod programs;
mod shapes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use aya_obj::btf::BtfFeatures;
use btf_rs::Btf;
use nix::errno::Errno;
pub use shapes::Shapes;

use super::btf::{Type, Value};
use super::elf::{self, InitialSlot, ProgramSection};
use super::map::{Map, MapSpec};
use super::program::Program;
use super::sys;
use crate::nearest::nearest;
use crate::{Error, Result};

/// What may be said about an object before it is loaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadOptions {
    /// What messages call it: a file name. Kernel names come from the source.
    pub name: String,
    /// Only these programs; all but the optional ones (`SEC("?tc")`) for `None`.
    pub programs: Option<BTreeSet<String>>,
    /// Existing maps to use in place of the object's own, by the object's names.
    pub maps: BTreeMap<String, Map>,
    /// Shapes of the inner maps of maps of maps, where the source does not say (`__array(values, ...)`).
    pub inner: BTreeMap<String, MapSpec>,
    pub max_entries: BTreeMap<String, u32>,
    /// The folder on a bpffs for maps that are declared to be pinned by name; without it they are not.
    pub pins: Option<PathBuf>,
    /// Maps that a new version of the object makes anew, whatever the one before had in them.
    pub fresh: BTreeSet<String>,
    /// A digest of what a script says with it: fresh maps stay too where a new version says the same.
    pub said: Option<[u8; 32]>,
    /// Global variables by name, `const volatile` ones too.
    pub globals: BTreeMap<String, Value>,
}

/// A global variable of an object.
#[derive(Debug, Clone)]
pub struct Global {
    pub name: String,
    pub kind: Type,
}

/// A parsed object, nothing loaded yet.
pub struct ObjectFile {
    parsed: aya_obj::Object,
    sections: Vec<ProgramSection>,
    initial: Vec<InitialSlot>,
    btf: Option<Arc<Btf>>,
}

/// A loaded object: dropping it lets go of programs and maps that nothing else holds.
#[derive(Debug, Clone)]
pub struct Object {
    pub name: String,
    pub programs: BTreeMap<String, Program>,
    pub maps: BTreeMap<String, Map>,
    /// Those of its maps that were pinned before it was loaded: others may use them.
    pub pinned: BTreeSet<String>,
    shapes: Shapes,
}

impl Object {
    /// [`ObjectFile::parse`] and [`ObjectFile::load`].
    pub fn load(bytes: &[u8], options: &LoadOptions) -> Result<Object> {
        Object::load_after(bytes, options, None).map(|(object, _)| object)
    }

    /// A new version of `old`, which goes on with those of its maps that have the same shape. Also why others are new:
    /// `map flows is new: value_size 8 -> 16`.
    ///
    /// # Errors
    /// As [`ObjectFile::load`]; `old` is not touched.
    pub fn load_after(
        bytes: &[u8],
        options: &LoadOptions,
        old: Option<&Object>,
    ) -> Result<(Object, Vec<String>)> {
        ObjectFile::parse(bytes).and_then(|file| file.load_after(options, old)).map_err(|e| {
            match options.name.as_str() {
                "" => e,
                name => e.about(name),
            }
        })
    }

    /// # Errors
    /// ENOENT, naming the nearest one.
    pub fn program(&self, name: &str) -> Result<&Program> {
        self.programs.get(name).ok_or_else(|| {
            absent("bpf.load", "program", name, self.programs.keys()).about(self.name.clone())
        })
    }

    /// # Errors
    /// ENOENT, naming the nearest one.
    pub fn map(&self, name: &str) -> Result<&Map> {
        self.maps.get(name).ok_or_else(|| {
            absent("bpf.load", "map", name, self.maps.keys()).about(self.name.clone())
        })
    }
}

/// An error for a name that the object does not have.
fn absent<'a>(
    op: &'static str,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a String>,
) -> Error {
    let names: Vec<&String> = known.collect();
    let error = Error::new(op, "ENOENT", format!("the object has no {what} \"{name}\""));
    match nearest(name, names.iter().copied()) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None if names.is_empty() => error,
        None => {
            let list: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
            error.hint(format!("it has: {}", list.join(", ")))
        }
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid("bpf.load", message)
}

/// An error of the parser with its causes, which it keeps apart.
fn parser_error(error: &dyn std::error::Error) -> Error {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        message.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    invalid(message)
}

/// Runs the parser, which indexes where a damaged object may have nothing.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(invalid("the object is damaged: the parser gave up on it")))
}

/// The running kernel's types, parsed once, when the first object with CO-RE relocations comes.
pub(super) fn kernel_btf() -> Result<&'static aya_obj::btf::Btf> {
    static BTF: OnceLock<Result<aya_obj::btf::Btf>> = OnceLock::new();
    BTF.get_or_init(|| {
        aya_obj::btf::Btf::from_sys_fs().map_err(|e| {
            Error::new("bpf.load", "ENOENT", format!("this kernel has no BTF: {e}"))
                .hint("CO-RE needs CONFIG_DEBUG_INFO_BTF and /sys/kernel/btf/vmlinux")
        })
    })
    .as_ref()
    .map_err(Clone::clone)
}

impl ObjectFile {
    /// Parses an eBPF object as clang and libbpf know it.
    ///
    /// # Errors
    /// EINVAL, saying what the file is instead, see [`elf::rewrite`].
    pub fn parse(bytes: &[u8]) -> Result<ObjectFile> {
        let rewritten = elf::rewrite(bytes)?;
        guarded(|| {
            let mut parsed =
                aya_obj::Object::parse(&rewritten.bytes).map_err(|e| parser_error(&e))?;
            if !rewritten.licensed {
                parsed.programs.values_mut().for_each(|p| p.license = CString::default());
            }
            // Every kernel this runs on (6.1 and later) takes all kinds of BTF; what is left to do is to fill in sizes
            // and offsets that clang leaves to the linker.
            let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
            let blob = parsed
                .fixup_and_sanitize_btf(&features)
                .map_err(|e| parser_error(&e))?
                .map(aya_obj::btf::Btf::to_bytes);
            let btf = blob.and_then(|b| Btf::from_bytes(&b).ok()).map(Arc::new);
            Ok(ObjectFile { parsed, sections: rewritten.sections, initial: rewritten.initial, btf })
        })
    }

    /// Names of the programs, with what their sections say.
    pub fn programs(&self) -> BTreeMap<&str, &ProgramSection> {
        let section = |index: usize| self.sections.iter().find(|s| s.index == index);
        self.parsed
            .programs
            .iter()
            .filter_map(|(name, p)| Some((name.as_str(), section(p.section_index)?)))
            .collect()
    }

    /// Names of the maps, those of global data (".rodata", ".bss") included.
    #[cfg(test)]
    pub fn maps(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.parsed.maps.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The global variables BTF knows.
    pub fn globals(&self) -> Vec<Global> {
        let Some(btf) = &self.btf else { return Vec::new() };
        let mut globals = Vec::new();
        for name in self.parsed.maps.keys().filter(|name| name.starts_with('.')) {
            let found = btf.resolve_types_by_name(name).unwrap_or_default();
            let section = found.into_iter().find_map(|kind| match kind {
                btf_rs::Type::Datasec(section) => Some(section),
                _ => None,
            });
            let Some(section) = section else { continue };
            for variable in &section.variables {
                let Some(id) = btf_rs::BtfType::get_type_id(variable) else { continue };
                let Ok(btf_rs::Type::Var(var)) = btf.resolve_type_by_id(id) else { continue };
                let Some(kind) = Type::from_btf(btf, id) else { continue };
                let variable = btf.resolve_name(&var).unwrap_or_default();
                globals.push(Global { name: variable, kind });
            }
        }
        globals
    }

    /// Makes the maps and loads the programs.
    ///
    /// # Errors
    /// EPERM without CAP_BPF and CAP_NET_ADMIN; ENOENT for names in `options` that the object does not have; the
    /// verifier's reason with its errno (EACCES, EINVAL, E2BIG ...).
    pub fn load(self, options: &LoadOptions) -> Result<Object> {
        self.load_after(options, None).map(|(object, _)| object)
    }

    /// As [`Object::load_after`].
    ///
    /// # Errors
    /// As [`ObjectFile::load`].
    pub fn load_after(
        mut self,
        options: &LoadOptions,
        old: Option<&Object>,
    ) -> Result<(Object, Vec<String>)> {
        super::probe::raise_memlock();
        self.check_names(options)?;
        self.set_globals(options)?;
        let shapes = self.shapes(options);
        let kept = old.map(|old| shapes.kept_of(old, &options.fresh)).unwrap_or_default();
        let mut options = options.clone();
        let (pins, opened) = (self.pins(&options), self.open_pins(&options)?);
        let pinned = opened.keys().cloned().collect();
        options.maps.extend(kept.maps);
        options.maps.extend(opened);
        let mut object = self.put_together(&options, shapes)?;
        object.pinned = pinned;
        object.pin_by_name(&pins)?;
        Ok((object, kept.differences))
    }

    /// Everything of an object whose names and globals are settled.
    fn put_together(mut self, options: &LoadOptions, shapes: Shapes) -> Result<Object> {
        let btf_fd = self.load_btf()?;
        if self.parsed.has_btf_relocations() {
            let target = kernel_btf()?;
            guarded(|| self.parsed.relocate_btf(target).map_err(|e| parser_error(&e)))?;
        }
        let maps = self.make_maps(options, btf_fd.as_ref())?;
        guarded(|| self.relocate(&maps))?;
        let programs = self.load_programs(options, btf_fd.as_ref())?;
        self.fill_slots(options, &maps, &programs)?;
        Ok(Object { name: options.name.clone(), programs, maps, pinned: BTreeSet::new(), shapes })
    }

    fn check_names(&self, options: &LoadOptions) -> Result<()> {
        let maps = &self.parsed.maps;
        let named =
            options.maps.keys().chain(options.inner.keys()).chain(options.max_entries.keys());
        let named = named.chain(&options.fresh);
        for name in named {
            if !maps.contains_key(name) {
                return Err(absent("bpf.load", "map", name, maps.keys()));
            }
        }
        for name in options.programs.iter().flatten() {
            if !self.parsed.programs.contains_key(name) {
                return Err(absent("bpf.load", "program", name, self.parsed.programs.keys()));
            }
        }
        Ok(())
    }

    fn set_globals(&mut self, options: &LoadOptions) -> Result<()> {
        if options.globals.is_empty() {
            return Ok(());
        }
        let known: BTreeMap<String, Type> =
            self.globals().into_iter().map(|g| (g.name, g.kind)).collect();
        let mut encoded: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for (name, value) in &options.globals {
            let bytes = match (known.get(name), value) {
                (Some(kind), value) => kind.encode(value).map_err(|e| {
                    let message = format!("global \"{name}\": {}", e.message());
                    e.operation("bpf.load").because(message)
                })?,
                (None, Value::Bytes(bytes)) if known.is_empty() => bytes.clone(),
                (None, _) => return Err(absent("bpf.load", "global variable", name, known.keys())),
            };
            encoded.insert(name, bytes);
        }
        let patches: HashMap<&str, (&[u8], bool)> =
            encoded.iter().map(|(name, bytes)| (*name, (bytes.as_slice(), true))).collect();
        guarded(|| self.parsed.patch_map_data(patches).map_err(|e| parser_error(&e)))
    }

    /// The object's types, loaded into the kernel; without them programs still run, maps just show no types.
    fn load_btf(&self) -> Result<Option<Arc<OwnedFd>>> {
        let Some(btf) = &self.parsed.btf else { return Ok(None) };
        match sys::btf_load(&btf.to_bytes(), None) {
            Ok(fd) => Ok(Some(Arc::new(fd))),
            Err(Errno::EPERM) => Err(super::program::refusal("bpf.load", Errno::EPERM)),
            Err(errno) => {
                tracing::debug!(%errno, "the kernel does not take the object's BTF");
                Ok(None)
            }
        }
    }

    /// Puts map descriptors and call targets into the instructions.
    fn relocate(&mut self, maps: &BTreeMap<String, Map>) -> Result<()> {
        let declared = std::mem::take(&mut self.parsed.maps);
        let pairs = declared
            .iter()
            .filter_map(|(name, d)| Some((name.as_str(), maps.get(name)?.as_fd().as_raw_fd(), d)));
        let text: HashSet<usize> =
            self.parsed.functions.keys().map(|(section, _)| *section).collect();
        self.parsed.relocate_maps(pairs, &text).map_err(|e| parser_error(&e))?;
        self.parsed.relocate_calls(&text).map_err(|e| parser_error(&e))
    }
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;
