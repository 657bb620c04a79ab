//! Decoding strategies over a step function. Knows token ids only.

mod beam;
mod constraints;
mod greedy;
mod session;

use serde::{Deserialize, Serialize};

pub use session::{Session, generate_from_memory};

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

/// How to decode. Names and meanings are transformers'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// Beams an image; 1 = greedy.
    pub num_beams: usize,
    /// Most tokens to decode after the begin token, the end token included.
    pub max_new_tokens: usize,
    /// Exponent of the length by which a hypothesis' log-probability is divided.
    pub length_penalty: f32,
    /// Stop as soon as `num_beams` hypotheses are finished, instead of when no better one can come.
    pub early_stopping: bool,
    /// Fewest tokens to decode before the end token may come.
    pub min_new_tokens: usize,
    /// No sequence of so many tokens twice; 0 = they may repeat.
    pub no_repeat_ngram_size: usize,
    /// Scores of tokens that were there before are divided by this (multiplied, where negative); 1 =
    /// no penalty.
    pub repetition_penalty: f32,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            num_beams: 3,
            max_new_tokens: 30,
            length_penalty: 1.0,
            early_stopping: false,
            min_new_tokens: 0,
            no_repeat_ngram_size: 0,
            repetition_penalty: 1.0,
        }
    }
}

impl GenerateConfig {
    /// Greedy decoding of at most `max_new_tokens`.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { num_beams: 1, max_new_tokens, ..Self::default() }
    }

    /// Checks ranges against a vocabulary.
    ///
    /// # Errors
    /// The key at fault.
    pub fn validate(&self, vocab_size: usize) -> Result<(), GenerateError> {
        let error = |key, problem| Err(GenerateError::Config { key, problem });
        if self.num_beams == 0 || 2 * self.num_beams > vocab_size {
            return error(
                "num_beams",
                format!(
                    "{}; expected 1 to {} (half the vocabulary)",
                    self.num_beams,
                    vocab_size / 2
                ),
            );
        }
        if self.max_new_tokens == 0 {
            return error("max_new_tokens", "0; expected at least 1".into());
        }
        if !self.length_penalty.is_finite() {
            return error(
                "length_penalty",
                format!("{}; expected a finite number", self.length_penalty),
            );
        }
        if self.min_new_tokens > self.max_new_tokens {
            return error(
                "min_new_tokens",
                format!(
                    "{}; expected at most max_new_tokens = {}",
                    self.min_new_tokens, self.max_new_tokens
                ),
            );
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return error(
                "repetition_penalty",
                format!("{}; expected a positive number", self.repetition_penalty),
            );
        }
        Ok(())
    }
}

/// One decoded sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Token ids: the prompt, what was decoded, and the end token if it came.
    pub ids: Vec<u32>,
    /// Natural log-probability of each decoded id (the prompt has none).
    pub log_probabilities: Vec<f32>,
    /// Sum of log-probabilities over `length^length_penalty`, as transformers scores beams.
    pub score: f32,
}

/// Decodes one caption for each of `images`, starting from `prompt` (at least the begin token).
/// `model` must have `images × config.num_beams` rows and have been fed nothing.
///
/// # Errors
/// A configuration out of range, a failing device, logits that are not finite.
pub fn generate(
    model: &mut dyn StepModel,
    images: usize,
    prompt: &[u32],
    end: u32,
    config: &GenerateConfig,
) -> Result<Vec<Generated>, GenerateError> {
    config.validate(model.vocab_size())?;
    if prompt.is_empty() {
        return Err(GenerateError::Config {
            key: "prompt",
            problem: "empty; expected at least the begin token".into(),
        });
    }
    if config.num_beams == 1 {
        greedy::greedy(model, images, prompt, end, config)
    } else {
        beam::beam_search(model, images, prompt, end, config)
    }
}

/// Turns a row of logits into log-probabilities in place.
fn log_softmax(row: &mut [f32], position: usize) -> Result<(), GenerateError> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
    let log_sum = max + sum.ln() as f32;
    if !log_sum.is_finite() {
        return Err(GenerateError::NotFinite { position });
    }
    row.iter_mut().for_each(|x| *x -= log_sum);
    Ok(())
}

/// `sum / length^penalty`.
fn score(sum: f32, length: usize, penalty: f32) -> f32 {
    sum / (length as f32).powf(penalty)
}

#[cfg(test)]
mod tests;
