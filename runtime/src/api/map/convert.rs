//! Lua values as the kernel layer takes them.

use mlua::{Table, Value};

use crate::api::error::from_lua;
use crate::api::handle::held;
use crate::api::link::Link;
use crate::api::option::expected;
use crate::kernel::bpf;
use crate::{Error, Result};

/// A Lua value as the kernel layer's codec takes it.
pub fn to_kernel(value: &Value) -> Result<bpf::Value> {
    Ok(match value {
        Value::Nil => bpf::Value::Nil,
        Value::Boolean(b) => bpf::Value::Bool(*b),
        Value::Integer(i) => bpf::Value::Int(*i),
        Value::Number(n) => bpf::Value::Float(*n),
        Value::String(text) => match text.to_str() {
            Ok(text) => bpf::Value::Str(text.to_owned()),
            Err(_) => bpf::Value::Bytes(text.as_bytes().to_vec()),
        },
        Value::Table(table) => table_to_kernel(table)?,
        other => match held::<Link>(other) {
            // devmaps are written with interface indexes.
            Some(link) => bpf::Value::Uint(link.index().into()),
            None => {
                let got = expected::describe(other);
                return Err(Error::invalid("map", format!("{got} cannot be stored in a map")));
            }
        },
    })
}

fn table_to_kernel(table: &Table) -> Result<bpf::Value> {
    let length = table.raw_len();
    if length > 0 {
        if table.pairs::<Value, Value>().count() != length {
            return Err(Error::invalid("map", "a table is both an array and a table of fields"));
        }
        let items = table.sequence_values::<Value>().map(|v| to_kernel(&v.map_err(from_lua)?));
        return Ok(bpf::Value::Array(items.collect::<Result<_>>()?));
    }
    let fields = table.pairs::<Value, Value>().map(|pair| {
        let (key, value) = pair.map_err(from_lua)?;
        Ok((key.to_string().map_err(from_lua)?, to_kernel(&value)?))
    });
    Ok(bpf::Value::Struct(fields.collect::<Result<_>>()?))
}
