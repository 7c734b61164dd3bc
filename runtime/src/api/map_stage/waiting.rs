//! A live map and the writes to it that wait for the commit, with their inverses.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use nix::errno::Errno;

use super::MapSocket;
use crate::kernel::bpf::{Map, MapKind, Program, Write};
use crate::kernel::netns::NetnsFd;
use crate::own::stage::Staged;
use crate::{Error, Result};

/// What is put into a map.
#[derive(Debug, Clone)]
pub enum Deposit {
    /// As bpf(2) moves it: [`Map::stride`] bytes of them.
    Bytes(Vec<u8>),
    /// Into a map of maps.
    Map(Map),
    /// Into a program array.
    Program(Program),
    /// Into a map of sockets.
    Socket(MapSocket),
    /// Into a devmap, whose interface indexes are looked up in the namespace of whoever writes.
    Within(NetnsFd, Vec<u8>),
}

impl Deposit {
    /// As the map reads it.
    fn shown(&self) -> Vec<u8> {
        match self {
            Deposit::Bytes(bytes) | Deposit::Within(_, bytes) => bytes.clone(),
            Deposit::Map(map) => map.id().to_ne_bytes().to_vec(),
            Deposit::Program(program) => program.id().to_ne_bytes().to_vec(),
            Deposit::Socket(socket) => socket.cookie().to_ne_bytes().to_vec(),
        }
    }

    /// # Errors
    /// As [`Map::update`].
    pub fn put(&self, map: &Map, key: &[u8], write: Write) -> Result<()> {
        let descriptor = |fd: i32| map.update(key, &fd.to_ne_bytes(), write);
        match self {
            Deposit::Bytes(bytes) => map.update(key, bytes, write),
            Deposit::Map(inner) => descriptor(inner.as_fd().as_raw_fd()),
            Deposit::Program(program) => descriptor(program.as_fd().as_raw_fd()),
            Deposit::Socket(socket) => {
                let mut bytes = i64::from(socket.descriptor()).to_ne_bytes().to_vec();
                bytes.truncate(map.stride());
                map.update(key, &bytes, write)?;
                socket.remember();
                Ok(())
            }
            Deposit::Within(netns, bytes) => netns.within(|| map.update(key, bytes, write)),
        }
    }

    /// What a map has now, to be put back.
    fn read(map: &Map, shown: Vec<u8>, instead: Option<&Deposit>) -> Result<Deposit> {
        let kind = map.info().kind;
        if kind.holds_sockets() {
            let cookie = <[u8; 8]>::try_from(&*shown).map_or(0, u64::from_ne_bytes);
            return MapSocket::known(cookie).map(Deposit::Socket).ok_or_else(|| {
                Error::new("map", "ESTALE", "it holds a socket that this script has not put there")
                    .subject(map.name())
                    .hint("it could not be put back if the load failed: change it after cnf.wait()")
            });
        }
        let id = || <[u8; 4]>::try_from(&shown[..4]).map_or(0, u32::from_ne_bytes);
        Ok(match instead {
            Some(Deposit::Within(netns, _)) => Deposit::Within(netns.clone(), shown),
            _ if kind.is_of_maps() => Deposit::Map(Map::by_id(id())?),
            _ if kind.holds_descriptors() => Deposit::Program(Program::by_id(id())?),
            _ => Deposit::Bytes(shown),
        })
    }
}

/// A map as it will be.
pub struct Waiting {
    map: Map,
    /// What it belongs to, in words, when that is not the script itself.
    owner: Option<Rc<str>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// What is in the map now goes.
    cleared: bool,
    /// `None`: deleted.
    entries: BTreeMap<Vec<u8>, Option<Deposit>>,
    /// Of queues, stacks and bloom filters.
    pushed: Vec<Vec<u8>>,
    /// What a trie holds now: the kernel finds its elements by longer keys only.
    trie: Option<HashMap<Vec<u8>, Vec<u8>>>,
}

/// Lookups beyond which all of a map is read at once.
const FEW: usize = 4096;

impl Waiting {
    pub fn new(map: Map, owner: Option<Rc<str>>) -> Waiting {
        Waiting { map, owner, state: RefCell::default() }
    }

