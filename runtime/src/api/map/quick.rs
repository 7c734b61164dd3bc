//! `m:get`, `m:set` and `m:delete` for what loops do by the million: a number as the key, a number as the value, a map of
//! plain elements. They stand before the methods that mlua calls, and leave to those whatever is not that simple: another
//! kind of value, a load that runs, a refusal of the kernel. So there is one place where errors are made, and it is not here.
//!
//! The functions are given to Lua as they are. mlua's wrapper around a native costs as much as half a system call; it
//! keeps panics and errors of Rust away from Lua's long jumps, and here is neither: what runs below owns nothing.

use std::mem::ManuallyDrop;
use std::os::raw::c_int;
use std::ptr;

use mlua::{AnyUserData, Function, LightUserData, Lua, ObjectLike, ffi};

use super::Map;
use crate::Result;
use crate::api::error::from_lua;
use crate::api::host::Host;
use crate::kernel::bpf::{self, Write};
use crate::own::Stage;

/// The methods that are quick, and what stands before each.
const METHODS: [(&str, ffi::lua_CFunction); 3] = [("get", get), ("set", set), ("delete", delete)];

/// Values of each of the closures. The first is mlua's own: the method that the closure stands before finds its data there,
/// since it is called in the same frame.
mod upvalue {
    pub const METHOD: i32 = 2;
    pub const METATABLE: i32 = 3;
    pub const STAGE: i32 = 4;
    pub const COUNT: i32 = 4;
}

/// Makes the methods of this new userdata quick: it remembers its map where they find it, and their type's `__index` finds
/// them first.
///
/// # Errors
/// ENOMEM when the script's memory ends.
pub fn prepare(lua: &Lua, userdata: &AnyUserData, map: &Map) -> Result<()> {
    let place = LightUserData(map.kernel().as_raw().cast_mut());
    let host = Host::of(lua);
    let stage = LightUserData((&raw const host.stage).cast_mut().cast());
    let work = || {
        // SAFETY: runs protected, with the userdata and a pointer on the stack; it has one user value (`lua_newuserdata`),
        // which mlua does not use unless it is asked to.
        let is_ready: bool = unsafe {
            lua.exec_raw((userdata, place), |state| {
                ffi::lua_setiuservalue(state, 1, 1);
                ffi::lua_getmetatable(state, 1);
                ffi::lua_pushstring(state, c"__index".as_ptr());
                ffi::lua_rawget(state, -2);
                let ready = is_index(ffi::lua_tocfunction(state, -1));
                ffi::lua_settop(state, 0);
                ffi::lua_pushboolean(state, ready.into());
            })
        }?;
        if is_ready {
            return Ok(());
        }
        for (name, quick) in METHODS {
            let method: Function = userdata.get(name)?;
            // SAFETY: `put_before` wants exactly these four values.
            unsafe {
                lua.exec_raw::<()>((userdata, method, stage, name), |s| put_before(s, quick))
            }?;
        }
        Ok(())
    };
    work().map_err(from_lua)
}

/// Puts `quick` before a method, in the table that [`index`] looks into first. On the stack: a userdata of the type, mlua's
/// method, the stage, the method's name.
///
/// # Safety
/// To be called protected, with those values.
unsafe fn put_before(state: *mut ffi::lua_State, quick: ffi::lua_CFunction) {
    const METHOD: i32 = 2;
    const STAGE: i32 = 3;
    const NAME: i32 = 4;
    const METATABLE: i32 = 5;
    // SAFETY: all calls are balanced, with places made for what they push; `tocfunction` is checked.
    unsafe {
        ffi::luaL_checkstack(state, 10, ptr::null());
        ffi::lua_getmetatable(state, 1);
        let native = ffi::lua_tocfunction(state, METHOD);
        let has_one = !ffi::lua_getupvalue(state, METHOD, 1).is_null()
            && ffi::lua_getupvalue(state, METHOD, 2).is_null();
        // Another version of mlua may build its methods otherwise: then they stay as they are.
        if let Some(native) = native.filter(|_| has_one) {
            ffi::lua_pushcfunction(state, native);
            ffi::lua_pushvalue(state, METATABLE);
            ffi::lua_pushvalue(state, STAGE);
            ffi::lua_pushcclosure(state, quick, upvalue::COUNT);
            quick_methods(state, METATABLE);
            ffi::lua_pushvalue(state, NAME);
            ffi::lua_pushvalue(state, -3);
            ffi::lua_rawset(state, -3);
        }
        ffi::lua_settop(state, 0);
    }
}

/// Pushes the table of quick methods of a type. The first time it makes it, and the `__index` that looks into it.
///
/// # Safety
/// To be called protected, with the type's metatable at `metatable`.
unsafe fn quick_methods(state: *mut ffi::lua_State, metatable: c_int) {
    // SAFETY: all calls are balanced, in a place that the caller has made; the second value of `index` is mlua's `__index`.
    unsafe {
        ffi::lua_pushstring(state, c"__index".as_ptr());
        ffi::lua_rawget(state, metatable);
        if is_index(ffi::lua_tocfunction(state, -1)) {
            ffi::lua_getupvalue(state, -1, 1);
            ffi::lua_remove(state, -2);
            return;
        }
        ffi::lua_createtable(state, 0, METHODS.len() as c_int);
        ffi::lua_pushvalue(state, -1);
        ffi::lua_rotate(state, -3, 1);
        ffi::lua_rotate(state, -2, 1);
        // The table, the table, what was `__index`.
        ffi::lua_pushcclosure(state, index, 2);
        ffi::lua_pushstring(state, c"__index".as_ptr());
        ffi::lua_rotate(state, -2, 1);
        ffi::lua_rawset(state, metatable);
    }
}

