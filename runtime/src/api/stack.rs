//! Elements and records straight onto Lua's stack: what is read by the million takes no detour through other values.

use mlua::{Lua, Table, Value, ffi};

use crate::kernel::bpf::records::{Batch, Line};
use crate::kernel::bpf::{Build, Column, Type};

/// Makes one Lua value of bytes. Numbers, which are most, do not even enter Lua.
pub fn value(lua: &Lua, kind: &Type, bytes: &[u8]) -> mlua::Result<Value> {
    match kind.number(bytes) {
        Some(number) => Ok(Value::Integer(number)),
        None => build(lua, |out| kind.decode_to(bytes, out)),
    }
}

/// The one value that `make` makes. It must own nothing while it calls `out`: Lua leaves by a long jump when memory ends.
pub fn build(lua: &Lua, make: impl Fn(&mut Stack)) -> mlua::Result<Value> {
    // SAFETY: the closure runs protected and leaves one value on the stack; what it captures are references, and the
    // frames in it own nothing that an error of Lua would leak.
    unsafe { lua.exec_raw((), |state| make(&mut Stack { state, names: None })) }
}

/// A batch as Lua takes it.
pub struct Taken {
    pub records: Table,
    /// By index: bytes behind the type's size; nil when no record has any.
    pub rests: Value,
    /// By index: lengths of records shorter than the type, which are not in `records`; nil when none is.
    pub short: Value,
}

/// All records of a batch, by their type or as bytes. Up to `padding` bytes more than the type has mean nothing.
pub fn records(
    lua: &Lua,
    kind: Option<&Type>,
    padding: usize,
    batch: &Batch,
) -> mlua::Result<Taken> {
    const RECORDS: i32 = 1;
    const RESTS: i32 = 2;
    const SHORT: i32 = 3;
    const NAMES: i32 = 4;
    // SAFETY: as in `build`; the closure starts with an empty stack and leaves three values on it.
    let (records, rests, short) = unsafe {
        lua.exec_raw((), |state| {
            let mut out = Stack { state, names: None };
            out.array(batch.len());
            out.nil();
            out.nil();
            out.array(0);
            for (index, bytes) in batch.iter().enumerate() {
                let at = index as ffi::lua_Integer + 1;
                let size = kind.map_or(bytes.len(), Type::size);
                out.names = Some(Names { table: NAMES, next: 0, known: out.known() });
                match kind {
                    Some(_) if bytes.len() < size => {
                        ffi::lua_pushinteger(state, bytes.len() as ffi::lua_Integer);
                        put(state, SHORT, at);
                        continue;
                    }
                    Some(kind) => kind.decode_to(bytes, &mut out),
                    None => out.bytes(bytes),
                }
                ffi::lua_rawseti(state, RECORDS, at);
                if bytes.len() > size + padding {
                    out.bytes(&bytes[size..]);
                    put(state, RESTS, at);
                }
            }
            ffi::lua_settop(state, SHORT);
        })?
    };
    Ok(Taken { records, rests, short })
}

/// Some fields of all records of a batch, each into a list of its own: the n-th of `lists` gets the n-th of `columns`, by
/// record. What is left in a list of an earlier, longer batch stays there. Gives what [`Taken`] has beside the records.
pub fn columns(
    lua: &Lua,
    kind: &Type,
    columns: &[Column],
    lists: Table,
    padding: usize,
    batch: &Batch,
) -> mlua::Result<(Value, Value)> {
    const LISTS: i32 = 1;
    const RESTS: i32 = 2;
    const SHORT: i32 = 3;
    let size = kind.size();
    // SAFETY: as in `build`; the closure starts with the lists alone on the stack, whose members are put above two values
    // that it leaves there.
    unsafe {
        lua.exec_raw(lists, |state| {
            let mut out = Stack { state, names: None };
            out.nil();
            out.nil();
            ffi::luaL_checkstack(state, columns.len() as i32 + 5, std::ptr::null());
            for number in 1..=columns.len() {
                ffi::lua_rawgeti(state, LISTS, number as ffi::lua_Integer);
                ffi::luaL_checktype(state, -1, ffi::LUA_TTABLE);
            }
            for (index, bytes) in batch.iter().enumerate() {
                let at = index as ffi::lua_Integer + 1;
                if bytes.len() < size {
                    ffi::lua_pushinteger(state, bytes.len() as ffi::lua_Integer);
                    put(state, SHORT, at);
                    continue;
                }
                for (list, column) in (SHORT + 1..).zip(columns) {
                    match column.number(bytes) {
                        Some(number) => ffi::lua_pushinteger(state, number),
                        None => column.decode_to(bytes, &mut out),
                    }
                    ffi::lua_rawseti(state, list, at);
                }
                if bytes.len() > size + padding {
                    out.bytes(&bytes[size..]);
                    put(state, RESTS, at);
                }
            }
            ffi::lua_settop(state, SHORT);
            ffi::lua_remove(state, LISTS);
        })
    }
}

