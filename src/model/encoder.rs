//! The vision encoder: an image becomes a sequence of patch features.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};

use super::attention::{Attention, AttentionConfig, AttentionMask};
use super::config::ConfigError;
use super::cpu::{Then, linear};
use super::encoder_config::{EncoderConfig, EncoderStage, PatchPositions};
use super::feed_forward::{FeedForward, gelu};
use super::half::normalize;
use super::mobilenet::MobileNetV2;
use super::noise::{drop_path, dropout, is_noisy};
use super::positions::resized;
use super::trace::{AttentionTrace, Kind};

/// ViT (Dosovitskiy et al. 2021, <https://arxiv.org/abs/2010.11929>).
#[derive(Module, Debug)]
pub struct VisionEncoder {
    stem: Vec<Conv2d>,
    backbone: Option<MobileNetV2>,
    patch_embedding: Linear,
    /// `[prefix, d_model]`.
    prefix_tokens: Option<Param<Tensor<2>>>,
    /// `[prefix + patches, d_model]`; absent where positions are computed.
    position_embedding: Option<Param<Tensor<2>>>,
    embedding_norm: Option<LayerNorm>,
    layers: Vec<EncoderLayer>,
    final_norm: Option<LayerNorm>,
    #[module(skip)]
    config: EncoderConfig,
}

impl VisionEncoder {
    /// An encoder whose weights are placeholders.
    ///
    /// # Errors
    /// The key of `config` that cannot be built.
    pub fn new(config: &EncoderConfig, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let [channels, side] = config.patch_input();
        let inputs = channels * side * side;
        let positions = config.num_prefix() + config.num_patches();
        let learned = config.positions == PatchPositions::Learned;
        Ok(Self {
            stem: stem(config, device),
            backbone: config.patches.mobilenet().map(|shape| MobileNetV2::new(&shape, device)),
            patch_embedding: LinearConfig::new(inputs, config.d_model)
                .with_bias(config.patch_bias)
                .init(device),
            prefix_tokens: prefix_table(config, device),
            position_embedding: learned.then(|| table(positions, config.d_model, device)),
            embedding_norm: config.embedding_norm.then(|| norm(config, device)),
            layers: (0..config.num_layers).map(|l| EncoderLayer::new(config, l, device)).collect(),
            final_norm: config.final_norm.then(|| norm(config, device)),
            config: config.clone(),
        })
    }

