//! Vision encoders that others trained, to start a captioner from: weights under our names, what they
//! decide about the config, and how they want their pixels.
//!
//! A path names torchvision's MobileNetV2 (a file of weights), which becomes the backbone of a hybrid.

mod mobilenet;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::CheckpointError;
use super::tensors::{self, HostTensor, HostTensors, apply, parameters};
use crate::image::PreprocessConfig;
use crate::model::{Captioner, EncoderConfig};

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
    mobilenet::load(path)
}

impl PretrainedEncoder {
    /// `wanted`, with what the weights decide put in its place. The image's size, dropout and drop path
    /// stay as wanted; of a hybrid everything behind the backbone does.
    pub fn config_for(&self, wanted: &EncoderConfig) -> EncoderConfig {
        match self.part {
            EncoderPart::Backbone => EncoderConfig {
                backbone: self.config.backbone,
                backbone_width: self.config.backbone_width,
                patch_size: self.config.patch_size,
                stem: self.config.stem.clone(),
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

    /// Gives the weights to a captioner whose encoder they fit; its other weights stay.
    ///
    /// # Errors
    /// The key of the captioner's config that the weights decide otherwise, or a tensor of another shape.
    pub fn put_into(self, model: Captioner) -> Result<Captioner, CheckpointError> {
        let wanted = &model.config().encoder;
        if let Some(problem) = first_difference(wanted, &self.config_for(wanted)) {
            return Err(CheckpointError::Invalid { file: self.origin, problem });
        }
        let mut all = parameters(&model);
        let part = match self.part {
            EncoderPart::Backbone => "encoder.backbone.",
            EncoderPart::Whole => "encoder.",
        };
        // Taken out, so that one which is not replaced is missed.
        all.retain(|name, _| !name.starts_with(part));
        all.extend(self.tensors);
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
