//! Relevance from attention and from gradients at it. Knows numbers only: no photo, no text.

use burn::tensor::{Gradients, Tensor};

use super::InspectError;
use super::relevance::{Pool, RelevanceConfig};
use crate::model::{AttentionTrace, LayerAttention};

/// Attention of one caption on the host, or what stands in for it.
#[derive(Debug, Clone)]
pub(super) struct HostAttention {
    /// A layer: `[heads, queries, keys]`.
    pub layers: Vec<Vec<f32>>,
    pub heads: usize,
    pub queries: usize,
    pub keys: usize,
}

pub(super) fn to_host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, InspectError> {
    tensor.try_into_vec_as::<f32>().map_err(|error| InspectError::Device(error.to_string()))
}

impl HostAttention {
    /// The weights of the first row of the batch.
    pub fn weights(layers: &[LayerAttention]) -> Result<Self, InspectError> {
        Self::read(layers.iter().map(|layer| layer.weights.clone().without_autodiff()))
    }

    fn read(tensors: impl Iterator<Item = Tensor<4>>) -> Result<Self, InspectError> {
        let mut layers = Vec::new();
        let (mut heads, mut queries, mut keys) = (0, 0, 0);
        for tensor in tensors {
            [_, heads, queries, keys] = tensor.dims();
            layers.push(to_host(tensor.narrow(0, 0, 1))?);
        }
        Ok(Self { layers, heads, queries, keys })
    }

    pub fn row(&self, layer: usize, head: usize, query: usize) -> &[f32] {
        let start = (head * self.queries + query) * self.keys;
        &self.layers[layer][start..start + self.keys]
    }

    /// `[queries, keys]`, mean over the heads of one layer.
    pub fn mean_of_heads(&self, layer: usize) -> Vec<f32> {
        let mut mean = vec![0.0; self.queries * self.keys];
        for head in self.layers[layer].chunks(self.queries * self.keys) {
            mean.iter_mut().zip(head).for_each(|(sum, x)| *sum += x / self.heads as f32);
        }
        mean
    }
}

/// Mean over a word's steps of what each gives.
pub(super) fn over_steps(
    steps: &[usize],
    keys: usize,
    row: impl Fn(usize) -> Vec<f32>,
) -> Vec<f32> {
    let mut mean = vec![0.0; keys];
    for &step in steps {
        mean.iter_mut().zip(row(step)).for_each(|(sum, x)| *sum += x / steps.len() as f32);
    }
    mean
}

/// Cross-attention of one step, of the layers and heads that `config` names.
pub(super) fn attention(cross: &HostAttention, config: &RelevanceConfig, step: usize) -> Vec<f32> {
    let (layers, heads) = (config.layers(cross.layers.len()), config.heads(cross.heads));
    let count = (layers.len() * heads.len()) as f32;
    let mut out = vec![0.0f32; cross.keys];
    for layer in layers {
        for head in heads.clone() {
            let row = cross.row(layer, head, step);
            match config.pool {
                Pool::Mean => out.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / count),
                Pool::Max => out.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(*x)),
            }
        }
    }
    out
}

/// Cross-attention of one step minus what the steps before it explain: their maps, weighted by how much
/// the step attends to them, at the scale that fits best.
pub(super) fn residual(
    own: &HostAttention,
    cross: &HostAttention,
    config: &RelevanceConfig,
    step: usize,
) -> Vec<f32> {
    let mut map = attention(cross, config, step);
    let mut explained = vec![0.0f32; cross.keys];
    // Step 0 reads the begin token, which says nothing.
    for earlier in 1..step {
        let layers = own.layers.len() as f32;
        let heads = own.heads as f32;
        let weight: f32 = (0..own.layers.len())
            .flat_map(|layer| (0..own.heads).map(move |head| (layer, head)))
            .map(|(layer, head)| own.row(layer, head, step)[earlier] / (layers * heads))
            .sum();
        let before = attention(cross, config, earlier);
        explained.iter_mut().zip(before).for_each(|(sum, x)| *sum += weight * x);
    }
    let product = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let size = product(&explained, &explained);
    if size > 0.0 {
        let scale = (product(&map, &explained) / size).max(0.0);
        map.iter_mut().zip(&explained).for_each(|(x, explained)| *x -= scale * explained);
    }
    map
}

/// Attention rollout of every step through the decoder, `[seq, keys]`; half of each layer goes through the
/// residual stream.
pub(super) fn rollout(own: &HostAttention, cross: &HostAttention) -> Vec<f32> {
    let (seq, keys) = (cross.queries, cross.keys);
    let mut reached = vec![0.0f32; seq * keys];
    for layer in 0..cross.layers.len() {
        let mixed = product(&own.mean_of_heads(layer), &reached, seq, seq, keys);
        let across = cross.mean_of_heads(layer);
        for ((value, mixed), across) in reached.iter_mut().zip(mixed).zip(across) {
            *value = 0.5 * (0.5 * (*value + mixed)) + 0.5 * across;
        }
    }
    reached
}

