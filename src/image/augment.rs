//! Random variations of training images: crop, flip, colour.
//!
//! Every draw is made of integer draws, `+ - * /` and `sqrt` (which IEEE 754 rounds exactly), so one
//! seed gives one image on every platform.

use ::image::{RgbImage, imageops};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::error::InvalidSetting;

/// What is varied, and by how much. The default varies nothing.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Least and greatest share of the image's area that a random crop keeps, above 0 and up to 1.
    /// `[1, 1]` crops nothing.
    pub crop_scale: [f32; 2],
    /// Least and greatest width / height of a random crop, 0.1 to 10.
    pub crop_ratio: [f32; 2],
    /// Probability of a mirror image, 0 to 1.
    pub flip: f32,
    /// Brightness, contrast and saturation are each multiplied by a factor from `1 - colour_jitter`
    /// to `1 + colour_jitter`, in random order; 0 to 1, 0 is off.
    pub colour_jitter: f32,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            crop_scale: [1.0, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.0,
            colour_jitter: 0.0,
        }
    }
}

impl AugmentConfig {
    /// Checks every value's range.
    ///
    /// # Errors
    /// The first setting out of its range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        // Each test is written so that NaN fails it.
        let [least, greatest] = self.crop_scale;
        if !(least > 0.0 && least <= greatest && greatest <= 1.0) {
            let expected = "two shares of the area, 0 < least <= greatest <= 1";
            return Err(InvalidSetting::new("crop_scale", self.crop_scale, expected));
        }
        let [least, greatest] = self.crop_ratio;
        if !(least >= 0.1 && least <= greatest && greatest <= 10.0) {
            let expected = "two values of width / height, 0.1 <= least <= greatest <= 10";
            return Err(InvalidSetting::new("crop_ratio", self.crop_ratio, expected));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return Err(InvalidSetting::new("flip", self.flip, "a probability from 0 to 1"));
        }
        if !(0.0..=1.0).contains(&self.colour_jitter) {
            let expected = "a number from 0 to 1";
            return Err(InvalidSetting::new("colour_jitter", self.colour_jitter, expected));
        }
        Ok(())
    }
}

/// A random variation of `image`. A crop keeps the photo's own pixels, so the result has the crop's
/// size; resizing it to the model's input follows.
///
/// Whether the image may be mirrored is the caller's to know: a caption that says left or right
/// would become wrong. The same draws are made either way.
pub fn augment(
    image: &RgbImage,
    config: &AugmentConfig,
    rng: &mut ChaCha8Rng,
    allow_flip: bool,
) -> RgbImage {
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return image.clone();
    }
    let mut varied = if config.crop_scale == [1.0, 1.0] {
        image.clone()
    } else {
        let crop = draw_crop(width, height, config, rng);
        imageops::crop_imm(image, crop.left, crop.top, crop.width, crop.height).to_image()
    };
    if config.flip > 0.0 {
        let flip = unit(rng) < f64::from(config.flip);
        if flip && allow_flip {
            imageops::flip_horizontal_in_place(&mut varied);
        }
    }
    if config.colour_jitter > 0.0 {
        jitter(&mut varied, config.colour_jitter, rng);
    }
    varied
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Crop {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

/// The crop that torchvision's `RandomResizedCrop.get_params` draws: area uniform, ratio uniform in
/// its logarithm, ten attempts, then the largest crop of an allowed ratio from the centre.
fn draw_crop(width: u32, height: u32, config: &AugmentConfig, rng: &mut ChaCha8Rng) -> Crop {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..10 {
        let target = area * uniform(rng, config.crop_scale);
        let ratio = log_uniform(rng, config.crop_ratio);
        let crop_width = (target * ratio).sqrt().round_ties_even() as u32;
        let crop_height = (target / ratio).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            return Crop {
                left: rng.random_range(0..=width - crop_width),
                top: rng.random_range(0..=height - crop_height),
                width: crop_width,
                height: crop_height,
            };
        }
    }
    let ratio = f64::from(width) / f64::from(height);
    let [least, greatest] = config.crop_ratio.map(f64::from);
    let (mut crop_width, mut crop_height) = (width, height);
    if ratio < least {
        crop_height = (f64::from(width) / least).round_ties_even() as u32;
    } else if ratio > greatest {
        crop_width = (f64::from(height) * greatest).round_ties_even() as u32;
    }
    let (crop_width, crop_height) = (crop_width.clamp(1, width), crop_height.clamp(1, height));
    Crop {
        left: (width - crop_width) / 2,
        top: (height - crop_height) / 2,
        width: crop_width,
        height: crop_height,
    }
}

