//! Decoding in which every row goes its own way: greedy (the likeliest token at each step, the
//! smaller id on ties), and sampling.

use std::ops::Range;

use super::constraints::{self, constrain};
use super::sample::{Draws, warp};
use super::{GenerateConfig, GenerateError, Generated, StepModel, log_softmax, score};

struct Row {
    ids: Vec<u32>,
    log_probabilities: Vec<f32>,
    sum: f32,
    finished: bool,
    /// `None`: greedy.
    draws: Option<Draws>,
}

pub(super) fn decode_rows(
    model: &mut dyn StepModel,
    images: Range<u64>,
    prompt: &[u32],
    ends: &[u32],
    config: &GenerateConfig,
) -> Result<Vec<Generated>, GenerateError> {
    let vocab = model.vocab_size();
    let row = |image: u64, sample: usize| Row {
        ids: prompt.to_vec(),
        log_probabilities: Vec::new(),
        sum: 0.0,
        finished: false,
        draws: config.do_sample.then(|| Draws::new(config.seed, image, sample as u64)),
    };
    let mut rows: Vec<Row> = images
        .flat_map(|image| (0..config.num_captions).map(move |sample| (image, sample)))
        .map(|(image, sample)| row(image, sample))
        .collect();
    let changed = config.do_sample || constraints::are_set(config);
    let mut scratch = Vec::new();
    let mut logits = model.step(&prompt.repeat(rows.len()), prompt.len())?;
    for position in 0..config.max_new_tokens {
        // A finished row is fed an end token and ignored: the batch keeps its shape.
        let mut next = vec![ends[0]; rows.len()];
        for ((row, logits), next) in rows.iter_mut().zip(logits.chunks_mut(vocab)).zip(&mut next) {
            if row.finished {
                continue;
            }
            let id = if changed {
                scratch.clear();
                scratch.extend_from_slice(logits);
                constrain(&mut scratch, &row.ids, position, ends, config);
                let drawn = row.draws.as_mut().and_then(|draws| {
                    warp(&mut scratch, 1, config);
                    draws.one(&scratch)
                });
                drawn.unwrap_or_else(|| likeliest(&scratch))
            } else {
                likeliest(logits)
            };
            log_softmax(logits, position)?;
            *next = id as u32;
            row.sum += logits[id];
            row.ids.push(id as u32);
            row.log_probabilities.push(logits[id]);
            row.finished = ends.contains(&(id as u32));
        }
        if rows.iter().all(|row| row.finished) || position + 1 == config.max_new_tokens {
            break;
        }
        logits = model.step(&next, 1)?;
    }
    let generated = |row: Row| {
        let score = score(row.sum, row.log_probabilities.len(), config.length_penalty);
        Generated { ids: row.ids, log_probabilities: row.log_probabilities, score }
    };
    Ok(rows.into_iter().map(generated).collect())
}

fn likeliest(scores: &[f32]) -> usize {
    (1..scores.len()).fold(0, |best, id| if scores[id] > scores[best] { id } else { best })
}
