//! Checkpoint folders: written atomically, read with every tensor accounted for.
//!
//! ```text
//! config.json         model config and decoding defaults, with a format version
//! model.safetensors   weights, names as the modules
//! adapter.safetensors low-rank adapters to add to the weights, if they were kept apart
//! tokenizer.json      Hugging Face tokenizers format
//! preprocessor.json   image size, resize mode, filter, mean, std
//! training/           what resuming needs (`patchword train --resume`)
//! README.md           model card
//! inspect.json        the map of an inspection that was found best, if one was sought
//! ```
//!
//! A Hugging Face folder of a captioner is read as it was downloaded (`transformers`).

pub mod adapter;
pub mod atomic;
pub mod average;
pub mod card;
pub mod convert;
pub mod encoder;
mod error;
mod files;
mod info;
mod locate;
mod peft;
#[cfg(test)]
mod peft_tests;
pub mod shipped;
pub mod tensors;
mod transformers;
pub mod weight_file;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::generate::GenerateConfig;
use crate::image::PreprocessConfig;
use crate::model::{Captioner, CaptionerConfig};
use crate::text::{SpecialTokenNames, SpecialTokens, Tokenizer};
pub use error::CheckpointError;
use files::Files;
pub use files::Location;
pub use info::{FileInfo, ModelInfo, NumParameters, TokenInfo, TokensInfo, WeightsInfo, info};
pub use locate::locate;
use tensors::HostTensors;

/// Version of the folder's format.
pub const FORMAT_VERSION: u32 = 1;

/// `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Always `"patchword"`.
    pub format: String,
    /// [`FORMAT_VERSION`] at the time of writing.
    pub version: u32,
    /// The model's shape.
    pub model: CaptionerConfig,
    /// How to decode unless told otherwise.
    #[serde(default)]
    pub generate: GenerateConfig,
    /// The ids around a caption; if absent, those of the tokenizer's tokens with the usual names.
    #[serde(default)]
    pub special_tokens: Option<SpecialTokens>,
    /// The public model that it was trained from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
}

/// Public models by the classes of transformers that compute them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// `BlipForConditionalGeneration`.
    Blip,
    /// `VisionEncoderDecoderModel`.
    VisionEncoderDecoder,
}

/// Everything that captioning needs.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The folder it was read from; of the captioner that ships, its name.
    pub folder: PathBuf,
    /// The model, on the device asked for.
    pub model: Captioner,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// How photos become pixels.
    pub preprocess: PreprocessConfig,
    /// How to decode unless told otherwise.
    pub generate: GenerateConfig,
    /// The public model that it is or was trained from, if it was.
    pub architecture: Option<Architecture>,
    /// What [`INSPECT_FILE`] says, if there is one: see [`crate::inspect::DefaultMap`].
    pub default_map: Option<serde_json::Value>,
}

/// The file that names the map of an inspection that was found best.
pub const INSPECT_FILE: &str = "inspect.json";

/// How a checkpoint is read where it is not to be taken as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// `[height, width]` of the images that the model will read, multiples of its patch size.
    pub image_size: Option<[usize; 2]>,
}

impl Checkpoint {
    /// The same with weights in f16: see [`Captioner::into_f16`].
    #[must_use]
    pub fn into_f16(self) -> Self {
        Self { model: self.model.into_f16(), ..self }
    }

    /// The same for images of another size: see [`Captioner::with_image_size`].
    ///
    /// # Errors
    /// [`CheckpointError::ImageSize`].
    pub fn with_image_size(self, [height, width]: [usize; 2]) -> Result<Self, CheckpointError> {
        let refused = |problem: String| CheckpointError::ImageSize { height, width, problem };
        let preprocess = self.preprocess.with_size(height, width);
        preprocess.validate().map_err(|error| refused(error.to_string()))?;
        let model = self.model.with_image_size(height, width);
        let model = model.map_err(|error| refused(error.to_string()))?;
        Ok(Self { model, preprocess, ..self })
    }
}

