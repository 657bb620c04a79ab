//! The causal text decoder: token ids and a memory become logits of the next token.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::module::embedding;
use burn::tensor::{DType, Device, Int, Tensor};

use super::attention::{Attention, AttentionConfig, AttentionMask, KeyValue};
use super::cache::DecoderCache;
use super::config::{DecoderConfig, HeadKind, NormPlacement};
use super::cpu::{KeptPanels, linear, linear_kept, product};
use super::encoder::table;
use super::feed_forward::{FeedForward, activate};
use super::half::normalize;
use super::noise::{begin_pass, dropout};
use super::trace::{AttentionTrace, Kind};

/// A transformer decoder with cross-attention in every layer (Vaswani et al. 2017,
/// <https://arxiv.org/abs/1706.03762>).
#[derive(Module, Debug)]
pub struct TextDecoder {
    token_embedding: Param<Tensor<2>>,
    position_embedding: Param<Tensor<2>>,
    embedding_norm: Option<LayerNorm>,
    layers: Vec<DecoderLayer>,
    final_norm: Option<LayerNorm>,
    head: Head,
    #[module(skip)]
    config: DecoderConfig,
}

impl TextDecoder {
    pub(super) fn new(config: &DecoderConfig, memory_width: usize, device: &Device) -> Self {
        let d_model = config.d_model;
        Self {
            token_embedding: table(config.vocab_size, d_model, device),
            position_embedding: table(
                config.position_offset + config.max_positions,
                d_model,
                device,
            ),
            embedding_norm: config.embedding_norm.then(|| norm(config, device)),
            layers: (0..config.num_layers)
                .map(|_| DecoderLayer::new(config, memory_width, device))
                .collect(),
            final_norm: config.final_norm.then(|| norm(config, device)),
            head: Head::new(config, device),
            config: config.clone(),
        }
    }

    /// Teacher forcing: the decoder's states for whole sequences, from which [`Self::logits`] makes
    /// logits of each next token. Padding on the right changes nothing before it.
    ///
    /// # Shapes
    /// `ids`: `[batch × k, seq]`, the `k` captions of an image side by side; `memory`:
    /// `[batch, patches, memory_width]`; result: `[batch × k, seq, d_model]`.
    pub fn states(&self, ids: Tensor<2, Int>, memory: Tensor<3>) -> Tensor<3> {
        let mut x = self.embed(ids, 0);
        for layer in &self.layers {
            let cross = layer.cross_attention.key_value(memory.clone());
            x = layer.forward(x, cross, None);
        }
        self.finish(x)
    }

    /// As [`Self::states`]; `trace` gets every attention weight on the way.
    pub fn states_with_trace(
        &self,
        ids: Tensor<2, Int>,
        memory: Tensor<3>,
        trace: &mut AttentionTrace,
    ) -> Tensor<3> {
        let mut x = self.embed(ids, 0);
        for layer in &self.layers {
            let cross = layer.cross_attention.key_value(memory.clone());
            x = layer.forward(x, cross, Some(trace));
        }
        self.finish(x)
    }

    /// Whether the weights are on a device with autodiff.
    pub(super) fn is_autodiff(&self) -> bool {
        self.token_embedding.val().device().is_autodiff()
    }

    /// The type of the weights.
    pub(super) fn dtype(&self) -> DType {
        self.token_embedding.val().dtype()
    }

    /// Logits of the next token from states.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, seq, vocab]`.
    pub fn logits(&self, states: Tensor<3>) -> Tensor<3> {
        self.head.forward(states, &self.token_embedding)
    }

    /// Keys and values of `memory` for each layer: the start of cached decoding.
    ///
    /// # Shapes
    /// `memory`: `[batch, patches, memory_width]`; the cache has `batch × rows_per_image` rows, an
    /// image's rows side by side.
    pub(super) fn start(
        &self,
        memory: &Tensor<3>,
        rows_per_image: usize,
        capacity: usize,
        bucket: usize,
    ) -> DecoderCache {
        let cross = self
            .layers
            .iter()
            .map(|layer| layer.cross_attention.key_value(memory.clone()))
            .collect();
        DecoderCache::new(cross, rows_per_image, capacity.min(self.config.max_positions), bucket)
    }

