//! Queueing disciplines at a link's root, and the clsact and ingress hooks (`tc(8)`, include/uapi/linux/pkt_sched.h).

mod encode;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::kernel::netlink::attribute::{attributes, find, number, text};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::{Error, Result};

/// A chance between 0 and 1 and how much each outcome follows the one before (0: independent).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Chance {
    pub share: f64,
    pub correlation: f64,
}

/// Loss in bursts (Gilbert-Elliott); all are chances between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GilbertElliott {
    /// From good to bad.
    pub p: f64,
    /// From bad to good.
    pub r: f64,
    /// Loss while bad.
    pub loss_bad: f64,
    /// Loss while good.
    pub loss_good: f64,
}

/// `tc-netem(8)`. Times are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Netem {
    pub delay: u64,
    pub jitter: u64,
    pub delay_correlation: f64,
    pub loss: Chance,
    pub gemodel: Option<GilbertElliott>,
    pub duplicate: Chance,
    pub corrupt: Chance,
    /// These go ahead of the delayed ones: needs a delay.
    pub reorder: Chance,
    /// Every so many packets one is a candidate for reordering; 0 means each.
    pub gap: u32,
    /// Bits per second; 0 for none.
    pub rate: u64,
    /// Packets held at most; 1000 when not given.
    pub limit: Option<u32>,
    /// Makes the faults the same each time (Linux 6.6; ignored before).
    pub seed: Option<u64>,
}

/// `tc-tbf(8)`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tbf {
    /// Bits per second.
    pub rate: u64,
    /// Bytes sent at once.
    pub burst: u32,
    /// Bytes waiting at most; or say `latency`.
    pub limit: Option<u32>,
    /// Nanoseconds a packet waits at most.
    pub latency: Option<u64>,
}

/// `tc-htb(8)`: a root with one class that everything goes through.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Htb {
    /// Bits per second, guaranteed.
    pub rate: u64,
    /// Bits per second at most; `rate` when not given.
    pub ceil: Option<u64>,
    /// Bytes; as `tc` chooses when not given.
    pub burst: Option<u32>,
}

/// `tc-fq(8)`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Fq {
    /// Packets.
    pub limit: Option<u32>,
    pub flow_limit: Option<u32>,
    /// Bytes.
    pub quantum: Option<u32>,
    pub initial_quantum: Option<u32>,
    /// Bits per second of each flow.
    pub maxrate: Option<u64>,
}

/// `tc-fq_codel(8)`. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FqCodel {
    pub limit: Option<u32>,
    pub flows: Option<u32>,
    pub target: Option<u32>,
    pub interval: Option<u32>,
    pub quantum: Option<u32>,
    pub ecn: Option<bool>,
}

/// A queueing discipline with its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Qdisc {
    Netem(Netem),
    Tbf(Tbf),
    Htb(Htb),
    Fq(Fq),
    FqCodel(FqCodel),
    /// Packets.
    Pfifo {
        limit: Option<u32>,
    },
    Clsact,
    Ingress,
}

impl Qdisc {
    /// As `tc` names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Qdisc::Netem(_) => "netem",
            Qdisc::Tbf(_) => "tbf",
            Qdisc::Htb(_) => "htb",
            Qdisc::Fq(_) => "fq",
            Qdisc::FqCodel(_) => "fq_codel",
            Qdisc::Pfifo { .. } => "pfifo",
            Qdisc::Clsact => "clsact",
            Qdisc::Ingress => "ingress",
        }
    }
}

/// A discipline as it is now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QdiscInfo {
    pub kind: String,
    /// Link index.
    pub index: u32,
    /// "8001:", as `tc` writes it.
    pub handle: String,
    /// "root", "ingress" or a class.
    pub parent: String,
    /// The options as bytes of TCA_OPTIONS, to put the same back ([`restore`]).
    pub options: Vec<u8>,
    pub bytes: u64,
    pub packets: u64,
    pub drops: u64,
    pub overlimits: u64,
    /// Bytes and packets waiting now.
    pub backlog: u64,
    pub qlen: u64,
}

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;
/// `struct tcmsg`
const HEADER: usize = 20;
const ROOT: u32 = 0xffff_ffff;
/// TC_H_CLSACT, TC_H_INGRESS
const INGRESS: u32 = 0xffff_fff1;
const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// The handle of an htb root and of its one class.
const HTB: TcHandle = TcHandle { major: 1, minor: 0 };
const HTB_CLASS: TcHandle = TcHandle { major: 1, minor: encode::HTB_DEFAULT };

impl Qdisc {
    /// It carries no queue but filters.
    pub fn is_hook(&self) -> bool {
        matches!(self, Qdisc::Clsact | Qdisc::Ingress)
    }
}

