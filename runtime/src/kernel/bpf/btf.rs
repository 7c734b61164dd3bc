//! Types by BTF: a resolved tree, built once per map or variable, that says what bytes mean.
//!
//! `decode` and `encode` walk the tree to turn bytes into [`Value`]s and back. BTF itself (`Documentation/bpf/btf.rst`) is parsed by
//! `btf-rs`; here only what keys, values and global variables need is kept.

use std::cell::Cell;
use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::sync::Arc;

use btf_rs::{Btf, BtfType};

use super::sys;
use crate::{Error, Result};

/// What a key, value or global variable holds, with no Lua in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// Bytes as they lie in memory: always accepted where their length is the type's size.
    Bytes(Vec<u8>),
    /// Text: char arrays, enum names, addresses, CIDRs.
    Str(String),
    Array(Vec<Value>),
    /// Fields by name, in declared order when decoded.
    Struct(Vec<(String, Value)>),
}

impl Value {
    /// With the fields of structs by name, so that equal ones compare equal: a Lua table has no order.
    pub fn in_order(self) -> Value {
        match self {
            Value::Array(items) => Value::Array(items.into_iter().map(Value::in_order).collect()),
            Value::Struct(fields) => {
                let mut fields: Vec<_> =
                    fields.into_iter().map(|(name, value)| (name, value.in_order())).collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Struct(fields)
            }
            plain => plain,
        }
    }
}

/// A resolved C type.
#[derive(Debug, Clone, PartialEq)]
pub struct Type {
    /// As C spells it: `__u32`, `struct key`, `enum verdict`; arrays carry their element's.
    name: String,
    size: usize,
    pub(super) shape: Shape,
    /// Only its size is known.
    pub(super) untyped: bool,
}

impl Type {
    fn new(name: impl Into<String>, size: usize, shape: Shape) -> Type {
        Type { name: name.into(), size, shape, untyped: false }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Int {
        signed: bool,
    },
    Bool,
    Float,
    Enum {
        signed: bool,
        names: Vec<(String, i64)>,
    },
    /// `__be16`, `__be64`: integers in network order, spoken of in host order.
    BigEndian,
    /// `__be32`, `struct in_addr`.
    Ip4,
    /// `struct in6_addr`.
    Ip6,
    /// A char array: text up to the first NUL.
    Text,
    /// A `struct bpf_lpm_trie_key` of a 4 or 16 byte address.
    Cidr,
    Array {
        element: Box<Type>,
        len: usize,
    },
    Struct {
        fields: Vec<Field>,
        union: bool,
    },
    /// `struct bpf_timer`, `struct bpf_spin_lock` and what BTF does not describe.
    Opaque,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub name: String,
    /// From the start of the struct, members of anonymous structs and unions included.
    pub bit_offset: usize,
    /// Of a bit field.
    pub bits: Option<u32>,
    pub kind: Type,
}

/// Deep enough for any C source; stops at malformed BTF that refers to itself.
const MAX_DEPTH: usize = 32;
/// Parts of one type: more come only of malformed BTF, where each struct holds another one several times.
const MAX_PARTS: usize = 100_000;
/// Bytes of one type: more than any map holds.
const MAX_SIZE: usize = 1 << 30;

impl Type {
    /// The type `id` of `btf`; `None` when it is void, a function or malformed.
    pub fn from_btf(btf: &Btf, id: u32) -> Option<Type> {
        Resolver { btf, parts: Cell::new(0) }.resolve(id, 0)
    }

    /// The type that C calls `name`: "struct event", "enum verdict", "__u32"; of a struct, union or enum also its bare
    /// name.
    ///
    /// # Errors
    /// ENOENT, naming the nearest one.
    pub fn named(btf: &Btf, name: &str) -> Result<Type> {
        let bare = name.split_whitespace().last().unwrap_or_default();
        let found = btf.resolve_ids_by_name(bare).unwrap_or_default();
        let mut types = found.into_iter().filter_map(|id| Type::from_btf(btf, id));
        let wanted = |kind: &Type| name == bare || kind.name() == name;
        types.find(wanted).ok_or_else(|| no_such_type(btf, name))
    }

