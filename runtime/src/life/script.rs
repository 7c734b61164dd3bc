//! The life of a script: loaded, parked while it owns something, loaded again whenever its files change or somebody asks,
//! ended. Of two loads at most one is live; the other commits as a whole or leaves no trace.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::attached::Attached;
use super::control::Control;
use super::generation::{Chunk, Ended, Generation, reason_first, runtime, stop_word};
use super::socket::wire::Done;
use super::socket::{Request, Typed, What};
use super::told::{Reloaded, difference_data, lines, tell};
use super::watch::{Content, Files, Watcher};
use crate::api::host::{Host, Instance};
use crate::api::vm::Vm;
use crate::kernel::slice::{self, Hurry};
use crate::own::stage::{Difference, Phase};
use crate::own::{Ledger, Mark, Stage};
use crate::stop::Stop;
use crate::{Error, Result, report};

/// The operation of what is wrong with a load as a whole.
const RELOAD: &str = "reload";
/// After a save was loaded, those that come so soon are one: the first of a burst is loaded at once, the last one counts.
const REST: Duration = Duration::from_millis(10);

/// The text of a file; of one that is empty, what it says when whoever has opened it to write has had time to.
fn read_written(file: &Path) -> std::io::Result<Vec<u8>> {
    const TIME: Duration = Duration::from_millis(10);
    let start = Instant::now();
    loop {
        let text = std::fs::read(file)?;
        if !text.is_empty() || start.elapsed() > TIME {
            return Ok(text);
        }
        std::thread::sleep(TIME / 10);
    }
}

/// A script and how it is to live.
pub struct Script {
    pub instance: Instance,
    /// As it was read first.
    pub chunk: Chunk,
    /// What is read again for a reload; none for `-e` and standard input.
    pub file: Option<PathBuf>,
    /// Bytes that Lua may use.
    pub memory: usize,
    /// Load again when a file changes.
    pub watch: bool,
    /// Stay when the main chunk fails or nothing is owned: a service, or a script that is being written.
    pub stay: bool,
    /// How long a load other than the first may take.
    pub load_timeout: Duration,
}

/// Runs the script to its end. Everything it owns is still there afterwards.
///
/// # Errors
/// What keeps a VM or the event loop from being made.
pub fn run(script: Script, control: &Arc<Control>, ledger: &Arc<Ledger>) -> Result<Ended> {
    let runtime = runtime()?;
    let local = LocalSet::new();
    let ended = local.block_on(&runtime, async {
        let (changed, changes) = mpsc::unbounded_channel();
        let watcher = match script.watch {
            true => {
                // Whoever saves waits for this thread and the watcher's.
                slice::shorten();
                Some(Watcher::start(move |paths| drop(changed.send(paths)))?)
            }
            false => None,
        };
        let mut life = Life {
            script,
            control: Arc::clone(control),
            ledger: Arc::clone(ledger),
            watcher,
            changes,
            current: None,
            ahead: None,
            loads: 0,
            failed_files: Files::new(),
            failure: None,
            rest: Instant::now(),
            postponed: VecDeque::new(),
            attached: Attached::default(),
        };
        Ok(life.run().await)
    });
    drop(local);
    ended
}

struct Life {
    script: Script,
    control: Arc<Control>,
    ledger: Arc<Ledger>,
    watcher: Option<Watcher>,
    /// Paths that the watcher saw change.
    changes: mpsc::UnboundedReceiver<Vec<PathBuf>>,
    current: Option<Generation>,
    /// For the next load, made while nobody waits for it.
    ahead: Option<Vm>,
    /// Loads that were committed.
    loads: u32,
    /// What the last load read, if it failed: mending any of it is a change.
    failed_files: Files,
    /// Why the last load failed, if it did.
    failure: Option<Error>,
    /// Saves are looked at again from then on.
    rest: Instant,
    /// Requests that came while a load was under way.
    postponed: VecDeque<Request>,
    attached: Attached,
}

