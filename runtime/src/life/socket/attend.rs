//! The socket's side of an attached prompt: what it asks goes to Lua's thread, what it is told goes to the client. However
//! the script behaves, the client is told soon what became of its line; however the client behaves, the script is not
//! kept from its work.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::session::Session;
use super::wire::{Ask, Done, Event};
use super::{Request, SESSIONS, Server, Typed, What, request_line, send, wire};
use crate::api::limit;
use crate::{Error, Result};

/// How long a client may take nothing of what it is told: a terminal that is stopped (Ctrl-S) does so too.
const STANDSTILL: Duration = Duration::from_secs(60);
/// How long the end of the instance waits for clients that are slow.
const FAREWELL: Duration = Duration::from_millis(250);
/// How long Lua may take to come to its event loop when its line was interrupted: then something keeps it from that.
const LUA_ENDS: Duration = Duration::from_millis(200);
/// How long a line may take to end that is interrupted before its client waits no more for it.
const ENDING: Duration = Duration::from_secs(1);

impl Server {
    pub(super) async fn attend(
        self: Arc<Server>,
        mut reader: BufReader<OwnedReadHalf>,
        mut writer: OwnedWriteHalf,
    ) -> std::io::Result<()> {
        let (session, told) = Session::new();
        let Ok(_place) = self.sessions.try_acquire() else {
            let message = format!("{SESSIONS} prompts are attached already");
            return send(&mut writer, &wire::answer(Err(Error::new("", "EAGAIN", message)))).await;
        };
        let answer = self.attach(&session).await;
        let attached = answer.is_ok();
        send(&mut writer, &wire::answer(answer)).await?;
        if !attached {
            return Ok(());
        }
        let ended = tokio::select! {
            ended = self.listen_to(&mut reader, &session) => Some(ended),
            _ = tell(&mut writer, told, self.ending.subscribe()) => None,
        };
        // What its line does ends with the terminal, as that of any other program.
        self.interrupt(&session);
        let server = Arc::clone(&self);
        tokio::spawn(async move { server.hand_over(What::Detach(session)).await });
        match ended {
            Some(Err(error)) => send(&mut writer, &wire::answer(Err(error))).await,
            _ => Ok(()),
        }
    }

    /// The instance has ended: waits until attached prompts know what became of their lines, but not for long.
    pub(super) async fn take_leave(&self) {
        self.ending.send_replace(true);
        let _ = timeout(FAREWELL, self.sessions.acquire_many(SESSIONS as u32)).await;
    }

    async fn attach(&self, session: &Arc<Session>) -> Result<Map<String, Value>> {
        let known = self.ask_one_that_answers(What::Attach(Arc::clone(session))).await?;
        let mut answer = (self.local.status)();
        answer.extend(known);
        Ok(answer)
    }

    /// Until the client goes.
    ///
    /// # Errors
    /// What it said that it must not say.
    async fn listen_to(
        self: &Arc<Server>,
        reader: &mut BufReader<OwnedReadHalf>,
        session: &Arc<Session>,
    ) -> Result<()> {
        while let Some(ask) = request_line(reader).await.map_err(|e| Error::io("socket", &e))? {
            match wire::ask(&ask?)? {
                Ask::Line { text, width } => self.begin(session, Typed::Chunk { text, width })?,
                Ask::Reload => self.begin(session, Typed::Reload)?,
                Ask::Interrupt => self.interrupt(session),
                Ask::Complete { text } => {
                    let what = What::Complete { session: Arc::clone(session), text };
                    // Lua has no time for it: the client does not wait either.
                    let _ = self.lua.try_send(Request { what, reply: oneshot::channel().0 });
                }
            }
        }
        Ok(())
    }

    /// Hands the line to Lua, while interrupts of it are still heard.
    fn begin(self: &Arc<Server>, session: &Arc<Session>, typed: Typed) -> Result<()> {
        let Some(line) = session.begin() else {
            return Err(Error::new("socket", "EBUSY", "the line before is not done"));
        };
        let (server, session) = (Arc::clone(self), Arc::clone(session));
        tokio::spawn(async move {
            let begun = match server.lua_answers().await {
                // Nobody waits for it any more.
                _ if !session.is_at(line) => return,
                Ok(()) => {
                    let session = Arc::clone(&session);
                    server.hand_over(What::Typed { session, line, typed }).await
                }
                Err(error) => Err(error.operation("socket")),
            };
            if let Err(error) = begun {
                session.done(line, Done::failed(&error));
            }
        });
        Ok(())
    }

    fn interrupt(self: &Arc<Server>, session: &Arc<Session>) {
        let line = session.interrupt();
        (self.local.hasten)();
        let (server, session) = (Arc::clone(self), Arc::clone(session));
        tokio::spawn(async move {
            if timeout(LUA_ENDS, server.ask(What::Status)).await.is_err() {
                // A task of an earlier line, perhaps, that never waits.
                limit::end_running_of(session.number);
                (server.local.hasten)();
            }
            let Some(line) = line else { return };
            tokio::time::sleep(ENDING).await;
            let busy =
                Error::new("socket", "EBUSY", "the instance is busy and does not end the line")
                    .hint("what it has begun may go on; cnfscript down ends the instance");
            session.done(line, Done::failed(&busy));
        });
    }

    async fn hand_over(&self, what: What) -> Result<()> {
        let request = Request { what, reply: oneshot::channel().0 };
        let ending = |_| Error::new("socket", "ESHUTDOWN", "the instance is ending");
        self.lua.send(request).await.map_err(ending)
    }
}

/// Until the client goes or stands still, or the instance ends.
async fn tell(
    writer: &mut OwnedWriteHalf,
    mut told: mpsc::Receiver<Event>,
    mut ending: watch::Receiver<bool>,
) -> std::io::Result<()> {
    loop {
        let event = tokio::select! {
            event = told.recv() => event,
            _ = ending.wait_for(|ending| *ending), if !told.is_closed() => {
                told.close();
                continue;
            }
        };
        let Some(event) = event else { return Ok(()) };
        let line = serde_json::to_string(&event).expect("events have a JSON form");
        timeout(STANDSTILL, send_patiently(writer, &line)).await??;
    }
}

async fn send_patiently(writer: &mut OwnedWriteHalf, line: &str) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    writer.write_all(line.as_bytes()).await?;
    writer.write_all(b"\n").await
}
