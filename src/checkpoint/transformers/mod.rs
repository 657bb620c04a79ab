//! Hugging Face folders as they are downloaded: BLIP and VisionEncoderDecoder models.
//!
//! They are configs and key maps of the one encoder and the one decoder: nothing here computes.

mod blip_original;
mod config;
mod preprocess;
mod recipe;
mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value};

use super::tensors;
use super::weight_file::WeightFile;
use super::{Checkpoint, CheckpointError, check_preprocess, check_tokenizer};
use crate::image::PreprocessConfig;
use crate::model::Captioner;
use crate::text::Tokenizer;
use config::{Description, Evidence, describe, families};

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
    let weights = WeightFile::find(&folder)?;
    let (output, tokens) = (decoder.output(), decoder.tokens());
    let evidence = Evidence {
        memory_projection: weights.contains("enc_to_dec_proj.weight"),
        // Files made from PyTorch's pickles hold a tied matrix twice.
        untied: match weights.contains(output) && weights.contains(&tokens) {
            true => !weights.same(output, &tokens)?,
            false => weights.contains(output),
        },
    };
    let description = describe(&folder, config, families, &evidence)?;
    let (preprocess_file, preprocess) = preprocess::read(&folder, &description.model)?;
    check_preprocess(&preprocess_file, &preprocess, &description.model)?;
    let (tokenizer_file, tokenizer) = tokenizer::read(&folder, description.special)?;
    check_tokenizer(&tokenizer_file, &tokenizer, &description.model)?;
    assemble(folder, &config_file, description, tokenizer, preprocess, &weights, device)
}

/// Reads a file of weights that says all there is to know: the BLIP repository's own.
///
/// # Errors
/// The file or tensor at fault.
pub(super) fn load_file(file: &Path, device: &Device) -> Result<Checkpoint, CheckpointError> {
    let weights = WeightFile::open(file)?;
    blip_original::check(&weights)?;
    let tokenizer = blip_original::tokenizer(file)?;
    let description = blip_original::describe(&weights, &tokenizer)?;
    let tokenizer = tokenizer.with_special_tokens(description.special);
    check_tokenizer(&file.with_file_name("tokenizer.json"), &tokenizer, &description.model)?;
    let preprocess = blip_original::preprocess(&description.model);
    check_preprocess(file, &preprocess, &description.model)?;
    let folder = file.parent().unwrap_or(Path::new(".")).to_path_buf();
    assemble(folder, file, description, tokenizer, preprocess, &weights, device)
}

/// Makes the model; `config_file` is what errors about its sizes name.
fn assemble(
    folder: PathBuf,
    config_file: &Path,
    description: Description,
    tokenizer: Tokenizer,
    preprocess: PreprocessConfig,
    weights: &WeightFile,
    device: &Device,
) -> Result<Checkpoint, CheckpointError> {
    let import = weights::import(weights, &description)?;
    let model = Captioner::new(&description.model, device).map_err(|error| {
        CheckpointError::Invalid { file: config_file.into(), problem: error.to_string() }
    })?;
    let model = tensors::apply(model, import, weights.origin())?;
    Ok(Checkpoint { folder, model, tokenizer, preprocess, generate: description.generate })
}

#[cfg(test)]
mod tests;
