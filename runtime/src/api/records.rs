//! `_records`: what programs send, as streams of batches. `lua-stdlib/records.lua` calls handlers with them.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{IntoLuaMulti, Lua, MultiValue, Table, Value};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::from_lua;
use super::handle::{Class, Given, Handle, Returned, intern};
use super::host::Host;
use super::map::Map;
use super::module::{Args, Module};
use super::option::Size;
use super::{reads, stack};
use crate::kernel::bpf::records::{Batch, Line, Records, Trace};
use crate::kernel::bpf::{Column, Type};
use crate::record;
use crate::{Error, Result};

pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "_records")
        .function("open", open)
        .function("trace", trace)
        .function("failed", failed)
        .build()
}

/// `m:on_record(...)` and `bpf.trace(...)`: natives by name whose loop is Lua's.
pub fn in_lua(lua: &Lua, function: &str, args: impl mlua::IntoLuaMulti) -> Result<MultiValue> {
    let call = || -> mlua::Result<MultiValue> {
        let loaded: Table = lua.named_registry_value("_LOADED")?;
        let cnf: Table = loaded.get("cnf")?;
        let library: Table = cnf.get("_records")?;
        library.get::<mlua::Function>(function)?.call(args)
    };
    call().map_err(from_lua)
}

/// Handed to `m:on_record` as `(map, fn, options)`.
pub fn on_record(lua: &Lua, map: &Map, args: &mut Args) -> Result<MultiValue> {
    let map = intern(lua, map.clone())?;
    in_lua(lua, "on_record", (map, args.any(), args.any()))
}

/// Records that a script takes one batch at a time.
#[derive(Clone)]
pub struct Stream(Rc<Inner>);

struct Inner {
    /// "events", or "bpf_printk".
    name: String,
    source: RefCell<Option<Source>>,
    /// A copy of the source's descriptor: whoever still waits when the source is closed holds nothing else.
    ready: AsyncFd<OwnedFd>,
    /// Whether records come here: while a generation loads, they belong to the one that runs.
    listening: Cell<bool>,
    /// Look again after that long, though nobody said there is something.
    interval: Option<Duration>,
    taken: Cell<u64>,
    losses: Losses,
    /// The map's id, and the maps that this VM reads.
    reading: Option<(u32, Rc<Reading>)>,
}

enum Source {
    Records {
        records: Records,
        kind: Option<Type>,
        /// The fields that the handler reads, where it does nothing else with a record.
        columns: Vec<Column>,
        batch: Batch,
    },
    Trace {
        trace: Trace,
        lines: Vec<Line>,
    },
}

/// Maps that have a subscription: a second one would take records away from the first.
#[derive(Default)]
struct Reading(RefCell<HashSet<u32>>);

/// How often a subscription of a generation that loads looks whether it is its turn.
const UNTIL_COMMIT: Duration = Duration::from_millis(5);

/// Records taken at once: enough to hide the cost of a turn, few enough for other tasks to have theirs.
const BATCH: usize = 512;

/// A handler that reads more fields gets whole records: Lua has so many locals.
const MOST_FIELDS: usize = 60;

/// `open(map, options)`
fn open(lua: &Lua, host: &Rc<Host>, mut args: Args) -> Result<Returned<Stream>> {
    const OP: &str = "map:on_record";
    let Given(map) = args.required::<Given<Map>>("map")?;
    let map = map.kernel();
    let mut options = super::option::Options::new(OP, args.any())?;
    options.set_subject(map.name());
    let named: Option<String> = options.get("type")?;
    let buffer = options.get::<Size>("buffer")?.map(|Size(bytes)| bytes as usize);
    let interval: Option<Duration> = options.get("interval")?;
    options.finish()?;
    let about = |e: Error| e.operation(OP).about(map.name());
    let kind = match named {
        Some(name) => Some(map.type_named(&name).map_err(about)?),
        None => map.record_type().cloned(),
    };
    let reading = reading(lua);
    if reading.0.borrow().contains(&map.id()) {
        let message = "the map has a subscription already: each record is given out once";
        return Err(Error::new(OP, "EBUSY", message)
            .subject(map.name())
            .hint("call both handlers from one function"));
    }
    let records = Records::open(map, buffer).map_err(about)?;
    let ready = watched(OP, records.as_fd())?;
    let listening = !host.stage.is_loading();
    if listening {
        records.listen().map_err(about)?;
    }
    reading.0.borrow_mut().insert(map.id());
    Ok(Returned(Stream(Rc::new(Inner {
        name: map.name().to_owned(),
        source: RefCell::new(Some(Source::Records {
            records,
            kind,
            columns: Vec::new(),
            batch: Batch::default(),
        })),
        ready,
        listening: Cell::new(listening),
        interval,
        taken: Cell::new(0),
        losses: Losses::default(),
        reading: Some((map.id(), reading)),
    }))))
}

