//! What every native can reach: the instance, what it owns, the tasks of this generation, the handles of this VM.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Lua};

use super::netns::Nets;
use super::task::Tasks;
use crate::life::control::Control;
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
    /// Set by the first `cnf.wait()` or at the end of the main chunk.
    pub committed: Cell<bool>,
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
            committed: Cell::new(false),
        })
    }

    /// Where the bpf link of an attachment is pinned, when the instance is to outlive its process.
    pub fn pin(&self, place: &AttachmentPlace) -> Option<PathBuf> {
        let pins = self.instance.pins.as_ref().filter(|_| place.hook.family() != "tc")?;
        Some(pins.join(place.key().replace('/', "-")))
    }

    /// The host of the VM that is calling.
    pub fn of(lua: &Lua) -> Rc<Host> {
        Rc::clone(&lua.app_data_ref::<Rc<Host>>().expect("every VM is given its host at birth"))
    }
}
