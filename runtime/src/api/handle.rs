//! Handles: the userdata through which scripts hold kernel objects, tasks and subscriptions.
//!
//! All of one shape: cheap fields, methods, equality by identity, one line of text, and an error for any other name.
//! One object is one userdata per VM, so that handles work as table keys.

use std::future::Future;
use std::rc::Rc;

use mlua::{
    AnyUserData, FromLuaMulti, IntoLua, IntoLuaMulti, Lua, MetaMethod, MultiValue, Table, UserData,
    UserDataFields, UserDataMethods, UserDataRegistry, Value,
};

use super::error::{raise, site};
use super::frame::Standing;
use super::host::Host;
use super::library::no_member;
use super::module::{Args, finish};
use super::option::FromOption;
use crate::{Error, Result};

/// What a type must say to be held by scripts. Cheap to clone: a handle names its object, it does not own it.
pub trait Handle: Clone + Sized + 'static {
    /// "Link": completes "must be a Link".
    const TYPE: &'static str;
    /// The lower-case word in operations: "link" gives "link:add_address".
    const WORD: &'static str;
    /// Declares fields and methods.
    fn class(class: &mut Class<'_, Self>);
    /// Equal for handles of one object and no other.
    fn identity(&self) -> String;
    /// One line: `Link(eth0 in netns client)`.
    fn display(&self) -> String;
    /// What else a new userdata of this type needs.
    fn prepare(&self, _lua: &Lua, _userdata: &AnyUserData) -> Result<()> {
        Ok(())
    }
    /// Where a handle comes from, for whoever gave a string instead: `netns.get("name")`.
    fn from_name(_name: &str) -> Option<String> {
        None
    }
}

/// The userdata around a handle.
pub struct Held<T>(pub T);

/// The registration of one handle type.
pub struct Class<'a, T: Handle> {
    registry: &'a mut UserDataRegistry<Held<T>>,
    names: Vec<&'static str>,
}

impl<T: Handle> Class<'_, T> {
    /// A cheap field: asks the kernel nothing.
    pub fn field<R: IntoLua>(
        &mut self,
        name: &'static str,
        get: impl Fn(&Lua, &T) -> Result<R> + 'static,
    ) -> &mut Self {
        self.names.push(name);
        self.registry.add_field_method_get(name, move |lua, this| {
            get(lua, &this.0).map_err(|e| raise(e.at(site(lua, 1))))
        });
        self
    }

    /// A method that never waits.
    pub fn method<R: IntoLuaMulti>(
        &mut self,
        name: &'static str,
        call: impl Fn(&Lua, &Rc<Host>, &T, Args) -> Result<R> + 'static,
    ) -> &mut Self {
        let op = format!("{}:{name}", T::WORD);
        self.names.push(name);
        self.registry.add_function(name, move |lua, (this, rest): (Value, MultiValue)| {
            let answer = receiver::<T>(&op, this)
                .and_then(|this| call(lua, &Host::of(lua), &this, Args::new(&op, rest)));
            answer.map_err(|e| raise(named::<T>(e, &op).at(site(lua, 1))))
        });
        self
    }

    /// A method that is called by the million: mlua converts its arguments, and it is told its own name.
    pub fn quick_method<A: FromLuaMulti, R: IntoLuaMulti>(
        &mut self,
        name: &'static str,
        call: impl Fn(&Lua, &str, &T, A) -> Result<R> + 'static,
    ) -> &mut Self {
        let op = format!("{}:{name}", T::WORD);
        self.names.push(name);
        self.registry.add_method(name, move |lua, this, args: A| {
            call(lua, &op, &this.0, args).map_err(|e| raise(e.at(site(lua, 1))))
        });
        self
    }

    /// A method that may wait: decodes at once, then a future that holds nothing of Lua.
    pub fn async_method<R, Fut>(
        &mut self,
        name: &'static str,
        call: impl Fn(&Lua, &Rc<Host>, &T, Args) -> Result<Fut> + 'static,
    ) -> &mut Self
    where
        R: IntoLuaMulti + 'static,
        Fut: Future<Output = Result<R>> + 'static,
    {
        let op = format!("{}:{name}", T::WORD);
        self.names.push(name);
        let waiting = move |lua: Lua, (this, rest): (Value, MultiValue)| {
            let site = site(&lua, 2);
            let started = receiver::<T>(&op, this)
                .and_then(|this| call(&lua, &Host::of(&lua), &this, Args::new(&op, rest)))
                .map_err(|e| named::<T>(e, &op));
            drop(lua);
            finish(started, site)
        };
        self.registry.add_field(name, Standing(|lua: &Lua| lua.create_async_function(waiting)));
        self
    }

    /// A metamethod beyond equality, text and lookup: `Len`, `Pairs`.
    pub fn meta<R: IntoLuaMulti>(
        &mut self,
        method: MetaMethod,
        call: impl Fn(&Lua, &T) -> Result<R> + 'static,
    ) -> &mut Self {
        self.registry.add_meta_method(method.name(), move |lua, this, _: MultiValue| {
            call(lua, &this.0).map_err(|e| raise(e.at(site(lua, 1))))
        });
        self
    }
}

