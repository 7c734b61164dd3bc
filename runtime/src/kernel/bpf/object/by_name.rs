//! Maps that are declared to be pinned by name (`LIBBPF_PIN_BY_NAME`): opened where an object before has pinned them, pinned
//! there where none has. The folder is the loader's to say, as libbpf's `pin_root_path` is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aya_obj::maps::PinningType;

use super::maps::reuse;
use super::{LoadOptions, Object, ObjectFile};
use crate::Result;
use crate::kernel::bpf::map::Map;

impl ObjectFile {
    /// Those that are there already; the object's shapes must fit.
    ///
    /// # Errors
    /// EINVAL for a pin of another type, or of a map that looks different.
    pub(super) fn open_pins(&self, options: &LoadOptions) -> Result<BTreeMap<String, Map>> {
        let mut opened = BTreeMap::new();
        for (name, path) in self.pins(options) {
            let map = match Map::pinned(&path) {
                Ok(map) => map,
                Err(e) if e.is("ENOENT") && path.parent().is_some_and(Path::is_dir) => continue,
                Err(e) => return Err(e.operation("bpf.load")),
            };
            let declared = &self.parsed.maps[&name];
            reuse(&self.map_spec(&name, declared, options), &map).map_err(|e| {
                e.hint(format!(
                    "{} is of another object: remove it, or say other pins=",
                    path.display()
                ))
            })?;
            opened.insert(name, map);
        }
        Ok(opened)
    }

    /// The maps that are declared so, but for those that are given, and where each belongs.
    pub(super) fn pins(&self, options: &LoadOptions) -> Vec<(String, PathBuf)> {
        let Some(folder) = &options.pins else { return Vec::new() };
        let named = self.parsed.maps.iter().filter(|(name, map)| {
            map.pinning() == PinningType::ByName && !options.maps.contains_key(*name)
        });
        // bpffs takes no dots (`bpf_lookup`); libbpf writes underscores for them.
        named.map(|(name, _)| (name.clone(), folder.join(name.replace('.', "_")))).collect()
    }
}

impl Object {
    /// Pins those that are not yet; when one cannot be, none is.
    pub(super) fn pin_by_name(&mut self, pins: &[(String, PathBuf)]) -> Result<()> {
        let mut made: Vec<&Path> = Vec::new();
        for (name, path) in pins.iter().filter(|(name, _)| !self.pinned.contains(name)) {
            if let Some(Err(e)) = self.maps.get(name).map(|map| map.pin(path)) {
                for path in made {
                    // What cannot be removed stays, as any pin does.
                    let _ = std::fs::remove_file(path);
                }
                return Err(e.operation("bpf.load"));
            }
            made.push(path);
        }
        Ok(())
    }
}
