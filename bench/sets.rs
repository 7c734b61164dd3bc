//! How long large policy sets take to change, from Lua. There is no peer, so it runs only when asked for.

use std::process::Command;

use cnfscript::{Error, Result};

use super::report::heading;
use super::scratch::{CNFSCRIPT, prefix};

const SCRIPT: &str = "bench/sets.lua";

pub fn measure() -> Result<()> {
    heading("Changing large policy sets");
    let name = format!("{}sets", prefix());
    // A million policies are more than Lua's usual gibibyte.
    let status = Command::new(CNFSCRIPT)
        .args(["-q", "--memory", "4g", SCRIPT, &name])
        .status()
        .map_err(|e| Error::io("bench", &e).subject(SCRIPT))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::new("bench", "ECHILD", status.to_string()).subject(SCRIPT)),
    }
}
