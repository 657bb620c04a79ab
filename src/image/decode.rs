//! From the bytes of an image file to upright 8-bit RGB.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use super::colour::{self, Alpha};
use super::error::ImageError;
use super::signature::{self, HEAD_LENGTH};

/// Extensions (lower case, no dot) that image files commonly have. They choose which files of a
/// folder are looked at; the format of a file is always told from its content.
pub const EXTENSIONS: &[&str] = &[
    "apng", "bmp", "dds", "dib", "exr", "farbfeld", "ff", "gif", "hdr", "ico", "jfif", "jpe",
    "jpeg", "jpg", "pam", "pbm", "pgm", "png", "pnm", "ppm", "qoi", "tga", "tif", "tiff", "webp",
];

/// Whether the path has one of [`EXTENSIONS`], in any case.
pub fn is_image_path(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// What an image file may ask for before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The most pixels (width x height) an image may have.
    pub max_pixels: u64,
}

impl Default for DecodeLimits {
    /// The size at which Pillow warns of a decompression bomb doubled, where it refuses: 178,956,970.
    fn default() -> Self {
        Self { max_pixels: 178_956_970 }
    }
}

/// Decodes an image file: first frame, upright as its EXIF orientation says, in 8-bit RGB, over
/// white where it is transparent. Colour profiles are not applied.
///
/// # Errors
/// An [`ImageError`] that names the file when it cannot be read, is no known image, is too large,
/// truncated or damaged.
pub fn decode_file(path: &Path, limits: &DecodeLimits) -> Result<RgbImage, ImageError> {
    let read = |error| ImageError::Io { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    // A file that is no image is refused before gigabytes of it are read.
    file.by_ref().take(HEAD_LENGTH as u64).read_to_end(&mut bytes).map_err(read)?;
    signature::recognise(&bytes, path)?;
    file.read_to_end(&mut bytes).map_err(read)?;
    decode_bytes(&bytes, path, limits)
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
        let format = signature::format_name(format);
        return Err(ImageError::Truncated { path: name.to_owned(), format, reason });
    }
    // Decoders meet damaged files by the thousand; where one of them panics, the run goes on.
    catch_unwind(AssertUnwindSafe(|| decode_as(format, bytes, name, limits))).unwrap_or_else(|_| {
        Err(decode_error(name, format, "its decoder failed on the damaged content"))
    })
}

fn decode_as(
    format: ImageFormat,
    bytes: &[u8],
    name: &Path,
    limits: &DecodeLimits,
) -> Result<RgbImage, ImageError> {
    let failed = |error: ::image::ImageError| decode_error(name, format, &error.to_string());

    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allocation = Limits::no_limits();
    // The widest pixel is four floats; beside the pixels decoders keep tables and metadata.
    allocation.max_alloc = Some(limits.max_pixels.saturating_mul(16).saturating_add(64 << 20));
    reader.limits(allocation);
    let mut decoder = reader.into_decoder().map_err(failed)?;

    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        let format = signature::format_name(format);
        return Err(ImageError::Empty { path: name.to_owned(), format, width, height });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        let max_pixels = limits.max_pixels;
        return Err(ImageError::TooLarge { path: name.to_owned(), width, height, max_pixels });
    }
    // Damaged metadata is no reason to refuse sound pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(failed)?;

    let alpha = match format {
        ImageFormat::OpenExr => Alpha::Premultiplied,
        _ => Alpha::Straight,
    };
    let mut upright = DynamicImage::ImageRgb8(colour::to_rgb8(decoded, alpha));
    upright.apply_orientation(orientation);
    Ok(upright.into_rgb8())
}

fn decode_error(name: &Path, format: ImageFormat, reason: &str) -> ImageError {
    let format = signature::format_name(format);
    ImageError::Decode { path: name.to_owned(), format, reason: reason.to_owned() }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