    /// Decodes `ids` after what the cache holds; logits of the last position only.
    ///
    /// # Shapes
    /// `ids`: `[rows, seq]`; result: `[rows, vocab]`.
    pub fn step(&self, ids: Tensor<2, Int>, cache: &mut DecoderCache) -> Tensor<2> {
        let [rows, seq] = ids.dims();
        let visible = cache.visible(seq);
        let mut x = self.embed(ids, cache.len());
        let mask = AttentionMask::causal_from(cache.len(), seq, visible, &x.device());
        for (index, layer) in self.layers.iter().enumerate() {
            let cross = cache.layers[index].cross.clone();
            x = layer.forward_cached(x, cross, &mask, |own| cache.push(index, own, visible));
        }
        cache.advance(seq);
        let [_, _, d_model] = x.dims();
        let last = self.finish(x.narrow(1, seq - 1, 1));
        let logits = self.logits(last.reshape([1, rows, d_model]));
        let [_, _, vocab] = logits.dims();
        logits.reshape([rows, vocab])
    }

    fn embed(&self, ids: Tensor<2, Int>, start: usize) -> Tensor<3> {
        begin_pass();
        let [_, seq] = ids.dims();
        let tokens = embedding(self.token_embedding.val(), ids);
        let first = self.config.position_offset + start;
        let positions = self.position_embedding.val().narrow(0, first, seq);
        let x = tokens + positions.unsqueeze::<3>();
        let x = match &self.embedding_norm {
            Some(norm) => normalize(norm, x),
            None => x,
        };
        dropout(x, self.config.dropout)
    }

    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.final_norm {
            Some(norm) => normalize(norm, x),
            None => x,
        }
    }
}

/// Self-attention, cross-attention and feed-forward, each in a residual branch.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    self_attention_norm: LayerNorm,
    self_attention: Attention,
    cross_attention_norm: LayerNorm,
    cross_attention: Attention,
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
    #[module(skip)]
    norm: NormPlacement,
    dropout: f64,
}

impl DecoderLayer {
    fn new(config: &DecoderConfig, memory_width: usize, device: &Device) -> Self {
        let attention = |d_memory: usize| {
            let config = AttentionConfig {
                d_model: config.d_model,
                d_memory,
                num_heads: config.num_heads,
                qkv_bias: true,
            };
            Attention::new(&config, device)
        };
        Self {
            self_attention_norm: norm(config, device),
            self_attention: attention(config.d_model),
            cross_attention_norm: norm(config, device),
            cross_attention: attention(memory_width),
            feed_forward_norm: norm(config, device),
            feed_forward: FeedForward::new(config.d_model, config.d_ff, config.activation, device),
            norm: config.norm,
            dropout: config.dropout,
        }
    }

    /// The layer over whole sequences; `trace`, if given, receives the attention weights.
    fn forward(
        &self,
        x: Tensor<3>,
        cross: KeyValue,
        mut trace: Option<&mut AttentionTrace>,
    ) -> Tensor<3> {
        let [rows, _, _] = x.dims();
        let x = self.residual(x, &self.self_attention_norm, |x| {
            let own = self.self_attention.key_value(x.clone());
            let mask = &AttentionMask::Causal;
            match trace.as_deref_mut() {
                Some(trace) => self.self_attention.attend_through(x, own, mask, |weights| {
                    trace.see(Kind::SelfAttention, weights, rows)
                }),
                None => self.self_attention.attend(x, own, mask),
            }
        });
        let x = self.residual(x, &self.cross_attention_norm, |x| {
            let (folded, mask) = (fold(x, &cross), &AttentionMask::None);
            let out = match trace {
                Some(trace) => {
                    self.cross_attention.attend_through(folded, cross, mask, |weights| {
                        trace.see(Kind::CrossAttention, weights, rows)
                    })
                }
                None => self.cross_attention.attend(folded, cross, mask),
            };
            unfold(out, rows)
        });
        self.residual(x, &self.feed_forward_norm, |x| self.feed_forward.forward(x))
    }

