//! How a native Lua module is declared: one registration table, natives that return [`crate::Result`], errors that
//! carry the script's line.

use std::future::Future;
use std::rc::Rc;

use mlua::{Function, IntoLua, IntoLuaMulti, Lua, MultiValue, Table, Value};

use super::error::{raise, site};
use super::frame::standing;
use super::host::Host;
use super::option::{FromOption, Options, expected};
use crate::error::Site;
use crate::{Error, Result};

/// A native module under construction: `Module::new(lua, "tcx").function(...).build()`.
pub struct Module<'lua> {
    lua: &'lua Lua,
    name: &'static str,
    table: mlua::Result<Table>,
}

impl<'lua> Module<'lua> {
    pub fn new(lua: &'lua Lua, name: &'static str) -> Self {
        Module { lua, name, table: lua.create_table() }
    }

    /// A function that never waits.
    pub fn function<R, F>(self, name: &'static str, function: F) -> Self
    where
        R: IntoLuaMulti,
        F: Fn(&Lua, &Rc<Host>, Args) -> Result<R> + 'static,
    {
        let op = format!("{}.{name}", self.name);
        self.add(name, |lua| sync_function(lua, op, function))
    }

    /// A function that may wait. It decodes its arguments at once and returns a future that holds nothing of Lua: one
    /// that did would keep the VM alive for ever.
    pub fn async_function<R, F, Fut>(self, name: &'static str, function: F) -> Self
    where
        R: IntoLuaMulti + 'static,
        F: Fn(&Lua, &Rc<Host>, Args) -> Result<Fut> + 'static,
        Fut: Future<Output = Result<R>> + 'static,
    {
        let op = format!("{}.{name}", self.name);
        self.add(name, |lua| async_function(lua, op, function))
    }

    /// A plain value.
    pub fn value(self, name: &'static str, value: impl IntoLua) -> Self {
        let value = value.into_lua(self.lua);
        let table = self.table.and_then(|table| table.set(name, value?).map(|()| table));
        Module { table, ..self }
    }

    pub fn build(self) -> mlua::Result<Table> {
        self.table
    }

    fn add(self, name: &str, make: impl FnOnce(&Lua) -> mlua::Result<Function>) -> Self {
        let table = self.table.and_then(|table| table.set(name, make(self.lua)?).map(|()| table));
        Module { table, ..self }
    }
}

/// Wraps a native that never waits.
fn sync_function<R, F>(lua: &Lua, op: String, function: F) -> mlua::Result<Function>
where
    R: IntoLuaMulti,
    F: Fn(&Lua, &Rc<Host>, Args) -> Result<R> + 'static,
{
    lua.create_function(move |lua, values: MultiValue| {
        let host = Host::of(lua);
        function(lua, &host, Args::new(&op, values)).map_err(|e| raise(e.at(site(lua, 1))))
    })
}

/// Wraps a native that may wait.
fn async_function<R, F, Fut>(lua: &Lua, op: String, function: F) -> mlua::Result<Function>
where
    R: IntoLuaMulti + 'static,
    F: Fn(&Lua, &Rc<Host>, Args) -> Result<Fut> + 'static,
    Fut: Future<Output = Result<R>> + 'static,
{
    let waiting = lua.create_async_function(move |lua, values: MultiValue| {
        let host = Host::of(&lua);
        let site = site(&lua, 2);
        let started = function(&lua, &host, Args::new(&op, values));
        drop(lua);
        finish(started, site)
    })?;
    standing(lua, waiting)
}

/// What a native that may wait comes to, in a future that holds nothing of Lua.
pub async fn finish<R>(
    started: Result<impl Future<Output = Result<R>>>,
    site: Option<Site>,
) -> mlua::Result<R> {
    match started {
        Ok(future) => future.await,
        Err(error) => Err(error),
    }
    .map_err(|e| raise(e.at(site)))
}

/// The arguments of one call, taken from left to right.
pub struct Args {
    op: String,
    values: std::vec::IntoIter<Value>,
    position: usize,
}

impl Args {
    pub fn new(op: &str, values: MultiValue) -> Self {
        let values: Vec<Value> = values.into_iter().collect();
        Args { op: op.to_owned(), values: values.into_iter(), position: 0 }
    }

    /// A single argument, the `position`-th (from 1) of its call.
    pub fn one(op: &str, position: usize, value: Value) -> Self {
        Args { position: position - 1, ..Args::new(op, MultiValue::from_iter([value])) }
    }

    /// "netns.new", for errors.
    pub fn op(&self) -> &str {
        &self.op
    }

    /// The next argument, which must be there.
    pub fn required<T: FromOption>(&mut self, name: &str) -> Result<T> {
        match self.any() {
            Value::Nil => Err(self.bad(name, format!("must be {}, got nothing", T::expects()))),
            value => self.convert(name, value),
        }
    }

    /// The next argument; nil counts as absent.
    pub fn optional<T: FromOption>(&mut self, name: &str) -> Result<Option<T>> {
        match self.any() {
            Value::Nil => Ok(None),
            value => self.convert(name, value).map(Some),
        }
    }

    /// The next argument as it is; nil when absent.
    pub fn any(&mut self) -> Value {
        self.position += 1;
        self.values.next().unwrap_or(Value::Nil)
    }

    /// The next argument as a table of options; nil counts as an empty one.
    pub fn options(&mut self) -> Result<Options> {
        let value = self.any();
        Options::new(&self.op, value)
    }

    fn convert<T: FromOption>(&self, name: &str, value: Value) -> Result<T> {
        let given = value.clone();
        T::from_option(value).map_err(|problem| {
            let problem = problem.unwrap_or_else(|| {
                format!("must be {}, got {}", T::expects(), expected::describe(&given))
            });
            let error = self.bad(name, problem);
            match T::instead(&given) {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })
    }

    fn bad(&self, name: &str, problem: String) -> Error {
        let ordinal = match self.position {
            1 => "first argument",
            2 => "second argument",
            3 => "third argument",
            _ => "argument",
        };
        Error::invalid(self.op.clone(), format!("{name} ({ordinal}) {problem}"))
    }
}
