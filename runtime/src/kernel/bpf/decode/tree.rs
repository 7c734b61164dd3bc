//! Values as trees, for the tests of this layer.

use super::Build;
use crate::kernel::bpf::{Type, Value};

impl Type {
    /// What the first [`Type::size`] bytes say; nil when there are fewer.
    pub fn decode(&self, bytes: &[u8]) -> Value {
        let mut tree = Tree::default();
        self.decode_to(bytes, &mut tree);
        tree.finish()
    }
}

/// Makes [`Value`]s.
#[derive(Default)]
struct Tree {
    /// Values begun and not yet put into others.
    open: Vec<Value>,
}

impl Tree {
    fn finish(mut self) -> Value {
        self.open.pop().unwrap_or(Value::Nil)
    }
}

impl Build for Tree {
    fn nil(&mut self) {
        self.open.push(Value::Nil);
    }
    fn boolean(&mut self, value: bool) {
        self.open.push(Value::Bool(value));
    }
    fn signed(&mut self, value: i64) {
        self.open.push(Value::Int(value));
    }
    fn unsigned(&mut self, value: u64) {
        self.open.push(Value::Uint(value));
    }
    fn float(&mut self, value: f64) {
        self.open.push(Value::Float(value));
    }
    fn bytes(&mut self, value: &[u8]) {
        self.open.push(Value::Bytes(value.to_vec()));
    }
    fn text(&mut self, value: &[u8]) {
        self.open.push(match std::str::from_utf8(value) {
            Ok(text) => Value::Str(text.to_owned()),
            Err(_) => Value::Bytes(value.to_vec()),
        });
    }
    fn array(&mut self, len: usize) {
        self.open.push(Value::Array(Vec::with_capacity(len)));
    }
    fn item(&mut self, _: usize) {
        let value = self.open.pop().unwrap_or(Value::Nil);
        if let Some(Value::Array(items)) = self.open.last_mut() {
            items.push(value);
        }
    }
    fn structure(&mut self, fields: usize) {
        self.open.push(Value::Struct(Vec::with_capacity(fields)));
    }
    fn field(&mut self, name: &str) {
        let value = self.open.pop().unwrap_or(Value::Nil);
        if let Some(Value::Struct(fields)) = self.open.last_mut() {
            fields.push((name.to_owned(), value));
        }
    }
}
