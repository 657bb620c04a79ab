//! A training run as a TOML file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::builtin;
use super::init::InitConfig;
use super::optimizer::AdamWConfig;
use super::schedule::ScheduleConfig;
use super::scst::{Baseline, ScstConfig};
use super::trained::LoraConfig;
use crate::data::DatasetFormat;
use crate::generate::GenerateConfig;
use crate::image::{AugmentConfig, DecodeLimits, PreprocessConfig};
use crate::model::CaptionerConfig;
use crate::text::{TokenizerConfig, TokenizerKind};

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrainConfigError {
    /// The file could not be read.
    #[error("cannot read `{}`", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No config has this name.
    #[error("{name}: neither a file nor a config that is built in ({})", builtin::names_like(name))]
    Unknown {
        /// What was named.
        name: PathBuf,
    },
    /// The file is not TOML, or a key or type is wrong.
    #[error("{origin}: {problem}")]
    Toml {
        /// The file (with its line), or the `--set` argument.
        origin: String,
        /// What is wrong, with the key.
        problem: String,
        /// A key that may have been meant.
        suggestion: Option<String>,
    },
    /// A value is out of range.
    #[error("{file}: `{key}`: {problem}")]
    Value {
        /// The file, or the `--set` argument.
        file: PathBuf,
        /// The key, dotted.
        key: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// Where the data is and how it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// The data set: a folder or an annotation file (`--data`).
    pub path: PathBuf,
    /// Its format, if it is not to be recognised by looking.
    pub format: Option<DatasetFormat>,
    /// The folder of images, if it is elsewhere.
    pub images: Option<PathBuf>,
    /// Share of images held out where the data set has no splits, in `(0, 1)`.
    pub val_share: f64,
    /// Train even if more than 5 % of the records are bad.
    pub allow_bad: bool,
    /// Largest image decoded, in pixels.
    pub max_pixels: u64,
    /// Text that stands before every caption and is not learned (BLIP: "a picture of"); give it to
    /// `patchword caption --prompt` afterwards.
    pub prompt: String,
    /// A folder to keep in what the frozen part of the encoder makes of each image, so that it is
    /// computed once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_features: Option<PathBuf>,
    /// How many views of each image are kept: the image as it is, and variations as `augment` has
    /// them.
    pub cache_views: u32,
    /// Captions of an image that share one pass of the encoder.
    pub captions_per_image: usize,
    /// Make batches of captions of about the same length, so that less of them is padding.
    pub group_by_length: bool,
    /// Decoding threads.
    pub workers: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            format: None,
            images: None,
            val_share: 0.05,
            allow_bad: false,
            max_pixels: DecodeLimits::default().max_pixels,
            prompt: String::new(),
            cache_features: None,
            cache_views: 1,
            captions_per_image: 5,
            group_by_length: true,
            workers: 2,
        }
    }
}

/// The tokenizer: trained from the training captions, or taken from a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerSection {
    /// A `tokenizer.json` to use instead of training one.
    pub file: Option<PathBuf>,
    /// `bpe` or `wordpiece`.
    pub kind: TokenizerKind,
    /// Most tokens.
    pub vocab_size: usize,
    /// Lower-case captions.
    pub lowercase: bool,
    /// Least occurrences of a merged pair.
    pub min_frequency: u64,
}

impl Default for TokenizerSection {
    fn default() -> Self {
        let TokenizerConfig { kind, vocab_size, lowercase, min_frequency } =
            TokenizerConfig::default();
        Self { file: None, kind, vocab_size, lowercase, min_frequency }
    }
}

/// What the best checkpoint is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelectBy {
    /// Validation loss, the lower the better.
    #[default]
    Loss,
    /// CIDEr (coco-caption's, which is CIDEr-D) of captions of the validation images, the higher the
    /// better.
    Cider,
}

