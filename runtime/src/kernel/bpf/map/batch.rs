//! Many elements at once: in batches where the kind of map has them, one by one where it has not.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;

use super::{Map, Write};
use crate::kernel::bpf::sys;
use crate::{Error, Result};

/// Elements per system call: large enough to hide its cost, small enough for memory.
const CHUNK: usize = 4096;

/// More cgroups than a machine has.
const MOST_CGROUPS: usize = 1 << 20;

/// The elements of a map, in no order, read a page at a time.
///
/// Elements written or deleted meanwhile may or may not be seen; each other one is seen once.
pub struct Entries<'a> {
    map: &'a Map,
    state: State,
    keys: Vec<u8>,
    values: Vec<u8>,
    /// Elements of the page given out, and in it.
    at: usize,
    filled: usize,
}

enum State {
    /// Where the next batch starts; how many elements to ask for.
    Batch {
        position: Option<Vec<u8>>,
        count: usize,
    },
    /// One by one: keys not yet looked up.
    Single {
        rest: std::vec::IntoIter<Vec<u8>>,
    },
    Done,
}

impl Entries<'_> {
    /// Fills the next page; false at the end.
    fn page(&mut self) -> Result<bool> {
        self.at = 0;
        self.filled = 0;
        loop {
            match &mut self.state {
                State::Done => return Ok(false),
                State::Single { .. } => return self.single_page(),
                State::Batch { .. } => {
                    if self.batch_page()? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn batch_page(&mut self) -> Result<bool> {
        let State::Batch { position, count } = &mut self.state else { return Ok(false) };
        let (key_size, stride) = (self.map.key_size(), self.map.stride());
        self.keys.resize(*count * key_size, 0);
        self.values.resize(*count * stride, 0);
        // A hash map's position is a bucket number, other maps' is a key.
        let mut next = vec![0; key_size.max(8)];
        let batch = sys::map_lookup_batch(
            self.map.as_fd(),
            position.as_deref(),
            &mut next,
            &mut self.keys,
            &mut self.values,
            *count as u32,
        );
        self.filled = batch.done as usize;
        match batch.stopped {
            None => *position = Some(next),
            Some(Errno::ENOENT) => self.state = State::Done,
            // One bucket holds more than was asked for.
            Some(Errno::ENOSPC) if self.filled == 0 => *count *= 2,
            Some(Errno::ENOSPC) => *position = Some(next),
            Some(Errno::EOPNOTSUPP | Errno::EINVAL) if position.is_none() => {
                self.filled = 0;
                let keys = self.map.keys()?;
                self.state = State::Single { rest: keys.into_iter() };
            }
            Some(errno) => return Err(self.map.refusal("map.pairs", errno)),
        }
        Ok(self.filled > 0)
    }

    fn single_page(&mut self) -> Result<bool> {
        let State::Single { rest } = &mut self.state else { return Ok(false) };
        self.keys.clear();
        self.values.clear();
        for key in rest.by_ref() {
            if let Some(value) = self.map.lookup(&key)? {
                self.keys.extend(key);
                self.values.extend(value);
                self.filled += 1;
                if self.filled == CHUNK {
                    break;
                }
            }
        }
        if self.filled == 0 {
            self.state = State::Done;
        }
        Ok(self.filled > 0)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.filled {
            match self.page() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => {
                    self.state = State::Done;
                    return Some(Err(e));
                }
            }
        }
        let (key_size, stride) = (self.map.key_size(), self.map.stride());
        let key = self.keys[self.at * key_size..(self.at + 1) * key_size].to_vec();
        let value = self.values[self.at * stride..(self.at + 1) * stride].to_vec();
        self.at += 1;
        Some(Ok((key, value)))
    }
}

/// Told how many elements of a long operation are done, every few thousand; an error from it ends the operation.
pub type Watch<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

impl Map {
    /// All elements, keys and values packed one after the other.
    ///
    /// # Errors
    /// As [`Map::keys`].
    pub fn packed_entries(&self, watch: Watch<'_>) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut keys, mut values, mut count) = (Vec::new(), Vec::new(), 0);
        let mut entries = self.entries();
        while entries.page()? {
            keys.extend_from_slice(&entries.keys[..entries.filled * self.key_size()]);
            values.extend_from_slice(&entries.values[..entries.filled * self.stride()]);
            count += entries.filled;
            watch(count)?;
        }
        Ok((keys, values))
    }

    /// All elements, values as bpf(2) gives them ([`Map::stride`] bytes).
    pub fn entries(&self) -> Entries<'_> {
        let count = CHUNK.min(self.info().max_entries.max(1) as usize);
        let state = State::Batch { position: None, count };
        Entries { map: self, state, keys: Vec::new(), values: Vec::new(), at: 0, filled: 0 }
    }

    /// All keys. Never more than `max_entries`, even while others write.
    pub fn keys(&self) -> Result<Vec<Vec<u8>>> {
        let kind = self.info().kind;
        if kind.is_keyless() || kind.has_records() || kind.is_storage() {
            return Err(self.refusal("map.pairs", Errno::EOPNOTSUPP));
        }
        // The storage of cgroups has no size of its own.
        let most = match self.info().max_entries {
            0 => MOST_CGROUPS,
            most => most as usize,
        };
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while keys.len() < most {
            match self.next_key(keys.last().map(Vec::as_slice))? {
                Some(key) => keys.push(key),
                None => break,
            }
        }
        Ok(keys)
    }

    /// Elements there now. An array has all of its elements, always.
    ///
    /// # Errors
    /// EOPNOTSUPP for queues, stacks, ring buffers: the kernel does not say.
    pub fn len(&self) -> Result<usize> {
        if self.info().kind.is_array() {
            return Ok(self.info().max_entries as usize);
        }
        let mut entries = self.entries();
        let mut count = 0;
        while entries.page()? {
            count += entries.filled;
        }
        Ok(count)
    }

    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes packed keys and values; how many were written.
    ///
    /// A batch that stops half-way is resumed where it stopped, one by one where batches fail: a fresh LPM trie runs out
    /// of its small allocator now and then (ENOMEM) and can go on at once.
    ///
    /// # Errors
    /// As [`Map::update`], with the number of elements written before it in the message: they stay written.
    pub fn update_many(&self, keys: &[u8], values: &[u8], write: Write) -> Result<usize> {
        self.update_watched(keys, values, write, &mut |_| Ok(()))
    }

    /// As [`Map::update_many`], telling `watch` how far it is.
    pub fn update_watched(
        &self,
        keys: &[u8],
        values: &[u8],
        write: Write,
        watch: Watch<'_>,
    ) -> Result<usize> {
        let (key_size, stride) = (self.key_size(), self.stride());
        let total = self.packed("map.set_many", "keys", keys, key_size)?;
        let given = self.packed("map.set_many", "values", values, stride)?;
        if total != given {
            return Err(Error::invalid("map.set_many", format!("{total} keys but {given} values"))
                .subject(self.name()));
        }
        let mut batches = true;
        let mut done = 0;
        while done < total {
            let end = total.min(done + CHUNK);
            if batches {
                let count = (end - done) as u32;
                let (k, v) = (&keys[done * key_size..], &values[done * stride..]);
                let batch = sys::map_update_batch(self.as_fd(), k, v, count, write.flags());
                done += (batch.done as usize).min(end - done);
                batches = !matches!(batch.stopped, Some(Errno::EOPNOTSUPP | Errno::EINVAL));
            }
            while done < end {
                let key = &keys[done * key_size..(done + 1) * key_size];
                let value = &values[done * stride..(done + 1) * stride];
                self.update_patiently(key, value, write)
                    .map_err(|e| e.operation("map.set_many").partly(done, total))?;
                done += 1;
            }
            watch(done)?;
        }
        Ok(done)
    }

    /// One update; out of memory is tried again for up to 20 ms while the kernel refills its allocator.
    fn update_patiently(&self, key: &[u8], value: &[u8], write: Write) -> Result<()> {
        for _ in 0..100 {
            match self.update(key, value, write) {
                Err(e) if e.is("ENOMEM") => std::thread::sleep(Duration::from_micros(200)),
                other => return other,
            }
        }
        self.update(key, value, write)
    }

    /// Deletes packed keys; how many of them were there.
    pub fn remove_many(&self, keys: &[u8]) -> Result<usize> {
        self.remove_watched(keys, &mut |_| Ok(()))
    }

    /// As [`Map::remove_many`], telling `watch` how far it is.
    pub fn remove_watched(&self, keys: &[u8], watch: Watch<'_>) -> Result<usize> {
        let key_size = self.key_size();
        let total = self.packed("map.delete_many", "keys", keys, key_size)?;
        let mut batches = true;
        let (mut at, mut removed, mut watched) = (0, 0, 0);
        while at < total {
            if at / CHUNK != watched {
                watched = at / CHUNK;
                watch(at)?;
            }
            if batches {
                let count = CHUNK.min(total - at);
                let batch =
                    sys::map_delete_batch(self.as_fd(), &keys[at * key_size..], count as u32);
                at += (batch.done as usize).min(count);
                removed += (batch.done as usize).min(count);
                match batch.stopped {
                    None => continue,
                    Some(Errno::EOPNOTSUPP | Errno::EINVAL) => batches = false,
                    // A missing key stops a batch; it is passed below.
                    Some(_) => {}
                }
            }
            if at < total {
                let key = &keys[at * key_size..(at + 1) * key_size];
                removed += usize::from(
                    self.remove(key)
                        .map_err(|e| e.operation("map.delete_many").partly(at, total))?,
                );
                at += 1;
            }
        }
        Ok(removed)
    }

    /// Empties the map; the elements of an array become zero.
    pub fn clear(&self) -> Result<()> {
        let kind = self.info().kind;
        if kind.is_keyless() {
            while self.pop_bytes()?.is_some() {}
            return Ok(());
        }
        if kind.is_array() {
            let zero = vec![0; self.stride()];
            for first in (0..self.info().max_entries).step_by(CHUNK) {
                let end = self.info().max_entries.min(first + CHUNK as u32);
                let keys: Vec<u8> = (first..end).flat_map(u32::to_ne_bytes).collect();
                let zeros = zero.repeat((end - first) as usize);
                self.update_many(&keys, &zeros, Write::Any)?;
            }
            return Ok(());
        }
        // Elements that programs add meanwhile are left after a few rounds.
        for _ in 0..8 {
            let (keys, _) = self.packed_entries(&mut |_| Ok(()))?;
            if keys.is_empty() {
                return Ok(());
            }
            self.remove_many(&keys)?;
        }
        Ok(())
    }

    /// How many elements a packed run of bytes holds.
    fn packed(&self, op: &'static str, what: &str, bytes: &[u8], size: usize) -> Result<usize> {
        if size > 0 && bytes.len().is_multiple_of(size) {
            return Ok(bytes.len() / size);
        }
        let message =
            format!("{} bytes of packed {what} are not a multiple of {size}", bytes.len());
        Err(Error::invalid(op, message).subject(self.name()))
    }
}

trait Partly {
    fn partly(self, done: usize, total: usize) -> Self;
}

impl Partly for Error {
    /// Says how far a bulk operation came.
    fn partly(self, done: usize, total: usize) -> Self {
        let message = format!("{}, after {done} of {total} entries", self.message());
        self.because(message)
    }
}