/// Attention rollout through the encoder, `[positions, positions]`.
pub(super) fn encoder_rollout(layers: &[LayerAttention]) -> Option<Tensor<2>> {
    let mut reached: Option<Tensor<2>> = None;
    for layer in layers {
        let weights = layer.weights.clone().without_autodiff();
        let [_, _, positions, _] = weights.dims();
        let mean = weights.narrow(0, 0, 1).mean_dim(1).reshape([positions, positions]);
        let half = (mean + Tensor::eye(positions, &layer.weights.device().inner())).div_scalar(2.0);
        reached = Some(match reached {
            Some(before) => half.matmul(before),
            None => half,
        });
    }
    reached
}

/// Positive weighted gradients of captions side by side, mean over heads.
pub(super) struct GradientAttention {
    /// Self-attention a layer: `[captions, seq, seq]`.
    own: Vec<Vec<f32>>,
    /// Cross-attention a layer: `[captions, seq, keys]`.
    cross: Vec<Vec<f32>>,
    /// Gradients at cross-attention, a layer: `[captions, heads, seq, keys]`.
    cross_gradient: Vec<Vec<f32>>,
    seq: usize,
    keys: usize,
}

fn positive_mean(layer: &LayerAttention, gradients: &Gradients) -> Option<Tensor<3>> {
    let weighted = layer.weighted_gradient(gradients)?;
    let [rows, _, queries, keys] = weighted.dims();
    Some(weighted.clamp_min(0.0).mean_dim(1).reshape([rows, queries, keys]))
}

impl GradientAttention {
    pub fn read(trace: &AttentionTrace, gradients: &Gradients) -> Result<Self, InspectError> {
        let lost = || InspectError::Device("no gradient reached the attention".into());
        let read = |layers: &[LayerAttention]| -> Result<Vec<Vec<f32>>, InspectError> {
            let each = layers.iter();
            each.map(|layer| to_host(positive_mean(layer, gradients).ok_or_else(lost)?)).collect()
        };
        let (mut seq, mut keys) = (0, 0);
        let mut cross_gradient = Vec::new();
        for layer in &trace.cross_attention {
            [_, _, seq, keys] = layer.weights.dims();
            cross_gradient.push(to_host(layer.gradient(gradients).ok_or_else(lost)?)?);
        }
        let (own, cross) = (read(&trace.self_attention)?, read(&trace.cross_attention)?);
        Ok(Self { own, cross, cross_gradient, seq, keys })
    }

    /// Relevance of the steps of one of the captions through the decoder, `[seq, keys]`.
    pub fn decoder_relevance(&self, caption: usize) -> Vec<f32> {
        let (seq, keys) = (self.seq, self.keys);
        let mut text = identity(seq);
        let mut image = vec![0.0; seq * keys];
        for (own, cross) in self.own.iter().zip(&self.cross) {
            let own = &own[caption * seq * seq..][..seq * seq];
            let cross = &cross[caption * seq * keys..][..seq * keys];
            let text_added = product(own, &text, seq, seq, seq);
            let image_added = product(own, &image, seq, seq, keys);
            add(&mut text, &text_added);
            add(&mut image, &image_added);
            let turned = transposed(&normalized(&text, seq), seq);
            add(&mut image, &product(&turned, cross, seq, seq, keys));
        }
        image
    }

    /// Grad-CAM of one step of one of the captions, whose weights are `weights`.
    pub fn cam(
        &self,
        weights: &HostAttention,
        config: &RelevanceConfig,
        caption: usize,
        step: usize,
    ) -> Vec<f32> {
        let (seq, keys) = (self.seq, self.keys);
        let layers = config.layers(weights.layers.len());
        let mut out = vec![0.0f32; keys];
        let count = layers.len() as f32;
        for layer in layers {
            let mut sum = vec![0.0f32; keys];
            for head in config.heads(weights.heads) {
                let start = ((caption * weights.heads + head) * seq + step) * keys;
                let gradient = &self.cross_gradient[layer][start..start + keys];
                let mean = gradient.iter().sum::<f32>() / keys as f32;
                let row = weights.row(layer, head, step);
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += mean * x);
            }
            out.iter_mut().zip(sum).for_each(|(out, x)| *out += x.max(0.0) / count);
        }
        out
    }
}

