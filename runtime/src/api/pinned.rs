//! `bpf.pinned` and the handle of a bpf link that somebody pinned.

use std::path::Path;
use std::rc::Rc;

use mlua::{IntoLua, Lua, Value};

use super::handle::{Class, Handle, Returned};
use super::host::Host;
use super::map::Map;
use super::module::Args;
use super::option::expected;
use super::program::Program;
use super::value::Data;
use crate::kernel::bpf::inventory::LinkInfo;
use crate::kernel::bpf::pinned::{self, BpfLink, Pinned};
use crate::record;
use crate::{Error, Result};

/// `bpf.pinned(path [, kind])`
pub fn open(lua: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Value> {
    let path: String = args.required("path")?;
    let kind: Option<String> = args.optional("kind")?;
    if let Some(other) = kind.as_ref().filter(|k| !["program", "map", "link"].contains(&&***k)) {
        let got = expected::describe(&Value::String(
            lua.create_string(other).map_err(super::error::from_lua)?,
        ));
        let message = format!("kind is \"program\", \"map\" or \"link\", not {got}");
        return Err(Error::invalid(args.op().to_owned(), message));
    }
    let found = match &kind {
        Some(kind) => {
            let wanted = |found: Pinned| (found.word() == kind).then_some(found);
            pinned::open_as(Path::new(&path), kind, wanted)
        }
        None => pinned::open(Path::new(&path)),
    };
    match found? {
        Pinned::Program(program) => Returned(Program::new(program)).into_lua(lua),
        Pinned::Map(map) => Returned(Map::new(map)).into_lua(lua),
        Pinned::Link(link) => Returned(Link(link)).into_lua(lua),
    }
    .map_err(super::error::from_lua)
}

pub fn info_data(link: &LinkInfo) -> Data {
    record! {
        id: link.id, r#type: link.kind_name(), program_id: link.program_id, index: link.index,
        attach_type: link.attach_type, cgroup_id: link.cgroup_id, netns_inode: link.netns_inode,
    }
}

/// A bpf link as scripts hold it.
#[derive(Clone)]
struct Link(BpfLink);

impl Handle for Link {
    const TYPE: &'static str = "BpfLink";
    const WORD: &'static str = "bpf_link";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("id", |_, this| Ok(this.0.id))
            .method("info", |_, _, this, args| {
                let info = this.0.info().map_err(|e| e.operation(args.op().to_owned()))?;
                Ok(info_data(&info))
            })
            .method("detach", |_, _, this, args| {
                this.0.detach().map_err(|e| e.operation(args.op().to_owned()))
            });
    }

    fn identity(&self) -> String {
        self.0.id.to_string()
    }

    fn display(&self) -> String {
        format!("BpfLink({})", self.0.id)
    }
}
