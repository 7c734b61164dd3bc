//! Elements as [`Value`]s, for the tests of this layer: scripts get theirs built at once ([`Map::decode_value_to`]).

use crate::Result;
use crate::kernel::bpf::{Map, Value, Write};

impl Map {
    /// # Errors
    /// EINVAL and ERANGE as [`crate::kernel::bpf::Type::encode`], naming the field.
    fn encode_key(&self, key: &Value) -> Result<Vec<u8>> {
        let mut out = vec![0; self.key_type().size()];
        self.encode_key_into(key, &mut out).map(|()| out)
    }

    fn decode_key(&self, key: &[u8]) -> Value {
        self.key_type().decode(key)
    }

    /// A per-CPU value is an array, the first element of CPU 0.
    fn decode_value(&self, value: &[u8]) -> Value {
        let kind = self.value_type();
        match self.info().kind.is_per_cpu() {
            false => kind.decode(value),
            true => Value::Array(self.each_cpu(value).map(|v| kind.decode(v)).collect()),
        }
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
}
