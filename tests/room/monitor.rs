//! What the kernel tells of a namespace while something happens in it.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::room::{Room, eventually};

/// `ip monitor`, and what it has heard.
pub struct Monitor {
    child: Child,
    netns: String,
    heard: tempfile::NamedTempFile,
}

impl Monitor {
    /// Listens from its return on.
    pub fn start(room: &Room, netns: &str) -> Monitor {
        let heard = tempfile::NamedTempFile::new().expect("a temporary file");
        let netns = format!("{}{netns}", room.prefix);
        let child = Command::new("timeout")
            .args([
                "60", "ip", "-n", &netns, "monitor", "link", "address", "route", "neigh", "rule",
            ])
            .stdout(heard.reopen().expect("it is there"))
            .stderr(Stdio::null())
            .spawn()
            .expect("ip is there");
        let monitor = Monitor { child, netns, heard };
        eventually(|| monitor.hears("203.0.113.1"));
        monitor
    }

    /// What it has heard since its start, up to now.
    pub fn stop(self) -> String {
        eventually(|| self.hears("203.0.113.2"));
        let lines = self.all();
        let own = |line: &&str| !line.contains("203.0.113.");
        lines.lines().filter(own).map(|line| format!("{line}\n")).collect()
    }

    /// Makes a route and deletes it again, which it hears once it listens, and after all that came before.
    fn hears(&self, address: &str) -> bool {
        let route = ["add", "delete"].map(|verb| {
            let words = ["-n", &self.netns, "route", verb, "blackhole", address];
            Command::new("ip").args(words).status().expect("ip is there").success()
        });
        assert_eq!(route, [true, true]);
        self.all().contains(&format!("Deleted blackhole {address}"))
    }

    fn all(&self) -> String {
        let mut text = String::new();
        let mut file = File::open(self.heard.path()).expect("it is there");
        file.read_to_string(&mut text).expect("it is text");
        text
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
