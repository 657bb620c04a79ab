//! Everything known before the first step: data, tokenizer, model size, number of steps.

use std::collections::HashMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;

use super::TrainError;
use super::config::{SelectBy, TrainConfig};
use super::init::Start;
use super::trained::Trained;
use crate::checkpoint::Architecture;
use crate::data::{
    self, Example, LoadOptions, LoaderConfig, Problem, Split, cut_captions, examples,
    units_per_epoch,
};
use crate::generate::GenerateConfig;
use crate::image::DecodeLimits;
use crate::model::{Captioner, EncoderStage};
use crate::plural::counted;
use crate::text::{SpecialTokenNames, Tokenizer, TokenizerConfig};

/// A run that is ready to start.
#[derive(Debug)]
pub struct Plan {
    /// The config, with image and vocabulary sizes filled in.
    pub config: TrainConfig,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Training images with their captions.
    pub train: Vec<Example>,
    /// Validation images with their captions.
    pub val: Vec<Example>,
    /// The public model that the run started from, if it did.
    pub architecture: Option<Architecture>,
    /// The licence of what the run started from, if its card named one.
    pub license: Option<String>,
    /// Token ids of `data.prompt`.
    pub prompt: Vec<u32>,
    /// How to decode samples, and the model's default afterwards.
    pub generate: GenerateConfig,
    /// The captions of each of `val`, as they were written.
    pub val_references: Vec<Vec<String>>,
    /// The captions of each of `train`, as they were written.
    pub(super) train_references: Vec<Vec<String>>,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps on captions; those after them are on the score.
    pub caption_steps: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: f64,
    /// Parameters of the model.
    pub parameters: usize,
    /// How many numbers are learned: fewer than parameters, where some are frozen.
    pub trained_parameters: usize,
    /// What the run is expected to take.
    pub memory: MemoryEstimate,
    /// Records that were skipped.
    pub problems: Vec<Problem>,
    /// What is learned.
    pub(super) trained: Trained,
    /// Tells this data set from another: images and captions, in order.
    pub fingerprint: u64,
}

/// Memory in bytes, estimated from shapes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryEstimate {
    /// Weights, gradients, moments and averages.
    pub state: u64,
    /// Activations kept for the backward pass of one micro-batch, of the phase that keeps more.
    pub activations: u64,
}

/// Validation images below which a loss or a score says little.
const FEW: usize = 20;

impl Plan {
    /// Reads the data, makes the tokenizer, if `start` has none, and sizes the run.
    ///
    /// # Errors
    /// The key, file or record at fault.
    pub fn new(config: &TrainConfig, file: &Path, start: &Start) -> Result<Self, TrainError> {
        let mut config = config.clone();
        config.validate(file)?;
        let options = LoadOptions {
            format: config.data.format,
            images: config.data.images.clone(),
            val_share: config.data.val_share,
            ..LoadOptions::default()
        };
        let dataset = data::load(&config.data.path, &options)?;
        data::ensure_usable(&dataset, config.data.allow_bad)?;
        let tokenizer = match &start.tokenizer {
            Some(tokenizer) => tokenizer.clone(),
            None => make_tokenizer(&config, &dataset)?,
        };
        if !start.complete(&mut config) {
            config.model.decoder.vocab_size = tokenizer.vocab_size();
        }
        config.validate_model(file)?;
        let prompt = prompt_tokens(&config, file, &tokenizer)?;
        let train = examples(&dataset, Split::Train, &tokenizer)?;
        let mut val = examples(&dataset, Split::Val, &tokenizer)?;
        for (split, examples) in [("train", &train), ("val", &val)] {
            if examples.is_empty() {
                return Err(TrainError::EmptySplit { path: config.data.path.clone(), split });
            }
        }
        let fingerprint = fingerprint(&train);
        if config.train.validation_images > 0 {
            val.truncate(config.train.validation_images);
        }
        let val_references = references(&dataset, Split::Val, &val);
        let units = units_per_epoch(&train, config.data.captions_per_image) as f64;
        let per_step = (config.train.batch_size * config.train.accumulation) as f64;
        let steps_per_epoch = units / per_step;
        let mut steps = match config.train.max_steps {
            Some(steps) => steps,
            None => (config.train.epochs * steps_per_epoch).ceil().max(1.0) as u64,
        };
        // Nothing is allocated before a weight is asked for.
        let model = Captioner::new(&config.model, &Device::flex())?;
        let parameters = model.num_params();
        let caption_steps = steps;
        let mut train_references = Vec::new();
        if let Some(scst) = &config.phase.scst {
            let epoch = train.len() as f64 / scst.batch_size as f64;
            let more = (scst.epochs * epoch).ceil().max(1.0) as u64;
            steps += scst.max_steps.unwrap_or(more);
            train_references = references(&dataset, Split::Train, &train);
        }
        let trained = what_is_trained(&config, file, &model)?;
        let memory =
            estimate(&config, parameters, trained.parameters, trained.frozen_until, &train);
        Ok(Self {
            architecture: start.architecture,
            license: start.license.clone(),
            prompt,
            generate: config.decoding(),
            config,
            tokenizer,
            train,
            val,
            val_references,
            train_references,
            caption_steps,
            steps,
            steps_per_epoch,
            parameters,
            trained_parameters: trained.parameters,
            trained,
            memory,
            problems: dataset.problems,
            fingerprint,
        })
    }

