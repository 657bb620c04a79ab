//! Measurements of this machine: the speed of a training step and of captioning, the memory they
//! take, and the device's own matrix product as a yardstick.
//!
//! Training is measured through what `train` itself calls, so that a number here is a number there.

mod caption;
mod flops;
mod machine;
mod matmul;
mod memory;
mod timing;
mod train;

pub use caption::{CaptionBench, CaptionReport, bench_caption};
pub use flops::{StepShape, decoding_step, forward_decoder, forward_encoder, training_step};
pub use machine::{Machine, ProductRate};
pub use matmul::matmul_rate;
pub use memory::peak_memory;
pub use timing::Timing;
pub use train::{BenchData, TrainBench, TrainReport, bench_train};

use crate::generate::GenerateError;
use crate::image::ImageError;
use crate::model::ConfigError;
use crate::train::TrainError;

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A count that must be at least 1 is 0, or one is too large for the model.
    #[error("`{key}`: {problem}")]
    Value {
        /// What was set.
        key: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The model cannot be built.
    #[error("model.{0}")]
    Model(ConfigError),
    /// The data cannot be used, or training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Decoding captions failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The photo made for the measurement could not be encoded.
    #[error("the test photo cannot be encoded: {0}")]
    Encode(String),
    /// The photo made for the measurement could not be decoded.
    #[error(transparent)]
    Decode(#[from] ImageError),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

// By hand: its text is within this one's, so it is no cause below it.
impl From<ConfigError> for BenchError {
    fn from(error: ConfigError) -> Self {
        Self::Model(error)
    }
}

impl BenchError {
    fn device(error: impl std::fmt::Display) -> Self {
        Self::Device(error.to_string())
    }
}
