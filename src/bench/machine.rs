//! What a machine can do at best, and what it is: a report of "slow" that names them says why.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use super::BenchError;
use crate::model::{multiply, vector_instructions};

/// Rows, inputs and outputs of the products that are timed: a square one, a feed-forward layer of a
/// ViT-B that reads 384 × 384 pixels, and one step of decoding.
const SHAPES: [[usize; 3]; 3] = [[1024, 1024, 1024], [577, 768, 3072], [4, 768, 3072]];

/// Seconds that each measurement takes, about.
const SECONDS: f64 = 0.15;

/// Elements that are copied: more than any cache holds.
const COPIED: usize = 1 << 25;

/// This machine's CPU, and how fast the device multiplies and memory is read and written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// The CPU as the system names it.
    pub cpu: String,
    /// Its sets of vector instructions: `avx2 fma avx512f`.
    pub instruction_sets: String,
    /// The set that the kernels use here: `AVX2`.
    pub instructions_used: &'static str,
    /// Products timed.
    pub products: Vec<ProductRate>,
    /// Bytes read and written a second by one thread that copies.
    pub copy_bytes_per_second: f64,
}

/// How fast products of one shape are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProductRate {
    /// Rows, inputs, outputs.
    pub shape: [usize; 3],
    /// FLOPs a second, two for each multiplication.
    pub flops_per_second: f64,
}

impl Machine {
    /// Measures for about a second. Products are timed on `device`, the rest on the CPU.
    ///
    /// # Errors
    /// A failing device.
    pub fn measure(device: &Device) -> Result<Self, BenchError> {
        let device = device.clone().inner();
        let products = SHAPES.iter().map(|&shape| {
            Ok(ProductRate { shape, flops_per_second: product_rate(shape, &device)? })
        });
        Ok(Self {
            cpu: cpu(),
            instruction_sets: instruction_sets(),
            instructions_used: vector_instructions(),
            products: products.collect::<Result<_, BenchError>>()?,
            copy_bytes_per_second: copy_rate(),
        })
    }

    /// The fastest of the products.
    pub fn best_product(&self) -> f64 {
        self.products.iter().map(|product| product.flops_per_second).fold(0.0, f64::max)
    }
}

fn product_rate([rows, inputs, outputs]: [usize; 3], device: &Device) -> Result<f64, BenchError> {
    let matrix = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i * 7 % 17) as f32 / 17.0).collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device)
    };
    let (x, weight) = (matrix(rows, inputs), matrix(inputs, outputs));
    let seconds = |count: usize| -> Result<f64, BenchError> {
        device.sync().map_err(BenchError::device)?;
        let start = Instant::now();
        for _ in 0..count {
            drop(multiply(x.clone(), weight.clone()));
        }
        device.sync().map_err(BenchError::device)?;
        Ok((start.elapsed().as_secs_f64() / count as f64).max(1e-9))
    };
    // The first compiles kernels on a GPU, the second tells how long one takes.
    seconds(1)?;
    let count = (SECONDS / 5.0 / seconds(1)?).clamp(1.0, 10_000.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        best = best.min(seconds(count)?);
    }
    Ok(2.0 * (rows * inputs * outputs) as f64 / best)
}

fn copy_rate() -> f64 {
    let from = vec![1.0f32; COPIED];
    let mut to = vec![0.0f32; COPIED];
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&to);
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (COPIED * size_of::<f32>()) as f64 / best.max(1e-9)
}

/// The CPU's name, or its architecture where the system does not tell.
fn cpu() -> String {
    let name = std::fs::read_to_string("/proc/cpuinfo").ok();
    name.as_deref().and_then(model_name).unwrap_or_else(|| std::env::consts::ARCH.into())
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    let (_, name) = line.split_once(':')?;
    Some(name.trim().to_owned())
}

/// The sets of vector instructions that matter to products, by the names that Rust gives them.
fn instruction_sets() -> String {
    let found: Vec<&str> =
        detected().into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect();
    if found.is_empty() { "none known".into() } else { found.join(" ") }
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Vec<(&'static str, bool)> {
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected;
    vec![
        ("neon", is_aarch64_feature_detected!("neon")),
        ("dotprod", is_aarch64_feature_detected!("dotprod")),
        ("bf16", is_aarch64_feature_detected!("bf16")),
        ("i8mm", is_aarch64_feature_detected!("i8mm")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected() -> Vec<(&'static str, bool)> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_named_as_the_system_names_it() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC 7763 64-Core\nflags\t: avx2";
        assert_eq!(model_name(text).as_deref(), Some("AMD EPYC 7763 64-Core"));
        assert_eq!(model_name("CPU part\t: 0xd0c"), None);
        assert!(!cpu().is_empty());
    }
}
