//! Where the grid of patches lies on the photo.

use crate::image::PreprocessConfig;

/// The part of a photo of this size that the grid covers, beyond the photo where it was padded.
pub(super) fn grid_region(preprocess: &PreprocessConfig, (width, height): (u32, u32)) -> [f32; 4] {
    let placement = preprocess.placement(width, height);
    let (visible, covered) = (placement.visible(), placement.covered());
    let across = visible.width() / covered.width().max(f64::MIN_POSITIVE);
    let down = visible.height() / covered.height().max(f64::MIN_POSITIVE);
    let (left, top) = (visible.left - covered.left * across, visible.top - covered.top * down);
    let (right, bottom) =
        (left + preprocess.width as f64 * across, top + preprocess.height as f64 * down);
    [left, top, right, bottom].map(|edge| edge as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ResizeMode;

    #[test]
    fn the_grid_lies_on_the_photo_as_it_was_cropped_or_padded() {
        let with = |resize| PreprocessConfig {
            height: 100,
            width: 100,
            resize,
            ..PreprocessConfig::default()
        };
        let region = |resize| grid_region(&with(resize), (400, 200));
        assert_eq!(region(ResizeMode::Squash), [0.0, 0.0, 400.0, 200.0]);
        assert_eq!(region(ResizeMode::Crop), [100.0, 0.0, 300.0, 200.0]);
        // A quarter of the input above the photo is padding, and one below it.
        assert_eq!(region(ResizeMode::Pad), [0.0, -100.0, 400.0, 300.0]);
    }
}
