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
use crate::checkpoint::{self, tensors};
use crate::generate::GenerateConfig;
use crate::image::PreprocessConfig;
use crate::model::{Captioner, CaptionerConfig, initialize};
use crate::text::Tokenizer;

/// What training starts from, instead of random weights: `init = "PATH"`, or a section.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct InitConfig {
    /// A captioner: a checkpoint folder of ours or a Hugging Face folder. Its tokenizer, its pixels
    /// and its decoding defaults come with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
}

impl InitConfig {
    /// Whether training starts from random weights.
    pub fn is_empty(&self) -> bool {
        self.model.is_none()
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
        formatter.write_str("a model's folder in quotes, or a section with `model`")
    }

    fn visit_str<E>(self, path: &str) -> Result<InitConfig, E> {
        Ok(InitConfig { model: Some(path.into()) })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<InitConfig, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[derive(Default)]
        struct Section {
            model: Option<PathBuf>,
        }
        let Section { model } = Section::deserialize(MapAccessDeserializer::new(map))?;
        Ok(InitConfig { model })
    }
}

/// What is known of a run before its data is read.
#[derive(Debug, Default)]
pub struct Start {
    /// The tokenizer, where it is not to be made from the captions.
    pub(super) tokenizer: Option<Tokenizer>,
    /// What comes with the model, where that is not the config's.
    pub(super) base: Option<Base>,
    /// The model that training starts from.
    weights: Option<Captioner>,
}

/// What a trained model brings along.
#[derive(Debug)]
pub(super) struct Base {
    model: CaptionerConfig,
    image: PreprocessConfig,
    generate: GenerateConfig,
}

impl Start {
    /// The start of a new run.
    ///
    /// # Errors
    /// The file or tensor of `init.model` at fault.
    pub fn new(config: &TrainConfig) -> Result<Self, TrainError> {
        let Some(path) = &config.init.model else { return Ok(Self::default()) };
        let checkpoint = checkpoint::load(path, &Device::flex())?;
        let base = Base {
            model: checkpoint.model.config().clone(),
            image: checkpoint.preprocess,
            generate: checkpoint.generate,
        };
        let (tokenizer, weights) = (Some(checkpoint.tokenizer), Some(checkpoint.model));
        Ok(Self { tokenizer, base: Some(base), weights })
    }

    /// The start of a run that goes on from the checkpoint in `folder`: what it started from need not
    /// be there any more.
    pub(super) fn resumed(folder: &Path, state: &RunState) -> Result<Self, TrainError> {
        let old = &state.config;
        let base = old.init.model.is_some().then(|| Base {
            model: old.model.clone(),
            image: old.image.clone(),
            generate: old.decoding(),
        });
        Ok(Self { tokenizer: Some(state::read_tokenizer(folder)?), base, weights: None })
    }

    /// The model before the first step.
    pub(super) fn model(
        self,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Captioner, TrainError> {
        let model = Captioner::new(&config.model, device)?;
        match (self.weights, &config.init.model) {
            (Some(weights), Some(path)) => {
                Ok(tensors::apply(model, tensors::parameters(&weights), path)?)
            }
            _ => Ok(initialize(model, config.seed)),
        }
    }
}

impl Base {
    /// Puts what comes with the model into `config`.
    pub(super) fn complete(&self, config: &mut TrainConfig) {
        let own = std::mem::replace(&mut config.model, self.model.clone());
        config.model.encoder.dropout = own.encoder.dropout;
        config.model.encoder.drop_path = own.encoder.drop_path;
        config.model.decoder.dropout = own.decoder.dropout;
        config.image = self.image.clone();
        config.generate.get_or_insert_with(|| self.generate.clone());
    }
}

/// Keys that a model brings along are an error beside `init.model`, so that nobody believes in them.
pub(super) fn refuse_what_comes_with_the_model(
    table: &toml::Table,
    file: &Path,
) -> Result<(), TrainConfigError> {
    const OWN: [&str; 3] =
        ["model.encoder.dropout", "model.encoder.drop_path", "model.decoder.dropout"];
    let named = match table.get("init") {
        Some(toml::Value::Table(section)) => section.contains_key("model"),
        other => other.is_some(),
    };
    if !named {
        return Ok(());
    }
    let mut keys = Vec::new();
    for section in ["image", "tokenizer", "model"] {
        if let Some(value) = table.get(section) {
            leaf_keys(section, value, &mut keys);
        }
    }
    match keys.into_iter().find(|key| !OWN.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(TrainConfigError::Value {
            file: file.into(),
            key,
            problem: format!(
                "comes with the model that `init` names: remove it (of [image], [tokenizer] and \
                 [model] only {} can be set)",
                OWN.join(", ")
            ),
        }),
    }
}

fn leaf_keys(path: &str, value: &toml::Value, keys: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            table.iter().for_each(|(key, value)| leaf_keys(&format!("{path}.{key}"), value, keys));
        }
        _ => keys.push(path.into()),
    }
}