/// The maps that this VM reads.
fn reading(lua: &Lua) -> Rc<Reading> {
    if let Some(reading) = lua.app_data_ref::<Rc<Reading>>() {
        return Rc::clone(&reading);
    }
    let reading = Rc::<Reading>::default();
    lua.set_app_data(Rc::clone(&reading));
    reading
}

/// `trace()`
fn trace(_: &Lua, _: &Rc<Host>, _: Args) -> Result<Returned<Stream>> {
    let trace = Trace::open()?;
    let ready = watched("bpf.trace", trace.as_fd())?;
    Ok(Returned(Stream(Rc::new(Inner {
        name: "bpf_printk".into(),
        source: RefCell::new(Some(Source::Trace { trace, lines: Vec::new() })),
        ready,
        listening: Cell::new(true),
        interval: None,
        taken: Cell::new(0),
        losses: Losses::default(),
        reading: None,
    }))))
}

fn watched(op: &'static str, fd: impl AsFd) -> Result<AsyncFd<OwnedFd>> {
    let copy = fd.as_fd().try_clone_to_owned().map_err(|e| Error::io(op, &e))?;
    // SAFETY: the descriptor stays open and the same as long as the AsyncFd that owns it.
    unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }
        .map_err(|e| Error::io(op, &e.into()))
}

