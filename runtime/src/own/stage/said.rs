//! How a script has asked for something: what is refused only at the commit is told as if it were refused there and then.

use crate::Error;
use crate::error::Site;

/// A call of a script.
#[derive(Debug, Clone)]
pub struct Said {
    /// `netns:route`; empty for what names itself.
    op: String,
    /// What it is about: `10.1.0.0/16 via 10.0.0.2`.
    subject: String,
    /// The subject is said whatever the layers below call it.
    always: bool,
    site: Option<Site>,
}

impl Said {
    pub fn new(op: &str, site: Option<Site>) -> Said {
        Said { op: op.to_owned(), subject: String::new(), always: false, site }
    }

    /// What it is about, unless the layers below know it better.
    #[must_use]
    pub fn about(self, subject: impl Into<String>) -> Said {
        Said { subject: subject.into(), ..self }
    }

    /// The object whose method was called.
    #[must_use]
    pub fn of(self, subject: impl Into<String>) -> Said {
        Said { subject: subject.into(), always: true, ..self }
    }

    /// The error as the call would have raised it.
    pub(super) fn tell(&self, error: Error) -> Error {
        let error = match self.op.is_empty() {
            true => error,
            false => error.operation(self.op.clone()),
        };
        let error = match (self.always, self.subject.is_empty()) {
            (true, _) => error.subject(self.subject.clone()),
            (false, false) => error.about(self.subject.clone()),
            (false, true) => error,
        };
        error.at(self.site.clone())
    }
}
