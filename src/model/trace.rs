//! Every attention weight of a pass through encoder and decoder, as one value that any method of
//! inspection can read, and the gradients at them.
//!
//! Burn keeps gradients of leaves only, and weights are none. So a *gate*, a leaf of ones, is multiplied
//! into them: its gradient is weight × gradient at the weight.

use std::collections::VecDeque;

use burn::tensor::{Gradients, Tensor};

/// Attention of one layer.
#[derive(Debug, Clone)]
pub struct LayerAttention {
    /// `[batch, heads, queries, keys]`; rows sum to 1.
    pub weights: Tensor<4>,
    /// As it was multiplied, with the rows of an image side by side in one.
    gate: Option<Tensor<4>>,
}

impl LayerAttention {
    /// Weights times the gradients at them: what each weight adds to the value that `gradients` are of, to
    /// first order. None without a gate, or where the value does not depend on the layer.
    ///
    /// # Shapes
    /// `[batch, heads, queries, keys]`, without autodiff.
    pub fn weighted_gradient(&self, gradients: &Gradients) -> Option<Tensor<4>> {
        let gradient = self.gate.as_ref()?.grad(gradients)?;
        let [rows, _, _, _] = self.weights.dims();
        Some(unfold_weights(gradient, rows))
    }

    /// The gradients at the weights; 0 where a weight is 0.
    ///
    /// # Shapes
    /// `[batch, heads, queries, keys]`, without autodiff.
    pub fn gradient(&self, gradients: &Gradients) -> Option<Tensor<4>> {
        let weights = self.weights.clone().without_autodiff();
        let hidden = weights.clone().equal_elem(0.0);
        let quotient = self.weighted_gradient(gradients)? / weights.mask_fill(hidden.clone(), 1.0);
        Some(quotient.mask_fill(hidden, 0.0))
    }
}

/// What weights are multiplied by.
#[derive(Debug, Clone, Default)]
enum Gates {
    #[default]
    None,
    Ones,
    Given(VecDeque<Tensor<4>>),
}

/// Attention of every layer, first layer first.
#[derive(Debug, Clone, Default)]
pub struct AttentionTrace {
    /// Self-attention of the encoder, `[images, heads, positions, positions]` a layer; empty where the
    /// encoder was not traced or has no layers.
    pub encoder: Vec<LayerAttention>,
    /// Self-attention of the decoder, `[batch, heads, seq, seq]` a layer.
    pub self_attention: Vec<LayerAttention>,
    /// Cross-attention, `[batch, heads, seq, patches]` a layer.
    pub cross_attention: Vec<LayerAttention>,
    gates: Gates,
}

/// One of the three kinds of attention.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Encoder,
    SelfAttention,
    CrossAttention,
}

impl AttentionTrace {
    /// A trace of weights alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// A trace from which gradients at the weights can be read. The model must be on a device with
    /// autodiff.
    pub fn gated() -> Self {
        Self { gates: Gates::Ones, ..Self::default() }
    }

    /// A trace that multiplies weights by `gates`, in the order in which layers attend: the encoder's
    /// layers, then self- and cross-attention of each decoder layer. Those that are missing are ones.
    pub fn through(gates: Vec<Tensor<4>>) -> Self {
        Self { gates: Gates::Given(gates.into()), ..Self::default() }
    }

    /// Keeps `weights`, of `rows` captions, and returns them with their gate.
    pub(super) fn see(&mut self, kind: Kind, weights: Tensor<4>, rows: usize) -> Tensor<4> {
        let gate = match &mut self.gates {
            Gates::None => None,
            Gates::Ones => {
                let options = (&weights.device(), weights.dtype());
                Some(Tensor::ones(weights.dims(), options).require_grad())
            }
            Gates::Given(gates) => gates.pop_front(),
        };
        let layer =
            LayerAttention { weights: unfold_weights(weights.clone(), rows), gate: gate.clone() };
        match kind {
            Kind::Encoder => self.encoder.push(layer),
            Kind::SelfAttention => self.self_attention.push(layer),
            Kind::CrossAttention => self.cross_attention.push(layer),
        }
        match gate {
            Some(gate) => weights * gate,
            None => weights,
        }
    }
}

/// `[images, heads, k × seq, patches]` to `[images × k, heads, seq, patches]`.
fn unfold_weights(weights: Tensor<4>, rows: usize) -> Tensor<4> {
    let [images, heads, length, patches] = weights.dims();
    if rows == images {
        return weights;
    }
    let (k, seq) = (rows / images, length * images / rows);
    let weights: Tensor<5> = weights.reshape([images, heads, k, seq, patches]);
    weights.swap_dims(1, 2).reshape([rows, heads, seq, patches])
}
