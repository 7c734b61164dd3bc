//! Where a path is decided: the directories on the way to a file, behind symlinks too, and the name that counts in each.
//!
//! A file is saved by writing it, by renaming another over it, by turning a symlink on the way to it, or by replacing a
//! directory: each of them is an event of one name in one directory, so these are what inotify is asked about. After
//! each such event the way is walked again, for a directory's watch stays with its inode when another takes its path.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{
    AddWatchFlags as Mask, InitFlags, Inotify, InotifyEvent, WatchDescriptor as Mark,
};

/// As many as the kernel follows (MAXSYMLINKS, `path_resolution(7)`).
const MAX_SYMLINKS: usize = 40;

/// What turns a name on the way into another directory or file.
const TURNS: Mask =
    Mask::IN_CREATE.union(Mask::IN_DELETE).union(Mask::IN_MOVE).union(Mask::IN_ONLYDIR);

pub struct Places {
    inotify: Inotify,
    /// The names that count in each watched directory, and for which files.
    directories: HashMap<Mark, Directory>,
    /// The way to each file.
    ways: HashMap<PathBuf, Vec<(Mark, OsString)>>,
    /// A full inotify was told once.
    complained: bool,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Its content is whole: closed after writing, renamed into place, reached by another way.
    Came,
    /// It is gone. If there is one again, another event tells when it is whole.
    Went,
}

struct Directory {
    /// One of its paths.
    path: PathBuf,
    names: HashMap<OsString, BTreeSet<PathBuf>>,
}

impl Places {
    pub fn new() -> nix::Result<Places> {
        Ok(Places {
            inotify: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?,
            directories: HashMap::new(),
            ways: HashMap::new(),
            complained: false,
        })
    }

    /// Readable when [`Places::touched`] has something.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Watches the way to `file` as it is now; again after it has changed. Where something on the way is missing or
    /// closed to us, that is where it is waited for.
    pub fn watch(&mut self, file: &Path) {
        let old = self.ways.remove(file).unwrap_or_default();
        let way = self.walk(file);
        for (mark, name) in &way {
            let directory = self.directories.get_mut(mark).expect("walking enters it");
            directory.names.entry(name.clone()).or_default().insert(file.to_owned());
        }
        let kept: HashSet<&(Mark, OsString)> = way.iter().collect();
        old.iter().filter(|place| !kept.contains(place)).for_each(|place| self.unname(file, place));
        self.ways.insert(file.to_owned(), way);
        self.forget_unused();
    }

    pub fn leave(&mut self, file: &Path) {
        for place in self.ways.remove(file).unwrap_or_default() {
            self.unname(file, &place);
        }
        self.forget_unused();
    }

    /// The files that something has happened to, and what it was in the end. Reads all there is.
    pub fn touched(&mut self) -> BTreeMap<PathBuf, Touch> {
        let mut touched = BTreeMap::new();
        let mut turned = BTreeSet::new();
        // EAGAIN: all is read.
        while let Ok(events) = self.inotify.read_events() {
            for event in &events {
                self.sort(event, &mut touched, &mut turned);
            }
        }
        for file in &turned {
            self.watch(file);
        }
        touched
    }

    /// Whose content an event touches, and whose way it turns.
    fn sort(
        &mut self,
        event: &InotifyEvent,
        touched: &mut BTreeMap<PathBuf, Touch>,
        turned: &mut BTreeSet<PathBuf>,
    ) {
        if event.mask.contains(Mask::IN_Q_OVERFLOW) {
            turned.extend(self.ways.keys().cloned());
            touched.extend(self.ways.keys().map(|file| (file.clone(), Touch::Came)));
            return;
        }
        if event.mask.contains(Mask::IN_IGNORED) {
            // Deleted, or its file system unmounted: whatever led through it leads elsewhere now.
            let Some(directory) = self.directories.remove(&event.wd) else { return };
            for file in directory.names.into_values().flatten() {
                touched.entry(file.clone()).or_insert(Touch::Went);
                turned.insert(file);
            }
            return;
        }
        let (Some(directory), Some(name)) = (self.directories.get(&event.wd), &event.name) else {
            return;
        };
        let Some(files) = directory.names.get(name) else { return };
        let touch = match event.mask {
            mask if mask.intersects(Mask::IN_DELETE | Mask::IN_MOVED_FROM) => Touch::Went,
            mask if mask.contains(Mask::IN_CREATE) && !complete(&directory.path, name) => return,
            _ => Touch::Came,
        };
        touched.extend(files.iter().map(|file| (file.clone(), touch)));
        if !event.mask.contains(Mask::IN_CLOSE_WRITE) {
            turned.extend(files.iter().cloned());
        }
    }

    /// Enters every directory on the way before the name in it is read, so that a turn in between is an event.
    fn walk(&mut self, file: &Path) -> Vec<(Mark, OsString)> {
        let mut way = Vec::new();
        let mut here = PathBuf::from("/");
        let mut left = steps(&std::path::absolute(file).unwrap_or_default());
        let mut symlinks = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            // A name that may be the file's own is one that is written.
            let mask = if left.is_empty() { TURNS.union(Mask::IN_CLOSE_WRITE) } else { TURNS };
            let Some(mark) = self.enter(&here, mask) else { break };
            way.push((mark, name.clone()));
            let next = here.join(&name);
            match next.symlink_metadata() {
                Ok(found) if found.is_symlink() => {
                    symlinks += 1;
                    let Ok(target) = next.read_link() else { break };
                    if symlinks > MAX_SYMLINKS {
                        break;
                    }
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    steps(&target).into_iter().rev().for_each(|step| left.push_front(step));
                }
                Ok(_) => here = next,
                Err(_) => break,
            }
        }
        way
    }

    fn enter(&mut self, directory: &Path, mask: Mask) -> Option<Mark> {
        // A second watch of the same inode, for another file, must not narrow the first.
        let add = Mask::from_bits_retain(libc::IN_MASK_ADD);
        match self.inotify.add_watch(directory, mask | add) {
            Ok(mark) => {
                let entered = self.directories.entry(mark);
                entered.or_insert_with(|| Directory {
                    path: directory.to_owned(),
                    names: HashMap::new(),
                });
                Some(mark)
            }
            Err(error) => {
                if error == Errno::ENOSPC && !self.complained {
                    self.complained = true;
                    tracing::warn!(
                        "changes in {} will not be seen: no inotify watch is left\n  = hint: sysctl \
                         fs.inotify.max_user_watches=65536",
                        directory.display()
                    );
                }
                None
            }
        }
    }

    fn unname(&mut self, file: &Path, (mark, name): &(Mark, OsString)) {
        let Some(directory) = self.directories.get_mut(mark) else { return };
        let Some(files) = directory.names.get_mut(name) else { return };
        files.remove(file);
        if files.is_empty() {
            directory.names.remove(name);
        }
    }

    fn forget_unused(&mut self) {
        let unused = self.directories.extract_if(|_, directory| directory.names.is_empty());
        for (mark, _) in unused {
            // EINVAL: the kernel was faster.
            let _ = self.inotify.rm_watch(mark);
        }
    }
}

/// Whether a name that was just created says something already. A regular file does when it is closed; a symlink, a
/// directory or a further hard link at once.
fn complete(directory: &Path, name: &OsStr) -> bool {
    let found = directory.join(name).symlink_metadata();
    found.is_ok_and(|found| !found.is_file() || found.nlink() > 1)
}

/// The names of a path, `..` among them.
fn steps(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}
