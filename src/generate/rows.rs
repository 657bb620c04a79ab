//! Decoding in which every row goes its own way: greedy (the likeliest token at each step, the
//! smaller id on ties), and sampling.

use super::constraints::{self, constrain};
use super::sample::{Draws, warp};
use super::{GenerateConfig, GenerateError, Generated, StepModel, drop_done, log_softmax, score};

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
    images: &[u64],
    prompt: &[u32],
    ends: &[u32],
    config: &GenerateConfig,
) -> Result<Vec<Generated>, GenerateError> {
    let vocab = model.vocab_size();
    let of_image = config.num_captions;
    let mut left: Vec<usize> = (0..images.len()).collect();
    let row = |image: u64, sample: usize| Row {
        ids: prompt.to_vec(),
        log_probabilities: Vec::new(),
        sum: 0.0,
        finished: false,
        draws: config.do_sample.then(|| Draws::new(config.seed, image, sample as u64)),
    };
    let mut rows: Vec<Row> = images
        .iter()
        .flat_map(|&image| (0..of_image).map(move |sample| (image, sample)))
        .map(|(image, sample)| row(image, sample))
        .collect();
    let changed = config.do_sample || constraints::are_set(config);
    let mut scratch = Vec::new();
    let mut logits = model.step(&prompt.repeat(rows.len()), prompt.len())?;
    for position in 0..config.max_new_tokens {
        let places = left.iter().flat_map(|image| image * of_image..(image + 1) * of_image);
        for (row, logits) in places.zip(logits.chunks_mut(vocab)) {
            let row = &mut rows[row];
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
            row.sum += logits[id];
            row.ids.push(id as u32);
            row.log_probabilities.push(logits[id]);
            row.finished = ends.contains(&(id as u32));
        }
        if rows.iter().all(|row| row.finished) || position + 1 == config.max_new_tokens {
            break;
        }
        drop_done(model, &mut left, |image| {
            rows[image * of_image..(image + 1) * of_image].iter().all(|row| row.finished)
        });
        // A finished row is fed its end token and ignored.
        let places = left.iter().flat_map(|image| image * of_image..(image + 1) * of_image);
        let next: Vec<u32> =
            places.map(|row| rows[row].ids.last().copied().unwrap_or(ends[0])).collect();
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
