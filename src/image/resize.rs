//! Resizing as Pillow does it, to the bit: antialiased convolution, 8 bits in, 8 bits out.
//!
//! Pillow to version 12, which the published checkpoints were trained with. Pillow 13 takes the
//! columns first where the height shrinks much more than the width.

use ::image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

use super::resample::{Window, resample};

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
    /// The nearest pixel, not antialiased.
    Nearest,
    /// The mean of the pixels that one covers, support 1/2.
    Box,
    /// Hamming-windowed sinc, support 1.
    Hamming,
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
    /// The same as a part of the scaled photo.
    window: Window,
}

impl Plan {
    /// The plan for a `source` of (width, height) pixels and a `target` of (width, height). The mode
    /// scales the photo to `crop_from` where it is given, whose middle is then taken. No side may be
    /// zero, nor `crop_from` smaller than `target`.
    pub(super) fn new(
        mode: ResizeMode,
        source: (u32, u32),
        target: (u32, u32),
        crop_from: Option<(u32, u32)>,
    ) -> Self {
        let scale_to = crop_from.unwrap_or(target);
        let wide = u64::from(source.0) * u64::from(scale_to.1);
        let tall = u64::from(source.1) * u64::from(scale_to.0);
        let source_is_wider = wide >= tall;
        // The size to which the whole photo is scaled; `Crop` rounds the longer side down, as
        // torchvision does, `Pad` rounds to the nearest pixel.
        let scaled = match (mode, source_is_wider) {
            (ResizeMode::Squash, _) => (scale_to.0.into(), scale_to.1.into()),
            (ResizeMode::Crop, true) => (wide / u64::from(source.1), scale_to.1.into()),
            (ResizeMode::Crop, false) => (scale_to.0.into(), tall / u64::from(source.0)),
            (ResizeMode::Pad, true) => {
                (scale_to.0.into(), divide_to_nearest(tall, source.0).max(1))
            }
            (ResizeMode::Pad, false) => {
                (divide_to_nearest(wide, source.1).max(1), scale_to.1.into())
            }
        };
        Self {
            horizontal: Span::new(source.0, scaled.0, target.0, crop_from.is_some()),
            vertical: Span::new(source.1, scaled.1, target.1, crop_from.is_some()),
        }
    }
}

impl Span {
    fn new(source: u32, scaled: u64, target: u32, round_down: bool) -> Self {
        let (whole, target_length) = (f64::from(source), u64::from(target));
        if scaled <= target_length {
            let inner = scaled as u32;
            let target_start = (target - inner) / 2;
            return Self {
                source_start: 0.0,
                source_length: whole,
                target_start,
                target_length: inner,
                window: Window { source, scaled, start: 0, length: inner },
            };
        }
        let overhang = scaled - target_length;
        // Halves go to the even side, as Python's `round` takes them in torchvision; transformers
        // rounds down where it crops what it has resized.
        let cut = overhang / 2 + u64::from(overhang % 4 == 3 && !round_down);
        let source_start = whole * cut as f64 / scaled as f64;
        let source_length = (whole * f64::from(target) / scaled as f64).min(whole - source_start);
        Self {
            source_start,
            source_length,
            target_start: 0,
            target_length: target,
            window: Window { source, scaled, start: cut, length: target },
        }
    }
}

fn divide_to_nearest(dividend: u64, divisor: u32) -> u64 {
    let divisor = u64::from(divisor);
    (dividend + divisor / 2) / divisor
}