    /// Bytes that nothing describes: integers when they are 1, 2, 4 or 8 long, else opaque.
    pub fn untyped(size: usize) -> Type {
        let name = match size {
            1 => "__u8",
            2 => "__u16",
            4 => "__u32",
            8 => "__u64",
            _ => return Type::new(format!("char[{size}]"), size, Shape::Opaque),
        };
        Type { untyped: true, ..Type::new(name, size, Shape::Int { signed: false }) }
    }

    /// The key of an LPM trie as CIDR text, when it is a prefix length and an IPv4 or IPv6 address.
    pub fn cidr(key_size: usize) -> Option<Type> {
        matches!(key_size, 8 | 20)
            .then(|| Type::new("struct bpf_lpm_trie_key", key_size, Shape::Cidr))
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        self.size
    }

    /// As C spells it, on one line.
    pub fn name(&self) -> String {
        match &self.shape {
            Shape::Array { element, len } => format!("{}[{len}]", element.name()),
            Shape::Text => format!("char[{}]", self.size),
            _ => self.name.clone(),
        }
    }

    /// Field names of a struct or union, for messages and completion.
    pub fn fields(&self) -> Vec<&str> {
        match &self.shape {
            Shape::Struct { fields, .. } => fields.iter().map(|f| f.name.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// The declaration as C source, a struct with its fields; members of anonymous unions stand beside each other.
    pub fn declaration(&self) -> String {
        match &self.shape {
            Shape::Array { element, .. } => element.declaration(),
            Shape::Struct { .. } => format!("{};", self.body(0)),
            _ => self.name(),
        }
    }

    /// A struct with its fields, those of structs without a name too.
    fn body(&self, depth: usize) -> String {
        let Shape::Struct { fields, .. } = &self.shape else { return self.name.clone() };
        let indent = "    ".repeat(depth);
        let mut out = format!("{} {{\n", self.name);
        for field in fields {
            let (base, suffix) = field.kind.split_array();
            let bits = field.bits.map(|b| format!(" : {b}")).unwrap_or_default();
            let base = match base.name.as_str() {
                "struct" | "union" => base.body(depth + 1),
                _ => base.name.clone(),
            };
            let _ = writeln!(out, "{indent}    {base} {}{suffix}{bits};", field.name);
        }
        let _ = write!(out, "{indent}}}");
        out
    }

    /// The element and `[2][4]` of an array type.
    fn split_array(&self) -> (&Type, String) {
        match &self.shape {
            Shape::Array { element, len } => {
                let (base, suffix) = element.split_array();
                (base, format!("[{len}]{suffix}"))
            }
            Shape::Text => (self, format!("[{}]", self.size)),
            _ => (self, String::new()),
        }
    }
}

/// A name that BTF does not have.
fn no_such_type(btf: &Btf, name: &str) -> Error {
    let known = (1..).map_while(|id| btf.resolve_type_by_id(id).ok()).filter_map(|kind| {
        let (word, name) = match &kind {
            btf_rs::Type::Struct(s) => ("struct", btf.resolve_name(s)),
            btf_rs::Type::Union(u) => ("union", btf.resolve_name(u)),
            btf_rs::Type::Enum(e) => ("enum", btf.resolve_name(e)),
            _ => return None,
        };
        name.ok().filter(|name| !name.is_empty()).map(|name| format!("{word} {name}"))
    });
    let near = known.filter(|known| {
        let bare = known.split(' ').next_back().unwrap_or_default();
        let asked = name.split(' ').next_back().unwrap_or_default();
        bare == asked || strsim::damerau_levenshtein(bare, asked) <= 2
    });
    let error = Error::new("btf", "ENOENT", format!("the object has no type \"{name}\""));
    match near.min_by_key(|known| strsim::damerau_levenshtein(known, name)) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None => error.hint(
            "clang keeps the types of maps, globals and functions: name it in the map with __type(value, ...)",
        ),
    }
}

impl Type {
    /// Whether it has a size that its kind of type can have (`btf_int_check_meta`, `btf_enum_check_meta`, kernel/bpf/btf.c).
    fn is_sound(&self) -> bool {
        match self.shape {
            Shape::Int { .. } | Shape::Bool => [1, 2, 4, 8, 16].contains(&self.size),
            Shape::Enum { .. } => [1, 2, 4, 8].contains(&self.size),
            _ => true,
        }
    }
}

struct Resolver<'a> {
    btf: &'a Btf,
    /// Types resolved so far.
    parts: Cell<usize>,
}

impl Resolver<'_> {
    fn name(&self, of: &dyn BtfType) -> String {
        self.btf.resolve_name(of).unwrap_or_default()
    }

