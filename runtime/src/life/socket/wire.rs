//! What goes over the control socket: JSON objects, one a line.
//!
//! ```text
//! -> {"do": "status"}
//! <- {"version": "0.1.0", "ok": {"name": "setup", "generation": 2}}
//! -> {"do": "reload"}
//! <- {"version": "0.1.0", "error": {"op": "", "code": "EBUSY", "message": "..."}}
//! ```
//!
//! After `attach` was answered the stream is a prompt's: asks go one way and events the other, until one side closes.
//!
//! ```text
//! -> {"do": "line", "text": "print(1) return 2", "width": 80}
//! <- {"out": "1\n"}
//! <- {"out": "2\n"}
//! <- {"done": "ok"}
//! ```
//!
//! Unknown fields are ignored and unknown requests refused by name, so that versions can talk to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Site;
use crate::{Error, Result};

/// What a client can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Command {
    /// Who it is, what it owns, what its script does. Always answered.
    Status,
    /// Load the script again.
    Reload,
    /// Tear down and end. The stream ends with the process.
    Down,
    /// What a reload would do, of another script if one is given.
    Actions { script: Option<PathBuf> },
    /// A prompt in the live generation.
    Attach,
}

/// What an attached prompt asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Ask {
    /// Run a chunk, for a terminal of so many columns. The one before must be done.
    Line { text: String, width: i64 },
    /// Load the script again, as if it were a line.
    Reload,
    /// End the line that runs.
    Interrupt,
    /// What could stand at the end of the text. Not answered when there is nothing to say.
    Complete { text: String },
}

/// What an attached prompt is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Printed by a line, or by a task that a line started.
    Out(String),
    /// Reported by them.
    Err(String),
    /// Another generation is live: how that went, in words.
    Reloaded {
        generation: u32,
        text: String,
    },
    /// Where the word starts, in bytes, and what it could be.
    Completions {
        at: usize,
        words: Vec<String>,
    },
    Done(Done),
}

/// What became of a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    Ok,
    Interrupted,
    /// The instance ends.
    Ended,
    Failed(Told),
}

impl Done {
    pub fn failed(error: &Error) -> Done {
        Done::Failed(error.into())
    }
}

/// What an attached prompt asks, as the server reads it.
///
/// # Errors
/// EINVAL for what is not one.
pub fn ask(line: &[u8]) -> Result<Ask> {
    serde_json::from_slice(line).map_err(|e| {
        Error::new("socket", "EINVAL", format!("not what an attached prompt asks: {e}"))
    })
}

/// A request as the server reads it.
///
/// # Errors
/// EINVAL for what is not one; EOPNOTSUPP for one that this version does not know.
pub fn command(line: &[u8]) -> Result<Command> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|e| Error::new("socket", "EINVAL", format!("not a request: {e}")))?;
    let Some(word) = value.get("do").and_then(Value::as_str).map(str::to_owned) else {
        return Err(Error::new("socket", "EINVAL", "not a request: no \"do\""));
    };
    serde_json::from_value(value).map_err(|e| match word.as_str() {
        "status" | "reload" | "down" | "actions" | "attach" => {
            Error::new("socket", "EINVAL", format!("not a request: {e}"))
        }
        _ => Error::new("socket", "EOPNOTSUPP", format!("unknown request {word:?}")),
    })
}

/// The line that answers.
pub fn answer(answer: Result<Map<String, Value>>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match answer {
        Ok(ok) => json!({ "version": version, "ok": ok }),
        Err(error) => json!({ "version": version, "error": Told::from(&error) }),
    }
    .to_string()
}

/// An answer as the client reads it: the server's version, and what it said. None for garbage.
pub fn parse_answer(line: &[u8]) -> Option<(String, Result<Map<String, Value>>)> {
    let mut answer: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let version = answer.get("version")?.as_str()?.to_owned();
    let outcome = match (answer.remove("ok"), answer.remove("error")) {
        (Some(Value::Object(ok)), None) => Ok(ok),
        (None, Some(error)) => Err(serde_json::from_value::<Told>(error).ok()?.into()),
        _ => return None,
    };
    Some((version, outcome))
}

/// An error that is to be printed in another process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    op: String,
    code: String,
    message: String,
    subject: Option<String>,
    hint: Option<String>,
    detail: Option<String>,
    site: Option<ToldSite>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToldSite {
    file: String,
    line: u32,
    text: Option<String>,
}

impl From<&Error> for Told {
    fn from(error: &Error) -> Told {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Told {
            op: error.op().to_owned(),
            code: error.code().to_owned(),
            message: error.message(),
            subject: owned(error.get_subject()),
            hint: owned(error.get_hint()),
            detail: owned(error.get_detail()),
            site: error.site().map(|site| ToldSite {
                file: site.file.clone(),
                line: site.line,
                text: site.text.clone(),
            }),
        }
    }
}

impl From<Told> for Error {
    fn from(told: Told) -> Error {
        let add = |error: Error, text: Option<String>, add: fn(Error, String) -> Error| match text {
            Some(text) => add(error, text),
            None => error,
        };
        let error = Error::new(told.op, told.code, told.message);
        let error = add(error, told.subject, Error::subject);
        let error = add(error, told.hint, Error::hint);
        let error = add(error, told.detail, Error::detail);
        let site = told.site.map(|s| Site { file: s.file, line: s.line, text: s.text });
        error.at(site)
    }
}
