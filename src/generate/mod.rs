//! Decoding strategies over a step function: greedy, sampling, beam search and beam sampling. Knows
//! token ids only.

mod beam;
mod config;
mod constraints;
mod rows;
mod sample;
mod session;

pub use config::{EarlyStopping, GenerateConfig};
pub use session::{Session, generate_from_memory, generate_images};

use crate::model;

/// What a decoding strategy needs of a model: logits of the next token for a fixed number of rows,
/// an image's rows side by side.
pub trait StepModel {
    /// Number of token ids, the length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Feeds `ids`, `[rows, seq]` row by row, after all that was fed before, and returns the logits
    /// of the next token, `[rows, vocab_size]` row by row.
    ///
    /// # Errors
    /// A message of the device, if it failed.
    fn step(&mut self, ids: &[u32], seq: usize) -> Result<Vec<f32>, GenerateError>;

    /// Makes row `i` continue from what row `rows[i]` was fed; both read the same image.
    fn reorder(&mut self, rows: &[usize]);

    /// Drops all rows but those of `images`, given by their places among the images that are left.
    /// Returns whether it did: where another number of rows is dear, none is dropped.
    fn keep_images(&mut self, _images: &[usize]) -> bool {
        false
    }
}

/// Why decoding failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The configuration cannot be decoded with.
    #[error("`{key}`: {problem}")]
    Config {
        /// The key (and flag) at fault.
        key: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The device failed while decoding.
    #[error("the device failed while decoding: {0}")]
    Device(String),
    /// Logits are not numbers: the weights are damaged or the device computes wrongly.
    #[error("the model's logits are not finite at token {position}; are the weights damaged?")]
    NotFinite {
        /// Tokens decoded before.
        position: usize,
    },
}

/// One decoded sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Token ids: the prompt, what was decoded, and the end token if it came.
    pub ids: Vec<u32>,
    /// Natural log-probability of each decoded id (the prompt has none), by the model itself: no
    /// constraint and no temperature has changed it.
    pub log_probabilities: Vec<f32>,
    /// Sum of log-probabilities over `length^length_penalty`. In beam search they are as constraints
    /// and temperature have changed them, as transformers scores beams.
    pub score: f32,
}

/// Decodes `config.num_captions` captions for each of `images`, starting from `prompt` (at least the
/// begin token): an image's side by side, of beams the best first. `images` are numbers, one an image,
/// that sampling seeds its draws with, so that an image's captions do not depend on what is decoded
/// beside it.
/// `model` must have `config.rows_per_image()` rows an image and have been fed nothing.
///
/// # Errors
/// A configuration out of range, a failing device, logits that are not finite.
pub fn generate(
    model: &mut dyn StepModel,
    images: impl IntoIterator<Item = u64>,
    prompt: &[u32],
    end: u32,
    config: &GenerateConfig,
) -> Result<Vec<Generated>, GenerateError> {
    config.validate(model.vocab_size())?;
    let config = &config.after_prompt(prompt.len())?;
    let images: Vec<u64> = images.into_iter().collect();
    let mut ends = vec![end];
    ends.extend(&config.eos_token_ids);
    if config.num_beams == 1 {
        rows::decode_rows(model, &images, prompt, &ends, config)
    } else {
        beam::beam_search(model, &images, prompt, &ends, config)
    }
}

/// Drops the images that are done, of those `left` in the model, once they are a quarter.
fn drop_done(model: &mut dyn StepModel, left: &mut Vec<usize>, is_done: impl Fn(usize) -> bool) {
    let kept: Vec<usize> = (0..left.len()).filter(|&place| !is_done(left[place])).collect();
    if 4 * kept.len() <= 3 * left.len() && model.keep_images(&kept) {
        *left = kept.into_iter().map(|place| left[place]).collect();
    }
}

/// Turns a row of logits into log-probabilities in place.
fn log_softmax(row: &mut [f32], position: usize) -> Result<(), GenerateError> {
    if !model::log_softmax(row).is_finite() {
        return Err(GenerateError::NotFinite { position });
    }
    Ok(())
}

/// `sum / length^penalty`.
fn score(sum: f32, length: usize, penalty: f32) -> f32 {
    sum / (length as f32).powf(penalty)
}

#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod sampling_tests;
#[cfg(test)]
mod tests;
