//! Beam search as transformers does it: the best `2 × num_beams` continuations are looked at; those
//! among the first `num_beams` that end become finished hypotheses; the best that go on are the next
//! beams.

use std::borrow::Cow;

use super::constraints::{self, constrain};
use super::{GenerateConfig, GenerateError, Generated, StepModel, log_softmax, score};

/// A hypothesis that goes on.
#[derive(Debug, Clone)]
struct Beam {
    ids: Vec<u32>,
    log_probabilities: Vec<f32>,
    sum: f32,
}

/// One image's search.
struct Search {
    running: Vec<Beam>,
    /// At most `num_beams`, best first.
    finished: Vec<Generated>,
    done: bool,
}

pub(super) fn beam_search(
    model: &mut dyn StepModel,
    images: usize,
    prompt: &[u32],
    end: u32,
    config: &GenerateConfig,
) -> Result<Vec<Generated>, GenerateError> {
    let (vocab, beams) = (model.vocab_size(), config.num_beams);
    let start = |index: usize| Beam {
        ids: prompt.to_vec(),
        log_probabilities: Vec::new(),
        // All beams start alike: only the first may be continued.
        sum: if index == 0 { 0.0 } else { f32::NEG_INFINITY },
    };
    let mut searches: Vec<Search> = (0..images)
        .map(|_| Search { running: (0..beams).map(start).collect(), finished: vec![], done: false })
        .collect();
    let mut logits = model.step(&prompt.repeat(images * beams), prompt.len())?;
    for length in 1..=config.max_new_tokens {
        let mut parents: Vec<usize> = (0..images * beams).collect();
        for (image, search) in searches.iter_mut().enumerate() {
            if search.done {
                continue;
            }
            let rows = &mut logits[image * beams * vocab..(image + 1) * beams * vocab];
            for (row, beam) in rows.chunks_mut(vocab).zip(&search.running) {
                if beam.sum.is_finite() {
                    log_softmax(row, length - 1)?;
                }
            }
            let mut scores = Cow::Borrowed(&*rows);
            if constraints::are_set(config) {
                for (row, beam) in scores.to_mut().chunks_mut(vocab).zip(&search.running) {
                    constrain(row, &beam.ids, length - 1, end, config);
                }
            }
            let chosen = search.advance(&scores, rows, vocab, length, end, config);
            for (beam, parent) in chosen.into_iter().enumerate() {
                parents[image * beams + beam] = image * beams + parent;
            }
        }
        if length == config.max_new_tokens || searches.iter().all(|search| search.done) {
            break;
        }
        model.reorder(&parents);
        let next: Vec<u32> = searches
            .iter()
            .flat_map(|search| &search.running)
            .map(|beam| beam.ids.last().copied().unwrap_or(end))
            .collect();
        logits = model.step(&next, 1)?;
    }
    Ok(searches.into_iter().filter_map(|search| search.finished.into_iter().next()).collect())
}

impl Search {
    /// Takes one step by `scores`, of which the model's own are `log_softmax`; returns, for each new
    /// beam, the beam that it continues.
    fn advance(
        &mut self,
        scores: &[f32],
        own: &[f32],
        vocab: usize,
        length: usize,
        end: u32,
        config: &GenerateConfig,
    ) -> Vec<usize> {
        let beams = config.num_beams;
        let mut next = Vec::with_capacity(beams);
        let mut parents = Vec::with_capacity(beams);
        let last = length == config.max_new_tokens;
        for (rank, (parent, id, sum)) in
            best_continuations(&self.running, scores, vocab, 2 * beams).into_iter().enumerate()
        {
            let mut ids = self.running[parent].ids.clone();
            let mut log_probabilities = self.running[parent].log_probabilities.clone();
            ids.push(id);
            log_probabilities.push(own[parent * vocab + id as usize]);
            if id == end || last {
                if rank < beams {
                    let score = score(sum, length, config.length_penalty);
                    self.finish(Generated { ids, log_probabilities, score }, beams);
                }
            } else if next.len() < beams {
                next.push(Beam { ids, log_probabilities, sum });
                parents.push(parent);
            }
        }
        if next.is_empty() {
            // The last step, or everything that could follow is forbidden: then what there is is the
            // caption.
            if self.finished.is_empty()
                && let Some(Beam { ids, log_probabilities, sum }) = self.running.first().cloned()
            {
                let score = score(sum, (length - 1).max(1), config.length_penalty);
                self.finish(Generated { ids, log_probabilities, score }, beams);
            }
            self.done = true;
            return (0..beams).collect();
        }
        self.running = next;
        // Too small a vocabulary or dead beams leave fewer: fill up with beams that cannot win.
        while self.running.len() < beams {
            let mut filler = self.running[0].clone();
            filler.sum = f32::NEG_INFINITY;
            self.running.push(filler);
            parents.push(parents[0]);
        }
        if self.finished.len() == beams {
            let worst = self.finished.last().map_or(f32::NEG_INFINITY, |worst| worst.score);
            let hope = score(self.running[0].sum, length, config.length_penalty);
            self.done = config.early_stopping || hope <= worst;
        }
        parents
    }

    fn finish(&mut self, hypothesis: Generated, beams: usize) {
        let at = self.finished.partition_point(|other| other.score >= hypothesis.score);
        self.finished.insert(at, hypothesis);
        self.finished.truncate(beams);
    }
}

/// The `count` best `(beam, id, sum)`, best first; ties go to the earlier beam, then the smaller id.
fn best_continuations(
    running: &[Beam],
    scores: &[f32],
    vocab: usize,
    count: usize,
) -> Vec<(usize, u32, f32)> {
    let mut best: Vec<(usize, u32, f32)> = Vec::with_capacity(count + 1);
    for (beam, row) in scores.chunks(vocab).enumerate() {
        let sum = running[beam].sum;
        if !sum.is_finite() {
            continue;
        }
        for (id, &log_probability) in row.iter().enumerate() {
            let total = sum + log_probability;
            // Forbidden.
            if total == f32::NEG_INFINITY {
                continue;
            }
            if best.len() == count && best.last().is_some_and(|last| total <= last.2) {
                continue;
            }
            let at = best.partition_point(|other| other.2 >= total);
            best.insert(at, (beam, id as u32, total));
            best.truncate(count);
        }
    }
    best
}
