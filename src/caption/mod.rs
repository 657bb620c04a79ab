//! Captioning as a stage: items in, captions out, in the same order ([`caption_items`]). What an item is,
//! and how a photo is read from it, the caller says.
//!
//! What is sampled for a photo follows from the seed and from the photo as the model sees it
//! ([`ModelInput`]): not from its rank, its name or the batch that it comes in. A run that is resumed, or
//! shared among machines, says what a single run says.

mod batch_size;
mod bounds;
pub mod folder;
mod identity;
pub mod inputs;
pub mod manifest;
pub mod merge;
pub mod output;
pub mod shape;
pub mod shard;
mod stage;

use ::image::RgbImage;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::device::{length_bucket, num_readers};
use crate::generate::{GenerateConfig, GenerateError, Generated, generate_images};
use crate::image::PreprocessConfig;
use crate::plural::counted;

pub use batch_size::{BatchSize, suitable_batch_size};
pub use identity::{settings_hash, weights_hash};
pub use stage::{Batch, Replica, Source, caption_batches, caption_items};

/// A word of a caption and how sure the model was of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WordProbability {
    /// The word as it stands in the caption.
    pub word: String,
    /// Product of the probabilities of its tokens, in `[0, 1]`.
    pub probability: f32,
}

/// A caption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caption {
    /// The text.
    pub caption: String,
    /// Token ids: the begin token, the text, and the end token if it came.
    pub token_ids: Vec<u32>,
    /// Sum of log-probabilities over `length^length_penalty`.
    pub score: f32,
    /// Each word with its probability.
    pub words: Vec<WordProbability>,
}

impl Caption {
    /// Geometric mean of the words' probabilities, in `[0, 1]`; `None` without words.
    pub fn confidence(&self) -> Option<f64> {
        let logarithms = self.words.iter().map(|word| f64::from(word.probability).ln());
        let mean = logarithms.sum::<f64>() / self.words.len() as f64;
        Some(mean.exp()).filter(|confidence| confidence.is_finite())
    }
}

/// How images are batched and captioned.
#[derive(Debug, Clone)]
pub struct CaptionConfig {
    /// Images decoded together, at least 1.
    pub batch_size: usize,
    /// How to decode.
    pub generate: GenerateConfig,
    /// Lengths are rounded up to a multiple of this on a GPU; 1 = exactly.
    pub bucket: usize,
    /// Threads that read images ahead, at least 1.
    pub workers: usize,
    /// What every caption begins with.
    pub prompt: Prompt,
    /// When a batch goes to the model.
    pub filling: Filling,
}

/// When a batch goes to the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Filling {
    /// The first with few photos, and any one soon where photos come slowly.
    #[default]
    Eager,
    /// When it is full, but for the last. A run that broke off after some batches and goes on with the
    /// photos that are left then makes the batches that it would have made: its probabilities are the
    /// same to the last digit.
    Full,
}

impl CaptionConfig {
    /// Decodes as `generate` has it, 16 images at a time, without a prompt, with as many readers as suit
    /// the device.
    pub fn new(generate: GenerateConfig, device: &Device) -> Self {
        let (bucket, workers) = (length_bucket(device), num_readers(device));
        Self {
            batch_size: 16,
            generate,
            bucket,
            workers,
            prompt: Prompt::default(),
            filling: Filling::default(),
        }
    }
}

/// The beginning of a caption that is given and not decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Its token ids, without the begin token.
    pub ids: Vec<u32>,
    /// Whether it is part of the caption's text and words.
    pub keep: bool,
}

/// A photo as the model takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInput {
    /// Normalised pixels, `[3, height, width]`.
    pub values: Vec<f32>,
    /// What sampling seeds its draws with: a hash of the resized photo, the same on every machine.
    pub identity: u64,
}

impl ModelInput {
    /// Resizes and normalises `photo`.
    pub fn new(preprocess: &PreprocessConfig, photo: &RgbImage) -> Self {
        let resized = preprocess.resize(photo);
        let hash = blake3::hash(resized.as_raw());
        let (first, _) = hash.as_bytes().as_chunks::<8>();
        Self { identity: u64::from_le_bytes(first[0]), values: preprocess.normalize(&resized) }
    }
}

/// Captions photos: `num_captions` for each, of beams the best first.
///
/// # Errors
/// A decoding configuration out of range or a failing device.
pub fn caption_inputs(
    checkpoint: &Checkpoint,
    device: &Device,
    inputs: &[ModelInput],
    config: &CaptionConfig,
) -> Result<Vec<Vec<Caption>>, GenerateError> {
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let preprocess = &checkpoint.preprocess;
    let shape = [inputs.len(), 3, preprocess.height, preprocess.width];
    let values: Vec<f32> = inputs.iter().flat_map(|input| &input.values).copied().collect();
    let memory = checkpoint.model.encode(Tensor::from_data(TensorData::new(values, shape), device));
    caption_memory(checkpoint, &memory, inputs.iter().map(|input| input.identity), config)
}

/// Captions encoded photos: `num_captions` for each, of beams the best first. `identities` are
/// [`ModelInput::identity`], which sampling seeds its draws with.
///
/// # Shapes
/// `memory`: `[images, patches, memory_width]`, from [`Captioner::encode`](crate::model::Captioner::encode).
///
/// # Errors
/// A decoding configuration out of range or a failing device.
pub fn caption_memory(
    checkpoint: &Checkpoint,
    memory: &Tensor<3>,
    identities: impl IntoIterator<Item = u64>,
    config: &CaptionConfig,
) -> Result<Vec<Vec<Caption>>, GenerateError> {
    let [count, _, _] = memory.dims();
    let special = checkpoint.tokenizer.special_tokens();
    let mut prompt = vec![special.bos];
    prompt.extend(&config.prompt.ids);
    let room = checkpoint.model.config().decoder.max_positions.saturating_sub(prompt.len());
    if room == 0 {
        return Err(GenerateError::Config {
            key: "prompt",
            problem: format!(
                "{}; the model has no position left",
                counted(config.prompt.ids.len(), "token")
            ),
        });
    }
    let mut decode = config.generate.clone();
    if !config.prompt.ids.is_empty() {
        decode.max_new_tokens = decode.max_new_tokens.min(room);
    }
    let (model, end, bucket) = (&checkpoint.model, special.eos, config.bucket);
    let generated = generate_images(model, memory, identities, &prompt, end, &decode, bucket)?;
    let keep = config.prompt.keep;
    let mut captions = generated.into_iter().map(|out| to_caption(checkpoint, out, keep));
    Ok((0..count).map(|_| captions.by_ref().take(decode.num_captions).collect()).collect())
}

fn to_caption(checkpoint: &Checkpoint, out: Generated, keep_prompt: bool) -> Caption {
    let tokenizer = &checkpoint.tokenizer;
    let prompt = out.ids.len() - out.log_probabilities.len();
    let shown = if keep_prompt { 0 } else { prompt };
    let words = tokenizer
        .words(&out.ids)
        .into_iter()
        .filter(|word| word.tokens.end > shown)
        .map(|word| {
            let sum: f32 = word
                .tokens
                .clone()
                .filter_map(|at| out.log_probabilities.get(at.checked_sub(prompt)?))
                .sum();
            WordProbability { word: word.text, probability: sum.exp() }
        })
        .collect();
    // A tokenizer with blanks inside its tokens begins the rest of a caption with one.
    let caption = tokenizer.decode(&out.ids[shown..]).trim_start().to_owned();
    Caption { caption, token_ids: out.ids, score: out.score, words }
}
