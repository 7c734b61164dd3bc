//! Start of an empty script beside an empty Lua.

use std::time::Instant;

use super::report::{Target, compare, heading, median, side};
use super::scratch::{CNFSCRIPT, run};
use cnfscript::{Error, Result};

const RUNS: usize = 300;

pub fn measure() -> Result<()> {
    let script = tempfile::NamedTempFile::new().map_err(|e| Error::io("bench", &e))?;
    let script = script.path().display().to_string();
    let (mut ours, mut lua) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(timed(CNFSCRIPT, &[&script])?);
        lua.push(timed("lua5.4", &["-e", ""])?);
    }
    heading(&format!("Start, from fork to exit ({RUNS} runs each)"));
    compare(
        "an empty script",
        &side("cnfscript", median(&ours)),
        &side("lua5.4 -e ''", median(&lua)),
        Target::AtMost(3.0),
    );
    Ok(())
}

fn timed(program: &str, arguments: &[&str]) -> Result<f64> {
    let start = Instant::now();
    run(program, arguments, None)?;
    Ok(start.elapsed().as_secs_f64())
}
