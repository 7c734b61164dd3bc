//! A C frame on top of the script's, for functions that Lua runs: those of the library that are written in it, and natives
//! that wait, which mlua wraps in Lua.
//!
//! `return cnf.lb.service {...}` is a tail call: the frame of a function in Lua takes the place of the script's, and with that
//! goes the line that errors name. The frame of a C function comes on top of it (`luaD_pretailcall`, ldo.c).

use std::os::raw::c_int;

use mlua::{Function, IntoLua, Lua, Value, ffi};

/// The function, in a frame of its own. What it gives, raises and waits for is the same.
///
/// # Errors
/// ENOMEM when the script's memory ends.
pub fn standing(lua: &Lua, function: Function) -> mlua::Result<Function> {
    // SAFETY: runs protected, with the function alone on the stack, which becomes the closure's one value.
    unsafe { lua.exec_raw(function, |state| ffi::lua_pushcclosure(state, enter, 1)) }
}

/// Makes a standing function where a value is wanted.
pub struct Standing<F>(pub F);

impl<F: FnOnce(&Lua) -> mlua::Result<Function>> IntoLua for Standing<F> {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        standing(lua, (self.0)(lua)?).map(Value::Function)
    }
}

/// Calls the closure's value with the arguments; all of its results are those of the call.
///
/// # Safety
/// Called by Lua, as the closure that [`standing`] makes. Nothing here has to be dropped when Lua jumps over it.
unsafe extern "C-unwind" fn enter(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: a C function has room for LUA_MINSTACK values beyond its arguments.
    unsafe {
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        let count = ffi::lua_gettop(state) - 1;
        ffi::lua_callk(state, count, ffi::LUA_MULTRET, 0, Some(leave));
        ffi::lua_gettop(state)
    }
}

/// The same, after a call that has waited.
///
/// # Safety
/// Called by Lua, with the results on the stack.
unsafe extern "C-unwind" fn leave(
    state: *mut ffi::lua_State,
    _status: c_int,
    _context: ffi::lua_KContext,
) -> c_int {
    // SAFETY: it reads a number.
    unsafe { ffi::lua_gettop(state) }
}
