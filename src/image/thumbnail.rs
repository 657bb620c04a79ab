//! Small JPEG files of photos, for pages that show many.

use ::image::codecs::jpeg::JpegEncoder;
use ::image::{ImageError, RgbImage};

use super::resize::{ResizeFilter, ResizeMode, resize};

/// JPEG's scale of 1 to 100; above this the files grow faster than the pictures get better.
const QUALITY: u8 = 70;

/// A JPEG file and its size in pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// The file.
    pub jpeg: Vec<u8>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// `photo` with no side longer than `longest` pixels; a smaller one keeps its size.
///
/// # Errors
/// An encoder that cannot encode it, as where it has no pixels.
pub fn thumbnail(photo: &RgbImage, longest: u32) -> Result<Thumbnail, ImageError> {
    let (width, height) = fitted(photo.dimensions(), longest);
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
    if (width, height) == photo.dimensions() {
        encoder.encode_image(photo)?;
    } else {
        let (mode, filter) = (ResizeMode::Squash, ResizeFilter::Bilinear);
        encoder.encode_image(&resize(photo, (width, height), None, mode, filter, [0; 3]))?;
    }
    Ok(Thumbnail { jpeg, width, height })
}

fn fitted((width, height): (u32, u32), longest: u32) -> (u32, u32) {
    let longer = width.max(height);
    if longer <= longest {
        return (width, height);
    }
    let (longest, longer) = (u64::from(longest), u64::from(longer));
    // Of a very long photo the shorter side would have no pixel left.
    let scaled = |side: u32| ((u64::from(side) * longest + longer / 2) / longer).max(1) as u32;
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ::image::Rgb;

    use super::*;
    use crate::image::{DecodeLimits, decode_bytes};

    #[test]
    fn the_longer_side_fits_and_the_shape_stays() {
        assert_eq!(fitted((640, 480), 256), (256, 192));
        assert_eq!(fitted((480, 640), 256), (192, 256));
        assert_eq!(fitted((200, 100), 256), (200, 100));
        assert_eq!(fitted((10_000, 1), 256), (256, 1));
        assert_eq!(fitted((u32::MAX, u32::MAX), 256), (256, 256));
    }

    #[test]
    fn a_thumbnail_is_a_jpeg_that_looks_like_the_photo() {
        let photo = RgbImage::from_fn(600, 300, |x, _| {
            if x < 300 { Rgb([200, 40, 40]) } else { Rgb([40, 40, 200]) }
        });
        let small = thumbnail(&photo, 100).unwrap();
        assert_eq!((small.width, small.height), (100, 50));
        let seen = decode_bytes(&small.jpeg, Path::new("x"), &DecodeLimits::default()).unwrap();
        assert_eq!(seen.dimensions(), (100, 50));
        for (x, colour) in [(10, [200, 40, 40]), (90, [40, 40, 200])] {
            let found = seen.get_pixel(x, 25).0;
            let near = found.iter().zip(colour).all(|(a, b): (&u8, u8)| a.abs_diff(b) < 12);
            assert!(near, "{found:?} for {colour:?}");
        }
        assert!(thumbnail(&RgbImage::new(0, 0), 100).is_err());
    }
}
