//! [`Value`]s to bytes, by [`Type`]. Errors name the field's path, its range and the declaration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::btf::{Field, Shape, Type, Value};
use crate::nearest::nearest;
use crate::{Error, Result};

impl Type {
    /// The bytes of `value`, exactly [`Type::size`] long. Fields that are not named are zero.
    ///
    /// # Errors
    /// EINVAL for a wrong type or an unknown field, ERANGE for a number that does not fit; the message names the field.
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>> {
        let mut out = vec![0u8; self.size()];
        self.encode_into(value, &mut out).map(|()| out)
    }

    /// As [`Type::encode`], into a place of that size that is all zero.
    pub fn encode_into(&self, value: &Value, out: &mut [u8]) -> Result<()> {
        let mut path = Path(Vec::new());
        write(self, value, out, &mut path).map_err(|fault| fault.into_error(self, &path))
    }
}

impl Type {
    /// Writes a number that fits, where the type is nothing but one; false leaves it to [`Type::encode_into`].
    pub fn encode_number(&self, number: i64, out: &mut [u8]) -> bool {
        let Shape::Int { signed } = self.shape else { return false };
        let fits = match (out.len(), signed) {
            (8, _) => true,
            (1 | 2 | 4, true) => {
                let unused = 64 - out.len() * 8;
                number << unused >> unused == number
            }
            (1 | 2 | 4, false) => number >> (out.len() * 8) == 0,
            _ => false,
        };
        if fits {
            out.copy_from_slice(&number.to_le_bytes()[..out.len()]);
        }
        fits
    }
}

/// Where in the value we are, for messages: `.port`, `[3]`.
struct Path(Vec<Step>);

enum Step {
    Field(String),
    Index(usize),
}

impl Path {
    fn text(&self) -> String {
        let mut out = String::new();
        for step in &self.0 {
            match step {
                Step::Field(name) if out.is_empty() => out.push_str(name),
                Step::Field(name) => out.extend([".", name]),
                Step::Index(i) => out.push_str(&format!("[{i}]")),
            }
        }
        out
    }
}

struct Fault {
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Fault { code: "EINVAL", message: message.into(), hint: None }
    }

    fn into_error(self, kind: &Type, path: &Path) -> Error {
        let place = path.text();
        let message = match place.is_empty() {
            true => self.message,
            false => format!("{place}: {}", self.message),
        };
        let mut error = Error::new("map", self.code, message);
        if let Some(hint) = self.hint {
            error = error.hint(hint);
        }
        match kind.fields().is_empty() {
            true => error,
            false => error.detail(kind.declaration()),
        }
    }
}

type Outcome = std::result::Result<(), Fault>;

fn write(kind: &Type, value: &Value, out: &mut [u8], path: &mut Path) -> Outcome {
    if let Some(bytes) = raw(kind, value)
        && bytes.len() == out.len()
    {
        out.copy_from_slice(bytes);
        return Ok(());
    }
    match &kind.shape {
        Shape::Int { .. } | Shape::Bool | Shape::Enum { .. } => {
            let bits = out.len() as u32 * 8;
            let number = number_of(kind, value, bits)?;
            out.copy_from_slice(&number.to_le_bytes()[..out.len()]);
        }
        Shape::BigEndian => {
            let number = integer(kind, value, out.len() as u32 * 8, false)?;
            out.copy_from_slice(&number.to_be_bytes()[16 - out.len()..]);
        }
        Shape::Float => write_float(kind, value, out)?,
        Shape::Ip4 => out.copy_from_slice(&ip4(kind, value)?.octets()),
        Shape::Ip6 => out.copy_from_slice(&ip6(kind, value)?.octets()),
        Shape::Cidr => write_cidr(value, out)?,
        Shape::Text => write_text(kind, value, out)?,
        Shape::Array { element, len } => write_array(kind, element, *len, value, out, path)?,
        Shape::Struct { fields, .. } => write_struct(kind, fields, value, out, path)?,
        Shape::Opaque => match value {
            Value::Nil => out.fill(0),
            _ => return Err(mismatch(kind, value)),
        },
    }
    Ok(())
}

