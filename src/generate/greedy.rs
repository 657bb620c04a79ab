//! Greedy decoding: the likeliest token at each step, the smaller id on ties.

use std::borrow::Cow;

use super::constraints::{self, constrain};
use super::{GenerateConfig, GenerateError, Generated, StepModel, log_softmax, score};

pub(super) fn greedy(
    model: &mut dyn StepModel,
    images: usize,
    prompt: &[u32],
    end: u32,
    config: &GenerateConfig,
) -> Result<Vec<Generated>, GenerateError> {
    let vocab = model.vocab_size();
    let mut rows: Vec<Generated> = (0..images)
        .map(|_| Generated { ids: prompt.to_vec(), log_probabilities: Vec::new(), score: 0.0 })
        .collect();
    let mut sums = vec![0.0f32; images];
    let mut finished = vec![false; images];
    let mut logits = model.step(&prompt.repeat(images), prompt.len())?;
    for position in 0..config.max_new_tokens {
        // A finished row is fed the end token and ignored: the batch keeps its shape.
        let mut next = vec![end; images];
        for (image, row) in rows.iter_mut().enumerate() {
            if finished[image] {
                continue;
            }
            let scores = &mut logits[image * vocab..(image + 1) * vocab];
            let mut choice = Cow::Borrowed(&*scores);
            if constraints::are_set(config) {
                constrain(choice.to_mut(), &row.ids, position, end, config);
            }
            let best =
                (1..vocab).fold(0, |best, id| if choice[id] > choice[best] { id } else { best });
            log_softmax(scores, position)?;
            next[image] = best as u32;
            sums[image] += scores[best];
            row.ids.push(best as u32);
            row.log_probabilities.push(scores[best]);
            finished[image] = best as u32 == end;
        }
        if finished.iter().all(|&done| done) || position + 1 == config.max_new_tokens {
            break;
        }
        logits = model.step(&next, 1)?;
    }
    for (row, sum) in rows.iter_mut().zip(sums) {
        row.score = score(sum, row.log_probabilities.len(), config.length_penalty);
    }
    Ok(rows)
}
