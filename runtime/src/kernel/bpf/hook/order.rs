//! Where among the programs of a hook a new one runs: the order words and what each kind of hook makes of them.

use std::os::fd::{AsFd, AsRawFd};

use super::{Attachment, Hook, Target};
use crate::kernel::bpf::{Program, sys};
use crate::{Error, Result};

/// What a program is placed next to.
#[derive(Debug, Clone)]
pub enum Anchor {
    Attachment(Attachment),
    Program(Program),
    ProgramId(u32),
}

impl Anchor {
    /// The program it stands for.
    fn program_id(&self) -> u32 {
        match self {
            Anchor::Attachment(attachment) => attachment.program().id(),
            Anchor::Program(program) => program.id(),
            Anchor::ProgramId(id) => *id,
        }
    }
}

/// How an xdp program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XdpMode {
    /// Native, generic where the driver cannot.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the network stack, on any device.
    Generic,
    /// On the card.
    Offload,
}

impl XdpMode {
    pub fn name(self) -> &'static str {
        match self {
            XdpMode::Auto => "auto",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Offload => "offload",
        }
    }
}

/// The options of an attachment. Without any it runs after those that are there.
#[derive(Debug, Clone, Default)]
pub struct Order {
    pub first: bool,
    pub last: bool,
    pub before: Option<Anchor>,
    pub after: Option<Anchor>,
    /// Names of programs: it goes before the first on the hook that has none of these. Looked up when it is attached, so
    /// that a later load, whose programs are others of the same names, asks for the same place.
    pub behind: Option<Vec<String>>,
    /// tcx and netkit: refused (ESTALE) when the hook has changed since.
    pub expected_revision: Option<u64>,
    /// clsact: instead of an order word.
    pub priority: Option<u16>,
    /// clsact: 1 by default.
    pub handle: Option<u32>,
    /// xdp.
    pub mode: XdpMode,
}

impl Order {
    pub fn last() -> Self {
        Order { last: true, ..Order::default() }
    }

    /// Asks for the same place. (An expected revision says when, not where.)
    pub fn same(&self, other: &Order) -> bool {
        let words = |o: &Order| (o.first, o.last, o.priority, o.handle, o.mode);
        let same = |a: &Option<Anchor>, b: &Option<Anchor>| match (a, b) {
            (Some(a), Some(b)) => a.program_id() == b.program_id(),
            (None, None) => true,
            _ => false,
        };
        words(self) == words(other)
            && self.behind == other.behind
            && same(&self.before, &other.before)
            && same(&self.after, &other.after)
    }

    /// Words that contradict each other or that the hook does not have.
    pub(super) fn check(&self, hook: Hook) -> Result<()> {
        let words = [
            ("first", self.first),
            ("last", self.last),
            ("before", self.before.is_some()),
            ("after", self.after.is_some()),
            ("behind", self.behind.is_some()),
            ("priority", self.priority.is_some()),
        ];
        let given: Vec<&str> =
            words.iter().filter(|(_, set)| *set).map(|(word, _)| *word).collect();
        if given.len() > 1 {
            return Err(Error::invalid(
                "",
                format!("{} say different places", given.join(" and ")),
            ));
        }
        let row = hook.row();
        let misplaced = match given.first() {
            Some(word) if !row.ordered => Some(*word),
            Some(word @ &"priority") if !hook.is_clsact() => Some(*word),
            _ if self.handle.is_some() && !hook.is_clsact() => Some("handle"),
            _ if self.expected_revision.is_some() && (hook.is_clsact() || !row.ordered) => {
                Some("expected_revision")
            }
            _ if self.mode != XdpMode::Auto && hook != Hook::Xdp => Some("mode"),
            _ => None,
        };
        match misplaced {
            Some(word) => {
                Err(Error::invalid("", format!("{} hooks have no \"{word}\"", row.family)))
            }
            None => Ok(()),
        }
    }

    /// With `behind` looked up on the hook.
    pub(super) fn resolved(&self, target: &Target, hook: Hook) -> Result<Order> {
        let Some(names) = &self.behind else { return Ok(self.clone()) };
        let there = super::query(target, hook)?.programs;
        let next = there.iter().find(|program| !names.contains(&program.name));
        let before = next.map(|program| Anchor::ProgramId(program.id));
        Ok(Order { before, behind: None, ..self.clone() })
    }

    /// Flags and relative of `BPF_LINK_CREATE`; BEFORE and AFTER with no reference mean first and last.
    pub(super) fn mprog(&self) -> (u32, u32) {
        match (&self.before, &self.after) {
            (Some(anchor), _) => anchor.mprog(sys::F_BEFORE),
            (_, Some(anchor)) => anchor.mprog(sys::F_AFTER),
            _ if self.first => (sys::F_BEFORE, 0),
            _ if self.last => (sys::F_AFTER, 0),
            _ => (0, 0),
        }
    }
}

impl Anchor {
    fn mprog(&self, place: u32) -> (u32, u32) {
        match self {
            Anchor::Attachment(attachment) => match attachment.raw_link() {
                Some(fd) => (place | sys::F_LINK, fd),
                // A clsact filter is on no mprog hook: its program's id is not found there (ENOENT).
                None => (place | sys::F_ID, attachment.program().id()),
            },
            Anchor::Program(program) => (place, program.as_fd().as_raw_fd() as u32),
            Anchor::ProgramId(id) => (place | sys::F_ID, *id),
        }
    }

    /// What messages call it.
    pub(super) fn describe(&self) -> String {
        match self {
            Anchor::Attachment(attachment) => format!("\"{}\"", attachment.program().name()),
            Anchor::Program(program) => format!("\"{}\"", program.name()),
            Anchor::ProgramId(id) => format!("program {id}"),
        }
    }
}