fn is_index(function: Option<ffi::lua_CFunction>) -> bool {
    function.is_some_and(|function| ptr::fn_addr_eq(function, index as ffi::lua_CFunction))
}

/// `__index`: a quick method, or what the `__index` before it gives.
unsafe extern "C-unwind" fn index(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls it with two arguments and room for twenty values; nothing in this frame needs to be dropped.
    unsafe {
        ffi::lua_pushvalue(state, 2);
        if ffi::lua_rawget(state, ffi::lua_upvalueindex(1)) == ffi::LUA_TNIL {
            ffi::lua_settop(state, 2);
            ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
            ffi::lua_insert(state, 1);
            ffi::lua_call(state, 2, 1);
        }
        1
    }
}

/// `m:get(key)`.
unsafe extern "C-unwind" fn get(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: see `Call`.
    unsafe {
        let call = Call::new(state);
        let element = call.map().filter(|_| !call.stage().is_loading()).and_then(|map| {
            let (mut key, mut value) = ([0; 8], [0; 8]);
            let key = call.number(2, map.key_type(), &mut key)?;
            let value = value.get_mut(..map.stride())?;
            match map.lookup_into(key, value).ok()? {
                true => map.value_type().number(value).map(Some),
                false => Some(None),
            }
        });
        match element {
            Some(Some(number)) => ffi::lua_pushinteger(state, number),
            Some(None) => ffi::lua_pushnil(state),
            None => return call.method(),
        }
        1
    }
}

/// `m:set(key, value)`, without a flag.
unsafe extern "C-unwind" fn set(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: see `Call`.
    unsafe {
        let call = Call::new(state);
        let wanted = call.given <= 3 && call.stage().is_at_once();
        let done = call.map().filter(|_| wanted).and_then(|map| {
            let (mut key, mut value) = ([0; 8], [0; 8]);
            let key = call.number(2, map.key_type(), &mut key)?;
            let value = call.number(3, map.value_type(), &mut value)?;
            map.update(key, value, Write::Any).ok()
        });
        match done {
            Some(()) => 0,
            None => call.method(),
        }
    }
}

/// `m:delete(key)`.
unsafe extern "C-unwind" fn delete(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: see `Call`.
    unsafe {
        let call = Call::new(state);
        let done = call.map().filter(|_| call.stage().is_at_once()).and_then(|map| {
            let mut key = [0; 8];
            let key = call.number(2, map.key_type(), &mut key)?;
            map.remove(key).ok()
        });
        match done {
            Some(was_there) => {
                ffi::lua_pushboolean(state, was_there.into());
                1
            }
            None => call.method(),
        }
    }
}

/// A call of one of the closures that [`put_before`] makes. Every piece of it may be trusted: the upvalues are what was put
/// there, and `map` looks at what the script gives.
struct Call {
    state: *mut ffi::lua_State,
    /// Arguments, the userdata among them.
    given: c_int,
}

impl Call {
    /// # Safety
    /// `state` is that of such a call, which has just begun. The same goes for all of the methods.
    unsafe fn new(state: *mut ffi::lua_State) -> Call {
        // SAFETY: of the caller.
        Call { state, given: unsafe { ffi::lua_gettop(state) } }
    }

    /// The map of the userdata that the method is called on, when it has plain elements.
    unsafe fn map(&self) -> Option<ManuallyDrop<bpf::Map>> {
        let (state, userdata) = (self.state, self.given + 1);
        // SAFETY: there is room for twenty values. A userdata with the metatable of maps that is not finished (mlua gives
        // it another then) holds its map, and its user value is that map's place since `prepare`, for as long.
        unsafe {
            if self.given == 0 || ffi::lua_getmetatable(state, 1) == 0 {
                return None;
            }
            if ffi::lua_rawequal(state, userdata, ffi::lua_upvalueindex(upvalue::METATABLE)) == 0
                || ffi::lua_getiuservalue(state, 1, 1) != ffi::LUA_TLIGHTUSERDATA
            {
                return None;
            }
            let map = bpf::Map::borrowed(ffi::lua_touserdata(state, -1).cast_const());
            Some(map).filter(|map| map.info().kind.is_plain())
        }
    }

    /// The stage of this VM's host, which lives as long as the VM.
    unsafe fn stage(&self) -> &Stage {
        // SAFETY: of the caller; `prepare` was given the pointer by the host itself.
        unsafe {
            let stage = ffi::lua_touserdata(self.state, ffi::lua_upvalueindex(upvalue::STAGE));
            &*stage.cast::<Stage>()
        }
    }

    /// An argument as the bytes of `kind`, if it is an integer that fits, and `kind` a number of at most 8 bytes.
    unsafe fn number<'a>(
        &self,
        argument: c_int,
        kind: &bpf::Type,
        bytes: &'a mut [u8; 8],
    ) -> Option<&'a [u8]> {
        // SAFETY: of the caller; nothing is converted.
        let number = unsafe {
            if self.given < argument || ffi::lua_isinteger(self.state, argument) == 0 {
                return None;
            }
            ffi::lua_tointegerx(self.state, argument, ptr::null_mut())
        };
        let bytes = bytes.get_mut(..kind.size())?;
        kind.encode_number(number, bytes).then_some(bytes)
    }

    /// Leaves it to mlua's method, which finds its arguments and its upvalue as if it had been called itself.
    unsafe fn method(&self) -> c_int {
        // SAFETY: of the caller; `put_before` has taken the function from a method of one upvalue, which is the first here.
        unsafe {
            ffi::lua_settop(self.state, self.given);
            let method = ffi::lua_upvalueindex(upvalue::METHOD);
            match ffi::lua_tocfunction(self.state, method) {
                Some(method) => method(self.state),
                None => 0,
            }
        }
    }
}