/// Pops a value into the table at `place`, which is made when there is none.
///
/// # Safety
/// As [`Build`] for [`Stack`]; `place` is nil or a table.
unsafe fn put(state: *mut ffi::lua_State, place: i32, at: ffi::lua_Integer) {
    // SAFETY: of the caller.
    unsafe {
        if ffi::lua_type(state, place) == ffi::LUA_TNIL {
            ffi::lua_createtable(state, 0, 0);
            ffi::lua_replace(state, place);
        }
        ffi::lua_rawseti(state, place, at);
    }
}

/// Lines of `bpf_printk`: their texts, and what else is known of each.
pub fn lines(lua: &Lua, lines: &[Line]) -> mlua::Result<Taken> {
    let records = lua.create_sequence_from(lines.iter().map(|line| line.text.as_str()))?;
    let rests = lua.create_table_with_capacity(lines.len(), 0)?;
    for (index, line) in lines.iter().enumerate() {
        let about = lua.create_table_with_capacity(0, 3)?;
        about.raw_set("cpu", line.cpu)?;
        about.raw_set("thread", line.thread)?;
        about.raw_set("time", line.time.as_secs_f64())?;
        rests.raw_set(index + 1, about)?;
    }
    Ok(Taken { records, rests: Value::Table(rests), short: Value::Nil })
}

/// The top of a coroutine's stack, inside of a protected call.
pub struct Stack {
    state: *mut ffi::lua_State,
    names: Option<Names>,
}

/// Field names as Lua strings: every record of a type asks for the same ones in the same order, so from the second on
/// they are found by their number.
struct Names {
    /// Where on the stack they are, an array.
    table: i32,
    next: ffi::lua_Integer,
    /// How many there are.
    known: ffi::lua_Integer,
}

impl Stack {
    /// Names that the records before have asked for.
    fn known(&self) -> ffi::lua_Integer {
        self.names.as_ref().map_or(0, |names| names.known.max(names.next))
    }

    /// # Safety
    /// As the calls of [`Build`] below.
    unsafe fn push_name(&mut self, name: &str) {
        // SAFETY: of the caller.
        unsafe {
            let Some(names) = &mut self.names else {
                ffi::lua_pushlstring(self.state, name.as_ptr().cast(), name.len());
                return;
            };
            names.next += 1;
            if names.next <= names.known {
                ffi::lua_rawgeti(self.state, names.table, names.next);
                return;
            }
            ffi::lua_pushlstring(self.state, name.as_ptr().cast(), name.len());
            ffi::lua_pushvalue(self.state, -1);
            ffi::lua_rawseti(self.state, names.table, names.next);
        }
    }
}

// SAFETY, for each call below: the state is that of the protected call that made the `Stack`; `array` and `structure`
// make room for what follows, and the walk that calls them keeps every other value balanced.
impl Build for Stack {
    fn nil(&mut self) {
        // SAFETY: see above.
        unsafe { ffi::lua_pushnil(self.state) }
    }
    fn boolean(&mut self, value: bool) {
        // SAFETY: see above.
        unsafe { ffi::lua_pushboolean(self.state, value.into()) }
    }
    fn signed(&mut self, value: i64) {
        // SAFETY: see above.
        unsafe { ffi::lua_pushinteger(self.state, value) }
    }
    /// Lua's integer of the same bits.
    fn unsigned(&mut self, value: u64) {
        // SAFETY: see above.
        unsafe { ffi::lua_pushinteger(self.state, value as i64) }
    }
    fn float(&mut self, value: f64) {
        // SAFETY: see above.
        unsafe { ffi::lua_pushnumber(self.state, value) }
    }
    fn text(&mut self, value: &[u8]) {
        self.bytes(value);
    }
    fn bytes(&mut self, value: &[u8]) {
        // SAFETY: see above.
        unsafe {
            ffi::lua_pushlstring(self.state, value.as_ptr().cast(), value.len());
        }
    }
    fn array(&mut self, len: usize) {
        // SAFETY: see above; the table, a key or two and a value need four places.
        unsafe {
            ffi::luaL_checkstack(self.state, 5, std::ptr::null());
            ffi::lua_createtable(self.state, len.min(i32::MAX as usize) as i32, 0);
        }
    }
    fn item(&mut self, index: usize) {
        // SAFETY: see above.
        unsafe { ffi::lua_rawseti(self.state, -2, index as ffi::lua_Integer + 1) }
    }
    fn structure(&mut self, fields: usize) {
        // SAFETY: see above; the table, a key or two and a value need four places.
        unsafe {
            ffi::luaL_checkstack(self.state, 5, std::ptr::null());
            ffi::lua_createtable(self.state, 0, fields.min(i32::MAX as usize) as i32);
        }
    }
    fn field(&mut self, name: &str) {
        // SAFETY: see above.
        unsafe {
            self.push_name(name);
            ffi::lua_rotate(self.state, -2, 1);
            ffi::lua_rawset(self.state, -3);
        }
    }
}
