//! `_test`: what `lua-stdlib/test.lua` cannot say itself: undoing what a case created, time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Lua, Table};

use super::host::Host;
use super::module::{Args, Module};
use crate::Result;
use crate::own::Mark;

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    let start = Instant::now();
    Module::new(lua, "_test")
        .function("mark", mark)
        .function("undo", undo)
        .function("seconds", |_, _, mut args| {
            Ok(args.required::<Duration>("duration")?.as_secs_f64())
        })
        .function("now", move |_, _, _| Ok(start.elapsed().as_secs_f64()))
        .function("pid", |_, _, _| Ok(std::process::id()))
        .function("task_failures", |_, host, _| Ok(host.tasks.take_failures()))
        .build()
}

/// `mark() -> ledger mark, task mark`
fn mark(_: &Lua, host: &Rc<Host>, _: Args) -> Result<(u64, u64)> {
    Ok((host.ledger.mark().0, host.tasks.latest()))
}

/// `undo(ledger mark, task mark)` ends the tasks that started since and undoes what was created since.
fn undo(_: &Lua, host: &Rc<Host>, mut args: Args) -> Result<()> {
    let ledger: u64 = args.required("ledger mark")?;
    let tasks: u64 = args.required("task mark")?;
    host.tasks.abort_after(tasks);
    match host.ledger.tear_down_to(Mark(ledger)).failures.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