    /// The layer over new positions; `push` stores their keys and values and returns all visible.
    fn forward_cached(
        &self,
        x: Tensor<3>,
        cross: KeyValue,
        mask: &AttentionMask,
        push: impl FnOnce(KeyValue) -> KeyValue,
    ) -> Tensor<3> {
        let x = self.residual(x, &self.self_attention_norm, |x| {
            let own = push(self.self_attention.key_value(x.clone()));
            self.self_attention.attend(x, own, mask)
        });
        let x = self.residual(x, &self.cross_attention_norm, |x| {
            let rows = x.dims()[0];
            unfold(self.cross_attention.attend(fold(x, &cross), cross, &AttentionMask::None), rows)
        });
        self.residual(x, &self.feed_forward_norm, |x| self.feed_forward.forward(x))
    }

    fn residual(
        &self,
        x: Tensor<3>,
        norm: &LayerNorm,
        branch: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        match self.norm {
            NormPlacement::Pre => {
                let out = branch(normalize(norm, x.clone()));
                x + dropout(out, self.dropout)
            }
            NormPlacement::Post => {
                let out = branch(x.clone());
                normalize(norm, x + dropout(out, self.dropout))
            }
        }
    }
}

/// Rows that read the same image become one longer row: cross-attention has no order among
/// queries, so an image's keys and values need no copy for each caption or beam.
///
/// `[images × k, seq, d_model]` to `[images, k × seq, d_model]`.
fn fold(x: Tensor<3>, memory: &KeyValue) -> Tensor<3> {
    let [rows, seq, d_model] = x.dims();
    let [images, _, _, _] = memory.key.dims();
    if rows == images { x } else { x.reshape([images, rows / images * seq, d_model]) }
}

/// The way back of [`fold`].
fn unfold(x: Tensor<3>, rows: usize) -> Tensor<3> {
    let [images, length, d_model] = x.dims();
    if rows == images { x } else { x.reshape([rows, length * images / rows, d_model]) }
}

/// States to logits.
#[derive(Module, Debug)]
struct Head {
    transform: Option<Linear>,
    transform_norm: Option<LayerNorm>,
    /// `[d_model, vocab]`; absent where the token embedding serves.
    output: Option<Linear>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: DecoderConfig,
    #[module(skip)]
    kept: KeptPanels,
}

impl Head {
    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let DecoderConfig { d_model, vocab_size, head, .. } = *config;
        let transform = matches!(head, HeadKind::TransformTied | HeadKind::TransformUntied);
        let untied = matches!(head, HeadKind::Untied | HeadKind::TransformUntied);
        Self {
            transform: transform.then(|| LinearConfig::new(d_model, d_model).init(device)),
            transform_norm: transform.then(|| norm(config, device)),
            output: untied
                .then(|| LinearConfig::new(d_model, vocab_size).with_bias(false).init(device)),
            bias: config.head_bias.then(|| burn::nn::Initializer::Zeros.init([vocab_size], device)),
            config: config.clone(),
            kept: KeptPanels::default(),
        }
    }

    fn forward(&self, x: Tensor<3>, token_embedding: &Param<Tensor<2>>) -> Tensor<3> {
        let x = match (&self.transform, &self.transform_norm) {
            (Some(dense), Some(norm)) => {
                normalize(norm, activate(linear(dense, x), self.config.activation))
            }
            _ => x,
        };
        let logits = match &self.output {
            Some(output) => linear_kept(output, &self.kept, x),
            None => {
                let [batch, seq, d_model] = x.dims();
                let flat = x.reshape([batch * seq, d_model]);
                let logits = product(flat, token_embedding.val().transpose(), &self.kept);
                let [_, vocab] = logits.dims();
                logits.reshape([batch, seq, vocab])
            }
        };
        match &self.bias {
            Some(bias) => logits + bias.val().unsqueeze::<3>(),
            None => logits,
        }
    }
}

fn norm(config: &DecoderConfig, device: &Device) -> LayerNorm {
    LayerNormConfig::new(config.d_model).with_epsilon(config.layer_norm_epsilon).init(device)
}
