//! What varies between captioners: every checkpoint we run is a value of [`CaptionerConfig`].

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::mobilenet::{self, MobileNetV2Shape};
use crate::plural::counted;

/// Why a model configuration cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{key}`: {problem}")]
pub struct ConfigError {
    /// The key at fault, dotted from the model's root (`encoder.num_heads`).
    pub key: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl ConfigError {
    fn new(key: &str, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// Non-linearity of the feed-forward blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU with the error function (Hendrycks & Gimpel 2016): ViT, BERT, BLIP, our own models.
    #[default]
    Gelu,
    /// GELU's tanh approximation (`gelu_new`): GPT-2.
    GeluTanh,
    /// `x · sigmoid(1.702·x)`: OpenAI's CLIP.
    QuickGelu,
    /// Rectified linear unit.
    Relu,
}

/// Where layer norm stands in a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// `x + f(norm(x))`: ViT, GPT-2, our own models.
    #[default]
    Pre,
    /// `norm(x + f(x))`: BERT, BLIP's text decoder.
    Post,
}

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

/// How decoder states become logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// The token embedding, transposed (GPT-2, our own models).
    #[default]
    Tied,
    /// A matrix of its own.
    Untied,
    /// BERT's: dense, activation, layer norm, then the tied embedding and a bias.
    TransformTied,
    /// BERT's transform with a matrix of its own.
    TransformUntied,
}

/// A convolutional network before the patch embedding, whose grid of features is the patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// MobileNetV2 (Sandler et al. 2018): `patch_size` is 32, and a patch has 1280 channels.
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
#[serde(deny_unknown_fields, default)]
pub struct EncoderConfig {
    /// Input height in pixels, a multiple of `patch_size`.
    pub image_height: usize,
    /// Input width in pixels, a multiple of `patch_size`.
    pub image_width: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// Output channels of 4×4 convolutions of stride 2 before the patch embedding, each followed by
    /// GELU (Xiao et al. 2021, <https://arxiv.org/abs/2106.14881>); empty = none, a plain ViT. Each
    /// halves what a patch is cut from: `patch_size` is a multiple of `2^length`.
    pub stem: Vec<usize>,
    /// A convolutional network whose grid of features is the patches (a hybrid, section 3.1 of the
    /// ViT paper); its stride is `patch_size`. None: patches are cut from the image.
    pub backbone: Option<Backbone>,
    /// Channels of the backbone, as a multiple of its paper's, 0.05 to 4.
    pub backbone_width: f64,
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
    /// token behind it. Files of earlier versions say `class_token = true` or `false`.
    #[serde(alias = "class_token", deserialize_with = "prefix_tokens")]
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

/// A transformer's size: `1 layer, width 256, 4 heads`.
fn layers(num_layers: usize, d_model: usize, num_heads: usize) -> String {
    format!("{}, width {d_model}, {}", counted(num_layers, "layer"), counted(num_heads, "head"))
}

impl fmt::Display for EncoderConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.backbone, self.stem.len()) {
            (Some(Backbone::MobileNetV2), _) => {
                formatter.write_str("MobileNetV2, whose grid of features is the patches, then ")?;
            }
            (None, 0) => {}
            (None, stem) => write!(formatter, "{} and ", counted(stem, "convolution"))?,
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
            stem: Vec::new(),
            backbone: None,
            backbone_width: 1.0,
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
        if let Some(Backbone::MobileNetV2) = self.backbone {
            return [MobileNetV2Shape::new(self.backbone_width).channels, 1];
        }
        let channels = self.stem.last().copied().unwrap_or(3);
        [channels, self.patch_size >> self.stem.len()]
    }

    /// What there is of an image at `stage`: `[a, b]` of [`super::VisionEncoder::forward_until`]'s result.
    /// Channels and places of the grid, row by row, where a convolution follows; before `Patches` and `States`
    /// positions and their width.
    pub fn stage_shape(&self, stage: EncoderStage) -> [usize; 2] {
        match stage {
            EncoderStage::States => [self.num_prefix() + self.num_patches(), self.d_model],
            EncoderStage::Patches => {
                let [channels, side] = self.patch_input();
                [self.num_patches(), channels * side * side]
            }
            EncoderStage::Block(blocks) if self.backbone.is_some() => {
                let (channels, stride) = MobileNetV2Shape::new(self.backbone_width).after(blocks);
                [channels, (self.image_height / stride) * (self.image_width / stride)]
            }
            EncoderStage::Block(_) | EncoderStage::Pixels => {
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
        if self.stem.len() > 8 || !self.patch_size.is_multiple_of(1 << self.stem.len()) {
            return Err(ConfigError::new(
                "encoder.stem",
                format!(
                    "{} convolutions of stride 2 need a patch_size that is a multiple of 2^{0}, not {}",
                    self.stem.len(),
                    self.patch_size
                ),
            ));
        }
        for &channels in &self.stem {
            size("encoder.stem", channels, MAX_WIDTH)?;
        }
        if self.prefix_tokens > MAX_PREFIX {
            return Err(ConfigError::new(
                "encoder.prefix_tokens",
                format!("{}; expected 0 to {MAX_PREFIX}", self.prefix_tokens),
            ));
        }
        self.validate_backbone()?;
        if self.backbone.is_none() || self.num_layers > 0 {
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

    fn validate_backbone(&self) -> Result<(), ConfigError> {
        if !(0.05..=4.0).contains(&self.backbone_width) {
            return Err(ConfigError::new(
                "encoder.backbone_width",
                format!("{}; expected 0.05 to 4", self.backbone_width),
            ));
        }
        if self.backbone.is_none() {
            return Ok(());
        }
        if self.patch_size != mobilenet::STRIDE {
            return Err(ConfigError::new(
                "encoder.patch_size",
                format!(
                    "{}; with this backbone it is its stride, {}",
                    self.patch_size,
                    mobilenet::STRIDE
                ),
            ));
        }
        if !self.stem.is_empty() {
            return Err(ConfigError::new("encoder.stem", "expected none before a backbone"));
        }
        Ok(())
    }
}

/// What stands where among the positions of the memory that cross-attention reads: prefix tokens first,
/// then the patches of the grid, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryLayout {
    /// Positions before the first patch: a class token and its like, which no place belongs to.
    pub prefix: usize,
    /// Rows and columns of the patch grid.
    pub grid: [usize; 2],
}

impl MemoryLayout {
    /// All positions.
    pub fn positions(&self) -> usize {
        self.patches().end
    }

    /// The positions of patches.
    pub fn patches(&self) -> Range<usize> {
        let [rows, cols] = self.grid;
        self.prefix..self.prefix + rows * cols
    }
}

/// The causal text decoder with cross-attention in every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence, in tokens, the begin token included.
    pub max_positions: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Attention heads, of self- and of cross-attention; divides `d_model`.
    pub num_heads: usize,
    /// Hidden width of the feed-forward blocks.
    pub d_ff: usize,
    /// Where layer norm stands.
    pub norm: NormPlacement,
    /// Whether a layer norm follows the embeddings (BERT).
    pub embedding_norm: bool,
    /// Whether a layer norm follows the last layer (GPT-2).
    pub final_norm: bool,
    /// Non-linearity of the feed-forward blocks and of a transform head.
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_epsilon: f64,
    /// First row of the position table that a sequence uses (RoBERTa: 2).
    pub position_offset: usize,
    /// Whether a projection carries the encoder's width to the decoder's before cross-attention
    /// (`enc_to_dec_proj`). Without it, cross-attention's own projections read the encoder's width.
    pub memory_projection: bool,
    /// How states become logits.
    pub head: HeadKind,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Dropout on the embeddings and on each residual branch, in `[0, 1)`; training only.
    pub dropout: f64,
}

impl fmt::Display for DecoderConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}; {}, {}",
            layers(self.num_layers, self.d_model, self.num_heads),
            counted(self.vocab_size, "token"),
            counted(self.max_positions, "position")
        )
    }
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 8000,
            max_positions: 64,
            d_model: 384,
            num_layers: 4,
            num_heads: 6,
            d_ff: 1536,
            norm: NormPlacement::default(),
            embedding_norm: false,
            final_norm: true,
            activation: Activation::default(),
            layer_norm_epsilon: 1e-6,
            position_offset: 0,
            memory_projection: false,
            head: HeadKind::default(),
            head_bias: false,
            dropout: 0.1,
        }
    }
}