/// Brightness, contrast and saturation, each against what torchvision blends with: black, the mean
/// grey, the pixel's own grey.
fn jitter(image: &mut RgbImage, strength: f32, rng: &mut ChaCha8Rng) {
    let mut steps = [0, 1, 2];
    for last in (1..steps.len()).rev() {
        steps.swap(last, rng.random_range(0..=last as u32) as usize);
    }
    for step in steps {
        let factor = uniform(rng, [(1.0 - strength).max(0.0), 1.0 + strength]) as f32;
        match step {
            0 => blend(image, factor, |_| 0.0),
            1 => {
                let sum: u64 = image.pixels().map(|pixel| u64::from(grey(pixel.0))).sum();
                let count = u64::from(image.width()) * u64::from(image.height());
                let mean = ((sum + count / 2) / count.max(1)) as f32;
                blend(image, factor, |_| mean);
            }
            _ => blend(image, factor, |pixel| f32::from(grey(pixel))),
        }
    }
}

fn blend(image: &mut RgbImage, factor: f32, other: impl Fn([u8; 3]) -> f32) {
    for pixel in image.pixels_mut() {
        let rest = (1.0 - factor) * other(pixel.0);
        pixel.0 = pixel.0.map(|value| (factor * f32::from(value) + rest + 0.5) as u8);
    }
}

/// Luma of ITU-R 601-2 in the integer form Pillow uses.
fn grey([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000;
    (sum >> 16) as u8
}

/// Uniform in 0 (included) to 1 (excluded), 53 bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn uniform(rng: &mut ChaCha8Rng, [least, greatest]: [f32; 2]) -> f64 {
    let (least, greatest) = (f64::from(least), f64::from(greatest));
    least + (greatest - least) * unit(rng)
}

/// Uniform in the logarithm, drawn without one (logarithms differ between platforms): a uniform
/// draw, accepted with a probability that falls as 1 / value.
fn log_uniform(rng: &mut ChaCha8Rng, range: [f32; 2]) -> f64 {
    let mut value = uniform(rng, range);
    // The greatest range, 0.1 to 10, accepts one in twenty; the bound only rules out an endless loop.
    for _ in 0..1000 {
        if unit(rng) * value < f64::from(range[0]) {
            break;
        }
        value = uniform(rng, range);
    }
    value
}

#[cfg(test)]
mod tests {
    use ::image::Rgb;
    use rand::SeedableRng;

    use super::*;

    fn config() -> AugmentConfig {
        AugmentConfig { crop_scale: [0.3, 1.0], ..AugmentConfig::default() }
    }

