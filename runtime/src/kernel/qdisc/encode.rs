//! TCA_OPTIONS of each discipline, laid out as include/uapi/linux/pkt_sched.h has them.

use super::{Chance, Fq, FqCodel, Htb, Netem, Qdisc, Tbf};
use crate::kernel::netlink::attribute::Writer;
use crate::{Error, Result};

/// The minor number of htb's one class.
pub const HTB_DEFAULT: u16 = 0x10;
/// `TC_LINKLAYER_ETHERNET`: the kernel computes the rate tables itself.
const ETHERNET: u8 = 1;
/// Packets, as `tc` has it.
const NETEM_LIMIT: u32 = 1000;

const TCA_NETEM_CORR: u16 = 1;
const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_CORRUPT: u16 = 4;
const TCA_NETEM_LOSS: u16 = 5;
const TCA_NETEM_RATE: u16 = 6;
const TCA_NETEM_RATE64: u16 = 8;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;
const TCA_NETEM_PRNG_SEED: u16 = 13;
const NETEM_LOSS_GE: u16 = 2;

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;

const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;

const TCA_FQ_PLIMIT: u16 = 1;
const TCA_FQ_FLOW_PLIMIT: u16 = 2;
const TCA_FQ_QUANTUM: u16 = 3;
const TCA_FQ_INITIAL_QUANTUM: u16 = 4;
const TCA_FQ_FLOW_MAX_RATE: u16 = 7;

const TCA_FQ_CODEL_TARGET: u16 = 1;
const TCA_FQ_CODEL_LIMIT: u16 = 2;
const TCA_FQ_CODEL_INTERVAL: u16 = 3;
const TCA_FQ_CODEL_ECN: u16 = 4;
const TCA_FQ_CODEL_FLOWS: u16 = 5;
const TCA_FQ_CODEL_QUANTUM: u16 = 6;