/// The loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoopConfig {
    /// Passes over all captions; may be fractional.
    pub epochs: f64,
    /// Stop after this many steps instead; 0 = begin with the phase that follows.
    pub max_steps: Option<u64>,
    /// Images a (micro-)batch.
    pub batch_size: usize,
    /// Micro-batches whose gradients are summed for one step.
    pub accumulation: usize,
    /// On the CPU, shares of a batch that are computed side by side, the cores divided among them.
    /// The sums' order, and so a run's result, depends on it: hence a setting, and not the number of
    /// cores.
    pub data_parallel: usize,
    /// Label smoothing, in `[0, 1)`.
    pub label_smoothing: f64,
    /// The weight of R-Drop (Liang et al. 2021), 0 or more: every caption is read twice with other dropout in the
    /// decoder, whose two distributions of the next token are to agree; 0 = read once. Between 1 and 5 it
    /// helps where captions are few; the decoder takes twice the time.
    pub r_drop: f64,
    /// Keep the encoder's weights as they are.
    pub freeze_encoder: bool,
    /// Weights to keep as they are, by name or by the name of what they are part of, with `*` for
    /// anything: `encoder.layers.0`, `decoder.*norm`, `*_embedding`.
    #[serde(deserialize_with = "one_or_many")]
    pub freeze: Vec<String>,
    /// Steps between validations; if absent, one follows on every epoch. There is one after the last
    /// step too, and one before the first where training starts from a captioner.
    pub validate_every: Option<u64>,
    /// Most images validated on; 0 = all.
    pub validation_images: usize,
    /// What the best checkpoint is chosen by: `loss`, or `cider` of captions decoded as `generate` says.
    pub select_by: SelectBy,
    /// Stop after so many validations without a better one; 0 = never. With a phase to follow, only
    /// the validations in that count.
    pub patience: u64,
    /// At the end, try the mean of the weights after the last so many validations, and keep it as the
    /// best checkpoint if it is; 0 = don't. With `optimizer.ema_decay` it is their moving averages
    /// whose mean is taken.
    pub average_last: usize,
    /// Steps between checkpoints besides those after a validation.
    pub checkpoint_every: u64,
    /// Steps between lines of metrics.jsonl.
    pub log_every: u64,
    /// Validation images captioned as samples.
    pub samples: usize,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            epochs: 10.0,
            max_steps: None,
            batch_size: 16,
            accumulation: 1,
            data_parallel: 2,
            label_smoothing: 0.1,
            r_drop: 0.0,
            freeze_encoder: false,
            freeze: Vec::new(),
            validate_every: None,
            validation_images: 500,
            select_by: SelectBy::Loss,
            patience: 0,
            average_last: 0,
            checkpoint_every: 250,
            log_every: 10,
            samples: 4,
        }
    }
}

/// What follows on the loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct PhaseConfig {
    /// Training on the score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scst: Option<ScstConfig>,
}

impl PhaseConfig {
    /// Whether nothing follows.
    pub fn is_empty(&self) -> bool {
        self.scst.is_none()
    }
}

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// The run's folder.
    pub output: PathBuf,
    /// What training starts from. With `init.model`, of [`Self::model`] only dropout and stochastic
    /// depth are the config's own.
    #[serde(skip_serializing_if = "InitConfig::is_empty")]
    pub init: InitConfig,
    /// Train adapters instead of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The data.
    pub data: DataConfig,
    /// Random crops and flips.
    pub augment: AugmentConfig,
    /// How photos become pixels.
    pub image: PreprocessConfig,
    /// The tokenizer.
    pub tokenizer: TokenizerSection,
    /// The model. Image and vocabulary sizes are filled in from `image` and the tokenizer.
    pub model: CaptionerConfig,
    /// The optimizer.
    pub optimizer: AdamWConfig,
    /// The learning rate.
    pub schedule: ScheduleConfig,
    /// The loop.
    pub train: LoopConfig,
    /// What follows on the loop.
    #[serde(skip_serializing_if = "PhaseConfig::is_empty")]
    pub phase: PhaseConfig,
    /// How to decode samples, and the model's default afterwards; if absent, as the model that
    /// training starts from, else [`GenerateConfig::default`].
    pub generate: Option<GenerateConfig>,
    /// The overrides that made it what it is, for errors to name.
    #[serde(skip)]
    pub overrides: Vec<String>,
}

