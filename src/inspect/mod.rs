//! Which region each word came from: relevance of the photo's patches for each word, what changes the
//! word's probability, as JSON, a page and a picture.
//!
//! [`Relevance`] is one map a word, whatever computed it. No map is a proof: what a map says can be
//! checked by hiding the region ([`Evidence::hidden`]).

pub mod attention_file;
pub mod colour;
mod default_map;
mod evidence;
pub mod gallery;
mod imputation;
mod methods;
pub mod npz;
pub mod page;
mod passes;
pub mod pointing;
mod region;
mod relevance;
pub mod removal;
pub mod sheet;
pub mod terminal;

use std::ops::Range;
use std::path::PathBuf;

use ::image::RgbImage;
use burn::tensor::{Device, Tensor};
use serde::Serialize;

use crate::caption::{CaptionConfig, ModelInput, caption_memory};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::generate::GenerateError;
use crate::model::AttentionTrace;
use crate::plural::counted;
use crate::text::{TextError, Word};
pub use default_map::{DefaultMap, Measure, Measured, MethodMerit};
pub use evidence::occlusion_passes;
use evidence::{Change, blurred, hide, occlusion};
use methods::{HostAttention, over_steps};
use passes::{Backward, Passes};
use region::grid_region;
pub use relevance::{
    Core, Method, Pool, Position, Relevance, RelevanceConfig, WordRelevance, is_content, phrases,
};

/// Why an inspection failed.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The caption could not be decoded.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A given caption cannot be tokenised.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A given caption has no words, or more tokens than the model has positions.
    #[error("the caption has {}; this model can read 1 to {most}", counted(*tokens, "token"))]
    Length {
        /// Its tokens.
        tokens: usize,
        /// Most tokens that the model can read.
        most: usize,
    },
    /// A layer or a head that the decoder does not have.
    #[error("{what} {found}: the decoder has {what}s 0 to {}", count.saturating_sub(1))]
    Choice {
        /// `layer` or `head`.
        what: &'static str,
        /// The number asked for.
        found: usize,
        /// How many there are.
        count: usize,
    },
    /// The checkpoint's choice of a map cannot be used.
    #[error("{}: {problem}", file.display())]
    DefaultMap {
        /// `inspect.json`.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

/// What stood at a word's place besides it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alternative {
    /// The token, as text.
    pub text: String,
    /// Its probability, in `[0, 1]`.
    pub probability: f32,
}

/// What changes a word's probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// The word's probability given the same words before it and an image of the mean colour, in `[0, 1]`:
    /// what language alone expects.
    pub blank: f32,
    /// The same with the photo blurred beyond recognition.
    pub blurred: f32,
    /// The same with the core of the word's first map hidden; none where the map has no core.
    pub hidden: Option<f32>,
}

/// One word, its cross-attention and its place in the caption.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WordAttention {
    /// The word as it stands in the caption.
    pub word: String,
    /// Its token ids.
    pub token_ids: Vec<u32>,
    /// Product of the probabilities of its tokens given what stands before, in `[0, 1]`.
    pub probability: f32,
    /// Mean over layers and heads (and over the word's tokens), row by row of the grid.
    pub mean: Vec<f32>,
    /// Attention to positions that are no patch (a class token), mean over layers and heads.
    pub elsewhere: f32,
    /// `layers[layer][head]`: the grid of one head, mean over the word's tokens.
    pub layers: Vec<Vec<Vec<f32>>>,
    /// Whether it says something that may be seen ([`is_content`]).
    pub content: bool,
    /// The likeliest tokens at the place of its first, itself perhaps among them.
    pub alternatives: Vec<Alternative>,
    /// Self-attention of the decoder to each word of the caption, mean over layers and heads; what goes to
    /// the begin token is missing.
    pub to_words: Vec<f32>,
    /// The core of the first map on the photo, `[x0, y0, x1, y1]` in its pixels.
    pub region: Option<[f32; 4]>,
    /// The share of the first map in that region, in `[0, 1]`.
    pub region_share: Option<f32>,
    /// What changes its probability, where that was asked for.
    pub evidence: Option<Evidence>,
}