    /// What is likely not meant, for people.
    pub fn warnings(&self) -> Vec<String> {
        let warmup = self.config.schedule.warmup_steps;
        let mut warnings = Vec::new();
        if warmup >= self.caption_steps && self.caption_steps > 0 {
            warnings.push(format!(
                "schedule.warmup_steps is {warmup}, but the run has {}: it ends before the \
                 learning rate reaches schedule.learning_rate; raise train.epochs, or set \
                 warmup_steps to about {}",
                counted(self.caption_steps, "step"),
                (self.caption_steps / 10).max(1)
            ));
        }
        if self.config.phase.scst.is_some() && self.config.train.select_by == SelectBy::Loss {
            warnings.push(
                "phase.scst trains on the score, and the loss gets worse: best/ will be from before \
                 it; set train.select_by = \"cider\""
                    .into(),
            );
        }
        let positions = self.config.model.decoder.max_positions;
        let cut = cut_captions(&self.train, positions, self.begin().len());
        if cut.count > 0 {
            let remedy = match self.config.init.model {
                Some(_) => "shorten them: the positions come with the model",
                None => "raise model.decoder.max_positions",
            };
            warnings.push(format!(
                "{} of {} are longer than the model's {positions} positions and are cut, so that their end is \
                 never learned; the longest needs {}: {remedy}",
                cut.count,
                counted(cut.total, "caption"),
                cut.longest
            ));
        }
        let wanted = self.config.train.validation_images;
        if self.val.len() < FEW && (wanted == 0 || self.val.len() < wanted) {
            warnings.push(format!(
                "{} to validate on: which checkpoint is the best is a matter of chance; hold out more \
                 with data.val_share, where the data set has no split of its own",
                counted(self.val.len(), "image")
            ));
        }
        warnings
    }

    /// Whether the training images are fewer than such a run needs, for people.
    pub fn too_few(&self) -> Option<String> {
        let (few, instead) = match self.config.init.is_empty() {
            true => {
                (1000, "a captioner from scratch needs thousands: start from a trained one (init)")
            }
            false => {
                (50, "it will soon know them by heart: watch the validation loss, or add photos")
            }
        };
        let images = self.train.len();
        (images < few).then(|| format!("{} to train on: {instead}", counted(images, "image")))
    }

    /// What every caption begins with: the begin token and the prompt.
    pub(super) fn begin(&self) -> Vec<u32> {
        [&[self.tokenizer.special_tokens().bos], self.prompt.as_slice()].concat()
    }

    /// Most tokens to decode after [`Self::begin`].
    pub(super) fn max_new_tokens(&self) -> usize {
        let room = self.config.model.decoder.max_positions - self.begin().len();
        self.generate.max_new_tokens.min(room)
    }

