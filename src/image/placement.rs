//! Where a pixel of the model's input lies in the photo, and back.

use serde::{Deserialize, Serialize};

use super::resize::{Plan, ResizeMode, Span};

/// A rectangle in pixels: x grows to the right, y downwards, and pixel (x, y) covers the square from
/// (x, y) to (x + 1, y + 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rectangle {
    /// Left edge.
    pub left: f64,
    /// Top edge.
    pub top: f64,
    /// Right edge, not below `left`.
    pub right: f64,
    /// Bottom edge, not below `top`.
    pub bottom: f64,
}

impl Rectangle {
    /// A rectangle from its edges.
    pub fn new(left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self { left, top, right, bottom }
    }

    /// Width in pixels.
    pub fn width(&self) -> f64 {
        self.right - self.left
    }

    /// Height in pixels.
    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }

    /// Area in square pixels.
    pub fn area(&self) -> f64 {
        self.width() * self.height()
    }
}

/// How a photo lies in the model's input: rectangles go from the one to the other and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    horizontal: Axis,
    vertical: Axis,
}

/// One axis: photo = (input - offset) * scale.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    /// Photo pixels an input pixel.
    scale: f64,
    /// The photo's first edge in input pixels: positive after padding, negative after a crop.
    offset: f64,
    source: f64,
    input: f64,
}

impl Placement {
    /// The placement of a photo of (width, height) = `source` pixels in an input of (width, height)
    /// = `input` pixels, which with `crop_from` is the middle of an image of that size. A side of
    /// zero counts as one.
    pub fn new(
        mode: ResizeMode,
        source: (u32, u32),
        input: (u32, u32),
        crop_from: Option<(u32, u32)>,
    ) -> Self {
        let source = (source.0.max(1), source.1.max(1));
        let input = (input.0.max(1), input.1.max(1));
        let plan = Plan::new(mode, source, input, crop_from);
        Self {
            horizontal: Axis::new(&plan.horizontal, source.0, input.0),
            vertical: Axis::new(&plan.vertical, source.1, input.1),
        }
    }

    /// The part of the photo that a rectangle of the model's input shows. Padding is no part of it:
    /// a rectangle in the padding becomes one without area, on the photo's edge.
    pub fn to_source(&self, input: Rectangle) -> Rectangle {
        Rectangle {
            left: self.horizontal.to_source(input.left),
            top: self.vertical.to_source(input.top),
            right: self.horizontal.to_source(input.right),
            bottom: self.vertical.to_source(input.bottom),
        }
    }

    /// The part of the model's input that shows a rectangle of the photo. What was cropped off is
    /// no part of it: a rectangle there becomes one without area, on the input's edge.
    pub fn to_input(&self, source: Rectangle) -> Rectangle {
        Rectangle {
            left: self.horizontal.to_input(source.left),
            top: self.vertical.to_input(source.top),
            right: self.horizontal.to_input(source.right),
            bottom: self.vertical.to_input(source.bottom),
        }
    }

    /// The part of the photo that the model sees at all.
    pub fn visible(&self) -> Rectangle {
        self.to_source(Rectangle::new(0.0, 0.0, self.horizontal.input, self.vertical.input))
    }

    /// The part of the model's input that is photo, not padding.
    pub fn covered(&self) -> Rectangle {
        self.to_input(Rectangle::new(0.0, 0.0, self.horizontal.source, self.vertical.source))
    }
}

impl Axis {
    fn new(span: &Span, source: u32, input: u32) -> Self {
        let scale = span.source_length / f64::from(span.target_length);
        let offset = f64::from(span.target_start) - span.source_start / scale;
        Self { scale, offset, source: source.into(), input: input.into() }
    }

    fn to_source(self, at: f64) -> f64 {
        ((at - self.offset) * self.scale).clamp(0.0, self.source)
    }

    fn to_input(self, at: f64) -> f64 {
        (at / self.scale + self.offset).clamp(0.0, self.input)
    }
}

#[cfg(test)]
mod tests {
    use ::image::{Rgb, RgbImage};

    use super::super::resize::{ResizeFilter, resize};
    use super::*;

    const MODES: [ResizeMode; 3] = [ResizeMode::Squash, ResizeMode::Crop, ResizeMode::Pad];

    fn close(a: Rectangle, b: Rectangle, tolerance: f64) -> bool {
        let differences = [a.left - b.left, a.top - b.top, a.right - b.right, a.bottom - b.bottom];
        differences.iter().all(|difference| difference.abs() <= tolerance)
    }