/// What a live script waits for.
enum Happened {
    /// It has nothing to wait for any more.
    Parted,
    MainFailed(Error),
    Changed(Vec<PathBuf>),
    Hangup,
    Asked(Request),
    Stopped(Stop),
}

impl Life {
    async fn run(&mut self) -> Ended {
        let ended = self.live().await;
        let Some(current) = self.current.take() else { return ended };
        let ended = reason_first(ended, &current.host);
        current.end(stop_word(&ended)).await;
        ended
    }

    async fn live(&mut self) -> Ended {
        if let Err(error) = self.begin().await {
            if let Some(reason) = self.control.flag.reason() {
                return Ended::Stopped(reason);
            }
            if !self.script.stay {
                return Ended::Failed(error);
            }
            report::error(&error, None);
        }
        loop {
            if self.ahead.is_none() && (self.watcher.is_some() || self.loads > 1) {
                // Who reloads does it again. Without memory for it, the next load says so.
                self.ahead = Vm::ahead(self.script.memory).ok();
            }
            match self.wait().await {
                Happened::Parted => {
                    let failed = self.current.as_ref().is_some_and(|c| c.host.tasks.any_failed());
                    return if failed { Ended::TaskFailed } else { Ended::Done };
                }
                Happened::MainFailed(error) if !self.script.stay => return Ended::Failed(error),
                Happened::MainFailed(error) => report::error(&error, None),
                Happened::Changed(paths) if paths.is_empty() => self.tell_again(),
                Happened::Changed(paths) => {
                    let names: Vec<String> = paths.iter().map(|p| shown(p)).collect();
                    tracing::debug!("changed: {}", names.join(", "));
                    self.reload_and_tell().await;
                    self.rest = Instant::now() + REST;
                }
                Happened::Hangup => self.reload_and_tell().await,
                Happened::Asked(request) => self.answer(request).await,
                Happened::Stopped(reason) => return Ended::Stopped(reason),
            }
        }
    }

    /// The first load. What a process before this one left in the ledger is adopted by it.
    async fn begin(&mut self) -> Result<()> {
        if !self.ledger.is_empty() {
            let adopted = self.reload().await;
            match &adopted {
                Ok(reloaded) => {
                    tell(reloaded);
                    self.control.committed();
                }
                // What the last process left goes on as it is.
                Err(_) => self.ledger.let_go(),
            }
            return adopted.map(drop);
        }
        let stage = Stage::first(Arc::clone(&self.ledger));
        let first = self.start(self.script.chunk.clone(), stage)?;
        let first = self.current.insert(first);
        let set_up = tokio::select! {
            set_up = first.set_up() => set_up,
            reason = self.control.flag.stopped() => return Err(stopped(reason)),
            () = postpone(&self.control, &mut self.postponed, &first.host) => unreachable!("it never ends"),
        };
        let files = first.host.files();
        match set_up {
            Ok(()) => {
                first.host.stage.go_live();
                first.host.commit.finish();
                // One that ends at once was never up.
                if !first.is_main_done() || waits(&first.host) {
                    self.control.committed();
                }
                self.loads = 1;
                self.follow(files);
                Ok(())
            }
            Err(error) => {
                if self.script.stay
                    && let Some(first) = self.current.take()
                {
                    first.end("error").await;
                    let removed = self.ledger.tear_down_to(Mark(0));
                    removed.failures.iter().for_each(|e| report::error(e, Some("left behind")));
                    self.failed_files = files;
                    self.failure = Some(error.clone());
                    self.follow(Files::new());
                }
                Err(error)
            }
        }
    }

