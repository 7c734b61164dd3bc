//! Mixing of keys into 32 bits, as the programs do it: bpf/include/hash.h.

pub const MIX_1: u64 = 0x9e37_79b9_7f4a_7c15;
pub const MIX_2: u64 = 0xd6e8_feb8_6659_fd93;

/// Of one word.
pub fn hash4(key: u64, seed: u64) -> u32 {
    let key = (key ^ seed).wrapping_mul(MIX_1);
    ((key ^ key >> 32).wrapping_mul(MIX_2) >> 32) as u32
}

/// Of three.
pub fn hash6(meta: u64, high: u64, low: u64, seed: u64) -> u32 {
    let mixed = (high ^ meta ^ seed).wrapping_mul(MIX_1);
    hash4((mixed ^ mixed >> 32 ^ low).wrapping_mul(MIX_2), low)
}