/// Reads what `name` stands for ([`Location::named`]): a checkpoint folder, the file of an original BLIP
/// captioner, or the captioner that ships.
///
/// # Errors
/// The file, key or tensor at fault.
pub fn load(name: &Path, device: &Device) -> Result<Checkpoint, CheckpointError> {
    load_with(&Location::named(name), device, &LoadOptions::default())
}

fn load_as_it_is(location: &Location, device: &Device) -> Result<Checkpoint, CheckpointError> {
    if let Location::Path(path) = location
        && path.is_file()
    {
        return transformers::load_file(path, device);
    }
    let mut files = location.files()?;
    let mut adapter = None;
    if let Files::Folder(folder) = &files {
        adapter = peft::read(folder)?;
        if adapter.is_some() && !files.has("config.json") {
            files = Files::Folder(peft::base(folder)?);
        }
    }
    let fields: serde_json::Map<String, serde_json::Value> = files.read_json("config.json")?;
    if let Files::Folder(folder) = &files
        && is_of_transformers(&fields)
    {
        let checkpoint = transformers::load(folder.clone(), &fields, adapter.as_ref(), device)?;
        return Ok(Checkpoint { default_map: default_map(&files)?, ..checkpoint });
    }
    if let Some(adapter) = adapter
        && !files.has(adapter::FILE)
    {
        let problem = "peft's adapters are read of models in transformers' form only".into();
        return Err(CheckpointError::Invalid { file: adapter.file, problem });
    }
    let Parts { model, tokenizer, preprocess, generate, architecture } = own_parts(&files)?;
    let weights = files.weights()?;
    let model = Captioner::new(&model, device).map_err(|error| CheckpointError::Invalid {
        file: files.path("config.json"),
        problem: format!("model.{error}"),
    })?;
    let model = tensors::apply(model, weights, &files.path(WEIGHTS))?;
    let model = match &files {
        Files::Folder(folder) => adapter::add(folder, model)?,
        Files::Embedded(_) => model,
    };
    let default_map = default_map(&files)?;
    let folder = files.folder().into();
    Ok(Checkpoint { folder, model, tokenizer, preprocess, generate, architecture, default_map })
}

fn default_map(files: &Files) -> Result<Option<serde_json::Value>, CheckpointError> {
    files.has(INSPECT_FILE).then(|| files.read_json(INSPECT_FILE)).transpose()
}

/// Whether a `config.json` is one of transformers'.
fn is_of_transformers(fields: &serde_json::Map<String, serde_json::Value>) -> bool {
    !fields.contains_key("format") && fields.contains_key("model_type")
}

/// The file of weights in a folder of ours.
const WEIGHTS: &str = "model.safetensors";

/// A checkpoint without its weights.
struct Parts {
    model: CaptionerConfig,
    tokenizer: Tokenizer,
    preprocess: PreprocessConfig,
    generate: GenerateConfig,
    architecture: Option<Architecture>,
}

/// Reads all but the weights of a checkpoint of ours.
fn own_parts(files: &Files) -> Result<Parts, CheckpointError> {
    let config_path = files.path("config.json");
    let config: ConfigFile = files.read_json("config.json")?;
    let invalid = |problem: String| CheckpointError::Invalid { file: config_path.clone(), problem };
    if config.format != "patchword" {
        return Err(invalid(format!("`format` is \"{}\"; expected \"patchword\"", config.format)));
    }
    if config.version > FORMAT_VERSION {
        return Err(invalid(format!(
            "`version` is {}; this patchword reads up to {FORMAT_VERSION}: update it",
            config.version
        )));
    }
    config.model.validate().map_err(|error| invalid(format!("model.{error}")))?;
    let decoder = &config.model.decoder;
    let decodes = config.generate.validate(decoder.vocab_size);
    decodes.map_err(|error| invalid(format!("in `generate`, {error}")))?;
    if config.generate.max_new_tokens > decoder.max_positions {
        return Err(invalid(format!(
            "`generate.max_new_tokens`: {}; the model has positions for {}",
            config.generate.max_new_tokens, decoder.max_positions
        )));
    }
    let preprocess: PreprocessConfig = files.read_json("preprocessor.json")?;
    check_preprocess(&files.path("preprocessor.json"), &preprocess, &config.model)?;
    let tokenizer = own_tokenizer(files, &config)?;
    let ConfigFile { model, generate, architecture, .. } = config;
    Ok(Parts { model, tokenizer, preprocess, generate, architecture })
}

