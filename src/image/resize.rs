//! Resizing as Pillow does it: antialiased convolution, 8 bits in, 8 bits out.
//!
//! Pillow to version 12, which the published checkpoints were trained with. Pillow 13 takes the
//! columns first where the height shrinks much more than the width.

use ::image::{Rgb, RgbImage};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

/// How a photo of any shape becomes the model's rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// Stretch each side on its own: everything is seen, shapes are distorted.
    Squash,
    /// Cover the rectangle and cut the overhang off both ends, as torchvision's `Resize` and
    /// `CenterCrop`: nothing is distorted, the ends of the longer side are not seen.
    Crop,
    /// Fit into the rectangle and fill the rest: everything is seen, nothing is distorted.
    Pad,
}

/// The resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeFilter {
    /// Triangle, support 1.
    Bilinear,
    /// Catmull-Rom (a = -0.5), support 2.
    Bicubic,
    /// Lanczos, support 3.
    Lanczos,
}

/// Which part of a photo fills which part of the model's input. Resizing and [`Placement`] both
/// follow it, so that a map drawn over the photo lies where the model looked.
///
/// [`Placement`]: super::placement::Placement
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) horizontal: Span,
    pub(super) vertical: Span,
}

/// One axis of a [`Plan`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    /// First photo pixel used; a fraction where a crop begins inside one.
    pub(super) source_start: f64,
    /// Number of photo pixels used.
    pub(super) source_length: f64,
    /// First input pixel covered.
    pub(super) target_start: u32,
    /// Number of input pixels covered.
    pub(super) target_length: u32,
}

impl Plan {
    /// The plan for a `source` of (width, height) pixels and a `target` of (width, height). No side
    /// may be zero.
    pub(super) fn new(mode: ResizeMode, source: (u32, u32), target: (u32, u32)) -> Self {
        let wide = u64::from(source.0) * u64::from(target.1);
        let tall = u64::from(source.1) * u64::from(target.0);
        let source_is_wider = wide >= tall;
        // The size to which the whole photo is scaled; `Crop` rounds the longer side down, as
        // torchvision does, `Pad` rounds to the nearest pixel.
        let scaled = match (mode, source_is_wider) {
            (ResizeMode::Squash, _) => (target.0.into(), target.1.into()),
            (ResizeMode::Crop, true) => (wide / u64::from(source.1), target.1.into()),
            (ResizeMode::Crop, false) => (target.0.into(), tall / u64::from(source.0)),
            (ResizeMode::Pad, true) => (target.0.into(), divide_to_nearest(tall, source.0).max(1)),
            (ResizeMode::Pad, false) => (divide_to_nearest(wide, source.1).max(1), target.1.into()),
        };
        Self {
            horizontal: Span::new(source.0, scaled.0, target.0),
            vertical: Span::new(source.1, scaled.1, target.1),
        }
    }
}

impl Span {
    fn new(source: u32, scaled: u64, target: u32) -> Self {
        let (whole, target_length) = (f64::from(source), u64::from(target));
        if scaled <= target_length {
            let inner = scaled as u32;
            let target_start = (target - inner) / 2;
            return Self {
                source_start: 0.0,
                source_length: whole,
                target_start,
                target_length: inner,
            };
        }
        let overhang = scaled - target_length;
        // Halves go to the even side, as Python's `round` takes them in torchvision.
        let cut = overhang / 2 + u64::from(overhang % 4 == 3);
        let source_start = whole * cut as f64 / scaled as f64;
        let source_length = (whole * f64::from(target) / scaled as f64).min(whole - source_start);
        Self { source_start, source_length, target_start: 0, target_length: target }
    }
}

fn divide_to_nearest(dividend: u64, divisor: u32) -> u64 {
    let divisor = u64::from(divisor);
    (dividend + divisor / 2) / divisor
}