    fn start(&mut self, chunk: Chunk, stage: Stage) -> Result<Generation> {
        let inherited = self.current.as_ref().map(Generation::state).transpose()?.flatten();
        let Script { instance, memory, file, .. } = &self.script;
        let number = self.loads + 1;
        let content = Content::of(&chunk.source);
        let vm = self.ahead.take().map_or_else(|| Vm::new(*memory), Ok)?;
        let (instance, control) = (instance.clone(), &self.control);
        let made = Generation::start(vm, instance, number, chunk, control, stage, inherited)?;
        if let Some(file) = file {
            made.host.read(file, content);
        }
        Ok(made)
    }

    /// Waits until something has to be done.
    async fn wait(&mut self) -> Happened {
        let Life { script, current, changes, control, postponed, rest, .. } = self;
        let parted = async {
            let Some(current) = current else { return std::future::pending().await };
            if let Err(error) = current.main_done().await {
                if script.stay {
                    report::error(&error, None);
                } else {
                    return Happened::MainFailed(error);
                }
            }
            if script.stay {
                return std::future::pending().await;
            }
            park(&current.host).await;
            Happened::Parted
        };
        tokio::select! {
            happened = parted => happened,
            Some(mut paths) = after_a_rest(*rest, changes) => {
                // A burst is one change.
                while let Ok(more) = changes.try_recv() {
                    paths.extend(more);
                }
                Happened::Changed(paths)
            }
            () = control.hangup() => Happened::Hangup,
            request = asked(control, postponed) => Happened::Asked(request),
            reason = control.flag.stopped() => Happened::Stopped(reason),
        }
    }

    async fn reload_and_tell(&mut self) {
        match self.reload().await {
            Ok(reloaded) => tell(&reloaded),
            // The end that was asked for says the rest.
            Err(_) if self.control.flag.reason().is_some() => {}
            // It was read while it was being written: the whole of it comes next.
            Err(error) if self.has_changed_since() => tracing::debug!("read half-written: {error}"),
            // "not reloaded: reload: ..." would say it twice.
            Err(error) if error.op() == RELOAD => {
                report::error(&error.operation(""), Some("not reloaded"));
            }
            Err(error) => report::error(&error, Some("not reloaded")),
        }
    }

    /// What has failed was saved again as it was.
    fn tell_again(&self) {
        let Some(failure) = &self.failure else { return };
        let place = failure.site().map(|site| format!(", at {}:{}", site.file, site.line));
        let place = place.unwrap_or_default();
        tracing::error!(
            "not reloaded: saved again as it was, and fails as before: {failure}{place}"
        );
    }

    async fn answer(&mut self, request: Request) {
        let Request { what, reply } = request;
        let live = self.current.as_ref();
        let answer = match what {
            What::Status => Ok(live.map(|live| known(&live.host, false)).unwrap_or_default()),
            What::Reload => self.reload().await.map(|reloaded| {
                tell(&reloaded);
                let mut data = reloaded.data();
                data.insert("text".to_owned(), reloaded.text().into());
                data
            }),
            What::Actions { script } => self.rehearse(script.as_deref()).await.map(|difference| {
                let mut data = difference_data(&difference);
                data.insert(
                    "text".to_owned(),
                    format!("would have {difference}{}", lines(&difference)).into(),
                );
                data
            }),
            What::Attach(session) => Ok(self.attached.attach(session, live)),
            What::Typed { session, line, typed: Typed::Reload } => {
                let done = match self.reload().await {
                    Ok(reloaded) => {
                        tell(&reloaded);
                        Done::Ok
                    }
                    Err(error) => Done::failed(&error),
                };
                session.done(line, done);
                return;
            }
            what => return self.attached.answer(what, live),
        };
        // A client that has gone meanwhile does not get it.
        let _ = reply.send(answer);
    }

    /// What a reload would do, of `script` in the place of the own one if given; nothing is applied.
    async fn rehearse(&mut self, script: Option<&Path>) -> Result<Difference> {
        if let Some(current) = &self.current {
            current.host.gate.shut();
        }
        let outcome = self
            .load(script, &|stage| {
                stage.check_ways()?;
                Ok(stage.difference())
            })
            .await;
        let outcome = match outcome {
            Ok((next, difference)) => {
                give_up(next).await;
                Ok(difference)
            }
            Err((_, error)) => Err(error),
        };
        if let Some(current) = &self.current {
            current.host.gate.open();
        }
        outcome
    }

