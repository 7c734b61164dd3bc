//! TCP headers: flags and options as words, and back.
//!
//! Options are laid out as Linux lays them out (`tcp_options_write`, net/ipv4/tcp_output.c). Others that are read keep
//! their bytes beside the words, so that every header can be built again as it was.

use etherparse::{TcpHeader, TcpOptionElement, TcpOptions};
use mlua::{Table, Value};

use super::{ports, words};
use crate::Result;
use crate::api::error::from_lua;
use crate::api::option::{OneOrMany, Options, expected, nearest};
use crate::api::value::Data;
use crate::record;

/// `tcp = {sport=, dport=, seq=, ack=, flags=, window=, urgent=, options=}`
pub fn header(given: &mut Options) -> Result<TcpHeader> {
    let (source_port, destination_port) = ports(given)?;
    let mut header = TcpHeader {
        source_port,
        destination_port,
        sequence_number: given.get("seq")?.unwrap_or(0),
        acknowledgment_number: given.get("ack")?.unwrap_or(0),
        window_size: given.get("window")?.unwrap_or(65535),
        urgent_pointer: given.get("urgent")?.unwrap_or(0),
        ..TcpHeader::default()
    };
    for name in flags(given)? {
        let Some(flag) = words::tcp_flag(&name) else {
            let known = words::TCP_FLAGS.map(|(word, _)| word);
            let error = given.bad(format!("there is no flag \"{name}\""));
            return Err(match nearest(&name.to_lowercase(), &known) {
                Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                None => error.hint(format!("it is one of {}", known.join(", "))),
            });
        };
        *flag(&mut header) = true;
    }
    if let Some(options) = options(given)? {
        header.options = options;
    }
    Ok(header)
}

/// The header in the words that [`header`] takes.
pub fn read(tcp: &TcpHeader, checksum_ok: Option<bool>) -> Data {
    let mut header = tcp.clone();
    let set = words::TCP_FLAGS.iter().filter(|(_, flag)| *flag(&mut header));
    let flags = set.map(|(name, _)| ((*name).to_owned(), Data::Bool(true))).collect();
    record! {
        sport: tcp.source_port, dport: tcp.destination_port, seq: tcp.sequence_number,
        ack: tcp.acknowledgment_number, flags: Data::Map(flags), window: tcp.window_size,
        urgent: tcp.urgent_pointer, options: read_options(&tcp.options), checksum: tcp.checksum,
        checksum_ok: checksum_ok,
    }
}