/// `source` as an image of (width, height) = `target` pixels. What [`ResizeMode::Pad`] leaves over
/// takes the colour `fill`; a source without pixels is all `fill`.
pub fn resize(
    source: &RgbImage,
    target: (u32, u32),
    mode: ResizeMode,
    filter: ResizeFilter,
    fill: [u8; 3],
) -> RgbImage {
    let (width, height) = source.dimensions();
    if width == 0 || height == 0 || target.0 == 0 || target.1 == 0 {
        return RgbImage::from_pixel(target.0, target.1, Rgb(fill));
    }
    let Plan { horizontal, vertical } = Plan::new(mode, (width, height), target);
    let inner = convolve(source, &horizontal, &vertical, filter);
    if inner.dimensions() == target {
        return inner;
    }
    let mut padded = RgbImage::from_pixel(target.0, target.1, Rgb(fill));
    let (left, top) = (horizontal.target_start, vertical.target_start);
    ::image::imageops::replace(&mut padded, &inner, left.into(), top.into());
    padded
}

/// Scales the part of `source` that the spans name. Only that part is computed, so that a strip a
/// pixel high and 60,000 wide costs no more than any other image.
fn convolve(
    source: &RgbImage,
    horizontal: &Span,
    vertical: &Span,
    filter: ResizeFilter,
) -> RgbImage {
    let (width, height) = (horizontal.target_length, vertical.target_length);
    let source_height = f64::from(source.height());
    // Two calls, because Pillow goes along the rows first and rounds and clips to 8 bits in between;
    // in one call the library goes down the columns first.
    let rows = (horizontal.source_start, 0.0, horizontal.source_length, source_height);
    let columns = (0.0, vertical.source_start, f64::from(width), vertical.source_length);
    pass(source.as_raw(), source.dimensions(), rows, (width, source.height()), filter)
        .and_then(|half| pass(&half, (width, source.height()), columns, (width, height), filter))
        .ok()
        .and_then(|pixels| RgbImage::from_raw(width, height, pixels))
        .expect("a plan's spans lie within the source, and buffers have their image's size")
}

