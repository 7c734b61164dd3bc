//! Maps: packed bytes in and out, one element or many; `typed` speaks of values, `batch` of many at once.

mod batch;
mod kind;
mod mapped;
mod refusal;
mod spec;
#[cfg(test)]
mod tests;
mod typed;

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use btf_rs::Btf;
use nix::errno::Errno;

pub use batch::Entries;
pub use kind::MapKind;
pub use mapped::Mapped;
use spec::create_error;
pub use spec::{MapInfo, MapSpec, MapTypes};

use super::btf::Type;
use super::pinned::{self, Pinned};
use super::sys::{self, bpf_map_info};
use crate::{Error, Result};

/// What a write does when the key is, or is not, there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Write {
    #[default]
    Any,
    /// EEXIST if the key is there.
    NoExist,
    /// ENOENT if it is not.
    Exist,
}

impl Write {
    fn flags(self) -> u64 {
        match self {
            Write::Any => sys::ANY,
            Write::NoExist => sys::NOEXIST,
            Write::Exist => sys::EXIST,
        }
    }
}

/// An open map. Cheap to clone; the kernel keeps the map while a clone, a program or a pin holds it.
#[derive(Debug, Clone)]
pub struct Map(Arc<Inner>);

struct Inner {
    name: String,
    fd: OwnedFd,
    info: MapInfo,
    key: Type,
    value: Type,
    /// See [`Map::stride`].
    stride: usize,
    /// Of ring buffers and perf event arrays.
    record: Option<Type>,
    btf: Option<Arc<Btf>>,
}

impl Map {
    /// Makes a map, with its inner template when it is a map of maps.
    ///
    /// # Errors
    /// EPERM without CAP_BPF, E2BIG or ENOMEM when it is too large, EINVAL when the shape does not fit its kind.
    pub fn create(spec: &MapSpec) -> Result<Map> {
        Map::create_typed(spec, None)
    }

    /// As [`Map::create`], with BTF types: the kernel keeps them where the kind of map takes them.
    pub fn create_typed(spec: &MapSpec, types: Option<&MapTypes>) -> Result<Map> {
        super::probe::raise_memlock();
        let inner = match &spec.inner {
            Some(inner) => Some(Map::create(inner)?),
            None => None,
        };
        let mut attr = sys::MapAttr {
            kind: spec.kind.0,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: spec.max_entries,
            flags: spec.flags,
            extra: spec.extra,
            name: &spec.name,
            inner: inner.as_ref().map(AsFd::as_fd),
            btf: None,
        };
        if let Some(MapTypes { fd: Some(fd), key, value, .. }) = types {
            attr.btf = Some((fd.as_fd(), *key, *value));
        }
        let made = match sys::map_create(&attr) {
            // Many kinds take no BTF (EOPNOTSUPP, EINVAL): then the types stay with us.
            Err(_) if attr.btf.is_some() => sys::map_create(&sys::MapAttr { btf: None, ..attr }),
            other => other,
        };
        let fd = made.map_err(|errno| create_error(spec, errno))?;
        Map::from_parts(fd, Some(&spec.name), types)
    }

    /// Takes over a map's descriptor; types come from the kernel's record of its BTF.
    pub fn from_fd(fd: OwnedFd) -> Result<Map> {
        Map::from_parts(fd, None, None)
    }

    /// The map with this id.
    ///
    /// # Errors
    /// ENOENT when there is none (any more).
    pub fn by_id(id: u32) -> Result<Map> {
        let fd = sys::fd_by_id(sys::IdKind::Map, id).map_err(|errno| match errno {
            Errno::ENOENT => Error::new("bpf.map", "ENOENT", format!("no map has the id {id}")),
            errno => super::program::refusal("bpf.map", errno).subject(id.to_string()),
        })?;
        Map::from_fd(fd)
    }

    /// The map pinned at `path` on a bpffs.
    ///
    /// # Errors
    /// As [`pinned::open_as`].
    pub fn pinned(path: &Path) -> Result<Map> {
        pinned::open_as(path, "map", |found| match found {
            Pinned::Map(map) => Some(map),
            _ => None,
        })
    }

