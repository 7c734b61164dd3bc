//! The watcher: tells when a file that a script was loaded from says something else than what was loaded.
//!
//! It acts at once when a file is closed after writing or renamed into place, and only then: a half-written file is
//! nobody's business. What counts is the content, so a touch or a save without a change is nothing. It reports once and
//! then keeps quiet until [`Watcher::follow`] says what the load read, whatever came of it: a burst of saves becomes one
//! report and at most one more, in which the last save wins. What was reported and then not read, because the load failed
//! before it came to it, is not reported again as long as it stays what it is: loading it again would fail again. But one who
//! saves again what has failed is told so: that is a report of no paths.
//!
//! Not the `notify` crate: its inotify mask is fixed and has IN_OPEN in it, which wakes the process each time anybody
//! opens anything in /tmp, and it watches the inode that a directory had when the watch began, not its path.

mod places;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use sha2::{Digest, Sha256};

use crate::kernel::slice;
use crate::{Error, Result};
use places::{Places, Touch};

/// A file that is gone may be one that an editor is about to write again: it is a change when it stays away so long.
const GONE_AFTER: Duration = Duration::from_millis(250);

/// A save of what has failed that comes so soon is still the one that was loaded: some editors write a file twice.
const SAME_SAVE: Duration = Duration::from_millis(100);

/// What a file said, by its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// There was none, or none that can be read: it counts as a change when it comes.
    Missing,
    Is([u8; 32]),
}

impl Content {
    /// Of the bytes that were loaded.
    pub fn of(bytes: &[u8]) -> Content {
        Content::Is(Sha256::digest(bytes).into())
    }

    /// Of the file as it is now. What is not a regular file is missing: a FIFO would be read for ever.
    pub fn read(path: &Path) -> Content {
        let hash = || -> std::io::Result<Content> {
            let mut file = std::fs::File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)?;
            if !file.metadata()?.is_file() {
                return Ok(Content::Missing);
            }
            let mut sha = Sha256::new();
            let mut buffer = [0; 16 << 10];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(Content::Is(sha.finalize().into())),
                    count => sha.update(&buffer[..count]),
                }
            }
        };
        hash().unwrap_or(Content::Missing)
    }
}

/// The files of a load and what was read from each. Of two loads, extend the older one's with the newer one's: what was
/// read last counts.
pub type Files = BTreeMap<PathBuf, Content>;