    /// Turns images into features.
    ///
    /// # Shapes
    /// `pixels`: `[batch, 3, image_height, image_width]`, normalised;
    /// result: `[batch, patches, d_model]`, prefix tokens (if any) first.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.forward_patches(self.patches(pixels))
    }

    /// The part of [`Self::forward`] before `stage`.
    ///
    /// # Shapes
    /// `pixels`: as [`Self::forward`]; result: `[batch, a, b]`, `a` and `b` as
    /// [`EncoderConfig::stage_shape`] says.
    pub fn forward_until(&self, pixels: Tensor<4>, stage: EncoderStage) -> Tensor<3> {
        let grid = match (stage, &self.backbone) {
            (EncoderStage::States, _) => return self.forward(pixels),
            (EncoderStage::Patches, _) => return self.patches(pixels),
            (EncoderStage::Block(blocks), Some(backbone)) => backbone.until(pixels, blocks),
            (EncoderStage::Block(_) | EncoderStage::Pixels, _) => pixels,
        };
        grid.flatten(2, 3)
    }

    /// The part of [`Self::forward`] after `stage`, of what [`Self::forward_until`] gave.
    ///
    /// # Shapes
    /// Result as that of [`Self::forward`].
    pub fn forward_from(&self, features: Tensor<3>, stage: EncoderStage) -> Tensor<3> {
        let [batch, channels, _] = features.dims();
        let (height, width) = (self.config.image_height, self.config.image_width);
        match (stage, &self.backbone) {
            (EncoderStage::States, _) => features,
            (EncoderStage::Patches, _) => self.forward_patches(features),
            (EncoderStage::Block(blocks), Some(backbone)) => {
                let stride = backbone.stride_after(blocks);
                let x = features.reshape([batch, channels, height / stride, width / stride]);
                self.forward_patches(self.flattened(backbone.after(x, blocks)))
            }
            (EncoderStage::Block(_) | EncoderStage::Pixels, _) => {
                self.forward(features.reshape([batch, channels, height, width]))
            }
        }
    }

    /// What patches are embedded from: pixels, outputs of the stem, or the backbone's features.
    ///
    /// # Shapes
    /// `pixels`: `[batch, 3, image_height, image_width]`, normalised; result:
    /// `[batch, patches, channels × side²]` with [`EncoderConfig::patch_input`]'s channels and side,
    /// row by row of the grid, without prefix tokens.
    pub fn patches(&self, pixels: Tensor<4>) -> Tensor<3> {
        let mut grid = self.stem.iter().fold(pixels, |x, layer| gelu(layer.forward(x)));
        if let Some(backbone) = &self.backbone {
            grid = backbone.forward(grid);
        }
        self.flattened(grid)
    }

    /// `[batch, channels, rows × side, cols × side]` as patches.
    fn flattened(&self, grid: Tensor<4>) -> Tensor<3> {
        let [batch, channels, _, _] = grid.dims();
        let [rows, cols] = self.config.grid();
        let [_, side] = self.config.patch_input();
        // A convolution whose stride is its kernel is one matrix product over flattened patches.
        let patches: Tensor<6> = grid.reshape([batch, channels, rows, side, cols, side]);
        patches.permute([0, 2, 4, 1, 3, 5]).reshape([batch, rows * cols, channels * side * side])
    }

    /// The rest of [`Self::forward`], after [`Self::patches`].
    ///
    /// # Shapes
    /// `patches`: `[batch, patches, channels × side²]`; result: `[batch, patches, d_model]`, prefix
    /// tokens (if any) first.
    pub fn forward_patches(&self, patches: Tensor<3>) -> Tensor<3> {
        self.forward_patches_with_trace(patches, None)
    }

    /// As [`Self::forward_patches`]; `trace`, if given, gets every attention weight on the way.
    pub(super) fn forward_patches_with_trace(
        &self,
        patches: Tensor<3>,
        mut trace: Option<&mut AttentionTrace>,
    ) -> Tensor<3> {
        let mut x = self.embed(patches);
        for layer in &self.layers {
            x = layer.forward(x, trace.as_deref_mut());
        }
        match &self.final_norm {
            Some(norm) => normalize(norm, x),
            None => x,
        }
    }

    /// The same encoder for images as `config` says, which differs in their size only.
    pub(crate) fn with_image_size(self, config: &EncoderConfig) -> Self {
        let (prefix, from, to) = (config.num_prefix(), self.config.grid(), config.grid());
        let resize = |table| resized(table, prefix, from, to);
        let position_embedding = self.position_embedding.map(resize);
        Self { position_embedding, config: config.clone(), ..self }
    }

    fn embed(&self, patches: Tensor<3>) -> Tensor<3> {
        let [batch, _, _] = patches.dims();
        let mut x = linear(&self.patch_embedding, patches);
        if let Some(tokens) = &self.prefix_tokens {
            let [prefix, d_model] = tokens.dims();
            let tokens =
                tokens.val().reshape([1, prefix, d_model]).expand([batch, prefix, d_model]);
            x = Tensor::cat(vec![tokens, x], 1);
        }
        let device = x.device();
        let positions = match &self.position_embedding {
            Some(table) => table.val(),
            None => sin_cos(&self.config, &device).cast(x.dtype()),
        };
        x = x + positions.unsqueeze::<3>();
        if let Some(norm) = &self.embedding_norm {
            x = normalize(norm, x);
        }
        dropout(x, self.config.dropout)
    }
}

/// One pre-norm layer: `x + attention(norm(x))`, `x + feed_forward(norm(x))`, with layer scale times
/// its vector each.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    attention_norm: LayerNorm,
    attention: Attention,
    /// `[d_model]`.
    attention_scale: Option<Param<Tensor<1>>>,
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
    /// `[d_model]`.
    feed_forward_scale: Option<Param<Tensor<1>>>,
    dropout: f64,
    drop_path: f64,
}

