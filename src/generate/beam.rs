//! Beam search as transformers does it: the best continuations are looked at, `num_beams` for each end
//! token and as many more; those among the first `num_beams` that end become finished hypotheses; the
//! best that go on are the next beams. With sampling, the continuations are drawn instead, without
//! putting any back.

use std::borrow::Cow;

use super::constraints::{self, constrain};
use super::sample::{Draws, warp};
use super::{
    EarlyStopping, GenerateConfig, GenerateError, Generated, StepModel, drop_done, log_softmax,
    score,
};

/// A hypothesis that goes on.
#[derive(Debug, Clone)]
struct Beam {
    ids: Vec<u32>,
    log_probabilities: Vec<f32>,
    sum: f32,
}

/// One image's search.
struct Search<'a> {
    config: &'a GenerateConfig,
    /// Tokens that end a caption.
    ends: &'a [u32],
    running: Vec<Beam>,
    /// At most `num_beams`, best first.
    finished: Vec<Generated>,
    done: bool,
    /// `None`: the best continuations.
    draws: Option<Draws>,
}

pub(super) fn beam_search(
    model: &mut dyn StepModel,
    images: &[u64],
    prompt: &[u32],
    ends: &[u32],
    config: &GenerateConfig,
) -> Result<Vec<Generated>, GenerateError> {
    let (vocab, beams) = (model.vocab_size(), config.num_beams);
    let changed = config.do_sample || constraints::are_set(config);
    let mut searches: Vec<Search> =
        images.iter().map(|&image| Search::new(image, prompt, ends, config)).collect();
    let mut left: Vec<usize> = (0..searches.len()).collect();
    let mut logits = model.step(&prompt.repeat(left.len() * beams), prompt.len())?;
    for length in 1..=config.max_new_tokens {
        let mut parents: Vec<usize> = (0..left.len() * beams).collect();
        for (place, &image) in left.iter().enumerate() {
            let search = &mut searches[image];
            if search.done {
                continue;
            }
            let rows = &mut logits[place * beams * vocab..(place + 1) * beams * vocab];
            for (row, beam) in rows.chunks_mut(vocab).zip(&search.running) {
                if beam.sum.is_finite() {
                    log_softmax(row, length - 1)?;
                }
            }
            let mut scores = Cow::Borrowed(&*rows);
            if changed {
                for (row, beam) in scores.to_mut().chunks_mut(vocab).zip(&search.running) {
                    constrain(row, &beam.ids, length - 1, ends, config);
                    if config.do_sample {
                        // Something must be left to go on with.
                        warp(row, ends.len() + 1, config);
                    }
                }
            }
            let chosen = search.advance(&scores, rows, vocab, length);
            for (beam, parent) in chosen.into_iter().enumerate() {
                parents[place * beams + beam] = place * beams + parent;
            }
        }
        if length == config.max_new_tokens || searches.iter().all(|search| search.done) {
            break;
        }
        model.reorder(&parents);
        drop_done(model, &mut left, |image| searches[image].done);
        let next: Vec<u32> = left
            .iter()
            .flat_map(|&image| &searches[image].running)
            .map(|beam| beam.ids.last().copied().unwrap_or(ends[0]))
            .collect();
        logits = model.step(&next, 1)?;
    }
    Ok(searches.into_iter().flat_map(Search::captions).collect())
}

impl<'a> Search<'a> {
    fn new(image: u64, prompt: &[u32], ends: &'a [u32], config: &'a GenerateConfig) -> Self {
        let start = |index: usize| Beam {
            ids: prompt.to_vec(),
            log_probabilities: Vec::new(),
            // All beams start alike: only the first may be continued.
            sum: if index == 0 { 0.0 } else { f32::NEG_INFINITY },
        };
        Self {
            config,
            ends,
            running: (0..config.num_beams).map(start).collect(),
            finished: Vec::new(),
            done: false,
            draws: config.do_sample.then(|| Draws::new(config.seed, image, 0)),
        }
    }