    fn from_parts(fd: OwnedFd, name: Option<&str>, types: Option<&MapTypes>) -> Result<Map> {
        let raw = sys::info::<bpf_map_info>(fd.as_fd(), |_| {})
            .map_err(|e| Error::errno("bpf.map", e).subject(name.unwrap_or("?")))?;
        let info = MapInfo::from(&raw);
        let from_kernel = match types {
            Some(_) => None,
            None => super::btf::by_id(info.btf_id).map(|btf| MapTypes {
                btf,
                fd: None,
                key: info.btf_key,
                value: info.btf_value,
            }),
        };
        let types = types.or(from_kernel.as_ref());
        let resolve = |id: u32, size: u32| {
            let types = types.filter(|_| id != 0)?;
            Type::from_btf(&types.btf, id).filter(|t| t.size() == size as usize)
        };
        let (key_id, value_id) = types.map_or((0, 0), |t| (t.key, t.value));
        let declared_key = match info.kind {
            MapKind::LPM_TRIE => Type::cidr(info.key_size as usize),
            _ => None,
        };
        let key = declared_key.or_else(|| resolve(key_id, info.key_size));
        let value = resolve(value_id, info.value_size);
        let record = match types {
            Some(types) if info.kind.has_records() && value_id != 0 => {
                Type::from_btf(&types.btf, value_id)
            }
            _ => None,
        };
        Ok(Map(Arc::new(Inner {
            name: name.unwrap_or(&info.name).to_owned(),
            key: key.unwrap_or_else(|| Type::untyped(info.key_size as usize)),
            value: value.unwrap_or_else(|| Type::untyped(info.value_size as usize)),
            stride: match info.kind.is_per_cpu() {
                true => {
                    (info.value_size as usize).next_multiple_of(8) * super::probe::possible_cpus()
                }
                false => info.value_size as usize,
            },
            record,
            btf: types.map(|types| Arc::clone(&types.btf)),
            fd,
            info,
        })))
    }

    /// Where the map is, for [`Map::borrowed`]: as long as this one or a clone is there.
    pub fn as_raw(&self) -> *const c_void {
        Arc::as_ptr(&self.0).cast()
    }

    /// A map by its place, without a part in how long it lives.
    ///
    /// # Safety
    /// The place is one that [`Map::as_raw`] gave, and the map it gave it for, or a clone, is still there.
    pub unsafe fn borrowed(place: *const c_void) -> ManuallyDrop<Map> {
        // SAFETY: the pointer came out of such an `Arc`; its count is neither raised here nor lowered at the end.
        ManuallyDrop::new(Map(unsafe { Arc::from_raw(place.cast()) }))
    }