impl EncoderLayer {
    fn new(config: &EncoderConfig, index: usize, device: &Device) -> Self {
        let attention = AttentionConfig {
            d_model: config.d_model,
            d_memory: config.d_model,
            num_heads: config.num_heads,
            qkv_bias: config.qkv_bias,
        };
        let scale =
            || config.layer_scale.then(|| Initializer::Zeros.init([config.d_model], device));
        let depth = index as f64 / (config.num_layers.max(2) - 1) as f64;
        Self {
            attention_norm: norm(config, device),
            attention: Attention::new(&attention, device),
            attention_scale: scale(),
            feed_forward_norm: norm(config, device),
            feed_forward: FeedForward::new(config.d_model, config.d_ff, config.activation, device),
            feed_forward_scale: scale(),
            dropout: config.dropout,
            drop_path: config.drop_path * depth,
        }
    }

    fn forward(&self, x: Tensor<3>, trace: Option<&mut AttentionTrace>) -> Tensor<3> {
        let [rows, _, _] = x.dims();
        let normed = normalize(&self.attention_norm, x.clone());
        let memory = self.attention.key_value(normed.clone());
        let none = &AttentionMask::None;
        let branch = match trace {
            Some(trace) => self.attention.attend_through(normed, memory, none, |weights| {
                trace.see(Kind::Encoder, weights, rows)
            }),
            None => self.attention.attend(normed, memory, none),
        };
        let branch = scaled(branch, &self.attention_scale);
        let x = x + drop_path(dropout(branch, self.dropout), self.drop_path);
        let normed = normalize(&self.feed_forward_norm, x.clone());
        if self.feed_forward_scale.is_none() && !is_noisy(&x.device()) {
            return self.feed_forward.forward_then(normed, Then::Add(x));
        }
        let branch = self.feed_forward.forward(normed);
        let branch = scaled(branch, &self.feed_forward_scale);
        x + drop_path(dropout(branch, self.dropout), self.drop_path)
    }
}

fn scaled(branch: Tensor<3>, scale: &Option<Param<Tensor<1>>>) -> Tensor<3> {
    match scale {
        Some(scale) => branch * scale.val().unsqueeze(),
        None => branch,
    }
}

fn stem(config: &EncoderConfig, device: &Device) -> Vec<Conv2d> {
    let inputs = std::iter::once(3).chain(config.patches.stem().iter().copied());
    inputs
        .zip(config.patches.stem())
        .map(|(from, &to)| {
            // Of even size, so that the centre of what a patch sees is the patch's own.
            Conv2dConfig::new([from, to], [4, 4])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device)
        })
        .collect()
}

fn norm(config: &EncoderConfig, device: &Device) -> LayerNorm {
    LayerNormConfig::new(config.d_model).with_epsilon(config.layer_norm_epsilon).init(device)
}

fn prefix_table(config: &EncoderConfig, device: &Device) -> Option<Param<Tensor<2>>> {
    let prefix = config.num_prefix();
    (prefix > 0).then(|| table(prefix, config.d_model, device))
}

/// A learned table of vectors, `[rows, d_model]`, filled by [`super::initialize`].
pub(super) fn table(rows: usize, d_model: usize, device: &Device) -> Param<Tensor<2>> {
    Initializer::Zeros.init([rows, d_model], device)
}

/// Fixed positions `[prefix + patches, d_model]`: a quarter of the channels each for sine and
/// cosine of the row and of the column, wavelengths from 2π to `position_temperature`·2π; zeros for
/// what stands before the patches.
fn sin_cos(config: &EncoderConfig, device: &Device) -> Tensor<2> {
    let [rows, cols] = config.grid();
    let quarter = config.d_model / 4;
    let temperature = config.position_temperature;
    let mut values = vec![0.0f32; config.num_prefix() * config.d_model];
    for row in 0..rows {
        for col in 0..cols {
            for position in [row, col] {
                let angle =
                    |k: usize| position as f64 / temperature.powf(k as f64 / quarter as f64);
                values.extend((0..quarter).map(|k| angle(k).sin() as f32));
                values.extend((0..quarter).map(|k| angle(k).cos() as f32));
            }
        }
    }
    let positions = config.num_prefix() + rows * cols;
    Tensor::from_data(TensorData::new(values, [positions, config.d_model]), device)
}
