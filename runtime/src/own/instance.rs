//! An instance on disk: `/run/cnfscript/<name>/`, for root's eyes only, and the lock that says whether it lives.
//!
//! The kernel drops the lock when the process dies, however that happens, so a directory whose lock is free belongs to
//! nobody alive, and what its journal names is to be adopted or cleaned. `instance.json` tells people who holds it.
//! Under systemd, containers or tests another directory may serve: CNFSCRIPT_RUN_DIR. Without root it is
//! `$XDG_RUNTIME_DIR/cnfscript`, else one of the user's own in the temporary directory.

mod leftover;
mod lock;
mod record;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::{Error, Result, fault};
pub use record::{End, Record, boot};

/// Where instances are kept when root runs them.
const DIRECTORY: &str = "/run/cnfscript";
/// The environment variable that names another place.
pub const DIRECTORY_VARIABLE: &str = "CNFSCRIPT_RUN_DIR";
/// Where bpf links of background instances are pinned.
const PINS: &str = "/sys/fs/bpf/cnfscript";
/// NAME_MAX of every file system that /run is on, and of bpffs, where a dot takes three bytes.
const NAME_MAX: usize = 85;
/// How long a holder that has just come may take to write who it is.
const INTRODUCTION: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An instance that is ours as long as this lives.
#[derive(Debug)]
pub struct Claim {
    paths: Paths,
    record: Record,
    /// Who had the name before and left its directory: dead, or ended in the background.
    previous: Option<Record>,
    /// Dropped by the kernel with the process; children do not inherit it (O_CLOEXEC).
    _lock: OwnedFd,
}

/// Where an instance keeps what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    directory: PathBuf,
    pins: PathBuf,
}

impl Paths {
    fn of(directory: &Path, name: &str) -> Paths {
        // bpffs refuses dots (`bpf_lookup`, kernel/bpf/inode.c).
        let mut pins = name.replace('%', "%25").replace('.', "%2E");
        pins += &pins_suffix(directory);
        Paths { directory: directory.join(name), pins: Path::new(PINS).join(pins) }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
    /// The ledger on disk.
    pub fn journal(&self) -> PathBuf {
        self.directory.join("journal")
    }
    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control")
    }
    /// Standard output and error of a background instance.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
    /// What the log was before it grew too long.
    pub fn old_log(&self) -> PathBuf {
        self.directory.join("log.1")
    }
    /// When the lines of the log were written.
    pub fn log_times(&self) -> PathBuf {
        self.directory.join("log.times")
    }
    /// Likewise of the old one.
    pub fn old_log_times(&self) -> PathBuf {
        self.directory.join("log.1.times")
    }
    /// On bpffs, made when something is pinned.
    pub fn pins(&self) -> &Path {
        &self.pins
    }
    fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }
    fn record(&self) -> PathBuf {
        self.directory.join("instance.json")
    }

    /// Whether the last process left something that only its journal knows.
    pub fn left_something(&self) -> bool {
        self.journal().metadata().is_ok_and(|found| found.len() > 0)
    }
}

