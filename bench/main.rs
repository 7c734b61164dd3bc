//! `make bench`: each measurement beside its peer, both made in the same run, as a ratio.
//!
//! A ratio that misses its target is printed as such and fails nothing; a measurement that could not be made fails the
//! run. The machine's other load is not controlled: runs of all sides alternate, and medians are compared.

#[path = "../tests/room/flow.rs"]
mod flow;
mod forward;
mod hub;
mod lookup;
mod maps;
mod reload;
mod report;
mod scratch;
mod sets;
mod start;

use std::process::ExitCode;

use cnfscript::Result;

/// A part of the benchmark, and whether it runs without being asked for.
type Part = (&'static str, bool, fn() -> Result<()>);

const PARTS: &[Part] = &[
    ("hub", true, hub::measure),
    ("start", true, start::measure),
    ("lookup", true, lookup::measure),
    ("forward", true, forward::measure),
    ("maps", true, maps::measure),
    ("reload", true, reload::measure),
    ("sets", false, sets::measure),
];

fn main() -> ExitCode {
    // Cargo adds --bench.
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let Some(unknown) = asked.iter().find(|a| PARTS.iter().all(|(name, ..)| name != a)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, ..)| *name).collect();
        eprintln!("there is no part \"{unknown}\": {}", names.join(", "));
        return ExitCode::from(2);
    }
    println!("Medians of alternating runs; the machine's other load is not controlled.");
    let mut failed = false;
    for (name, by_default, measure) in PARTS {
        let wanted = if asked.is_empty() { *by_default } else { asked.iter().any(|a| a == name) };
        if wanted && let Err(error) = measure() {
            eprintln!("{name} could not be measured: {error}");
            eprint!("{}", error.get_detail().unwrap_or_default());
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed))
}
