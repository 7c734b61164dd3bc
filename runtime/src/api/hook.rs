//! `tcx`, `netkit`, `xdp`, `tc` and `bpf.attach`: one shape for all hooks, and the handle of what sits there.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::error::said;
use super::handle::{Class, Given, Handle, Returned, held};
use super::host::Host;
use super::link::Link;
use super::module::{Args, Module};
use super::option::{Options, expected, nearest};
use super::program::Program;
use super::value::Data;
use crate::kernel::bpf::hook::{self, Anchor, Direction, Hook, Order, Target, XdpMode};
use crate::own::{AttachmentPlace, Mounted, Owned, Trace};
use crate::record;
use crate::{Error, Result};

pub fn tcx(lua: &Lua) -> mlua::Result<Table> {
    family(lua, "tcx").build()
}

pub fn netkit(lua: &Lua) -> mlua::Result<Table> {
    family(lua, "netkit").function("pair", super::link::netkit_pair).build()
}

pub fn xdp(lua: &Lua) -> mlua::Result<Table> {
    family(lua, "xdp").build()
}

pub fn tc(lua: &Lua) -> mlua::Result<Table> {
    family(lua, "tc").build()
}

/// `attach` and `query` of one family of hooks.
fn family<'lua>(lua: &'lua Lua, family: &'static str) -> Module<'lua> {
    Module::new(lua, family)
        .function("attach", move |lua, host, mut args| {
            let link = args.required::<Given<Link>>("link")?.0;
            let hook = side(&mut args, family)?;
            let program = args.required::<Given<Program>>("program")?.0;
            attach(lua, host, args, &link, hook, &program)
        })
        .function("query", move |_, _, mut args| {
            let link = args.required::<Given<Link>>("link")?.0;
            let hook = side(&mut args, family)?;
            query(&args, &link, hook)
        })
}

/// `bpf.attach(link, "ingress"|"egress", prog, opts)`: tcx where the kernel has it, else clsact.
pub fn attach_auto(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Attachment>> {
    let link = args.required::<Given<Link>>("link")?.0;
    let hook = auto_hook(&mut args)?;
    let program = args.required::<Given<Program>>("program")?.0;
    attach(lua, host, args, &link, hook, &program)
}

/// The hook of the direction that the next argument names, on this kernel.
fn auto_hook(args: &mut Args) -> Result<Hook> {
    hook::auto_hook(match side(args, "tcx")?.side() {
        "ingress" => Direction::Ingress,
        _ => Direction::Egress,
    })
}

/// The hook of that family on the side that the next argument names; xdp has but one.
fn side(args: &mut Args, family: &'static str) -> Result<Hook> {
    let sides: Vec<&str> =
        Hook::ALL.iter().filter(|h| h.family() == family).map(|h| h.side()).collect();
    if sides == [""] {
        return Ok(Hook::Xdp);
    }
    let expected = || format!("it is \"{}\" or \"{}\"", sides[0], sides[1]);
    let wanted: String = args.required("side").map_err(|e| e.hint(expected()))?;
    Hook::find(family, &wanted).ok_or_else(|| {
        let error = Error::invalid(args.op().to_owned(), format!("there is no side \"{wanted}\""));
        match nearest(&wanted, &sides) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error.hint(expected()),
        }
    })
}

/// The place of a link, as the kernel layer wants it.
pub fn target(link: &Link, op: &str) -> Result<Target> {
    let open = link.net().open().map_err(|e| e.operation(op.to_owned()).subject(link.name()))?;
    Ok(Target::new(&open.netns.fd, link.index(), link.name()))
}

