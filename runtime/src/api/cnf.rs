//! `cnf`: the instance itself: its arguments, its log, its end.

use std::future::Future;
use std::rc::Rc;

use mlua::{Function, Lua, Table, Value};

use super::error::from_lua;
use super::host::Host;
use super::module::{Args, Module};
use super::option::Options;
use crate::stop::Stop;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "cnf")
        .value("version", env!("CARGO_PKG_VERSION"))
        .value("log", log(lua)?)
        .async_function("wait", wait)
        .function("exit", exit)
        .function("error", error)
        .function("on_stop", on_stop)
        .build()
}

/// What the module tells of the load that the VM is for.
pub fn tell(module: &Table, host: &Host) -> mlua::Result<()> {
    module.raw_set("instance", host.instance.name.clone())?;
    module.raw_set("generation", host.generation)?;
    module.raw_set("args", host.instance.args.clone())
}

/// Commits: what the script set up so far is the network. What comes after tests it.
fn wait(_: &Lua, host: &Rc<Host>, _: Args) -> Result<impl Future<Output = Result<()>> + use<>> {
    host.commit.ask();
    let host = Rc::downgrade(host);
    Ok(async move {
        if let Some(host) = host.upgrade() {
            host.commit.done().await;
        }
        // Every task that was started while setting up gets its first turn.
        tokio::task::yield_now().await;
        Ok(())
    })
}

/// Never returns: the next step of any Lua raises, whatever pcall says.
fn exit(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    let code = match args.any() {
        Value::Nil => None,
        Value::Boolean(ok) => Some(u8::from(!ok)),
        Value::Integer(code) if (0..256).contains(&code) => Some(code as u8),
        other => {
            return Err(Error::invalid(
                "cnf.exit",
                format!("code must be 0 to 255, got {}", super::option::expected::describe(&other)),
            ));
        }
    };
    host.control.flag.stop(Stop::Exit(code));
    super::vm::interrupt();
    Ok(())
}

/// Raises an error like the library's own.
fn error(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<()> {
    let given = args.any();
    if let Value::String(text) = &given {
        let text = text.to_string_lossy();
        return Err(Error::invalid("cnf.error", "takes a table, got a string")
            .hint(format!("cnf.error{{message = {text:?}}}")));
    }
    let mut options = Options::new("cnf.error", given)?;
    let message: Option<String> = options.get("message")?;
    let code: Option<String> = options.get("code")?;
    let hint: Option<String> = options.get("hint")?;
    let op: Option<String> = options.get("op")?;
    let subject: Option<String> = options.get("subject")?;
    let detail: Option<String> = options.get("detail")?;
    options.finish()?;
    let message = message
        .ok_or_else(|| Error::invalid("cnf.error", "message is missing: it must be a string"))?;
    let mut error = Error::new(op.unwrap_or_default(), code.unwrap_or_default(), message);
    if let Some(subject) = subject {
        error = error.subject(subject);
    }
    if let Some(hint) = hint {
        error = error.hint(hint);
    }
    if let Some(detail) = detail {
        error = error.detail(detail);
    }
    Err(error)
}

fn on_stop(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    let handler: Function = args.required("fn")?;
    host.stop_handlers.borrow_mut().push(handler);
    Ok(())
}

/// `cnf.log.info(message, fields)` and its siblings.
fn log(lua: &Lua) -> mlua::Result<Table> {
    macro_rules! level {
        ($level:ident) => {
            |_: &Lua, _: &Rc<Host>, mut args: Args| {
                let (message, fields) = log_line(&mut args)?;
                tracing::$level!(target: "script", fields, "{message}");
                Ok(())
            }
        };
    }
    Module::new(lua, "cnf.log")
        .function("error", level!(error))
        .function("warn", level!(warn))
        .function("info", level!(info))
        .function("debug", level!(debug))
        .build()
}

/// The message, and the fields as one JSON object: tracing's own fields must be known at compile time.
fn log_line(args: &mut Args) -> Result<(String, String)> {
    let message: Value = args.any();
    let message = message.to_string().map_err(from_lua)?;
    let Some(fields) = args.optional::<Table>("fields")? else {
        return Ok((message, String::new()));
    };
    let mut object = serde_json::Map::new();
    for pair in fields.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(from_lua)?;
        let value = match value {
            Value::Boolean(b) => b.into(),
            Value::Integer(i) => i.into(),
            Value::Number(n) => n.into(),
            other => other.to_string().map_err(from_lua)?.into(),
        };
        object.insert(key.to_string().map_err(from_lua)?, value);
    }
    // Lua tables have no order; log lines that read alike are worth one.
    object.sort_keys();
    Ok((message, serde_json::Value::Object(object).to_string()))
}