/// What the pins of a directory's instances end with: the bpffs is one for all, and instances of one name in several places
/// have pins of their own.
fn pins_suffix(directory: &Path) -> String {
    if directory == Path::new(DIRECTORY) {
        return String::new();
    }
    let hash = Sha256::digest(directory.as_os_str().as_bytes());
    format!("%{:08x}", u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
}

/// All instances of a directory.
#[derive(Debug, Clone)]
pub struct Instances {
    directory: PathBuf,
}

impl Instances {
    /// Of this user, or of the directory that CNFSCRIPT_RUN_DIR names.
    pub fn here() -> Instances {
        Instances::at(directory())
    }

    pub fn at(directory: PathBuf) -> Instances {
        Instances { directory }
    }

    /// Takes the name for this process, before anything is created. `script` is the real path; none for `-e`, standard
    /// input and the prompt.
    ///
    /// # Errors
    /// EBUSY naming the process that has it; EEXIST when a dead instance of another script left something behind under it;
    /// EINVAL for a name that cannot be a directory's; whatever the file system says (EROFS, ENOSPC, EACCES) when it cannot
    /// be written down. Then nothing is left.
    pub fn claim(&self, name: &str, script: Option<&Path>) -> Result<Claim> {
        check_name(name)?;
        let paths = Paths::of(&self.directory, name);
        make_directory(&self.directory)?;
        let mut patience = INTRODUCTION;
        let lock = loop {
            fault::point();
            make_directory(paths.directory())?;
            fault::point();
            match lock::take(&paths.lock()).map_err(|e| unwritable(&paths.lock(), &e))? {
                lock::Taken::Ours(lock) => break lock,
                lock::Taken::Theirs => match holder(&paths) {
                    Some(holder) => return Err(busy(&holder, name, script)),
                    None if patience.is_zero() => return Err(busy_with_somebody(name)),
                    // It has not written who it is yet, or removes what a dead one left.
                    None => {
                        std::thread::sleep(LOOK_AGAIN);
                        patience = patience.saturating_sub(LOOK_AGAIN);
                    }
                },
                // Its last holder has just removed it.
                lock::Taken::Gone => continue,
            }
        };
        let previous = Record::read(&paths.record());
        let record = Record::now(name, script);
        if paths.left_something() {
            match &previous {
                // The kernel began anew: whatever it was is gone.
                Some(previous) if previous.boot != record.boot => {
                    fs::remove_file(paths.journal())
                        .map_err(|e| unwritable(&paths.journal(), &e))?;
                }
                Some(previous) if previous.script.as_deref() != script => {
                    return Err(left_by_another(name, previous));
                }
                _ => {}
            }
        }
        let claim = Claim { paths, record, previous, _lock: lock };
        if let Err(error) = claim.write_down() {
            if claim.previous.is_none() {
                claim.remove();
            }
            return Err(error);
        }
        self.sweep();
        Ok(claim)
    }

    /// The instance of that name, if there is a directory of it.
    pub fn get(&self, name: &str) -> Result<Option<Found>> {
        check_name(name)?;
        let paths = Paths::of(&self.directory, name);
        if !paths.directory().is_dir() {
            return Ok(None);
        }
        // In this order: one that ends in between reads as dead with its end, not as alive with it.
        let record = Record::read(&paths.record());
        let alive = lock::is_held(&paths.lock()).map_err(|e| unreadable(&paths.lock(), &e))?;
        Ok(Some(Found { name: name.to_owned(), paths, record, alive }))
    }

    /// Every instance, by name.
    ///
    /// # Errors
    /// EACCES for those who are not root.
    pub fn all(&self) -> Result<Vec<Found>> {
        let directory = &self.directory;
        let entries = match fs::read_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| unreadable(directory, &e))?,
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names.iter().filter_map(|name| self.get(name).transpose()).collect()
    }
}

impl Claim {
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The last process of this name that did not take its directory with it. Whether it left something that must be
    /// adopted or cleaned is what [`Paths::left_something`] says.
    pub fn previous(&self) -> Option<&Record> {
        self.previous.as_ref()
    }

    /// From now on it is one that `up` started: its directory stays when it ends, until `down` or `clean`.
    pub fn set_background(&mut self) -> Result<()> {
        self.record.background = true;
        self.write_down()
    }

    /// The end of a run, after its teardown. Of a foreground instance nothing is left; of one in the background the log
    /// is, and how it ended. A journal that still names something keeps the directory for `clean`.
    pub fn finish(self, status: u8) {
        self.ending().finish(status);
    }

    /// For an end that cannot wait for whoever holds the claim.
    pub fn ending(&self) -> Ending {
        Ending { paths: self.paths.clone(), record: self.record.clone() }
    }

    /// Takes all of it away, and frees the name.
    fn remove(&self) {
        remove(&self.paths);
    }

    fn write_down(&self) -> Result<()> {
        write_down(&self.paths, &self.record)
    }
}

/// What [`Claim::finish`] needs to know, while the process still holds the lock.
#[derive(Debug, Clone)]
pub struct Ending {
    paths: Paths,
    record: Record,
}

