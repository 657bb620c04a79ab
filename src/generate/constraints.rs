//! What transformers calls logits processors: a minimum length, no n-gram twice, a penalty on
//! repetition. They change the scores that a token is chosen by, not the model's own probabilities.

use super::GenerateConfig;

/// Whether [`constrain`] may change a score: without constraints nobody need keep a copy.
pub(super) fn are_set(config: &GenerateConfig) -> bool {
    config.repetition_penalty != 1.0 || config.no_repeat_ngram_size > 0 || config.min_new_tokens > 0
}

/// Changes the scores of the token after `ids` (prompt and all), of which `new_tokens` were decoded.
/// Scores are logits in greedy decoding and log-probabilities in beam search, as in transformers.
pub(super) fn constrain(
    scores: &mut [f32],
    ids: &[u32],
    new_tokens: usize,
    end: u32,
    config: &GenerateConfig,
) {
    if config.repetition_penalty != 1.0 {
        penalise(scores, ids, config.repetition_penalty);
    }
    if config.no_repeat_ngram_size > 0 {
        for id in ending_a_repeated_ngram(ids, config.no_repeat_ngram_size) {
            forbid(scores, id);
        }
    }
    if new_tokens < config.min_new_tokens {
        forbid(scores, end);
    }
}

fn forbid(scores: &mut [f32], id: u32) {
    if let Some(score) = scores.get_mut(id as usize) {
        *score = f32::NEG_INFINITY;
    }
}

/// Every id that was there before becomes less likely, once (Keskar et al. 2019,
/// <https://arxiv.org/abs/1909.05858>).
fn penalise(scores: &mut [f32], ids: &[u32], penalty: f32) {
    for (at, &id) in ids.iter().enumerate() {
        if ids[..at].contains(&id) {
            continue;
        }
        if let Some(score) = scores.get_mut(id as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// The ids that would end an n-gram of `size` ids which `ids` holds already.
fn ending_a_repeated_ngram(ids: &[u32], size: usize) -> impl Iterator<Item = u32> {
    let last = (ids.len() + 1).checked_sub(size).map_or(&[] as &[u32], |from| &ids[from..]);
    // Shorter than the beginning of an n-gram: nothing can repeat.
    let windows = if last.len() + 1 == size { ids } else { &[] };
    windows.windows(size).filter(move |ngram| ngram[..size - 1] == *last).map(move |n| n[size - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_penalty_pushes_every_known_id_down_once() {
        let mut scores = [2.0, -2.0, 3.0];
        penalise(&mut scores, &[0, 1, 0, 9], 2.0);
        assert_eq!(scores, [1.0, -4.0, 3.0]);
    }

    #[test]
    fn ngrams_end_only_where_their_beginning_is_repeated() {
        let after = |ids: &[u32], size| ending_a_repeated_ngram(ids, size).collect::<Vec<_>>();
        assert_eq!(after(&[1, 2, 3, 1, 2], 3), [3]);
        assert_eq!(after(&[1, 2, 3, 1, 2], 2), [3]);
        assert_eq!(after(&[1, 2, 1, 3, 1], 2), [2, 3]);
        assert_eq!(after(&[1, 2, 3], 1), [1, 2, 3]);
        assert_eq!(after(&[1, 2, 3], 2), [] as [u32; 0]);
        assert_eq!(after(&[1], 3), [] as [u32; 0]);
        assert_eq!(after(&[], 1), [] as [u32; 0]);
    }

    #[test]
    fn the_end_waits_for_the_least_length() {
        let config = GenerateConfig { min_new_tokens: 2, ..GenerateConfig::greedy(5) };
        for (new_tokens, expected) in [(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY), (2, 0.5)] {
            let mut scores = [0.5, 0.5];
            constrain(&mut scores, &[0], new_tokens, 1, &config);
            assert_eq!(scores, [0.5, expected]);
        }
    }
}
