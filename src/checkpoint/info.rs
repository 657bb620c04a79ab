//! What a model is, without reading its weights' data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use serde::Serialize;
use serde_json::{Map, Value};

use super::card::license;
use super::files::Files;
use super::weight_file::WeightFile;
use super::{CheckpointError, Location, Parts, is_of_transformers, own_parts, transformers};
use crate::generate::GenerateConfig;
use crate::image::PreprocessConfig;
use crate::model::{Captioner, CaptionerConfig, ParameterPath, VisitParameters, visit_parameters};
use crate::text::Tokenizer;

/// What a model is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// The folder that was looked at; none of the captioner that ships.
    pub folder: Option<PathBuf>,
    /// Whose format it is: `patchword`, or the `model_type` of a Hugging Face config with those of its
    /// parts.
    pub family: String,
    /// The model's shape.
    pub model: CaptionerConfig,
    /// Parameters, a tied matrix counted once.
    pub parameters: NumParameters,
    /// The weights; none where they are not in the folder.
    pub weights: Option<WeightsInfo>,
    /// The vocabulary.
    pub tokens: TokensInfo,
    /// How photos become pixels.
    pub preprocess: PreprocessConfig,
    /// How it decodes unless told otherwise.
    pub generate: GenerateConfig,
    /// The licence, if the model card's head says it.
    pub license: Option<String>,
    /// The files in the folder, by name.
    pub files: Vec<FileInfo>,
}

/// Numbers of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NumParameters {
    /// The vision encoder's.
    pub encoder: usize,
    /// The projection's from the encoder's width to the decoder's.
    pub memory_projection: usize,
    /// The text decoder's.
    pub decoder: usize,
    /// All of them.
    pub total: usize,
}

/// What is in the weights' files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WeightsInfo {
    /// The file, or the index of its shards.
    pub file: PathBuf,
    /// Number of tensors.
    pub num_tensors: usize,
    /// Number of elements of each type, such as `F32`.
    pub dtypes: BTreeMap<String, u64>,
    /// Size of all tensors in bytes.
    pub bytes: u64,
}

/// The vocabulary and the tokens that structure a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokensInfo {
    /// Number of token ids of the tokenizer; the model may have room for more.
    pub vocab_size: usize,
    /// Begins every caption.
    pub bos: TokenInfo,
    /// Ends every caption.
    pub eos: TokenInfo,
    /// Fills a batch up.
    pub pad: TokenInfo,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    /// Its id.
    pub id: u32,
    /// As the vocabulary writes it; none if it is not in there.
    pub token: Option<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Looks at a checkpoint folder, ours or a Hugging Face one, the file of an original BLIP captioner, or
/// the captioner that ships. The weights may be absent.
///
/// # Errors
/// The file or key at fault, as [`load`](super::load) would say.
pub fn info(location: &Location) -> Result<ModelInfo, CheckpointError> {
    if let Location::Path(path) = location
        && path.is_file()
    {
        let (parts, weights) = transformers::open_file(path)?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        return gather(&Files::Folder(folder), "blip (original)".into(), parts, Some(weights));
    }
    let files = location.files()?;
    let fields: Map<String, Value> = files.read_json("config.json")?;
    match &files {
        Files::Folder(folder) if is_of_transformers(&fields) => {
            let (parts, weights) = transformers::open(folder, &fields)?;
            gather(&files, family(&fields), parts, weights)
        }
        Files::Folder(folder) => {
            let weights = WeightFile::find_if_there(folder)?;
            gather(&files, "patchword".into(), own_parts(&files)?, weights)
        }
        Files::Embedded(_) => {
            gather(&files, "patchword".into(), own_parts(&files)?, Some(files.weights()?))
        }
    }
}