fn attach(
    lua: &Lua,
    host: &Rc<Host>,
    mut args: Args,
    link: &Link,
    hook: Hook,
    program: &Program,
) -> Result<Returned<Attachment>> {
    let mut options = args.options()?;
    options.set_subject(match hook.side() {
        "" => link.name(),
        side => format!("{}, {side}", link.name()),
    });
    let slot = options.get::<String>("slot")?.unwrap_or_else(|| program.kernel().name().to_owned());
    let order = order(&mut options, host, hook)?;
    let about = |e: Error| e.operation(args.op().to_owned());
    let target = target(link, args.op())?;
    let subject = options.subject().map(str::to_owned).unwrap_or_default();
    options.finish()?;
    let netns = link.net().netns()?;
    let place =
        AttachmentPlace { netns, index: link.index(), link: link.name(), hook, slot: slot.clone() };
    // The kernel itself sees to it that xdp has but one program.
    let taken = host
        .ledger
        .by_key(&place.key())
        .is_some_and(|(number, _)| !host.stage.is_older(number) || host.stage.has_named(number));
    if hook != Hook::Xdp && taken {
        return Err(about(slot_taken(&target, hook, program, &slot).subject(subject)));
    }
    let mounted = Mounted { program: program.kernel().clone(), order, attached: None };
    let owned = Owned::Attachment {
        pin: host.pin(&place),
        place,
        filter: None,
        trace: Trace::default(),
        mounted: Some(mounted),
    };
    let open = link.net().open()?;
    let number = host
        .stage
        .own(owned, &open.netlink, || said(lua, args.op()).about(subject.as_str()))
        .map_err(|e| about(e).about(subject.as_str()))?;
    let number = Cell::new(number);
    Ok(Returned(Attachment(Rc::new(Attached { hook, link: link.clone(), slot, number }))))
}

/// Why a slot cannot be had: the same program again, or another one.
fn slot_taken(target: &Target, hook: Hook, program: &Program, slot: &str) -> Error {
    let id = program.kernel().id();
    let here = hook::query(target, hook).is_ok_and(|q| q.programs.iter().any(|p| p.id == id));
    if here && hook.family() != "tc" {
        let name = program.kernel().name();
        return Error::new("", "EEXIST", format!("program \"{name}\" is already attached here"))
            .hint("load the object again to attach it twice, and give it a slot of its own");
    }
    Error::new("", "EEXIST", format!("slot \"{slot}\" is taken on this hook"))
        .hint("give each attachment of one hook a slot of its own: {slot = \"...\"}")
}

fn order(options: &mut Options, host: &Host, hook: Hook) -> Result<Order> {
    let mut order = Order::default();
    if hook == Hook::Xdp {
        let modes = [
            ("native", XdpMode::Native),
            ("generic", XdpMode::Generic),
            ("offload", XdpMode::Offload),
        ];
        order.mode = options.choice("mode", &modes)?.unwrap_or_default();
        return Ok(order);
    }
    order.first = options.flag("first")?;
    order.last = options.flag("last")?;
    order.before = anchor(options, host, "before")?;
    order.after = anchor(options, host, "after")?;
    order.behind = options.get("behind")?;
    if hook.family() == "tc" {
        order.priority = options.get("priority")?;
        order.handle = options.get("handle")?;
    } else {
        order.expected_revision = options.get("expected_revision")?;
    }
    Ok(order)
}

fn anchor(options: &mut Options, host: &Host, word: &'static str) -> Result<Option<Anchor>> {
    let value = options.raw(word)?;
    if let Some(attachment) = held::<Attachment>(&value) {
        let mounted = attachment.mounted(host)?;
        // One that waits for the commit will be there by then.
        return Ok(Some(match mounted.attached {
            Some(attached) => attached.anchor(),
            None => Anchor::Program(mounted.program),
        }));
    }
    if let Some(program) = held::<Program>(&value) {
        return Ok(Some(Anchor::Program(program.kernel().clone())));
    }
    match &value {
        Value::Nil => Ok(None),
        Value::Integer(id) if *id > 0 => Ok(Some(Anchor::ProgramId(*id as u32))),
        other => Err(options.bad(format!(
            "{word} must be an Attachment, a Program or a program id, got {}",
            expected::describe(other)
        ))),
    }
}

fn query(args: &Args, link: &Link, hook: Hook) -> Result<Data> {
    let found = hook::query(&target(link, args.op())?, hook)
        .map_err(|e| e.operation(args.op().to_owned()))?;
    let programs: Vec<Data> = found
        .programs
        .into_iter()
        .map(|p| record! { id: p.id, name: p.name, tag: p.tag, link_id: p.link_id })
        .collect();
    Ok(record! { revision: found.revision, programs: programs })
}

