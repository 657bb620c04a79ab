//! The fixed part of the way to the model: resize, then normalise.

use ::image::RgbImage;
use serde::{Deserialize, Serialize};

use super::error::InvalidSetting;
use super::placement::Placement;
use super::resize::{ResizeFilter, ResizeMode, resize};

/// The largest side of a model input. No vision encoder in use comes near it; it keeps a slip of the
/// keyboard in a config from asking for all memory.
const MAX_SIDE: usize = 8192;

/// How every image is brought to the model, in training and after.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PreprocessConfig {
    /// Height of the model's input in pixels, 1 to 8192.
    pub height: usize,
    /// Width of the model's input in pixels, 1 to 8192.
    pub width: usize,
    /// How a photo of another shape is brought to this one.
    pub resize: ResizeMode,
    /// `[height, width]` that `resize` scales the photo to before the middle `height` x `width` is
    /// cut out of it; without it, scaled to `height` x `width` itself. Neither side may be smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_from: Option<[usize; 2]>,
    /// The resampling filter.
    pub filter: ResizeFilter,
    /// Mean of red, green and blue, on a scale where white is 1.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue on the same scale, above 0.
    pub std: [f32; 3],
}

impl Default for PreprocessConfig {
    /// 224 x 224, squashed, bicubic, values in -1 to 1.
    fn default() -> Self {
        Self {
            height: 224,
            width: 224,
            resize: ResizeMode::Squash,
            crop_from: None,
            filter: ResizeFilter::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }
}

impl PreprocessConfig {
    /// Checks every value's range.
    ///
    /// # Errors
    /// The first setting out of its range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        for (key, side) in [("height", self.height), ("width", self.width)] {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(InvalidSetting::new(key, side, "a whole number from 1 to 8192"));
            }
        }
        if let Some([height, width]) = self.crop_from {
            let within = (self.height..=MAX_SIDE).contains(&height)
                && (self.width..=MAX_SIDE).contains(&width);
            if !within || self.resize == ResizeMode::Pad {
                let expected = "[height, width] of at least the model's input, and `resize` = \"squash\" or \"crop\"";
                let value = format!("[{height}, {width}]");
                return Err(InvalidSetting::new("crop_from", value, expected));
            }
        }
        for (channel, &mean) in self.mean.iter().enumerate() {
            // Written so that NaN is refused too.
            if !(-1e3..=1e3).contains(&mean) {
                let key = format!("mean[{channel}]");
                return Err(InvalidSetting::new(key, mean, "a number near 0 to 1"));
            }
        }
        for (channel, &std) in self.std.iter().enumerate() {
            if !(1e-6..=1e3).contains(&std) {
                let key = format!("std[{channel}]");
                return Err(InvalidSetting::new(key, std, "a number above 0"));
            }
        }
        Ok(())
    }

    /// `image` resized to `height` x `width`, 8 bits. [`ResizeMode::Pad`] fills with the mean
    /// colour, which normalises to about 0.
    pub fn resize(&self, image: &RgbImage) -> RgbImage {
        let fill = self.mean.map(|mean| (mean * 255.0 + 0.5) as u8);
        resize(image, self.size(), self.scaled(), self.resize, self.filter, fill)
    }

    /// `(value / 255 - mean) / std` for every value of `image`, which is usually what
    /// [`resize`](Self::resize) returned but may have any size.
    ///
    /// # Shapes
    /// The result is `[3, image height, image width]`, row by row, red first.
    pub fn normalize(&self, image: &RgbImage) -> Vec<f32> {
        let pixels = image.as_raw();
        let plane = pixels.len() / 3;
        let mut values = vec![0.0; plane * 3];
        for (channel, target) in values.chunks_exact_mut(plane.max(1)).enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let normalized: [f32; 256] =
                std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
            for (value, pixel) in target.iter_mut().zip(pixels.as_chunks::<3>().0) {
                *value = normalized[usize::from(pixel[channel])];
            }
        }
        values
    }

    /// Resizes and normalises.
    ///
    /// # Shapes
    /// The result is `[3, height, width]`, row by row, red first.
    pub fn apply(&self, image: &RgbImage) -> Vec<f32> {
        self.normalize(&self.resize(image))
    }

    /// Where a photo of this size lies in the model's input, to draw on the photo what the model
    /// did with its patches.
    pub fn placement(&self, source_width: u32, source_height: u32) -> Placement {
        Placement::new(self.resize, (source_width, source_height), self.size(), self.scaled())
    }

    /// The (width, height) that a photo is scaled to at most before it is cropped or padded.
    pub(super) fn scaled_size(&self) -> (u32, u32) {
        self.scaled().unwrap_or(self.size())
    }

    fn size(&self) -> (u32, u32) {
        (self.width as u32, self.height as u32)
    }

    fn scaled(&self) -> Option<(u32, u32)> {
        self.crop_from.map(|[height, width]| (width as u32, height as u32))
    }

    /// The same for inputs of another size; what is cut off stays in proportion.
    #[must_use]
    pub fn with_size(&self, height: usize, width: usize) -> Self {
        let scale = |from: usize, old: usize, new: usize| {
            ((from as f64 / old.max(1) as f64 * new as f64).round() as usize).max(new)
        };
        let crop_from = self
            .crop_from
            .map(|[tall, wide]| [scale(tall, self.height, height), scale(wide, self.width, width)]);
        Self { height, width, crop_from, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use ::image::Rgb;
    use safetensors::SafeTensors;

    use super::super::decode::{DecodeLimits, decode_file};
    use super::*;
    use crate::shared::shared;

    /// The settings of a Hugging Face `preprocessor_config.json`.
    fn hugging_face(text: &str) -> PreprocessConfig {
        let config: serde_json::Value = serde_json::from_str(text).unwrap();
        let three = |key: &str| {
            let values = config[key].as_array().unwrap();
            [0, 1, 2].map(|channel| values[channel].as_f64().unwrap() as f32)
        };
        PreprocessConfig {
            height: config["size"]["height"].as_u64().unwrap() as usize,
            width: config["size"]["width"].as_u64().unwrap() as usize,
            resize: ResizeMode::Squash,
            crop_from: None,
            filter: match config["resample"].as_u64().unwrap() {
                2 => ResizeFilter::Bilinear,
                3 => ResizeFilter::Bicubic,
                other => panic!("resample {other}"),
            },
            mean: three("image_mean"),
            std: three("image_std"),
        }
    }

    #[test]
    fn pixel_values_are_those_of_transformers() {
        let Some(parity) = shared("parity") else { return };
        for case in ["blip", "vit-gpt2", "vit-bert"] {
            let folder = parity.join(case);
            let text = std::fs::read_to_string(folder.join("preprocessor_config.json")).unwrap();
            let config = hugging_face(&text);
            config.validate().unwrap();

            let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let expected = tensors.tensor("pixel_values").unwrap();
            assert_eq!(expected.shape(), [2, 3, config.height, config.width]);
            let (expected, _) = expected.data().as_chunks::<4>();

            let ours: Vec<f32> = ["a.png", "b.png"]
                .iter()
                .flat_map(|name| {
                    let path = parity.join(name);
                    let image = decode_file(&path, &DecodeLimits::default()).unwrap();
                    config.apply(&image)
                })
                .collect();
            assert_eq!(ours.len(), expected.len());

            for (index, (ours, expected)) in ours.iter().zip(expected).enumerate() {
                let difference = (ours - f32::from_le_bytes(*expected)).abs();
                assert!(difference < 1e-6, "{case}, value {index}: {difference}");
            }
        }
    }

    #[test]
    fn values_are_planes_of_red_green_and_blue() {
        let mut image = RgbImage::new(2, 1);
        image.put_pixel(0, 0, Rgb([0, 51, 255]));
        image.put_pixel(1, 0, Rgb([255, 102, 0]));
        let config = PreprocessConfig {
            height: 1,
            width: 2,
            mean: [0.5, 0.0, 1.0],
            std: [0.5, 1.0, 0.25],
            ..PreprocessConfig::default()
        };
        assert_eq!(config.apply(&image), [-1.0, 1.0, 0.2, 0.4, 0.0, -4.0]);
        assert!(config.normalize(&RgbImage::new(0, 0)).is_empty());
    }

    #[test]
    fn padding_normalises_to_about_zero() {
        let config = PreprocessConfig {
            height: 8,
            width: 8,
            resize: ResizeMode::Pad,
            mean: [0.48, 0.46, 0.41],
            std: [0.27; 3],
            ..PreprocessConfig::default()
        };
        let values = config.apply(&RgbImage::from_pixel(20, 5, Rgb([255; 3])));
        assert_eq!(values.len(), 3 * 64);
        // Two rows of photo, three of padding on either side.
        assert!(values[..24].iter().all(|value| value.abs() < 0.01));
        assert!(values[24..40].iter().all(|value| *value > 1.0));
    }

    #[test]
    fn validation_names_the_key() {
        let good = PreprocessConfig::default();
        good.validate().unwrap();
        let cases: [(&str, PreprocessConfig); 8] = [
            ("height", PreprocessConfig { height: 0, ..good.clone() }),
            ("width", PreprocessConfig { width: 1 << 40, ..good.clone() }),
            ("crop_from", PreprocessConfig { crop_from: Some([256, 200]), ..good.clone() }),
            (
                "crop_from",
                PreprocessConfig {
                    crop_from: Some([256; 2]),
                    resize: ResizeMode::Pad,
                    ..good.clone()
                },
            ),
            ("mean[1]", PreprocessConfig { mean: [0.5, f32::NAN, 0.5], ..good.clone() }),
            ("mean[0]", PreprocessConfig { mean: [f32::INFINITY, 0.5, 0.5], ..good.clone() }),
            ("std[2]", PreprocessConfig { std: [0.5, 0.5, 0.0], ..good.clone() }),
            ("std[0]", PreprocessConfig { std: [-0.5, 0.5, 0.5], ..good.clone() }),
        ];
        for (key, config) in cases {
            let error = config.validate().unwrap_err();
            assert_eq!(error.key, key);
            assert!(error.to_string().starts_with(&format!("`{key}`: expected ")), "{error}");
        }
    }

    #[test]
    fn the_config_reads_what_it_writes_and_refuses_unknown_keys() {
        let config = PreprocessConfig { resize: ResizeMode::Pad, ..PreprocessConfig::default() };
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""resize":"pad","filter":"bicubic""#), "{text}");
        assert_eq!(serde_json::from_str::<PreprocessConfig>(&text).unwrap(), config);
        let unknown = text.replace("\"filter\"", "\"fliter\"");
        let error = serde_json::from_str::<PreprocessConfig>(&unknown).unwrap_err();
        assert!(error.to_string().contains("fliter"), "{error}");
    }
}