/// Relevance of the encoder's positions for its outputs, each row of what it adds to the identity divided
/// by its sum, `[positions, positions]`.
pub(super) fn encoder_relevance(
    layers: &[LayerAttention],
    gradients: &Gradients,
) -> Option<Tensor<2>> {
    let mut relevance: Option<Tensor<2>> = None;
    for layer in layers {
        let mean = positive_mean(layer, gradients)?;
        let [_, positions, _] = mean.dims();
        let mean: Tensor<2> = mean.narrow(0, 0, 1).reshape([positions, positions]);
        let before = relevance.unwrap_or_else(|| Tensor::eye(positions, &mean.device()));
        relevance = Some(before.clone() + mean.matmul(before));
    }
    let relevance = relevance?;
    let [positions, _] = relevance.dims();
    let identity = Tensor::<2>::eye(positions, &relevance.device());
    let added = relevance - identity.clone();
    let sums = added.clone().sum_dim(1);
    let empty = sums.clone().lower_equal_elem(0.0);
    Some(added / sums.mask_fill(empty, 1.0) + identity)
}

/// `rows · encoder`, `[rows, keys]`.
pub(super) fn through_encoder(
    rows: Vec<f32>,
    keys: usize,
    encoder: Option<&Tensor<2>>,
) -> Result<Vec<f32>, InspectError> {
    let Some(encoder) = encoder else { return Ok(rows) };
    let count = rows.len() / keys;
    let data = burn::tensor::TensorData::new(rows, [count, keys]);
    to_host(Tensor::<2>::from_data(data, &encoder.device()).matmul(encoder.clone()))
}

fn identity(size: usize) -> Vec<f32> {
    (0..size * size).map(|at| f32::from(at / size == at % size)).collect()
}

fn add(to: &mut [f32], what: &[f32]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += what);
}

fn transposed(square: &[f32], size: usize) -> Vec<f32> {
    (0..size * size).map(|at| square[at % size * size + at / size]).collect()
}

/// `left · right`, of `[rows, inner]` and `[inner, cols]`.
fn product(left: &[f32], right: &[f32], rows: usize, inner: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * cols];
    for (left, out) in left.chunks(inner).zip(out.chunks_mut(cols)) {
        for (factor, right) in left.iter().zip(right.chunks(cols)) {
            out.iter_mut().zip(right).for_each(|(sum, x)| *sum += factor * x);
        }
    }
    out
}

/// What was added to the identity with rows that sum to 1, and the identity.
fn normalized(relevance: &[f32], size: usize) -> Vec<f32> {
    let mut out = relevance.to_vec();
    for (at, row) in out.chunks_mut(size).enumerate() {
        row[at] -= 1.0;
        let sum: f32 = row.iter().sum();
        if sum > 0.0 {
            row.iter_mut().for_each(|x| *x /= sum);
        }
        row[at] += 1.0;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::relevance::Method;
    use super::*;

    fn one(layers: &[&[f32]], heads: usize, queries: usize, keys: usize) -> HostAttention {
        HostAttention { layers: layers.iter().map(|x| x.to_vec()).collect(), heads, queries, keys }
    }

    #[test]
    fn heads_and_layers_are_pooled_as_asked() {
        let cross = one(&[&[0.2, 0.8, 0.6, 0.4], &[1.0, 0.0, 0.0, 1.0]], 2, 1, 2);
        let config = RelevanceConfig::new(Method::Attention);
        assert_eq!(attention(&cross, &config, 0), [0.45, 0.55]);
        let max = RelevanceConfig { pool: Pool::Max, ..config.clone() };
        assert_eq!(attention(&cross, &max, 0), [1.0, 1.0]);
        let head = RelevanceConfig { layer: Some(0), head: Some(1), ..config };
        assert_eq!(attention(&cross, &head, 0), [0.6, 0.4]);
    }

    #[test]
    fn what_an_earlier_word_explains_is_taken_away() {
        let own = one(&[&[1.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.1, 0.8, 0.1]], 1, 3, 3);
        let cross = one(&[&[0.5, 0.5, 0.9, 0.1, 0.9, 0.1]], 1, 3, 2);
        let config = RelevanceConfig::new(Method::Residual);
        let same = residual(&own, &cross, &config, 2);
        assert!(same.iter().all(|x| x.abs() < 1e-6), "{same:?}");
        // Before it there is only the begin token's step.
        assert_eq!(residual(&own, &cross, &config, 1), [0.9, 0.1]);
    }

    #[test]
    fn rollout_of_one_layer_is_its_attention() {
        let own = one(&[&[1.0, 0.0, 0.5, 0.5]], 1, 2, 2);
        let cross = one(&[&[0.3, 0.7, 0.6, 0.4]], 1, 2, 2);
        assert_eq!(rollout(&own, &cross), [0.15, 0.35, 0.3, 0.2]);
    }

    #[test]
    fn products_and_norms_by_hand() {
        assert_eq!(
            product(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 1.0, 1.0], 2, 2, 2),
            [3.0, 2.0, 7.0, 4.0]
        );
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0], 2), [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(normalized(&[1.0, 0.0, 1.0, 2.0], 2), [1.0, 0.0, 0.5, 1.5]);
        assert_eq!(identity(2), [1.0, 0.0, 0.0, 1.0]);
    }
}