/// One call of the library: the box (left, top, width, height) of `pixels` scaled to `target`.
fn pass(
    pixels: &[u8],
    size: (u32, u32),
    (left, top, width, height): (f64, f64, f64, f64),
    target: (u32, u32),
    filter: ResizeFilter,
) -> Result<Vec<u8>, ResizeError> {
    let source = ImageRef::new(size.0, size.1, pixels, PixelType::U8x3)
        .map_err(|_| ResizeError::PixelTypesAreDifferent)?;
    let filter = match filter {
        ResizeFilter::Bilinear => FilterType::Bilinear,
        ResizeFilter::Bicubic => FilterType::CatmullRom,
        ResizeFilter::Lanczos => FilterType::Lanczos3,
    };
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(filter))
        .crop(left, top, width, height)
        .use_alpha(false);
    let mut scaled = Image::new(target.0, target.1, PixelType::U8x3);
    Resizer::new().resize(&source, &mut scaled, &options)?;
    Ok(scaled.into_vec())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn fixture(name: &str) -> RgbImage {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/testdata");
        ::image::open(folder.join(name)).unwrap().into_rgb8()
    }

    /// Within one step everywhere, and the same for at least 99 of 100 values.
    fn assert_as_pillow(ours: &RgbImage, name: &str) {
        let pillow = fixture(name);
        assert_eq!(ours.dimensions(), pillow.dimensions(), "{name}");
        let steps: Vec<u8> =
            ours.as_raw().iter().zip(pillow.as_raw()).map(|(a, b)| a.abs_diff(*b)).collect();
        let exact = steps.iter().filter(|&&step| step == 0).count() as f64 / steps.len() as f64;
        assert!(steps.iter().all(|&step| step <= 1), "{name}: {:?} steps", steps.iter().max());
        assert!(exact >= 0.99, "{name}: only {exact:.4} exact");
    }

    #[test]
    fn squash_and_crop_are_what_pillow_and_torchvision_make() {
        let source = fixture("resize_source.png");
        let filters = [
            (ResizeFilter::Bilinear, "bilinear"),
            (ResizeFilter::Bicubic, "bicubic"),
            (ResizeFilter::Lanczos, "lanczos"),
        ];
        for (filter, name) in filters {
            for (width, height) in [(24, 20), (70, 30)] {
                let ours = resize(&source, (width, height), ResizeMode::Squash, filter, [0; 3]);
                assert_as_pillow(&ours, &format!("squash_{name}_{width}x{height}.png"));
            }
            let ours = resize(&source, (24, 24), ResizeMode::Crop, filter, [0; 3]);
            assert_as_pillow(&ours, &format!("crop_{name}_24x24.png"));
        }
    }

    #[test]
    fn crop_rounds_as_torchvision() {
        // Scaled to 34 x 24: (34 - 24) / 2 = 5 columns go on either side.
        let span = Plan::new(ResizeMode::Crop, (61, 43), (24, 24)).horizontal;
        assert_eq!(span.source_start, 61.0 * 5.0 / 34.0);
        assert_eq!(span.source_length, 61.0 * 24.0 / 34.0);
        // round(0.5) = 0, round(1.5) = 2, round(2.5) = 2, round(3.5) = 4
        for (overhang, cut) in [(1, 0.0), (2, 1.0), (3, 2.0), (5, 2.0), (7, 4.0)] {
            let span = Plan::new(ResizeMode::Crop, (24 + overhang, 24), (24, 24)).horizontal;
            assert_eq!(span.source_start, cut, "{overhang}");
        }
    }

    #[test]
    fn pad_centres_the_whole_photo() {
        let red = RgbImage::from_pixel(40, 20, Rgb([200, 0, 0]));
        let padded = resize(&red, (16, 16), ResizeMode::Pad, ResizeFilter::Bicubic, [1, 2, 3]);
        for (_, y, pixel) in padded.enumerate_pixels() {
            let expected = if (4..12).contains(&y) { [200, 0, 0] } else { [1, 2, 3] };
            assert_eq!(pixel.0, expected, "row {y}");
        }
        let tall = resize(
            &RgbImage::from_pixel(10, 30, Rgb([9; 3])),
            (12, 12),
            ResizeMode::Pad,
            ResizeFilter::Lanczos,
            [0; 3],
        );
        assert_eq!(tall.pixels().filter(|pixel| pixel.0 == [9; 3]).count(), 4 * 12);
    }

    #[test]
    fn every_shape_can_be_resized() {
        let sizes = [1, 2, 3, 7, 64, 223, 224, 225, 1000];
        let shapes = sizes.iter().flat_map(|&width| sizes.map(|height| (width, height)));
        for (width, height) in shapes.chain([(60_000, 1), (1, 60_000), (60_000, 2)]) {
            let source = RgbImage::from_pixel(width, height, Rgb([70, 80, 90]));
            for mode in [ResizeMode::Squash, ResizeMode::Crop, ResizeMode::Pad] {
                for target in [(16, 16), (7, 20), (1, 1), (31, 3)] {
                    let fill = [70, 80, 90];
                    let resized = resize(&source, target, mode, ResizeFilter::Bicubic, fill);
                    assert_eq!(resized.dimensions(), target);
                    let flat = resized.pixels().all(|pixel| pixel.0 == fill);
                    assert!(flat, "{width} x {height} to {target:?} by {mode:?}");
                }
            }
        }
        let nothing = RgbImage::new(0, 5);
        let filled = resize(&nothing, (2, 2), ResizeMode::Crop, ResizeFilter::Bicubic, [5; 3]);
        assert_eq!(filled.as_raw(), &vec![5; 12]);
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let source = fixture("resize_source.png");
        for mode in [ResizeMode::Squash, ResizeMode::Crop, ResizeMode::Pad] {
            assert_eq!(resize(&source, (61, 43), mode, ResizeFilter::Lanczos, [0; 3]), source);
        }
    }
}
