//! How good a captioner is on a split: loss, scene accuracy, attention pointing.

pub mod scenes;

use std::path::PathBuf;

use crate::generate::GenerateError;
use crate::inspect::InspectError;

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A caption could not be decoded.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Attention could not be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// An image could not be read.
    #[error("{path}: {reason}")]
    Image {
        /// The image.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
