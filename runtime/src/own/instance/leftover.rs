//! What is left of instances that nobody asks for any more: directories of those that were killed and had made nothing,
//! and pins of those whose directory has gone.

use std::fs;
use std::path::Path;

use super::{
    Found, Instances, PINS, Paths, Record, check_name, lock, pins_suffix, remove, remove_pins,
};
use crate::Result;

impl Found {
    /// One that was killed in the foreground and left nothing: no log either. It is of no interest to anybody.
    pub fn is_husk(&self) -> bool {
        !self.alive && self.record.as_ref().is_some_and(|record| is_husk(&self.paths, record))
    }
}

fn is_husk(paths: &Paths, record: &Record) -> bool {
    !record.background && !paths.left_something()
}

impl Instances {
    /// Removes the directories of [husks](Found::is_husk). Whoever starts does this: for a living one it costs a look at
    /// its lock.
    pub(super) fn sweep(&self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let paths = Paths::of(&self.directory, &name);
            if !matches!(lock::is_held(&paths.lock()), Ok(false)) {
                continue;
            }
            let dead = |record: &Record| is_husk(&paths, record);
            if !Record::read(&paths.record()).is_some_and(|record| dead(&record)) {
                continue;
            }
            // It may live by now, or be another's to see to.
            if let Ok(lock::Taken::Ours(_held)) = lock::take(&paths.lock())
                && Record::read(&paths.record()).is_some_and(|record| dead(&record))
            {
                remove(&paths);
            }
        }
    }

    /// Names of instances that have pins and no directory: somebody has emptied it. Pins of other directories' instances
    /// are not looked at.
    pub fn only_pinned(&self) -> Vec<String> {
        let pinned = fs::read_dir(PINS).into_iter().flatten().flatten();
        let pinned = pinned.filter(|entry| entry.path().is_dir());
        let names = pinned.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> =
            names.filter_map(|pins| pinned_by(&pins, &pins_suffix(&self.directory))).collect();
        names.retain(|name| check_name(name).is_ok() && !self.directory.join(name).exists());
        names.sort();
        names
    }

    /// The process that still has the name, though its directory was taken away from under it.
    pub fn holder_without_directory(&self, name: &str) -> Option<u32> {
        let lock = Paths::of(&self.directory, name).lock();
        let mut open = lock.into_os_string();
        // What the kernel appends to the path of a file that has no name any more (`d_path`, fs/d_path.c).
        open.push(" (deleted)");
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|pid| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|path| path == *open))
        })
    }

    /// Removes the pins of one that [`Instances::only_pinned`] named; how many those were. None when it has come to life.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_pins_of(&self, name: &str) -> Result<Option<usize>> {
        // Nobody starts under that name meanwhile.
        let claim = match self.claim(name, None) {
            Err(error) if error.is("EBUSY") || error.is("EEXIST") => return Ok(None),
            claim => claim?,
        };
        let count = count_pins(claim.paths().pins());
        let removed = remove_pins(claim.paths().pins());
        claim.remove();
        removed.map(|()| Some(count))
    }

    /// How many pins it has.
    pub fn pins_of(&self, name: &str) -> usize {
        count_pins(Paths::of(&self.directory, name).pins())
    }
}

fn count_pins(directory: &Path) -> usize {
    fs::read_dir(directory).into_iter().flatten().flatten().count()
}

/// The name of the instance whose pins are in a directory of that name, if it is one of those with `suffix`.
fn pinned_by(pins: &str, suffix: &str) -> Option<String> {
    let name = match suffix {
        "" if has_suffix(pins) => return None,
        _ => pins.strip_suffix(suffix)?,
    };
    Some(name.replace("%2E", ".").replace("%25", "%"))
}

/// Whether it ends like the pins of another directory's instances. A name may look so, too: then its pins stay.
fn has_suffix(pins: &str) -> bool {
    let hex = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    pins.rsplit_once('%').is_some_and(|(_, end)| hex(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_tell_whose_they_are() {
        for (pins, suffix, name) in [
            ("edge", "", Some("edge")),
            ("a%2Eb%25c", "", Some("a.b%c")),
            ("%252E", "", Some("%2E")),
            ("edge%0a1b2c3d", "", None),
            // It could be either's.
            ("edge%25abcdef", "", None),
            ("edge%0a1b2c3d", "%0a1b2c3d", Some("edge")),
            ("a%2Eb%0a1b2c3d", "%0a1b2c3d", Some("a.b")),
            ("edge%ffffffff", "%0a1b2c3d", None),
            ("edge", "%0a1b2c3d", None),
        ] {
            assert_eq!(pinned_by(pins, suffix).as_deref(), name, "{pins} {suffix}");
        }
    }

    #[test]
    fn those_who_start_remove_husks_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let instances = Instances::at(directory.path().to_owned());
        let claim = |name: &str| instances.claim(name, None).expect("free");
        let living = claim("living");
        drop(claim("husk-1"));
        drop(claim("husk-2"));
        let holding = claim("holding");
        fs::write(holding.paths().journal(), "something").expect("written");
        drop(holding);
        let mut background = claim("background");
        background.set_background().expect("written");
        drop(background);
        fs::create_dir(directory.path().join("not-ours")).expect("made");
        claim("next").finish(0);
        let mut left: Vec<String> = fs::read_dir(directory.path())
            .expect("it is there")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        assert_eq!(left, ["background", "holding", "living", "not-ours"]);
        living.finish(0);
    }
}