    #[test]
    fn worked_examples() {
        // 400 x 200 onto 100 x 100.
        let patch = Rectangle::new(0.0, 25.0, 25.0, 50.0);
        let squash = Placement::new(ResizeMode::Squash, (400, 200), (100, 100), None);
        assert_eq!(squash.to_source(patch), Rectangle::new(0.0, 50.0, 100.0, 100.0));
        // Scaled to 200 x 100, 50 cut off either end: input x = 0 is photo x = 100.
        let crop = Placement::new(ResizeMode::Crop, (400, 200), (100, 100), None);
        assert_eq!(crop.to_source(patch), Rectangle::new(100.0, 50.0, 150.0, 100.0));
        assert_eq!(crop.visible(), Rectangle::new(100.0, 0.0, 300.0, 200.0));
        // Scaled to 300 x 150, of which 100 x 100 are cut out of the middle.
        let middle = Placement::new(ResizeMode::Crop, (400, 200), (100, 100), Some((150, 150)));
        let seen = Rectangle::new(400.0 / 3.0, 100.0 / 3.0, 800.0 / 3.0, 500.0 / 3.0);
        assert!(close(middle.visible(), seen, 1e-9), "{:?}", middle.visible());
        // Scaled to 100 x 50, 25 rows of padding above and below.
        let pad = Placement::new(ResizeMode::Pad, (400, 200), (100, 100), None);
        assert_eq!(pad.to_source(patch), Rectangle::new(0.0, 0.0, 100.0, 100.0));
        assert_eq!(pad.covered(), Rectangle::new(0.0, 25.0, 100.0, 75.0));
    }

    #[test]
    fn padding_and_crops_have_no_area() {
        let pad = Placement::new(ResizeMode::Pad, (400, 200), (100, 100), None);
        assert_eq!(pad.to_source(Rectangle::new(0.0, 0.0, 25.0, 25.0)).area(), 0.0);
        let crop = Placement::new(ResizeMode::Crop, (400, 200), (100, 100), None);
        assert_eq!(crop.to_input(Rectangle::new(0.0, 0.0, 90.0, 200.0)).area(), 0.0);
    }

    #[test]
    fn there_and_back() {
        for mode in MODES {
            for source in [(640, 480), (333, 1000), (17, 16), (224, 224), (5000, 40)] {
                let placement = Placement::new(mode, source, (224, 160), None);
                let covered = placement.covered();
                let (width, height) = (covered.width(), covered.height());
                let inner = Rectangle::new(
                    covered.left + width * 0.25,
                    covered.top + height * 0.5,
                    covered.left + width * 0.75,
                    covered.bottom,
                );
                let back = placement.to_input(placement.to_source(inner));
                assert!(close(back, inner, 1e-9), "{mode:?} {source:?}: {back:?} {inner:?}");
                let visible = placement.visible();
                let back = placement.to_source(placement.to_input(visible));
                assert!(close(back, visible, 1e-9), "{mode:?} {source:?}: {back:?} {visible:?}");
            }
        }
    }

    #[test]
    fn a_mark_on_the_photo_is_found_where_the_placement_says() {
        for mode in MODES {
            for (width, height) in [(600, 400), (400, 600), (500, 490)] {
                let mark = Rectangle::new(260.0, 250.0, 300.0, 310.0);
                let mut photo = RgbImage::new(width, height);
                for (x, y, pixel) in photo.enumerate_pixels_mut() {
                    if (260..300).contains(&x) && (250..310).contains(&y) {
                        *pixel = Rgb([255; 3]);
                    }
                }
                let input = resize(&photo, (100, 80), None, mode, ResizeFilter::Bilinear, [0; 3]);
                let bright: Vec<(u32, u32)> = input
                    .enumerate_pixels()
                    .filter(|(_, _, pixel)| pixel.0[0] > 127)
                    .map(|(x, y, _)| (x, y))
                    .collect();
                let seen = Rectangle {
                    left: bright.iter().map(|at| at.0).min().unwrap().into(),
                    top: bright.iter().map(|at| at.1).min().unwrap().into(),
                    right: (bright.iter().map(|at| at.0).max().unwrap() + 1).into(),
                    bottom: (bright.iter().map(|at| at.1).max().unwrap() + 1).into(),
                };
                let placement = Placement::new(mode, (width, height), (100, 80), None);
                let expected = placement.to_input(mark);
                assert!(close(seen, expected, 0.51), "{mode:?}: {seen:?} {expected:?}");
                let found = placement.to_source(seen);
                // Half an input pixel is at most 3.75 photo pixels here.
                assert!(close(found, mark, 3.8), "{mode:?}: {found:?} {mark:?}");
            }
        }
    }
}