/// A program on a hook, as scripts hold it.
#[derive(Clone)]
pub struct Attachment(Rc<Attached>);

struct Attached {
    hook: Hook,
    link: Link,
    slot: String,
    /// Of its entry in the ledger; another one after `replace`.
    number: Cell<u64>,
}

impl Attachment {
    /// `eth0, egress`
    fn place(&self) -> String {
        match self.0.hook.side() {
            "" => self.0.link.name(),
            side => format!("{}, {side}", self.0.link.name()),
        }
    }

    /// # Errors
    /// ENODEV when it is gone; EAGAIN when it waits for the commit.
    fn attached(&self, host: &Host) -> Result<hook::Attachment> {
        match self.mounted(host)?.attached {
            Some(attached) => Ok(attached),
            None => Err(Error::new("", "EAGAIN", "it is attached when the load commits")
                .subject(self.0.slot.clone())
                .hint("ask after cnf.wait(), or in a task")),
        }
    }

    fn mounted(&self, host: &Host) -> Result<Mounted> {
        match host.ledger.get(self.0.number.get()) {
            Some(Owned::Attachment { mounted: Some(mounted), .. }) => Ok(mounted),
            _ => host.stage.waiting_mount(self.0.number.get()).ok_or_else(|| {
                Error::new("", "ENODEV", "it has been detached").subject(self.place())
            }),
        }
    }
}

impl Handle for Attachment {
    const TYPE: &'static str = "Attachment";
    const WORD: &'static str = "attachment";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("link", |_, this| Ok(Returned(this.0.link.clone())))
            .field("slot", |_, this| Ok(this.0.slot.clone()))
            .method("replace", |lua, host, this, mut args| {
                let program = args.required::<Given<Program>>("program")?.0;
                let about = |e: Error| e.operation(args.op().to_owned());
                let mut mounted = this.mounted(host).map_err(about)?;
                mounted.program = program.kernel().clone();
                let number = this.0.number.get();
                let entry = host.ledger.get(number).or_else(|| host.stage.waiting(number));
                let Some(Owned::Attachment { place, pin, filter, trace, .. }) = entry else {
                    return Err(about(Error::new("", "ENODEV", "it has been detached")));
                };
                let new = Owned::Attachment { place, pin, filter, trace, mounted: Some(mounted) };
                let open = this.0.link.net().open()?;
                let number = host
                    .stage
                    .replace(number, new, &open.netlink, said(lua, args.op()))
                    .map_err(about)?;
                this.0.number.set(number);
                Ok(())
            })
            .method("detach", |_, host, this, args| {
                let about = |e: Error| e.operation(args.op().to_owned());
                let number = this.0.number.get();
                if host.stage.disown(number).map_err(about)? {
                    return Ok(());
                }
                if host.ledger.get(number).is_some() {
                    this.attached(host)?.detach().map_err(about)?;
                    host.ledger.forget(number);
                    host.stage.hooks_changed();
                }
                Ok(())
            })
            .method("info", |_, host, this, args| {
                let about = |e: Error| e.operation(args.op().to_owned());
                let info = this.attached(host).and_then(|attached| attached.info()).map_err(about)?;
                if info.index == 0 {
                    let message = format!("the device {} is gone", info.link);
                    let error = Error::new("", "ENODEV", message).hint(crate::kernel::link::GONE);
                    return Err(about(error.subject(this.0.slot.clone())));
                }
                Ok(record! {
                    hook: info.hook.family(), side: info.hook.side(), link: info.link, index: info.index,
                    slot: this.0.slot.as_str(), program: info.program.name(), program_id: info.program.id(),
                    link_id: info.link_id, mode: info.mode.map(XdpMode::name), priority: info.priority.map(u32::from),
                    handle: info.handle,
                })
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        let hook = self.0.hook;
        let side = if hook.side().is_empty() { String::new() } else { format!(" {}", hook.side()) };
        format!("Attachment({} on {}{side} of {})", self.0.slot, hook.family(), self.0.link.name())
    }
}
