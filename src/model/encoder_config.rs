//! What varies between vision encoders.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::config::{
    Activation, ConfigError, MAX_LAYERS, MAX_WIDTH, epsilon, heads, layers, rate, size,
};
use super::mobilenet::{self, MobileNetV2Shape};
use crate::plural::counted;

/// Most positions before the patches, far beyond any encoder.
const MAX_PREFIX: usize = 64;

/// Position information of image patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum PatchPositions {
    /// A learned vector for each position (ViT, Dosovitskiy et al. 2021).
    #[default]
    Learned,
    /// Fixed 2-D sine-cosine vectors (Vaswani et al. 2017; in two dimensions as in MoCo v3).
    SinCos,
}

/// What patches are cut from: which kind of encoder it is. A file says it by the keys `stem`, `backbone` and
/// `backbone_width`.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum PatchSource {
    /// The image itself: a plain ViT.
    #[default]
    Image,
    /// What so many 4×4 convolutions of stride 2 with these output channels, each followed by GELU, make of
    /// it (Xiao et al. 2021, <https://arxiv.org/abs/2106.14881>). Each halves what a patch is cut from:
    /// `patch_size` is a multiple of `2^length`.
    Stem(Vec<usize>),
    /// The grid of features of MobileNetV2 (Sandler et al. 2018), a hybrid (section 3.1 of the ViT paper):
    /// `patch_size` is its stride, 32, and a patch has 1280 channels.
    MobileNetV2 {
        /// Channels, as a multiple of its paper's, 0.05 to 4.
        width: f64,
    },
}

impl PatchSource {
    /// Output channels of the convolutions of a stem; none where there is none.
    pub fn stem(&self) -> &[usize] {
        match self {
            Self::Stem(channels) => channels,
            Self::Image | Self::MobileNetV2 { .. } => &[],
        }
    }

    /// Layers of the backbone, where there is one.
    pub fn mobilenet(&self) -> Option<MobileNetV2Shape> {
        match self {
            Self::MobileNetV2 { width } => Some(MobileNetV2Shape::new(*width)),
            Self::Image | Self::Stem(_) => None,
        }
    }
}

/// A convolutional network, by the name that files give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Backbone {
    #[serde(rename = "mobilenet_v2")]
    MobileNetV2,
}

/// Where an encoder can be cut in two, in the order of the computation: what is frozen from the image
/// on to one of these is computed without a graph, and once if it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EncoderStage {
    /// Before everything.
    Pixels,
    /// After the backbone's first convolution and so many of its blocks.
    Block(usize),
    /// Before the patch embedding: after the backbone, or a stem.
    Patches,
    /// After everything: the encoder's output.
    States,
}

/// The vision encoder: patch embedding and a stack of self-attention layers
/// (ViT, <https://arxiv.org/abs/2010.11929>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "EncoderFields", into = "EncoderFields")]
pub struct EncoderConfig {
    /// Input height in pixels, a multiple of `patch_size`.
    pub image_height: usize,
    /// Input width in pixels, a multiple of `patch_size`.
    pub image_width: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// What patches are cut from.
    pub patches: PatchSource,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of layers; may be 0 with a backbone.
    pub num_layers: usize,
    /// Attention heads; divides `d_model`.
    pub num_heads: usize,
    /// Hidden width of the feed-forward blocks.
    pub d_ff: usize,
    /// Whether the patch embedding has a bias (CLIP: no).
    pub patch_bias: bool,
    /// Learned tokens that stand before the patches: 1 for a class token, 2 with DeiT's distillation
    /// token behind it.
    pub prefix_tokens: usize,
    /// Whether a layer norm follows the embeddings, before the first layer (CLIP).
    pub embedding_norm: bool,
    /// Whether a layer norm follows the last layer.
    pub final_norm: bool,
    /// Whether each residual branch is scaled channel by channel (CaiT, Touvron et al. 2021,
    /// <https://arxiv.org/abs/2103.17239>; DINOv2).
    pub layer_scale: bool,
    /// Whether query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Non-linearity of the feed-forward blocks.
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_epsilon: f64,
    /// Position information.
    pub positions: PatchPositions,
    /// With [`PatchPositions::SinCos`]: the longest wavelength is 2π times this, in patches, the
    /// shortest is 2π. 10,000 is usual; of the order of the grid's side, every channel tells places
    /// apart.
    pub position_temperature: f64,
    /// Dropout on the embeddings and on each residual branch, in `[0, 1)`; training only.
    pub dropout: f64,
    /// Stochastic depth (Huang et al. 2016): rate at the last layer, rising linearly from 0 at the
    /// first, in `[0, 1)`; training only.
    pub drop_path: f64,
}

