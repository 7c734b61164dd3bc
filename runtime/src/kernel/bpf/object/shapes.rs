//! The shapes of an object's maps, remembered so that a new version of it goes on with those that still fit: a program can
//! change while what it has counted stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::maps::is_data;
use super::{LoadOptions, Object, ObjectFile};
use crate::kernel::bpf::Type;
use crate::kernel::bpf::elf::InitialSlot;
use crate::kernel::bpf::map::{Map, MapKind, MapSpec, MapTypes};

/// What an object declared of each of its own maps.
#[derive(Clone, Default)]
pub struct Shapes(Arc<BTreeMap<String, Shape>>);

struct Shape {
    spec: MapSpec,
    types: Option<MapTypes>,
    /// Of a data section.
    initial: Option<Vec<u8>>,
    /// What its declaration puts into it.
    slots: Vec<InitialSlot>,
}

/// Which maps of an object loaded before a new version takes over.
#[derive(Default)]
pub(super) struct Kept {
    pub maps: BTreeMap<String, Map>,
    /// Why another is new: `map flows is new: value_size 8 -> 16`.
    pub differences: Vec<String>,
}

impl fmt::Debug for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl ObjectFile {
    /// Of the maps that are not given from outside.
    pub(super) fn shapes(&self, options: &LoadOptions) -> Shapes {
        let own = self.parsed.maps.iter().filter(|(name, _)| !options.maps.contains_key(*name));
        let shapes = own.map(|(name, declared)| {
            let shape = Shape {
                spec: self.map_spec(name, declared, options),
                types: self.map_types(name, declared, None),
                initial: is_data(declared).then(|| declared.data().to_vec()),
                slots: self.initial.iter().filter(|slot| slot.map == *name).cloned().collect(),
            };
            (name.clone(), shape)
        });
        Shapes(Arc::new(shapes.collect()))
    }
}

impl Shapes {
    /// The maps of `old` that look as these do, and are not to be fresh. Constants are never kept, nor program arrays, which hold the old code.
    pub(super) fn kept_of(&self, old: &Object, fresh: &BTreeSet<String>) -> Kept {
        let mut kept = Kept::default();
        for (name, shape) in self.0.iter() {
            let (Some(before), Some(map)) = (old.shapes.0.get(name), old.maps.get(name)) else {
                continue;
            };
            let code = name.starts_with(".rodata") || shape.spec.kind == MapKind::PROG_ARRAY;
            if code || fresh.contains(name) {
                continue;
            }
            let differences = shape.differences(before);
            if differences.is_empty() {
                kept.maps.insert(name.clone(), map.clone());
            } else {
                kept.differences.push(format!("map {name} is new: {}", differences.join(", ")));
            }
        }
        // A map of maps that the declaration fills holds the maps of its version.
        let filled = self.0.iter().filter(|(_, shape)| !shape.slots.is_empty());
        for (name, shape) in filled {
            if shape.slots.iter().any(|slot| !kept.maps.contains_key(&slot.target)) {
                kept.maps.remove(name);
            }
        }
        kept
    }
}

impl Shape {
    fn differences(&self, before: &Shape) -> Vec<String> {
        let changed = |what: &str, before: String, now: String| {
            (before != now).then(|| format!("{what} {before} -> {now}"))
        };
        let numbers = |spec: &MapSpec| [spec.key_size, spec.value_size, spec.max_entries];
        let words = ["key_size", "value_size", "max_entries"];
        let (old, new) = (&before.spec, &self.spec);
        let mut differences: Vec<String> =
            changed("type", old.kind.to_string(), new.kind.to_string()).into_iter().collect();
        for ((what, old), new) in words.iter().zip(numbers(old)).zip(numbers(new)) {
            differences.extend(changed(what, old.to_string(), new.to_string()));
        }
        let hex = |flags: u32| format!("{flags:#x}");
        differences.extend(changed("flags", hex(old.flags), hex(new.flags)));
        if old.extra != new.extra || old.inner != new.inner {
            differences.push("its inner maps changed".to_owned());
        }
        if !differences.is_empty() {
            return differences;
        }
        let ([old_key, old_value], [key, value]) = (before.resolved(), self.resolved());
        for (what, old, new) in [("key", old_key, key), ("value", old_value, value)] {
            if old == new {
                continue;
            }
            let name = |kind: &Option<Type>| kind.as_ref().map_or("bytes".to_owned(), Type::name);
            let named = changed(&format!("{what}_type"), name(&old), name(&new));
            let text = named.unwrap_or_else(|| match self.initial {
                Some(_) => "its variables changed".to_owned(),
                None => format!("the fields of {what}_type {} changed", name(&new)),
            });
            differences.push(text);
        }
        if differences.is_empty() && before.initial != self.initial {
            differences.push("its initial values changed".to_owned());
        }
        if before.slots != self.slots {
            differences.push("what its declaration puts into it changed".to_owned());
        }
        differences
    }

    fn resolved(&self) -> [Option<Type>; 2] {
        let resolve = |id: u32| Type::from_btf(&self.types.as_ref()?.btf, id);
        self.types.as_ref().map_or([None, None], |types| [resolve(types.key), resolve(types.value)])
    }
}
