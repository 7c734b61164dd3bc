//! Errors on their way between Rust and Lua: one value in both worlds.
//!
//! In Lua the value answers to `.op`, `.code`, `.message`, `.hint` and `.where`; `tostring` is what a person reads.

use mlua::{Function, Lua, Table, Value};

use crate::Error;
use crate::error::Site;
use crate::own::stage::Said;

/// Turns our error into one that Lua can throw.
pub fn raise(error: Error) -> mlua::Error {
    mlua::Error::external(error)
}

/// Finds our error in whatever mlua wrapped it into; any other failure becomes one of ours.
pub fn from_lua(error: mlua::Error) -> Error {
    match find(&error) {
        Some(ours) => ours.clone(),
        None => plain(&error),
    }
}

fn find(error: &mlua::Error) -> Option<&Error> {
    match error {
        mlua::Error::CallbackError { cause, .. } => find(cause),
        mlua::Error::BadArgument { cause, .. } => find(cause),
        mlua::Error::WithContext { cause, .. } => find(cause),
        mlua::Error::ExternalError(external) => external.downcast_ref::<Error>(),
        _ => None,
    }
}

/// A failure that Lua itself raised: a syntax error, a nil index, `error("text")`.
fn plain(error: &mlua::Error) -> Error {
    match error {
        mlua::Error::CallbackError { cause, .. } => plain(cause),
        mlua::Error::SyntaxError { message, .. } => located(message).operation("syntax error"),
        mlua::Error::RuntimeError(message) => located(message),
        mlua::Error::MemoryError(_) => out_of_memory(),
        other => Error::new("", "", other.to_string()),
    }
}

/// What a script that used up its memory is told.
pub fn out_of_memory() -> Error {
    Error::new("", "ENOMEM", "the script used all the memory Lua may have")
        .hint("raise the limit with --memory, or look for a table that grows without end")
}

/// A message handler for `xpcall`: strings and our errors stay; any other value becomes an error with the script's line.
pub fn located_by(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, problem: Value| {
        Ok(match &problem {
            Value::String(_) | Value::Error(_) => problem,
            other => Value::Error(Box::new(raise(from_value(other).at(site(lua, 1))))),
        })
    })
}

/// A value caught by `xpcall` at the edge of a script.
pub fn from_value(value: &Value) -> Error {
    match value {
        Value::Error(error) => from_lua((**error).clone()),
        Value::String(text) => located(&text.to_string_lossy()),
        Value::Table(_) | Value::UserData(_) => {
            let text = value.to_string().unwrap_or_else(|_| value.type_name().to_owned());
            match value {
                Value::Table(table) if text.starts_with("table: 0x") => from_table(table),
                _ => Error::new("", "", text),
            }
        }
        other => Error::new("", "", format!("error value is {}", other.type_name())),
    }
}

