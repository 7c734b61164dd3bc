//! `Program` handles: what a program is, and running it on a packet that nobody sends.

use std::path::Path;
use std::rc::Rc;

use mlua::{Lua, Value};

use super::handle::{Class, Handle, held};
use super::host::Host;
use super::link::Link;
use super::module::Args;
use super::option::Options;
use super::value::Data;
use super::vm;
use crate::kernel::bpf::program::{ProgramInfo, TestRun};
use crate::kernel::bpf::{self, ProgramKind};
use crate::record;
use crate::{Error, Result};

/// A loaded program as scripts hold it.
#[derive(Clone)]
pub struct Program(bpf::Program);

impl Program {
    pub fn new(program: bpf::Program) -> Self {
        Program(program)
    }

    pub fn kernel(&self) -> &bpf::Program {
        &self.0
    }
}

impl Handle for Program {
    const TYPE: &'static str = "Program";
    const WORD: &'static str = "program";

    fn class(class: &mut Class<'_, Self>) {
        class
            .field("name", |_, this| Ok(this.0.name().to_owned()))
            .field("type", |_, this| Ok(this.0.kind().name()))
            .field("id", |_, this| Ok(this.0.id()))
            .field("tag", |_, this| Ok(this.0.tag()))
            .method("info", |_, _, this, args| {
                let info = this.0.info().map_err(|e| e.operation(args.op().to_owned()))?;
                Ok(info_data(info))
            })
            .method("test_run", test_run)
            .method("pin", |_, _, this, mut args| {
                let path: String = args.required("path")?;
                this.0.pin(Path::new(&path)).map_err(|e| e.operation(args.op().to_owned()))
            });
    }

    fn identity(&self) -> String {
        self.0.id().to_string()
    }

    fn from_name(name: &str) -> Option<String> {
        Some(format!("a Program comes from its object: object.programs.{name}"))
    }

    fn display(&self) -> String {
        format!("Program({}, {} {})", self.0.name(), self.0.kind().name(), self.0.id())
    }
}

/// Bytes of one instruction (`struct bpf_insn`).
const INSTRUCTION: u32 = 8;

pub fn info_data(info: ProgramInfo) -> Data {
    record! {
        id: info.id, name: info.name, instructions: info.translated_size / INSTRUCTION, r#type: info.kind.name(), tag: info.tag, map_ids: info.map_ids,
        btf_id: info.btf_id, gpl_compatible: info.gpl_compatible, uid: info.uid, load_time: info.load_time as f64 / 1e9,
        translated_size: info.translated_size, jited_size: info.jited_size,
        verified_instructions: info.verified_instructions, run_count: info.run_count,
        run_time: info.run_nanoseconds as f64 / 1e9,
    }
}

/// `p:test_run{packet=, repeat_count=, ctx={ifindex=, mark=, ...}|bytes}`
fn test_run(_: &Lua, _: &Rc<Host>, this: &Program, mut args: Args) -> Result<Data> {
    let mut options = args.options()?;
    options.set_subject(this.0.name().to_owned());
    let packet: Vec<u8> = options.get("packet")?.unwrap_or_default();
    let repeat = options.get("repeat_count")?.unwrap_or(1);
    let context = context(&mut options, this.0.kind(), packet.len())?;
    options.finish()?;
    // Interface indexes mean what they mean in the calling thread's namespace.
    let target =
        context.link.as_ref().map(|link| super::hook::target(link, args.op())).transpose()?;
    let run = in_parts(repeat, |times| {
        let run = || this.0.test_run(&packet, &context.bytes, times);
        target.as_ref().map_or_else(run, |target| target.netns.within(run))
    });
    let run = run.map_err(|e| e.operation(args.op().to_owned()).about(this.0.name()))?;
    let retval = run.retval as i32;
    Ok(record! {
        retval: retval, verdict: verdict(this.0.kind(), retval), packet: Data::Str(run.packet),
        ctx: (context.read)(run.ctx), nanoseconds: run.nanoseconds,
    })
}

/// Runs of one call into the kernel: it takes no longer than a person waits.
const PART: u32 = 100_000;

/// Many runs, a part at a time, so that they can be interrupted; the last part's result, and the average of all.
fn in_parts(repeat: u32, run: impl Fn(u32) -> Result<TestRun>) -> Result<TestRun> {
    // No repetition is one run to the kernel.
    let repeat = repeat.max(1);
    let (mut done, mut nanoseconds) = (0, 0u64);
    loop {
        let times = PART.min(repeat - done);
        let part = run(times)?;
        done += times;
        nanoseconds += u64::from(part.nanoseconds) * u64::from(times);
        if done == repeat {
            let nanoseconds = (nanoseconds / u64::from(repeat)) as u32;
            return Ok(TestRun { nanoseconds, ..part });
        }
        if vm::stopping() {
            return Err(Error::new("program", "EINTR", format!("interrupted after {done} runs")));
        }
    }
}

/// What a result means to the hook (`linux/pkt_cls.h`, `linux/bpf.h`); `None` where results have no names.
fn verdict(kind: ProgramKind, retval: i32) -> Option<&'static str> {
    const XDP: [&str; 5] = ["aborted", "drop", "pass", "tx", "redirect"];
    // TC_ACT_UNSPEC is -1: "next" to tcx and netkit.
    const TC: [&str; 10] = [
        "next",
        "pass",
        "reclassify",
        "drop",
        "pipe",
        "stolen",
        "queued",
        "repeat",
        "redirect",
        "trap",
    ];
    let words: &[&'static str] = match kind {
        ProgramKind::XDP => &XDP,
        ProgramKind::TC | ProgramKind::TC_ACTION => &TC,
        ProgramKind::CGROUP_SKB | ProgramKind::SK_LOOKUP => &["drop", "pass"],
        _ => return None,
    };
    let first = if words.len() == TC.len() { -1 } else { 0 };
    words.get(usize::try_from(retval.checked_sub(first)?).ok()?).copied()
}

