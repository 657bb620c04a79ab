//! What transformers calls logits processors: a minimum length, no n-gram twice, a penalty on
//! repetition, tokens that must or must not come. They change the scores that a token is chosen by,
//! not the model's own probabilities.

use super::GenerateConfig;

/// Whether [`constrain`] may change a score: without constraints nobody need keep a copy.
pub(super) fn are_set(config: &GenerateConfig) -> bool {
    config.repetition_penalty != 1.0
        || config.no_repeat_ngram_size > 0
        || !config.bad_words_ids.is_empty()
        || config.min_new_tokens > 0
        || config.forced_bos_token_id.is_some()
        || !config.forced_eos_token_ids.is_empty()
        || !config.suppress_tokens.is_empty()
        || !config.begin_suppress_tokens.is_empty()
}

/// Changes the scores of the token after `ids` (prompt and all), of which `new_tokens` were decoded;
/// `ends` are the tokens that end a caption. Scores are logits in greedy decoding and sampling, and
/// log-probabilities in beam search, as in transformers, whose order this is.
pub(super) fn constrain(
    scores: &mut [f32],
    ids: &[u32],
    new_tokens: usize,
    ends: &[u32],
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
    for words in &config.bad_words_ids {
        // An end token alone is no word.
        if let Some((&last, before)) = words.split_last()
            && ids.ends_with(before)
            && !(before.is_empty() && ends.contains(&last))
        {
            forbid(scores, last);
        }
    }
    if new_tokens < config.min_new_tokens {
        ends.iter().for_each(|&end| forbid(scores, end));
    }
    // The begin token alone, without a prompt.
    if let Some(first) = config.forced_bos_token_id
        && ids.len() == 1
    {
        force(scores, &[first]);
    }
    if !config.forced_eos_token_ids.is_empty() && new_tokens + 1 == config.max_new_tokens {
        force(scores, &config.forced_eos_token_ids);
    }
    config.suppress_tokens.iter().for_each(|&id| forbid(scores, id));
    // A token that is forced first is none that could be suppressed: then it is the next one's turn.
    let forced_first = config.forced_bos_token_id.is_some() && ids.len() == new_tokens + 1;
    if new_tokens == usize::from(forced_first) {
        config.begin_suppress_tokens.iter().for_each(|&id| forbid(scores, id));
    }
}

fn forbid(scores: &mut [f32], id: u32) {
    if let Some(score) = scores.get_mut(id as usize) {
        *score = f32::NEG_INFINITY;
    }
}

/// Leaves nothing but `ids`.
fn force(scores: &mut [f32], ids: &[u32]) {
    scores.fill(f32::NEG_INFINITY);
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = 0.0;
        }
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
            constrain(&mut scores, &[0], new_tokens, &[1], &config);
            assert_eq!(scores, [0.5, expected]);
        }
    }
}
