//! How many scenes, how large and how hard.
use serde::{Deserialize, Serialize};

use super::error::ShapesError;
use super::scene::{Colour, Shape, Size};

/// Settings of a shapes data set. The same settings give the same bytes on every machine.
///
/// `Default` is the normal difficulty: a captioner of one million parameters learns it in minutes.
/// [`ShapesConfig::hard`] has more colours, shapes and sizes, captions that name objects in any order,
/// objects close together, strong texture and noise, and specks that no caption mentions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapesConfig {
    /// Width and height of each image in pixels, 32 to 1024. All sizes scale with it.
    pub image_size: u32,
    /// Number of images over all splits, 3 to 10,000,000.
    pub images: usize,
    /// Seed of everything that is drawn by chance.
    pub seed: u64,
    /// Number of images for validation. `None`: a twentieth, but at least 500 from 6,000 images on.
    pub validation_images: Option<usize>,
    /// Number of images for testing. `None`: as for validation.
    pub test_images: Option<usize>,
    /// Most objects in a scene, 1 to 3.
    pub max_objects: usize,
    /// How many of the 11 colours are used, in the order of [`Colour::ALL`].
    pub num_colours: usize,
    /// How many of the 7 shapes are used, in the order of [`Shape::ALL`].
    pub num_shapes: usize,
    /// 1 to 3: only large; small and large; small, medium and large.
    pub num_sizes: usize,
    /// Whether captions name the larger object first, and of one size the one nearer to the middle;
    /// otherwise in any order.
    pub salient_first: bool,
    /// Least distance between the boxes of two objects, in 64ths of the image size, 1 to 8.
    pub gap: u32,
    /// Strength of the background's stripes, gradients and blotches in grey levels, 0 to 60.
    pub texture: u8,
    /// Strength of the noise on every pixel in grey levels, 0 to 60.
    pub noise: u8,
    /// How far an object's colour may stray from its name's, in levels a channel, 0 to 25.
    pub colour_jitter: u8,
    /// Most coloured specks a scene may have besides its objects, 0 to 50.
    pub distractors: usize,
}

impl Default for ShapesConfig {
    fn default() -> Self {
        Self {
            image_size: 64,
            images: 20_000,
            seed: 1,
            validation_images: None,
            test_images: None,
            max_objects: 3,
            num_colours: 8,
            num_shapes: 5,
            num_sizes: 2,
            salient_first: true,
            gap: 4,
            texture: 14,
            noise: 6,
            colour_jitter: 10,
            distractors: 0,
        }
    }
}

/// Number of images in each split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitCounts {
    /// Images to train on.
    pub train: usize,
    /// Images for choosing settings and checkpoints.
    pub validation: usize,
    /// Images for the final figures.
    pub test: usize,
}

impl ShapesConfig {
    /// The harder data set.
    pub fn hard() -> Self {
        Self {
            images: 40_000,
            num_colours: Colour::ALL.len(),
            num_shapes: Shape::ALL.len(),
            num_sizes: Size::ALL.len(),
            salient_first: false,
            gap: 2,
            texture: 26,
            noise: 16,
            colour_jitter: 12,
            distractors: 6,
            ..Self::default()
        }
    }

    /// Number of images in each split. What validation and test leave is for training.
    pub fn split_counts(&self) -> SplitCounts {
        let share = (self.images / 20).max(if self.images >= 6000 { 500 } else { 1 });
        let validation = self.validation_images.unwrap_or(share);
        let test = self.test_images.unwrap_or(share);
        let train = self.images.saturating_sub(validation.saturating_add(test));
        SplitCounts { train, validation, test }
    }

    /// Checks every setting against its range.
    ///
    /// # Errors
    /// [`ShapesError::Config`] names the first setting that is out of range.
    pub fn validate(&self) -> Result<(), ShapesError> {
        in_range("image_size", self.image_size as usize, 32, 1024)?;
        in_range("images", self.images, 3, 10_000_000)?;
        in_range("max_objects", self.max_objects, 1, 3)?;
        in_range("num_colours", self.num_colours, 1, Colour::ALL.len())?;
        in_range("num_shapes", self.num_shapes, 1, Shape::ALL.len())?;
        in_range("num_sizes", self.num_sizes, 1, Size::ALL.len())?;
        in_range("gap", self.gap as usize, 1, 8)?;
        in_range("texture", self.texture.into(), 0, 60)?;
        in_range("noise", self.noise.into(), 0, 60)?;
        in_range("colour_jitter", self.colour_jitter.into(), 0, 25)?;
        in_range("distractors", self.distractors, 0, 50)?;
        // No scene holds two objects of one colour and shape, so there must be enough of them.
        if self.num_colours * self.num_shapes < self.max_objects {
            return Err(ShapesError::Config {
                key: "num_colours",
                value: self.num_colours.to_string(),
                expected: format!(
                    "num_colours × num_shapes to be at least max_objects ({})",
                    self.max_objects
                ),
            });
        }
        if self.split_counts().train == 0 {
            let counts = self.split_counts();
            return Err(ShapesError::Config {
                key: "images",
                value: self.images.to_string(),
                expected: format!(
                    "more than the {} of validation and {} of test, so that some are left to train on",
                    counts.validation, counts.test
                ),
            });
        }
        Ok(())
    }
}

fn in_range(key: &'static str, value: usize, low: usize, high: usize) -> Result<(), ShapesError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ShapesError::Config {
        key,
        value: value.to_string(),
        expected: format!("a whole number from {low} to {high}"),
    })
}
