//! Noise of training: dropout and stochastic depth. Both are the identity on a device without
//! autodiff and after [`silence_noise`], and both draw from what [`seed_noise`] seeded last.

use std::cell::RefCell;

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

thread_local! {
    static HOST: RefCell<Host> = const { RefCell::new(Host::Unseeded) };
}

/// Where a thread's noise comes from.
enum Host {
    /// Nothing was seeded: the backend draws.
    Unseeded,
    /// This generator, on a CPU.
    Seeded(Box<ChaCha8Rng>),
    /// There is none.
    Silent,
}

/// Seeds the noise that this thread draws next. On the CPU every thread has a generator of its own,
/// so that threads computing side by side draw what they would draw alone; a GPU has one for all.
pub fn seed_noise(device: &Device, seed: u64) {
    if device.clone().inner() == Device::flex() {
        let rng = Box::new(ChaCha8Rng::seed_from_u64(seed));
        HOST.with_borrow_mut(|host| *host = Host::Seeded(rng));
    } else {
        HOST.with_borrow_mut(|host| *host = Host::Unseeded);
        device.seed(seed);
    }
}

/// From now on this thread draws no noise, until [`seed_noise`] is called: what is learned is then the
/// model that samples.
pub fn silence_noise() {
    HOST.with_borrow_mut(|host| *host = Host::Silent);
}

fn silent() -> bool {
    HOST.with_borrow(|host| matches!(host, Host::Silent))
}

/// Dropout (Srivastava et al. 2014): zeroes elements with probability `rate` and scales the rest by
/// `1 / (1 - rate)`.
pub(super) fn dropout(x: Tensor<3>, rate: f64) -> Tensor<3> {
    if rate == 0.0 || !x.device().is_autodiff() || silent() {
        return x;
    }
    let mask = mask(x.dims(), 1.0 - rate, &x.device());
    x * mask
}

/// Stochastic depth (Huang et al. 2016): drops a residual branch for whole images of the batch.
pub(super) fn drop_path(branch: Tensor<3>, rate: f64) -> Tensor<3> {
    let device = branch.device();
    if rate == 0.0 || !device.is_autodiff() || silent() {
        return branch;
    }
    let [batch, _, _] = branch.dims();
    branch * mask([batch, 1, 1], 1.0 - rate, &device)
}

/// `1 / keep` with probability `keep`, else 0.
fn mask(dims: [usize; 3], keep: f64, device: &Device) -> Tensor<3> {
    let flex = device.clone().inner() == Device::flex();
    let drawn = HOST.with_borrow_mut(|host| {
        let Host::Seeded(rng) = host else { return None };
        if !flex {
            return None;
        }
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