/// `source` as an image of (width, height) = `target` pixels; with `crop_from`, which is not
/// smaller, the middle of an image of that size. What [`ResizeMode::Pad`] leaves over takes the
/// colour `fill`; a source without pixels is all `fill`.
pub fn resize(
    source: &RgbImage,
    target: (u32, u32),
    crop_from: Option<(u32, u32)>,
    mode: ResizeMode,
    filter: ResizeFilter,
    fill: [u8; 3],
) -> RgbImage {
    let (width, height) = source.dimensions();
    if width == 0 || height == 0 || target.0 == 0 || target.1 == 0 {
        return RgbImage::from_pixel(target.0, target.1, Rgb(fill));
    }
    let Plan { horizontal, vertical } = Plan::new(mode, (width, height), target, crop_from);
    let pixels = resample(source.as_raw(), horizontal.window, vertical.window, filter);
    let inner = RgbImage::from_raw(horizontal.target_length, vertical.target_length, pixels)
        .expect("as many pixels as the windows are long");
    if inner.dimensions() == target {
        return inner;
    }
    let mut padded = RgbImage::from_pixel(target.0, target.1, Rgb(fill));
    let (left, top) = (horizontal.target_start, vertical.target_start);
    ::image::imageops::replace(&mut padded, &inner, left.into(), top.into());
    padded
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn fixture(name: &str) -> RgbImage {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/testdata");
        ::image::open(folder.join(name)).unwrap().into_rgb8()
    }

    /// The same, to the bit.
    fn assert_as_pillow(ours: &RgbImage, name: &str) {
        let pillow = fixture(name);
        assert_eq!(ours.dimensions(), pillow.dimensions(), "{name}");
        let differ = ours.as_raw().iter().zip(pillow.as_raw()).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 0, "{name}");
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
                let ours =
                    resize(&source, (width, height), None, ResizeMode::Squash, filter, [0; 3]);
                assert_as_pillow(&ours, &format!("squash_{name}_{width}x{height}.png"));
            }
            let ours = resize(&source, (24, 24), None, ResizeMode::Crop, filter, [0; 3]);
            assert_as_pillow(&ours, &format!("crop_{name}_24x24.png"));
        }
    }

    #[test]
    fn crop_rounds_as_torchvision() {
        // Scaled to 34 x 24: (34 - 24) / 2 = 5 columns go on either side.
        let span = Plan::new(ResizeMode::Crop, (61, 43), (24, 24), None).horizontal;
        assert_eq!(span.source_start, 61.0 * 5.0 / 34.0);
        assert_eq!(span.source_length, 61.0 * 24.0 / 34.0);
        // round(0.5) = 0, round(1.5) = 2, round(2.5) = 2, round(3.5) = 4
        for (overhang, cut) in [(1, 0.0), (2, 1.0), (3, 2.0), (5, 2.0), (7, 4.0)] {
            let span = Plan::new(ResizeMode::Crop, (24 + overhang, 24), (24, 24), None).horizontal;
            assert_eq!(span.source_start, cut, "{overhang}");
        }
    }

    #[test]
    fn pad_centres_the_whole_photo() {
        let red = RgbImage::from_pixel(40, 20, Rgb([200, 0, 0]));
        let padded =
            resize(&red, (16, 16), None, ResizeMode::Pad, ResizeFilter::Bicubic, [1, 2, 3]);
        for (_, y, pixel) in padded.enumerate_pixels() {
            let expected = if (4..12).contains(&y) { [200, 0, 0] } else { [1, 2, 3] };
            assert_eq!(pixel.0, expected, "row {y}");
        }
        let tall = resize(
            &RgbImage::from_pixel(10, 30, Rgb([9; 3])),
            (12, 12),
            None,
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
                    let resized = resize(&source, target, None, mode, ResizeFilter::Bicubic, fill);
                    assert_eq!(resized.dimensions(), target);
                    let flat = resized.pixels().all(|pixel| pixel.0 == fill);
                    assert!(flat, "{width} x {height} to {target:?} by {mode:?}");
                }
            }
        }
        let nothing = RgbImage::new(0, 5);
        let filled =
            resize(&nothing, (2, 2), None, ResizeMode::Crop, ResizeFilter::Bicubic, [5; 3]);
        assert_eq!(filled.as_raw(), &vec![5; 12]);
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let source = fixture("resize_source.png");
        for mode in [ResizeMode::Squash, ResizeMode::Crop, ResizeMode::Pad] {
            assert_eq!(
                resize(&source, (61, 43), None, mode, ResizeFilter::Lanczos, [0; 3]),
                source
            );
        }
    }

    #[test]
    fn random_images_of_many_sizes_are_what_pillow_makes_of_them() {
        let mut checked = 0;
        for line in include_str!("testdata/resize_cases.txt").lines() {
            if line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| fields[at].parse::<u32>().unwrap();
            let filter = match fields[0] {
                "bilinear" => ResizeFilter::Bilinear,
                "bicubic" => ResizeFilter::Bicubic,
                "nearest" => ResizeFilter::Nearest,
                "box" => ResizeFilter::Box,
                "hamming" => ResizeFilter::Hamming,
                _ => ResizeFilter::Lanczos,
            };
            let source = noise(number(2), number(3));
            let (scaled, target) = ((number(4), number(5)), (number(6), number(7)));
            let (mode, crop_from) = match fields[1] {
                "squash" => (ResizeMode::Squash, (scaled != target).then_some(scaled)),
                "shortest_edge" => (ResizeMode::Crop, Some(scaled)),
                _ => (ResizeMode::Crop, None),
            };
            let ours = resize(&source, target, crop_from, mode, filter, [0; 3]);
            assert_eq!(format!("{:016x}", hash(ours.as_raw())), fields[8], "{line}");
            checked += 1;
        }
        assert!(checked > 200, "{checked}");
    }

    /// The same as in `make_resize_cases.py`.
    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = width * 65_536 + height;
        let pixels = (0..width * height * 3).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Black and white often, so that overshoot is clipped.
            match state >> 30 {
                0 => 255 * (state >> 29 & 1) as u8,
                _ => (state >> 16) as u8,
            }
        });
        RgbImage::from_raw(width, height, pixels.collect()).unwrap()
    }

    /// FNV-1a.
    fn hash(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    }
}
