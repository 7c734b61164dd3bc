//! The hash tables of an arena, made in our own memory: bpf/include/table.h reads them.
//!
//! Open addressing over 64-byte cells that hold 4, 2 or 1 entries. A table grows until no entry is more than
//! [`PROBE_LIMIT`] cells from its place, which is as far as a packet looks.

use super::abi::{CELL_WORDS, PROBE_LIMIT};
use crate::program::hash::{MIX_1, MIX_2, hash4, hash6};

/// Of a packet's addresses (high, low), protocol and ports; as flow_hash() of bpf/include/flow.h.
pub fn flow_hash(from: [u64; 2], to: [u64; 2], protocol: u8, ports: [u16; 2]) -> u32 {
    hash6(
        u64::from(protocol) << 32 | u64::from(ports[0]) << 16 | u64::from(ports[1]),
        from[0] ^ from[1].wrapping_mul(MIX_1),
        to[0] ^ to[1].wrapping_mul(MIX_2),
        0,
    )
}

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `struct cell4`: keys of one word, values of one.
    Prefix4,
    /// `struct cell6`: keys of three words, values of one.
    Prefix6,
    /// `struct condition`: a key of six words, rank and value.
    Condition,
}

impl Kind {
    fn entries(self) -> usize {
        match self {
            Kind::Prefix4 => 4,
            Kind::Prefix6 => 2,
            Kind::Condition => 1,
        }
    }

    fn key_words(self) -> usize {
        match self {
            Kind::Prefix4 => 1,
            Kind::Prefix6 => 3,
            Kind::Condition => 6,
        }
    }

    /// In its cell, of entry `entry`'s word `word`.
    fn place(self, entry: usize, word: usize) -> usize {
        match self {
            Kind::Prefix4 => entry + 4 * word,
            Kind::Prefix6 => entry * 4 + word,
            Kind::Condition => word,
        }
    }

    /// Cells with one entry run full sooner.
    fn is_full(self, used: usize, cells: usize) -> bool {
        match self {
            Kind::Condition => used * 5 > cells * 2,
            _ => used * 5 > cells * self.entries() * 3,
        }
    }

    fn hash(self, key: &[u64], seed: u64) -> u32 {
        match self {
            Kind::Prefix4 => hash4(key[0], seed),
            Kind::Prefix6 => hash6(key[0], key[1], key[2], seed),
            Kind::Condition => hash6(
                key[0] ^ key[1].wrapping_mul(MIX_2),
                key[2] ^ key[4].wrapping_mul(MIX_1),
                key[3] ^ key[5].rotate_left(32).wrapping_mul(MIX_2),
                seed,
            ),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Table {
    kind: Kind,
    seed: u64,
    words: Vec<u64>,
    used: usize,
}

impl Table {
    /// With room for about `expected` entries.
    pub fn new(kind: Kind, seed: u64, expected: usize) -> Table {
        let mut cells = 1;
        while kind.is_full(expected, cells) {
            cells *= 2;
        }
        Table { kind, seed, words: vec![0; cells * CELL_WORDS], used: 0 }
    }

    /// A table as it was written.
    #[cfg(test)]
    pub fn from_words(kind: Kind, seed: u64, words: Vec<u64>) -> Table {
        Table { kind, seed, words, used: 0 }
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }
    pub fn cells(&self) -> u32 {
        (self.words.len() / CELL_WORDS) as u32
    }
    pub fn mask(&self) -> u32 {
        self.cells() - 1
    }

    /// Cell and entry of the key, or else the free place for it; nothing when the probe ends before either.
    fn locate(&self, key: &[u64]) -> Option<(usize, usize, bool)> {
        let hash = self.kind.hash(key, self.seed);
        for probe in 0..PROBE_LIMIT {
            let cell = (hash.wrapping_add(probe) & self.mask()) as usize;
            let words = &self.words[cell * CELL_WORDS..][..CELL_WORDS];
            for entry in 0..self.kind.entries() {
                if words[self.kind.place(entry, 0)] == 0 {
                    return Some((cell, entry, false));
                }
                if (0..key.len()).all(|w| words[self.kind.place(entry, w)] == key[w]) {
                    return Some((cell, entry, true));
                }
            }
        }
        None
    }

    /// The value word (the last) of the key's entry.
    pub fn get(&self, key: &[u64]) -> Option<u64> {
        let (cell, entry, found) = self.locate(key)?;
        let last = self.kind.place(entry, self.entry_words() - 1);
        found.then(|| self.words[cell * CELL_WORDS + last])
    }

    fn entry_words(&self) -> usize {
        match self.kind {
            Kind::Condition => 8,
            kind => kind.key_words() + 1,
        }
    }

    /// Adds or replaces; `payload` is the value word, for conditions rank and value.
    pub fn insert(&mut self, key: &[u64], payload: &[u64]) {
        debug_assert_eq!(key.len(), self.kind.key_words());
        debug_assert_eq!(key.len() + payload.len(), self.entry_words());
        loop {
            let cells = self.cells() as usize;
            match self.locate(key) {
                Some((cell, entry, found)) if found || !self.kind.is_full(self.used + 1, cells) => {
                    for (w, word) in key.iter().chain(payload).enumerate() {
                        self.words[cell * CELL_WORDS + self.kind.place(entry, w)] = *word;
                    }
                    self.used += usize::from(!found);
                    return;
                }
                _ => self.grow(),
            }
        }
    }

    fn grow(&mut self) {
        let mut larger = Table {
            kind: self.kind,
            seed: self.seed,
            words: vec![0; self.words.len() * 2],
            used: 0,
        };
        let keys = self.kind.key_words();
        for cell in self.words.chunks_exact(CELL_WORDS) {
            for entry in 0..self.kind.entries() {
                let words: Vec<u64> =
                    (0..self.entry_words()).map(|w| cell[self.kind.place(entry, w)]).collect();
                if words[0] != 0 {
                    larger.insert(&words[..keys], &words[keys..]);
                }
            }
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_what_was_put() {
        for (kind, keys, payload) in
            [(Kind::Prefix4, 1, 1), (Kind::Prefix6, 3, 1), (Kind::Condition, 6, 2)]
        {
            let mut table = Table::new(kind, 7, 0);
            let key =
                |i: u64| -> Vec<u64> { (0..keys).map(|w| (i + 1) << (w * 3) | 1 << 63).collect() };
            for i in 0..5000 {
                table.insert(&key(i), &vec![i; payload]);
            }
            table.insert(&key(17), &vec![99; payload]);
            for i in 0..5000 {
                assert_eq!(table.get(&key(i)), Some(if i == 17 { 99 } else { i }));
            }
            assert_eq!(table.get(&key(5000)), None);
            assert_eq!(table.used, 5000);
        }
    }
}
