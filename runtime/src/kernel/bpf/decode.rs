//! Bytes to values, by [`Type`]: one walk for everybody, [`Build`] says what comes of it.

#[cfg(test)]
mod tree;

use std::io::{Cursor, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::btf::{Field, Shape, Type};

/// What makes values of what a walk through bytes finds: each call makes one value, `item` and `field` put the value
/// made last into the array or struct opened last.
pub trait Build {
    fn nil(&mut self);
    fn boolean(&mut self, value: bool);
    fn signed(&mut self, value: i64);
    fn unsigned(&mut self, value: u64);
    fn float(&mut self, value: f64);
    /// Which may not be UTF-8.
    fn text(&mut self, value: &[u8]);
    /// As they lie in memory.
    fn bytes(&mut self, value: &[u8]);
    fn array(&mut self, len: usize);
    /// Counted from 0.
    fn item(&mut self, index: usize);
    fn structure(&mut self, fields: usize);
    fn field(&mut self, name: &str);
}

impl Type {
    /// What the first [`Type::size`] bytes say, in the hands of `out`; nil when there are fewer.
    pub fn decode_to(&self, bytes: &[u8], out: &mut impl Build) {
        match bytes.get(..self.size()) {
            Some(bytes) => read(self, bytes, out),
            None => out.nil(),
        }
    }

    /// Those fields of a struct that have one of these names; none when it is no struct.
    pub fn columns(&self, names: &[String]) -> Option<Vec<Column>> {
        let Shape::Struct { fields, .. } = &self.shape else { return None };
        // Of two of one name the last counts, as where all are put into one table.
        let named = |name: &String| fields.iter().rfind(|field| field.name == *name);
        Some(names.iter().filter_map(named).map(Column::new).collect())
    }

    /// The number, where the type is nothing but one: what is read most is read fastest.
    pub fn number(&self, bytes: &[u8]) -> Option<i64> {
        match self.shape {
            Shape::Int { signed } if matches!(bytes.len(), 1 | 2 | 4 | 8) => {
                Some(integer(bytes, signed))
            }
            _ => None,
        }
    }
}

/// One field of a struct, to be read by itself.
#[derive(Debug, Clone)]
pub struct Column {
    field: Field,
    /// Where it starts, how long it is and whether it has a sign, when it is nothing but a number.
    number: Option<(usize, usize, bool)>,
}

impl Column {
    fn new(field: &Field) -> Column {
        let number = match (&field.kind.shape, field.bits, field.kind.size()) {
            (Shape::Int { signed }, None, size @ (1 | 2 | 4 | 8)) => {
                Some((field.bit_offset / 8, size, *signed))
            }
            _ => None,
        };
        Column { field: field.clone(), number }
    }

    pub fn name(&self) -> &str {
        &self.field.name
    }

    /// The field's number, of the bytes of the whole struct, when it is nothing but one.
    #[inline]
    pub fn number(&self, bytes: &[u8]) -> Option<i64> {
        let (start, size, signed) = self.number?;
        Some(integer(bytes.get(start..start + size)?, signed))
    }

    /// The field's value, of the bytes of the whole struct.
    pub fn decode_to(&self, bytes: &[u8], out: &mut impl Build) {
        read_field(&self.field, bytes, out);
    }
}

fn read(kind: &Type, bytes: &[u8], out: &mut impl Build) {
    match &kind.shape {
        Shape::Int { signed } => match kind.number(bytes) {
            Some(number) if *signed => out.signed(number),
            Some(number) => out.unsigned(number as u64),
            None => read_integer(wide(bytes), bytes.len() as u32 * 8, *signed, out),
        },
        Shape::Bool => out.boolean(bytes.iter().any(|b| *b != 0)),
        Shape::Enum { signed, names } => {
            read_enum(wide(bytes), bytes.len() as u32 * 8, *signed, names, out);
        }
        Shape::BigEndian => {
            out.unsigned(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
        Shape::Float => match bytes.len() {
            4 => out.float(f32::from_le_bytes(bytes.try_into().unwrap_or_default()).into()),
            8 => out.float(f64::from_le_bytes(bytes.try_into().unwrap_or_default())),
            _ => out.bytes(bytes),
        },
        Shape::Ip4 => written(out, format_args!("{}", address4(bytes))),
        Shape::Ip6 => written(out, format_args!("{}", address6(bytes))),
        Shape::Cidr => {
            let length = wide(&bytes[..4]);
            match bytes.len() {
                8 => written(out, format_args!("{}/{length}", address4(&bytes[4..]))),
                _ => written(out, format_args!("{}/{length}", address6(&bytes[4..]))),
            }
        }
        Shape::Text => {
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            out.text(&bytes[..end]);
        }
        Shape::Array { element, .. } if element.size() == 0 => out.array(0),
        Shape::Array { element, len } => {
            out.array(*len);
            for (index, bytes) in bytes.chunks_exact(element.size()).enumerate() {
                read(element, bytes, out);
                out.item(index);
            }
        }
        Shape::Struct { fields, .. } => {
            out.structure(fields.len());
            for field in fields {
                read_field(field, bytes, out);
                out.field(&field.name);
            }
        }
        Shape::Opaque => out.bytes(bytes),
    }
}

fn read_field(field: &Field, bytes: &[u8], out: &mut impl Build) {
    let start = field.bit_offset / 8;
    let Some(bits) = field.bits else {
        return match bytes.get(start..start + field.kind.size()) {
            Some(slot) => read(&field.kind, slot, out),
            None => out.nil(),
        };
    };
    let end = (field.bit_offset + bits as usize).div_ceil(8).min(bytes.len());
    let Some(slot) = bytes.get(start..end) else { return out.nil() };
    let bits = bits.min(64);
    let number = (wide(slot) >> (field.bit_offset % 8)) & ((1u128 << bits) - 1);
    match &field.kind.shape {
        Shape::Bool => out.boolean(number != 0),
        Shape::Enum { signed, names } => read_enum(number, bits, *signed, names, out),
        Shape::Int { signed } => read_integer(number, bits, *signed, out),
        _ => out.unsigned(number as u64),
    }
}

/// 1, 2, 4 or 8 bytes; unsigned ones of 8 keep their bits.
#[inline]
fn integer(bytes: &[u8], signed: bool) -> i64 {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().unwrap_or([0; N])
    }
    match (bytes.len(), signed) {
        (1, false) => bytes[0].into(),
        (1, true) => i8::from_le_bytes([bytes[0]]).into(),
        (2, false) => u16::from_le_bytes(array(bytes)).into(),
        (2, true) => i16::from_le_bytes(array(bytes)).into(),
        (4, false) => u32::from_le_bytes(array(bytes)).into(),
        (4, true) => i32::from_le_bytes(array(bytes)).into(),
        _ => i64::from_le_bytes(array(bytes)),
    }
}

/// Up to 16 bytes, little-endian.
fn wide(bytes: &[u8]) -> u128 {
    bytes.iter().take(16).rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn read_integer(number: u128, bits: u32, signed: bool, out: &mut impl Build) {
    match signed {
        // __int128 has no Lua number; its bytes are exact.
        _ if bits > 64 => out.bytes(&number.to_le_bytes()[..bits as usize / 8]),
        true => out.signed(sign_extended(number, bits)),
        false => out.unsigned(number as u64),
    }
}

fn sign_extended(number: u128, bits: u32) -> i64 {
    let unused = 64 - bits.clamp(1, 64);
    (number as i64) << unused >> unused
}

fn read_enum(number: u128, bits: u32, signed: bool, names: &[(String, i64)], out: &mut impl Build) {
    let plain = if signed { sign_extended(number, bits) } else { number as i64 };
    match names.iter().find(|(_, n)| *n == plain) {
        Some((name, _)) => out.text(name.as_bytes()),
        None => read_integer(number, bits, signed, out),
    }
}

fn address4(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[..4]).unwrap_or_default())
}

fn address6(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..16]).unwrap_or_default())
}

/// Text of at most 64 bytes, made without memory that somebody would have to give back.
fn written(out: &mut impl Build, text: std::fmt::Arguments<'_>) {
    let mut buffer = Cursor::new([0u8; 64]);
    // An address and a prefix length always fit.
    let _ = buffer.write_fmt(text);
    let end = buffer.position() as usize;
    out.text(&buffer.get_ref()[..end]);
}
