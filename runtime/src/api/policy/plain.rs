//! Policies of the usual shape, which large sets have by the thousand, read without a value of mlua's for each word. What is
//! of another shape is read by `table`, which also says what is wrong with it: no error is made here.

use std::net::IpAddr;
use std::os::raw::c_int;
use std::{ptr, slice};

use mlua::{Lua, Table, Value, ffi};
use rustc_hash::FxHashMap;

use super::table::{Devices, policy};
use crate::Result;
use crate::api::address::parse_cidr;
use crate::api::error::from_lua;
use crate::api::option::{Options, expected};
use crate::program::router::{Action, Device, Hop, Hops, Match, Policy, Prefix};

/// How many are read at a time.
const MANY: usize = 256;

/// The policies of an array, in order. `options` says whose they are.
///
/// # Errors
/// As [`policy`], for the first that is wrong.
pub fn policies(
    lua: &Lua,
    options: &Options,
    array: &Table,
    devices: &Devices,
) -> Result<Vec<Policy>> {
    let mut policies = Vec::new();
    let mut known: FxHashMap<Identity, Device> = FxHashMap::default();
    loop {
        let some = read_some(lua, array, policies.len() + 1)?;
        if some.is_empty() {
            return Ok(policies);
        }
        policies.reserve(some.len());
        for one in some {
            let device = one.as_ref().and_then(|one| one.device);
            let whole = one.and_then(|one| one.whole(&known));
            policies.push(match whole {
                Some(policy) => policy,
                None => {
                    let policy = careful(options, array, policies.len() + 1, devices)?;
                    if let Some(identity) = device
                        && let Action::Route(hops) = &policy.action
                        && let Some(device) = &hops[0].dev
                    {
                        known.insert(identity, device.clone());
                    }
                    policy
                }
            });
        }
    }
}

fn careful(options: &Options, array: &Table, at: usize, devices: &Devices) -> Result<Policy> {
    match array.raw_get(at).map_err(from_lua)? {
        Value::Table(one) => policy(options, &|| format!("[{at}]"), one, devices),
        other => {
            let got = expected::describe(&other);
            Err(options.bad(format!("[{at}] must be a policy, got {got}")))
        }
    }
}

/// What Lua knows a handle or a name by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Identity(usize);

impl Identity {
    /// Of the value on top of the stack: nothing else has it as long as that lives.
    ///
    /// # Safety
    /// There is a value.
    unsafe fn of(state: *mut ffi::lua_State) -> Identity {
        // SAFETY: of the caller.
        Identity(unsafe { ffi::lua_topointer(state, -1) }.addr())
    }
}

/// A policy of the usual shape, but for the device.
struct Plain {
    policy: Policy,
    device: Option<Identity>,
}

impl Plain {
    /// With its device, if that is known.
    fn whole(mut self, known: &FxHashMap<Identity, Device>) -> Option<Policy> {
        if let Some(identity) = self.device
            && let Action::Route(hops) = &mut self.policy.action
        {
            hops[0].dev = Some(known.get(&identity)?.clone());
        }
        Some(self.policy)
    }
}

/// The next elements of an array, from `first` on; none of another shape.
fn read_some(lua: &Lua, array: &Table, first: usize) -> Result<Vec<Option<Plain>>> {
    let (mut some, mut last) = (Vec::with_capacity(MANY), None);
    let read = |state| {
        // SAFETY: runs protected, with the array alone on the stack. Only the first call can fail, before anything is held.
        unsafe {
            ffi::luaL_checkstack(state, 4, ptr::null());
            while some.len() < MANY {
                match ffi::lua_rawgeti(state, 1, (first + some.len()) as ffi::lua_Integer) {
                    ffi::LUA_TNIL => break,
                    ffi::LUA_TTABLE => some.push(read_one(state, &mut last)),
                    _ => some.push(None),
                }
                ffi::lua_settop(state, 1);
            }
            ffi::lua_settop(state, 0);
        }
    };
    // SAFETY: `read` leaves the stack empty, as nothing is to be returned.
    unsafe { lua.exec_raw::<()>(array, read) }.map_err(from_lua)?;
    Ok(some)
}

/// The table on top of the stack. `last` is the next hop that was read last: many policies of a set have the same.
///
/// # Safety
/// There is room for two values.
unsafe fn read_one(
    state: *mut ffi::lua_State,
    last: &mut Option<(Identity, IpAddr)>,
) -> Option<Plain> {
    let (mut matching, mut device, mut word) = (Match::default(), None, "route");
    let (mut via, mut onlink, mut priority) = (None, false, None);
    // SAFETY: the key of `lua_next` is the table's own, and no call changes the type of a value.
    unsafe {
        let table = ffi::lua_gettop(state);
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, table) != 0 {
            match text(state, -2)? {
                "from" => matching.from = Some(network(text(state, -1)?)?),
                "to" => matching.to = Some(network(text(state, -1)?)?),
                "sport" => matching.sport = Some(integer(state)?.try_into().ok()?),
                "dport" => matching.dport = Some(integer(state)?.try_into().ok()?),
                "mark" => matching.mark = Some(integer(state)?.try_into().ok()?),
                "vlan" => matching.vlan = Some(integer(state)?.try_into().ok()?),
                "priority" => priority = Some(integer(state)?.try_into().ok()?),
                "via" => {
                    let (text, identity) = (text(state, -1)?, Identity::of(state));
                    let known = last.filter(|(known, _)| *known == identity);
                    let address = known.map_or_else(|| text.parse(), |(_, via)| Ok(via)).ok()?;
                    *last = Some((identity, address));
                    via = Some(address);
                }
                "dev" => device = Some(Identity::of(state)),
                "onlink" if ffi::lua_isboolean(state, -1) != 0 => {
                    onlink = ffi::lua_toboolean(state, -1) != 0;
                }
                "action" => word = text(state, -1)?,
                _ => return None,
            }
            ffi::lua_settop(state, table + 1);
        }
    }
    let goes = via.is_some() || device.is_some();
    let action = match word {
        "route" if goes => {
            Action::Route(Hops::from_elem(Hop { via, dev: None, weight: 1, onlink }, 1))
        }
        "drop" if !goes => Action::Drop,
        "pass" if !goes => Action::Pass,
        _ => return None,
    };
    let mut policy = Policy::new(matching, action);
    policy.priority = priority.unwrap_or(policy.priority);
    Some(Plain { policy, device })
}

/// A string of Lua's.
///
/// # Safety
/// There is a value at `at`. The text lives as long as Lua's.
unsafe fn text<'a>(state: *mut ffi::lua_State, at: c_int) -> Option<&'a str> {
    // SAFETY: of the caller; a string is given as it is.
    unsafe {
        if ffi::lua_type(state, at) != ffi::LUA_TSTRING {
            return None;
        }
        let mut length = 0;
        let bytes = ffi::lua_tolstring(state, at, &raw mut length);
        str::from_utf8(slice::from_raw_parts(bytes.cast(), length)).ok()
    }
}

/// The integer on top of the stack.
///
/// # Safety
/// There is a value.
unsafe fn integer(state: *mut ffi::lua_State) -> Option<ffi::lua_Integer> {
    // SAFETY: of the caller.
    unsafe {
        let is_integer = ffi::lua_isinteger(state, -1) != 0;
        is_integer.then(|| ffi::lua_tointegerx(state, -1, ptr::null_mut()))
    }
}

/// As [`Options::network`] has it.
fn network(text: &str) -> Option<Prefix> {
    let network = parse_cidr(text).ok().filter(|network| network.ip() == network.network())?;
    Prefix::new(network.ip(), network.prefix()).ok()
}