impl TrainConfig {
    /// A value that cannot be used: of the override that set it, else of `file`.
    pub(super) fn value_error(&self, file: &Path, key: &str, problem: String) -> TrainConfigError {
        let is_within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let sets_it = |setting: &&String| {
            let set = setting.split('=').next().unwrap_or_default().trim();
            is_within(key, set) || is_within(set, key)
        };
        let file = match self.overrides.iter().rev().find(sets_it) {
            Some(setting) => format!("--set {setting}").into(),
            None => file.into(),
        };
        TrainConfigError::Value { file, key: key.into(), problem }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// The first key out of range.
    pub fn validate(&self, file: &Path) -> Result<(), TrainConfigError> {
        let check = Check { config: self, file };
        self.validate_data(&check)?;
        self.validate_counts(&check)?;
        self.validate_learning(&check)?;
        if let Some(scst) = &self.phase.scst {
            validate_scst(scst, &check)?;
        }
        if let Some(lora) = &self.lora {
            validate_lora(lora, self.init.model.is_some(), &check)?;
        }
        if self.init.model.is_some() { Ok(()) } else { self.validate_model(file) }
    }

    fn validate_data(&self, check: &Check<'_>) -> Result<(), TrainConfigError> {
        if self.output.as_os_str().is_empty() {
            return check.bad("output", "missing; expected the run's folder".into());
        }
        if self.data.path.as_os_str().is_empty() {
            return check.bad("data.path", "missing; name the data set here or with --data".into());
        }
        if !(self.data.val_share > 0.0 && self.data.val_share < 1.0) {
            return check.bad(
                "data.val_share",
                format!("{}; expected a share between 0 and 1", self.data.val_share),
            );
        }
        if self.tokenizer.file.is_none() && self.tokenizer.vocab_size < 260 {
            return check.bad(
                "tokenizer.vocab_size",
                format!(
                    "{}; expected at least 260 (every byte, and a few more)",
                    self.tokenizer.vocab_size
                ),
            );
        }
        if let Err(error) = self.image.validate() {
            return check.bad("image", error.to_string());
        }
        if let Err(error) = self.augment.validate() {
            return check.bad("augment", error.to_string());
        }
        Ok(())
    }

    fn validate_counts(&self, check: &Check<'_>) -> Result<(), TrainConfigError> {
        for (key, value) in [
            ("data.captions_per_image", self.data.captions_per_image),
            ("data.workers", self.data.workers),
            ("data.cache_views", self.data.cache_views as usize),
            ("data.max_pixels", self.data.max_pixels.min(1) as usize),
            ("train.batch_size", self.train.batch_size),
            ("train.accumulation", self.train.accumulation),
            ("train.data_parallel", self.train.data_parallel),
            ("train.validate_every", self.train.validate_every.map_or(1, |steps| steps as usize)),
            ("train.checkpoint_every", self.train.checkpoint_every as usize),
            ("train.log_every", self.train.log_every as usize),
        ] {
            if value == 0 {
                return check.bad(key, "0; expected at least 1".into());
            }
        }
        if self.train.max_steps == Some(0) && self.phase.is_empty() {
            return check
                .bad("train.max_steps", "0; expected at least 1, or a phase to follow".into());
        }
        if self.train.average_last == 1 {
            return check.bad("train.average_last", "1; expected 0 or at least 2".into());
        }
        if self.train.average_last > 0 && self.lora.as_ref().is_some_and(|lora| !lora.merge) {
            let problem = "needs whole weights: set lora.merge = true, or this to 0";
            return check.bad("train.average_last", problem.into());
        }
        Ok(())
    }

    fn validate_learning(&self, check: &Check<'_>) -> Result<(), TrainConfigError> {
        check.positive("train.epochs", self.train.epochs)?;
        check.share("train.label_smoothing", self.train.label_smoothing)?;
        check.positive("schedule.learning_rate", self.schedule.learning_rate)?;
        if !(0.0..=1.0).contains(&self.schedule.final_fraction) {
            return check.bad(
                "schedule.final_fraction",
                format!("{}; expected a number in [0, 1]", self.schedule.final_fraction),
            );
        }
        check.positive("schedule.encoder_factor", self.schedule.encoder_factor)?;
        check.positive("schedule.backbone_factor", self.schedule.backbone_factor)?;
        check.share("optimizer.beta_1", self.optimizer.beta_1)?;
        check.share("optimizer.beta_2", self.optimizer.beta_2)?;
        check.positive("optimizer.epsilon", self.optimizer.epsilon)?;
        check.share("optimizer.weight_decay", self.optimizer.weight_decay)?;
        for (key, value) in
            [("optimizer.clip_norm", self.optimizer.clip_norm), ("train.r_drop", self.train.r_drop)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return check.bad(key, format!("{value}; expected 0 or a positive number"));
            }
        }
        check.share("optimizer.ema_decay", self.optimizer.ema_decay)?;
        Ok(())
    }