    /// How captions are decoded while training: as the model does afterwards, one an image.
    pub(super) fn decoding(&self) -> GenerateConfig {
        let max_new_tokens = self.max_new_tokens();
        GenerateConfig { max_new_tokens, num_captions: 1, ..self.generate.clone() }
    }

    /// Whether a validation follows on `step`, which is at least 1.
    pub fn validates_after(&self, step: u64) -> bool {
        // A sum of steps that should be a whole epoch may be a little less.
        let epochs = |step: u64| (self.epoch(step) + 1e-9).floor();
        step == self.steps
            || match self.config.train.validate_every {
                Some(every) => step.is_multiple_of(every),
                None => epochs(step) > epochs(step - 1),
            }
    }

    /// Images that were trained on before `step`, as often as they were.
    pub fn images_before(&self, step: u64) -> u64 {
        let settings = &self.config.train;
        let of_captions = (settings.batch_size * settings.accumulation) as u64;
        let of_score = self.config.phase.scst.as_ref().map_or(0, |scst| scst.batch_size as u64);
        let later = step.saturating_sub(self.caption_steps);
        step.min(self.caption_steps) * of_captions + later * of_score
    }

    /// Epochs that have passed before `step`: those on captions, then those on the score.
    pub fn epoch(&self, step: u64) -> f64 {
        let scst = self.config.phase.scst.as_ref();
        let of_score = scst.map_or(1.0, |scst| self.train.len() as f64 / scst.batch_size as f64);
        let later = step.saturating_sub(self.caption_steps) as f64;
        step.min(self.caption_steps) as f64 / self.steps_per_epoch + later / of_score
    }

    /// The learning rate of `step`.
    pub fn learning_rate(&self, step: u64) -> f64 {
        match &self.config.phase.scst {
            Some(scst) if step >= self.caption_steps => scst.learning_rate,
            _ => self.config.schedule.rate(step, self.caption_steps),
        }
    }

    /// How training batches are made. `bucket` rounds lengths up (GPUs).
    pub fn loader(&self, bucket: usize) -> LoaderConfig {
        LoaderConfig {
            batch_size: self.config.train.batch_size,
            captions_per_image: rows_per_image(&self.config, &self.train),
            max_tokens: self.config.model.decoder.max_positions,
            bucket,
            special: self.tokenizer.special_tokens(),
            prompt: self.prompt.clone(),
            features: None,
            preprocess: self.config.image.clone(),
            augment: Some(self.config.augment.clone()),
            limits: DecodeLimits::of_pixels(self.config.data.max_pixels),
            group_by_length: self.config.data.group_by_length,
            seed: self.config.seed,
            workers: self.config.data.workers,
        }
    }
}

