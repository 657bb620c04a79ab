//! What a run starts from: random weights, a trained captioner, or its own last checkpoint.

use std::fmt;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::TrainError;
use super::config::{TrainConfig, TrainConfigError};
use super::state::{self, RunState};
use crate::checkpoint::card::license_of;
use crate::checkpoint::encoder::PretrainedEncoder;
use crate::checkpoint::{self, Architecture, tensors};
use crate::generate::GenerateConfig;
use crate::image::PreprocessConfig;
use crate::model::{Captioner, CaptionerConfig, EncoderConfig, initialize};
use crate::text::Tokenizer;

/// What training starts from, instead of random weights: `init = "PATH"`, or a section.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct InitConfig {
    /// A captioner: a checkpoint folder of ours, or a Hugging Face folder or id. Its tokenizer, its
    /// pixels and its decoding defaults come with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// A vision encoder: torchvision's weights of MobileNetV2, or a Hugging Face folder of an encoder.
    /// What the weights decide of `model.encoder`, and the mean and standard deviation of `image`, come
    /// with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<PathBuf>,
    /// Where the one or the other lies, if its name is not a path: the folder of a downloaded model.
    #[serde(skip)]
    pub located: Option<PathBuf>,
}

impl InitConfig {
    /// Whether training starts from random weights.
    pub fn is_empty(&self) -> bool {
        self.name().is_none()
    }

    /// The model or the encoder, as it was named.
    pub fn name(&self) -> Option<&Path> {
        self.model.as_deref().or(self.encoder.as_deref())
    }

    /// Whether both name the same start, wherever it lies.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        self.model == other.model && self.encoder == other.encoder
    }

    /// Where it is read.
    fn place(&self) -> Option<&Path> {
        self.located.as_deref().or(self.name())
    }
}

impl fmt::Display for InitConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.model, &self.encoder) {
            (Some(model), _) => write!(formatter, "`{}`", model.display()),
            (_, Some(encoder)) => write!(formatter, "the encoder `{}`", encoder.display()),
            (None, None) => formatter.write_str("random weights"),
        }
    }
}

impl<'de> Deserialize<'de> for InitConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathOrSection)
    }
}

/// Reads `init = "PATH"` as `init.model = "PATH"`.
struct PathOrSection;