impl fmt::Display for EncoderConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.patches {
            PatchSource::Image => {}
            PatchSource::Stem(stem) => {
                write!(formatter, "{} and ", counted(stem.len(), "convolution"))?;
            }
            PatchSource::MobileNetV2 { .. } => {
                formatter.write_str("MobileNetV2, whose grid of features is the patches, then ")?;
            }
        }
        let [rows, cols] = self.grid();
        write!(
            formatter,
            "{}; {cols}×{rows} patches of {2}×{2} on {1}×{3} pixels",
            layers(self.num_layers, self.d_model, self.num_heads),
            self.image_width,
            self.patch_size,
            self.image_height
        )
    }
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            image_height: 224,
            image_width: 224,
            patch_size: 16,
            patches: PatchSource::Image,
            d_model: 384,
            num_layers: 6,
            num_heads: 6,
            d_ff: 1536,
            patch_bias: true,
            prefix_tokens: 0,
            embedding_norm: false,
            final_norm: true,
            layer_scale: false,
            qkv_bias: true,
            activation: Activation::default(),
            layer_norm_epsilon: 1e-6,
            positions: PatchPositions::default(),
            position_temperature: 10_000.0,
            dropout: 0.0,
            drop_path: 0.0,
        }
    }
}

impl EncoderConfig {
    /// Rows and columns of the patch grid.
    pub fn grid(&self) -> [usize; 2] {
        [self.image_height / self.patch_size, self.image_width / self.patch_size]
    }

    /// Patches of one image.
    pub fn num_patches(&self) -> usize {
        let [rows, cols] = self.grid();
        rows * cols
    }

    /// Channels and side, in pixels of the stem or the backbone, of what one patch is embedded from.
    pub fn patch_input(&self) -> [usize; 2] {
        match &self.patches {
            PatchSource::Image => [3, self.patch_size],
            PatchSource::Stem(stem) => {
                [stem.last().copied().unwrap_or(3), self.patch_size >> stem.len()]
            }
            PatchSource::MobileNetV2 { width } => [MobileNetV2Shape::new(*width).channels, 1],
        }
    }

    /// What there is of an image at `stage`: `[a, b]` of [`super::VisionEncoder::forward_until`]'s result.
    /// Channels and places of the grid, row by row, where a convolution follows; before `Patches` and `States`
    /// positions and their width.
    pub fn stage_shape(&self, stage: EncoderStage) -> [usize; 2] {
        match (stage, self.patches.mobilenet()) {
            (EncoderStage::States, _) => [self.num_prefix() + self.num_patches(), self.d_model],
            (EncoderStage::Patches, _) => {
                let [channels, side] = self.patch_input();
                [self.num_patches(), channels * side * side]
            }
            (EncoderStage::Block(blocks), Some(shape)) => {
                let (channels, stride) = shape.after(blocks);
                [channels, (self.image_height / stride) * (self.image_width / stride)]
            }
            (EncoderStage::Block(_) | EncoderStage::Pixels, _) => {
                [3, self.image_height * self.image_width]
            }
        }
    }

    /// Positions before the first patch.
    pub fn num_prefix(&self) -> usize {
        self.prefix_tokens
    }

    /// Checks that an encoder of this shape can be built.
    ///
    /// # Errors
    /// The first key at fault, with what was expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        size("encoder.patch_size", self.patch_size, MAX_WIDTH)?;
        for (key, pixels) in
            [("encoder.image_height", self.image_height), ("encoder.image_width", self.image_width)]
        {
            if !(1..=MAX_WIDTH).contains(&pixels) || !pixels.is_multiple_of(self.patch_size) {
                return Err(ConfigError::new(
                    key,
                    format!(
                        "{pixels} pixels; expected a positive multiple of patch_size = {}",
                        self.patch_size
                    ),
                ));
            }
        }
        if self.prefix_tokens > MAX_PREFIX {
            return Err(ConfigError::new(
                "encoder.prefix_tokens",
                format!("{}; expected 0 to {MAX_PREFIX}", self.prefix_tokens),
            ));
        }
        self.validate_patches()?;
        if self.patches.mobilenet().is_none() || self.num_layers > 0 {
            size("encoder.num_layers", self.num_layers, MAX_LAYERS)?;
        }
        size("encoder.d_ff", self.d_ff, MAX_WIDTH)?;
        heads("encoder", self.d_model, self.num_heads)?;
        if !(self.position_temperature.is_finite() && self.position_temperature >= 1.0) {
            return Err(ConfigError::new(
                "encoder.position_temperature",
                format!("{}; expected a number of at least 1", self.position_temperature),
            ));
        }
        if self.positions == PatchPositions::SinCos && !self.d_model.is_multiple_of(4) {
            return Err(ConfigError::new(
                "encoder.d_model",
                format!("{}; 2-D sin-cos positions need a multiple of 4", self.d_model),
            ));
        }
        epsilon("encoder.layer_norm_epsilon", self.layer_norm_epsilon)?;
        rate("encoder.dropout", self.dropout)?;
        rate("encoder.drop_path", self.drop_path)
    }

    fn validate_patches(&self) -> Result<(), ConfigError> {
        match &self.patches {
            PatchSource::Image => Ok(()),
            PatchSource::Stem(stem) => {
                if stem.len() > 8 || !self.patch_size.is_multiple_of(1 << stem.len()) {
                    let (count, patch) = (stem.len(), self.patch_size);
                    let problem = format!(
                        "{count} convolutions of stride 2 need a patch_size that is a multiple of \
                         2^{count}, not {patch}"
                    );
                    return Err(ConfigError::new("encoder.stem", problem));
                }
                stem.iter().try_for_each(|&channels| size("encoder.stem", channels, MAX_WIDTH))
            }
            PatchSource::MobileNetV2 { width } => {
                if !(0.05..=4.0).contains(width) {
                    let problem = format!("{width}; expected 0.05 to 4");
                    return Err(ConfigError::new("encoder.backbone_width", problem));
                }
                if self.patch_size != mobilenet::STRIDE {
                    let (patch, stride) = (self.patch_size, mobilenet::STRIDE);
                    let problem = format!("{patch}; with this backbone it is its stride, {stride}");
                    return Err(ConfigError::new("encoder.patch_size", problem));
                }
                Ok(())
            }
        }
    }
}

