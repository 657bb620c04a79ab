//! Every attention weight of a decoded sequence, as one value that any method of inspection can
//! read. On a device with autodiff, gradients reach the weights.

use burn::tensor::Tensor;

/// Attention weights of every decoder layer, first layer first.
#[derive(Debug, Clone, Default)]
pub struct AttentionTrace {
    /// Self-attention, `[batch, heads, seq, seq]` a layer.
    pub self_attention: Vec<Tensor<4>>,
    /// Cross-attention, `[batch, heads, seq, patches]` a layer; rows sum to 1.
    pub cross_attention: Vec<Tensor<4>>,
}
