//! Self-critical sequence training (Rennie et al. 2017, <https://arxiv.org/abs/1612.00563>): captions are
//! sampled, and those that score above a baseline become likelier, those below it less likely. The score
//! is CIDEr-D with document frequencies of the training captions.

use std::fmt;

use burn::module::Module;
use burn::tensor::Device;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::gradients::memory;
use super::plan::Plan;
use super::trained::FrozenPart;
use crate::data::{Batch, LoaderConfig};
use crate::generate::{GenerateConfig, Generated, generate_from_memory};
use crate::metrics::CiderDOfWords;
use crate::metrics::ptb::tokenize;
use crate::model::Captioner;

/// The phase after the one on captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScstConfig {
    /// Passes over all training images; may be fractional.
    pub epochs: f64,
    /// Stop after this many steps instead.
    pub max_steps: Option<u64>,
    /// Learning rate of every step.
    pub learning_rate: f64,
    /// Images a step.
    pub batch_size: usize,
    /// Captions sampled of each image.
    pub samples: usize,
    /// What a sample has to be better than.
    pub baseline: Baseline,
}

impl Default for ScstConfig {
    fn default() -> Self {
        Self {
            epochs: 5.0,
            max_steps: None,
            learning_rate: 1e-5,
            batch_size: 16,
            samples: 5,
            baseline: Baseline::Mean,
        }
    }
}

/// What a sample has to be better than.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// The mean of the image's other samples (Luo 2020, <https://arxiv.org/abs/2003.09971>).
    #[default]
    Mean,
    /// The greedy caption (Rennie et al. 2017).
    Greedy,
}

/// Rewards, and what they need.
pub(super) struct SelfCritical {
    config: ScstConfig,
    cider: CiderDOfWords,
    /// Tokenised captions of each training image.
    references: Vec<Vec<String>>,
}

impl fmt::Debug for SelfCritical {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("SelfCritical").field("config", &self.config).finish_non_exhaustive()
    }
}

impl SelfCritical {
    /// Counts the n-grams of the training captions.
    pub fn new(plan: &Plan, config: &ScstConfig) -> Self {
        let references: Vec<Vec<String>> = plan
            .train_references
            .par_iter()
            .map(|captions| captions.iter().map(|caption| tokenize(caption)).collect())
            .collect();
        let cider = CiderDOfWords::from_references(&references);
        Self { config: config.clone(), cider, references }
    }

    /// Turns a batch of images into one of captions sampled by `model`, each token weighted by how much
    /// better its caption is than the baseline. Returns the mean reward.
    pub fn sample(
        &self,
        model: &Captioner,
        batch: Batch,
        plan: &Plan,
        loader: &LoaderConfig,
        device: &Device,
        seed: u64,
    ) -> Result<(Batch, f64), TrainError> {
        let device = device.clone().inner();
        let model = model.valid();
        let special = plan.tokenizer.special_tokens();
        let (prompt, most) = (plan.begin(), plan.max_new_tokens());
        let mut pixels =
            Batch { images: batch.images, pixels: batch.pixels.clone(), ..Batch::default() };
        let memory = memory(&model, &mut pixels, loader, FrozenPart::Nothing, &device);
        let decode = |config: &GenerateConfig| {
            generate_from_memory(&model, &memory, &prompt, special.eos, config, loader.bucket)
        };
        let samples = self.config.samples;
        let sampled = decode(&GenerateConfig::sampling(samples, most, seed))?;
        let reward = |(index, caption): (usize, &Generated), of_each: usize| {
            let text = tokenize(&plan.tokenizer.decode(&caption.ids[prompt.len()..]));
            let references = batch.examples.get(index / of_each).map(|&at| &self.references[at]);
            references.map_or(0.0, |references| self.cider.score(&text, references))
        };
        let rewards: Vec<f64> =
            sampled.par_iter().enumerate().map(|caption| reward(caption, samples)).collect();
        let baselines: Vec<f64> = match self.config.baseline {
            Baseline::Mean => {
                let others = (samples - 1).max(1) as f64;
                let of_image = |rewards: &[f64]| -> Vec<f64> {
                    let sum: f64 = rewards.iter().sum();
                    rewards.iter().map(|reward| (sum - reward) / others).collect()
                };
                rewards.chunks(samples).flat_map(of_image).collect()
            }
            Baseline::Greedy => {
                let greedy = decode(&GenerateConfig::greedy(most))?;
                let of_image = greedy.par_iter().enumerate().map(|caption| reward(caption, 1));
                let of_image: Vec<f64> = of_image.collect();
                of_image.iter().flat_map(|&reward| std::iter::repeat_n(reward, samples)).collect()
            }
        };
        let mean = rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;
        let advantages = rewards.iter().zip(baselines).map(|(reward, base)| (reward - base) as f32);
        let advantages: Vec<f32> = advantages.collect();
        Ok((
            weighted(
                batch,
                &sampled,
                &advantages,
                prompt.len(),
                samples,
                special.pad,
                loader.bucket,
            ),
            mean,
        ))
    }
}

/// A batch whose text is `sampled`, of which all after the first `given` tokens are targets.
fn weighted(
    batch: Batch,
    sampled: &[Generated],
    advantages: &[f32],
    given: usize,
    samples: usize,
    pad: u32,
    bucket: usize,
) -> Batch {
    let longest = sampled.iter().map(|caption| caption.ids.len() - 1).max().unwrap_or(1);
    let seq = longest.max(1).next_multiple_of(bucket.max(1));
    let mut text = Batch { captions_per_image: samples, seq, ..batch };
    (text.inputs, text.positions, text.targets) = Default::default();
    for (caption, &advantage) in sampled.iter().zip(advantages) {
        let start = text.inputs.len();
        let ids = &caption.ids;
        text.inputs.extend(ids[..ids.len() - 1].iter().map(|&id| id as i32));
        text.inputs.resize(start + seq, pad as i32);
        for (at, &id) in ids.iter().enumerate().skip(given) {
            text.positions.push((start + at - 1) as i32);
            text.targets.push(id as i32);
            text.weights.push(advantage);
        }
    }
    text.tokens = text.targets.len();
    // A GPU wants few numbers of targets.
    let multiple = if bucket > 1 { bucket * 16 } else { 1 };
    text.positions.resize(text.tokens.next_multiple_of(multiple), 0);
    text.targets.resize(text.positions.len(), 0);
    text.weights.resize(text.positions.len(), 0.0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_tokens_are_targets_with_their_captions_advantage() {
        let caption = |ids: &[u32]| Generated {
            ids: ids.to_vec(),
            log_probabilities: Vec::new(),
            score: 0.0,
        };
        let sampled = [caption(&[1, 8, 11, 2]), caption(&[1, 8, 12, 13, 2])];
        let batch = Batch { images: 1, inputs: vec![9; 3], targets: vec![9], ..Batch::default() };
        let text = weighted(batch, &sampled, &[0.5, -0.5], 2, 2, 0, 1);
        assert_eq!((text.seq, text.captions_per_image, text.tokens), (4, 2, 5));
        assert_eq!(text.inputs, [1, 8, 11, 0, 1, 8, 12, 13]);
        assert_eq!(text.positions, [1, 2, 5, 6, 7]);
        assert_eq!(text.targets, [11, 2, 12, 13, 2]);
        assert_eq!(text.weights, [0.5, 0.5, -0.5, -0.5, -0.5]);
    }
}