impl WordAttention {
    /// Mean over the heads of one layer.
    pub fn layer_mean(&self, layer: usize) -> Vec<f32> {
        let heads = &self.layers[layer];
        let mut mean = vec![0.0; self.mean.len()];
        for head in heads {
            mean.iter_mut().zip(head).for_each(|(sum, x)| *sum += x / heads.len() as f32);
        }
        mean
    }
}

/// The attention of a whole caption over one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The caption.
    pub caption: String,
    /// Whether the model wrote it (else it was given).
    pub generated: bool,
    /// Sum of the log-probabilities of its tokens, end token included.
    pub log_probability: f32,
    /// Rows of the patch grid.
    pub rows: usize,
    /// Columns of the patch grid.
    pub cols: usize,
    /// The part of the photo that the grid covers, `[x0, y0, x1, y1]` in photo pixels; it exceeds
    /// the photo where the image was padded.
    pub region: [f32; 4],
    /// Each word with its attention.
    pub words: Vec<WordAttention>,
    /// The maps that were asked for, in that order.
    pub maps: Vec<Relevance>,
    /// Runs of words that name one thing ([`phrases`]).
    pub phrases: Vec<Range<usize>>,
}

/// What is computed of a photo.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectConfig {
    /// This caption instead of the model's own.
    pub text: Option<String>,
    /// The maps, at least one; the first decides each word's region.
    pub maps: Vec<RelevanceConfig>,
    /// Whether to measure what changes each word's probability: an encoder pass a word, and two.
    pub evidence: bool,
}

impl Default for InspectConfig {
    /// The model's caption, raw attention, no evidence.
    fn default() -> Self {
        let maps = vec![RelevanceConfig::new(Method::Attention)];
        Self { text: None, maps, evidence: false }
    }
}

impl InspectConfig {
    /// The model's caption, the map that the checkpoint names as its best, no evidence.
    ///
    /// # Errors
    /// [`InspectError::DefaultMap`].
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, InspectError> {
        Ok(Self { maps: vec![DefaultMap::of(checkpoint)?.map], ..Self::default() })
    }
}

/// Captions an image, or takes the caption given, and reads the cross-attention of every word, with the map
/// that the checkpoint names as its best ([`DefaultMap`]).
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(
    checkpoint: &Checkpoint,
    device: &Device,
    photo: &RgbImage,
    text: Option<&str>,
    config: &CaptionConfig,
) -> Result<Inspection, InspectError> {
    let what = InspectConfig { text: text.map(Into::into), ..InspectConfig::of(checkpoint)? };
    inspect_with(checkpoint, device, photo, &what, config, &mut |_| ())
}

/// Captions an image, or takes the caption given, and computes what `what` asks for. `progress` is told how
/// many more photos were encoded, of those of occlusion ([`occlusion_passes`]) and of evidence.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect_with(
    checkpoint: &Checkpoint,
    device: &Device,
    photo: &RgbImage,
    what: &InspectConfig,
    config: &CaptionConfig,
    progress: &mut dyn FnMut(usize),
) -> Result<Inspection, InspectError> {
    let special = checkpoint.tokenizer.special_tokens();
    let view = View::new(checkpoint, device, photo, &what.maps);
    let ids = match &what.text {
        Some(text) => {
            let mut ids = vec![special.bos];
            ids.extend(checkpoint.tokenizer.encode(text)?);
            ids.push(special.eos);
            ids
        }
        None => {
            let captions = caption_memory(checkpoint, &view.memory, [view.identity], config)?;
            let first = captions.into_iter().flatten().next();
            first.map(|caption| caption.token_ids).unwrap_or_default()
        }
    };
    let inspection = view.read(&ids, what, progress)?;
    Ok(Inspection { generated: what.text.is_none(), ..inspection })
}

/// Reads the cross-attention of every word of a caption that is given as token ids, from the begin
/// token to the end token (if it came).
///
/// The weights at a token are those of the step that *predicts* it: the position before it.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect_tokens(
    checkpoint: &Checkpoint,
    device: &Device,
    photo: &RgbImage,
    ids: &[u32],
) -> Result<Inspection, InspectError> {
    let what = InspectConfig::default();
    View::new(checkpoint, device, photo, &what.maps).read(ids, &what, &mut |_| ())
}

