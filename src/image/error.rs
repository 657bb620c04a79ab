//! What can be wrong with an image file or with an image setting.

use std::path::PathBuf;

/// Why an image could not be decoded. Every variant's text is complete: it names the file and the
/// cause on one line, and has no further source.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The content is no image format known here, whatever the file's name says.
    #[error(
        "{}: not an image: {found} (known formats: JPEG, PNG, GIF, WebP, TIFF, BMP, TGA, DDS, ICO, \
         HDR, OpenEXR, PNM, QOI, farbfeld)",
        path.display()
    )]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// How its content starts.
        found: String,
    },
    /// A known format that has no decoder here.
    #[error("{}: {format} images cannot be decoded here; convert it to JPEG, PNG or WebP", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The name of its format.
        format: &'static str,
    },
    /// The image has no pixels.
    #[error("{}: {format} image of {width} x {height} pixels: nothing to see", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The name of its format.
        format: &'static str,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The image has more pixels than the limit allows. No pixel was decoded.
    #[error(
        "{}: {width} x {height} = {pixels} pixels are more than the limit of {max_pixels}; \
         if the file is to be trusted, raise it with --max-pixels {pixels}",
        path.display(),
        pixels = u64::from(*width) * u64::from(*height)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Width in pixels, as the header says.
        width: u32,
        /// Height in pixels, as the header says.
        height: u32,
        /// The limit, in pixels.
        max_pixels: u64,
    },
    /// The file ends before the image does.
    #[error("{}: truncated {format}: {reason}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The name of its format.
        format: &'static str,
        /// What is missing.
        reason: String,
    },
    /// The content is damaged, or uses a feature the decoder does not have.
    #[error("{}: cannot be decoded as {format}: {reason}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The name of its format.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// An image setting whose value makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: expected {expected}, found {found}")]
pub struct InvalidSetting {
    /// The key, relative to its section of the config (`width`, `std[2]`, `crop_scale`).
    pub key: String,
    /// The value found.
    pub found: String,
    /// What the key takes.
    pub expected: &'static str,
}

impl InvalidSetting {
    pub(super) fn new(
        key: impl Into<String>,
        found: impl std::fmt::Debug,
        expected: &'static str,
    ) -> Self {
        Self { key: key.into(), found: format!("{found:?}"), expected }
    }
}
