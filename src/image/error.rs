//! What can be wrong with an image file or with an image setting.

use std::path::PathBuf;

use crate::lfs;

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
        "{}: not an image: {found} (known formats: JPEG, PNG, GIF, WebP, HEIC, JPEG XL, JPEG 2000, \
         TIFF, camera RAW, BMP, TGA, DDS, ICO, HDR, OpenEXR, PNM, QOI, farbfeld)",
        path.display()
    )]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// How its content starts.
        found: String,
    },
    /// A Git LFS pointer stands in place of the image.
    #[error("{}: {}", path.display(), lfs::REMEDY)]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A folder, a device, a pipe or a socket. It was not opened.
    #[error("{}: not a regular file: it is {kind}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// A symbolic link whose target is not there.
    #[error("{}: a link to nothing: there is no {}", path.display(), target.display())]
    DeadLink {
        /// The link.
        path: PathBuf,
        /// What it leads to.
        target: PathBuf,
    },
    /// A known format, or a kind of it, that has no decoder here.
    #[error("{}: {format}, which is not read here (convert it to JPEG, PNG or WebP)", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The name of its format, or of what it is within its format.
        format: String,
    },
    /// The file is longer than an image within the limits can be. It was not read.
    #[error(
        "{}: {} are more than an image of {max_pixels} pixels can take",
        path.display(),
        size_in_text(*bytes)
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The limit, in pixels.
        max_pixels: u64,
    },
    /// Decoding needs more memory than it may take. No pixel was decoded.
    #[error(
        "{}: {width} x {height} pixels need {} of memory to decode, and {} are allowed",
        path.display(),
        size_in_text(*bytes),
        size_in_text(*allowed)
    )]
    NeedsMemory {
        /// The file.
        path: PathBuf,
        /// Width in pixels, as the header says.
        width: u32,
        /// Height in pixels, as the header says.
        height: u32,
        /// What decoding needs, in bytes.
        bytes: u64,
        /// What all decoding together may take, in bytes.
        allowed: u64,
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
        "{}: {width} x {height} = {pixels} pixels are more than the limit of {max_pixels}",
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

fn size_in_text(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes >= 1000.0 {
        format!("{:.1} GB", megabytes / 1000.0)
    } else {
        format!("{:.0} MB", megabytes.max(1.0))
    }
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