/// `failed(error, name, more)` reports a handler's error, and how many before it were not.
fn failed(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<()> {
    let error = super::error::from_value(&args.any());
    let name: String = args.required("name")?;
    let more: u64 = args.required("more")?;
    let context = match more {
        0 => format!("record handler of {name}"),
        more => format!("record handler of {name}, the last of {} errors", more + 1),
    };
    crate::report::error(&error, Some(&context));
    Ok(())
}

impl Handle for Stream {
    const TYPE: &'static str = "RecordStream";
    const WORD: &'static str = "records";

    fn class(class: &mut Class<'_, Self>) {
        class
            .async_method("wait", |_, host, this, _| {
                Ok(wait(this.clone(), host.stage.is_loading()))
            })
            .method("take", |lua, host, this, _| match host.stage.is_loading() {
                true => Ok(Taken::nothing()),
                false => this.take(lua),
            })
            .method("reads", |_, _, this, mut args| Ok(this.reads(&args.any())))
            .method("fields", |lua, host, this, mut args| match host.stage.is_loading() {
                true => Ok((0, Value::Nil, Value::Nil)),
                false => this.fields(lua, args.any()),
            })
            .method("close", |_, _, this, _| {
                this.close();
                Ok(())
            })
            .method("stats", |_, _, this, _| {
                let (lost, fullest) = this.0.losses.now(this.0.source.borrow().as_ref());
                Ok(record! { records: this.0.taken.get(), lost: lost, fullest: fullest })
            })
            .method("type", |_, _, this, _| {
                Ok(match this.0.source.borrow().as_ref() {
                    Some(Source::Records { kind: Some(kind), .. }) => {
                        Some((kind.name(), kind.size()))
                    }
                    _ => None,
                }
                .unzip())
            });
    }

    fn identity(&self) -> String {
        format!("{:p}", Rc::as_ptr(&self.0))
    }

    fn display(&self) -> String {
        format!("RecordStream({})", self.0.name)
    }
}

/// Until there may be something to take. Lets other tasks run in any case.
async fn wait(stream: Stream, loading: bool) -> Result<()> {
    tokio::task::yield_now().await;
    if loading {
        tokio::time::sleep(UNTIL_COMMIT).await;
        return Ok(());
    }
    let ready = async { stream.0.ready.readable().await.map(|mut ready| ready.clear_ready()) };
    match stream.0.interval {
        None => ready.await,
        Some(interval) => tokio::time::timeout(interval, ready).await.unwrap_or(Ok(())),
    }
    .map_err(|e| Error::io("map:on_record", &e))
}

/// `records, how many, rests, lengths of short ones`
struct Taken((Option<Table>, usize, Value, Value));

impl Taken {
    fn nothing() -> Taken {
        Taken((None, 0, Value::Nil, Value::Nil))
    }
}

impl IntoLuaMulti for Taken {
    fn into_lua_multi(self, lua: &Lua) -> mlua::Result<MultiValue> {
        self.0.into_lua_multi(lua)
    }
}

impl Stream {
    /// `take() -> records, how many, rests, lengths of short ones`; how many is 0 when it is time to wait.
    fn take(&self, lua: &Lua) -> Result<Taken> {
        let mut source = self.0.source.borrow_mut();
        let (taken, count) = match source.as_mut() {
            None => return Ok(Taken::nothing()),
            Some(Source::Records { records, kind, batch, .. }) => {
                self.0.next_batch(records, batch)?;
                (stack::records(lua, kind.as_ref(), records.padding(), batch), batch.len())
            }
            Some(Source::Trace { trace, lines }) => {
                lines.clear();
                trace.take(lines, BATCH);
                (stack::lines(lua, lines), lines.len())
            }
        };
        self.0.count(source.as_ref(), count);
        let taken = taken.map_err(from_lua)?;
        Ok(Taken((Some(taken.records), count, taken.rests, taken.short)))
    }

    /// `reads(handler) -> names`: the fields that [`Stream::fields`] gives from now on; nil when the handler must have whole
    /// records, each a table of its own.
    fn reads(&self, handler: &Value) -> Option<Vec<String>> {
        let mut source = self.0.source.borrow_mut();
        let Some(Source::Records { kind: Some(kind), columns, .. }) = source.as_mut() else {
            return None;
        };
        let names = reads::fields_read(&handler.as_function()?.dump(true))?;
        *columns = kind.columns(&names).filter(|columns| columns.len() <= MOST_FIELDS)?;
        Some(columns.iter().map(|column| column.name().to_owned()).collect())
    }

    /// `fields(lists) -> how many, rests, lengths of short ones`: as [`Stream::take`], but each of [`Stream::reads`] into a
    /// list of its own.
    fn fields(&self, lua: &Lua, lists: Value) -> Result<(usize, Value, Value)> {
        let nothing = (0, Value::Nil, Value::Nil);
        let mut source = self.0.source.borrow_mut();
        let (
            Some(Source::Records { records, kind: Some(kind), columns, batch }),
            Value::Table(lists),
        ) = (source.as_mut(), lists)
        else {
            return Ok(nothing);
        };
        self.0.next_batch(records, batch)?;
        let (padding, count) = (records.padding(), batch.len());
        let taken = stack::columns(lua, kind, columns, lists, padding, batch);
        self.0.count(source.as_ref(), count);
        let (rests, short) = taken.map_err(from_lua)?;
        Ok((count, rests, short))
    }

    /// Buffers and descriptors go now, whoever still holds the stream.
    fn close(&self) {
        let source = self.0.source.take();
        self.0.losses.last.set(self.0.losses.now(source.as_ref()));
        if let Some((id, reading)) = &self.0.reading {
            reading.0.borrow_mut().remove(id);
        }
    }
}

impl Inner {
    fn next_batch(&self, records: &mut Records, batch: &mut Batch) -> Result<()> {
        if !self.listening.replace(true) {
            records.listen()?;
        }
        batch.clear();
        records.take(batch, BATCH);
        Ok(())
    }

    /// So many have been taken at once.
    fn count(&self, source: Option<&Source>, count: usize) {
        self.losses.report(&self.name, source, count < BATCH);
        self.taken.set(self.taken.get() + count as u64);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let (Some((id, reading)), true) = (&self.reading, self.source.borrow().is_some()) {
            reading.0.borrow_mut().remove(id);
        }
    }
}

/// What found no room: said as it happens, not too often.
#[derive(Default)]
struct Losses {
    /// Lost and fullest, as of the end of the source.
    last: Cell<(Option<u64>, f64)>,
    said: Cell<u64>,
    said_full: Cell<bool>,
    looked: Cell<Option<Instant>>,
}

/// A ring buffer that was that full has hardly had room for every record.
const FULL: f64 = 0.95;

impl Losses {
    fn now(&self, source: Option<&Source>) -> (Option<u64>, f64) {
        match source {
            None => self.last.get(),
            Some(Source::Records { records, .. }) => (records.lost(), records.fullest()),
            Some(Source::Trace { trace, .. }) => (Some(trace.lost()), 0.0),
        }
    }

    /// Asks the kernel at most every second, and when the buffer has just been emptied.
    fn report(&self, name: &str, source: Option<&Source>, emptied: bool) {
        let recent = |at: Instant| at.elapsed() < Duration::from_secs(1);
        if self.looked.get().is_some_and(|at| recent(at) && !emptied) {
            return;
        }
        let (lost, fullest) = self.now(source);
        if self.looked.get().is_some_and(recent) {
            return;
        }
        if let Some(lost) = lost
            && lost > self.said.get()
        {
            self.looked.set(Some(Instant::now()));
            tracing::warn!(
                "{} records of {name} found no room in its buffer and are lost",
                lost - self.said.replace(lost)
            );
        }
        if lost.is_none() && fullest >= FULL && !self.said_full.replace(true) {
            tracing::warn!(
                "ring buffer {name} was found {:.0}% full: programs that found no room have dropped records (they know how many)",
                fullest * 100.0
            );
        }
    }
}