    /// Loads the script again, beside the one that is live, and lets it take over.
    ///
    /// # Errors
    /// What kept it from that: everything is as it was then.
    pub async fn reload(&mut self) -> Result<Reloaded> {
        let began = Instant::now();
        let hurry = Hurry::begin();
        if let Some(current) = &self.current {
            current.host.gate.shut();
        }
        let commit = |stage: &Stage| match stage.phase() {
            Phase::First => {
                let difference = stage.difference();
                stage.go_live();
                Ok(difference)
            }
            _ => stage.commit(),
        };
        let outcome = self.load(None, &commit).await;
        drop(hurry);
        match outcome {
            Ok((next, difference)) => {
                self.failed_files.clear();
                self.failure = None;
                let files = next.host.files();
                let old = self.current.replace(next);
                let current = self.current.as_ref().expect("it was just put there");
                self.loads += 1;
                current.host.commit.finish();
                current.mend_later();
                let took = began.elapsed();
                let reloaded = Reloaded { generation: self.loads, difference, took };
                self.attached.tell(&reloaded);
                if let Some(old) = old {
                    old.host.stage.end();
                    old.end("reload").await;
                }
                self.follow(files);
                Ok(reloaded)
            }
            Err((files, error)) => {
                if let Some(current) = &self.current {
                    current.host.gate.open();
                    current.mend_later();
                }
                self.failed_files = files;
                self.failure = Some(error.clone());
                let files = self.current.as_ref().map(|c| c.host.files()).unwrap_or_default();
                self.follow(files);
                Err(error)
            }
        }
    }

    /// A new generation that is set up, and what `finish` makes of what it has staged.
    async fn load(
        &mut self,
        script: Option<&Path>,
        finish: &dyn Fn(&Stage) -> Result<Difference>,
    ) -> std::result::Result<(Generation, Difference), (Files, Error)> {
        let next = self.read_again(script).and_then(|chunk| {
            let stage = match &self.current {
                Some(current) => Stage::after(&current.host.stage),
                None if self.ledger.is_empty() => Stage::first(Arc::clone(&self.ledger)),
                None => Stage::adopting(Arc::clone(&self.ledger)),
            };
            self.start(chunk, stage)
        });
        let next = next.map_err(|error| (self.script_file(), error))?;
        // Nobody waits for the first load of a process.
        let limit = match &self.current {
            Some(_) => self.script.load_timeout,
            None => Duration::MAX,
        };
        if self.current.is_some() {
            self.control.interrupt_after(limit);
        }
        let loaded = tokio::select! {
            // One that looped until then was interrupted, and knows where.
            biased;
            reason = self.control.flag.stopped() => Err(stopped(reason)),
            loaded = next.set_up() => loaded,
            () = tokio::time::sleep(limit) => Err(too_slow(limit, None)),
            () = postpone(&self.control, &mut self.postponed, &next.host) => unreachable!("it never ends"),
        };
        let interrupted = crate::api::vm::interrupting();
        self.control.calm();
        let loaded = match loaded {
            Err(error) if interrupted && !error.is("ETIMEDOUT") => {
                Err(too_slow(limit, Some(&error)))
            }
            other => other,
        };
        let finished = loaded.and_then(|()| finish(&next.host.stage));
        match finished.map_err(|e| e.quoted(crate::api::source::line)) {
            Ok(difference) => Ok((next, difference)),
            Err(error) => {
                let files = next.host.files();
                give_up(next).await;
                Err((files, error))
            }
        }
    }