    /// Checks the model and decoding, once both are known.
    ///
    /// # Errors
    /// The first key out of range.
    pub fn validate_model(&self, file: &Path) -> Result<(), TrainConfigError> {
        let bad = |key: &str, problem: String| Err(self.value_error(file, key, problem));
        if let Err(error) = self.model.validate() {
            return bad(&format!("model.{}", error.key), error.problem);
        }
        let generate = self.decoding();
        if let Err(error) = generate.validate(self.model.decoder.vocab_size) {
            return bad("generate", error.to_string());
        }
        let (most, asked) = (self.model.decoder.max_positions, generate.max_new_tokens);
        if asked > most {
            return bad(
                "generate.max_new_tokens",
                format!("{asked}; expected at most model.decoder.max_positions = {most}"),
            );
        }
        Ok(())
    }

    /// How the loss that training minimises differs from that of a validation, in words: nothing where it
    /// does not.
    pub(super) fn what_is_minimised(&self) -> String {
        let (augment, decoder) = (&self.augment, &self.model.decoder);
        let changes_photos =
            augment.crop_scale[0] < 1.0 || augment.flip > 0.0 || augment.colour_jitter > 0.0;
        let differs = [
            (self.train.label_smoothing > 0.0, "label smoothing"),
            (self.train.r_drop > 0.0, "R-Drop"),
            (changes_photos, "changed photos"),
            (decoder.dropout > 0.0 || self.model.encoder.dropout > 0.0, "dropout"),
        ];
        let named: Vec<&str> =
            differs.into_iter().filter(|(is_on, _)| *is_on).map(|(_, name)| name).collect();
        if named.is_empty() { String::new() } else { format!("with {}", named.join(", ")) }
    }

    /// [`Self::generate`], or the defaults.
    pub fn decoding(&self) -> GenerateConfig {
        self.generate.clone().unwrap_or_default()
    }
}

/// Checks values of a config that stands in `file`, and names the key of one that is wrong.
struct Check<'a> {
    config: &'a TrainConfig,
    file: &'a Path,
}

impl Check<'_> {
    fn bad(&self, key: &str, problem: String) -> Result<(), TrainConfigError> {
        Err(self.config.value_error(self.file, key, problem))
    }

    fn positive(&self, key: &str, value: f64) -> Result<(), TrainConfigError> {
        match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => self.bad(key, format!("{value}; expected a positive number")),
        }
    }

    /// Of `[0, 1)`.
    fn share(&self, key: &str, value: f64) -> Result<(), TrainConfigError> {
        match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => self.bad(key, format!("{value}; expected a number in [0, 1)")),
        }
    }
}

fn validate_scst(scst: &ScstConfig, check: &Check<'_>) -> Result<(), TrainConfigError> {
    check.positive("phase.scst.epochs", scst.epochs)?;
    check.positive("phase.scst.learning_rate", scst.learning_rate)?;
    check.positive("phase.scst.temperature", f64::from(scst.temperature))?;
    if scst.batch_size == 0 {
        return check.bad("phase.scst.batch_size", "0; expected at least 1".into());
    }
    if scst.max_steps == Some(0) {
        return check.bad("phase.scst.max_steps", "0; expected at least 1".into());
    }
    let least = if scst.baseline == Baseline::Mean { 2 } else { 1 };
    if scst.samples < least {
        let problem = format!("{}; expected at least {least} with this baseline", scst.samples);
        return check.bad("phase.scst.samples", problem);
    }
    Ok(())
}

fn validate_lora(
    lora: &LoraConfig,
    has_model: bool,
    check: &Check<'_>,
) -> Result<(), TrainConfigError> {
    if !has_model {
        let problem = "adapts a trained model: name it as `init`, or remove this section";
        return check.bad("lora", problem.into());
    }
    if lora.rank == 0 {
        return check.bad("lora.rank", "0; expected at least 1".into());
    }
    check.positive("lora.alpha", lora.alpha)?;
    if lora.targets.is_empty() {
        return check.bad("lora.targets", "empty; expected names of matrices".into());
    }
    Ok(())
}

/// Reads `"encoder"` as `["encoder"]`.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("a name in quotes, or a list of them")
        }

        fn visit_str<E>(self, name: &str) -> Result<Vec<String>, E> {
            Ok(vec![name.into()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Vec<String>, A::Error> {
            let mut all = Vec::new();
            while let Some(name) = names.next_element()? {
                all.push(name);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}
