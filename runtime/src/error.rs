//! The one error type: what was tried, on what, the kernel's own reason, where in the script, and one hint.
//!
//! Every layer raises it; only `cli` prints it and only `api` turns it into a Lua value.

use std::borrow::Cow;
use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// Where in a script an error was raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// As the script was named on the command line, or `-e`, `stdin`.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// The source line, when it could be read.
    pub text: Option<String>,
}

/// What a person and a script are told when an operation fails.
///
/// Boxed inside so that `Result<T>` stays one word wide on the happy path.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    op: Cow<'static, str>,
    subject: Option<String>,
    code: Cow<'static, str>,
    message: String,
    extended_ack: Option<String>,
    hint: Option<String>,
    detail: Option<String>,
    site: Option<Site>,
}

impl Error {
    /// A failure of `op` ("link.veth") with an errno-like `code` ("EEXIST") and a cause in lower case.
    pub fn new(
        op: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Error(Box::new(Inner {
            op: op.into(),
            subject: None,
            code: code.into(),
            message: message.into(),
            extended_ack: None,
            hint: None,
            detail: None,
            site: None,
        }))
    }

    /// A refusal by the kernel: `errno` gives both code and cause.
    pub fn errno(op: impl Into<Cow<'static, str>>, errno: nix::errno::Errno) -> Self {
        Error::new(op, errno_name(errno), describe(errno))
    }

    /// A programmer's mistake: wrong type, unknown word, malformed value.
    pub fn invalid(op: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Error::new(op, "EINVAL", message)
    }

    /// From a failed system call of `std` or `nix`; keeps the errno when there is one.
    pub fn io(op: impl Into<Cow<'static, str>>, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(raw) => Error::errno(op, nix::errno::Errno::from_raw(raw)),
            None => Error::new(op, "EIO", error.to_string()),
        }
    }

    /// What the operation was about: a name, "eth0, egress", a path.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.0.subject = Some(subject.into());
        self
    }

    /// As [`Error::subject`], unless a layer below has said it already.
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.0.subject.get_or_insert_with(|| subject.into());
        self
    }

    /// Replaces the operation: the layer that faces the user knows its name best.
    pub fn operation(mut self, op: impl Into<Cow<'static, str>>) -> Self {
        self.0.op = op.into();
        self
    }

    /// Replaces the cause, keeping the code.
    pub fn because(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// The kernel's own sentence (netlink's NLMSGERR_ATTR_MSG).
    pub fn extended_ack(mut self, text: impl Into<String>) -> Self {
        self.0.extended_ack = Some(text.into());
        self
    }

    /// One thing to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Several lines to show below the error: a compiler's diagnostics, the end of a verifier log.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// The script's line. The innermost wins: a site that is set already stays.
    pub fn at(mut self, site: Option<Site>) -> Self {
        if self.0.site.is_none() {
            self.0.site = site;
        }
        self
    }

    /// Gives the site its text, where whoever found it did not look: `line` finds it by file and number.
    pub fn quoted(mut self, line: impl FnOnce(&str, u32) -> Option<String>) -> Self {
        if let Some(Site { file, line: number, text: text @ None }) = &mut self.0.site {
            *text = line(file, *number);
        }
        self
    }

    pub fn op(&self) -> &str {
        &self.0.op
    }
    pub fn get_subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }
    pub fn code(&self) -> &str {
        &self.0.code
    }
    pub fn get_hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
    pub fn get_detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }
    pub fn site(&self) -> Option<&Site> {
        self.0.site.as_ref()
    }
    pub fn is(&self, code: &str) -> bool {
        self.0.code == code
    }

    /// The cause with the kernel's sentence: `file exists: bridge port is busy`.
    pub fn message(&self) -> String {
        match &self.0.extended_ack {
            Some(ack) => format!("{}: {}", self.0.message, ack.trim_end_matches('.')),
            None => self.0.message.clone(),
        }
    }
}

/// `tcx.attach(eth0, egress): program "router" is already attached here (EEXIST)`
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.op)?;
        if let Some(subject) = &self.0.subject {
            write!(f, "({subject})")?;
        }
        if !self.0.op.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.message())?;
        if !self.0.code.is_empty() {
            write!(f, " ({})", self.0.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The errno's C name, "EEXIST".
pub fn errno_name(errno: nix::errno::Errno) -> Cow<'static, str> {
    // nix's Debug output of an Errno is its C name.
    Cow::Owned(format!("{errno:?}"))
}

/// The errno in words, lower-case as every cause is.
fn describe(errno: nix::errno::Errno) -> String {
    // Of these the C library speaks as if sockets and mathematics were meant.
    match errno {
        nix::errno::Errno::EOPNOTSUPP => return "operation not supported".into(),
        nix::errno::Errno::ERANGE => return "out of range".into(),
        _ => {}
    }
    let text = errno.desc();
    let mut chars = text.chars();
    match chars.next() {
        // "IO error" and the like stay as they are.
        Some(first) if chars.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
