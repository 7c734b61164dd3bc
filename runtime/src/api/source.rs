//! The text of the chunks that were loaded, by the name errors give them.
//!
//! A file can be read again, and may have changed since; `-e`, standard input and the lines of a prompt exist nowhere
//! else. Chunks are compiled and errors are located on the one thread that runs Lua.

use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static SOURCES: RefCell<HashMap<String, Box<str>>> = RefCell::default();
}

/// Keeps the text of a chunk; a later one of the same name replaces it.
pub fn keep(name: &str, source: &[u8]) {
    let text = String::from_utf8_lossy(source).into_owned().into_boxed_str();
    SOURCES.with_borrow_mut(|sources| sources.insert(name.to_owned(), text));
}

/// Lets go of the chunks whose names begin so.
pub fn forget(prefix: &str) {
    SOURCES.with_borrow_mut(|sources| sources.retain(|name, _| !name.starts_with(prefix)));
}

/// A line of a chunk, counted from 1; of the file of that name when no such chunk was loaded.
pub fn line(name: &str, line: u32) -> Option<String> {
    let index = line.checked_sub(1)? as usize;
    SOURCES.with_borrow(|sources| match sources.get(name) {
        Some(text) => text.lines().nth(index).map(str::to_owned),
        None => std::fs::read_to_string(name).ok()?.lines().nth(index).map(str::to_owned),
    })
}
