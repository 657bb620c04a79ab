//! Captioning as a stage: images in, captions out, in the same order. Knows nothing of files: what
//! reads them is handed in.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::thread;

use ::image::RgbImage;
use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::generate::{GenerateConfig, GenerateError, Generated, generate_images};
use crate::plural::counted;

/// A word of a caption and how sure the model was of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WordProbability {
    /// The word as it stands in the caption.
    pub word: String,
    /// Product of the probabilities of its tokens, in `[0, 1]`.
    pub probability: f32,
}

/// A caption.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// What became of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Captioned {
    /// The input's name.
    pub path: PathBuf,
    /// Its captions (`num_captions`, of beams the best first), or why there are none.
    pub result: Result<Vec<Caption>, String>,
}

impl Captioned {
    /// The first caption, or why there is none.
    ///
    /// # Errors
    /// The reason.
    pub fn first(self) -> Result<Caption, String> {
        self.result?.into_iter().next().ok_or_else(|| "the model gave no caption".into())
    }
}

/// How images are batched.
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
}

/// The beginning of a caption that is given and not decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Its token ids, without the begin token.
    pub ids: Vec<u32>,
    /// Whether it is part of the caption's text and words.
    pub keep: bool,
}

/// Captions what `inputs` yields, reading each with `read` on threads ahead of the model, and hands
/// every result to `emit` in the order of the inputs. An input that cannot be read is a result like
/// any other.
///
/// # Errors
/// A decoding configuration out of range, a failing device, or what `emit` returns.
pub fn caption_all<E: From<GenerateError>>(
    checkpoint: &Checkpoint,
    device: &Device,
    inputs: impl Iterator<Item = PathBuf> + Send,
    read: &(dyn Fn(&PathBuf) -> Result<RgbImage, String> + Sync),
    config: &CaptionConfig,
    mut emit: impl FnMut(Captioned) -> Result<(), E>,
) -> Result<(), E> {
    config.generate.validate(checkpoint.model.config().decoder.vocab_size)?;
    let workers = config.workers.max(1);
    thread::scope(|scope| {
        // Each reader has its own short queues: the order needs no sorting and memory stays bounded.
        let mut queues = Vec::with_capacity(workers);
        let mut readers = Vec::with_capacity(workers);
        for _ in 0..workers {
            let (give, take) = sync_channel::<PathBuf>(config.batch_size);
            let (sender, receiver) = sync_channel(config.batch_size);
            scope.spawn(move || {
                for path in take {
                    let pixels = read(&path).map(|image| checkpoint.preprocess.apply(&image));
                    if sender.send((path, pixels)).is_err() {
                        return;
                    }
                }
            });
            queues.push(give);
            readers.push(receiver);
        }
        scope.spawn(move || {
            for (index, path) in inputs.enumerate() {
                if queues[index % workers].send(path).is_err() {
                    return;
                }
            }
        });
        let mut batch = Vec::with_capacity(config.batch_size);
        let mut stage = Stage { checkpoint, device, config, images: 0 };
        for index in 0.. {
            let Ok(item) = readers[index % workers].recv() else { break };
            batch.push(item);
            if batch.len() == config.batch_size.max(1) {
                stage.caption_batch(std::mem::take(&mut batch), &mut emit)?;
            }
        }
        stage.caption_batch(batch, &mut emit)
    })
}

type Read = (PathBuf, Result<Vec<f32>, String>);

struct Stage<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    config: &'a CaptionConfig,
    /// Images captioned so far: what is sampled for an image follows from its number among those that
    /// can be read, in whatever batch it comes.
    images: u64,
}

impl Stage<'_> {
    fn caption_batch<E: From<GenerateError>>(
        &mut self,
        batch: Vec<Read>,
        emit: &mut impl FnMut(Captioned) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut values = Vec::new();
        let first = self.images;
        for (_, pixels) in &batch {
            if let Ok(pixels) = pixels {
                values.extend_from_slice(pixels);
                self.images += 1;
            }
        }
        let mut captions = Vec::new();
        if self.images > first {
            let images = first..self.images;
            captions = caption_pixels(self.checkpoint, self.device, values, images, self.config)?;
        }
        let mut captions = captions.into_iter();
        for (path, pixels) in batch {
            let result = pixels.map(|_| captions.next().unwrap_or_default());
            emit(Captioned { path, result })?;
        }
        Ok(())
    }
}

/// Captions normalised pixels, `[images, 3, height, width]`: `num_captions` for each image, of beams the
/// best first. `images` are the images' numbers, which sampling seeds its draws with.
///
/// # Errors
/// A decoding configuration out of range or a failing device.
pub fn caption_pixels(
    checkpoint: &Checkpoint,
    device: &Device,
    pixels: Vec<f32>,
    images: Range<u64>,
    config: &CaptionConfig,
) -> Result<Vec<Vec<Caption>>, GenerateError> {
    let preprocess = &checkpoint.preprocess;
    let count = images.end.saturating_sub(images.start) as usize;
    let shape = [count, 3, preprocess.height, preprocess.width];
    let memory = checkpoint.model.encode(Tensor::from_data(TensorData::new(pixels, shape), device));
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
    let generated = generate_images(model, &memory, images.start, &prompt, end, &decode, bucket)?;
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
