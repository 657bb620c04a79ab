//! How good a captioner is on a split: loss, scene accuracy, attention pointing; and a page that
//! shows every image with its caption.

pub mod gallery;
pub mod scenes;

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
}