    /// The full name, as the object file spells it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn id(&self) -> u32 {
        self.0.info.id
    }

    pub fn info(&self) -> &MapInfo {
        &self.0.info
    }

    pub fn key_type(&self) -> &Type {
        &self.0.key
    }

    pub fn value_type(&self) -> &Type {
        &self.0.value
    }

    /// What the records of a ring buffer or perf event array are, where its declaration says so: `__type(value, ...)`.
    pub fn record_type(&self) -> Option<&Type> {
        self.0.record.as_ref()
    }

    /// The type that the map's object calls `name`.
    ///
    /// # Errors
    /// ENOENT when there is none, or the map has no types at all.
    pub fn type_named(&self, name: &str) -> Result<Type> {
        let Some(btf) = &self.0.btf else {
            let message = format!("the map has no types, so none is called \"{name}\"");
            return Err(Error::new("map", "ENOENT", message)
                .subject(self.name())
                .hint("types come from the object: load it here, compiled with -g"));
        };
        Type::named(btf, name).map_err(|e| e.operation("map").subject(self.name()))
    }

    fn key_size(&self) -> usize {
        self.0.info.key_size as usize
    }

    /// Bytes of one element's value as bpf(2) moves it: for per-CPU maps all CPUs', each rounded up to 8.
    pub fn stride(&self) -> usize {
        self.0.stride
    }

    /// The value at `key`, or `None`. The id of the inner map or program for maps of maps and program arrays.
    ///
    /// # Errors
    /// EINVAL for a key of another size; EPERM without CAP_BPF.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.stride()];
        Ok(self.lookup_into(key, &mut value)?.then_some(value))
    }

    /// As [`Map::lookup`], into [`Map::stride`] bytes; whether it was there.
    pub fn lookup_into(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.check("map.get", "key", key.len(), self.key_size())?;
        self.check("map.get", "value", value.len(), self.stride())?;
        match sys::map_lookup(self.as_fd(), Some(key), value) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.refusal("map.get", errno)),
        }
    }

    /// # Errors
    /// EEXIST and ENOENT by `write`; E2BIG when the map is full or the index is beyond an array's end.
    pub fn update(&self, key: &[u8], value: &[u8], write: Write) -> Result<()> {
        self.check("map.set", "key", key.len(), self.key_size())?;
        self.check("map.set", "value", value.len(), self.stride())?;
        sys::map_update(self.as_fd(), Some(key), value, write.flags())
            .map_err(|errno| self.refusal("map.set", errno))
    }

    /// Sets an element of a map of maps, program array, or of a devmap with programs to a descriptor.
    pub fn update_fd(&self, key: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
        use std::os::fd::AsRawFd;
        self.update(key, &fd.as_raw_fd().to_ne_bytes(), Write::Any)
    }

    /// Whether the key was there. Elements of arrays cannot be deleted (EINVAL).
    pub fn remove(&self, key: &[u8]) -> Result<bool> {
        self.check("map.delete", "key", key.len(), self.key_size())?;
        match sys::map_delete(self.as_fd(), key) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            // A place that is empty (`__sock_map_delete`).
            Err(Errno::EINVAL) if self.0.info.kind == MapKind::SOCKMAP => Ok(false),
            Err(Errno::EINVAL) if self.0.info.kind.is_array() => Err(Error::new(
                "map.delete",
                "EINVAL",
                "the elements of an array cannot be deleted, only set",
            )
            .subject(self.name())),
            Err(errno) => Err(self.refusal("map.delete", errno)),
        }
    }

    /// The key behind `key`; the first for `None`; `None` at the end. A key that is gone starts over.
    pub fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_size()];
        match sys::map_next_key(self.as_fd(), key, &mut next) {
            Ok(()) => Ok(Some(next)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.refusal("map.pairs", errno)),
        }
    }

    /// Queue, stack or bloom filter: adds a value. E2BIG when full.
    pub fn push_bytes(&self, value: &[u8]) -> Result<()> {
        self.keyless("map.push")?;
        self.check("map.push", "value", value.len(), self.stride())?;
        sys::map_update(self.as_fd(), None, value, sys::ANY)
            .map_err(|errno| self.refusal("map.push", errno))
    }

    /// Queue: the oldest; stack: the newest; removed. `None` when empty.
    pub fn pop_bytes(&self) -> Result<Option<Vec<u8>>> {
        self.keyless("map.pop")?;
        let mut value = vec![0; self.stride()];
        match sys::map_lookup_and_delete(self.as_fd(), None, &mut value) {
            Ok(()) => Ok(Some(value)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.refusal("map.pop", errno)),
        }
    }

    /// As [`Map::pop_bytes`], left in place.
    pub fn peek_bytes(&self) -> Result<Option<Vec<u8>>> {
        self.keyless("map.peek")?;
        let mut value = vec![0; self.stride()];
        match sys::map_lookup(self.as_fd(), None, &mut value) {
            Ok(()) => Ok(Some(value)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.refusal("map.peek", errno)),
        }
    }

    /// Bloom filter: whether the value may have been pushed; false is certain.
    pub fn may_hold(&self, value: &[u8]) -> Result<bool> {
        self.check("map.peek", "value", value.len(), self.stride())?;
        match sys::map_lookup(self.as_fd(), None, &mut value.to_vec()) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.refusal("map.peek", errno)),
        }
    }

    /// No more writes through bpf(2), for good; programs still write unless it is read-only to them.
    pub fn freeze(&self) -> Result<()> {
        sys::map_freeze(self.as_fd()).map_err(|errno| self.refusal("map.freeze", errno))
    }

    /// Pins on a bpffs. EEXIST when the path is taken.
    pub fn pin(&self, path: &Path) -> Result<()> {
        super::pins::pin(self.as_fd(), "map.pin", path)
    }

    /// Maps an array made with [`sys::F_MMAPABLE`] into memory, shared with the programs.
    pub fn mmap(&self) -> Result<Mapped> {
        Mapped::new(self)
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map").field("name", &self.name).field("info", &self.info).finish()
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// The same kernel map.
impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        self.id() == other.id()
    }
}