/// An error that only says what kind of object it is about ("netns") is told the method.
fn named<T: Handle>(error: Error, op: &str) -> Error {
    if error.op() == T::WORD { error.operation(op.to_owned()) } else { error }
}

fn receiver<T: Handle>(op: &str, this: Value) -> Result<T> {
    match &this {
        Value::UserData(data) if data.is::<Held<T>>() => {
            data.borrow::<Held<T>>().map(|held| held.0.clone()).map_err(super::error::from_lua)
        }
        other => Err(Error::invalid(
            op.to_owned(),
            format!(
                "is a method of a {}, called on {}",
                T::TYPE,
                super::option::expected::describe(other)
            ),
        )
        .hint("call methods with a colon: object:method(...)")),
    }
}

impl<T: Handle> UserData for Held<T> {
    fn register(registry: &mut UserDataRegistry<Self>) {
        let mut class = Class { registry, names: Vec::new() };
        T::class(&mut class);
        let names = class.names;
        registry.add_meta_field("__name", T::TYPE);
        // For completion at a prompt: methods behind a native __index cannot be listed.
        registry.add_meta_field("__members", names.clone());
        registry.add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(this.0.display()));
        registry.add_meta_function(MetaMethod::Eq, |_, (a, b): (Value, Value)| {
            Ok(match (held::<T>(&a), held::<T>(&b)) {
                (Some(a), Some(b)) => a.identity() == b.identity(),
                _ => false,
            })
        });
        registry.add_meta_method(
            MetaMethod::Index,
            move |lua, _, key: Value| -> mlua::Result<()> {
                let key = key.to_string()?;
                Err(raise(no_member(T::TYPE, &key, &names).at(site(lua, 1))))
            },
        );
        registry.add_meta_method(
            MetaMethod::NewIndex,
            |lua, _, (key, _): (Value, Value)| -> mlua::Result<()> {
                let error = Error::new(
                    T::TYPE,
                    "EINVAL",
                    format!("field \"{}\" cannot be assigned", key.to_string()?),
                )
                .hint("handles are changed through their methods, such as :set{...}");
                Err(raise(error.at(site(lua, 1))))
            },
        );
    }
}

/// The handle inside a Lua value, if it is one of this type.
pub fn held<T: Handle>(value: &Value) -> Option<T> {
    let Value::UserData(data) = value else { return None };
    data.borrow::<Held<T>>().ok().map(|held| held.0.clone())
}

/// Wraps a handle so that options and arguments can be of its type: `options.get::<Given<Link>>("dev")`.
pub struct Given<T>(pub T);

impl<T: Handle> FromOption for Given<T> {
    fn expects() -> String {
        format!("a {}", T::TYPE)
    }
    fn from_option(value: Value) -> std::result::Result<Self, Option<String>> {
        held(&value).map(Given).ok_or(None)
    }
    fn instead(value: &Value) -> Option<String> {
        value.as_string().and_then(|name| T::from_name(&name.to_string_lossy()))
    }
}
impl<T: Handle> super::option::ListItem for Given<T> {}

/// The one userdata of this object in this VM: the one made before, if the script still has it.
pub fn intern<T: Handle>(lua: &Lua, handle: T) -> Result<AnyUserData> {
    let find = || -> mlua::Result<AnyUserData> {
        let interned: Table = lua.named_registry_value("cnf.interned")?;
        let key = format!("{}\0{}", T::TYPE, handle.identity());
        if let Ok(existing) = interned.raw_get::<AnyUserData>(key.as_str()) {
            return Ok(existing);
        }
        let userdata = lua.create_userdata(Held(handle.clone()))?;
        handle.prepare(lua, &userdata).map_err(raise)?;
        interned.raw_set(key, &userdata)?;
        Ok(userdata)
    };
    find().map_err(super::error::from_lua)
}

/// One handle of each type of which this VM has any.
pub fn one_of_each(lua: &Lua) -> mlua::Result<Table> {
    let interned: Table = lua.named_registry_value("cnf.interned")?;
    let mut types = std::collections::HashSet::new();
    let found = lua.create_table()?;
    for pair in interned.pairs::<String, AnyUserData>() {
        let (key, userdata) = pair?;
        if types.insert(key.split('\0').next().unwrap_or_default().to_owned()) {
            found.raw_push(userdata)?;
        }
    }
    Ok(found)
}

/// Makes the table behind [`intern`]: weak, so that it keeps no handle alive.
pub fn prepare(lua: &Lua) -> mlua::Result<()> {
    let interned = lua.create_table()?;
    let meta = lua.create_table()?;
    meta.raw_set("__mode", "v")?;
    interned.set_metatable(Some(meta))?;
    lua.set_named_registry_value("cnf.interned", interned)
}

/// A result that is a handle: interned when mlua turns it into a Lua value.
pub struct Returned<T>(pub T);

impl<T: Handle> IntoLua for Returned<T> {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        intern(lua, self.0).map(Value::UserData).map_err(raise)
    }
}

/// Makes the userdata of a handle whose identity has changed the one of its new identity.
pub fn reintern<T: Handle>(lua: &Lua, handle: &T) -> Result<()> {
    intern(lua, handle.clone()).map(drop)
}