/// Watches until it is dropped.
pub struct Watcher {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

/// What the watching thread is asked for.
struct Orders {
    next: Mutex<Order>,
    wake: EventFd,
}

#[derive(Default)]
struct Order {
    follow: Option<Files>,
    /// Whether the load of these files has failed.
    failed: bool,
    stop: bool,
}

impl Watcher {
    /// Starts the thread, which watches nothing yet. `on_change` is called on it with the paths that changed, as they
    /// were given to [`Watcher::follow`], and not again before the next `follow`.
    ///
    /// # Errors
    /// EMFILE when the user has all inotify instances in use (`inotify(7)`, `fs.inotify.max_user_instances`).
    pub fn start(on_change: impl Fn(Vec<PathBuf>) + Send + 'static) -> Result<Watcher> {
        let about = |e: Errno| {
            let error = Error::errno("watch", e);
            match e {
                Errno::EMFILE => error.hint("sysctl fs.inotify.max_user_instances=512"),
                _ => error,
            }
        };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags).map_err(about)?;
        let orders = Arc::new(Orders { next: Mutex::default(), wake });
        let watch = Watch {
            orders: Arc::clone(&orders),
            places: Places::new().map_err(about)?,
            loaded: Files::new(),
            live: Files::new(),
            told: Files::new(),
            changed: Files::new(),
            gone: BTreeMap::new(),
            reported: false,
            failed: None,
            again: false,
            on_change,
        };
        let thread = std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || watch.run())
            .map_err(|e| Error::io("thread", &e))?;
        Ok(Watcher { orders, thread: Some(thread) })
    }

    /// From now on these files and no others, with what was read from each. One that says something else already, because
    /// it was saved after it was read, is reported at once. To be called after every load, also one that failed.
    pub fn follow(&self, files: Files, failed: bool) {
        self.order(|order| (order.follow, order.failed) = (Some(files), failed));
    }

    fn order(&self, change: impl FnOnce(&mut Order)) {
        change(&mut self.orders.next.lock().expect("no panic while held"));
        // The counter can only be full when the thread has been woken already.
        let _ = self.orders.wake.write(1);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.order(|order| order.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The watching thread's own.
struct Watch<F> {
    orders: Arc<Orders>,
    places: Places,
    loaded: Files,
    /// What the last load read that has not failed.
    live: Files,
    /// What was reported of a file, until a load has read it.
    told: Files,
    /// Says something else than what was loaded.
    changed: Files,
    /// Cannot be read, and since when that is a change.
    gone: BTreeMap<PathBuf, Instant>,
    /// Nothing is reported until the next `follow`.
    reported: bool,
    /// The last load has failed, and when that was known.
    failed: Option<Instant>,
    /// A file was saved as it was when the last load failed.
    again: bool,
    on_change: F,
}

impl<F: Fn(Vec<PathBuf>)> Watch<F> {
    fn run(mut self) {
        slice::shorten();
        loop {
            self.wait();
            let order = {
                let _ = self.orders.wake.read();
                std::mem::take(&mut *self.orders.next.lock().expect("no panic while held"))
            };
            if order.stop {
                return;
            }
            match order.follow {
                Some(files) => {
                    self.failed = order.failed.then(Instant::now);
                    self.follow(files);
                }
                None => self.look_at_touched(),
            }
            self.give_up_on_gone();
            if !self.reported && !self.changed.is_empty() {
                self.report();
            } else if std::mem::take(&mut self.again) && !self.reported {
                (self.on_change)(Vec::new());
            }
        }
    }

    /// Until a directory has news, an order has come or a file is gone for good.
    fn wait(&self) {
        let timeout = match self.gone.values().min() {
            // Rounded up: a timeout of 0 before the moment would spin.
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::NONE)
            }
            None => PollTimeout::NONE,
        };
        let mut ready = [
            PollFd::new(self.places.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.orders.wake.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted is as good as woken: the loop finds nothing to do.
        let _ = poll(&mut ready, timeout);
    }

    fn follow(&mut self, files: Files) {
        let old = std::mem::replace(&mut self.loaded, files);
        for path in old.keys().filter(|path| !self.loaded.contains_key(*path)) {
            self.places.leave(path);
        }
        if self.failed.is_none() {
            self.live.clone_from(&self.loaded);
        }
        // What it was last known by, or by the load that is live since this one has failed before it came to it.
        let (loaded, live) = (&self.loaded, &self.live);
        self.told.retain(|path, told| {
            let now = loaded.get(path);
            let is_unread = || now == live.get(path) && Content::read(path) == *told;
            now.is_some() && (now == old.get(path) || is_unread())
        });
        self.changed.clear();
        self.gone.clear();
        self.reported = false;
        let paths: Vec<PathBuf> = self.loaded.keys().cloned().collect();
        // Watched first and read then: what is saved in between is seen twice rather than never.
        for path in &paths {
            self.places.watch(path);
            self.look(path);
        }
    }

    fn report(&mut self) {
        self.reported = true;
        let changed = std::mem::take(&mut self.changed);
        self.told.extend(changed.iter().map(|(path, content)| (path.clone(), *content)));
        (self.on_change)(changed.into_keys().collect());
    }

    fn look_at_touched(&mut self) {
        for (path, touch) in self.places.touched() {
            match touch {
                Touch::Came => {
                    self.look(&path);
                    let late = self.failed.is_some_and(|since| since.elapsed() > SAME_SAVE);
                    self.again |= late && !self.changed.contains_key(&path);
                }
                Touch::Went => self.miss(&path),
            }
        }
    }

    /// Compares a file with what was loaded from it.
    fn look(&mut self, path: &Path) {
        match Content::read(path) {
            Content::Missing => self.miss(path),
            now => {
                self.gone.remove(path);
                self.found(path, now);
            }
        }
    }

    fn found(&mut self, path: &Path, now: Content) {
        let differs = self.loaded.get(path).is_some_and(|loaded| *loaded != now);
        // As it was, after a load has failed that did without: that is worth another.
        let is_back = self.failed.is_some() && self.told.get(path).is_some_and(|told| *told != now);
        if !differs {
            self.told.remove(path);
        }
        if (differs || is_back) && self.told.get(path) != Some(&now) {
            self.changed.insert(path.to_owned(), now);
        } else {
            self.changed.remove(path);
        }
    }

    /// It is away: for good, or for a moment.
    fn miss(&mut self, path: &Path) {
        self.changed.remove(path);
        self.gone.entry(path.to_owned()).or_insert_with(|| Instant::now() + GONE_AFTER);
    }

    fn give_up_on_gone(&mut self) {
        let now = Instant::now();
        let due = self.gone.extract_if(.., |_, at| *at <= now);
        for path in due.map(|(path, _)| path).collect::<Vec<_>>() {
            self.found(&path, Content::read(&path));
        }
    }
}