/// Reads a model, and changes it as `options` say.
///
/// # Errors
/// As [`load`], and [`CheckpointError::ImageSize`].
pub fn load_with(
    location: &Location,
    device: &Device,
    options: &LoadOptions,
) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = load_as_it_is(location, device)?;
    match options.image_size {
        Some(size) => checkpoint.with_image_size(size),
        None => Ok(checkpoint),
    }
}

/// Writes a checkpoint as a folder that transformers' `from_pretrained` loads: its
/// `BlipForConditionalGeneration`, or its `VisionEncoderDecoderModel` of a ViT or DeiT with GPT-2, BERT
/// or RoBERTa. `output` must not exist.
///
/// # Errors
/// What those classes cannot express, by the key of the config, or a file that cannot be written.
pub fn export_to_transformers(
    checkpoint: &Checkpoint,
    output: &Path,
) -> Result<(), CheckpointError> {
    atomic::create_folder(output, |folder| transformers::export(checkpoint, folder))
}

/// Reads a checkpoint's tokenizer.
///
/// # Errors
/// A tokenizer that cannot be used or is another model's.
pub fn read_tokenizer(folder: &Path, config: &ConfigFile) -> Result<Tokenizer, CheckpointError> {
    own_tokenizer(&Files::Folder(folder.into()), config)
}

fn own_tokenizer(files: &Files, config: &ConfigFile) -> Result<Tokenizer, CheckpointError> {
    let file = files.path("tokenizer.json");
    let bytes = files.read("tokenizer.json")?;
    let tokenizer = Tokenizer::from_bytes(&file, &bytes, &SpecialTokenNames::default())?;
    check_tokenizer(&file, &tokenizer, &config.model)?;
    let Some(special) = config.special_tokens else { return Ok(tokenizer) };
    let largest = special.bos.max(special.eos).max(special.pad) as usize;
    let known = config.model.decoder.vocab_size;
    if largest >= known {
        return Err(CheckpointError::Invalid {
            file: files.path("config.json"),
            problem: format!("`special_tokens`: {largest}; the model has {known} tokens"),
        });
    }
    Ok(tokenizer.with_special_tokens(special))
}

fn check_tokenizer(
    file: &Path,
    tokenizer: &Tokenizer,
    model: &CaptionerConfig,
) -> Result<(), CheckpointError> {
    let (tokens, known) = (tokenizer.vocab_size(), model.decoder.vocab_size);
    if tokens <= known {
        return Ok(());
    }
    Err(CheckpointError::Invalid {
        file: file.into(),
        problem: format!("{tokens} tokens, but the model has {known}: it belongs to another model"),
    })
}

fn check_preprocess(
    file: &Path,
    preprocess: &PreprocessConfig,
    model: &CaptionerConfig,
) -> Result<(), CheckpointError> {
    let invalid = |problem: String| CheckpointError::Invalid { file: file.into(), problem };
    preprocess.validate().map_err(|error| invalid(error.to_string()))?;
    let encoder = &model.encoder;
    if (preprocess.height, preprocess.width) != (encoder.image_height, encoder.image_width) {
        return Err(invalid(format!(
            "makes {}×{} pixels, but the model reads {}×{}",
            preprocess.width, preprocess.height, encoder.image_width, encoder.image_height
        )));
    }
    Ok(())
}