/// The options of `qdisc`; none for those that take none.
///
/// # Errors
/// EINVAL for a share outside 0 to 1, a missing rate, a reordering without delay.
pub fn options(qdisc: &Qdisc) -> Result<Option<Vec<u8>>> {
    Ok(match qdisc {
        Qdisc::Netem(options) => Some(netem(options)?),
        Qdisc::Tbf(options) => Some(tbf(options)?),
        Qdisc::Htb(_) => Some(htb_root()),
        Qdisc::Fq(options) => Some(fq(options)),
        Qdisc::FqCodel(options) => Some(fq_codel(options)),
        Qdisc::Pfifo { limit } => limit.map(|limit| limit.to_ne_bytes().to_vec()),
        Qdisc::Clsact | Qdisc::Ingress => None,
    })
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn invalid(text: impl Into<String>) -> Error {
    Error::invalid("link.qdisc", text)
}

/// A share as netem counts it: 2^32 - 1 is always.
fn share(what: &str, share: f64) -> Result<u32> {
    if (0.0..=1.0).contains(&share) {
        Ok((share * f64::from(u32::MAX)).round() as u32)
    } else {
        Err(invalid(format!("{what} is a share from 0 to 1, this is {share}")))
    }
}

/// `struct tc_netem_qopt`, then attributes.
fn netem(options: &Netem) -> Result<Vec<u8>> {
    if options.reorder.share > 0.0 && options.delay == 0 {
        return Err(invalid("reorder needs a delay: reordered packets are those sent without it"));
    }
    if options.loss.share > 0.0 && options.gemodel.is_some() {
        return Err(invalid("loss and gemodel exclude each other"));
    }
    let gap = if options.reorder.share > 0.0 { options.gap.max(1) } else { options.gap };
    let mut bytes = words(&[
        ticks(options.delay),
        options.limit.unwrap_or(NETEM_LIMIT),
        share("loss", options.loss.share)?,
        gap,
        share("duplicate", options.duplicate.share)?,
        ticks(options.jitter),
    ]);
    let mut more = Writer::new();
    let correlations = [
        share("delay_correlation", options.delay_correlation)?,
        share("loss's correlation", options.loss.correlation)?,
        share("duplicate's correlation", options.duplicate.correlation)?,
    ];
    more.put(TCA_NETEM_CORR, &words(&correlations));
    for (attribute, what, chance) in [
        (TCA_NETEM_REORDER, "reorder", options.reorder),
        (TCA_NETEM_CORRUPT, "corrupt", options.corrupt),
    ] {
        let Chance { share: chance, correlation } = chance;
        more.put(attribute, &words(&[share(what, chance)?, share(what, correlation)?]));
    }
    if let Some(ge) = options.gemodel {
        let model = [
            share("gemodel.p", ge.p)?,
            share("gemodel.r", ge.r)?,
            share("gemodel.loss_bad", ge.loss_bad)?,
            share("gemodel.loss_good", ge.loss_good)?,
        ];
        more.nested(TCA_NETEM_LOSS, |loss| {
            loss.put(NETEM_LOSS_GE, &words(&model));
        });
    }
    if options.rate > 0 {
        let rate = options.rate / 8;
        // struct tc_netem_rate
        more.put(TCA_NETEM_RATE, &words(&[small(rate), 0, 0, 0]));
        more.u64(TCA_NETEM_RATE64, rate);
    }
    // Times in full: the ticks above end at 4 minutes.
    more.u64(TCA_NETEM_LATENCY64, options.delay).u64(TCA_NETEM_JITTER64, options.jitter);
    if let Some(seed) = options.seed {
        more.u64(TCA_NETEM_PRNG_SEED, seed);
    }
    bytes.extend(more.into_bytes());
    Ok(bytes)
}

/// The 32-bit field of a rate that has a 64-bit one besides.
fn small(rate: u64) -> u32 {
    u32::try_from(rate).unwrap_or(u32::MAX)
}

/// `struct tc_ratespec` of so many bytes per second.
fn ratespec(rate: u64) -> Vec<u8> {
    let mut bytes = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(small(rate).to_ne_bytes());
    bytes
}

/// Ticks that `bytes` take at `rate` bytes per second.
fn transmit_ticks(rate: u64, bytes: u32) -> u32 {
    ticks(u64::from(bytes).saturating_mul(1_000_000_000) / rate.max(1))
}

/// `struct tc_tbf_qopt`
fn tbf(options: &Tbf) -> Result<Vec<u8>> {
    let rate = options.rate / 8;
    if rate == 0 || options.burst == 0 {
        return Err(invalid("tbf needs a rate and a burst"));
    }
    let limit = match (options.limit, options.latency) {
        (Some(limit), None) => limit,
        (None, Some(latency)) => {
            let waiting = u128::from(rate) * u128::from(latency) / 1_000_000_000;
            u32::try_from(waiting).unwrap_or(u32::MAX).saturating_add(options.burst)
        }
        _ => return Err(invalid("tbf needs either limit (bytes) or latency (a time)")),
    };
    let mut parms = ratespec(rate);
    parms.extend([0; 12]);
    parms.extend(words(&[limit, transmit_ticks(rate, options.burst), 0]));
    let mut writer = Writer::new();
    writer.put(TCA_TBF_PARMS, &parms).u32(TCA_TBF_BURST, options.burst);
    if rate > u64::from(u32::MAX) {
        writer.u64(TCA_TBF_RATE64, rate);
    }
    Ok(writer.into_bytes())
}

/// `struct tc_htb_glob`: version 3, the quantum a tenth of the rate, the default class.
fn htb_root() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.put(TCA_HTB_INIT, &words(&[3, 10, u32::from(HTB_DEFAULT), 0, 0]));
    writer.into_bytes()
}

/// `struct tc_htb_opt` of the one class.
///
/// # Errors
/// EINVAL without a rate.
pub fn htb_class(options: &Htb) -> Result<Vec<u8>> {
    let rate = options.rate / 8;
    let ceil = options.ceil.map_or(rate, |ceil| ceil / 8);
    if rate == 0 || ceil == 0 {
        return Err(invalid("htb needs a rate"));
    }
    // As tc: what one timer tick of the kernel lets through, and a packet.
    let burst =
        |rate: u64| options.burst.unwrap_or_else(|| small(rate / 1000).saturating_add(1600));
    let mut parms = ratespec(rate);
    parms.extend(ratespec(ceil));
    // The quantum the kernel computes warns beyond these bounds.
    let quantum = small(rate / 10).clamp(1514, 60_000);
    parms.extend(words(&[
        transmit_ticks(rate, burst(rate)),
        transmit_ticks(ceil, burst(ceil)),
        quantum,
        0,
        0,
    ]));
    let mut writer = Writer::new();
    writer.put(TCA_HTB_PARMS, &parms);
    for (attribute, rate) in [(TCA_HTB_RATE64, rate), (TCA_HTB_CEIL64, ceil)] {
        if rate > u64::from(u32::MAX) {
            writer.u64(attribute, rate);
        }
    }
    Ok(writer.into_bytes())
}

