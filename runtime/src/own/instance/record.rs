//! `instance.json`: which process has, or had, a name, for people and for the commands that they type.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Who it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    /// The real path; none for `-e`, standard input and the prompt.
    pub script: Option<PathBuf>,
    pub pid: u32,
    /// Seconds since the epoch.
    pub started: f64,
    /// Seconds since the kernel started, suspended ones too: an uptime that no change of the clock alters.
    pub started_after_boot: f64,
    /// `/proc/sys/kernel/random/boot_id`: no kernel object of another boot exists.
    pub boot: String,
    /// Of cnfscript.
    pub version: String,
    /// Started by `up`.
    pub background: bool,
    /// None while it runs, and for one that died.
    pub ended: Option<End>,
}

/// An orderly end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The exit status.
    pub status: u8,
    /// Seconds since the epoch.
    pub at: f64,
}

impl End {
    pub fn now(status: u8) -> End {
        End { status, at: since_epoch() }
    }
}

impl Record {
    /// Of this process.
    pub fn now(name: &str, script: Option<&Path>) -> Record {
        Record {
            name: name.to_owned(),
            script: script.map(Path::to_owned),
            pid: std::process::id(),
            started: since_epoch(),
            started_after_boot: since_boot().as_secs_f64(),
            boot: boot(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            background: false,
            ended: None,
        }
    }

    /// None when there is none, or garbage.
    pub fn read(path: &Path) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and numbers have a JSON form")
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        let started = Duration::try_from_secs_f64(self.started_after_boot).unwrap_or_default();
        since_boot().saturating_sub(started)
    }

    /// Whether its process id is in use, by whomever.
    pub fn process_exists(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// This boot's id.
pub fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn since_epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