impl<'de> Visitor<'de> for PathOrSection {
    type Value = InitConfig;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a model's folder in quotes, or a section with `model` or `encoder`")
    }

    fn visit_str<E>(self, path: &str) -> Result<InitConfig, E> {
        Ok(InitConfig { model: Some(path.into()), ..InitConfig::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<InitConfig, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[derive(Default)]
        struct Section {
            model: Option<PathBuf>,
            encoder: Option<PathBuf>,
        }
        let Section { model, encoder } = Section::deserialize(MapAccessDeserializer::new(map))?;
        Ok(InitConfig { model, encoder, located: None })
    }
}

/// What is known of a run before its data is read.
#[derive(Debug, Default)]
pub struct Start {
    /// The tokenizer, where it is not to be made from the captions.
    pub(super) tokenizer: Option<Tokenizer>,
    /// The public model that it is, if it is one.
    pub(super) architecture: Option<Architecture>,
    /// What comes with the model, where that is not the config's.
    pub(super) base: Option<Base>,
    /// The licence of what training starts from, if its card names one.
    pub(super) license: Option<String>,
    /// The weights that training starts from.
    weights: Weights,
}

#[derive(Debug, Default)]
enum Weights {
    #[default]
    Random,
    Model(Box<Captioner>),
    Encoder(Box<PretrainedEncoder>),
}

/// What a trained model brings along.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one a run, never in a collection")]
pub(super) enum Base {
    Model { model: CaptionerConfig, image: PreprocessConfig, generate: GenerateConfig },
    Encoder { encoder: EncoderConfig, mean: [f32; 3], std: [f32; 3] },
}

impl Start {
    /// The start of a new run.
    ///
    /// # Errors
    /// The file or tensor of `init.model` or `init.encoder` at fault.
    pub fn new(config: &TrainConfig) -> Result<Self, TrainError> {
        let Some(path) = config.init.place() else { return Ok(Self::default()) };
        let license = license_of(path);
        if config.init.model.is_some() {
            let checkpoint = checkpoint::load(path, &Device::flex())?;
            let base = Base::Model {
                model: checkpoint.model.config().clone(),
                image: checkpoint.preprocess,
                generate: checkpoint.generate,
            };
            let weights = Weights::Model(Box::new(checkpoint.model));
            let architecture = checkpoint.architecture;
            let tokenizer = Some(checkpoint.tokenizer);
            return Ok(Self { tokenizer, architecture, base: Some(base), license, weights });
        }
        let encoder = checkpoint::encoder::load(path)?;
        let base = Base::Encoder {
            encoder: encoder.config_for(&config.model.encoder),
            mean: encoder.preprocess.mean,
            std: encoder.preprocess.std,
        };
        let weights = Weights::Encoder(Box::new(encoder));
        Ok(Self { base: Some(base), license, weights, ..Self::default() })
    }

    /// The start of a run that goes on from the checkpoint in `folder`: what it started from need not
    /// be there any more.
    pub(super) fn resumed(folder: &Path, state: &RunState) -> Result<Self, TrainError> {
        let old = &state.config;
        let base = if old.init.model.is_some() {
            Some(Base::Model {
                model: old.model.clone(),
                image: old.image.clone(),
                generate: old.decoding(),
            })
        } else if old.init.encoder.is_some() {
            let encoder = old.model.encoder.clone();
            Some(Base::Encoder { encoder, mean: old.image.mean, std: old.image.std })
        } else {
            None
        };
        let (tokenizer, architecture) = state::read_tokenizer(folder)?;
        let tokenizer = Some(tokenizer);
        // Runs of earlier versions did not keep it.
        let license = state.license.clone().or_else(|| old.init.place().and_then(license_of));
        Ok(Self { tokenizer, architecture, base, license, weights: Weights::Random })
    }

    /// Puts what comes with the weights into `config`; returns whether its decoder is part of that.
    pub fn complete(&self, config: &mut TrainConfig) -> bool {
        self.base.as_ref().is_some_and(|base| base.complete(config))
    }

    /// The model before the first step.
    pub(super) fn model(
        self,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Captioner, TrainError> {
        let model = Captioner::new(&config.model, device)?;
        match self.weights {
            Weights::Random => Ok(initialize(model, config.seed)),
            Weights::Model(weights) => {
                let path = config.init.place().unwrap_or(Path::new(""));
                Ok(tensors::apply(model, tensors::parameters(&*weights), path)?)
            }
            Weights::Encoder(encoder) => Ok(encoder.put_into(initialize(model, config.seed))?),
        }
    }
}

impl Base {
    /// Puts what comes with the model into `config`; returns whether its decoder is part of that.
    pub(super) fn complete(&self, config: &mut TrainConfig) -> bool {
        let own = config.model.clone();
        match self {
            Self::Model { model, image, generate } => {
                config.model = model.clone();
                config.model.decoder.dropout = own.decoder.dropout;
                config.image = image.clone();
                config.generate.get_or_insert_with(|| generate.clone());
            }
            Self::Encoder { encoder, mean, std } => {
                config.model.encoder = encoder.clone();
                (config.image.mean, config.image.std) = (*mean, *std);
            }
        }
        config.model.encoder.dropout = own.encoder.dropout;
        config.model.encoder.drop_path = own.encoder.drop_path;
        matches!(self, Self::Model { .. })
    }
}

/// Keys that a model or an encoder brings along are an error beside it, so that nobody believes in
/// them.
pub(super) fn refuse_what_comes_with_the_model(
    table: &toml::Table,
    error: impl Fn(String, String) -> TrainConfigError,
) -> Result<(), TrainConfigError> {
    const OWN: [&str; 3] =
        ["model.encoder.dropout", "model.encoder.drop_path", "model.decoder.dropout"];
    let bad = |key: String, problem: String| Err(error(key, problem));
    let (model, encoder) = match table.get("init") {
        Some(toml::Value::Table(init)) => {
            (init.contains_key("model"), init.contains_key("encoder"))
        }
        other => (other.is_some(), false),
    };
    if model && encoder {
        return bad("init".into(), "names a model, which has an encoder: remove `encoder`".into());
    }
    let mut keys = Vec::new();
    for section in ["image", "tokenizer", "model"] {
        if let Some(value) = table.get(section) {
            leaf_keys(section, value, &mut keys);
        }
    }
    if model && let Some(key) = keys.iter().find(|key| !OWN.contains(&key.as_str())) {
        let problem = format!(
            "comes with the model that `init` names: remove it (of [image], [tokenizer] and [model] \
             only {} can be set)",
            OWN.join(", ")
        );
        return bad(key.clone(), problem);
    }
    let pixels = |key: &&String| ["image.mean", "image.std"].contains(&key.as_str());
    if encoder && let Some(key) = keys.iter().find(pixels) {
        let problem = "comes with the encoder that `init.encoder` names: remove it";
        return bad(key.clone(), problem.into());
    }
    Ok(())
}

fn leaf_keys(path: &str, value: &toml::Value, keys: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            table.iter().for_each(|(key, value)| leaf_keys(&format!("{path}.{key}"), value, keys));
        }
        _ => keys.push(path.into()),
    }
}