    /// Takes one step by `scores`, of which the model's own are `log_softmax`; returns, for each new
    /// beam, the beam that it continues.
    fn advance(&mut self, scores: &[f32], own: &[f32], vocab: usize, length: usize) -> Vec<usize> {
        let (beams, penalty) = (self.config.num_beams, self.config.length_penalty);
        let mut next: Vec<(usize, Beam)> = Vec::with_capacity(beams);
        let last = length == self.config.max_new_tokens;
        let looked_at = (1 + self.ends.len()) * beams;
        let continuations = match &mut self.draws {
            None => best_continuations(&self.running, scores, vocab, looked_at),
            Some(draws) => drawn_continuations(draws, &self.running, scores, vocab, looked_at),
        };
        for (rank, (parent, id, sum)) in continuations.into_iter().enumerate() {
            let mut ids = self.running[parent].ids.clone();
            let mut log_probabilities = self.running[parent].log_probabilities.clone();
            ids.push(id);
            log_probabilities.push(own[parent * vocab + id as usize]);
            if self.ends.contains(&id) || last {
                if rank < beams {
                    let score = score(sum, length, penalty);
                    self.finish(Generated { ids, log_probabilities, score });
                }
            } else {
                next.push((parent, Beam { ids, log_probabilities, sum }));
            }
        }
        if next.is_empty() {
            // The last step, or everything that could follow is forbidden: then what there is is the
            // caption.
            if self.finished.is_empty()
                && let Some(Beam { ids, log_probabilities, sum }) = self.running.first().cloned()
            {
                let score = score(sum, (length - 1).max(1), penalty);
                self.finish(Generated { ids, log_probabilities, score });
            }
            self.done = true;
            return (0..beams).collect();
        }
        // Draws come in any order.
        next.sort_by(|(_, a), (_, b)| b.sum.total_cmp(&a.sum));
        next.truncate(beams);
        // Too small a vocabulary or dead beams leave fewer: fill up with beams that cannot win.
        while next.len() < beams {
            let (parent, mut filler) = next[0].clone();
            filler.sum = f32::NEG_INFINITY;
            next.push((parent, filler));
        }
        let parents;
        (parents, self.running) = next.into_iter().unzip();
        if self.finished.len() == beams {
            let worst = self.finished.last().map_or(f32::NEG_INFINITY, |worst| worst.score);
            // Where length is rewarded, what a beam may become is best at the greatest length.
            let length = match self.config.early_stopping {
                EarlyStopping::Never if penalty > 0.0 => self.config.max_new_tokens,
                _ => length,
            };
            let hope = score(self.running[0].sum, length, penalty);
            self.done = self.config.early_stopping == EarlyStopping::AtOnce || hope <= worst;
        }
        parents
    }

    fn finish(&mut self, hypothesis: Generated) {
        let at = self.finished.partition_point(|other| other.score >= hypothesis.score);
        self.finished.insert(at, hypothesis);
        self.finished.truncate(self.config.num_beams);
    }

    /// The `num_captions` best. Where constraints left fewer hypotheses, the last is there again.
    fn captions(mut self) -> Vec<Generated> {
        if let Some(last) = self.finished.last().cloned() {
            self.finished.resize(self.config.num_captions, last);
        }
        self.finished
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

/// `count` different `(beam, id, sum)` in the order in which they were drawn.
fn drawn_continuations(
    draws: &mut Draws,
    running: &[Beam],
    scores: &[f32],
    vocab: usize,
    count: usize,
) -> Vec<(usize, u32, f32)> {
    let mut sums = scores.to_vec();
    for (row, beam) in sums.chunks_mut(vocab).zip(running) {
        if beam.sum.is_finite() {
            row.iter_mut().for_each(|score| *score += beam.sum);
        } else {
            row.fill(f32::NEG_INFINITY);
        }
    }
    let drawn = draws.several(&sums, count);
    drawn.into_iter().map(|at| (at / vocab, (at % vocab) as u32, sums[at])).collect()
}