/// A photo as the model sees it, encoded once.
pub(crate) struct View<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    pixels: Vec<f32>,
    /// See [`ModelInput::identity`].
    identity: u64,
    memory: Tensor<3>,
    /// Self-attention of the encoder, where a map reads it.
    encoder: AttentionTrace,
    region: [f32; 4],
}

impl<'a> View<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        photo: &RgbImage,
        maps: &[RelevanceConfig],
    ) -> Self {
        let input = ModelInput::new(&checkpoint.preprocess, photo);
        let region = grid_region(&checkpoint.preprocess, photo.dimensions());
        Self::of_input(checkpoint, device, input, region, maps)
    }

    /// Of pixels that are as the model takes them; `region` is what the grid covers.
    pub(crate) fn of_input(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        input: ModelInput,
        region: [f32; 4],
        maps: &[RelevanceConfig],
    ) -> Self {
        let ModelInput { values: pixels, identity } = input;
        let passes = Passes { checkpoint, device, ids: &[] };
        let mut encoder = AttentionTrace::new();
        let images = passes.images(pixels.clone(), 1, device);
        let memory = match maps.iter().any(|map| map.method == Method::Rollout) {
            true => checkpoint.model.encode_with_trace(images, &mut encoder),
            false => checkpoint.model.encode(images),
        };
        Self { checkpoint, device, pixels, identity, memory, encoder, region }
    }

    /// The steps that predict each word of a caption.
    pub(crate) fn steps(&self, ids: &[u32]) -> Vec<Vec<usize>> {
        let words = self.checkpoint.tokenizer.words(ids);
        let seq = ids.len().saturating_sub(1);
        words.iter().map(|word| relevance::steps(word, Position::Predicting, seq)).collect()
    }

    /// Reads a caption, `ids` from the begin token to the end token, if it came.
    pub(crate) fn read(
        &self,
        ids: &[u32],
        what: &InspectConfig,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Inspection, InspectError> {
        let checkpoint = self.checkpoint;
        let model = checkpoint.model.config();
        let most = model.decoder.max_positions;
        if ids.len() < 2 || ids.len() - 1 > most {
            return Err(InspectError::Length { tokens: ids.len().saturating_sub(1), most });
        }
        for map in &what.maps {
            map.check(&model.decoder)?;
        }
        let passes = Passes { checkpoint, device: self.device, ids };
        let (rows, trace) = passes.decode(self.memory.clone())?;
        let vocab = rows.len() / passes.seq();
        let log_probabilities: Vec<f32> =
            rows.chunks(vocab).zip(&ids[1..]).map(|(row, &id)| row[id as usize]).collect();
        let own = HostAttention::weights(&trace.self_attention)?;
        let cross = HostAttention::weights(&trace.cross_attention)?;
        let caption = Caption {
            passes,
            words: checkpoint.tokenizer.words(ids),
            own,
            cross,
            log_probabilities,
        };
        let maps = caption.maps(self, &what.maps, progress)?;
        let [grid_rows, grid_cols] = model.encoder.grid();
        let mut words: Vec<WordAttention> =
            (0..caption.words.len()).map(|at| caption.word(at, &rows, vocab)).collect();
        if let Some(first) = maps.first() {
            caption.explain(self, first, what.evidence, &mut words, progress)?;
        }
        let phrases = phrases(words.iter().map(|word| word.word.as_str()));
        Ok(Inspection {
            caption: checkpoint.tokenizer.decode(ids),
            generated: true,
            log_probability: caption.log_probabilities.iter().sum(),
            rows: grid_rows,
            cols: grid_cols,
            region: self.region,
            words,
            maps,
            phrases,
        })
    }
}

/// A caption read over a photo.
struct Caption<'a> {
    passes: Passes<'a>,
    words: Vec<Word>,
    own: HostAttention,
    cross: HostAttention,
    /// Of the token after each step.
    log_probabilities: Vec<f32>,
}

