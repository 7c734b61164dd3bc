//! The options of link kinds as data: a word, its attribute number, how it is written on the wire.
//!
//! One table drives encoding, decoding and the list of words a script may use.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::kernel::netlink::attribute::{self, Writer};
use crate::nearest::nearest;
use crate::{Error, Result};

/// A value of an option, as a script gives it or reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Bool(bool),
    Number(u64),
    Text(String),
    Address(IpAddr),
    /// A link in the same namespace, by index.
    Link(u32),
}

/// How an option is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    Bool,
    U8,
    U16,
    U32,
    /// In network order, as ports are.
    Be16,
    /// A 32-bit number in network order, with a flag to be set in two further attributes (GRE's keys).
    GreKey {
        flags: u16,
    },
    /// A duration in hundredths of a second, given in seconds (bridge timers: USER_HZ ticks).
    Ticks,
    /// An address: its attribute differs by family (`v4`, then this one).
    Address {
        v6: u16,
    },
    Link,
    /// Present or absent, without a value.
    Flag,
    /// One of some words; `bytes` is the width on the wire.
    Word(&'static [(&'static str, u64)], u8),
    /// As `Word`, in network order.
    BeWord(&'static [(&'static str, u64)]),
}

/// One option of a link kind.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub word: &'static str,
    pub attribute: u16,
    pub form: Form,
}

/// A row of a kind's table.
pub const fn field(word: &'static str, attribute: u16, form: Form) -> Field {
    Field { word, attribute, form }
}

/// GRE_KEY in the flags of both directions (`include/uapi/linux/if_tunnel.h`), in network order on the wire.
const GRE_KEY: u16 = 0x2000;

impl Field {
    /// Appends `value`.
    ///
    /// # Errors
    /// EINVAL when the value is of another type, too large, or an unknown word (the hint lists the words).
    pub fn write(&self, into: &mut Writer, value: &Value) -> Result<()> {
        let attribute = self.attribute;
        match self.form {
            Form::Bool => into.u8(attribute, u8::from(self.truth(value)?)),
            Form::U8 => into.u8(attribute, self.number(value, u8::MAX.into())? as u8),
            Form::U16 => into.u16(attribute, self.number(value, u16::MAX.into())? as u16),
            Form::U32 => into.u32(attribute, self.number(value, u32::MAX.into())? as u32),
            Form::Be16 => {
                let number = self.number(value, u16::MAX.into())? as u16;
                into.put(attribute, &number.to_be_bytes())
            }
            Form::GreKey { flags } => {
                let number = self.number(value, u32::MAX.into())? as u32;
                into.put(flags, &GRE_KEY.to_be_bytes());
                into.put(attribute, &number.to_be_bytes())
            }
            Form::Ticks => {
                let seconds = self.number(value, u64::from(u32::MAX) / 100)?;
                into.u32(attribute, seconds as u32 * 100)
            }
            Form::Address { v6 } => match value {
                Value::Address(IpAddr::V4(ip)) if attribute != 0 => {
                    into.put(attribute, &ip.octets())
                }
                Value::Address(IpAddr::V6(ip)) if v6 != 0 => into.put(v6, &ip.octets()),
                Value::Address(_) => {
                    let family = if v6 == 0 { "IPv4" } else { "IPv6" };
                    return Err(self.wrong(&format!("an {family} address")));
                }
                _ => return Err(self.wrong("an address")),
            },
            Form::Link => match value {
                Value::Link(index) => into.u32(attribute, *index),
                _ => return Err(self.wrong("a link")),
            },
            Form::Flag => {
                if self.truth(value)? {
                    into.put(attribute, &[]);
                }
                into
            }
            Form::Word(words, width) => {
                let number = self.chosen(words, value)?;
                into.put(attribute, &number.to_ne_bytes()[..usize::from(width)])
            }
            Form::BeWord(words) => {
                into.put(attribute, &(self.chosen(words, value)? as u16).to_be_bytes())
            }
        };
        Ok(())
    }

    /// The value in a kind's data as the kernel reported it; `None` when it is not among it.
    pub fn read(&self, data: &[u8]) -> Option<Value> {
        if let Form::Address { v6 } = self.form {
            let v4 = attribute::find(data, self.attribute)
                .and_then(|b| <[u8; 4]>::try_from(b).ok().map(IpAddr::from));
            let v6 = attribute::find(data, v6)
                .and_then(|b| <[u8; 16]>::try_from(b).ok().map(IpAddr::from));
            let found = v4.or(v6).or_else(|| {
                // One attribute for both families (ip6gre).
                let bytes = attribute::find(data, self.attribute)?;
                <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
            });
            return found.filter(|ip| !ip.is_unspecified()).map(Value::Address);
        }
        let bytes = attribute::find(data, self.attribute)?;
        let word = |words: &[(&str, u64)], number: u64| {
            let known = words.iter().find(|(_, n)| *n == number);
            known.map_or(Value::Number(number), |(word, _)| Value::Text((*word).to_owned()))
        };
        let big = || bytes.iter().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
        let number = attribute::number(bytes);
        Some(match self.form {
            Form::Bool => Value::Bool(number != 0),
            Form::Flag => Value::Bool(true),
            Form::U8 | Form::U16 | Form::U32 => Value::Number(number),
            Form::Be16 | Form::GreKey { .. } => Value::Number(big()),
            Form::Ticks => Value::Number(number / 100),
            Form::Link => Value::Link(number as u32),
            Form::Word(words, _) => word(words, number),
            Form::BeWord(words) => word(words, big()),
            Form::Address { .. } => return None,
        })
    }

    fn number(&self, value: &Value, most: u64) -> Result<u64> {
        match value {
            Value::Number(n) if *n <= most => Ok(*n),
            Value::Number(n) => {
                let text = format!("{} is at most {most}, this is {n}", self.word);
                Err(Error::invalid("link", text))
            }
            _ => Err(self.wrong("a number")),
        }
    }

    fn truth(&self, value: &Value) -> Result<bool> {
        match value {
            Value::Bool(b) => Ok(*b),
            Value::Number(n @ (0 | 1)) => Ok(*n == 1),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn chosen(&self, words: &[(&'static str, u64)], value: &Value) -> Result<u64> {
        let word = |wanted: &str| words.iter().find(|(word, _)| *word == wanted).map(|(_, n)| *n);
        match value {
            Value::Number(n) => Ok(*n),
            // A switch that the kernel has as a number.
            Value::Bool(on) if word("on").is_some() => {
                word(if *on { "on" } else { "off" }).ok_or_else(|| self.wrong("a word"))
            }
            Value::Text(text) => match words.iter().find(|(word, _)| word == text) {
                Some((_, number)) => Ok(*number),
                None => {
                    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                    let hint = match nearest(text, &known) {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("one of {}", known.join(", ")),
                    };
                    let text = format!("{} cannot be {text:?}", self.word);
                    Err(Error::invalid("link", text).hint(hint))
                }
            },
            _ => Err(self.wrong("a word")),
        }
    }

    fn wrong(&self, wanted: &str) -> Error {
        Error::invalid("link", format!("{} takes {wanted}", self.word))
    }
}
