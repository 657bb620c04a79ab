//! The feed-forward block: two linear maps with a non-linearity between them.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use super::config::Activation;

/// `output(activation(hidden(x)))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    hidden: Linear,
    output: Linear,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    pub(super) fn new(d_model: usize, d_ff: usize, kind: Activation, device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(d_model, d_ff).init(device),
            output: LinearConfig::new(d_ff, d_model).init(device),
            activation: kind,
        }
    }

    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, seq, d_model]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.output.forward(activate(self.hidden.forward(x), self.activation))
    }
}

/// Applies a non-linearity element by element.
pub(super) fn activate(x: Tensor<3>, kind: Activation) -> Tensor<3> {
    match kind {
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::Relu => activation::relu(x),
    }
}

/// `x · sigmoid(2·√(2/π)·(x + 0.044715·x³))`, which equals the usual tanh form in fewer passes.
fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    let twice_root = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let inner = x.clone().square().mul_scalar(0.044715 * twice_root).add_scalar(twice_root);
    let gate = activation::sigmoid(x.clone() * inner);
    x * gate
}
