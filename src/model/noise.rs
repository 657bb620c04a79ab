//! Noise of training: dropout and stochastic depth. Both are the identity on a device without
//! autodiff, unless [`hold_noise`] was called, and both draw from what [`seed_noise`] seeded last.

use std::cell::RefCell;

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cpu::is_cpu;

thread_local! {
    static HOST: RefCell<Host> = const { RefCell::new(Host::Unseeded) };
}

/// Where a thread's noise comes from.
enum Host {
    /// Nothing was seeded: the backend draws.
    Unseeded,
    /// This generator, on a CPU.
    Seeded(Box<ChaCha8Rng>),
    /// Nothing is noisy, with autodiff either.
    Silent,
    /// The seed of one thinned network, and how many of its masks this pass has used.
    Held { seed: u64, used: u64 },
}

/// Seeds the noise that this thread draws next. On the CPU every thread has a generator of its own,
/// so that threads computing side by side draw what they would draw alone; a GPU has one for all.
pub fn seed_noise(device: &Device, seed: u64) {
    let host = if is_cpu(device) {
        Host::Seeded(Box::new(ChaCha8Rng::seed_from_u64(seed)))
    } else {
        device.seed(seed);
        Host::Unseeded
    };
    HOST.with_borrow_mut(|old| *old = host);
}

/// Holds the noise of this thread still while the result lives: dropout zeroes the same channels in every
/// row, at every position and in every pass of the decoder, without autodiff too. What is said token by
/// token and what is learned of it are then one thinned network.
#[must_use = "noise is held while this lives"]
pub fn hold_noise(seed: u64) -> HeldNoise {
    HOST.with_borrow_mut(|host| *host = Host::Held { seed, used: 0 });
    HeldNoise(())
}

/// Switches this thread's noise off while the result lives, with autodiff too: gradients of the model as
/// it captions.
#[must_use = "noise is off while this lives"]
pub fn silence_noise() -> HeldNoise {
    HOST.with_borrow_mut(|host| *host = Host::Silent);
    HeldNoise(())
}

/// The end of [`hold_noise`] and of [`silence_noise`].
#[derive(Debug)]
pub struct HeldNoise(());

impl Drop for HeldNoise {
    fn drop(&mut self) {
        HOST.with_borrow_mut(|host| *host = Host::Unseeded);
    }
}

/// Another pass of the decoder begins: held noise is that of the last one.
pub(super) fn begin_pass() {
    HOST.with_borrow_mut(|host| {
        if let Host::Held { used, .. } = host {
            *used = 0;
        }
    });
}

/// Whether noise is drawn on `device` now.
pub(super) fn is_noisy(device: &Device) -> bool {
    HOST.with_borrow(|host| match host {
        Host::Silent => false,
        Host::Held { .. } => true,
        Host::Unseeded | Host::Seeded(_) => device.is_autodiff(),
    })
}

/// Dropout (Srivastava et al. 2014): zeroes elements with probability `rate` and scales the rest by
/// `1 / (1 - rate)`.
pub(super) fn dropout(x: Tensor<3>, rate: f64) -> Tensor<3> {
    if rate == 0.0 || !is_noisy(&x.device()) {
        return x;
    }
    let mask = mask(x.dims(), 1.0 - rate, &x.device());
    x * mask
}

/// Stochastic depth (Huang et al. 2016): drops a residual branch for whole images of the batch.
pub(super) fn drop_path(branch: Tensor<3>, rate: f64) -> Tensor<3> {
    let device = branch.device();
    if rate == 0.0 || !is_noisy(&device) {
        return branch;
    }
    let [batch, _, _] = branch.dims();
    branch * mask([batch, 1, 1], 1.0 - rate, &device)
}

/// `1 / keep` with probability `keep`, else 0; of one row and position where noise is held.
fn mask([rows, seq, width]: [usize; 3], keep: f64, device: &Device) -> Tensor<3> {
    let flex = is_cpu(device);
    let draw = |rng: &mut ChaCha8Rng, dims: [usize; 3]| {
        let (scale, keep) = ((1.0 / keep) as f32, keep as f32);
        let count: usize = dims.iter().product();
        let one = |_| if rng.random::<f32>() < keep { scale } else { 0.0 };
        TensorData::new((0..count).map(one).collect::<Vec<f32>>(), dims)
    };
    let drawn = HOST.with_borrow_mut(|host| match host {
        Host::Seeded(rng) if flex => Some(draw(rng, [rows, seq, width])),
        Host::Held { seed, used } => {
            let mut rng = ChaCha8Rng::seed_from_u64(*seed);
            rng.set_stream(*used);
            *used += 1;
            Some(draw(&mut rng, [1, 1, width]))
        }
        _ => None,
    });
    match drawn {
        Some(data) => Tensor::from_data(data, device),
        None => {
            let bits = Tensor::random([rows, seq, width], Distribution::Bernoulli(keep), device);
            bits.mul_scalar(1.0 / keep)
        }
    }
}