/// An [`EncoderConfig`] as a file has it, key by key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EncoderFields {
    image_height: usize,
    image_width: usize,
    patch_size: usize,
    stem: Vec<usize>,
    backbone: Option<Backbone>,
    backbone_width: f64,
    d_model: usize,
    num_layers: usize,
    num_heads: usize,
    d_ff: usize,
    patch_bias: bool,
    // Files of earlier versions say `class_token = true` or `false`.
    #[serde(alias = "class_token", deserialize_with = "prefix_tokens")]
    prefix_tokens: usize,
    embedding_norm: bool,
    final_norm: bool,
    layer_scale: bool,
    qkv_bias: bool,
    activation: Activation,
    layer_norm_epsilon: f64,
    positions: PatchPositions,
    position_temperature: f64,
    dropout: f64,
    drop_path: f64,
}

impl Default for EncoderFields {
    fn default() -> Self {
        EncoderConfig::default().into()
    }
}

impl TryFrom<EncoderFields> for EncoderConfig {
    type Error = ConfigError;

    fn try_from(fields: EncoderFields) -> Result<Self, ConfigError> {
        let patches = match fields.backbone {
            None if fields.stem.is_empty() => PatchSource::Image,
            None => PatchSource::Stem(fields.stem),
            Some(Backbone::MobileNetV2) if fields.stem.is_empty() => {
                PatchSource::MobileNetV2 { width: fields.backbone_width }
            }
            Some(_) => {
                return Err(ConfigError::new("encoder.stem", "expected none before a backbone"));
            }
        };
        Ok(Self {
            patches,
            image_height: fields.image_height,
            image_width: fields.image_width,
            patch_size: fields.patch_size,
            d_model: fields.d_model,
            num_layers: fields.num_layers,
            num_heads: fields.num_heads,
            d_ff: fields.d_ff,
            patch_bias: fields.patch_bias,
            prefix_tokens: fields.prefix_tokens,
            embedding_norm: fields.embedding_norm,
            final_norm: fields.final_norm,
            layer_scale: fields.layer_scale,
            qkv_bias: fields.qkv_bias,
            activation: fields.activation,
            layer_norm_epsilon: fields.layer_norm_epsilon,
            positions: fields.positions,
            position_temperature: fields.position_temperature,
            dropout: fields.dropout,
            drop_path: fields.drop_path,
        })
    }
}

impl From<EncoderConfig> for EncoderFields {
    fn from(config: EncoderConfig) -> Self {
        let (stem, backbone, backbone_width) = match config.patches {
            PatchSource::Image => (Vec::new(), None, 1.0),
            PatchSource::Stem(channels) => (channels, None, 1.0),
            PatchSource::MobileNetV2 { width } => (Vec::new(), Some(Backbone::MobileNetV2), width),
        };
        Self {
            stem,
            backbone,
            backbone_width,
            image_height: config.image_height,
            image_width: config.image_width,
            patch_size: config.patch_size,
            d_model: config.d_model,
            num_layers: config.num_layers,
            num_heads: config.num_heads,
            d_ff: config.d_ff,
            patch_bias: config.patch_bias,
            prefix_tokens: config.prefix_tokens,
            embedding_norm: config.embedding_norm,
            final_norm: config.final_norm,
            layer_scale: config.layer_scale,
            qkv_bias: config.qkv_bias,
            activation: config.activation,
            layer_norm_epsilon: config.layer_norm_epsilon,
            positions: config.positions,
            position_temperature: config.position_temperature,
            dropout: config.dropout,
            drop_path: config.drop_path,
        }
    }
}

/// A count, or the `true` and `false` of files that knew a class token only.
fn prefix_tokens<'de, D: serde::Deserializer<'de>>(input: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a whole number, or true or false for a class token")]
    enum Given {
        Flag(bool),
        Count(usize),
    }
    Ok(match Given::deserialize(input)? {
        Given::Flag(flag) => usize::from(flag),
        Given::Count(count) => count,
    })
}
