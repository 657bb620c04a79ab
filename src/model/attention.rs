//! Multi-head attention, the same module for self- and for cross-attention.
//!
//! Keys and values are projected apart from queries ([`Attention::key_value`]), so that a cache can
//! hold them. There are two ways out: [`Attention::attend`], which uses the backend's fused
//! operation when nobody looks, and [`Attention::attend_with_weights`], which also returns
//! `softmax(QKᵀ/√head_dim)`.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::module::attention as fused_attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Tensor, TensorData, activation};

use super::cpu::{self, KeptPanels, linear_kept};

/// Shape of an [`Attention`] module.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Width of queries and of the output.
    pub d_model: usize,
    /// Width of what keys and values are read from.
    pub d_memory: usize,
    /// Number of heads; divides `d_model`.
    pub num_heads: usize,
    /// Whether query, key and value projections have biases.
    pub qkv_bias: bool,
}

/// Projected keys and values, each `[batch, heads, length, head_dim]`.
#[derive(Debug, Clone)]
pub struct KeyValue {
    /// Keys, `[batch, heads, length, head_dim]`.
    pub key: Tensor<4>,
    /// Values, `[batch, heads, length, head_dim]`.
    pub value: Tensor<4>,
}

/// Which keys a query may not see.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one a step, never in a collection")]
pub enum AttentionMask {
    /// Every query sees every key.
    None,
    /// Query `i` of `seq` sees keys up to `length - seq + i`: causal, aligned at the end.
    Causal,
    /// Explicit, `true` = hidden, broadcast over batch and heads: `[1, 1, seq, length]`.
    Hidden(Tensor<4, Bool>),
}

impl AttentionMask {
    /// The mask of queries at positions `start..start + seq` over `length` keys of which query `i`
    /// may see those at positions `0..=start + i`.
    pub fn causal_from(start: usize, seq: usize, length: usize, device: &Device) -> Self {
        if start + seq == length {
            return if seq == 1 { Self::None } else { Self::Causal };
        }
        Self::Hidden(future(start, seq, length, device))
    }

    fn hidden(&self, seq: usize, length: usize, device: &Device) -> Option<Tensor<4, Bool>> {
        match self {
            Self::None => None,
            Self::Hidden(mask) => Some(mask.clone()),
            Self::Causal => Some(future(length - seq, seq, length, device)),
        }
    }
}

/// Hides from query `i`, at position `start + i`, every later one: `[1, 1, seq, length]`.
fn future(start: usize, seq: usize, length: usize, device: &Device) -> Tensor<4, Bool> {
    let hidden: Vec<bool> =
        (0..seq).flat_map(|row| (0..length).map(move |col| col > start + row)).collect();
    Tensor::from_data(TensorData::new(hidden, [1, 1, seq, length]), device)
}

/// Multi-head attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
///
/// What it computes, by the textbook's case: the words हम, दोस्त and हैं are written by looking at "we",
/// "are" and "friends". Each writes a mix of their embeddings, in the shares that its query gives.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use patchword::model::{Attention, AttentionMask, KeyValue};
///
/// let device = Device::flex();
/// // One image or sentence, one head, three words. A word's key tells it from the others.
/// let key = Tensor::<4>::from_data([[[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]], &device);
/// let we_are_friends = [[[[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]]]];
/// let value = Tensor::<4>::from_data(we_are_friends, &device);
/// // Scores are query · key / √3, and softmax undoes the logarithm.
/// let shares = [[[[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]]]];
/// let shares = Tensor::<4>::from_data(shares, &device);
/// let query = shares.clone().log().mul_scalar(3f64.sqrt());
///
/// let memory = KeyValue { key, value };
/// let (written, weights) = Attention::weigh(query, memory, &AttentionMask::None);
///
/// let digits = |tensor: Tensor<4>| -> Vec<f32> {
///     tensor.into_data().iter::<f32>().map(|x| (x * 1e5).round() / 1e5).collect()
/// };
/// assert_eq!(digits(weights), digits(shares));
/// assert_eq!(digits(written), [2.8, 4.7, 5.0, 8.0, 3.6, 5.9]);
/// ```
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    /// Keys then values, in one matrix.
    key_value: Linear,
    output: Linear,
    num_heads: usize,
    /// Of queries, of keys and values, of the output.
    #[module(skip)]
    kept: [KeptPanels; 3],
}

impl Attention {
    pub(super) fn new(config: &AttentionConfig, device: &Device) -> Self {
        let AttentionConfig { d_model, d_memory, num_heads, qkv_bias } = *config;
        Self {
            query: LinearConfig::new(d_model, d_model).with_bias(qkv_bias).init(device),
            key_value: LinearConfig::new(d_memory, 2 * d_model).with_bias(qkv_bias).init(device),
            output: LinearConfig::new(d_model, d_model).init(device),
            num_heads,
            kept: Default::default(),
        }
    }