    fn resolve(&self, id: u32, depth: usize) -> Option<Type> {
        let parts = self.parts.replace(self.parts.get() + 1);
        if depth > MAX_DEPTH || parts > MAX_PARTS {
            return None;
        }
        let next = |id: Option<u32>| self.resolve(id?, depth + 1);
        let declared = self.btf.resolve_type_by_id(id).ok()?;
        let kind = match &declared {
            btf_rs::Type::Int(int) => {
                let shape = match int.is_bool() {
                    true => Shape::Bool,
                    false => Shape::Int { signed: int.is_signed() },
                };
                Type::new(self.name(int), int.size(), shape)
            }
            btf_rs::Type::Float(float) => Type::new(self.name(float), float.size(), Shape::Float),
            btf_rs::Type::Enum(e) => {
                let value = |v: u32| if e.is_signed() { i64::from(v as i32) } else { v.into() };
                let names = e.members.iter().map(|m| (self.name(m), value(m.val()))).collect();
                enumeration(self.name(e), e.size(), e.is_signed(), names)
            }
            btf_rs::Type::Enum64(e) => {
                let names = e.members.iter().map(|m| (self.name(m), m.val() as i64)).collect();
                enumeration(self.name(e), e.size(), e.is_signed(), names)
            }
            btf_rs::Type::Typedef(t) => alias(self.name(t), next(t.get_type_id())?),
            btf_rs::Type::Const(q) | btf_rs::Type::Volatile(q) | btf_rs::Type::Restrict(q) => {
                next(q.get_type_id())?
            }
            btf_rs::Type::TypeTag(q) => next(q.get_type_id())?,
            btf_rs::Type::Var(v) => next(v.get_type_id())?,
            btf_rs::Type::Array(a) => array(next(a.get_type_id())?, a.len())?,
            btf_rs::Type::Struct(s) => self.structure("struct", s, false, depth),
            btf_rs::Type::Union(s) => self.structure("union", s, true, depth),
            btf_rs::Type::Datasec(d) => self.section(d, depth),
            btf_rs::Type::Ptr(_) => Type { name: "void *".to_owned(), ..Type::untyped(8) },
            _ => return None,
        };
        (kind.size <= MAX_SIZE && kind.is_sound()).then_some(kind)
    }

    fn structure(&self, word: &str, s: &btf_rs::Struct, union: bool, depth: usize) -> Type {
        let tag = self.name(s);
        let name = if tag.is_empty() { word.to_owned() } else { format!("{word} {tag}") };
        let size = s.size();
        let special = match tag.as_str() {
            "in6_addr" if size == 16 => Some(Shape::Ip6),
            "in_addr" if size == 4 => Some(Shape::Ip4),
            // Kernel-owned fields: reading gives zeroes, writing is refused or ignored (kernel/bpf/btf.c).
            "bpf_timer" | "bpf_spin_lock" | "bpf_res_spin_lock" | "bpf_wq" | "bpf_list_head"
            | "bpf_list_node" | "bpf_rb_root" | "bpf_rb_node" | "bpf_refcount" | "bpf_dynptr" => {
                Some(Shape::Opaque)
            }
            _ => None,
        };
        let shape = special.unwrap_or_else(|| {
            let mut fields = Vec::new();
            self.members(s, 0, depth, &mut fields);
            Shape::Struct { fields, union }
        });
        Type::new(name, size, shape)
    }

