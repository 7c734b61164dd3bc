//! `l:qdisc{kind=...}`: the queueing discipline at a link's root.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, Table, Value};

use super::error::said;
use super::host::Host;
use super::link::Link;
use super::module::Args;
use super::option::{Options, Rate, Share, Size};
use super::value::Data;
use crate::Result;
use crate::kernel::qdisc::{self, Chance, Fq, FqCodel, GilbertElliott, Htb, Netem, Qdisc, Tbf};
use crate::own::Owned;
use crate::record;

/// Without options: what is there. With: replaces the root discipline, or adds the clsact or ingress hook.
pub fn qdisc(lua: &Lua, host: &Rc<Host>, this: &Link, mut args: Args) -> Result<Data> {
    let op = args.op().to_owned();
    let value = args.any();
    if value.is_nil() {
        let found = this.ask(&op, |open, index| qdisc::list(&open.netlink, Some(index)))?;
        return Ok(found.into_iter().map(info).collect::<Vec<_>>().into());
    }
    let mut options = Options::new(&op, value)?;
    options.set_subject(this.name());
    let wanted = parse(&mut options)?;
    options.finish()?;
    this.ask(&op, |open, index| {
        let (netns, link) = (open.netns.clone(), this.name());
        let owned = Owned::Qdisc { netns, index, link, qdisc: Box::new(wanted), before: None };
        host.stage.own(owned, &open.netlink, || said(lua, &op).of(this.name()))?;
        Ok(Data::Nil)
    })
}

fn info(q: qdisc::QdiscInfo) -> Data {
    record! { kind: q.kind, handle: q.handle, parent: q.parent, bytes: q.bytes, packets: q.packets, drops: q.drops }
}

fn parse(options: &mut Options) -> Result<Qdisc> {
    #[derive(Clone, Copy)]
    enum Kind {
        Netem,
        Fq,
        FqCodel,
        Tbf,
        Htb,
        Pfifo,
        Clsact,
        Ingress,
    }
    let kinds = [
        ("netem", Kind::Netem),
        ("fq", Kind::Fq),
        ("fq_codel", Kind::FqCodel),
        ("tbf", Kind::Tbf),
        ("htb", Kind::Htb),
        ("pfifo", Kind::Pfifo),
        ("clsact", Kind::Clsact),
        ("ingress", Kind::Ingress),
    ];
    let Some(kind) = options.choice("kind", &kinds)? else {
        return Err(
            options.bad("kind is missing: \"netem\", \"fq\", \"tbf\", \"htb\", \"clsact\" ...")
        );
    };
    Ok(match kind {
        Kind::Netem => Qdisc::Netem(netem(options)?),
        Kind::Fq => Qdisc::Fq(Fq {
            limit: options.get("limit")?,
            flow_limit: options.get("flow_limit")?,
            quantum: bytes(options, "quantum")?,
            initial_quantum: bytes(options, "initial_quantum")?,
            maxrate: options.get::<Rate>("maxrate")?.map(|rate| rate.0),
        }),
        Kind::FqCodel => Qdisc::FqCodel(FqCodel {
            limit: options.get("limit")?,
            flows: options.get("flows")?,
            target: micros(options, "target")?,
            interval: micros(options, "interval")?,
            quantum: bytes(options, "quantum")?,
            ecn: options.get("ecn")?,
        }),
        Kind::Tbf => Qdisc::Tbf(Tbf {
            rate: options.required::<Rate>("rate")?.0,
            burst: options.required::<Size>("burst")?.0.min(u64::from(u32::MAX)) as u32,
            limit: bytes(options, "limit")?,
            latency: nanos(options, "latency")?,
        }),
        Kind::Htb => Qdisc::Htb(Htb {
            rate: options.required::<Rate>("rate")?.0,
            ceil: options.get::<Rate>("ceil")?.map(|rate| rate.0),
            burst: bytes(options, "burst")?,
        }),
        Kind::Pfifo => Qdisc::Pfifo { limit: options.get("limit")? },
        Kind::Clsact => Qdisc::Clsact,
        Kind::Ingress => Qdisc::Ingress,
    })
}

fn netem(options: &mut Options) -> Result<Netem> {
    let gemodel = match options.get::<Table>("gemodel")? {
        None => None,
        Some(table) => {
            let mut model = Options::new("link:qdisc", Value::Table(table))?;
            model.set_subject("gemodel");
            let share = |model: &mut Options, word, default: f64| -> Result<f64> {
                Ok(model.get::<Share>(word)?.map_or(default, |share| share.0))
            };
            let parsed = GilbertElliott {
                p: model.required::<Share>("p")?.0,
                r: share(&mut model, "r", 1.0)?,
                loss_bad: share(&mut model, "loss_bad", 1.0)?,
                loss_good: share(&mut model, "loss_good", 0.0)?,
            };
            model.finish()?;
            Some(parsed)
        }
    };
    Ok(Netem {
        delay: nanos(options, "delay")?.unwrap_or(0),
        jitter: nanos(options, "jitter")?.unwrap_or(0),
        delay_correlation: options.get::<Share>("delay_correlation")?.map_or(0.0, |share| share.0),
        loss: chance(options, "loss", "loss_correlation")?,
        gemodel,
        duplicate: chance(options, "duplicate", "duplicate_correlation")?,
        corrupt: chance(options, "corrupt", "corrupt_correlation")?,
        reorder: chance(options, "reorder", "reorder_correlation")?,
        gap: options.get("gap")?.unwrap_or(0),
        rate: options.get::<Rate>("rate")?.map_or(0, |rate| rate.0),
        limit: options.get("limit")?,
        seed: options.get("seed")?,
    })
}

fn chance(options: &mut Options, word: &'static str, correlation: &'static str) -> Result<Chance> {
    Ok(Chance {
        share: options.get::<Share>(word)?.map_or(0.0, |share| share.0),
        correlation: options.get::<Share>(correlation)?.map_or(0.0, |share| share.0),
    })
}

fn nanos(options: &mut Options, word: &'static str) -> Result<Option<u64>> {
    Ok(options.get::<Duration>(word)?.map(|d| d.as_nanos().min(u128::from(u64::MAX)) as u64))
}

fn micros(options: &mut Options, word: &'static str) -> Result<Option<u32>> {
    Ok(options.get::<Duration>(word)?.map(|d| d.as_micros().min(u128::from(u32::MAX)) as u32))
}

fn bytes(options: &mut Options, word: &'static str) -> Result<Option<u32>> {
    Ok(options.get::<Size>(word)?.map(|size| size.0.min(u64::from(u32::MAX)) as u32))
}
