//! Maps by value: keys and values as BTF describes them, per-CPU values as arrays.

#[cfg(test)]
mod by_value;

use super::Map;
use crate::kernel::bpf::{Build, Value};
use crate::{Error, Result};

impl Map {
    /// Into a key's place, all zero.
    ///
    /// # Errors
    /// EINVAL and ERANGE as [`crate::kernel::bpf::Type::encode`], naming the field.
    pub fn encode_key_into(&self, key: &Value, out: &mut [u8]) -> Result<()> {
        self.key_type().encode_into(key, out).map_err(|e| self.blame(e, "key"))
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

    /// In the hands of `out`. A per-CPU value is an array, the first element of CPU 0.
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

    fn blame(&self, error: Error, what: &str) -> Error {
        let message = format!("{what}: {}", error.message());
        error.because(message).subject(self.name())
    }
}
