//! The feed-forward block: two linear maps with a non-linearity between them.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use super::config::Activation;
use super::cpu::{self, KeptPanels, Then, linear_kept, linear_then};

/// `output(activation(hidden(x)))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    hidden: Linear,
    output: Linear,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    kept: [KeptPanels; 2],
}

impl FeedForward {
    pub(super) fn new(d_model: usize, d_ff: usize, kind: Activation, device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(d_model, d_ff).init(device),
            output: LinearConfig::new(d_ff, d_model).init(device),
            activation: kind,
            kept: Default::default(),
        }
    }

    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, seq, d_model]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_then(x, Then::Nothing)
    }

    /// The block and what follows it.
    pub(super) fn forward_then(&self, x: Tensor<3>, then: Then) -> Tensor<3> {
        let hidden = match self.activation {
            Activation::Gelu if !x.device().is_autodiff() => {
                linear_then(&self.hidden, Some(&self.kept[0]), x, Then::Gelu)
            }
            kind => activate(linear_kept(&self.hidden, &self.kept[0], x), kind),
        };
        linear_then(&self.output, Some(&self.kept[1]), hidden, then)
    }
}

/// Applies a non-linearity element by element.
pub(super) fn activate(x: Tensor<3>, kind: Activation) -> Tensor<3> {
    match kind {
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::QuickGelu => {
            let gate = activation::sigmoid(x.clone().mul_scalar(1.702));
            x * gate
        }
        Activation::Relu => activation::relu(x),
    }
}

/// GELU with the error function. Burn 0.22 differentiates it as if it were the tanh form (off by up to
/// 1e-3) everywhere but on flex.
pub(super) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let device = x.device();
    if !device.is_autodiff() {
        return cpu::gelu(x);
    }
    if cpu::is_cpu(&device) {
        return cpu::gelu_with_gradients(x);
    }
    let gate = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5);
    x * gate
}

/// `x · sigmoid(2·√(2/π)·(x + 0.044715·x³))`, which equals the usual tanh form in fewer passes.
fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    let twice_root = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let inner = x.clone().square().mul_scalar(0.044715 * twice_root).add_scalar(twice_root);
    let gate = activation::sigmoid(x.clone() * inner);
    x * gate
}