/// Puts `qdisc` at the link's root (or ingress hook), in place of the one that is there.
///
/// An htb in place of an htb is not changed but made anew: packets that wait in it are lost.
///
/// # Errors
/// EOPNOTSUPP when the kernel lacks the kind, ENODEV when the link is gone, EINVAL with the kernel's sentence for bad options.
pub fn replace(netlink: &Netlink, index: u32, qdisc: &Qdisc) -> Result<()> {
    let failed = |e| explain(e, "link.qdisc", qdisc.kind());
    let options = encode::options(qdisc)?;
    let request = |handle, parent, options| {
        let message = message(index, handle, parent, qdisc.kind(), options);
        netlink.request(RouteNetlinkMessage::NewQueueDiscipline(message), REPLACE)
    };
    match qdisc {
        Qdisc::Clsact | Qdisc::Ingress => {
            // There can be one only; an equal one is as good.
            let there = list(netlink, Some(index))?;
            if there.iter().any(|q| q.kind == qdisc.kind()) {
                return Ok(());
            }
            request(TcHandle { major: 0xffff, minor: 0 }, INGRESS, None).map_err(failed)
        }
        Qdisc::Htb(htb) => {
            let class = encode::htb_class(htb)?;
            if list(netlink, Some(index))?.iter().any(|q| q.kind == "htb" && q.parent == "root") {
                delete(netlink, index, "htb")?;
            }
            request(HTB, ROOT, options).map_err(failed)?;
            let class = message(index, HTB_CLASS, u32::from(HTB), "htb", Some(class));
            netlink.request(RouteNetlinkMessage::NewTrafficClass(class), REPLACE).map_err(failed)
        }
        _ => request(TcHandle::UNSPEC, ROOT, options).map_err(failed),
    }
}

/// Puts back a root discipline that [`list`] showed, with its options but not its classes.
pub fn restore(netlink: &Netlink, qdisc: &QdiscInfo) -> Result<()> {
    let options = Some(qdisc.options.clone()).filter(|o| !o.is_empty());
    // Filters and people know it by its handle.
    let major = u16::from_str_radix(qdisc.handle.trim_end_matches(':'), 16).unwrap_or_default();
    let message = message(qdisc.index, TcHandle { major, minor: 0 }, ROOT, &qdisc.kind, options);
    netlink
        .request(RouteNetlinkMessage::NewQueueDiscipline(message), REPLACE)
        .map_err(|e| explain(e, "link.qdisc", &qdisc.kind))
}

/// Deletes the root discipline, or the clsact or ingress hook with the filters on it, if it is of that kind.
/// At the root the kernel's default takes its place.
///
/// # Errors
/// ENOENT when there is none of that kind.
pub fn delete(netlink: &Netlink, index: u32, kind: &str) -> Result<()> {
    let parent = if matches!(kind, "clsact" | "ingress") { INGRESS } else { ROOT };
    let message = message(index, TcHandle::UNSPEC, parent, kind, None);
    netlink.request(RouteNetlinkMessage::DelQueueDiscipline(message), 0).map_err(|e| {
        let errno = e.errno;
        let error = e.into_error("link.qdisc").subject(kind.to_owned());
        match errno {
            Errno::ENOENT | Errno::EINVAL => error.because("the link has no such qdisc"),
            _ => error,
        }
    })
}

/// The disciplines of one link, or of all.
pub fn list(netlink: &Netlink, index: Option<u32>) -> Result<Vec<QdiscInfo>> {
    let request = TcMessage::with_index(index.unwrap_or(0) as i32);
    let found = netlink
        .dump(&RouteNetlinkMessage::GetQueueDiscipline(request))
        .map_err(|e| e.into_error("link.qdisc"))?;
    Ok(found
        .iter()
        .filter_map(|raw| decode(&raw.body))
        .filter(|qdisc| index.is_none_or(|index| qdisc.index == index))
        .collect())
}

fn message(
    index: u32,
    handle: TcHandle,
    parent: u32,
    kind: &str,
    options: Option<Vec<u8>>,
) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.handle = handle;
    message.header.parent = parent.into();
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    if let Some(options) = options {
        message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)));
    }
    message
}

fn explain(error: NetlinkError, op: &'static str, kind: &str) -> Error {
    let unknown = error.ext_ack.as_deref().is_some_and(|text| text.contains("kind is unknown"));
    if error.errno == Errno::ENOENT && (unknown || error.ext_ack.is_none()) {
        let config = match kind {
            "clsact" | "ingress" => "CONFIG_NET_SCH_INGRESS".to_owned(),
            _ => format!("CONFIG_NET_SCH_{}", kind.to_uppercase()),
        };
        let text = format!(
            "this kernel was built without {kind} ({config}), or its module is not installed"
        );
        return Error::new(op, "EOPNOTSUPP", text).subject(kind.to_owned());
    }
    error.into_error(op).subject(kind.to_owned())
}

