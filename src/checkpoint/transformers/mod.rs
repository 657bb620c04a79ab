//! Hugging Face folders as they are downloaded: BLIP and VisionEncoderDecoder models.
//!
//! They are configs and key maps of the one encoder and the one decoder: nothing here computes.

mod config;
mod decoding;
mod weights;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value};

use super::tensors::{self, HostTensors};
use super::{Checkpoint, CheckpointError, check_preprocess, check_tokenizer, read_json};
use crate::model::Captioner;
use crate::text::{SpecialTokenNames, Tokenizer};
use config::{Evidence, describe, families};

/// Reads such a folder; `config` is its `config.json`.
///
/// # Errors
/// The file, key or tensor at fault, tensors under their public names.
pub(super) fn load(
    folder: PathBuf,
    config: &Map<String, Value>,
    device: &Device,
) -> Result<Checkpoint, CheckpointError> {
    let config_file = folder.join("config.json");
    let families = families(&config_file, config)?;
    let (_, decoder) = families;
    let (weights_file, source) = read_weights(&folder)?;
    let evidence = Evidence {
        memory_projection: source.contains_key("enc_to_dec_proj.weight"),
        // Files made from PyTorch's pickles hold a tied matrix twice.
        untied: match (source.get(decoder.output()), source.get(&decoder.tokens())) {
            (Some(output), Some(tokens)) => output != tokens,
            (output, _) => output.is_some(),
        },
    };
    let description = describe(&folder, config, families, &evidence)?;
    let preprocess = config::preprocess(&folder, &description.model)?;
    check_preprocess(&folder.join("preprocessor_config.json"), &preprocess, &description.model)?;
    let tokenizer_file = folder.join("tokenizer.json");
    let tokenizer = Tokenizer::from_file(&tokenizer_file, &SpecialTokenNames::default())?
        .with_special_tokens(description.special);
    check_tokenizer(&tokenizer_file, &tokenizer, &description.model)?;
    let (ours, origins) = weights::convert(source, &description, &weights_file)?;
    let model = Captioner::new(&description.model, device).map_err(|error| {
        CheckpointError::Invalid { file: config_file, problem: error.to_string() }
    })?;
    let model = tensors::apply(model, ours, &weights_file).map_err(|error| match error {
        CheckpointError::TensorShape { file, tensor, found, expected } => {
            let tensor = origins.get(&tensor).cloned().unwrap_or(tensor);
            CheckpointError::TensorShape { file, tensor, found, expected }
        }
        other => other,
    })?;
    Ok(Checkpoint { folder, model, tokenizer, preprocess, generate: description.generate })
}

/// All tensors of `model.safetensors`, or of the shards that its index names.
fn read_weights(folder: &Path) -> Result<(PathBuf, HostTensors), CheckpointError> {
    let whole = folder.join("model.safetensors");
    if whole.is_file() {
        return Ok((whole.clone(), tensors::read(&whole)?));
    }
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        let fields: Map<String, Value> = read_json(&index)?;
        let invalid = |problem: &str| CheckpointError::Invalid {
            file: index.clone(),
            problem: problem.into(),
        };
        let Some(Value::Object(map)) = fields.get("weight_map") else {
            return Err(invalid("`weight_map` is missing; expected tensors and their files"));
        };
        let mut shards: Vec<&str> = map.values().filter_map(Value::as_str).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut all = HostTensors::new();
        for shard in shards {
            if Path::new(shard).components().count() != 1 {
                return Err(invalid("`weight_map` names a file outside of the folder"));
            }
            all.extend(tensors::read(&folder.join(shard))?);
        }
        return Ok((index, all));
    }
    let problem = match folder.join("pytorch_model.bin").is_file() {
        true => "is not here; pytorch_model.bin is not read yet: save the model as safetensors",
        false => "is not here, nor an index of its shards",
    };
    Err(CheckpointError::Invalid { file: whole, problem: problem.into() })
}

#[cfg(test)]
mod decoding_tests;
#[cfg(test)]
mod tests;
