//! Noise of training: dropout and stochastic depth. Both are the identity on a device without
//! autodiff, and draw from the device's generator, which the training loop seeds at every step.

use burn::tensor::{Distribution, Tensor};

/// Dropout (Srivastava et al. 2014): zeroes elements with probability `rate` and scales the rest by
/// `1 / (1 - rate)`.
pub(super) fn dropout(x: Tensor<3>, rate: f64) -> Tensor<3> {
    if rate == 0.0 || !x.device().is_autodiff() {
        return x;
    }
    let keep = 1.0 - rate;
    let mask = x.random_like(Distribution::Bernoulli(keep)).mul_scalar(1.0 / keep);
    x * mask
}

/// Stochastic depth (Huang et al. 2016): drops a residual branch for whole images of the batch.
pub(super) fn drop_path(branch: Tensor<3>, rate: f64) -> Tensor<3> {
    let device = branch.device();
    if rate == 0.0 || !device.is_autodiff() {
        return branch;
    }
    let [batch, _, _] = branch.dims();
    let keep = 1.0 - rate;
    let mask: Tensor<3> = Tensor::random([batch, 1, 1], Distribution::Bernoulli(keep), &device);
    branch * mask.mul_scalar(1.0 / keep)
}
