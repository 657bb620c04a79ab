//! Vision encoders that others trained, to start a captioner from: weights under our names, what they
//! decide about the config, and how they want their pixels.
//!
//! A path names
//! - torchvision's MobileNetV2 (`mobilenet_v2-….pth`, or the same as safetensors), which becomes the
//!   backbone of a hybrid;
//! - a Hugging Face folder of a ViT, DeiT, DINOv2 or CLIP, with or without a head or a text model;
//! - a captioner, ours or another's, whose encoder is taken.

mod mobilenet;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Map, Value};

use super::tensors::{HostTensors, apply, parameters};
use super::weight_file::WeightFile;
use super::{CheckpointError, read_json, transformers};
use crate::image::PreprocessConfig;
use crate::model::{Captioner, EncoderConfig, VisionEncoder};

/// ImageNet's mean and standard deviation, red, green and blue.
pub(super) const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub(super) const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// What a file or folder of an encoder holds.
#[derive(Debug, Clone)]
pub struct PretrainedEncoder {
    /// The file or folder, for errors.
    pub origin: PathBuf,
    /// The encoder that these weights fit. What they leave open is as in the default: of a backbone's
    /// weights everything behind the backbone.
    pub config: EncoderConfig,
    /// Which part of the encoder the weights are.
    pub part: EncoderPart,
    /// The weights by our names, `encoder.…`.
    pub tensors: HostTensors,
    /// How the weights' own training prepared photos, for this config's image size.
    pub preprocess: PreprocessConfig,
}

/// A part of the vision encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncoderPart {
    /// The convolutional network of a hybrid: `encoder.backbone.…`.
    Backbone,
    /// Everything.
    Whole,
}

/// Reads the encoder at `path`.
///
/// # Errors
/// The file, key or tensor at fault, tensors under their public names; or there is no encoder that is
/// known.
pub fn load(path: &Path) -> Result<PretrainedEncoder, CheckpointError> {
    if path.is_file() {
        let source = WeightFile::open(path)?.unwrapped();
        if let Some(encoder) = mobilenet::load(path, &source)? {
            return Ok(encoder);
        }
        if source.names().any(|name| name.starts_with("visual_encoder.")) {
            return of_captioner(path);
        }
        let problem = "not an encoder that is known; expected torchvision's MobileNetV2, or a \
                       Hugging Face folder";
        return Err(CheckpointError::Invalid { file: path.into(), problem: problem.into() });
    }
    let config_file = path.join("config.json");
    if config_file.is_file() {
        let fields: Map<String, Value> = read_json(&config_file)?;
        let captioners = ["blip", "vision-encoder-decoder"];
        let kind = fields.get("model_type").and_then(Value::as_str);
        if !fields.contains_key("format") && !kind.is_some_and(|kind| captioners.contains(&kind)) {
            return transformers::load_encoder(path, &fields);
        }
    }
    of_captioner(path)
}

/// The encoder of a whole captioner.
fn of_captioner(path: &Path) -> Result<PretrainedEncoder, CheckpointError> {
    let checkpoint = super::load(path, &Device::flex())?;
    let mut tensors = parameters(&checkpoint.model);
    tensors.retain(|name, _| name.starts_with("encoder."));
    Ok(PretrainedEncoder {
        origin: path.into(),
        config: checkpoint.model.config().encoder.clone(),
        part: EncoderPart::Whole,
        tensors,
        preprocess: checkpoint.preprocess,
    })
}

/// An encoder under the names that it has in a captioner.
#[derive(Module, Debug)]
pub(super) struct Alone {
    pub(super) encoder: VisionEncoder,
}

impl PretrainedEncoder {
    /// `wanted`, with what the weights decide put in its place. The image's size, dropout and drop path
    /// stay as wanted; of a hybrid everything behind the backbone does.
    pub fn config_for(&self, wanted: &EncoderConfig) -> EncoderConfig {
        match self.part {
            EncoderPart::Backbone => EncoderConfig {
                patches: self.config.patches.clone(),
                patch_size: self.config.patch_size,
                ..wanted.clone()
            },
            EncoderPart::Whole => EncoderConfig {
                image_height: wanted.image_height,
                image_width: wanted.image_width,
                dropout: wanted.dropout,
                drop_path: wanted.drop_path,
                ..self.config.clone()
            },
        }
    }

    /// Gives the weights to a captioner whose encoder they fit; its other weights stay. Learned positions
    /// are resized where the captioner's images are of another size.
    ///
    /// # Errors
    /// The key of the captioner's config that the weights decide otherwise, or a tensor of another shape.
    pub fn put_into(self, model: Captioner) -> Result<Captioner, CheckpointError> {
        let wanted = &model.config().encoder;
        if let Some(problem) = first_difference(wanted, &self.config_for(wanted)) {
            return Err(CheckpointError::Invalid { file: self.origin, problem });
        }
        let tensors = match self.part {
            EncoderPart::Whole if self.config.grid() != wanted.grid() => {
                let encoder = VisionEncoder::new(&self.config, &Device::flex());
                let encoder = encoder.map_err(|error| CheckpointError::Invalid {
                    file: self.origin.clone(),
                    problem: error.to_string(),
                })?;
                let Alone { encoder } = apply(Alone { encoder }, self.tensors, &self.origin)?;
                parameters(&Alone { encoder: encoder.with_image_size(wanted) })
            }
            _ => self.tensors,
        };
        let mut all = parameters(&model);
        let part = match self.part {
            EncoderPart::Backbone => "encoder.backbone.",
            EncoderPart::Whole => "encoder.",
        };
        // Taken out, so that one which is not replaced is found missing.
        all.retain(|name, _| !name.starts_with(part));
        all.extend(tensors);
        apply(model, all, &self.origin)
    }
}

/// What to tell of the first key in which two configs differ.
fn first_difference(model: &EncoderConfig, weights: &EncoderConfig) -> Option<String> {
    let fields = |config| match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (model, weights) = (fields(model), fields(weights));
    model.into_iter().find_map(|(key, of_model)| {
        let of_weights = weights.get(&key).cloned().unwrap_or_default();
        (of_weights != of_model).then(|| {
            format!("`encoder.{key}` is {of_weights} here, but {of_model} in the model's config")
        })
    })
}

#[cfg(test)]
mod tests;