fn given(fields: &[(u16, Option<u32>)]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (attribute, value) in fields {
        if let Some(value) = value {
            writer.u32(*attribute, *value);
        }
    }
    writer.into_bytes()
}

fn fq(options: &Fq) -> Vec<u8> {
    given(&[
        (TCA_FQ_PLIMIT, options.limit),
        (TCA_FQ_FLOW_PLIMIT, options.flow_limit),
        (TCA_FQ_QUANTUM, options.quantum),
        (TCA_FQ_INITIAL_QUANTUM, options.initial_quantum),
        (TCA_FQ_FLOW_MAX_RATE, options.maxrate.map(|rate| small(rate / 8))),
    ])
}

fn fq_codel(options: &FqCodel) -> Vec<u8> {
    given(&[
        (TCA_FQ_CODEL_TARGET, options.target),
        (TCA_FQ_CODEL_LIMIT, options.limit),
        (TCA_FQ_CODEL_INTERVAL, options.interval),
        (TCA_FQ_CODEL_ECN, options.ecn.map(u32::from)),
        (TCA_FQ_CODEL_FLOWS, options.flows),
        (TCA_FQ_CODEL_QUANTUM, options.quantum),
    ])
}

/// Nanoseconds in the packet scheduler's ticks, as /proc/net/psched defines them.
fn ticks(nanoseconds: u64) -> u32 {
    static PER_MICROSECOND: std::sync::OnceLock<f64> = std::sync::OnceLock::new();
    let factor = PER_MICROSECOND.get_or_init(|| {
        std::fs::read_to_string("/proc/net/psched")
            .ok()
            .and_then(|text| ticks_per_microsecond(&text))
            // PSCHED_SHIFT 6: a tick is 64 ns in every kernel since 2.6.32.
            .unwrap_or(1000.0 / 64.0)
    });
    (nanoseconds as f64 / 1000.0 * factor).min(f64::from(u32::MAX)) as u32
}

/// Nanoseconds per microsecond, nanoseconds per tick, and the clock's resolution, in hexadecimal (`psched_show`).
fn ticks_per_microsecond(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(|word| u32::from_str_radix(word, 16));
    let (t2us, us2t) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let resolution = numbers.next()?.ok()?;
    Some(f64::from(t2us) / f64::from(us2t) * (f64::from(resolution) / 1_000_000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_psched() {
        let factor = ticks_per_microsecond("000003e8 00000040 000f4240 3b9aca00").unwrap();
        assert_eq!(factor, 15.625);
        assert_eq!(ticks(1_000_000), 15_625);
    }

    #[test]
    fn sizes_are_the_kernels() {
        let bytes = netem(&Netem { delay: 10_000_000, ..Netem::default() }).unwrap();
        assert_eq!(&bytes[24..28], [16, 0, 1, 0], "attributes follow a tc_netem_qopt of 24 bytes");
        let rate = Htb { rate: 8_000_000, ..Htb::default() };
        assert_eq!(htb_class(&rate).unwrap().len(), 4 + 44);
        assert_eq!(htb_root().len(), 4 + 20);
        let options = Tbf { rate: 8_000, burst: 1500, limit: Some(1), latency: None };
        assert_eq!(tbf(&options).unwrap().len(), 4 + 36 + 8);
    }

    #[test]
    fn wrong_options_are_named() {
        let wrong = Netem { loss: Chance { share: 1.5, correlation: 0.0 }, ..Netem::default() };
        assert!(netem(&wrong).unwrap_err().to_string().contains("loss"));
        let reorder = Chance { share: 0.5, correlation: 0.0 };
        assert!(netem(&Netem { reorder, ..Netem::default() }).is_err());
        assert!(tbf(&Tbf { rate: 8000, burst: 10, ..Tbf::default() }).is_err());
    }
}
