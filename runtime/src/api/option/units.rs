//! Numbers with a unit: durations, rates, sizes, shares.

use std::time::Duration;

use mlua::Value;

use super::{Converted, FromOption};

/// Seconds as a number, or `"250ms"`, `"2s"`, `"1m"`.
impl FromOption for Duration {
    fn expects() -> String {
        "a duration: seconds, or \"250ms\", \"2s\", \"1m\"".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        let seconds = match &value {
            Value::Integer(i) => *i as f64,
            Value::Number(n) => *n,
            Value::String(text) => {
                let text = text.to_string_lossy();
                duration_seconds(&text).ok_or_else(|| {
                    Some(format!("\"{text}\" is not a duration (\"250ms\", \"2s\", \"1m\")"))
                })?
            }
            _ => return Err(None),
        };
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| Some(format!("{seconds} is not a duration: it must be 0 or more")))
    }
}

fn duration_seconds(text: &str) -> Option<f64> {
    with_unit(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)])
}

/// Parses `"250ms"`, `"2s"`, or bare seconds, for the command line.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok().or_else(|| duration_seconds(text))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Bits a second: a number, or `"10mbit"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub u64);

impl FromOption for Rate {
    fn expects() -> String {
        "a rate: bits a second, or \"10mbit\"".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        const UNITS: &[(&str, f64)] = &[
            ("bit", 1.0),
            ("kbit", 1e3),
            ("mbit", 1e6),
            ("gbit", 1e9),
            ("bps", 8.0),
            ("kbps", 8e3),
            ("mbps", 8e6),
        ];
        scaled(value, UNITS, "a rate (\"10mbit\")").map(Rate)
    }
}

/// Bytes: a number, or `"64k"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size(pub u64);

impl FromOption for Size {
    fn expects() -> String {
        "a size: bytes, or \"64k\"".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        scaled(value, SIZES, "a size (\"64k\", \"1m\")").map(Size)
    }
}

const SIZES: &[(&str, f64)] = &[
    ("", 1.0),
    ("b", 1.0),
    ("k", 1024.0),
    ("m", 1048576.0),
    ("g", 1073741824.0),
    ("kib", 1024.0),
    ("mib", 1048576.0),
    ("gib", 1073741824.0),
];

/// Parses a size as the command line and scripts write it.
pub fn parse_size(text: &str) -> Option<u64> {
    with_unit(&text.to_lowercase(), SIZES).filter(|n| *n >= 0.0).map(|n| n as u64)
}

/// A share from 0 to 1: a number, or `"5%"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl FromOption for Share {
    fn expects() -> String {
        "a share: 0 to 1, or \"5%\"".into()
    }
    fn from_option(value: Value) -> Converted<Self> {
        let share = match &value {
            Value::Integer(i) => *i as f64,
            Value::Number(n) => *n,
            Value::String(text) => with_unit(&text.to_string_lossy(), &[("%", 0.01), ("", 1.0)])
                .ok_or_else(|| {
                    Some(format!("\"{}\" is not a share (\"5%\")", text.to_string_lossy()))
                })?,
            _ => return Err(None),
        };
        if (0.0..=1.0).contains(&share) {
            Ok(Share(share))
        } else {
            Err(Some(format!("{share} is not a share: it must be 0 to 1, or \"0%\" to \"100%\"")))
        }
    }
}

fn scaled(value: Value, units: &[(&str, f64)], what: &str) -> Converted<u64> {
    let number = match &value {
        Value::Integer(i) => *i as f64,
        Value::Number(n) => *n,
        Value::String(text) => {
            let text = text.to_string_lossy();
            with_unit(&text.to_lowercase(), units)
                .ok_or_else(|| Some(format!("\"{text}\" is not {what}")))?
        }
        _ => return Err(None),
    };
    if number >= 0.0 && number < u64::MAX as f64 { Ok(number as u64) } else { Err(None) }
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let split =
        text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim();
    // A bare number counts in the base unit.
    let factor = units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, f)| *f)
        .or((unit.is_empty()).then_some(1.0))?;
    Some(number * factor)
}
