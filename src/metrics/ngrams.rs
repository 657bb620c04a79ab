//! Words as numbers, and n-grams of one to four of them with their counts.

use std::collections::HashMap;

/// The longest n-grams that are counted.
pub const MAX_ORDER: usize = 4;

/// One to four words in one number: each word's id plus one in 32 bits, the first lowest, so that
/// no two n-grams share a number.
pub(super) type NGram = u128;

const WORD_BITS: usize = 32;

/// How many words an n-gram has.
pub(super) fn order(ngram: NGram) -> usize {
    (NGram::BITS as usize - ngram.leading_zeros() as usize).div_ceil(WORD_BITS)
}

/// The n-grams of `words` with their counts, by number.
///
/// The id `u32::MAX` counts as `u32::MAX - 1`.
pub(super) fn count(words: &[u32]) -> Vec<(NGram, u32)> {
    let mut all = Vec::with_capacity(words.len() * MAX_ORDER);
    for start in 0..words.len() {
        let mut ngram: NGram = 0;
        for (place, word) in words[start..].iter().take(MAX_ORDER).enumerate() {
            ngram |= NGram::from(word.saturating_add(1)) << (place * WORD_BITS);
            all.push(ngram);
        }
    }
    all.sort_unstable();
    let mut counted: Vec<(NGram, u32)> = Vec::with_capacity(all.len());
    for ngram in all {
        match counted.last_mut() {
            Some((last, count)) if *last == ngram => *count += 1,
            _ => counted.push((ngram, 1)),
        }
    }
    counted
}

/// Calls `each` with the values of every key that both sorted lists hold.
pub(super) fn for_common<A: Copy, B: Copy>(
    left: &[(NGram, A)],
    right: &[(NGram, B)],
    mut each: impl FnMut(NGram, A, B),
) {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some((a, left_value)), Some((b, right_value))) = (left.peek(), right.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => {
                left.next();
            }
            std::cmp::Ordering::Greater => {
                right.next();
            }
            std::cmp::Ordering::Equal => {
                each(*a, *left_value, *right_value);
                left.next();
                right.next();
            }
        }
    }
}

/// Words and their numbers, in order of first appearance.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// The number of `word`, which is given one if it has none.
    pub fn add(&mut self, word: &str) -> u32 {
        if let Some(id) = self.ids.get(word) {
            return *id;
        }
        let id = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.ids.insert(word.to_owned(), id);
        id
    }

    /// The number of `word`.
    pub fn get(&self, word: &str) -> Option<u32> {
        self.ids.get(word).copied()
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n_grams_are_counted_and_know_their_length() {
        // a b a b: a 2, b 2, ab 2, ba 1, aba 1, bab 1, abab 1.
        let counted = count(&[0, 1, 0, 1]);
        let of_order = |n: usize| -> Vec<u32> {
            counted
                .iter()
                .filter(|(ngram, _)| order(*ngram) == n)
                .map(|(_, count)| *count)
                .collect()
        };
        assert_eq!(of_order(1), [2, 2]);
        assert_eq!(of_order(2).iter().sum::<u32>(), 3);
        assert_eq!(of_order(2).len(), 2);
        assert_eq!(of_order(3), [1, 1]);
        assert_eq!(of_order(4), [1]);
        assert!(count(&[]).is_empty());
    }

    #[test]
    fn different_n_grams_never_share_a_number() {
        assert_ne!(count(&[0]), count(&[1]));
        assert_eq!(order(count(&[0, 0])[1].0), 2);
        assert_ne!(count(&[1, 0])[2].0, count(&[0, 1])[2].0);
    }
}
