//! `bpf.attach_cgroup`, `attach_sk_lookup`, `attach_sockmap`, `attach_tracing`: hooks beyond network links, and the handle of
//! what is there.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use mlua::Lua;

use super::handle::{Class, Given, Handle, Returned};
use super::host::Host;
use super::map::Map;
use super::module::Args;
use super::netns::NetOption;
use super::program::Program;
use crate::kernel::bpf::beyond::{self, Beyond};
use crate::kernel::netns::named::Netns;
use crate::own::Owned;
use crate::record;
use crate::{Error, Result};

/// `bpf.attach_cgroup(path, program [, {hook=}])`
pub fn attach_cgroup(
    _: &Lua,
    host: &Rc<Host>,
    mut args: Args,
) -> Result<Returned<BeyondAttachment>> {
    let path: String = args.required("path")?;
    let program = args.required::<Given<Program>>("program")?.0;
    let mut options = args.options()?;
    let hook: Option<String> = options.get("hook")?;
    options.finish()?;
    let attached = beyond::attach_cgroup(&PathBuf::from(&path), program.kernel(), hook.as_deref());
    let attached = attached.map_err(|e| e.operation(args.op().to_owned()).about(path))?;
    enter(host, attached, None)
}

/// `bpf.attach_sk_lookup(netns, program)`
pub fn attach_sk_lookup(
    _: &Lua,
    host: &Rc<Host>,
    mut args: Args,
) -> Result<Returned<BeyondAttachment>> {
    let net = NetOption::argument(&mut args, host)?;
    let program = args.required::<Given<Program>>("program")?.0;
    let netns = net.netns()?;
    let place = net.place();
    let attached = beyond::attach_sk_lookup(&netns.fd, &place, program.kernel());
    let attached = attached.map_err(|e| e.operation(args.op().to_owned()).about(place))?;
    enter(host, attached, Some(netns))
}

/// `bpf.attach_sockmap(map, program [, {hook=}])`
pub fn attach_sockmap(
    _: &Lua,
    host: &Rc<Host>,
    mut args: Args,
) -> Result<Returned<BeyondAttachment>> {
    let map = args.required::<Given<Map>>("map")?.0;
    let program = args.required::<Given<Program>>("program")?.0;
    let mut options = args.options()?;
    options.set_subject(map.kernel().name());
    let hook: Option<String> = options.get("hook")?;
    options.finish()?;
    let attached = beyond::attach_sockmap(map.kernel(), program.kernel(), hook.as_deref());
    let name = map.kernel().name();
    enter(host, attached.map_err(|e| e.operation(args.op().to_owned()).about(name))?, None)
}

/// `bpf.attach_tracing(program [, {to=}])`
pub fn attach_tracing(
    _: &Lua,
    host: &Rc<Host>,
    mut args: Args,
) -> Result<Returned<BeyondAttachment>> {
    let program = args.required::<Given<Program>>("program")?.0;
    let mut options = args.options()?;
    options.set_subject(program.kernel().name());
    let to: Option<String> = options.get("to")?;
    options.finish()?;
    let attached = beyond::attach_tracing(program.kernel(), to.as_deref());
    let name = program.kernel().name();
    enter(host, attached.map_err(|e| e.operation(args.op().to_owned()).about(name))?, None)
}

/// Into the ledger: it ends with this process anyway, but sooner with its generation.
fn enter(
    host: &Rc<Host>,
    attached: Beyond,
    netns: Option<Netns>,
) -> Result<Returned<BeyondAttachment>> {
    let ending = attached.clone();
    let number = host.ledger.add(Owned::Other {
        netns,
        kind: "attachment",
        name: format!("{} on {} (link {})", attached.hook(), attached.target(), attached.link_id()),
        undo: Arc::new(move || {
            ending.detach();
            Ok(())
        }),
    })?;
    Ok(Returned(BeyondAttachment(Rc::new(Held { attached, number }))))
}

/// A program on such a hook, as scripts hold it.
#[derive(Clone)]
pub struct BeyondAttachment(Rc<Held>);

struct Held {
    attached: Beyond,
    number: u64,
}

impl Handle for BeyondAttachment {
    const TYPE: &'static str = "BeyondAttachment";
    const WORD: &'static str = "attachment";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("target", |_, this| Ok(this.0.attached.target().to_owned()))
            .method("replace", |_, _, this, mut args| {
                let program = args.required::<Given<Program>>("program")?.0;
                let about = |e: Error| e.operation(args.op().to_owned());
                this.0.attached.replace(program.kernel()).map_err(about)
            })
            .method("detach", |_, host, this, _| {
                this.0.attached.detach();
                host.ledger.forget(this.0.number);
                Ok(())
            })
            .method("info", |_, _, this, args| {
                let info = this.0.attached.info().map_err(|e| e.operation(args.op().to_owned()))?;
                Ok(record! {
                    hook: info.hook, target: info.target, program: info.program.name(),
                    program_id: info.program.id(), link_id: info.link_id,
                })
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!("BeyondAttachment({} on {})", self.0.attached.hook(), self.0.attached.target())
    }
}
