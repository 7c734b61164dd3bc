//! The processes that there are, as proc_pid_stat(5) tells: who descends from whom, who shares a session.

/// A line of /proc/PID/stat, the part that is of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub pid: u32,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    /// In clock ticks after boot: with the pid it tells a process from a later one.
    pub started: u64,
    /// It has ended and only waits for its parent to notice.
    pub ended: bool,
}

impl Entry {
    fn parse(stat: &str) -> Option<Entry> {
        // The second field is the program's name in parentheses, with whatever it has in it.
        let (pid, _) = stat.split_once(' ')?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |field: usize| fields.get(field)?.parse().ok();
        Some(Entry {
            pid: pid.parse().ok()?,
            ended: matches!(*fields.first()?, "Z" | "X"),
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// One process; `None` when there is none with that number.
pub fn one(pid: u32) -> Option<Entry> {
    Entry::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Every process that this one may see.
pub fn all() -> Vec<Entry> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(one).collect()
}

/// The processes that descend from `pid`, parents before their children; without those whose parent has ended: they are
/// children of another now.
pub fn descendants(pid: u32) -> Vec<u32> {
    let all = all();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(all.iter().filter(|p| p.parent == parent).map(|p| p.pid));
        next += 1;
    }
    found.split_off(1)
}

/// The processes of a session that still run.
pub fn of_session(session: u32) -> Vec<u32> {
    let mine = all().into_iter().filter(|p| p.session == session && !p.ended);
    mine.map(|p| p.pid).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 7 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 99 1000 0";
        let entry = Entry::parse(stat).expect("a line of stat");
        let Entry { pid, parent, group, session, started, ended } = entry;
        assert_eq!((pid, parent, group, session, started, ended), (7, 1, 7, 6, 99, false));
    }

    #[test]
    fn children_of_children_are_found() {
        let me = std::process::id();
        let mut child = Command::new("sh").args(["-c", "sleep 60; true"]).spawn().expect("a shell");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while descendants(child.id()).is_empty() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let [sleep] = descendants(child.id())[..] else { panic!("one child") };
        assert!(descendants(me).contains(&child.id()) && descendants(me).contains(&sleep));
        let session = one(me).expect("myself").session;
        assert!(of_session(session).contains(&sleep));
        for pid in [sleep, child.id()] {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
        }
        assert!(one(child.id()).is_none_or(|p| p.parent == me));
        child.wait().expect("it is ours");
    }
}
