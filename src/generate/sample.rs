//! Sampling: what transformers calls logits warpers, and draws that follow from a seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::GenerateConfig;

/// Temperature, then the `top_k` likeliest tokens, then the fewest of probability `top_p`; what falls
/// out becomes negative infinity. At least `keep` tokens stay.
pub(super) fn warp(scores: &mut [f32], keep: usize, config: &GenerateConfig) {
    if config.temperature != 1.0 {
        scores.iter_mut().for_each(|score| *score /= config.temperature);
    }
    if config.top_k > 0 {
        keep_likeliest(scores, config.top_k.max(keep));
    }
    if config.top_p < 1.0 {
        keep_nucleus(scores, config.top_p, keep);
    }
}

/// Ties with the last one stay too.
fn keep_likeliest(scores: &mut [f32], count: usize) {
    if count >= scores.len() {
        return;
    }
    let mut sorted = scores.to_vec();
    let (_, &mut least, _) = sorted.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    scores.iter_mut().filter(|score| **score < least).for_each(|score| *score = f32::NEG_INFINITY);
}

/// Holtzman et al. 2019, <https://arxiv.org/abs/1904.09751>: the least likely tokens go, of equal ones
/// the smaller id first, while all that went have at most `1 - mass` together.
fn keep_nucleus(scores: &mut [f32], mass: f32, keep: usize) {
    let mut order: Vec<usize> = (0..scores.len()).filter(|&id| scores[id].is_finite()).collect();
    let max = order.iter().map(|&id| scores[id]).fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: &usize| f64::from(scores[*id] - max).exp();
    let total: f64 = order.iter().map(weight).sum();
    let likelier = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(b.cmp(a));
    // What stays is mostly a small part of a vocabulary: sort no more than it takes to find it.
    let (mut sorted, mut gone) = (64.max(keep), 0.0);
    while sorted < order.len() {
        order.select_nth_unstable_by(sorted, likelier);
        gone = order[sorted..].iter().map(weight).sum::<f64>() / total;
        if gone as f32 <= 1.0 - mass {
            break;
        }
        (sorted, gone) = (sorted * 4, 0.0);
    }
    let sorted = sorted.min(order.len());
    order[..sorted].sort_unstable_by(likelier);
    let mut kept = sorted;
    while kept > keep {
        gone += weight(&order[kept - 1]) / total;
        if gone as f32 > 1.0 - mass {
            break;
        }
        kept -= 1;
    }
    order[kept..].iter().for_each(|&id| scores[id] = f32::NEG_INFINITY);
}

/// A stream of draws.
pub(super) struct Draws(ChaCha8Rng);

impl Draws {
    /// The stream of one sample of one image: whatever is decoded beside it has another.
    pub fn new(seed: u64, image: u64, sample: u64) -> Self {
        let mut key = [0; 32];
        for (place, number) in key.chunks_exact_mut(8).zip([seed, image, sample]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// One of `scores` by its probability, the softmax; `None` where all are forbidden.
    pub fn one(&mut self, scores: &[f32]) -> Option<usize> {
        self.several(scores, 1).pop()
    }

    /// At most `count` different ones, drawn one after the other by their probabilities among those
    /// left.
    pub fn several(&mut self, scores: &[f32], count: usize) -> Vec<usize> {
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !max.is_finite() {
            return Vec::new();
        }
        let mut weights: Vec<f64> =
            scores.iter().map(|&score| f64::from(score - max).exp()).collect();
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            let total: f64 = weights.iter().sum();
            let mut left = self.0.random::<f64>() * total;
            // Rounding may leave a rest at the end: it falls to the last that can be drawn.
            let mut choice = None;
            for (id, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                choice = Some(id);
                left -= weight;
                if left < 0.0 {
                    break;
                }
            }
            let Some(id) = choice else { break };
            weights[id] = 0.0;
            drawn.push(id);
        }
        drawn
    }
}
