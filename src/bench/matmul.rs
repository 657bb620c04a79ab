//! The yardstick: how fast the device multiplies matrices.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};

use super::BenchError;

/// Side of the square matrices.
const SIDE: usize = 1024;
/// Timings taken; the best counts.
const TRIES: usize = 8;
/// Products in a row are as many as take about this long, so that waiting for a GPU weighs little.
const TARGET_SECONDS: f64 = 0.02;

/// FLOP/s of `1024 × 1024` by `1024 × 1024` in f32, `2·1024³` FLOPs each: the best of several.
///
/// # Errors
/// A failing device.
pub fn matmul_rate(device: &Device) -> Result<f64, BenchError> {
    let device = device.clone().inner();
    let matrix = |step: usize| {
        let values: Vec<f32> = (0..SIDE * SIDE).map(|i| (i * step % 17) as f32 / 17.0).collect();
        Tensor::<2>::from_data(TensorData::new(values, [SIDE, SIDE]), &device)
    };
    let (a, b) = (matrix(5), matrix(7));
    let seconds = |count: usize| -> Result<f64, BenchError> {
        device.sync().map_err(BenchError::device)?;
        let start = Instant::now();
        for _ in 0..count {
            drop(a.clone().matmul(b.clone()));
        }
        device.sync().map_err(BenchError::device)?;
        Ok((start.elapsed().as_secs_f64() / count as f64).max(1e-9))
    };
    // The first compiles kernels on a GPU, the second tells how long one takes.
    seconds(1)?;
    let count = (TARGET_SECONDS / seconds(1)?).clamp(1.0, 1000.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        best = best.min(seconds(count)?);
    }
    Ok(2.0 * (SIDE as f64).powi(3) / best)
}
