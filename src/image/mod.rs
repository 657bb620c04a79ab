//! Images on their way to the model: decode, orient, resize, augment, normalise. Knows no tensors.
//!
//! ```text
//! bytes ──decode──▶ RgbImage ──augment──▶ RgbImage ──PreprocessConfig::apply──▶ [3, height, width] f32
//!                                                    └─ placement: model pixels ◀──▶ photo pixels
//! ```

pub mod augment;
pub mod budget;
mod colour;
pub mod decode;
pub mod error;
mod formats;
mod orientation;
pub mod placement;
pub mod preprocess;
mod resample;
pub mod resize;
mod signature;
pub mod thumbnail;

pub use augment::{AugmentConfig, augment};
pub use budget::MemoryBudget;
pub use decode::{DecodeLimits, decode_bytes, decode_file};
pub use error::{ImageError, InvalidSetting};
pub use placement::{Placement, Rectangle};
pub use preprocess::PreprocessConfig;
pub use resize::{ResizeFilter, ResizeMode};
pub use signature::{EXTENSIONS, is_image_path};
pub use thumbnail::{Thumbnail, thumbnail};

#[cfg(test)]
mod format_tests;