/// Bytes as they lie in memory. Text that happens to be UTF-8 counts where nothing else is text: without BTF, and for
/// whole structs and arrays, as `string.pack` makes them.
fn raw<'v>(kind: &Type, value: &'v Value) -> Option<&'v [u8]> {
    let packed = matches!(kind.shape, Shape::Opaque | Shape::Struct { .. } | Shape::Array { .. });
    // Integers wider than Lua's are bytes when they are read.
    let packed = packed || matches!(kind.shape, Shape::Int { .. } if kind.size() > 8);
    match value {
        Value::Bytes(bytes) if !matches!(kind.shape, Shape::Text) => Some(bytes),
        Value::Str(text) if packed || kind.untyped => Some(text.as_bytes()),
        _ => None,
    }
}

fn write_float(kind: &Type, value: &Value, out: &mut [u8]) -> Outcome {
    let number = match value {
        Value::Float(f) => *f,
        Value::Int(i) => *i as f64,
        Value::Uint(u) => *u as f64,
        _ => return Err(mismatch(kind, value)),
    };
    match out.len() {
        4 => out.copy_from_slice(&(number as f32).to_ne_bytes()),
        8 => out.copy_from_slice(&number.to_ne_bytes()),
        _ => return Err(mismatch(kind, value)),
    }
    Ok(())
}

fn write_text(kind: &Type, value: &Value, out: &mut [u8]) -> Outcome {
    let text = match value {
        Value::Str(s) => s.as_bytes(),
        Value::Bytes(b) => b,
        _ => return Err(mismatch(kind, value)),
    };
    if text.len() > out.len() {
        return Err(Fault {
            code: "ERANGE",
            message: format!("{} bytes do not fit {}", text.len(), kind.name()),
            hint: None,
        });
    }
    out.fill(0);
    out[..text.len()].copy_from_slice(text);
    Ok(())
}

fn write_array(
    kind: &Type,
    element: &Type,
    len: usize,
    value: &Value,
    out: &mut [u8],
    path: &mut Path,
) -> Outcome {
    let Value::Array(items) = value else {
        // An empty Lua table is both.
        return match value {
            Value::Struct(fields) if fields.is_empty() => Ok(()),
            _ => Err(mismatch(kind, value)),
        };
    };
    if items.len() > len {
        return Err(Fault {
            code: "ERANGE",
            message: format!("{} elements do not fit {}", items.len(), kind.name()),
            hint: None,
        });
    }
    for (i, item) in items.iter().enumerate() {
        path.0.push(Step::Index(i + 1));
        write(element, item, &mut out[i * element.size()..(i + 1) * element.size()], path)?;
        path.0.pop();
    }
    Ok(())
}

fn write_struct(
    kind: &Type,
    fields: &[Field],
    value: &Value,
    out: &mut [u8],
    path: &mut Path,
) -> Outcome {
    let given = match value {
        Value::Struct(given) => given,
        Value::Array(items) if items.is_empty() => return Ok(()),
        _ => return Err(mismatch(kind, value)),
    };
    let mut done: Vec<&Field> = Vec::with_capacity(given.len());
    for (name, item) in given {
        let Some(field) = fields.iter().find(|f| f.name == *name) else {
            return Err(unknown_field(kind, name));
        };
        path.0.push(Step::Field(name.clone()));
        match done.iter().find(|other| other.overlaps(field)) {
            None => write_field(field, item, out, path)?,
            Some(other) => {
                // Members of one union: as they come out of a map they agree, in whatever order they are given.
                let before = out.to_vec();
                field.clear(out);
                write_field(field, item, out, path)?;
                if before != out {
                    let mut both = [(other.bit_offset, &other.name), (field.bit_offset, name)];
                    both.sort();
                    let [(_, first), (_, second)] = both;
                    path.0.pop();
                    return Err(Fault::new(format!(
                        "\"{first}\" and \"{second}\" share their bytes, and differ: give one of them"
                    )));
                }
            }
        }
        done.push(field);
        path.0.pop();
    }
    Ok(())
}

