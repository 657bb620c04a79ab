//! What a word's probability becomes as more and more of a photo is taken from the model, in some order of
//! the patches: deletion and insertion curves (Petsiuk et al. 2018, <https://arxiv.org/abs/1806.07421>).

use std::fmt;

use burn::tensor::{Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::imputation::{PatchGrid, impute};
use super::passes::Passes;
use super::{InspectError, View};

/// Shares of the patches that are taken away, from none.
pub const SHARES: [f64; 7] = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9];

/// Rows that are decoded together.
const ROWS: usize = 48;

/// How patches are taken from the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// Cross-attention does not read them. The features that are left still know of their surroundings.
    Memory,
    /// Their pixels are filled from those around them (Rong et al. 2022).
    Pixels,
}

impl Removal {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Memory, Self::Pixels];

    /// The name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pixels => "pixels",
        }
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A word's probability, in `[0, 1]`, at each of [`SHARES`].
pub type Curve = [f32; SHARES.len()];

/// The mean of a curve over its shares, by trapezoids, in `[0, 1]`.
pub fn area(curve: &Curve) -> f64 {
    let mut sum = 0.0;
    for at in 1..SHARES.len() {
        let width = SHARES[at] - SHARES[at - 1];
        sum += width * f64::from(curve[at - 1] + curve[at]) / 2.0;
    }
    sum / (SHARES[SHARES.len() - 1] - SHARES[0])
}

/// The patches of a map in the order of their values, the largest or the smallest first; the first of
/// equals first, so that an even map has an order as well.
pub fn order(map: &[f32], largest_first: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..map.len()).collect();
    order.sort_by(|a, b| match largest_first {
        true => map[*b].total_cmp(&map[*a]),
        false => map[*a].total_cmp(&map[*b]),
    });
    order
}

/// The patches in an order drawn at random.
pub fn random_order(patches: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..patches).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

/// A word, by its steps, and the order in which patches are taken away.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub steps: Vec<usize>,
    pub order: Vec<usize>,
}

impl View<'_> {
    /// The curve of each question about a caption, `ids` from the begin token on. `progress` is told how
    /// many more photos or memories were read.
    pub(crate) fn curves(
        &self,
        ids: &[u32],
        questions: &[Question],
        removal: Removal,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Curve>, InspectError> {
        let passes = Passes { checkpoint: self.checkpoint, device: self.device, ids };
        let whole = passes.log_probabilities(self.memory.clone())?;
        let mut curves = vec![[0.0; SHARES.len()]; questions.len()];
        let probability = |all: &[f32], question: &Question| -> f32 {
            question.steps.iter().map(|&step| all[step]).sum::<f32>().exp()
        };
        for (curve, question) in curves.iter_mut().zip(questions) {
            curve[0] = probability(&whole[0], question);
        }
        for (place, share) in SHARES.iter().enumerate().skip(1) {
            let found = match removal {
                Removal::Memory => self.without_memory(&passes, questions, *share, progress)?,
                Removal::Pixels => self.without_pixels(&passes, questions, *share, progress)?,
            };
            for ((curve, question), all) in curves.iter_mut().zip(questions).zip(&found) {
                curve[place] = probability(all, question);
            }
        }
        Ok(curves)
    }

    fn without_memory(
        &self,
        passes: &Passes<'_>,
        questions: &[Question],
        share: f64,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f32>>, InspectError> {
        let prefix = self.checkpoint.model.config().encoder.num_prefix();
        let [_, positions, width] = self.memory.dims();
        let memory = self.memory.clone().reshape([positions, width]);
        let mut found = Vec::with_capacity(questions.len());
        for part in questions.chunks(ROWS) {
            let mut places = Vec::new();
            for question in part {
                let mut left = question.order[taken(share, question.order.len())..].to_vec();
                left.sort_unstable();
                places.extend((0..prefix).map(|at| at as i32));
                places.extend(left.iter().map(|at| (prefix + at) as i32));
            }
            let (rows, count) = (part.len(), places.len());
            let places = TensorData::new(places, [count]);
            let places = Tensor::<1, Int>::from_data(places, self.device);
            let kept = memory.clone().select(0, places).reshape([rows, count / rows, width]);
            found.extend(passes.log_probabilities(kept)?);
            progress(rows);
        }
        Ok(found)
    }

    fn without_pixels(
        &self,
        passes: &Passes<'_>,
        questions: &[Question],
        share: f64,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f32>>, InspectError> {
        let encoder = &self.checkpoint.model.config().encoder;
        let [rows, cols] = encoder.grid();
        let grid = PatchGrid { rows, cols, side: encoder.patch_size };
        let change = |pixels: &mut [f32], question: &Question| {
            let mut gone = vec![false; question.order.len()];
            for &patch in &question.order[..taken(share, gone.len())] {
                gone[patch] = true;
            }
            impute(pixels, grid, &gone, self.identity);
        };
        passes.with_changes(&self.pixels, questions, change, progress)
    }
}

/// How many of so many patches a share is; one is left.
fn taken(share: f64, patches: usize) -> usize {
    ((share * patches as f64).round() as usize).min(patches.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_of_a_curve_is_its_mean() {
        assert!((area(&[0.5; 7]) - 0.5).abs() < 1e-9);
        // A straight line from 0.9 to 0.
        let line = SHARES.map(|share| (0.9 - share) as f32);
        assert!((area(&line) - 0.45).abs() < 1e-6, "{}", area(&line));
    }

    #[test]
    fn orders_are_of_all_patches() {
        assert_eq!(order(&[0.1, 0.7, -0.2, 0.7], true), [1, 3, 0, 2]);
        assert_eq!(order(&[0.1, 0.7, -0.2, 0.7], false), [2, 0, 1, 3]);
        let drawn = random_order(9, 4);
        assert_eq!(drawn, random_order(9, 4));
        let mut sorted = drawn.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..9).collect::<Vec<_>>());
        assert_ne!(drawn, sorted);
    }

    #[test]
    fn one_patch_is_always_left() {
        assert_eq!((taken(0.9, 1), taken(0.9, 4), taken(0.5, 81), taken(0.0, 9)), (0, 3, 41, 0));
    }
}
