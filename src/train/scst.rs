//! Self-critical sequence training (Rennie et al. 2017, <https://arxiv.org/abs/1612.00563>): captions are
//! sampled, and those that score above a baseline become likelier, those below it less likely. The score
//! is CIDEr-D with document frequencies of the training captions.
//!
//! That a caption ends counts as its last word, in references too. Otherwise captions that break off
//! ("a dog runs through a") score better than whole ones, by up to 4 points of CIDEr, and are what is
//! learned (Hu et al. 2023, <https://arxiv.org/abs/2305.12254>).

use std::fmt;
use std::ops::Range;

use burn::tensor::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::gradients::Said;
use super::plan::Plan;
use crate::data::Batch;
use crate::generate::{GenerateConfig, Generated, generate_images};
use crate::metrics::CiderDOfWords;
use crate::metrics::ptb::tokenize;
use crate::model::Captioner;

/// The last word of a caption that ends: in capitals, which no token of a caption has.
const END: &str = "END";

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
    /// Logits are divided by this, in sampling and in learning: the policy is the model at this temperature.
    /// Label smoothing gives words that no one means a tenth of the probability; at 1 most samples have one,
    /// and what is learned is to say them less, which beams never did.
    pub temperature: f32,
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
            temperature: 0.6,
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
    /// Lengths are rounded up to a multiple of this.
    bucket: usize,
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
    pub fn new(plan: &Plan, config: &ScstConfig, bucket: usize) -> Self {
        let references: Vec<Vec<String>> = plan
            .train_references
            .par_iter()
            .map(|captions| captions.iter().map(|caption| words(caption, true)).collect())
            .collect();
        let cider = CiderDOfWords::from_references(&references);
        Self { config: config.clone(), bucket, cider, references }
    }

    /// Samples captions of the images `part` of `batch` from `model`: captions whose tokens are weighted by
    /// how much better they are than the baseline, and the sum of the images' mean rewards.
    ///
    /// `memory`: `[part.len(), patches, memory_width]`, as the model, without autodiff.
    pub fn say(
        &self,
        model: &Captioner,
        memory: &Tensor<3>,
        batch: &Batch,
        part: Range<usize>,
        plan: &Plan,
        seed: u64,
    ) -> Result<Said, TrainError> {
        let special = plan.tokenizer.special_tokens();
        let (prompt, most) = (plan.begin(), plan.max_new_tokens());
        let first = part.start as u64;
        let decode = |config: &GenerateConfig| {
            generate_images(model, memory, first.., &prompt, special.eos, config, self.bucket)
        };
        let rewards = |captions: &[Generated], of_each: usize| -> Vec<f64> {
            let reward = |(index, caption): (usize, &Generated)| {
                let text = plan.tokenizer.decode(&caption.ids[prompt.len()..]);
                let text = words(&text, caption.ids.last() == Some(&special.eos));
                let example = batch.examples.get(part.start + index / of_each);
                let references = example.and_then(|&at| self.references.get(at));
                references.map_or(0.0, |references| self.cider.score(&text, references))
            };
            captions.par_iter().enumerate().map(reward).collect()
        };
        let samples = self.config.samples;
        let captions = decode(&GenerateConfig {
            temperature: self.config.temperature,
            ..GenerateConfig::sampling(samples, most, seed)
        })?;
        let of_samples = rewards(&captions, samples);
        let baselines: Vec<f64> = match self.config.baseline {
            Baseline::Mean => of_samples.chunks(samples).flat_map(means_of_others).collect(),
            Baseline::Greedy => {
                let greedy = rewards(&decode(&GenerateConfig::greedy(most))?, 1);
                greedy.iter().flat_map(|&reward| std::iter::repeat_n(reward, samples)).collect()
            }
        };
        let better = of_samples.iter().zip(&baselines).map(|(reward, base)| reward - base);
        let advantages: Vec<f32> = better.map(|better| better as f32).collect();
        let reward = of_samples.iter().sum::<f64>() / samples as f64;
        let given = prompt.len();
        Ok(weighted(&captions, &advantages, reward, given, samples, special.pad, self.bucket))
    }
}