/// What is written besides the weights.
pub struct Contents<'a> {
    /// The model's shape.
    pub model: &'a CaptionerConfig,
    /// How to decode unless told otherwise.
    pub generate: &'a GenerateConfig,
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How photos become pixels.
    pub preprocess: &'a PreprocessConfig,
    /// The public model that it was trained from, if it was.
    pub architecture: Option<Architecture>,
    /// The model card, Markdown.
    pub card: &'a str,
}

/// Fills an empty folder with a checkpoint; [`atomic::replace_folder`] makes it safe.
///
/// # Errors
/// The file that could not be written.
pub fn write_into(
    folder: &Path,
    contents: &Contents,
    weights: &HostTensors,
) -> Result<(), CheckpointError> {
    let config = ConfigFile {
        format: "patchword".into(),
        version: FORMAT_VERSION,
        model: contents.model.clone(),
        generate: contents.generate.clone(),
        special_tokens: Some(contents.tokenizer.special_tokens()),
        architecture: contents.architecture,
    };
    write_json(&folder.join("config.json"), &config)?;
    write_json(&folder.join("preprocessor.json"), contents.preprocess)?;
    contents.tokenizer.save(&folder.join("tokenizer.json"))?;
    let card = folder.join("README.md");
    fs::write(&card, contents.card).map_err(|source| CheckpointError::io(&card, source))?;
    let metadata = BTreeMap::from([("format".to_string(), "patchword".to_string())]);
    tensors::write(&folder.join(WEIGHTS), weights, metadata)
}

/// Reads a JSON file.
///
/// # Errors
/// The file, with line and column where its content is at fault.
pub fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, CheckpointError> {
    let io = |source| CheckpointError::io(file, source);
    // A pipe would wait for a writer, and a device may never end.
    if !file.metadata().map_err(io)?.is_file() {
        return Err(CheckpointError::Invalid { file: file.into(), problem: "is no file".into() });
    }
    parse_json(file, &read_whole(file)?)
}

/// The largest file that is read whole: no config and no vocabulary comes near it.
const MOST_WHOLE: u64 = 100_000_000;

/// All of a small file, which is no Git LFS pointer.
pub(super) fn read_whole(file: &Path) -> Result<Vec<u8>, CheckpointError> {
    let io = |source| CheckpointError::io(file, source);
    let length = file.metadata().map_err(io)?.len();
    if length > MOST_WHOLE {
        let problem = format!("has {length} bytes; expected at most {MOST_WHOLE}");
        return Err(CheckpointError::Invalid { file: file.into(), problem });
    }
    let bytes = fs::read(file).map_err(io)?;
    match CheckpointError::placeholder(file, &bytes) {
        Some(error) => Err(error),
        None => Ok(bytes),
    }
}

/// As [`read_json`], of what was read; `file` names it in errors.
fn parse_json<T: serde::de::DeserializeOwned>(
    file: &Path,
    bytes: &[u8],
) -> Result<T, CheckpointError> {
    let json = |key: &str, source| CheckpointError::Json {
        file: file.into(),
        key: if key == "." { "this JSON".into() } else { format!("`{key}`") },
        source,
    };
    // Editors of Windows put a byte-order mark before the text.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| json(&error.path().to_string(), error.into_inner()))?;
    reader.end().map_err(|source| json(".", source))?;
    Ok(value)
}

/// Writes a JSON file, indented.
///
/// # Errors
/// The file that could not be written.
pub fn write_json<T: Serialize>(file: &Path, value: &T) -> Result<(), CheckpointError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|source| CheckpointError::Json {
        file: file.into(),
        key: "this value".into(),
        source,
    })?;
    text.push('\n');
    fs::write(file, text).map_err(|source| CheckpointError::io(file, source))
}