fn write_field(field: &Field, item: &Value, out: &mut [u8], path: &mut Path) -> Outcome {
    if let Some(bits) = field.bits {
        write_bits(out, field, bits, number_of(&field.kind, item, bits)?);
        return Ok(());
    }
    match out.get_mut(field.bytes()) {
        Some(slot) => write(&field.kind, item, slot, path),
        None => Err(Fault::new("the field lies outside of its struct")),
    }
}

impl Field {
    /// Where it is, from the start of its struct.
    fn bit_range(&self) -> std::ops::Range<usize> {
        let length = self.bits.map_or(self.kind.size() * 8, |bits| bits as usize);
        self.bit_offset..self.bit_offset + length
    }

    fn bytes(&self) -> std::ops::Range<usize> {
        self.bit_offset / 8..self.bit_offset / 8 + self.kind.size()
    }

    fn overlaps(&self, other: &Field) -> bool {
        let (a, b) = (self.bit_range(), other.bit_range());
        a.start < b.end && b.start < a.end
    }

    /// Makes it zero.
    fn clear(&self, out: &mut [u8]) {
        match self.bits {
            Some(bits) => write_bits(out, self, bits, 0),
            None => {
                if let Some(slot) = out.get_mut(self.bytes()) {
                    slot.fill(0);
                }
            }
        }
    }
}

fn unknown_field(kind: &Type, name: &str) -> Fault {
    let names = kind.fields();
    let hint = match nearest(name, &names) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("it has {}", names.join(", ")),
    };
    Fault {
        code: "EINVAL",
        message: format!("{} has no field \"{name}\"", kind.name()),
        hint: Some(hint),
    }
}

fn mismatch(kind: &Type, value: &Value) -> Fault {
    let got = match value {
        Value::Nil => "nil".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Int(_) | Value::Uint(_) | Value::Float(_) => "a number".to_owned(),
        Value::Bytes(b) => format!("{} bytes", b.len()),
        Value::Str(s) => format!("\"{s}\""),
        Value::Array(_) => "an array".to_owned(),
        Value::Struct(_) => "a table of fields".to_owned(),
    };
    let wants = match &kind.shape {
        Shape::Int { .. } | Shape::BigEndian => "an integer".to_owned(),
        Shape::Float => "a number".to_owned(),
        Shape::Bool => "a boolean".to_owned(),
        Shape::Enum { names, .. } => {
            let words: Vec<&str> = names.iter().take(8).map(|(n, _)| n.as_str()).collect();
            format!("one of {}", words.join(", "))
        }
        Shape::Ip4 => "an IPv4 address or an integer".to_owned(),
        Shape::Ip6 => "an IPv6 address".to_owned(),
        Shape::Cidr if kind.size() == 8 => "an IPv4 CIDR such as \"10.0.0.0/8\"".to_owned(),
        Shape::Cidr => "an IPv6 CIDR such as \"fd00::/8\"".to_owned(),
        Shape::Text => "a string".to_owned(),
        Shape::Array { .. } => "an array".to_owned(),
        Shape::Struct { .. } => "a table of fields".to_owned(),
        Shape::Opaque => format!("a string of {} bytes", kind.size()),
    };
    Fault::new(format!("{} takes {wants}, not {got}", kind.name()))
}

