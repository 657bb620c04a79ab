//! Hugging Face folders as they are downloaded: BLIP and VisionEncoderDecoder models.
//!
//! They are configs and key maps of the one encoder and the one decoder: nothing here computes.

mod blip_original;
mod config;
mod decoding;
mod encoder;
mod encoder_keys;
mod export;
mod lora;
mod preprocess;
mod recipe;
mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value};

use super::adapter::add_factors;
use super::peft::PeftAdapter;
use super::tensors;
use super::weight_file::WeightFile;
use super::{Architecture, Checkpoint, CheckpointError, Parts, check_preprocess, check_tokenizer};
use crate::image::PreprocessConfig;
use crate::model::Captioner;
use crate::text::Tokenizer;
pub(super) use encoder::load_encoder;
pub(super) use export::write as export;
pub(super) use lora::public as public_factors;

use config::{Description, EncoderFamily, Evidence, describe, families};

/// Reads such a folder; `config` is its `config.json`, `adapter` is added to its weights.
///
/// # Errors
/// The file, key or tensor at fault, tensors under their public names.
pub(super) fn load(
    folder: PathBuf,
    config: &Map<String, Value>,
    adapter: Option<&PeftAdapter>,
    device: &Device,
) -> Result<Checkpoint, CheckpointError> {
    let config_file = folder.join("config.json");
    // An architecture or a processor that is not known is said before the weights are looked for.
    families(&config_file, config)?;
    preprocess::check(&folder)?;
    let weights = WeightFile::find(&folder)?.unwrapped();
    let (description, tokenizer, preprocess) = parts(&folder, config, Some(&weights))?;
    let factors = adapter.map(|adapter| lora::factors(adapter, &description)).transpose()?;
    let made =
        assemble(folder, &config_file, description, tokenizer, preprocess, &weights, device)?;
    match (adapter, factors) {
        (Some(adapter), Some(factors)) => {
            let model = add_factors(made.model, factors, &adapter.file)?;
            Ok(Checkpoint { model, ..made })
        }
        _ => Ok(made),
    }
}

/// Reads all but the weights of such a folder. Where they are not here, what only they tell is what the
/// config makes likely.
fn parts(
    folder: &Path,
    config: &Map<String, Value>,
    weights: Option<&WeightFile>,
) -> Result<(Description, Tokenizer, PreprocessConfig), CheckpointError> {
    let config_file = folder.join("config.json");
    let families = families(&config_file, config)?;
    let (_, decoder) = families;
    let (output, tokens) = (decoder.output(), decoder.tokens());
    let evidence = match weights {
        Some(weights) => Evidence {
            memory_projection: weights.contains("enc_to_dec_proj.weight"),
            // Files made from PyTorch's pickles hold a tied matrix twice.
            untied: match weights.contains(output) && weights.contains(&tokens) {
                true => !weights.same(output, &tokens)?,
                false => weights.contains(output),
            },
        },
        None => likely(config),
    };
    let description = describe(folder, config, families, &evidence)?;
    let (preprocess_file, preprocess) = preprocess::read(folder, &description.model)?;
    check_preprocess(&preprocess_file, &preprocess, &description.model)?;
    let (tokenizer_file, tokenizer) = tokenizer::read(folder, description.special)?;
    check_tokenizer(&tokenizer_file, &tokenizer, &description.model)?;
    Ok((description, tokenizer, preprocess))
}

/// What the weights would tell, as far as transformers' own defaults make it likely.
fn likely(config: &Map<String, Value>) -> Evidence {
    let of = |section: &str, key: &str| config.get(section).and_then(|section| section.get(key));
    let width = |section: &str| of(section, "n_embd").or_else(|| of(section, "hidden_size"));
    let cross = of("decoder", "cross_attention_hidden_size").filter(|width| !width.is_null());
    let tied = of("decoder", "tie_word_embeddings").or_else(|| config.get("tie_word_embeddings"));
    Evidence {
        memory_projection: width("encoder") != width("decoder") && cross.is_none(),
        untied: tied.and_then(Value::as_bool) == Some(false),
    }
}

/// Reads all but the weights' data of such a folder, and which tensors they are if they are here.
///
/// # Errors
/// The file or key at fault.
pub(super) fn open(
    folder: &Path,
    config: &Map<String, Value>,
) -> Result<(Parts, Option<WeightFile>), CheckpointError> {
    let weights = WeightFile::find_if_there(folder)?.map(WeightFile::unwrapped);
    let (description, tokenizer, preprocess) = parts(folder, config, weights.as_ref())?;
    let architecture = Some(description.architecture());
    let Description { model, generate, .. } = description;
    Ok((Parts { model, tokenizer, preprocess, generate, architecture }, weights))
}

/// Reads a file of weights that says all there is to know: the BLIP repository's own.
///
/// # Errors
/// The file or tensor at fault.
pub(super) fn load_file(file: &Path, device: &Device) -> Result<Checkpoint, CheckpointError> {
    let weights = WeightFile::open(file)?.unwrapped();
    let (description, tokenizer, preprocess) = file_parts(file, &weights)?;
    let folder = file.parent().unwrap_or(Path::new(".")).to_path_buf();
    assemble(folder, file, description, tokenizer, preprocess, &weights, device)
}

fn file_parts(
    file: &Path,
    weights: &WeightFile,
) -> Result<(Description, Tokenizer, PreprocessConfig), CheckpointError> {
    blip_original::check(weights)?;
    let tokenizer = blip_original::tokenizer(file)?;
    let description = blip_original::describe(weights, &tokenizer)?;
    let tokenizer = tokenizer.with_special_tokens(description.special);
    check_tokenizer(&file.with_file_name("tokenizer.json"), &tokenizer, &description.model)?;
    let preprocess = blip_original::preprocess(&description.model);
    check_preprocess(file, &preprocess, &description.model)?;
    Ok((description, tokenizer, preprocess))
}

/// Reads all but the weights' data of such a file.
///
/// # Errors
/// The file or tensor at fault.
pub(super) fn open_file(file: &Path) -> Result<(Parts, WeightFile), CheckpointError> {
    let weights = WeightFile::open(file)?.unwrapped();
    let (description, tokenizer, preprocess) = file_parts(file, &weights)?;
    let architecture = Some(description.architecture());
    let Description { model, generate, .. } = description;
    Ok((Parts { model, tokenizer, preprocess, generate, architecture }, weights))
}

impl Description {
    fn architecture(&self) -> Architecture {
        match self.encoder {
            EncoderFamily::Blip | EncoderFamily::BlipOriginal => Architecture::Blip,
            EncoderFamily::Vit | EncoderFamily::Deit => Architecture::VisionEncoderDecoder,
        }
    }
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
    let architecture = Some(description.architecture());
    let generate = description.generate;
    let default_map = None;
    Ok(Checkpoint { folder, model, tokenizer, preprocess, generate, architecture, default_map })
}

#[cfg(test)]
mod decoding_tests;
#[cfg(test)]
mod tests;
