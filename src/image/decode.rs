//! From the bytes of an image file to upright 8-bit RGB.

use std::fs::{self, File, FileType};
use std::io::{ErrorKind, Read};
use std::path::Path;

use ::image::{DynamicImage, RgbImage};

use super::budget::MemoryBudget;
use super::error::ImageError;
use super::formats::{self, Failure, Job};
use super::preprocess::PreprocessConfig;
use super::signature::{self, Format, HEAD_LENGTH};
use crate::damage;

/// What an image file may ask for before it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The most pixels (width x height) an image may have.
    pub max_pixels: u64,
    /// The memory that decoding may take, all images together that are decoded at a time.
    pub memory: MemoryBudget,
    /// The size (width, height) that will do where an image has no room whole: a JPEG then comes at a
    /// half, a quarter or an eighth of its size, but not smaller than this.
    pub enough: Option<(u32, u32)>,
}

impl DecodeLimits {
    /// The most pixels, with the default budget of memory, which the process has one of.
    pub fn of_pixels(max_pixels: u64) -> Self {
        Self { max_pixels, memory: MemoryBudget::default(), enough: None }
    }

    /// The same, for images that go to the model and nowhere else: what has no room whole may come at
    /// twice the size of the model's input.
    #[must_use]
    pub fn for_input(self, preprocess: &PreprocessConfig) -> Self {
        let (width, height) = preprocess.scaled_size();
        Self { enough: Some((2 * width, 2 * height)), ..self }
    }
}

impl Default for DecodeLimits {
    /// The size at which Pillow warns of a decompression bomb doubled, where it refuses: 178,956,970.
    fn default() -> Self {
        Self::of_pixels(178_956_970)
    }
}

/// Decodes an image file: first frame, upright as EXIF or XMP says, in 8-bit RGB, over white where it
/// is transparent. Of a camera's RAW file, the largest JPEG in it. Colour profiles are not applied.
///
/// # Errors
/// An [`ImageError`] that names the file when it is no regular file, cannot be read, is no known
/// image, is too large, truncated or damaged.
pub fn decode_file(path: &Path, limits: &DecodeLimits) -> Result<RgbImage, ImageError> {
    decode_bytes(&read_file(path, limits)?, path, limits)
}

/// As [`decode_file`], from the bytes of a file. `name` stands in the errors and decides nothing.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_bytes(
    bytes: &[u8],
    name: &Path,
    limits: &DecodeLimits,
) -> Result<RgbImage, ImageError> {
    let format = signature::recognise(&bytes[..bytes.len().min(HEAD_LENGTH)], name)?;
    if let Some(reason) = signature::missing_end(format, bytes) {
        let format = format.name();
        return Err(ImageError::Truncated { path: name.to_owned(), format, reason });
    }
    let mut job = Job::new(limits, bytes.len() as u64);
    // Decoders meet damaged files by the thousand; where one of them panics, the run goes on.
    let decoded =
        damage::contained(|| formats::decode(format, bytes, &mut job)).unwrap_or_else(|| {
            Err(Failure::Damaged("its decoder failed on the damaged content".into()))
        });
    let stored = decoded.map_err(|failure| named(failure, format, name, limits))?;
    let mut upright = DynamicImage::ImageRgb8(stored.pixels);
    upright.apply_orientation(stored.orientation);
    Ok(upright.into_rgb8())
}

/// The bytes of a file that is an image by its first ones, and not too long for one.
fn read_file(path: &Path, limits: &DecodeLimits) -> Result<Vec<u8>, ImageError> {
    let failed = |error| ImageError::Io { path: path.to_owned(), error };
    // Opening a pipe that nobody writes to would wait for ever.
    let kind = match fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) => {
            return Err(match fs::read_link(path) {
                Ok(target) if error.kind() == ErrorKind::NotFound => {
                    ImageError::DeadLink { path: path.to_owned(), target }
                }
                _ => failed(error),
            });
        }
    };
    if !kind.is_file() {
        return Err(ImageError::NotAFile { path: path.to_owned(), kind: name_of(kind) });
    }
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    // A file that is no image is refused before gigabytes of it are read.
    file.by_ref().take(HEAD_LENGTH as u64).read_to_end(&mut bytes).map_err(failed)?;
    signature::recognise(&bytes, path)?;
    // The widest pixel is four floats; beside the pixels stand tables and metadata.
    let longest = limits.max_pixels.saturating_mul(16).saturating_add(64 << 20);
    if length > longest.min(limits.memory.total()) {
        let (path, max_pixels) = (path.to_owned(), limits.max_pixels);
        return Err(ImageError::TooLong { path, bytes: length, max_pixels });
    }
    bytes.reserve_exact(usize::try_from(length).unwrap_or(0).saturating_sub(bytes.len()));
    // What grows while it is read is read no further.
    file.take(longest).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(unix)]
fn name_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "a device" }
}

fn named(failure: Failure, format: Format, name: &Path, limits: &DecodeLimits) -> ImageError {
    let (path, format) = (name.to_owned(), format.name());
    match failure {
        Failure::Empty { width, height } => ImageError::Empty { path, format, width, height },
        Failure::TooLarge { width, height } => {
            ImageError::TooLarge { path, width, height, max_pixels: limits.max_pixels }
        }
        Failure::NeedsMemory { width, height, bytes } => {
            let allowed = limits.memory.total();
            ImageError::NeedsMemory { path, width, height, bytes, allowed }
        }
        Failure::Truncated(reason) => ImageError::Truncated { path, format, reason },
        Failure::Damaged(reason) => ImageError::Decode { path, format, reason },
        Failure::Unsupported(format) => ImageError::Unsupported { path, format },
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