/// The number of an integer, boolean or enum, checked against `bits`.
fn number_of(kind: &Type, value: &Value, bits: u32) -> std::result::Result<i128, Fault> {
    match &kind.shape {
        Shape::Bool => match value {
            Value::Bool(b) => Ok(i128::from(*b)),
            Value::Int(0 | 1) | Value::Uint(0 | 1) => integer(kind, value, bits, false),
            _ => Err(mismatch(kind, value)),
        },
        Shape::Enum { signed, names } => match value {
            Value::Str(word) => match names.iter().find(|(n, _)| n == word) {
                Some((_, number)) => Ok(i128::from(*number)),
                None => Err(mismatch(kind, value)),
            },
            _ => integer(kind, value, bits, *signed),
        },
        Shape::Int { signed } => integer(kind, value, bits, *signed),
        _ => integer(kind, value, bits, false),
    }
}

fn integer(
    kind: &Type,
    value: &Value,
    bits: u32,
    signed: bool,
) -> std::result::Result<i128, Fault> {
    let number = match value {
        // Lua's integers have 64 bits: one read out of 2^63 and more goes back in as it came.
        Value::Int(i) if bits == 64 && !signed => i128::from(*i as u64),
        Value::Int(i) => i128::from(*i),
        Value::Uint(u) => i128::from(*u),
        Value::Float(f) if f.fract() == 0.0 && f.abs() < 2f64.powi(65) => *f as i128,
        _ => return Err(mismatch(kind, value)),
    };
    if bits >= 128 {
        return Ok(number);
    }
    let (low, high) = match signed {
        true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        false => (0, (1i128 << bits) - 1),
    };
    if !(low..=high).contains(&number) {
        let width = match bits as usize == kind.size() * 8 {
            true => kind.name(),
            false => format!("{} : {bits}", kind.name()),
        };
        return Err(Fault {
            code: "ERANGE",
            message: format!("{number} does not fit {width} ({low} to {high})"),
            hint: None,
        });
    }
    Ok(number)
}

fn ip4(kind: &Type, value: &Value) -> std::result::Result<Ipv4Addr, Fault> {
    match value {
        Value::Str(text) => text.parse().map_err(|_| mismatch(kind, value)),
        _ => integer(kind, value, 32, false).map(|n| Ipv4Addr::from(n as u32)),
    }
}

fn ip6(kind: &Type, value: &Value) -> std::result::Result<Ipv6Addr, Fault> {
    match value {
        Value::Str(text) => text.parse().map_err(|_| mismatch(kind, value)),
        _ => Err(mismatch(kind, value)),
    }
}

/// The prefix length in host order, then the address with its host bits cleared.
fn write_cidr(value: &Value, out: &mut [u8]) -> Outcome {
    let wide = out.len() == 20;
    let kind = Type::cidr(out.len()).ok_or_else(|| Fault::new("not an LPM key"))?;
    let Value::Str(text) = value else { return Err(mismatch(&kind, value)) };
    let full = if wide { 128 } else { 32 };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, length.parse().ok()),
        None => (text.as_str(), Some(full)),
    };
    let length: u32 = length.filter(|n| *n <= full).ok_or_else(|| mismatch(&kind, value))?;
    out[..4].copy_from_slice(&length.to_ne_bytes());
    match address.parse() {
        Ok(IpAddr::V4(a)) if !wide => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            out[4..].copy_from_slice(&(a.to_bits() & mask).to_be_bytes());
        }
        Ok(IpAddr::V6(a)) if wide => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            out[4..].copy_from_slice(&(a.to_bits() & mask).to_be_bytes());
        }
        _ => return Err(mismatch(&kind, value)),
    }
    Ok(())
}

/// Writes `bits` bits at the field's place (little-endian bit order, as clang lays them out for bpfel).
fn write_bits(out: &mut [u8], field: &Field, bits: u32, number: i128) {
    for i in 0..bits as usize {
        let at = field.bit_offset + i;
        let Some(byte) = out.get_mut(at / 8) else { return };
        let mask = 1 << (at % 8);
        match (number >> i) & 1 {
            1 => *byte |= mask,
            _ => *byte &= !mask,
        }
    }
}