fn gather(
    files: &Files,
    family: String,
    parts: Parts,
    weights: Option<WeightFile>,
) -> Result<ModelInfo, CheckpointError> {
    let Parts { model, tokenizer, preprocess, generate, .. } = parts;
    Ok(ModelInfo {
        family,
        parameters: count(&model).map_err(|error| CheckpointError::Invalid {
            file: files.path("config.json"),
            problem: error.to_string(),
        })?,
        weights: weights.as_ref().map(weights_info),
        tokens: tokens_info(&tokenizer),
        license: license(&String::from_utf8_lossy(&files.read("README.md").unwrap_or_default())),
        files: files.list()?.into_iter().map(|(name, bytes)| FileInfo { name, bytes }).collect(),
        model,
        preprocess,
        generate,
        folder: match files {
            Files::Folder(folder) => Some(folder.clone()),
            Files::Embedded(_) => None,
        },
    })
}

/// `blip`, or `vision-encoder-decoder (vit, gpt2)`.
fn family(config: &Map<String, Value>) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("?").to_string();
    let whole = text(config.get("model_type"));
    match (config.get("encoder"), config.get("decoder")) {
        (Some(encoder), Some(decoder)) => {
            let of = |part: &Value| text(part.get("model_type"));
            format!("{whole} ({}, {})", of(encoder), of(decoder))
        }
        _ => whole,
    }
}

fn count(config: &CaptionerConfig) -> Result<NumParameters, crate::model::ConfigError> {
    // No parameter is filled: only their shapes are asked for.
    let model = Captioner::new(config, &Device::flex())?;
    let mut counter = Counter(BTreeMap::new());
    visit_parameters(&model, &mut counter);
    let of = |part: &str| counter.0.get(part).copied().unwrap_or(0);
    Ok(NumParameters {
        encoder: of("encoder"),
        memory_projection: of("memory_projection"),
        decoder: of("decoder"),
        total: counter.0.values().sum(),
    })
}

/// Counts parameters by the part of the model that they are in.
struct Counter(BTreeMap<String, usize>);

impl VisitParameters for Counter {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        *self.0.entry(path.part().into()).or_default() += param.lazy_shape().num_elements();
    }
}

fn weights_info(weights: &WeightFile) -> WeightsInfo {
    let mut info = WeightsInfo {
        file: weights.origin().into(),
        num_tensors: 0,
        dtypes: BTreeMap::new(),
        bytes: 0,
    };
    for name in weights.names() {
        let (Some(shape), Some(dtype)) = (weights.shape(name), weights.dtype(name)) else {
            continue;
        };
        let elements = shape.iter().product::<usize>() as u64;
        info.num_tensors += 1;
        *info.dtypes.entry(format!("{dtype:?}")).or_default() += elements;
        info.bytes += elements * dtype.bitsize() as u64 / 8;
    }
    info
}

fn tokens_info(tokenizer: &Tokenizer) -> TokensInfo {
    let token = |id: u32| TokenInfo { id, token: tokenizer.token(id) };
    let special = tokenizer.special_tokens();
    TokensInfo {
        vocab_size: tokenizer.vocab_size(),
        bos: token(special.bos),
        eos: token(special.eos),
        pad: token(special.pad),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use burn::module::Module;

    use super::*;
    use crate::shared::shared;

    #[test]
    fn parameters_are_those_that_are_loaded() {
        for name in ["blip", "vit-gpt2", "vit-bert"] {
            let Some(folder) = shared(&format!("parity/{name}")) else { continue };
            let info = info(&Location::Path(folder.clone())).unwrap();
            let model = super::super::load(&folder, &Device::flex()).unwrap().model;
            assert_eq!(info.parameters.total, model.num_params(), "{name}");
            let NumParameters { encoder, memory_projection, decoder, total } = info.parameters;
            assert_eq!(encoder + memory_projection + decoder, total, "{name}");
            assert_eq!(memory_projection > 0, name == "vit-bert", "{name}");
            let weights = info.weights.unwrap();
            assert_eq!(weights.dtypes.keys().collect::<Vec<_>>(), ["F32"], "{name}");

            // Without the weights the config has to do.
            let copy = tempfile::tempdir().unwrap();
            for file in &info.files {
                if file.name.ends_with(".json") {
                    fs::copy(folder.join(&file.name), copy.path().join(&file.name)).unwrap();
                }
            }
            let without = super::info(&Location::Path(copy.path().into())).unwrap();
            assert_eq!(without.weights, None, "{name}");
            assert_eq!(without.parameters, info.parameters, "{name}");
        }
    }
}
