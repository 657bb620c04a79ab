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
//! ```
//!
//! A Hugging Face folder of a captioner is read as it was downloaded (`transformers`).

pub mod adapter;
pub mod atomic;
pub mod average;
pub mod card;
pub mod convert;
pub mod encoder;
mod files;
mod info;
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
use files::Files;
pub use files::Location;
pub use info::{FileInfo, ModelInfo, NumParameters, TokenInfo, TokensInfo, WeightsInfo, info};
use tensors::HostTensors;

/// Version of the folder's format.
pub const FORMAT_VERSION: u32 = 1;

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error("cannot read or write `{}`", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is no checkpoint where one was named.
    #[error(
        "{folder}: no checkpoint here (expected config.json, or a run folder with best/ or last/)"
    )]
    NotFound {
        /// The folder named.
        folder: PathBuf,
    },
    /// A JSON file is damaged or has wrong keys.
    #[error("{file}: {key} cannot be used")]
    Json {
        /// The file.
        file: PathBuf,
        /// The key at fault (`` `generate.num_beams` ``), or "this JSON" where it is no key's fault.
        key: String,
        /// Line, column and cause.
        source: serde_json::Error,
    },
    /// A file holds a value that cannot be used.
    #[error("{file}: {problem}")]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The key and what was expected.
        problem: String,
    },
    /// A safetensors file is damaged.
    #[error("{file}: not a whole safetensors file: {problem}")]
    Tensors {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of PyTorch's is damaged, or its pickle asks for more than weights need.
    #[error("{file}: not PyTorch weights that can be read safely: {problem}")]
    Pickle {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor of the model is not in the file.
    #[error("{file}: tensor `{tensor}` {shape:?} is missing")]
    MissingTensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape expected.
        shape: Vec<usize>,
    },
    /// A tensor of the file is not in the model.
    #[error("{file}: tensor `{tensor}` is not in a model of this config ({others} more like it)")]
    UnexpectedTensor {
        /// The file.
        file: PathBuf,
        /// The first such tensor's name.
        tensor: String,
        /// How many more there are.
        others: usize,
    },
    /// A tensor has another shape than the config says.
    #[error("{file}: tensor `{tensor}` has shape {found:?}; the config asks for {expected:?}")]
    TensorShape {
        /// The file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape the config asks for.
        expected: Vec<usize>,
    },
    /// A tensor has a type that weights don't come in.
    #[error("{file}: tensor `{tensor}` is {found}; expected F32, F16 or BF16")]
    TensorType {
        /// The file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// transformers has no class that computes the model.
    #[error("{model}: transformers cannot run this model: {problem}")]
    NotForTransformers {
        /// The model's folder.
        model: PathBuf,
        /// The key of its config at fault, and what transformers has.
        problem: String,
    },
    /// The model cannot read images of the size asked for.
    #[error(
        "an image size of {width}×{height} (width × height) does not fit this model: {problem}"
    )]
    ImageSize {
        /// The height asked for.
        height: usize,
        /// The width asked for.
        width: usize,
        /// The key at fault and what was expected.
        problem: String,
    },
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] crate::text::TextError),
}

impl CheckpointError {
    /// A file that could not be read or written.
    pub fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.into(), source }
    }
}

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
}

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

/// The checkpoint folder that `path` names: itself, or of a run its `best`, else its `last`.
///
/// # Errors
/// [`CheckpointError::NotFound`].
pub fn locate(path: &Path) -> Result<PathBuf, CheckpointError> {
    atomic::recover(path);
    for candidate in [path.to_path_buf(), path.join("best"), path.join("last")] {
        atomic::recover(&candidate);
        if candidate.join("config.json").is_file() {
            return Ok(candidate);
        }
    }
    Err(CheckpointError::NotFound { folder: path.into() })
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
    let files = location.files()?;
    let fields: serde_json::Map<String, serde_json::Value> = files.read_json("config.json")?;
    if let Files::Folder(folder) = &files
        && is_of_transformers(&fields)
    {
        return transformers::load(folder.clone(), &fields, device);
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
    let folder = files.folder().into();
    Ok(Checkpoint { folder, model, tokenizer, preprocess, generate, architecture })
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
    if output.exists() {
        return Err(CheckpointError::Invalid {
            file: output.into(),
            problem: "exists already; name another place".into(),
        });
    }
    atomic::replace_folder(output, |folder| transformers::export(checkpoint, folder))
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
    parse_json(file, &fs::read(file).map_err(io)?)
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
