//! The maps of an object: their shapes, types and first contents.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya_obj::EbpfSectionKind;
use aya_obj::btf::BtfKind;

use super::{LoadOptions, ObjectFile, invalid};
use crate::Result;
use crate::kernel::bpf::map::{Map, MapKind, MapSpec, MapTypes, Write};
use crate::kernel::bpf::{Program, Type, elf, probe, sys};

impl ObjectFile {
    pub(super) fn make_maps(
        &mut self,
        options: &LoadOptions,
        btf_fd: Option<&Arc<OwnedFd>>,
    ) -> Result<BTreeMap<String, Map>> {
        let mut made = BTreeMap::new();
        for (name, declared) in &self.parsed.maps {
            let data = is_data(declared);
            if data && declared.value_size() == 0 {
                continue;
            }
            let spec = self.map_spec(name, declared, options);
            let types = self.map_types(name, declared, btf_fd);
            if let Some(types) = &types {
                sizes_agree(&spec, types)?;
            }
            let map = match options.maps.get(name) {
                Some(existing) => reuse(&spec, existing)?,
                None => {
                    Map::create_typed(&spec, types.as_ref()).map_err(|e| e.operation("bpf.load"))?
                }
            };
            if data && !options.maps.contains_key(name) {
                fill(&map, declared)?;
            }
            made.insert(name.clone(), map);
        }
        Ok(made)
    }

    pub(super) fn map_spec(
        &self,
        name: &str,
        declared: &aya_obj::Map,
        options: &LoadOptions,
    ) -> MapSpec {
        let mut spec = spec_of(name, declared);
        if is_data(declared) {
            spec.name = data_name(&options.name, name);
            spec.flags |= sys::F_MMAPABLE;
        }
        if let Some(entries) = options.max_entries.get(name) {
            spec.max_entries = *entries;
        }
        match spec.kind {
            // A declared type is that of the records, not of the elements.
            MapKind::RINGBUF => (spec.key_size, spec.value_size) = (0, 0),
            MapKind::PERF_EVENT_ARRAY => {
                (spec.key_size, spec.value_size) = (4, 4);
                if spec.max_entries == 0 {
                    spec.max_entries = probe::possible_cpus() as u32;
                }
            }
            _ => {}
        }
        if spec.kind.holds_descriptors() && spec.value_size == 0 {
            spec.value_size = 4;
        }
        if spec.kind.is_of_maps() {
            let template = options.inner.get(name).cloned();
            let template = template
                .or_else(|| declared.inner().map(|i| spec_of(&format!("{name}.inner"), &i)));
            spec.inner = template.map(Box::new);
        }
        spec
    }

    pub(super) fn map_types(
        &self,
        name: &str,
        declared: &aya_obj::Map,
        btf_fd: Option<&Arc<OwnedFd>>,
    ) -> Option<MapTypes> {
        let btf = self.btf.clone()?;
        let (key, value) = match declared {
            aya_obj::Map::Btf(m) => (m.def.btf_key_type_id, m.def.btf_value_type_id),
            aya_obj::Map::Legacy(_) => {
                let parsed = self.parsed.btf.as_ref()?;
                (0, parsed.id_by_type_name_kind(name, BtfKind::DataSec).ok()?)
            }
        };
        Some(MapTypes { btf, fd: btf_fd.cloned(), key, value })
    }

    /// Puts into maps of maps and program arrays what their declarations say; given maps keep their contents.
    pub(super) fn fill_slots(
        &self,
        options: &LoadOptions,
        maps: &BTreeMap<String, Map>,
        programs: &BTreeMap<String, Program>,
    ) -> Result<()> {
        for slot in self.initial.iter().filter(|slot| !options.maps.contains_key(&slot.map)) {
            let place = self.values_offset(&slot.map).and_then(|at| slot.offset.checked_sub(at));
            let (Some(place), Some(map)) = (place, maps.get(&slot.map)) else {
                return Err(invalid(format!("the values of map \"{}\" are damaged", slot.map)));
            };
            let fd = match (maps.get(&slot.target), programs.get(&slot.target)) {
                (Some(target), _) => target.as_fd(),
                (_, Some(target)) => target.as_fd(),
                // A program that was not asked for leaves its slot empty.
                _ => continue,
            };
            // Each slot of the declaration is a pointer.
            let index = (place / 8) as u32;
            map.update_fd(&index.to_ne_bytes(), fd).map_err(|e| e.operation("bpf.load"))?;
        }
        Ok(())
    }