    /// Appends the members of `s`; those of anonymous structs and unions appear as if they were its own, as in C.
    fn members(&self, s: &btf_rs::Struct, base: usize, depth: usize, out: &mut Vec<Field>) {
        for member in &s.members {
            let name = self.name(member);
            let bit_offset = base + member.bit_offset() as usize;
            let Some(id) = member.get_type_id() else { continue };
            if name.is_empty()
                && depth < MAX_DEPTH
                && let Ok(btf_rs::Type::Struct(inner) | btf_rs::Type::Union(inner)) =
                    self.btf.resolve_type_by_id(id)
            {
                self.members(&inner, bit_offset, depth + 1, out);
                continue;
            }
            let bits = member.bitfield_size().filter(|b| *b > 0);
            let Some(kind) = self.resolve(id, depth + 1) else { continue };
            // As the kernel has it (`btf_int_check_kflag_member`): no wider than its type, nor than 128.
            if bits.is_some_and(|bits| bits as usize > kind.size.min(16) * 8) {
                continue;
            }
            if !name.is_empty() {
                out.push(Field { name, bit_offset, bits, kind });
            }
        }
    }

    /// A data section reads as a struct of its variables.
    fn section(&self, d: &btf_rs::Datasec, depth: usize) -> Type {
        let fields = d.variables.iter().filter_map(|v| {
            let id = v.get_type_id()?;
            let btf_rs::Type::Var(var) = self.btf.resolve_type_by_id(id).ok()? else { return None };
            let kind = self.resolve(id, depth + 1)?;
            Some(Field {
                name: self.name(&var),
                bit_offset: v.offset() as usize * 8,
                bits: None,
                kind,
            })
        });
        let fields: Vec<Field> = fields.collect();
        let end = fields.iter().map(|f| f.bit_offset / 8 + f.kind.size).max().unwrap_or(0);
        Type::new(self.name(d), d.size().max(end), Shape::Struct { fields, union: false })
    }
}

fn enumeration(tag: String, size: usize, signed: bool, names: Vec<(String, i64)>) -> Type {
    let name = if tag.is_empty() { "enum".into() } else { format!("enum {tag}") };
    Type::new(name, size, Shape::Enum { signed, names })
}

/// A typedef: the byte-order types of `linux/types.h` keep their meaning, others only rename.
fn alias(name: String, target: Type) -> Type {
    let shape = match (name.as_str(), target.size) {
        ("__be16", 2) | ("__be64", 8) => Shape::BigEndian,
        ("__be32", 4) => Shape::Ip4,
        _ => target.shape,
    };
    // An anonymous struct takes the typedef's name; an array keeps its own.
    Type::new(name, target.size, shape)
}

fn array(element: Type, len: usize) -> Option<Type> {
    let size = element.size.checked_mul(len)?;
    // Plain `char` is text; `signed char`, `unsigned char` and __u8 are numbers.
    if element.name == "char" && matches!(element.shape, Shape::Int { .. }) {
        return Some(Type::new("char", size, Shape::Text));
    }
    let name = element.name.clone();
    Some(Type::new(name, size, Shape::Array { element: Box::new(element), len }))
}

/// The BTF object behind a map or program loaded by anyone, parsed; `None` when it has none.
pub fn by_id(id: u32) -> Option<Arc<Btf>> {
    if id == 0 {
        return None;
    }
    let fd = sys::fd_by_id(sys::IdKind::Btf, id).ok()?;
    let blob = sys::btf_blob(fd.as_fd()).ok()?;
    Btf::from_bytes(&blob).ok().map(Arc::new)
}