impl Caption<'_> {
    fn steps(&self, position: Position) -> Vec<Vec<usize>> {
        let seq = self.passes.seq();
        self.words.iter().map(|word| relevance::steps(word, position, seq)).collect()
    }

    fn maps(
        &self,
        view: &View<'_>,
        configs: &[RelevanceConfig],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Relevance>, InspectError> {
        // One backward pass serves every method that reads gradients at the same steps.
        let mut backwards: [Option<Backward>; 2] = [None, None];
        let mut maps = Vec::with_capacity(configs.len());
        for config in configs {
            let steps = self.steps(config.position);
            let place = usize::from(config.position == Position::Reading);
            if config.method.needs_gradients() && !steps.is_empty() && backwards[place].is_none() {
                backwards[place] = Some(self.passes.backward(&view.pixels, &steps)?);
            }
            let backward = backwards[place].as_ref();
            maps.push(self.map(view, config, &steps, backward, progress)?);
        }
        Ok(maps)
    }

    fn map(
        &self,
        view: &View<'_>,
        config: &RelevanceConfig,
        steps: &[Vec<usize>],
        backward: Option<&Backward>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Relevance, InspectError> {
        let encoder = &self.passes.checkpoint.model.config().encoder;
        let [rows, cols] = encoder.grid();
        let (prefix, keys) = (encoder.num_prefix(), self.cross.keys);
        let seq = self.passes.seq();
        let each_step = |steps: &[usize], all: &[f32]| {
            over_steps(steps, keys, |step| all[step * keys..(step + 1) * keys].to_vec())
        };
        let per_word = |of: &dyn Fn(usize, usize) -> Vec<f32>| -> Vec<f32> {
            let words = steps.iter().enumerate();
            words.flat_map(|(word, steps)| over_steps(steps, keys, |step| of(word, step))).collect()
        };
        let values: Vec<f32> = match (config.method, backward) {
            (Method::Attention, _) => {
                per_word(&|_, step| methods::attention(&self.cross, config, step))
            }
            (Method::Residual, _) => {
                per_word(&|_, step| methods::residual(&self.own, &self.cross, config, step))
            }
            (Method::Rollout, _) => {
                let all = methods::rollout(&self.own, &self.cross);
                let words = steps.iter().flat_map(|steps| each_step(steps, &all)).collect();
                let encoder = methods::encoder_rollout(&view.encoder.encoder);
                methods::through_encoder(words, keys, encoder.as_ref())?
            }
            (Method::Gradient | Method::DecoderGradient, Some(backward)) => {
                let words = steps.iter().enumerate().flat_map(|(word, steps)| {
                    each_step(steps, &backward.attention.decoder_relevance(word))
                });
                let encoder = match config.method {
                    Method::Gradient => backward.encoder.as_ref(),
                    _ => None,
                };
                methods::through_encoder(words.collect(), keys, encoder)?
            }
            (Method::GradCam, Some(backward)) => {
                per_word(&|word, step| backward.attention.cam(&backward.cross, config, word, step))
            }
            (Method::Occlusion, _) => {
                let before = &self.log_probabilities;
                let (passes, side) = (&self.passes, config.window);
                let falls = occlusion(passes, &view.pixels, before, steps, side, progress)?;
                let words = falls.iter().map(|fall| WordRelevance::new(fall, 0)).collect();
                return Ok(Relevance { config: config.clone(), rows, cols, words });
            }
            // No word, so no backward pass.
            (_, None) => Vec::new(),
        };
        debug_assert!(seq > 0);
        let words = values.chunks(keys).map(|word| WordRelevance::new(word, prefix)).collect();
        Ok(Relevance { config: config.clone(), rows, cols, words })
    }

    /// A word without its region; `rows` are log-probabilities, `[seq, vocab]`.
    fn word(&self, at: usize, rows: &[f32], vocab: usize) -> WordAttention {
        let encoder = &self.passes.checkpoint.model.config().encoder;
        let (prefix, word) = (encoder.num_prefix(), &self.words[at]);
        let steps = relevance::steps(word, Position::Predicting, self.passes.seq());
        let cross = &self.cross;
        let layers: Vec<Vec<Vec<f32>>> = (0..cross.layers.len())
            .map(|layer| {
                let heads = 0..cross.heads;
                let grid = |head: usize| {
                    over_steps(&steps, cross.keys - prefix, |step| {
                        cross.row(layer, head, step)[prefix..].to_vec()
                    })
                };
                heads.map(grid).collect()
            })
            .collect();
        let count = (layers.len() * cross.heads) as f32;
        let mut mean = vec![0.0; cross.keys - prefix];
        for head in layers.iter().flatten() {
            mean.iter_mut().zip(head).for_each(|(sum, x)| *sum += x / count);
        }
        let probability: f32 = steps.iter().map(|&step| self.log_probabilities[step]).sum();
        WordAttention {
            word: word.text.clone(),
            token_ids: self.passes.ids[word.tokens.clone()].to_vec(),
            probability: probability.exp(),
            elsewhere: (1.0 - mean.iter().sum::<f32>()).max(0.0),
            mean,
            layers,
            content: is_content(&word.text),
            alternatives: self.alternatives(&rows[steps[0] * vocab..(steps[0] + 1) * vocab]),
            to_words: self.to_words(&steps),
            region: None,
            region_share: None,
            evidence: None,
        }
    }

    fn alternatives(&self, row: &[f32]) -> Vec<Alternative> {
        let tokenizer = &self.passes.checkpoint.tokenizer;
        let mut best: Vec<usize> = (0..row.len()).collect();
        let shown = 6.min(best.len());
        if shown < best.len() {
            best.select_nth_unstable_by(shown, |a, b| row[*b].total_cmp(&row[*a]));
        }
        best.truncate(shown);
        best.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        let each = best.into_iter().map(|id| {
            let text = tokenizer.decode(&[id as u32]).trim().to_owned();
            let text = match text.is_empty() {
                true => tokenizer.token(id as u32).unwrap_or_default(),
                false => text,
            };
            Alternative { text, probability: row[id].exp() }
        });
        each.collect()
    }

    fn to_words(&self, steps: &[usize]) -> Vec<f32> {
        let own = &self.own;
        let count = (own.layers.len() * own.heads * steps.len()) as f32;
        let mut to_tokens = vec![0.0; own.keys];
        for layer in 0..own.layers.len() {
            for head in 0..own.heads {
                for &step in steps {
                    let row = own.row(layer, head, step);
                    to_tokens.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / count);
                }
            }
        }
        let tokens = |word: &Word| word.tokens.clone().filter_map(|at| to_tokens.get(at)).sum();
        self.words.iter().map(tokens).collect()
    }

    /// Adds each word's region by its map, and what changes its probability.
    fn explain(
        &self,
        view: &View<'_>,
        map: &Relevance,
        evidence: bool,
        words: &mut [WordAttention],
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), InspectError> {
        let cores: Vec<Option<Core>> =
            map.words.iter().map(|word| Core::of(&word.map, map.cols)).collect();
        for (word, core) in words.iter_mut().zip(&cores) {
            word.region = core.as_ref().map(|core| {
                let [x0, y0, x1, y1] = view.region;
                let [top, left, bottom, right] = core.grid_box.map(|edge| edge as f32);
                let (wide, tall) = ((x1 - x0) / map.cols as f32, (y1 - y0) / map.rows as f32);
                [x0 + left * wide, y0 + top * tall, x0 + right * wide, y0 + bottom * tall]
            });
            word.region_share = core.as_ref().map(|core| core.share);
        }
        if !evidence {
            return Ok(());
        }
        let encoder = &self.passes.checkpoint.model.config().encoder;
        let mut changes = vec![Change::Blank, Change::Blurred];
        changes.extend(cores.iter().flatten().map(|core| Change::Hidden(core.grid_box)));
        let blurred = blurred(&view.pixels, encoder);
        let change = |pixels: &mut [f32], change: &Change| match change {
            Change::Blank => pixels.fill(0.0),
            Change::Blurred => pixels.copy_from_slice(&blurred),
            Change::Hidden(grid_box) => hide(pixels, encoder, *grid_box),
        };
        let mut found =
            self.passes.with_changes(&view.pixels, &changes, change, progress)?.into_iter();
        let (blank, blurred) = (found.next(), found.next());
        let steps = self.steps(Position::Predicting);
        for ((word, core), steps) in words.iter_mut().zip(&cores).zip(&steps) {
            let probability =
                |all: &Vec<f32>| -> f32 { steps.iter().map(|&step| all[step]).sum::<f32>().exp() };
            let hidden = if core.is_some() { found.next() } else { None };
            if let (Some(blank), Some(blurred)) = (&blank, &blurred) {
                word.evidence = Some(Evidence {
                    blank: probability(blank),
                    blurred: probability(blurred),
                    hidden: hidden.as_ref().map(probability),
                });
            }
        }
        Ok(())
    }
}
