//! One file for each format, or for those that one library reads: bytes in, pixels as they are stored
//! and what turns them upright out.

mod gif;
mod ico;
mod jpeg;
mod jpeg_codes;
mod jpeg_survey;
mod other;
mod png;
mod raw;
mod tiff;
mod tiff_samples;

use ::image::RgbImage;
use ::image::metadata::Orientation;

use super::budget::Reservation;
use super::decode::DecodeLimits;
use super::signature::Format;

/// Pixels as they are stored (fewer, where they were decoded at a reduced size), and how they are
/// turned upright.
pub(super) struct Stored {
    pub(super) pixels: RgbImage,
    pub(super) orientation: Orientation,
}

impl Stored {
    fn new(pixels: RgbImage, orientation: Option<Orientation>) -> Self {
        Self { pixels, orientation: orientation.unwrap_or(Orientation::NoTransforms) }
    }
}

/// What is wrong, without the name of the file.
#[derive(Debug)]
pub(super) enum Failure {
    Empty {
        width: u32,
        height: u32,
    },
    TooLarge {
        width: u32,
        height: u32,
    },
    NeedsMemory {
        width: u32,
        height: u32,
        bytes: u64,
    },
    Truncated(String),
    Damaged(String),
    /// What it is that cannot be read.
    Unsupported(String),
}

impl From<::image::ImageError> for Failure {
    fn from(error: ::image::ImageError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What one decoding may use.
pub(super) struct Job<'a> {
    limits: &'a DecodeLimits,
    /// Bytes of the file, which lie in memory beside the pixels.
    file: u64,
    reservation: Option<Reservation>,
}

impl<'a> Job<'a> {
    pub(super) fn new(limits: &'a DecodeLimits, file: u64) -> Self {
        Self { limits, file, reservation: None }
    }

    /// Whether the image has pixels, and not too many.
    fn check_size(&self, width: u32, height: u32) -> Result<(), Failure> {
        if width == 0 || height == 0 {
            return Err(Failure::Empty { width, height });
        }
        if u64::from(width) * u64::from(height) > self.limits.max_pixels {
            return Err(Failure::TooLarge { width, height });
        }
        Ok(())
    }

    /// Whether decoding that takes this many bytes for a pixel ever has room.
    fn has_room(&self, width: u32, height: u32, bytes_a_pixel: u64) -> bool {
        self.needed(width, height, bytes_a_pixel) <= self.limits.memory.total()
    }

    fn needed(&self, width: u32, height: u32, bytes_a_pixel: u64) -> u64 {
        // Tables, rows and what a library keeps beside the pixels.
        const SMALL_CHANGE: u64 = 4 << 20;
        let pixels = u64::from(width) * u64::from(height);
        pixels.saturating_mul(bytes_a_pixel).saturating_add(self.file + SMALL_CHANGE)
    }

    /// To be called once the size is known and before pixels are allocated: checks it and takes the
    /// memory from the budget, waiting for other images to be done with theirs.
    fn admit(&mut self, width: u32, height: u32, bytes_a_pixel: u64) -> Result<(), Failure> {
        self.check_size(width, height)?;
        let bytes = self.needed(width, height, bytes_a_pixel);
        self.reserve(width, height, bytes)
    }

    fn reserve(&mut self, width: u32, height: u32, bytes: u64) -> Result<(), Failure> {
        // Who waits holds nothing.
        self.reservation = None;
        self.reservation = self.limits.memory.reserve(bytes);
        match self.reservation {
            Some(_) => Ok(()),
            None => Err(Failure::NeedsMemory { width, height, bytes }),
        }
    }
}

/// Decodes the first image of a file.
pub(super) fn decode(format: Format, bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    match format {
        Format::Jpeg => jpeg::decode(bytes, job),
        Format::Png => png::decode(bytes, job),
        Format::Gif => gif::decode(bytes, job),
        Format::Ico => ico::decode(bytes, job),
        Format::Tiff => tiff::decode(bytes, job),
        Format::Raw => raw::decode(bytes, job),
        other => other::decode(other, bytes, job),
    }
}
