//! The gate before all Lua of one generation: while it is shut, none of it runs, and nothing is lost: what would have run
//! does when it opens.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

#[derive(Default)]
pub struct Gate {
    shut: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    pub fn shut(&self) {
        self.shut.set(true);
    }

    pub fn open(&self) {
        self.shut.set(false);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    pub fn is_shut(&self) -> bool {
        self.shut.get()
    }

    /// Whether whoever polls may go on; if not, it is polled again when the gate opens.
    pub fn lets_pass(&self, context: &Context<'_>) -> bool {
        if self.shut.get() {
            self.waiting.borrow_mut().push(context.waker().clone());
        }
        !self.shut.get()
    }
}