impl Ending {
    /// As [`Claim::finish`].
    pub fn finish(mut self, status: u8) {
        if !self.paths.left_something() {
            // Not while something is pinned there, which the journal would tell.
            let _ = fs::remove_dir(&self.paths.pins).and_then(|()| fs::remove_dir(PINS));
        }
        if !self.record.background && !self.paths.left_something() {
            remove(&self.paths);
            return;
        }
        self.record.ended = Some(End::now(status));
        // It is over either way.
        let _ = fs::remove_file(self.paths.socket());
        let _ = write_down(&self.paths, &self.record);
    }
}

fn write_down(paths: &Paths, record: &Record) -> Result<()> {
    let path = paths.record();
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(record.to_json().as_bytes())?;
        fault::point();
        fs::rename(&new, &path)?;
        fault::point();
        Ok(())
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&new);
        unwritable(&path, &e)
    })
}

/// An instance that was found on disk.
#[derive(Debug, Clone)]
pub struct Found {
    pub name: String,
    pub paths: Paths,
    /// None when it cannot be read: garbage, or a process that has only begun.
    pub record: Option<Record>,
    /// Some process holds its lock.
    pub alive: bool,
}

/// A dead instance that nobody else can take while this lives.
#[derive(Debug)]
pub struct Seized {
    paths: Paths,
    /// As it is now that nobody writes it any more.
    pub record: Option<Record>,
    _lock: OwnedFd,
}

impl Seized {
    /// Takes its pins and its directory away, whatever the journal says.
    ///
    /// # Errors
    /// What the file system says of a pin; then the rest is left.
    pub fn remove(self) -> Result<()> {
        remove_pins(&self.paths.pins)?;
        remove(&self.paths);
        Ok(())
    }
}

/// All that is pinned for one instance: nobody else pins there.
fn remove_pins(directory: &Path) -> Result<()> {
    let gone = |outcome: io::Result<()>| match outcome {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("unpin", &e).subject(directory.display().to_string()))
        }
        _ => Ok(()),
    };
    for pin in fs::read_dir(directory).into_iter().flatten().flatten() {
        gone(fs::remove_file(pin.path()))?;
    }
    gone(fs::remove_dir(directory))?;
    // The next instance that pins something makes it again.
    let _ = fs::remove_dir(PINS);
    Ok(())
}

impl Found {
    /// Takes a dead one, to see to what it left; `None` when it lives by now, or has gone.
    ///
    /// # Errors
    /// What the file system says of its lock.
    pub fn seize(&self) -> Result<Option<Seized>> {
        match lock::take(&self.paths.lock()).map_err(|e| unwritable(&self.paths.lock(), &e))? {
            lock::Taken::Ours(lock) => {
                let record = Record::read(&self.paths.record());
                Ok(Some(Seized { paths: self.paths.clone(), record, _lock: lock }))
            }
            lock::Taken::Theirs | lock::Taken::Gone => Ok(None),
        }
    }

    /// Takes a dead one's directory away. One that lives meanwhile is left, as is one whose journal names something.
    pub fn remove(&self) -> Result<bool> {
        match lock::take(&self.paths.lock()).map_err(|e| unwritable(&self.paths.lock(), &e))? {
            lock::Taken::Ours(_held) if !self.paths.left_something() => {
                remove(&self.paths);
                Ok(true)
            }
            lock::Taken::Gone => Ok(true),
            _ => Ok(false),
        }
    }
}

/// All files of ours, the lock last: whoever waits for the name takes it when the directory has gone.
fn remove(paths: &Paths) {
    let log = [paths.log(), paths.old_log(), paths.log_times(), paths.old_log_times()];
    // Of one that died while it wrote them anew.
    let unfinished =
        [paths.journal(), paths.record(), paths.log()].map(|path| path.with_extension("new"));
    let others = [paths.socket(), paths.journal(), paths.record(), paths.lock()];
    for path in log.iter().chain(&unfinished).chain(&others) {
        fault::point();
        let _ = fs::remove_file(path);
    }
    fault::point();
    // Not empty when it holds something that is not ours, or when the next has come already.
    let _ = fs::remove_dir(paths.directory());
}

