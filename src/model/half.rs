//! Weights in two bytes an element, for inference: half the memory, and half of what is read for every
//! token.

use burn::module::Param;
use burn::nn::LayerNorm;
use burn::tensor::{DType, Tensor};

use super::captioner::Captioner;
use super::parameters::{MapParameters, ParameterPath, ParameterRole, map_parameters};

/// The same captioner with weights in f16, apart from those of layer norms, which stay as they are.
pub(super) fn narrowed(model: Captioner) -> Captioner {
    map_parameters(model, &mut Narrow)
}

struct Narrow;

impl MapParameters for Narrow {
    fn map<const D: usize>(
        &mut self,
        path: &ParameterPath,
        param: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        match path.role(D) {
            ParameterRole::NormScale | ParameterRole::NormShift => param,
            _ => param.map(|tensor| tensor.cast(DType::F16)),
        }
    }
}

/// A layer norm, in f32 whatever `x` is of: squares of a few hundred are beyond f16, and epsilons of
/// 1e-12 are nothing in it.
pub(super) fn normalize<const D: usize>(norm: &LayerNorm, x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 => norm.forward(x.cast(DType::F32)).cast(DType::F16),
        _ => norm.forward(x),
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LayerNormConfig;
    use burn::tensor::Device;

    use super::*;

    /// Residual streams of large models have such channels.
    #[test]
    fn a_norm_of_large_halves_is_that_of_floats() {
        let norm = LayerNormConfig::new(4).with_epsilon(1e-12).init(&Device::flex());
        let x = Tensor::<2>::from_data([[3000.0, -1000.0, 0.5, 2.0]], &Device::flex());
        let exact = norm.forward(x.clone());
        let half = normalize(&norm, x.cast(DType::F16));
        assert_eq!(half.dtype(), DType::F16);
        let apart = (half.cast(DType::F32) - exact).abs().max().into_scalar::<f32>();
        assert!(apart < 2e-3, "{apart}");
    }
}
