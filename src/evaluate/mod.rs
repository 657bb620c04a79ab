//! How good a captioner is on a split: loss, scene accuracy, attention pointing; and a page that
//! shows every image with its caption.

pub mod gallery;
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