impl DecoderConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        size("decoder.vocab_size", self.vocab_size, MAX_ROWS)?;
        if !(2..=MAX_ROWS).contains(&self.max_positions) {
            return Err(ConfigError::new(
                "decoder.max_positions",
                format!("{}; expected 2 to {MAX_ROWS}", self.max_positions),
            ));
        }
        if self.position_offset > MAX_ROWS {
            return Err(ConfigError::new(
                "decoder.position_offset",
                format!("{}; expected 0 to {MAX_ROWS}", self.position_offset),
            ));
        }
        size("decoder.num_layers", self.num_layers, MAX_LAYERS)?;
        size("decoder.d_ff", self.d_ff, MAX_WIDTH)?;
        heads("decoder", self.d_model, self.num_heads)?;
        epsilon("decoder.layer_norm_epsilon", self.layer_norm_epsilon)?;
        rate("decoder.dropout", self.dropout)
    }
}

/// A whole captioner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionerConfig {
    /// The vision encoder.
    pub encoder: EncoderConfig,
    /// The text decoder.
    pub decoder: DecoderConfig,
}

impl CaptionerConfig {
    /// Checks that a model of this shape can be built.
    ///
    /// # Errors
    /// The first key at fault, with what was expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.encoder.validate()?;
        self.decoder.validate()
    }

    /// What stands where in the memory that cross-attention reads.
    pub fn memory_layout(&self) -> MemoryLayout {
        MemoryLayout { prefix: self.encoder.num_prefix(), grid: self.encoder.grid() }
    }

    /// Width that cross-attention's key and value projections read.
    pub fn memory_width(&self) -> usize {
        if self.decoder.memory_projection { self.decoder.d_model } else { self.encoder.d_model }
    }
}

/// The largest sizes accepted, far beyond any captioner: a slip of the keyboard or a hostile file
/// must not ask for all memory.
const MAX_LAYERS: usize = 1 << 10;
const MAX_WIDTH: usize = 1 << 16;
const MAX_ROWS: usize = 1 << 22;
const MAX_PREFIX: usize = 64;

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

fn size(key: &str, value: usize, most: usize) -> Result<(), ConfigError> {
    if (1..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::new(key, format!("{value}; expected 1 to {most}")))
    }
}

fn heads(part: &str, d_model: usize, num_heads: usize) -> Result<(), ConfigError> {
    size(&format!("{part}.d_model"), d_model, MAX_WIDTH)?;
    size(&format!("{part}.num_heads"), num_heads, MAX_WIDTH)?;
    if !d_model.is_multiple_of(num_heads) {
        return Err(ConfigError::new(
            &format!("{part}.num_heads"),
            format!("{num_heads} heads do not divide d_model = {d_model}"),
        ));
    }
    Ok(())
}

fn epsilon(key: &str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(ConfigError::new(key, format!("{value}; expected a small positive number")))
    }
}

fn rate(key: &str, value: f64) -> Result<(), ConfigError> {
    if (0.0..1.0).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::new(key, format!("{value}; expected a rate in [0, 1)")))
    }
}