/// A caption as it is scored.
fn words(caption: &str, ends: bool) -> String {
    let mut words = tokenize(caption);
    if ends {
        words.push(' ');
        words.push_str(END);
    }
    words
}

/// For each reward of an image the mean of the others.
fn means_of_others(rewards: &[f64]) -> Vec<f64> {
    let sum: f64 = rewards.iter().sum();
    let others = (rewards.len().max(2) - 1) as f64;
    rewards.iter().map(|reward| (sum - reward) / others).collect()
}

/// `samples` captions an image, each with its advantage; all after the first `given` tokens are targets.
pub(super) fn weighted(
    sampled: &[Generated],
    advantages: &[f32],
    reward: f64,
    given: usize,
    samples: usize,
    pad: u32,
    bucket: usize,
) -> Said {
    let longest = sampled.iter().map(|caption| caption.ids.len() - 1).max().unwrap_or(1);
    let seq = longest.max(1).next_multiple_of(bucket.max(1));
    let images = sampled.len() / samples;
    let mut text = Batch { images, captions_per_image: samples, seq, ..Batch::default() };
    let mut weights = Vec::new();
    for (caption, &advantage) in sampled.iter().zip(advantages) {
        let start = text.inputs.len();
        let ids = &caption.ids;
        text.inputs.extend(ids[..ids.len() - 1].iter().map(|&id| id as i32));
        text.inputs.resize(start + seq, pad as i32);
        for (at, &id) in ids.iter().enumerate().skip(given) {
            text.positions.push((start + at - 1) as i32);
            text.targets.push(id as i32);
            weights.push(advantage);
        }
    }
    text.tokens = text.targets.len();
    // A GPU wants few numbers of targets.
    let multiple = if bucket > 1 { bucket * 16 } else { 1 };
    text.positions.resize(text.tokens.next_multiple_of(multiple), 0);
    text.targets.resize(text.positions.len(), 0);
    weights.resize(text.positions.len(), 0.0);
    Said { text, advantages: weights, reward }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_that_breaks_off_scores_less_than_the_whole_one() {
        let images = ["a dog runs through grass", "a cat sleeps", "two men talk"];
        let references = images.map(|caption| [words(caption, true)]);
        let cider = CiderDOfWords::from_references(&references);
        let score = |caption: &str, ends| cider.score(&words(caption, ends), &references[0]);
        let whole = score("A dog runs through grass.", true);
        assert!((whole - 10.0).abs() < 1e-9, "{whole}");
        // Cut by the greatest length, and a sentence that the model itself left unfinished.
        assert!(score("A dog runs through grass", false) < 0.95 * whole);
        assert!(score("a dog runs through", true) < score("a dog runs through grass", true));
        // A caption's own word is another.
        assert!(score("a dog runs through grass END", false) < whole);
    }

    #[test]
    fn each_sample_is_compared_with_the_others() {
        assert_eq!(means_of_others(&[1.0, 2.0, 6.0]), [4.0, 3.5, 1.5]);
    }

    #[test]
    fn sampled_tokens_are_targets_with_their_captions_advantage() {
        let caption = |ids: &[u32]| Generated {
            ids: ids.to_vec(),
            log_probabilities: Vec::new(),
            score: 0.0,
        };
        let sampled = [caption(&[1, 8, 11, 2]), caption(&[1, 8, 12, 13, 2])];
        let Said { text, advantages, reward } = weighted(&sampled, &[0.5, -0.5], 1.5, 2, 2, 0, 1);
        assert_eq!((text.images, text.captions_per_image, text.seq, text.tokens), (1, 2, 4, 5));
        assert_eq!(text.inputs, [1, 8, 11, 0, 1, 8, 12, 13]);
        assert_eq!(text.positions, [1, 2, 5, 6, 7]);
        assert_eq!(text.targets, [11, 2, 12, 13, 2]);
        assert_eq!((advantages, reward), (vec![0.5, 0.5, -0.5, -0.5, -0.5], 1.5));
    }
}
