//! Who hears what a piece of Lua says: the person at the attached prompt that it runs for, tasks of its lines included.
//! Everybody else's words go to the process's own output.

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Out(String),
    Err(String),
}

/// Why something was not heard.
pub enum Unheard {
    /// There is no room for it yet.
    Busy,
    /// Nobody listens any more.
    Gone,
}

/// Whoever listens.
pub trait Hears: Send + Sync {
    /// Above 0, and never used twice in a process.
    fn number(&self) -> u64;

    /// # Errors
    /// Then nothing of it was heard.
    fn hear_now(&self, said: &Said) -> Result<(), Unheard>;

    /// Waits until there is room; false when nobody listens any more.
    fn hear(&self, said: Said) -> BoxFuture<'static, bool>;
}

tokio::task_local! {
    static HEARER: Arc<dyn Hears>;
}

/// What `work` says goes to `hearer`.
pub fn heard_by<F: Future>(hearer: Arc<dyn Hears>, work: F) -> impl Future<Output = F::Output> {
    HEARER.scope(hearer, work)
}

/// Who hears the task that calls.
pub fn current() -> Option<Arc<dyn Hears>> {
    HEARER.try_with(Arc::clone).ok()
}
