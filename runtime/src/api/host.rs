//! What every native can reach: the instance, what it owns, the tasks of this generation, the handles of this VM.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Lua};
use tokio::sync::Notify;

use super::gate::Gate;
use super::netns::Nets;
use super::state::Plain;
use super::task::Tasks;
use crate::life::control::Control;
use crate::life::watch::{Content, Files};
use crate::own::{AttachmentPlace, Ledger, Stage};

/// How an instance is called and where its script is.
#[derive(Debug, Clone)]
pub struct Instance {
    pub name: String,
    /// The script's real path; none for `-e`, stdin and the REPL.
    pub script: Option<PathBuf>,
    pub args: Vec<String>,
    /// The directory on a bpffs for what outlives the process; none in the foreground.
    pub pins: Option<PathBuf>,
}

/// One VM's view of the process. Lives as long as its VM.
pub struct Host {
    pub instance: Instance,
    /// Counted from 1; each load of the script is one.
    pub generation: u32,
    pub ledger: Arc<Ledger>,
    /// Where this generation says what it wants.
    pub stage: Stage,
    pub control: Arc<Control>,
    pub tasks: Tasks,
    /// The namespaces that scripts hold.
    pub nets: Nets,
    /// `cnf.on_stop` handlers, last registered first called.
    pub stop_handlers: RefCell<Vec<Function>>,
    /// Shut while the next generation loads.
    pub gate: Rc<Gate>,
    pub commit: Commit,
    /// What `cnf.state` begins with: what the generation before left.
    pub inherited: Cell<Option<Plain>>,
    /// The files this load has read, and what they said.
    files: RefCell<Files>,
}

/// The moment when what a script has set up becomes the network.
#[derive(Default)]
pub struct Commit {
    asked: Cell<bool>,
    done: Cell<bool>,
    changed: Notify,
}

impl Commit {
    /// The script is set up: the first `cnf.wait()`, or the end of its main chunk.
    pub fn ask(&self) {
        self.asked.set(true);
        self.changed.notify_waiters();
    }

    pub fn finish(&self) {
        self.done.set(true);
        self.changed.notify_waiters();
    }

    pub async fn asked(&self) {
        self.wait(&self.asked).await;
    }

    pub async fn done(&self) {
        self.wait(&self.done).await;
    }

    async fn wait(&self, flag: &Cell<bool>) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if flag.get() {
                return;
            }
            changed.await;
        }
    }
}

/// How long `cnf.on_stop` handlers may take together.
pub const STOP_DEADLINE: Duration = Duration::from_secs(2);

impl Host {
    pub fn new(
        instance: Instance,
        generation: u32,
        control: Arc<Control>,
        stage: Stage,
    ) -> Rc<Host> {
        Rc::new(Host {
            instance,
            generation,
            ledger: Arc::clone(stage.ledger()),
            stage,
            control,
            tasks: Tasks::default(),
            nets: Nets::default(),
            stop_handlers: RefCell::default(),
            gate: Rc::default(),
            commit: Commit::default(),
            inherited: Cell::new(None),
            files: RefCell::default(),
        })
    }

    /// A file that the script is made of was read and said this.
    pub fn loaded(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.read(path, Content::of(bytes));
    }

    /// A file was read by another program, which gave its name only.
    pub fn read_by_other(&self, path: impl AsRef<Path>) {
        let content = Content::read(path.as_ref());
        self.read(path, content);
    }

    /// A file that the script is made of had this content.
    pub fn read(&self, path: impl AsRef<Path>, content: Content) {
        let path = std::path::absolute(path.as_ref()).unwrap_or(path.as_ref().to_owned());
        self.files.borrow_mut().insert(path, content);
    }

    /// Every file of this load.
    pub fn files(&self) -> Files {
        self.files.borrow().clone()
    }

    /// Where the bpf link of an attachment is pinned, when the instance is to outlive its process.
    pub fn pin(&self, place: &AttachmentPlace) -> Option<PathBuf> {
        place.pin_in(self.instance.pins.as_deref())
    }

    /// The host of the VM that is calling.
    pub fn of(lua: &Lua) -> Rc<Host> {
        Rc::clone(&lua.app_data_ref::<Rc<Host>>().expect("every VM is given its host at birth"))
    }
}