    /// The script's text as it is now.
    fn read_again(&self, other: Option<&Path>) -> Result<Chunk> {
        let mut chunk = self.script.chunk.clone();
        if let Some(other) = other {
            chunk.name = shown(other);
        }
        if let Some(file) = other.or(self.script.file.as_deref()) {
            chunk.source = read_written(file).map_err(|e| {
                Error::io("read", &e)
                    .subject(shown(file))
                    .hint("what runs goes on; write the file again, or end the instance")
            })?;
        }
        Ok(chunk)
    }

    fn script_file(&self) -> Files {
        let file = self.script.file.iter().filter_map(|file| std::path::absolute(file).ok());
        file.map(|file| (file.clone(), Content::read(&file))).collect()
    }

    /// Whether the files of the load that has just failed say something else by now, and are watched.
    fn has_changed_since(&self) -> bool {
        self.watcher.is_some()
            && self.failed_files.iter().any(|(path, said)| Content::read(path) != *said)
    }

    /// Watches the files of the live load, and of one that failed after it.
    fn follow(&self, mut files: Files) {
        let Some(watcher) = &self.watcher else { return };
        files.extend(self.failed_files.clone());
        watcher.follow(files, self.failure.is_some());
    }
}

/// Why a load is not waited for any longer.
pub(super) fn stopped(reason: Stop) -> Error {
    Error::new(RELOAD, "EINTR", format!("the instance ends: {reason:?}"))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn too_slow(limit: Duration, interrupted: Option<&Error>) -> Error {
    let message = format!("the script was not set up within {} s", limit.as_secs_f64());
    let error = Error::new(RELOAD, "ETIMEDOUT", message)
        .hint("end the set-up with cnf.wait() before what takes long; --load-timeout allows more");
    error.at(interrupted.and_then(|e| e.site().cloned()))
}

/// Ends a load that is not to be: nothing of it is left.
async fn give_up(load: Generation) {
    // Its tasks first: none of them makes anything any more.
    load.host.tasks.end_all().await;
    load.host.stage.roll_back();
    load.end("error").await;
}

/// What only Lua's thread knows of a script.
fn known(host: &Host, loading: bool) -> Map<String, Value> {
    Map::from_iter([
        ("generation".to_owned(), json!(host.generation)),
        ("tasks".to_owned(), json!(host.tasks.len())),
        ("loading".to_owned(), json!(loading)),
    ])
}

/// The next request from outside, those that had to wait first.
async fn asked(control: &Control, postponed: &mut VecDeque<Request>) -> Request {
    match (postponed.pop_front(), control.outside()) {
        (Some(request), _) => request,
        (None, Some(outside)) => outside.next().await,
        (None, None) => std::future::pending().await,
    }
}

/// What the watcher saw change, not before `rest`.
async fn after_a_rest(
    rest: Instant,
    changes: &mut mpsc::UnboundedReceiver<Vec<PathBuf>>,
) -> Option<Vec<PathBuf>> {
    tokio::time::sleep_until(rest.into()).await;
    changes.recv().await
}

/// While a load is under way its status is told, and the rest waits.
async fn postpone(control: &Control, postponed: &mut VecDeque<Request>, host: &Host) {
    let Some(outside) = control.outside() else { return std::future::pending().await };
    loop {
        let request = outside.next().await;
        match request.what {
            What::Status => request.answer(Ok(known(host, true))),
            // Nobody waits that long for what could be typed.
            What::Complete { .. } => {}
            _ => postponed.push_back(request),
        }
    }
}

/// Whether there is something to stay for: the instance owns something, or a task lives.
fn waits(host: &Host) -> bool {
    !host.ledger.is_empty() || !host.tasks.is_empty()
}

/// Stays for as long as [`waits`] says.
async fn park(host: &Rc<Host>) {
    loop {
        let ended = host.tasks.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if !host.ledger.is_empty() {
            std::future::pending::<()>().await;
        }
        if !waits(host) {
            return;
        }
        ended.await;
    }
}