fn decode(body: &[u8]) -> Option<QdiscInfo> {
    let word = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let rest = body.get(HEADER..)?;
    let mut qdisc = QdiscInfo {
        index: word(4)?,
        handle: format!("{:x}:", word(8)? >> 16),
        parent: match word(12)? {
            ROOT => "root".to_owned(),
            INGRESS => "ingress".to_owned(),
            class => format!("{:x}:{:x}", class >> 16, class & 0xffff),
        },
        kind: find(rest, TCA_KIND).map(text).unwrap_or_default(),
        options: find(rest, TCA_OPTIONS).map(<[u8]>::to_vec).unwrap_or_default(),
        ..QdiscInfo::default()
    };
    for stats in find(rest, TCA_STATS2).into_iter().flat_map(attributes) {
        let value = |at: usize, size: usize| stats.value.get(at..at + size).map_or(0, number);
        match stats.kind {
            // struct gnet_stats_basic
            TCA_STATS_BASIC => (qdisc.bytes, qdisc.packets) = (value(0, 8), value(8, 4)),
            // struct gnet_stats_queue
            TCA_STATS_QUEUE => {
                (qdisc.qlen, qdisc.backlog) = (value(0, 4), value(4, 4));
                (qdisc.drops, qdisc.overlimits) = (value(8, 4), value(16, 4));
            }
            _ => {}
        }
    }
    Some(qdisc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::link::tests::Scratch;

    #[test]
    fn every_discipline_is_set_or_named_as_missing() {
        let scratch = Scratch::new("qdisc");
        let netlink = &scratch.1;
        let index = scratch.veth(&[]).index;
        let chance = |share| Chance { share, correlation: 0.1 };
        let (loss, reorder) = (chance(0.1), chance(0.5));
        let delay = 10_000_000;
        let all = [
            Qdisc::Netem(Netem {
                delay,
                jitter: 1_000_000,
                loss,
                reorder,
                rate: 1 << 20,
                ..Netem::default()
            }),
            Qdisc::Tbf(Tbf {
                rate: 80_000_000,
                burst: 10_000,
                limit: None,
                latency: Some(50_000_000),
            }),
            Qdisc::Htb(Htb { rate: 80_000_000, ..Htb::default() }),
            Qdisc::Htb(Htb { rate: 40_000_000_000, ceil: Some(80_000_000_000), burst: None }),
            Qdisc::Fq(Fq { limit: Some(500), ..Fq::default() }),
            Qdisc::FqCodel(FqCodel { limit: Some(500), ecn: Some(false), ..FqCodel::default() }),
            Qdisc::Pfifo { limit: Some(50) },
            Qdisc::Clsact,
        ];
        for qdisc in &all {
            // Twice: the second must change or leave what the first made.
            match replace(netlink, index, qdisc).and_then(|()| replace(netlink, index, qdisc)) {
                Ok(()) => {
                    println!("{}: set", qdisc.kind());
                    let now = list(netlink, Some(index)).unwrap();
                    assert!(now.iter().any(|q| q.kind == qdisc.kind()), "{now:?}");
                    delete(netlink, index, qdisc.kind()).unwrap();
                }
                Err(error) => {
                    println!("{error}");
                    assert!(error.is("EOPNOTSUPP"), "{error}");
                    assert!(error.to_string().contains("CONFIG_NET_SCH_"), "{error}");
                }
            }
            let error = delete(netlink, index, qdisc.kind()).unwrap_err();
            assert!(error.to_string().contains("no such qdisc"), "{error}");
        }
    }

    #[test]
    fn what_was_there_comes_back() {
        let scratch = Scratch::new("qback");
        let netlink = &scratch.1;
        let index = scratch.veth(&[]).index;
        let latency = Some(50_000_000);
        let tbf = Qdisc::Tbf(Tbf { rate: 80_000_000, burst: 10_000, limit: None, latency });
        replace(netlink, index, &tbf).unwrap();
        let before = list(netlink, Some(index)).unwrap().remove(0);
        replace(netlink, index, &Qdisc::Pfifo { limit: Some(5) }).unwrap();
        restore(netlink, &before).unwrap();
        let after = list(netlink, Some(index)).unwrap().remove(0);
        assert_eq!((after.kind, after.options), (before.kind, before.options));
    }
}