    /// Keys and values of `memory`, to be attended to by any number of queries.
    ///
    /// # Shapes
    /// `memory`: `[batch, length, d_memory]`; result: `[batch, heads, length, head_dim]` each.
    pub fn key_value(&self, memory: Tensor<3>) -> KeyValue {
        let [batch, length, _] = memory.dims();
        let joint = linear_kept(&self.key_value, &self.kept[1], memory);
        let [_, _, double] = joint.dims();
        let head_dim = double / 2 / self.num_heads;
        let joint = joint.reshape([batch, length, 2 * self.num_heads, head_dim]).swap_dims(1, 2);
        let key = joint.clone().narrow(1, 0, self.num_heads);
        let value = joint.narrow(1, self.num_heads, self.num_heads);
        KeyValue { key, value }
    }

    /// Attends from `x` to projected keys and values; nobody sees the weights.
    ///
    /// # Shapes
    /// `x`: `[batch, seq, d_model]`; result the same.
    pub fn attend(&self, x: Tensor<3>, memory: KeyValue, mask: &AttentionMask) -> Tensor<3> {
        let causal = matches!(mask, AttentionMask::Causal);
        if x.device().is_autodiff() {
            // Autodiff has no fused operation of its own and falls back to more passes than ours.
            if !cpu::is_cpu(&x.device()) || matches!(mask, AttentionMask::Hidden(_)) {
                return self.attend_with_weights(x, memory, mask).0;
            }
            let query = self.query(x.clone());
            return match cpu::attention_with_gradients(&query, &memory, causal) {
                Some(context) => self.output(context),
                None => self.attend_with_weights(x, memory, mask).0,
            };
        }
        let query = self.query(x);
        if !matches!(mask, AttentionMask::Hidden(_))
            && let Some(context) = cpu::attention(&query, &memory, causal)
        {
            return self.output(context);
        }
        let options = AttentionModuleOptions { is_causal: causal, ..Default::default() };
        let hidden = match mask {
            AttentionMask::Hidden(hidden) => {
                let [batch, heads, _, _] = query.dims();
                let [_, _, seq, length] = hidden.dims();
                Some(hidden.clone().expand([batch, heads, seq, length]))
            }
            _ => None,
        };
        let context = fused_attention(query, memory.key, memory.value, hidden, None, options);
        self.merge(context)
    }

    /// Attends from `x` to projected keys and values and returns the weights.
    ///
    /// # Shapes
    /// `x`: `[batch, seq, d_model]`; result: `[batch, seq, d_model]` and weights
    /// `[batch, heads, seq, length]` whose rows sum to 1.
    pub fn attend_with_weights(
        &self,
        x: Tensor<3>,
        memory: KeyValue,
        mask: &AttentionMask,
    ) -> (Tensor<3>, Tensor<4>) {
        let (context, weights) = Self::weigh(self.query(x), memory, mask);
        (self.merge(context), weights)
    }

    /// As [`Self::attend_with_weights`], with what `see` makes of the weights in their place.
    pub(super) fn attend_through(
        &self,
        x: Tensor<3>,
        memory: KeyValue,
        mask: &AttentionMask,
        see: impl FnOnce(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<3> {
        let KeyValue { key, value } = memory;
        let weights = see(Self::weights(self.query(x), key, mask));
        self.merge(weights.matmul(value))
    }

    /// Attention itself, between projections: `softmax(query · keyᵀ / √head_dim) · value`, and the weights.
    ///
    /// # Shapes
    /// `query`: `[batch, heads, seq, head_dim]`; result: `[batch, heads, seq, width of values]` and weights
    /// `[batch, heads, seq, length]` whose rows sum to 1.
    pub fn weigh(
        query: Tensor<4>,
        memory: KeyValue,
        mask: &AttentionMask,
    ) -> (Tensor<4>, Tensor<4>) {
        let weights = Self::weights(query, memory.key, mask);
        let context = weights.clone().matmul(memory.value);
        (context, weights)
    }

    fn weights(query: Tensor<4>, key: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
        let device = query.device();
        let [_, _, seq, head_dim] = query.dims();
        let [_, _, length, _] = key.dims();
        let scale = 1.0 / (head_dim as f64).sqrt();
        // Scaling the queries touches fewer elements than scaling the scores; it rounds more often,
        // unless the scale is a power of two.
        let key = key.transpose();
        let mut scores = if head_dim.is_power_of_two() && head_dim.trailing_zeros() % 2 == 0 {
            query.mul_scalar(scale).matmul(key)
        } else {
            query.matmul(key).mul_scalar(scale)
        };
        if let Some(hidden) = mask.hidden(seq, length, &device) {
            scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
        }
        activation::softmax(scores, 3)
    }

    /// `[batch, seq, d_model]` to queries `[batch, heads, seq, head_dim]`.
    fn query(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, seq, d_model] = x.dims();
        linear_kept(&self.query, &self.kept[0], x)
            .reshape([batch, seq, self.num_heads, d_model / self.num_heads])
            .swap_dims(1, 2)
    }

    /// `[batch, heads, seq, head_dim]` back to `[batch, seq, d_model]`, through the output map.
    fn merge(&self, context: Tensor<4>) -> Tensor<3> {
        let [batch, heads, seq, head_dim] = context.dims();
        self.output(context.swap_dims(1, 2).reshape([batch, seq, heads * head_dim]))
    }

    fn output(&self, context: Tensor<3>) -> Tensor<3> {
        linear_kept(&self.output, &self.kept[2], context)
    }
}