/// `flags = "syn"`, `"SYN,ACK"`, `{"syn", "ack"}`, or as they are read: `{syn = true}`. A plain `tcp = {}` is a SYN.
fn flags(given: &mut Options) -> Result<Vec<String>> {
    let value = given.raw("flags")?;
    if let Value::Table(table) = &value
        && table.raw_len() == 0
    {
        let set: mlua::Result<Vec<(String, Value)>> = table.pairs().collect();
        let set = set.map_err(from_lua)?;
        if let Some((name, other)) = set.iter().find(|(_, on)| !on.is_boolean()) {
            let got = expected::describe(other);
            return Err(given.bad(format!("flags.{name} must be true or false, got {got}")));
        }
        let set = set.into_iter().filter(|(_, on)| *on == Value::Boolean(true));
        return Ok(set.map(|(name, _)| name).collect());
    }
    let Some(OneOrMany(listed)) = given.get::<OneOrMany<String>>("flags")? else {
        return Ok(vec!["syn".into()]);
    };
    let split = listed.iter().flat_map(|text| text.split(',')).map(str::trim);
    Ok(split.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// What the options of a header say.
#[derive(Debug, Default, PartialEq)]
struct Words {
    mss: Option<u16>,
    wscale: Option<u8>,
    sack: Sack,
    /// The sender's clock, and the one it answers (RFC 7323).
    timestamps: Option<(u32, u32)>,
}

#[derive(Debug, Default, PartialEq)]
enum Sack {
    #[default]
    None,
    /// Of a SYN: the other end may send blocks.
    Permitted,
    /// What has arrived: from a sequence number up to another.
    Blocks(Vec<(u32, u32)>),
}

impl Words {
    fn of(options: &TcpOptions) -> Words {
        let mut words = Words::default();
        for element in options.elements_iter().map_while(std::result::Result::ok) {
            match element {
                TcpOptionElement::Noop => {}
                TcpOptionElement::MaximumSegmentSize(size) => words.mss = Some(size),
                TcpOptionElement::WindowScale(shift) => words.wscale = Some(shift),
                TcpOptionElement::SelectiveAcknowledgementPermitted => words.sack = Sack::Permitted,
                TcpOptionElement::SelectiveAcknowledgement(first, more) => {
                    let more = more.into_iter().flatten();
                    words.sack = Sack::Blocks(std::iter::once(first).chain(more).collect());
                }
                TcpOptionElement::Timestamp(value, echo) => words.timestamps = Some((value, echo)),
            }
        }
        words
    }

    /// None when they need more than the 40 bytes there are.
    fn laid_out(&self) -> Option<TcpOptions> {
        use TcpOptionElement::*;
        let mut all: Vec<TcpOptionElement> = self.mss.map(MaximumSegmentSize).into_iter().collect();
        let permitted = self.sack == Sack::Permitted;
        if permitted || self.timestamps.is_some() {
            match permitted {
                true if self.timestamps.is_some() => all.push(SelectiveAcknowledgementPermitted),
                true => all.extend([Noop, Noop, SelectiveAcknowledgementPermitted]),
                false => all.extend([Noop, Noop]),
            }
        }
        all.extend(self.timestamps.map(|(value, echo)| Timestamp(value, echo)));
        all.extend(self.wscale.into_iter().flat_map(|shift| [Noop, WindowScale(shift)]));
        if let Sack::Blocks(blocks) = &self.sack {
            let more = [1, 2, 3].map(|at| blocks.get(at).copied());
            all.extend([Noop, Noop, SelectiveAcknowledgement(*blocks.first()?, more)]);
        }
        TcpOptions::try_from_elements(&all).ok()
    }
}

/// `options = {mss=, wscale=, sack=true|{{from, to}, ...}, timestamps={value=, echo=}, bytes=}`, or bytes alone.
fn options(given: &mut Options) -> Result<Option<TcpOptions>> {
    if !given.raw("options")?.is_table() {
        let bytes = given.get::<Vec<u8>>("options")?;
        return bytes.map(|bytes| raw(given, &bytes)).transpose();
    }
    let Some(mut table) = given.nested("options")? else { return Ok(None) };
    let words = Words {
        mss: table.get("mss")?,
        wscale: table.get("wscale")?,
        sack: sack(&mut table)?,
        timestamps: timestamps(&mut table)?,
    };
    let options = match table.get::<Vec<u8>>("bytes")? {
        None => words.laid_out().ok_or_else(|| table.bad("they need more than 40 bytes"))?,
        Some(bytes) => {
            let options = raw(&table, &bytes)?;
            if words != Words::default() && words != Words::of(&options) {
                return Err(table
                    .bad("bytes do not say what the other words do")
                    .hint("give one of both: bytes are sent as they are"));
            }
            options
        }
    };
    table.finish()?;
    Ok(Some(options))
}

fn raw(given: &Options, bytes: &[u8]) -> Result<TcpOptions> {
    TcpOptions::try_from_slice(bytes)
        .map_err(|_| given.bad(format!("options must be 40 bytes at most, got {}", bytes.len())))
}

fn timestamps(table: &mut Options) -> Result<Option<(u32, u32)>> {
    let Some(mut given) = table.nested("timestamps")? else { return Ok(None) };
    let clocks = (given.required("value")?, given.get("echo")?.unwrap_or(0));
    given.finish()?;
    Ok(Some(clocks))
}

fn sack(table: &mut Options) -> Result<Sack> {
    match table.raw("sack")? {
        Value::Nil | Value::Boolean(false) => return Ok(Sack::None),
        Value::Boolean(true) => return Ok(Sack::Permitted),
        _ => {}
    }
    let bad = |table: &Options| {
        table.bad("sack must be true, or one to four blocks, each {from, to} in sequence numbers")
    };
    let Ok(Some(blocks)) = table.get::<Vec<Table>>("sack") else { return Err(bad(table)) };
    let ends = |block: &Table| {
        let ends: Vec<u32> = block.sequence_values().collect::<mlua::Result<_>>().ok()?;
        ends.try_into().ok().map(|[from, to]: [u32; 2]| (from, to))
    };
    let blocks: Option<Vec<(u32, u32)>> = blocks.iter().map(ends).collect();
    match blocks.filter(|blocks| (1..=4).contains(&blocks.len())) {
        Some(blocks) => Ok(Sack::Blocks(blocks)),
        None => Err(bad(table)),
    }
}

/// Bytes that say nothing of what there are words for stay bytes.
fn read_options(options: &TcpOptions) -> Data {
    let words = Words::of(options);
    let bytes = || Data::Str(options.as_slice().to_vec());
    if options.is_empty() {
        return Data::Nil;
    }
    if words == Words::default() {
        return bytes();
    }
    let is_ours = words.laid_out().is_some_and(|ours| ours.as_slice() == options.as_slice());
    let sack = match words.sack {
        Sack::None => Data::Nil,
        Sack::Permitted => true.into(),
        Sack::Blocks(blocks) => {
            let block = |(from, to): (u32, u32)| Data::Array(vec![from.into(), to.into()]);
            Data::Array(blocks.into_iter().map(block).collect())
        }
    };
    record! {
        mss: words.mss, wscale: words.wscale.map(u16::from), sack: sack,
        timestamps: words.timestamps.map(|(value, echo)| record! { value: value, echo: echo }),
        bytes: if is_ours { Data::Nil } else { bytes() },
    }
}
