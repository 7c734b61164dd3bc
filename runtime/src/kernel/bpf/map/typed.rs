//! Maps by value: keys and values as BTF describes them, per-CPU values as arrays.

use super::{Map, Write};
use crate::kernel::bpf::{Build, Value};
use crate::{Error, Result};

impl Map {
    /// # Errors
    /// EINVAL and ERANGE as [`crate::kernel::bpf::Type::encode`], naming the field.
    pub fn encode_key(&self, key: &Value) -> Result<Vec<u8>> {
        let mut out = vec![0; self.key_type().size()];
        self.encode_key_into(key, &mut out).map(|()| out)
    }

    /// As [`Map::encode_key`], into a key's place, all zero.
    pub fn encode_key_into(&self, key: &Value, out: &mut [u8]) -> Result<()> {
        self.key_type().encode_into(key, out).map_err(|e| self.blame(e, "key"))
    }

    pub fn decode_key(&self, key: &[u8]) -> Value {
        self.key_type().decode(key)
    }

    /// The bytes of one value, or of all CPUs' for per-CPU maps: an array gives one for each CPU (missing ones are
    /// zero), anything else is repeated for every CPU.
    pub fn encode_value(&self, value: &Value) -> Result<Vec<u8>> {
        let mut out = vec![0; self.stride()];
        self.encode_value_into(value, &mut out).map(|()| out)
    }

    /// As [`Map::encode_value`], into [`Map::stride`] bytes, all zero.
    pub fn encode_value_into(&self, value: &Value, out: &mut [u8]) -> Result<()> {
        let kind = self.value_type();
        let one = |v: &Value, out: &mut [u8]| {
            kind.encode_into(v, out).map_err(|e| self.blame(e, "value"))
        };
        if !self.info().kind.is_per_cpu() {
            return one(value, out);
        }
        if let Value::Bytes(bytes) = value
            && bytes.len() == out.len()
        {
            out.copy_from_slice(bytes);
            return Ok(());
        }
        let slot = kind.size().next_multiple_of(8).max(1);
        let cpus = out.len() / slot;
        match value {
            Value::Array(items) if items.len() > cpus => {
                let message = format!("{} values for {cpus} possible CPUs", items.len());
                return Err(Error::new("map.set", "ERANGE", message).subject(self.name()));
            }
            Value::Array(items) => {
                for (item, place) in items.iter().zip(out.chunks_exact_mut(slot)) {
                    one(item, &mut place[..kind.size()])?;
                }
            }
            same => {
                for place in out.chunks_exact_mut(slot) {
                    one(same, &mut place[..kind.size()])?;
                }
            }
        }
        Ok(())
    }

    /// A per-CPU value is an array, the first element of CPU 0.
    pub fn decode_value(&self, value: &[u8]) -> Value {
        let kind = self.value_type();
        match self.info().kind.is_per_cpu() {
            false => kind.decode(value),
            true => Value::Array(self.each_cpu(value).map(|v| kind.decode(v)).collect()),
        }
    }

    /// As [`Map::decode_value`], in the hands of `out`.
    pub fn decode_value_to(&self, value: &[u8], out: &mut impl Build) {
        if !self.info().kind.is_per_cpu() {
            return self.value_type().decode_to(value, out);
        }
        out.array(self.each_cpu(value).len());
        for (cpu, bytes) in self.each_cpu(value).enumerate() {
            self.value_type().decode_to(bytes, out);
            out.item(cpu);
        }
    }

    /// The values of a per-CPU element, each rounded up to 8 bytes.
    fn each_cpu<'v>(&self, value: &'v [u8]) -> std::slice::ChunksExact<'v, u8> {
        value.chunks_exact(self.value_type().size().next_multiple_of(8).max(1))
    }

    /// As [`Map::lookup`].
    pub fn get(&self, key: &Value) -> Result<Option<Value>> {
        let key = self.encode_key(key).map_err(|e| e.operation("map.get"))?;
        Ok(self.lookup(&key)?.map(|v| self.decode_value(&v)))
    }

    /// As [`Map::update`].
    pub fn set(&self, key: &Value, value: &Value, write: Write) -> Result<()> {
        let key = self.encode_key(key).map_err(|e| e.operation("map.set"))?;
        self.update(&key, &self.encode_value(value).map_err(|e| e.operation("map.set"))?, write)
    }

    /// As [`Map::remove`].
    pub fn delete(&self, key: &Value) -> Result<bool> {
        let key = self.encode_key(key).map_err(|e| e.operation("map.delete"))?;
        self.remove(&key)
    }

    /// All elements, read a page at a time.
    pub fn pairs(&self) -> impl Iterator<Item = Result<(Value, Value)>> + '_ {
        self.entries().map(|entry| {
            let (key, value) = entry?;
            Ok((self.decode_key(&key), self.decode_value(&value)))
        })
    }

    /// As [`Map::update_many`].
    pub fn set_many<'a>(
        &self,
        pairs: impl IntoIterator<Item = (&'a Value, &'a Value)>,
        write: Write,
    ) -> Result<usize> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, value) in pairs {
            keys.extend(self.encode_key(key).map_err(|e| e.operation("map.set_many"))?);
            values.extend(self.encode_value(value).map_err(|e| e.operation("map.set_many"))?);
        }
        self.update_many(&keys, &values, write)
    }

    /// As [`Map::remove_many`].
    pub fn delete_many<'a>(&self, keys: impl IntoIterator<Item = &'a Value>) -> Result<usize> {
        let mut packed = Vec::new();
        for key in keys {
            packed.extend(self.encode_key(key).map_err(|e| e.operation("map.delete_many"))?);
        }
        self.remove_many(&packed)
    }

    pub fn push(&self, value: &Value) -> Result<()> {
        self.push_bytes(&self.encode_value(value).map_err(|e| e.operation("map.push"))?)
    }

    pub fn pop(&self) -> Result<Option<Value>> {
        Ok(self.pop_bytes()?.map(|v| self.decode_value(&v)))
    }

    pub fn peek(&self) -> Result<Option<Value>> {
        Ok(self.peek_bytes()?.map(|v| self.decode_value(&v)))
    }

    fn blame(&self, error: Error, what: &str) -> Error {
        let message = format!("{what}: {}", error.message());
        error.because(message).subject(self.name())
    }
}
