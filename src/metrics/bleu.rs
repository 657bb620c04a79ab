//! BLEU-1 to BLEU-4 (Papineni et al. 2002) as coco-caption computes it: the reference length closest
//! to the caption's (of two equally close the shorter), and its two small constants instead of a
//! case for zero.

use std::ops::AddAssign;

use super::ngrams::{MAX_ORDER, NGram, for_common, order};

/// What BLEU needs of one caption, or of many, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuCounts {
    /// n-grams of the caption, by length.
    pub guessed: [u64; MAX_ORDER],
    /// n-grams of the caption that a reference has, each at most as often as the reference that has
    /// most of it.
    pub correct: [u64; MAX_ORDER],
    /// Words of the caption.
    pub length: u64,
    /// Words of the reference closest in length.
    pub reference_length: u64,
}

impl AddAssign for BleuCounts {
    fn add_assign(&mut self, other: Self) {
        for n in 0..MAX_ORDER {
            self.guessed[n] += other.guessed[n];
            self.correct[n] += other.correct[n];
        }
        self.length += other.length;
        self.reference_length += other.reference_length;
    }
}

impl BleuCounts {
    /// Counts one caption against its references; each with its number of words and its n-grams.
    pub(super) fn of(
        caption: (usize, &[(NGram, u32)]),
        references: &[(usize, &[(NGram, u32)])],
    ) -> Self {
        let (length, counted) = caption;
        let mut most: Vec<(NGram, u32)> =
            references.iter().flat_map(|(_, counted)| counted.iter().copied()).collect();
        most.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        most.dedup_by_key(|(ngram, _)| *ngram);
        let mut correct = [0; MAX_ORDER];
        for_common(counted, &most, |ngram, guessed, most| {
            if let Some(correct) = correct.get_mut(order(ngram).wrapping_sub(1)) {
                *correct += u64::from(guessed.min(most));
            }
        });
        let closest = references
            .iter()
            .map(|(words, _)| (words.abs_diff(length), *words))
            .min()
            .map_or(0, |(_, words)| words);
        Self {
            guessed: std::array::from_fn(|n| length.saturating_sub(n) as u64),
            correct,
            length: length as u64,
            reference_length: closest as u64,
        }
    }

    /// BLEU-1 to BLEU-4, from 0 to 1.
    pub fn scores(&self) -> [f64; MAX_ORDER] {
        const TINY: f64 = 1e-15;
        const SMALL: f64 = 1e-9;
        let ratio = (self.length as f64 + TINY) / (self.reference_length as f64 + SMALL);
        let brevity = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
        let mut product = 1.0;
        std::array::from_fn(|n| {
            product *= (self.correct[n] as f64 + TINY) / (self.guessed[n] as f64 + SMALL);
            product.powf(1.0 / (n + 1) as f64) * brevity
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ngrams::count;
    use super::*;

    fn counts(caption: &[u32], references: &[&[u32]]) -> BleuCounts {
        let counted: Vec<_> = references.iter().map(|words| count(words)).collect();
        let references: Vec<_> = references
            .iter()
            .zip(&counted)
            .map(|(words, counted)| (words.len(), counted.as_slice()))
            .collect();
        BleuCounts::of((caption.len(), &count(caption)), &references)
    }

    #[test]
    fn clipped_counts_by_hand() {
        // "the the the the" against "the cat the" and "the": `the` counts twice, no other n-gram.
        let counts = counts(&[0, 0, 0, 0], &[&[0, 1, 0], &[0]]);
        assert_eq!(counts.correct, [2, 0, 0, 0]);
        assert_eq!(counts.guessed, [4, 3, 2, 1]);
        assert_eq!(counts.reference_length, 3);
        assert!((counts.scores()[0] - 0.5).abs() < 1e-6);
    }

    #[test]
    fn of_two_equally_close_references_the_shorter_counts() {
        assert_eq!(counts(&[0; 4], &[&[1; 5], &[1; 3]]).reference_length, 3);
    }

    #[test]
    fn a_short_caption_is_penalised_and_a_perfect_one_scores_one() {
        let perfect = counts(&[0, 1, 2, 3, 4], &[&[0, 1, 2, 3, 4]]).scores();
        assert!(perfect.iter().all(|score| (score - 1.0).abs() < 1e-6), "{perfect:?}");
        // One word of two, right: exp(1 - 2) = 0.36788.
        let short = counts(&[0], &[&[0, 1]]).scores();
        assert!((short[0] - (-1.0f64).exp()).abs() < 1e-6, "{short:?}");
        assert_eq!(counts(&[], &[&[0, 1]]).scores()[0], 0.0);
    }
}
