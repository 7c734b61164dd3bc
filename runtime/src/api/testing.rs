//! `_test`: what `lua-stdlib/test.lua` and our own tests cannot say themselves: undoing what a case created, time, and
//! packets made byte by byte.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Lua, Table};

use super::handle::Given;
use super::host::Host;
use super::link::Link;
use super::module::{Args, Module};
use super::program::Program;
use crate::Result;
use crate::kernel::bpf::hook::{self, Hook, Order};
use crate::kernel::socket;
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
        .function("send_frames", send_frames)
        .function("pin_xdp", pin_xdp)
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

/// `pin_xdp(link, program, path)`: what another program would leave, a pinned link that no ledger knows.
fn pin_xdp(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<()> {
    let link = args.required::<Given<Link>>("link")?.0;
    let program = args.required::<Given<Program>>("program")?.0;
    let path: String = args.required("path")?;
    let target = super::hook::target(&link, args.op())?;
    hook::attach(&target, Hook::Xdp, program.kernel(), &Order::default())?.pin(Path::new(&path))
}

/// `send_frames(link, {bytes, ...} [, mark])` sends frames, link header and all, out of the link.
fn send_frames(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<()> {
    let link = args.required::<Given<Link>>("link")?.0;
    let frames: Table = args.required("frames")?;
    let mark: Option<u32> = args.optional("mark")?;
    let frames: Vec<Vec<u8>> = frames
        .sequence_values::<mlua::LuaString>()
        .map(|frame| frame.map(|bytes| bytes.as_bytes().to_vec()).map_err(super::error::from_lua))
        .collect::<Result<_>>()?;
    link.ask("_test.send_frames", |open, index| {
        let frames = frames.iter().map(Vec::as_slice);
        socket::send_frames(&open.netns.fd, "_test.send_frames", index, frames, mark)
    })
}