    /// The value at a key.
    ///
    /// # Errors
    /// As [`Map::lookup`].
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.map.info().kind {
            MapKind::LPM_TRIE => self.longest(key),
            _ => self.exact(key),
        }
    }

    fn exact(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(entry) = self.state.borrow().entries.get(key) {
            return Ok(entry.as_ref().map(Deposit::shown));
        }
        if !self.state.borrow().cleared {
            return self.stored(key);
        }
        let zero = vec![0; self.map.stride()];
        Ok((self.map.info().kind.is_array() && self.is_index(key)).then_some(zero))
    }

    /// What the map holds now under exactly this key.
    fn stored(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.map.info().kind != MapKind::LPM_TRIE {
            return now(&self.map, key);
        }
        let mut state = self.state.borrow_mut();
        if state.trie.is_none() {
            state.trie = Some(self.map.entries().collect::<Result<_>>()?);
        }
        Ok(state.trie.as_ref().and_then(|trie| trie.get(key).cloned()))
    }

    /// The element with the longest prefix of a trie's key: its length in bits, then the address.
    fn longest(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((length, address)) = key.split_first_chunk::<4>() else { return Ok(None) };
        let most = u32::from_ne_bytes(*length).min(address.len() as u32 * 8);
        for length in (0..=most).rev() {
            let mut shorter = key.to_vec();
            shorter[..4].copy_from_slice(&length.to_ne_bytes());
            for (i, byte) in shorter[4..].iter_mut().enumerate() {
                let kept = length.saturating_sub(i as u32 * 8).min(8);
                *byte &= 0xff_u8.checked_shl(8 - kept).unwrap_or(0);
            }
            if let Some(found) = self.exact(&shorter)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// All elements, keys and values packed.
    ///
    /// # Errors
    /// As [`Map::entries`].
    pub fn packed_entries(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let state = self.state.borrow();
        let mut left: BTreeMap<&Vec<u8>, &Deposit> =
            state.entries.iter().filter_map(|(k, d)| Some((k, d.as_ref()?))).collect();
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for entry in self.map.entries() {
            let (key, value) = entry?;
            let value = match (state.entries.get(&key), state.cleared) {
                (Some(None), _) => continue,
                (Some(Some(deposit)), _) => {
                    left.remove(&key);
                    deposit.shown()
                }
                (None, false) => value,
                (None, true) if self.map.info().kind.is_array() => vec![0; value.len()],
                (None, true) => continue,
            };
            keys.extend(key);
            values.extend(value);
        }
        for (key, deposit) in left {
            keys.extend(key);
            values.extend(deposit.shown());
        }
        Ok((keys, values))
    }

    /// # Errors
    /// As [`Map::len`].
    pub fn len(&self) -> Result<usize> {
        match self.map.info().key_size as usize {
            0 => self.map.len(),
            size => Ok(self.packed_entries()?.0.len() / size),
        }
    }

    /// # Errors
    /// EEXIST and ENOENT by `write`; E2BIG for an index beyond an array's end. What else the kernel refuses, it does at
    /// the commit.
    pub fn update(&self, key: &[u8], value: Deposit, write: Write) -> Result<()> {
        if !self.is_index(key) {
            return Err(self.map.refusal("map.set", Errno::E2BIG));
        }
        let there = match write {
            Write::Any => None,
            _ => Some(self.exact(key)?.is_some()),
        };
        match (write, there) {
            (Write::NoExist, Some(true)) => Err(self.map.refusal("map.set", Errno::EEXIST)),
            (Write::Exist, Some(false)) => Err(self.map.refusal("map.set", Errno::ENOENT)),
            _ => {
                self.state.borrow_mut().entries.insert(key.to_vec(), Some(value));
                Ok(())
            }
        }
    }

    /// Packed keys and values; how many.
    ///
    /// # Errors
    /// As [`Waiting::update`].
    pub fn update_many(&self, keys: &[u8], values: &[u8]) -> Result<usize> {
        let (size, stride) = (self.map.info().key_size as usize, self.map.stride());
        let pairs = keys.chunks_exact(size.max(1)).zip(values.chunks_exact(stride.max(1)));
        let count = pairs.len();
        for (key, value) in pairs {
            self.update(key, Deposit::Bytes(value.to_vec()), Write::Any)?;
        }
        Ok(count)
    }

    /// Whether the key was there.
    ///
    /// # Errors
    /// EINVAL for an array.
    pub fn remove(&self, key: &[u8]) -> Result<bool> {
        if self.map.info().kind.is_array() {
            // Refused, always.
            return self.map.remove(key);
        }
        let there = self.exact(key)?.is_some();
        self.state.borrow_mut().entries.insert(key.to_vec(), None);
        Ok(there)
    }

    /// Packed keys; how many of them were there.
    ///
    /// # Errors
    /// As [`Waiting::remove`].
    pub fn remove_many(&self, keys: &[u8]) -> Result<usize> {
        let size = (self.map.info().key_size as usize).max(1);
        if !keys.len().is_multiple_of(size) {
            // Refused with the reason.
            return self.map.remove_many(keys);
        }
        keys.chunks_exact(size).try_fold(0, |n, key| Ok(n + usize::from(self.remove(key)?)))
    }

    /// Nothing is said of that key any more.
    pub fn forget(&self, key: &[u8]) {
        self.state.borrow_mut().entries.remove(key);
    }

    pub fn clear(&self) {
        *self.state.borrow_mut() = State { cleared: true, ..State::default() };
    }

    /// # Errors
    /// EOPNOTSUPP for maps with keys.
    pub fn push(&self, value: Vec<u8>) -> Result<()> {
        if !self.map.info().kind.is_keyless() {
            return self.map.push_bytes(&value);
        }
        self.state.borrow_mut().pushed.push(value);
        Ok(())
    }

    /// # Errors
    /// EAGAIN: what a live queue gives is not known before the commit.
    pub fn pop(&self) -> Result<Option<Vec<u8>>> {
        Err(Error::new("map.pop", "EAGAIN", "a live queue is not emptied while the script loads")
            .subject(self.map.name())
            .hint("pop after cnf.wait(), or in a task"))
    }

    /// # Errors
    /// As [`Map::peek_bytes`].
    pub fn peek(&self) -> Result<Option<Vec<u8>>> {
        let state = self.state.borrow();
        let stack = self.map.info().kind == MapKind::STACK;
        if let (true, Some(newest)) = (stack, state.pushed.last()) {
            return Ok(Some(newest.clone()));
        }
        let now = if state.cleared { None } else { self.map.peek_bytes()? };
        Ok(now.or_else(|| state.pushed.first().cloned()))
    }

    fn is_index(&self, key: &[u8]) -> bool {
        let info = self.map.info();
        let index =
            || <[u8; 4]>::try_from(key).is_ok_and(|k| u32::from_ne_bytes(k) < info.max_entries);
        !info.kind.is_array() || index()
    }

    /// What differs from the map as it is now: key, old value, new value.
    fn differences(&self) -> Result<Vec<Difference>> {
        let state = self.state.borrow();
        let array = self.map.info().kind.is_array();
        let trie = self.map.info().kind == MapKind::LPM_TRIE;
        let mut differences = Vec::new();
        let mut differs = |key: &[u8], old: Option<Vec<u8>>, new: Option<&Deposit>| {
            if old != new.map(Deposit::shown) {
                differences.push((key.to_vec(), old, new.cloned()));
            }
        };
        if !state.cleared && !trie && state.entries.len() <= FEW {
            for (key, new) in &state.entries {
                differs(key, now(&self.map, key)?, new.as_ref());
            }
            return Ok(differences);
        }
        let mut now: HashMap<Vec<u8>, Vec<u8>> = self.map.entries().collect::<Result<_>>()?;
        for (key, new) in &state.entries {
            differs(key, now.remove(key), new.as_ref());
        }
        let zero = array.then(|| Deposit::Bytes(vec![0; self.map.stride()]));
        for (key, old) in now.into_iter().filter(|_| state.cleared) {
            differs(&key, Some(old), zero.as_ref());
        }
        Ok(differences)
    }
}

/// The value at a key; none where the kernel does not show it, as of a map of sockets with values of 4 bytes.
fn now(map: &Map, key: &[u8]) -> Result<Option<Vec<u8>>> {
    match map.lookup(key) {
        Err(e) if e.is("EOPNOTSUPP") && map.info().kind.holds_sockets() => Ok(None),
        found => found,
    }
}

type Difference = (Vec<u8>, Option<Vec<u8>>, Option<Deposit>);

/// What the writes to that map are known by.
pub fn key(map: &Map) -> String {
    format!("map/{}", map.id())
}

/// The writes of one map, as an action of a commit.
pub struct Change {
    waiting: Rc<Waiting>,
    /// What was there before, newest first.
    before: Vec<(Vec<u8>, Option<Deposit>)>,
    /// Of queues and stacks: what was taken out, in the order it came, and how many were pushed.
    drained: Vec<Vec<u8>>,
    pushed: usize,
}

impl Change {
    pub fn new(waiting: Rc<Waiting>) -> Change {
        Change { waiting, before: Vec::new(), drained: Vec::new(), pushed: 0 }
    }

    fn write(&mut self, differences: Vec<Difference>) -> Result<()> {
        let map = &self.waiting.map;
        for (key, old, new) in &differences {
            let old = old.clone().map(|old| Deposit::read(map, old, new.as_ref())).transpose()?;
            self.before.push((key.clone(), old));
        }
        let (mut keys, mut values, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (key, _, new) in differences {
            match new {
                // First out, then in: a full map has room then.
                None => gone.extend(key),
                Some(Deposit::Bytes(bytes)) => {
                    keys.extend(key);
                    values.extend(bytes);
                }
                Some(other) => other.put(map, &key, Write::Any)?,
            }
        }
        map.remove_many(&gone).map(drop)?;
        map.update_many(&keys, &values, Write::Any).map(drop)
    }

    fn push(&mut self) -> Result<()> {
        let (map, state) = (&self.waiting.map, self.waiting.state.borrow());
        if state.cleared && map.info().kind != MapKind::BLOOM_FILTER {
            while let Some(value) = map.pop_bytes()? {
                self.drained.push(value);
            }
        }
        for value in &state.pushed {
            map.push_bytes(value)?;
            self.pushed += 1;
        }
        Ok(())
    }

    /// A bloom filter forgets nothing: what was pushed stays.
    fn unpush(&mut self) -> Result<()> {
        let map = &self.waiting.map;
        let kind = map.info().kind;
        let pushed = std::mem::take(&mut self.pushed);
        if kind == MapKind::STACK {
            for _ in 0..pushed {
                map.pop_bytes()?;
            }
            self.drained.reverse();
        } else if kind == MapKind::QUEUE {
            let mut now = Vec::new();
            while let Some(value) = map.pop_bytes()? {
                now.push(value);
            }
            now.truncate(now.len().saturating_sub(pushed));
            self.drained.extend(now);
        }
        self.drained.drain(..).try_for_each(|value| map.push_bytes(&value))
    }
}

impl Staged for Change {
    fn key(&self) -> String {
        key(&self.waiting.map)
    }

    fn text(&self) -> String {
        match &self.waiting.owner {
            Some(owner) => owner.to_string(),
            None => format!("elements of map {}", self.waiting.map.name()),
        }
    }

    fn is_void(&self) -> bool {
        let map = &self.waiting.map;
        if map.info().kind.is_keyless() {
            let state = self.waiting.state.borrow();
            let empties = state.cleared && map.peek_bytes().is_ok_and(|v| v.is_some());
            return state.pushed.is_empty() && !empties;
        }
        self.waiting.differences().is_ok_and(|differences| differences.is_empty())
    }

    fn apply(&mut self) -> Result<()> {
        let done = match self.waiting.map.info().kind.is_keyless() {
            true => self.push(),
            false => self.waiting.differences().and_then(|differences| self.write(differences)),
        };
        if done.is_err()
            && let Err(error) = self.revert()
        {
            tracing::error!("map {}: could not be taken back: {error}", self.waiting.map.name());
        }
        done
    }

    fn revert(&mut self) -> Result<()> {
        if self.waiting.map.info().kind.is_keyless() {
            return self.unpush();
        }
        let map = &self.waiting.map;
        for (key, old) in std::mem::take(&mut self.before) {
            match old {
                Some(old) => old.put(map, &key, Write::Any)?,
                None => drop(map.remove(&key)?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