/// Where instances are kept.
fn directory() -> PathBuf {
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    let user = nix::unistd::geteuid();
    match (named(DIRECTORY_VARIABLE), named("XDG_RUNTIME_DIR")) {
        (Some(directory), _) => directory.into(),
        (None, _) if user.is_root() => DIRECTORY.into(),
        (None, Some(runtime)) => Path::new(&runtime).join("cnfscript"),
        (None, None) => std::env::temp_dir().join(format!("cnfscript-{user}")),
    }
}

/// Makes it with mode 0700, parents too. One that is there must be ours, and nobody else's to write: a journal that
/// others write decides what root deletes.
fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            unwritable(path, &io::Error::from_raw_os_error(libc::ENOTDIR))
        }
        _ => unwritable(path, &e),
    })?;
    let found = path.symlink_metadata().map_err(|e| unwritable(path, &e))?;
    let ours = found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if found.is_dir() && ours {
        return Ok(());
    }
    Err(Error::new("instance", "EPERM", "must be a directory that only its owner writes")
        .subject(path.display().to_string())
        .hint(format!("chmod 700 {}, or set {DIRECTORY_VARIABLE}", path.display())))
}

/// A valid name: one file name, not hidden.
///
/// # Errors
/// EINVAL saying what is wrong.
pub fn check_name(name: &str) -> Result<()> {
    let wrong = if name.is_empty() {
        "an instance needs a name".to_owned()
    } else if name.len() > NAME_MAX {
        format!("an instance's name has at most {NAME_MAX} bytes, this has {}", name.len())
    } else if name.starts_with(['.', '-']) {
        format!("an instance's name cannot begin with {:?}", &name[..1])
    } else if let Some(bad) = name.chars().find(|c| *c == '/' || c.is_control()) {
        format!("an instance's name cannot contain {bad:?}")
    } else {
        return Ok(());
    };
    Err(Error::invalid("instance", wrong).subject(name).hint("--name gives it another one"))
}

/// Who has the name, if what is written is of a process that lives.
fn holder(paths: &Paths) -> Option<Record> {
    Record::read(&paths.record()).filter(|r| r.ended.is_none() && r.process_exists())
}

fn busy_with_somebody(name: &str) -> Error {
    Error::new("instance", "EBUSY", "already runs, in a process that has not said which")
        .subject(name)
}

/// Somebody alive has the name.
fn busy(holder: &Record, name: &str, script: Option<&Path>) -> Error {
    let error = |message: String| Error::new("instance", "EBUSY", message).subject(name);
    let theirs = holder.script.as_deref();
    let error = error(match theirs {
        Some(path) => format!("already runs: pid {}, {}", holder.pid, path.display()),
        None => format!("already runs: pid {}", holder.pid),
    });
    match holder.background {
        _ if theirs != script => error.hint("--name gives this one another name"),
        true => error.hint(format!("cnfscript reload {name}, or cnfscript down {name}")),
        false => error.hint(format!("end it (kill {}), or --name for a second one", holder.pid)),
    }
}

/// A dead one had the name for another script.
fn left_by_another(name: &str, previous: &Record) -> Error {
    let whose =
        previous.script.as_ref().map_or("another script".into(), |p| p.display().to_string());
    Error::new("instance", "EEXIST", format!("{whose} died under this name and left things behind"))
        .subject(name)
        .hint(format!("cnfscript clean {name} removes them; --name gives this one another name"))
}

fn unwritable(path: &Path, e: &io::Error) -> Error {
    let error = Error::io("instance", e).subject(path.display().to_string());
    match e.raw_os_error() {
        Some(
            libc::ENOENT | libc::EROFS | libc::ENOSPC | libc::EDQUOT | libc::EACCES | libc::ENOTDIR,
        ) => error.hint(format!("{DIRECTORY_VARIABLE}=DIRECTORY names another place than this")),
        _ => error,
    }
}

fn unreadable(path: &Path, e: &io::Error) -> Error {
    let error = Error::io("instance", e).subject(path.display().to_string());
    if e.kind() == io::ErrorKind::PermissionDenied { error.hint("sudo") } else { error }
}
