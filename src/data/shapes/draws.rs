//! Random integers that are the same on every platform and in every version of `rand`.
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is for. Each purpose has its own stream, so that a change to
/// one (say, another caption form) leaves the others (the pictures) as they were.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Scene = 1,
    Captions = 2,
    Background = 3,
    Noise = 4,
    Jitter = 5,
}

/// A stream of integer draws.
pub(super) struct Draws(ChaCha8Rng);

impl Draws {
    /// The stream of `purpose` for image (or object) number `index` of the set with this `seed`.
    pub(super) fn new(seed: u64, index: u64, purpose: Purpose) -> Self {
        // The key is laid out by hand: `seed_from_u64` may expand differently in another release.
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        key[16] = purpose as u8;
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 32 random bits.
    pub(super) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number in `0..count`; 0 when `count` is 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        // Multiply and shift: for the small counts here its bias is below 1e-7.
        ((u64::from(self.bits()) * count as u64) >> 32) as usize
    }

    /// A number in `low..=high`; `low` when the range is empty.
    pub(super) fn between(&mut self, low: i32, high: i32) -> i32 {
        let span = (i64::from(high) - i64::from(low) + 1).max(1) as usize;
        low.saturating_add(self.below(span) as i32)
    }

    /// True in `share` of 100 draws.
    pub(super) fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    /// One of the entries by its weight; 0 when there are none.
    pub(super) fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (entry, &weight) in weights.iter().enumerate() {
            if left < weight {
                return entry;
            }
            left -= weight;
        }
        0
    }

    /// One of `entries`, which must not be empty.
    pub(super) fn one_of<T: Copy>(&mut self, entries: &[T]) -> T {
        entries[self.below(entries.len())]
    }
}
