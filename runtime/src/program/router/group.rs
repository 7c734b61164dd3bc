//! Sharing flows among several hops by weight, so that a change moves only what it must.
//!
//! Each group has a power of two of buckets; a flow's hash names its bucket, the bucket its hop. When the hops change,
//! only the buckets of a hop that is gone move at once; those that a new hop should have are marked, and move when
//! they have been idle (bpf/include/hop.h does that).

/// One share of a group's flows: `struct bucket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Index of the hop among the group's.
    pub hop: u16,
    /// The hop it moves to once idle.
    pub want: u16,
    /// Seconds of CLOCK_MONOTONIC.
    pub seen: u32,
}

impl Bucket {
    pub fn word(self) -> u64 {
        let mut bytes = [0u8; 8];
        bytes[..2].copy_from_slice(&self.hop.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.want.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.seen.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    }

    pub fn from_word(word: u64) -> Bucket {
        let b = word.to_ne_bytes();
        Bucket {
            hop: u16::from_ne_bytes([b[0], b[1]]),
            want: u16::from_ne_bytes([b[2], b[3]]),
            seen: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        }
    }
}

const FEWEST: usize = 128;
const MOST: usize = 1024;
const PER_HOP: usize = 16;

/// How many buckets hops of these weights need: enough for each to have one, and for shares near the weights.
fn bucket_count(weights: &[u32]) -> usize {
    let sum: u64 = weights.iter().map(|&w| u64::from(w)).sum();
    let least = u64::from(weights.iter().copied().min().unwrap_or(1).max(1));
    let wanted = (weights.len() * PER_HOP).max(sum.div_ceil(least) as usize);
    wanted.clamp(FEWEST, MOST).next_power_of_two()
}

/// How many of `count` buckets each hop gets: by weight, at least one, the rest to the largest remainders.
fn shares(weights: &[u32], count: usize) -> Vec<usize> {
    let sum: u64 = weights.iter().map(|&w| u64::from(w)).sum::<u64>().max(1);
    let exact = |w: u32| u64::from(w) * count as u64;
    let mut shares: Vec<usize> =
        weights.iter().map(|&w| ((exact(w) / sum) as usize).max(1)).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|&i| std::cmp::Reverse(exact(weights[i]) % sum));
    let mut turn = 0;
    while shares.iter().sum::<usize>() < count {
        shares[by_remainder[turn % by_remainder.len()]] += 1;
        turn += 1;
    }
    while shares.iter().sum::<usize>() > count {
        let largest = (0..shares.len()).max_by_key(|&i| shares[i]).expect("a hop");
        shares[largest] -= 1;
    }
    shares
}

/// The buckets of new hops.
pub fn fresh(weights: &[u32]) -> Vec<Bucket> {
    let count = bucket_count(weights);
    let mut left = shares(weights, count);
    let mut buckets = Vec::with_capacity(count);
    // In turn, so that neighbouring buckets differ.
    while buckets.len() < count {
        for (hop, left) in left.iter_mut().enumerate().filter(|(_, left)| **left > 0) {
            *left -= 1;
            buckets.push(Bucket { hop: hop as u16, want: hop as u16, seen: 0 });
        }
    }
    buckets
}

/// The buckets after a change: `old` buckets, where each old hop is now (`None`: gone), and the new weights.
pub fn changed(old: &[Bucket], moved: &[Option<u16>], weights: &[u32]) -> Vec<Bucket> {
    let count = bucket_count(weights).max(old.len());
    let mut target = shares(weights, count);
    let place = |hop: u16| moved.get(usize::from(hop)).copied().flatten();
    let mut buckets: Vec<Option<Bucket>> = (0..count)
        .map(|i| {
            let bucket = old[i & (old.len() - 1)];
            // Who waits to move keeps its present hop; a hop that is gone frees the bucket.
            place(bucket.hop).map(|hop| Bucket { hop, want: hop, seen: bucket.seen })
        })
        .collect();
    for bucket in buckets.iter_mut().flatten() {
        let share = &mut target[usize::from(bucket.hop)];
        // `want` of a bucket beyond its hop's share is set below.
        match share.checked_sub(1) {
            Some(left) => *share = left,
            None => bucket.want = u16::MAX,
        }
    }
    let mut next = 0;
    let mut take = move || {
        while target[next] == 0 {
            next += 1;
        }
        target[next] -= 1;
        next as u16
    };
    // Those without a hop first: they must go somewhere now.
    for bucket in buckets.iter_mut().filter(|b| b.is_none()) {
        let hop = take();
        *bucket = Some(Bucket { hop, want: hop, seen: 0 });
    }
    for bucket in buckets.iter_mut().flatten().filter(|b| b.want == u16::MAX) {
        bucket.want = take();
    }
    buckets.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(buckets: &[Bucket], hop: u16) -> usize {
        buckets.iter().filter(|b| b.hop == hop).count()
    }

    #[test]
    fn shares_follow_weights() {
        let buckets = fresh(&[3, 1]);
        assert_eq!((held(&buckets, 0), held(&buckets, 1)), (96, 32));
        let uneven = fresh(&[1, 5000]);
        assert_eq!((uneven.len(), held(&uneven, 0)), (1024, 1));
        assert_eq!(fresh(&[1; 64]).len(), 1024);
    }

    #[test]
    fn only_a_removed_hop_moves() {
        let old = fresh(&[1, 1, 1]);
        let new = changed(&old, &[Some(0), None, Some(1)], &[1, 1]);
        for (before, after) in old.iter().zip(&new) {
            match before.hop {
                0 => assert_eq!(after.hop, 0),
                2 => assert_eq!(after.hop, 1),
                _ => assert_eq!(after.hop, after.want),
            }
        }
        assert_eq!(held(&new, 0), 64);
    }

    #[test]
    fn a_new_hop_waits_for_idle_buckets() {
        let old = fresh(&[1, 1]);
        let new = changed(&old, &[Some(0), Some(1)], &[1, 1, 2]);
        assert!(old.iter().zip(&new).all(|(a, b)| a.hop == b.hop));
        assert_eq!(new.iter().filter(|b| b.want == 2).count(), 64);
    }
}
