//! The kernel's refusal of one netlink request, with its own sentence.

use std::borrow::Cow;
use std::io;

use nix::errno::Errno;

use super::attribute::{attributes, text};
use crate::Error;

/// Attributes follow the error code (`NLM_F_ACK_TLVS`); the echoed request is its header only (`NLM_F_CAPPED`).
const NLM_F_CAPPED: i32 = 0x100;
const NLM_F_ACK_TLVS: i32 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const CODE: usize = 4;
const HEADER: usize = 16;

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetlinkError {
    pub errno: Errno,
    /// The kernel's own sentence (NLMSGERR_ATTR_MSG).
    pub ext_ack: Option<String>,
    /// Which message of a batch, counted from 0.
    pub index: usize,
}

impl NetlinkError {
    pub fn new(errno: Errno) -> Self {
        NetlinkError { errno, ext_ack: None, index: 0 }
    }

    /// The socket itself failed.
    pub(super) fn transport(error: &io::Error) -> Self {
        NetlinkError::new(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// As the crate's error, for the operation that the user knows.
    pub fn into_error(self, op: impl Into<Cow<'static, str>>) -> Error {
        let error = Error::errno(op, self.errno);
        match self.ext_ack {
            Some(text) => error.extended_ack(text),
            None => error,
        }
    }

    /// Reads NLMSG_ERROR or NLMSG_DONE: Ok is an acknowledgement.
    pub(super) fn from_answer(
        kind: u16,
        flags: i32,
        body: &[u8],
        index: usize,
    ) -> std::result::Result<(), Self> {
        let code = body.first_chunk::<CODE>().map_or(0, |c| i32::from_ne_bytes(*c));
        if code >= 0 {
            return Ok(());
        }
        let mut start = CODE;
        if i32::from(kind) == libc::NLMSG_ERROR {
            let echoed = body.get(CODE..CODE + 4).and_then(|l| l.try_into().ok());
            start += match echoed {
                _ if flags & NLM_F_CAPPED != 0 => HEADER,
                Some(length) => (u32::from_ne_bytes(length) as usize).next_multiple_of(4),
                None => HEADER,
            };
        }
        let ext_ack = body
            .get(start..)
            .filter(|_| flags & NLM_F_ACK_TLVS != 0)
            .and_then(|rest| attributes(rest).find(|a| a.kind == NLMSGERR_ATTR_MSG))
            .map(|a| text(a.value));
        Err(NetlinkError { errno: Errno::from_raw(-code), ext_ack, index })
    }
}