    /// Every pixel holds its own place.
    fn places(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]))
    }

    #[test]
    fn nothing_is_varied_by_default() {
        let image = places(40, 30);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(augment(&image, &AugmentConfig::default(), &mut rng, true), image);
    }

    #[test]
    fn crops_keep_to_their_ranges_and_reach_all_of_them() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (mut shares, mut ratios, mut lefts) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..4000 {
            let crop = draw_crop(400, 300, &config(), &mut rng);
            assert!(crop.left + crop.width <= 400 && crop.top + crop.height <= 300);
            let (width, height) = (f64::from(crop.width), f64::from(crop.height));
            shares.push(width * height / 120_000.0);
            ratios.push(width / height);
            lefts.push(f64::from(crop.left) / f64::from(400 - crop.width).max(1.0));
        }
        let least = |values: &[f64]| values.iter().copied().fold(f64::MAX, f64::min);
        let greatest = |values: &[f64]| values.iter().copied().fold(f64::MIN, f64::max);
        assert!(least(&shares) > 0.295 && least(&shares) < 0.31, "{}", least(&shares));
        assert!(greatest(&shares) > 0.97 && greatest(&shares) <= 1.0);
        assert!(least(&ratios) > 0.744 && least(&ratios) < 0.76);
        assert!(greatest(&ratios) < 1.341 && greatest(&ratios) > 1.31);
        assert_eq!((least(&lefts), greatest(&lefts)), (0.0, 1.0));
    }

    #[test]
    fn ratios_are_uniform_in_their_logarithm() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let draws = 20_000;
        // As many between 1/4 and 1 as between 1 and 4, and half of those below 1/2.
        let values: Vec<f64> = (0..draws).map(|_| log_uniform(&mut rng, [0.25, 4.0])).collect();
        for (bound, share) in [(0.5, 0.25), (1.0, 0.5), (2.0, 0.75)] {
            let below = values.iter().filter(|&&value| value < bound).count() as f64;
            assert!((below / f64::from(draws) - share).abs() < 0.015, "{bound}: {below}");
        }
        assert!(values.iter().all(|value| (0.25..=4.0).contains(value)));
    }

    #[test]
    fn a_strip_falls_back_to_its_centre() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let whole = AugmentConfig { crop_scale: [0.9, 1.0], ..AugmentConfig::default() };
        let crop = draw_crop(1000, 30, &whole, &mut rng);
        assert_eq!(crop, Crop { left: 480, top: 0, width: 40, height: 30 });
        let crop = draw_crop(30, 1000, &whole, &mut rng);
        assert_eq!(crop, Crop { left: 0, top: 480, width: 30, height: 40 });
        for (width, height) in [(1, 1), (1, 9), (9, 1), (1, 60_000)] {
            let crop = draw_crop(width, height, &config(), &mut rng);
            assert!(crop.width >= 1 && crop.left + crop.width <= width, "{crop:?}");
            assert!(crop.height >= 1 && crop.top + crop.height <= height, "{crop:?}");
        }
    }

    #[test]
    fn flips_mirror_and_only_where_allowed() {
        let image = places(20, 10);
        let always = AugmentConfig { flip: 1.0, ..AugmentConfig::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let flipped = augment(&image, &always, &mut rng, true);
        assert!(flipped.enumerate_pixels().all(|(x, y, p)| p.0 == [19 - x as u8, y as u8, 7]));
        assert_eq!(augment(&image, &always, &mut rng, false), image);

        let sometimes = AugmentConfig { flip: 0.5, ..AugmentConfig::default() };
        let count = (0..400).filter(|_| augment(&image, &sometimes, &mut rng, true) != image);
        assert!((150..250).contains(&count.count()));
    }

    #[test]
    fn what_is_allowed_does_not_change_the_other_draws() {
        let image = places(80, 60);
        let config = AugmentConfig { flip: 1.0, colour_jitter: 0.3, ..config() };
        let mut one = ChaCha8Rng::seed_from_u64(6);
        let mut other = one.clone();
        let flipped = augment(&image, &config, &mut one, true);
        let unflipped = augment(&image, &config, &mut other, false);
        assert_ne!(flipped, unflipped);
        assert_eq!(imageops::flip_horizontal(&flipped), unflipped);
        assert_eq!(one.next_u64(), other.next_u64());
    }

    #[test]
    fn jitter_moves_brightness_contrast_and_saturation() {
        let mut image = RgbImage::from_pixel(2, 1, Rgb([100, 50, 200]));
        blend(&mut image, 1.5, |_| 0.0);
        assert_eq!(image.get_pixel(0, 0).0, [150, 75, 255]);

        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let grey_image = RgbImage::from_pixel(4, 4, Rgb([90; 3]));
        let strong = AugmentConfig { colour_jitter: 0.5, ..AugmentConfig::default() };
        let mut values: Vec<u8> = Vec::new();
        for _ in 0..300 {
            let pixel = *augment(&grey_image, &strong, &mut rng, true).get_pixel(1, 1);
            // Without contrast or colour only the brightness can change.
            assert!(pixel.0.iter().all(|&value| value.abs_diff(pixel.0[0]) <= 1), "{pixel:?}");
            values.push(pixel.0[0]);
        }
        assert!(values.iter().all(|value| (44..=136).contains(value)));
        assert!(values.iter().any(|&value| value < 52) && values.iter().any(|&value| value > 128));
    }

    #[test]
    fn one_seed_gives_one_image_on_every_platform() {
        let image = places(100, 70);
        let config = AugmentConfig { flip: 0.5, colour_jitter: 0.4, ..config() };
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let drawn: Vec<(u32, u32, [u8; 3])> = (0..3)
            .map(|_| {
                let varied = augment(&image, &config, &mut rng, true);
                (varied.width(), varied.height(), varied.get_pixel(3, 5).0)
            })
            .collect();
        let again = augment(&image, &config, &mut ChaCha8Rng::seed_from_u64(8), true);
        assert_eq!((again.width(), again.height(), again.get_pixel(3, 5).0), drawn[0]);
        assert_eq!(drawn, EXPECTED_DRAWS);
    }

    const EXPECTED_DRAWS: [(u32, u32, [u8; 3]); 3] =
        [(51, 48, [38, 15, 0]), (52, 48, [20, 24, 4]), (69, 68, [92, 19, 20])];

    #[test]
    fn validation_names_the_key() {
        let good = AugmentConfig { flip: 0.5, colour_jitter: 0.4, ..config() };
        good.validate().unwrap();
        let cases: [(&str, AugmentConfig); 8] = [
            ("crop_scale", AugmentConfig { crop_scale: [0.0, 1.0], ..good.clone() }),
            ("crop_scale", AugmentConfig { crop_scale: [0.9, 0.5], ..good.clone() }),
            ("crop_scale", AugmentConfig { crop_scale: [0.5, 1.5], ..good.clone() }),
            ("crop_ratio", AugmentConfig { crop_ratio: [-1.0, 1.0], ..good.clone() }),
            ("crop_ratio", AugmentConfig { crop_ratio: [f32::NAN, 1.0], ..good.clone() }),
            ("flip", AugmentConfig { flip: f32::NAN, ..good.clone() }),
            ("flip", AugmentConfig { flip: 1.1, ..good.clone() }),
            ("colour_jitter", AugmentConfig { colour_jitter: -0.1, ..good.clone() }),
        ];
        for (key, config) in cases {
            let error = config.validate().unwrap_err();
            assert_eq!(error.key, key, "{error}");
        }
    }

    #[test]
    fn keys_left_out_take_their_defaults_and_unknown_ones_are_refused() {
        let read: AugmentConfig = toml::from_str("flip = 0.5").unwrap();
        assert_eq!(read, AugmentConfig { flip: 0.5, ..AugmentConfig::default() });
        assert!(toml::from_str::<AugmentConfig>("flips = 0.5").is_err());
    }
}