/// The ids of `data.prompt`, which must leave room for a caption.
fn prompt_tokens(
    config: &TrainConfig,
    file: &Path,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, TrainError> {
    let prompt = tokenizer.encode(&config.data.prompt)?;
    let positions = config.model.decoder.max_positions;
    if prompt.len() + 2 > positions {
        let tokens = counted(prompt.len(), "token");
        let problem = format!("{tokens}; the model has {positions} positions");
        return Err(config.value_error(file, "data.prompt", problem).into());
    }
    Ok(prompt)
}

/// What is learned of `model`; where features are kept, what comes before them may not be.
fn what_is_trained(
    config: &TrainConfig,
    file: &Path,
    model: &Captioner,
) -> Result<Trained, TrainError> {
    let trained = Trained::new(config, file, model)?;
    if config.data.cache_features.is_some() && trained.frozen_until == EncoderStage::Pixels {
        let problem = "only what is frozen stays the same: set train.freeze_encoder = true, or \
                       train.freeze = [\"encoder.backbone\"] or its first parts, \
                       [\"encoder.backbone.stem\", \"encoder.backbone.blocks.[0-9]\"]";
        return Err(config.value_error(file, "data.cache_features", problem.into()).into());
    }
    Ok(trained)
}

/// Captions that share a pass of the encoder: rows that no image fills would be read for nothing.
fn rows_per_image(config: &TrainConfig, train: &[Example]) -> usize {
    let most = train.iter().map(|example| example.captions.len()).max();
    config.data.captions_per_image.min(most.unwrap_or(1)).max(1)
}

fn make_tokenizer(config: &TrainConfig, dataset: &data::Dataset) -> Result<Tokenizer, TrainError> {
    let section = &config.tokenizer;
    if let Some(file) = &section.file {
        return Ok(Tokenizer::from_file(file, &SpecialTokenNames::default())?);
    }
    let captions =
        dataset.records_of(Split::Train).flat_map(|record| record.captions.iter().cloned());
    let wanted = TokenizerConfig {
        kind: section.kind,
        vocab_size: section.vocab_size,
        lowercase: section.lowercase,
        min_frequency: section.min_frequency,
    };
    Ok(Tokenizer::train(captions, &wanted)?)
}

/// The captions of `examples`, which are of `split`, as they were written.
fn references(dataset: &data::Dataset, split: Split, examples: &[Example]) -> Vec<Vec<String>> {
    let written: HashMap<&Path, &Vec<String>> =
        dataset.records_of(split).map(|record| (record.image.path(), &record.captions)).collect();
    let of = |example: &Example| written.get(example.image.path()).copied().cloned();
    examples.iter().map(|example| of(example).unwrap_or_default()).collect()
}

/// FNV-1a over image names and token ids.
fn fingerprint(examples: &[Example]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for example in examples {
        let name = example.image.path().file_name().unwrap_or_default();
        eat(name.to_string_lossy().as_bytes());
        for caption in &example.captions {
            caption.iter().for_each(|id| eat(&id.to_le_bytes()));
            eat(&[0xff]);
        }
    }
    hash
}

fn estimate(
    config: &TrainConfig,
    parameters: usize,
    trained: usize,
    frozen_until: EncoderStage,
    train: &[Example],
) -> MemoryEstimate {
    let (encoder, decoder) = (&config.model.encoder, &config.model.decoder);
    // Gradients, two moments and, if asked for, an average.
    let copies = 3 + u64::from(config.optimizer.ema_decay > 0.0);
    let captions: usize = train.iter().map(|example| example.captions.len()).sum();
    let tokens: usize = train.iter().flat_map(|e| &e.captions).map(Vec::len).sum();
    let seq = (tokens / captions.max(1) + 4).min(decoder.max_positions);
    let patches = encoder.num_prefix() + encoder.num_patches();
    // Values kept a position and layer: residual stream, norms, projections and branches, hidden
    // layer before and after its activation; and the attention weights, with what softmax keeps.
    let stream = |d_model: usize, d_ff: usize| 14 * d_model + 3 * d_ff;
    let encoded = encoder.num_layers
        * (patches * stream(encoder.d_model, encoder.d_ff)
            + 4 * encoder.num_heads * patches * patches);
    let backbone = |blocks: usize| match encoder.patches.mobilenet() {
        Some(shape) => shape.values_kept(encoder.image_height, encoder.image_width, blocks),
        None => 0,
    };
    let of_image = match frozen_until {
        EncoderStage::States => 0,
        EncoderStage::Patches => encoded,
        EncoderStage::Block(blocks) => encoded + backbone(blocks),
        EncoderStage::Pixels => encoded + backbone(0),
    };
    let of_caption = decoder.num_layers
        * (seq * (stream(decoder.d_model, decoder.d_ff) + 8 * decoder.d_model)
            + 4 * decoder.num_heads * seq * (seq + patches))
        + 5 * seq * decoder.vocab_size;
    let readings = if config.train.r_drop > 0.0 { 2 } else { 1 };
    let on_captions = (config.train.max_steps != Some(0))
        .then(|| (config.train.batch_size, readings * rows_per_image(config, train)));
    let on_score = config.phase.scst.as_ref().map(|scst| (scst.batch_size, scst.samples));
    let activations = [on_captions, on_score]
        .into_iter()
        .flatten()
        .map(|(images, captions)| images * (of_image + captions * of_caption))
        .max();
    MemoryEstimate {
        state: 4 * (parameters as u64 + copies * trained as u64),
        activations: 4 * activations.unwrap_or(0) as u64,
    }
}
