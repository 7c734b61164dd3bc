//! Why the kernel refuses something of a map, in words.

use nix::errno::Errno;

use super::{Map, MapKind};
use crate::error::errno_name;
use crate::kernel::bpf::{program, sys};
use crate::{Error, Result};

impl Map {
    pub(super) fn keyless(&self, op: &'static str) -> Result<()> {
        match self.0.info.kind.is_keyless() {
            true => Ok(()),
            false => Err(self
                .refusal(op, Errno::EOPNOTSUPP)
                .hint("queues, stacks and bloom filters can; others take get and set")),
        }
    }

    pub(super) fn check(
        &self,
        op: &'static str,
        what: &str,
        got: usize,
        want: usize,
    ) -> Result<()> {
        if got == want {
            return Ok(());
        }
        Err(Error::invalid(
            op,
            format!("the {what} has {got} bytes, the map's {what}s have {want}"),
        )
        .subject(self.name()))
    }

    /// A refusal with the map as subject and its usual reason in words.
    pub fn refusal(&self, op: &'static str, errno: Errno) -> Error {
        let info = &self.0.info;
        let errno = match errno {
            Errno::ENOSPC if info.kind.holds_sockets() => Errno::EOPNOTSUPP,
            errno => errno,
        };
        let message = match errno {
            Errno::EOPNOTSUPP if info.kind.holds_sockets() && info.value_size == 4 => {
                "its sockets cannot be read: values have 4 bytes, a socket's cookie has 8"
                    .to_owned()
            }
            Errno::EOPNOTSUPP if info.kind.is_storage() || op == "map.pairs" => {
                format!("the elements of {} maps cannot be listed", info.kind)
            }
            Errno::E2BIG if info.kind.is_array() => {
                format!("the index is beyond the array's {} elements", info.max_entries)
            }
            Errno::E2BIG | Errno::ENOSPC => {
                format!("the map is full: it holds {} entries", info.max_entries)
            }
            Errno::ENOENT => "no such key".to_owned(),
            Errno::EEXIST => "the key exists already".to_owned(),
            Errno::EOPNOTSUPP => format!("{} maps cannot do this", info.kind),
            Errno::EPERM if info.flags & sys::F_RDONLY_PROG != 0 => {
                "the map is frozen: read-only data cannot change after loading".to_owned()
            }
            errno => return program::refusal(op, errno).subject(self.name()),
        };
        let error = Error::new(op, errno_name(errno), message).subject(self.name());
        match errno {
            Errno::E2BIG | Errno::ENOSPC if !info.kind.is_array() => {
                error.hint("load it larger with max_entries={...}")
            }
            Errno::EOPNOTSUPP if info.kind.holds_sockets() => {
                error.hint("declare them as __type(value, __u64)")
            }
            Errno::EOPNOTSUPP if info.kind.is_storage() => {
                error.hint("m:get(owner) gives one: a Server or a descriptor of this process")
            }
            Errno::EOPNOTSUPP if info.kind.has_records() => {
                error.hint("m:on_record(fn) is called with what programs send")
            }
            Errno::EOPNOTSUPP if info.kind == MapKind::BLOOM_FILTER => {
                error.hint("m:peek(value) tells whether a value may be there")
            }
            Errno::EOPNOTSUPP if info.kind.is_keyless() => {
                error.hint("m:pop() takes one, m:peek() shows it")
            }
            _ => error,
        }
    }
}