/// A context on its way in, and how it is read on its way out.
struct Context {
    bytes: Vec<u8>,
    /// The link whose index is in it: the program runs in its namespace.
    link: Option<Link>,
    read: fn(Vec<u8>) -> Data,
}

/// The `ctx` option: fields for the contexts that are known, bytes for any.
fn context(options: &mut Options, kind: ProgramKind, packet: usize) -> Result<Context> {
    if options.raw("ctx")?.is_string() {
        let bytes = options.get("ctx")?.unwrap_or_default();
        return Ok(Context { bytes, link: None, read: Data::Str });
    }
    const SKB: [ProgramKind; 4] = [
        ProgramKind::TC,
        ProgramKind::TC_ACTION,
        ProgramKind::SOCKET_FILTER,
        ProgramKind::CGROUP_SKB,
    ];
    let given = options.nested("ctx")?;
    match (given, kind) {
        (Some(mut given), ProgramKind::XDP) => {
            let context = xdp_context(&mut given, packet)?;
            given.finish()?;
            Ok(context)
        }
        (None, kind) if !SKB.contains(&kind) => {
            Ok(Context { bytes: Vec::new(), link: None, read: |_| Data::Nil })
        }
        (given, kind) if SKB.contains(&kind) => {
            let mut given = match given {
                Some(given) => given,
                None => Options::new(options.op(), Value::Nil)?,
            };
            let context = skb_context(&mut given)?;
            given.finish()?;
            Ok(context)
        }
        _ => Err(options.bad(format!("the context of {kind} programs is given as bytes"))),
    }
}

/// Writes `value` at byte `offset`.
fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// The number at byte `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// An interface index, or a Link and with it the namespace where its index is meant.
fn index(options: &mut Options, word: &'static str) -> Result<Option<(u32, Option<Link>)>> {
    let value = options.raw(word)?;
    if let Some(link) = held::<Link>(&value) {
        return Ok(Some((link.index(), Some(link))));
    }
    Ok(options.get::<u32>(word)?.map(|index| (index, None)))
}

/// The fields of `struct __sk_buff` that a test may set, with their offsets (net/bpf/test_run.c,
/// `convert___skb_to_skb`).
const SKB_FIELDS: [(&str, usize); 6] = [
    ("mark", 8),
    ("priority", 32),
    ("ingress_ifindex", 36),
    ("wire_len", 160),
    ("gso_segs", 164),
    ("gso_size", 176),
];
/// `__sk_buff.ifindex`, `.tstamp` (64 bits), `.cb` (five words).
const SKB_IFINDEX: usize = 40;
const SKB_TSTAMP: usize = 152;
const SKB_CB: usize = 48;

fn skb_context(options: &mut Options) -> Result<Context> {
    const SIZE: usize = 192;
    let mut bytes = vec![0; SIZE];
    for (word, offset) in SKB_FIELDS {
        if let Some(value) = options.get::<u32>(word)? {
            put(&mut bytes, offset, &value.to_ne_bytes());
        }
    }
    if let Some(value) = options.get::<u64>("tstamp")? {
        put(&mut bytes, SKB_TSTAMP, &value.to_ne_bytes());
    }
    let mut link = None;
    if let Some((index, named)) = index(options, "ifindex")? {
        put(&mut bytes, SKB_IFINDEX, &index.to_ne_bytes());
        link = named;
    }
    Ok(Context { bytes, link, read: skb_fields })
}

/// What the program left in its context.
fn skb_fields(bytes: Vec<u8>) -> Data {
    let fields = SKB_FIELDS.iter().map(|(name, offset)| (*name, word(&bytes, *offset).into()));
    let mut fields: Vec<(&'static str, Data)> = fields.collect();
    fields.push(("ifindex", word(&bytes, SKB_IFINDEX).into()));
    let stamp = bytes.get(SKB_TSTAMP..SKB_TSTAMP + 8).and_then(|b| b.try_into().ok());
    fields.push(("tstamp", stamp.map(u64::from_ne_bytes).into()));
    let cb = (0..5).filter_map(|n| word(&bytes, SKB_CB + 4 * n)).collect::<Vec<u32>>();
    fields.push(("cb", cb.into()));
    Data::Record(fields)
}

/// `struct xdp_md`: the packet's length, and the device and queue it came by.
fn xdp_context(options: &mut Options, length: usize) -> Result<Context> {
    const SIZE: usize = 24;
    let mut bytes = vec![0; SIZE];
    put(&mut bytes, 4, &(length as u32).to_ne_bytes());
    if let Some(queue) = options.get::<u32>("rx_queue_index")? {
        put(&mut bytes, 16, &queue.to_ne_bytes());
    }
    let mut link = None;
    if let Some((index, named)) = index(options, "ingress_ifindex")? {
        put(&mut bytes, 12, &index.to_ne_bytes());
        link = named;
    }
    let read = |bytes: Vec<u8>| {
        record! { ingress_ifindex: word(&bytes, 12), rx_queue_index: word(&bytes, 16) }
    };
    Ok(Context { bytes, link, read })
}
