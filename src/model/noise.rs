//! Noise of training: dropout and stochastic depth. Both are the identity on a device without
//! autodiff, and both draw from what [`seed_noise`] seeded last.

use std::cell::RefCell;

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

thread_local! {
    static HOST: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
}

/// Seeds the noise that this thread draws next. On the CPU every thread has a generator of its own,
/// so that threads computing side by side draw what they would draw alone; a GPU has one for all.
pub fn seed_noise(device: &Device, seed: u64) {
    if device.clone().inner() == Device::flex() {
        HOST.with_borrow_mut(|host| *host = Some(ChaCha8Rng::seed_from_u64(seed)));
    } else {
        device.seed(seed);
    }
}

/// Dropout (Srivastava et al. 2014): zeroes elements with probability `rate` and scales the rest by
/// `1 / (1 - rate)`.
pub(super) fn dropout(x: Tensor<3>, rate: f64) -> Tensor<3> {
    if rate == 0.0 || !x.device().is_autodiff() {
        return x;
    }
    let mask = mask(x.dims(), 1.0 - rate, &x.device());
    x * mask
}

/// Stochastic depth (Huang et al. 2016): drops a residual branch for whole images of the batch.
pub(super) fn drop_path(branch: Tensor<3>, rate: f64) -> Tensor<3> {
    let device = branch.device();
    if rate == 0.0 || !device.is_autodiff() {
        return branch;
    }
    let [batch, _, _] = branch.dims();
    branch * mask([batch, 1, 1], 1.0 - rate, &device)
}

/// `1 / keep` with probability `keep`, else 0.
fn mask(dims: [usize; 3], keep: f64, device: &Device) -> Tensor<3> {
    let flex = device.clone().inner() == Device::flex();
    let drawn = HOST.with_borrow_mut(|host| {
        let rng = host.as_mut().filter(|_| flex)?;
        let (scale, keep) = ((1.0 / keep) as f32, keep as f32);
        let count: usize = dims.iter().product();
        let draw = |_| if rng.random::<f32>() < keep { scale } else { 0.0 };
        Some((0..count).map(draw).collect::<Vec<f32>>())
    });
    match drawn {
        Some(values) => Tensor::from_data(TensorData::new(values, dims), device),
        None => Tensor::random(dims, Distribution::Bernoulli(keep), device).mul_scalar(1.0 / keep),
    }
}
