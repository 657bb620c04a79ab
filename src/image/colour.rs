//! Any pixel type to 8-bit RGB.

use ::image::{DynamicImage, RgbImage};

/// How the colour of a half-transparent pixel is stored.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Alpha {
    /// The colour as it is: PNG, WebP, TIFF and most others.
    Straight,
    /// The colour already multiplied by its alpha: OpenEXR.
    Premultiplied,
}

/// A sample as it is stored.
pub(super) trait Sample: Copy {
    /// In 8 bits, over white.
    fn over_white(self, alpha: Self) -> u8;
    /// Of an image without transparency.
    const OPAQUE: Self;
}

impl Sample for u8 {
    const OPAQUE: Self = Self::MAX;

    fn over_white(self, alpha: Self) -> u8 {
        over_white_8(self, alpha)
    }
}

impl Sample for u16 {
    const OPAQUE: Self = Self::MAX;

    fn over_white(self, alpha: Self) -> u8 {
        over_white_16(self, alpha)
    }
}

/// Writes a row of 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha) samples a pixel as 8-bit
/// RGB over white, and returns how many bytes that are.
pub(super) fn row_to_rgb8<T: Sample>(row: &[T], channels: usize, rgb: &mut [u8]) -> usize {
    let (pixels, _) = rgb.as_chunks_mut::<3>();
    let mut count = 0;
    for (pixel, samples) in pixels.iter_mut().zip(row.chunks_exact(channels)) {
        *pixel = match *samples {
            [grey] => [grey.over_white(T::OPAQUE); 3],
            [grey, alpha] => [grey.over_white(alpha); 3],
            [r, g, b] => [r, g, b].map(|value| value.over_white(T::OPAQUE)),
            [r, g, b, alpha, ..] => [r, g, b].map(|value| value.over_white(alpha)),
            [] => [0; 3],
        };
        count += 3;
    }
    count
}

/// Without its alpha where that is zero everywhere: many programs write 32-bit BMP, TGA and ICO files
/// and leave the fourth byte empty, and every viewer shows them whole.
pub(super) fn without_unused_alpha(image: DynamicImage) -> DynamicImage {
    match image {
        DynamicImage::ImageRgba8(image) if image.pixels().all(|pixel| pixel.0[3] == 0) => {
            DynamicImage::ImageRgb8(DynamicImage::ImageRgba8(image).into_rgb8())
        }
        DynamicImage::ImageLumaA8(image) if image.pixels().all(|pixel| pixel.0[1] == 0) => {
            DynamicImage::ImageLuma8(DynamicImage::ImageLumaA8(image).into_luma8())
        }
        other => other,
    }
}

/// One of red, green and blue of an ink (255 = all of it) with black over it.
pub(super) fn of_ink(ink: u8, black: u8) -> u8 {
    ((u32::from(255 - ink) * u32::from(255 - black) + 127) / 255) as u8
}

/// `image` in 8 bits, composited over white where it is transparent. 16-bit values are scaled by
/// 255/65535 and rounded once, floats are clamped to 0..1, NaN is black.
pub(super) fn to_rgb8(image: DynamicImage, alpha: Alpha) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma8(image) => {
            map_pixels(width, height, image.as_raw(), |&[grey]: &[u8; 1]| [grey; 3])
        }
        DynamicImage::ImageLumaA8(image) => {
            map_pixels(width, height, image.as_raw(), |&[grey, a]: &[u8; 2]| {
                [over_white_8(grey, a); 3]
            })
        }
        DynamicImage::ImageRgba8(image) => {
            map_pixels(width, height, image.as_raw(), |&[r, g, b, a]: &[u8; 4]| {
                [r, g, b].map(|value| over_white_8(value, a))
            })
        }
        DynamicImage::ImageLuma16(image) => {
            map_pixels(width, height, image.as_raw(), |&[grey]: &[u16; 1]| {
                [over_white_16(grey, u16::MAX); 3]
            })
        }
        DynamicImage::ImageLumaA16(image) => {
            map_pixels(width, height, image.as_raw(), |&[grey, a]: &[u16; 2]| {
                [over_white_16(grey, a); 3]
            })
        }
        DynamicImage::ImageRgb16(image) => {
            map_pixels(width, height, image.as_raw(), |rgb: &[u16; 3]| {
                rgb.map(|value| over_white_16(value, u16::MAX))
            })
        }
        DynamicImage::ImageRgba16(image) => {
            map_pixels(width, height, image.as_raw(), |&[r, g, b, a]: &[u16; 4]| {
                [r, g, b].map(|value| over_white_16(value, a))
            })
        }
        DynamicImage::ImageRgb32F(image) => {
            map_pixels(width, height, image.as_raw(), |rgb: &[f32; 3]| rgb.map(float_to_8))
        }
        // Also what pixel types a later version of the image crate may bring.
        other => {
            map_pixels(width, height, other.into_rgba32f().as_raw(), |&[r, g, b, a]: &[f32; 4]| {
                let a = a.clamp(0.0, 1.0);
                [r, g, b].map(|value| match alpha {
                    Alpha::Straight => float_to_8(value.clamp(0.0, 1.0) * a + (1.0 - a)),
                    Alpha::Premultiplied => float_to_8(value + (1.0 - a)),
                })
            })
        }
    }
}

fn map_pixels<T, const CHANNELS: usize>(
    width: u32,
    height: u32,
    samples: &[T],
    pixel: impl Fn(&[T; CHANNELS]) -> [u8; 3],
) -> RgbImage {
    let mut rgb = RgbImage::new(width, height);
    for (target, source) in rgb.pixels_mut().zip(samples.as_chunks::<CHANNELS>().0) {
        target.0 = pixel(source);
    }
    rgb
}

pub(super) fn over_white_8(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn over_white_16(value: u16, alpha: u16) -> u8 {
    let (value, alpha) = (u64::from(value), u64::from(alpha));
    // In units of 65535 squared, so that the only rounding is the one to 8 bits.
    let sum = value * alpha + 65535 * (65535 - alpha);
    let unit = 65535 * 257;
    ((sum + unit / 2) / unit) as u8
}

pub(super) fn float_to_8(value: f32) -> u8 {
    // A cast saturates, and takes NaN to 0.
    (value * 255.0 + 0.5) as u8
}