    /// Where in the declaration of a map its `values` begin.
    fn values_offset(&self, map: &str) -> Option<u64> {
        let btf = self.btf.as_ref()?;
        let found = btf.resolve_types_by_name(map).ok()?;
        let mut declared = found.into_iter().find(|kind| matches!(kind, btf_rs::Type::Var(_)))?;
        for _ in 0..8 {
            if let btf_rs::Type::Struct(fields) = &declared {
                let values = fields.members.iter().find(|m| {
                    btf.resolve_name(*m)
                        .is_ok_and(|name| name == "values" || name == elf::PROGRAM_VALUES)
                })?;
                return Some(u64::from(values.bit_offset() / 8));
            }
            declared = btf.resolve_chained_type(declared.as_btf_type()?).ok()?;
        }
        None
    }
}

/// Whether the types of a declaration are as large as it says: the kernel would refuse the types and keep the map.
fn sizes_agree(spec: &MapSpec, types: &MapTypes) -> Result<()> {
    if spec.kind.has_records() || spec.kind.holds_descriptors() {
        return Ok(());
    }
    let sides = [("key", types.key, spec.key_size), ("value", types.value, spec.value_size)];
    for (side, id, size) in sides.into_iter().filter(|(_, id, _)| *id != 0) {
        let Some(kind) = Type::from_btf(&types.btf, id) else { continue };
        if kind.size() != size as usize {
            return Err(invalid(format!(
                "map \"{}\" is declared with a {side} of {size} bytes and of type {}, which has {}",
                spec.name,
                kind.name(),
                kind.size()
            ))
            .hint(format!(
                "__type({side}, ...) says the size: leave __uint({side}_size, ...) out"
            )));
        }
    }
    Ok(())
}

pub(super) fn is_data(map: &aya_obj::Map) -> bool {
    let kind = map.section_kind();
    matches!(kind, EbpfSectionKind::Data | EbpfSectionKind::Rodata | EbpfSectionKind::Bss)
}

fn spec_of(name: &str, map: &aya_obj::Map) -> MapSpec {
    let (key, value) = (map.key_size(), map.value_size());
    let mut spec = MapSpec::new(name, MapKind(map.map_type()), key, value, map.max_entries());
    spec.flags = map.map_flags();
    spec.extra = map.map_extra();
    spec
}

/// `router.rodata`: what the kernel shows for a data section, as libbpf names it.
fn data_name(object: &str, section: &str) -> String {
    let stem = object.rsplit('/').next().unwrap_or(object);
    let stem = stem.split('.').next().unwrap_or(stem);
    let room = sys::NAME_LEN.saturating_sub(section.len());
    format!("{}{section}", &stem[..stem.floor_char_boundary(room)])
}

/// An existing map in place of a declared one: it must look the same to the program.
pub(super) fn reuse(spec: &MapSpec, map: &Map) -> Result<Map> {
    let info = map.info();
    let differences: Vec<String> = [
        ("type", spec.kind.to_string(), info.kind.to_string()),
        ("key size", spec.key_size.to_string(), info.key_size.to_string()),
        ("value size", spec.value_size.to_string(), info.value_size.to_string()),
    ]
    .into_iter()
    .filter(|(_, declared, given)| declared != given)
    .map(|(what, declared, given)| {
        format!("{what} is {declared} in the source and {given} in the map")
    })
    .collect();
    match differences.is_empty() {
        true => Ok(map.clone()),
        false => Err(invalid(format!(
            "map \"{}\" cannot stand for \"{}\": {}",
            map.name(),
            spec.name,
            differences.join(", ")
        ))),
    }
}

/// Gives a data section its initial contents; read-only ones are frozen, so that the verifier sees constants.
fn fill(map: &Map, declared: &aya_obj::Map) -> Result<()> {
    let read_only = declared.section_kind() == EbpfSectionKind::Rodata;
    if declared.section_kind() != EbpfSectionKind::Bss || declared.data().iter().any(|b| *b != 0) {
        map.update(&0u32.to_ne_bytes(), declared.data(), Write::Any)
            .map_err(|e| e.operation("bpf.load"))?;
    }
    if read_only { map.freeze().map_err(|e| e.operation("bpf.load")) } else { Ok(()) }
}
