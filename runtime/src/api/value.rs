//! Plain data on its way to Lua: built without a VM at hand, so that futures and kernel code can make it.

use std::net::IpAddr;

use mlua::{IntoLua, Lua, Value};

/// A tree of plain Lua data.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Data {
    #[default]
    Nil,
    Bool(bool),
    Int(i64),
    Num(f64),
    Str(Vec<u8>),
    Array(Vec<Data>),
    /// Fields that are nil are left out.
    Record(Vec<(&'static str, Data)>),
    Map(Vec<(String, Data)>),
}

/// A record, written as a table constructor: `record! { name: link.name, index: link.index }`.
#[macro_export]
macro_rules! record {
    ($($name:ident : $value:expr),* $(,)?) => {
        $crate::api::value::Data::Record(vec![
            $((stringify!($name).trim_start_matches("r#"), $crate::api::value::Data::from($value))),*
        ])
    };
}

impl IntoLua for Data {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        Ok(match self {
            Data::Nil => Value::Nil,
            Data::Bool(b) => Value::Boolean(b),
            Data::Int(i) => Value::Integer(i),
            Data::Num(n) => Value::Number(n),
            Data::Str(bytes) => Value::String(lua.create_string(bytes)?),
            Data::Array(items) => Value::Table(lua.create_sequence_from(items)?),
            Data::Record(fields) => {
                let table = lua.create_table_with_capacity(0, fields.len())?;
                for (name, value) in fields.into_iter().filter(|(_, v)| *v != Data::Nil) {
                    table.raw_set(name, value)?;
                }
                Value::Table(table)
            }
            Data::Map(fields) => Value::Table(lua.create_table_from(fields)?),
        })
    }
}

impl From<bool> for Data {
    fn from(value: bool) -> Self {
        Data::Bool(value)
    }
}
impl From<f64> for Data {
    fn from(value: f64) -> Self {
        Data::Num(value)
    }
}
impl From<&str> for Data {
    fn from(value: &str) -> Self {
        Data::Str(value.as_bytes().to_vec())
    }
}
impl From<String> for Data {
    fn from(value: String) -> Self {
        Data::Str(value.into_bytes())
    }
}
impl From<IpAddr> for Data {
    fn from(value: IpAddr) -> Self {
        value.to_string().into()
    }
}
impl From<ipnetwork::IpNetwork> for Data {
    fn from(value: ipnetwork::IpNetwork) -> Self {
        value.to_string().into()
    }
}
/// In seconds.
impl From<std::time::Duration> for Data {
    fn from(value: std::time::Duration) -> Self {
        Data::Num(value.as_secs_f64())
    }
}
impl<T: Into<Data>> From<Option<T>> for Data {
    fn from(value: Option<T>) -> Self {
        value.map_or(Data::Nil, Into::into)
    }
}
impl<T: Into<Data>> From<Vec<T>> for Data {
    fn from(value: Vec<T>) -> Self {
        Data::Array(value.into_iter().map(Into::into).collect())
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Data {
            /// Unsigned 64-bit counters keep their bits, as Lua's own integers do.
            fn from(value: $type) -> Self {
                Data::Int(value as i64)
            }
        }
    )*};
}
integers!(u16, u32, i32, i64, u64, usize);