/// A table that was raised as it is: its fields are read as those of `cnf.error{...}` when it has a message.
fn from_table(table: &Table) -> Error {
    let field = |name: &str| match table.raw_get(name) {
        Ok(Value::String(text)) => Some(text.to_string_lossy()),
        _ => None,
    };
    let Some(message) = field("message") else {
        let text = format!("error value is a table: {}", fields(table));
        return Error::new("", "", text)
            .hint("cnf.error{code = ..., message = ...} raises an error that reads as one");
    };
    let error =
        Error::new(field("op").unwrap_or_default(), field("code").unwrap_or_default(), message);
    let error = match field("subject") {
        Some(subject) => error.subject(subject),
        None => error,
    };
    match field("hint") {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The plain fields of a table that was raised without a `__tostring`.
fn fields(table: &Table) -> String {
    let mut fields: Vec<String> = table
        .pairs::<Value, Value>()
        .flatten()
        .filter_map(|(key, value)| {
            let value = match &value {
                Value::String(text) => format!("{:?}", text.to_string_lossy()),
                Value::Integer(_) | Value::Number(_) | Value::Boolean(_) => {
                    value.to_string().ok()?
                }
                other => other.type_name().to_owned(),
            };
            Some(format!("{} = {value}", key.to_string().ok()?))
        })
        .collect();
    fields.sort();
    match fields.len() {
        0 => "{}".into(),
        1..=8 => format!("{{ {} }}", fields.join(", ")),
        more => format!("{{ {}, ... ({} more) }}", fields[..8].join(", "), more - 8),
    }
}

/// Lua puts "file:line: " before its own messages: that is the site, not part of the cause.
fn located(message: &str) -> Error {
    let text = message.split("\nstack traceback:").next().unwrap_or(message);
    if text == "not enough memory" {
        return out_of_memory();
    }
    let Some((file, line, rest)) = split_position(text) else {
        return Error::new("", "", text);
    };
    Error::new("", "", rest).at(Some(site_at(file, line)))
}

fn split_position(text: &str) -> Option<(&str, u32, &str)> {
    for (colon, _) in text.match_indices(':') {
        let rest = &text[colon + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && rest[digits..].starts_with(": ") {
            return Some((&text[..colon], rest[..digits].parse().ok()?, &rest[digits + 2..]));
        }
    }
    None
}

/// The site of a file name and line as Lua reports them, with the source line if it can be read.
pub fn site_at(file: &str, line: u32) -> Site {
    Site { file: file.to_owned(), line, text: super::source::line(file, line) }
}

/// Where the script is: the first Lua frame at or above `level` that is not part of this program.
pub fn site(lua: &Lua, level: usize) -> Option<Site> {
    place(lua, level).map(|Site { file, line, .. }| site_at(&file, line))
}

/// As many frames of this program can lie on top of a script's.
const DEEPEST: usize = 32;

/// As [`site`], without the text of the line: it takes a search in the whole script.
fn place(lua: &Lua, level: usize) -> Option<Site> {
    for level in level..level + DEEPEST {
        let found = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            // Files and named chunks of a user start with '@'; our own library's with "=[cnf]", C functions with "=[C]".
            let file = source.source.as_deref()?.strip_prefix('@')?.to_owned();
            Some(Site { file, line: frame.current_line()? as u32, text: None })
        })?;
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The call that is under way, for what is refused only later.
pub fn said(lua: &Lua, op: &str) -> Said {
    Said::new(op, place(lua, 1))
}

/// Gives mlua's error values the fields and the text of ours.
///
/// `metatable` is the one that all error values share.
pub fn dress(lua: &Lua, metatable: &Table) -> mlua::Result<()> {
    let index = lua.create_function(|lua, (value, key): (Value, mlua::LuaString)| {
        let Value::Error(error) = &value else { return Ok(Value::Nil) };
        let error = from_lua((**error).clone());
        let text = |text: Option<String>| match text {
            Some(text) => lua.create_string(text).map(Value::String),
            None => Ok(Value::Nil),
        };
        match &*key.to_string_lossy() {
            "op" => text(Some(error.op().to_owned())),
            "subject" => text(error.get_subject().map(str::to_owned)),
            "code" => text(Some(error.code().to_owned())),
            "message" => text(Some(error.message())),
            "hint" => text(error.get_hint().map(str::to_owned)),
            "detail" => text(error.get_detail().map(str::to_owned)),
            "where" => text(error.site().map(|site| format!("{}:{}", site.file, site.line))),
            _ => Ok(Value::Nil),
        }
    })?;
    let tostring = lua.create_function(|_, value: Value| {
        let Value::Error(error) = &value else { return Ok(String::new()) };
        let error = from_lua((**error).clone());
        Ok(match error.site() {
            Some(site) => format!("{}:{}: {error}", site.file, site.line),
            None => error.to_string(),
        })
    })?;
    metatable.raw_set("__index", index)?;
    metatable.raw_set("__tostring", tostring)?;
    metatable.raw_set("__name", "error")
}
