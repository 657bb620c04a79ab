//! What varies between captioners: every checkpoint we run is a value of [`CaptionerConfig`].

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::encoder_config::EncoderConfig;
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
    pub(super) fn new(key: &str, problem: impl Into<String>) -> Self {
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

/// A transformer's size: `1 layer, width 256, 4 heads`.
pub(super) fn layers(num_layers: usize, d_model: usize, num_heads: usize) -> String {
    format!("{}, width {d_model}, {}", counted(num_layers, "layer"), counted(num_heads, "head"))
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
pub(super) const MAX_LAYERS: usize = 1 << 10;
pub(super) const MAX_WIDTH: usize = 1 << 16;
const MAX_ROWS: usize = 1 << 22;

pub(super) fn size(key: &str, value: usize, most: usize) -> Result<(), ConfigError> {
    if (1..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::new(key, format!("{value}; expected 1 to {most}")))
    }
}

pub(super) fn heads(part: &str, d_model: usize, num_heads: usize) -> Result<(), ConfigError> {
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

pub(super) fn epsilon(key: &str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(ConfigError::new(key, format!("{value}; expected a small positive number")))
    }
}

pub(super) fn rate(key: &str, value: f64) -> Result<(), ConfigError> {
    if (0.0..1.0).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::new(key, format!("{value}; expected a rate in [0, 1)")))
    }
}
