//! The way in for programs: a captioner that is open, with defaults for everything.

use std::path::Path;

use ::image::RgbImage;
use burn::tensor::Device;

use crate::caption::{Caption, CaptionConfig, ModelInput, caption_inputs};
use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::device::{DeviceError, DeviceRequest, resolve};
use crate::generate::{GenerateConfig, GenerateError};
use crate::image::{DecodeLimits, ImageError, decode_file};
use crate::inspect::{InspectConfig, InspectError, Inspection, inspect, inspect_with};

/// Why a captioner could not be opened, or a photo not be captioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptionerError {
    /// The model could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device could not be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The caption could not be decoded.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The caption's map could not be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Decoding ended without a caption.
    #[error("the model gave no caption")]
    NoCaption,
}

/// A captioner that is ready: a model on a device, and how it decodes.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "shipped")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use patchword::{Captioner, read_photo};
///
/// let captioner = Captioner::open("flickr8k")?;
/// let photo = read_photo("datasets/photos/dog.jpg")?;
/// let caption = captioner.caption(&photo)?;
/// let map = captioner.inspect(&photo)?;
/// assert_eq!(caption.caption, map.caption);
/// assert_eq!(map.words[0].mean.len(), map.rows * map.cols);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "shipped"))]
/// # fn main() {}
/// ```
#[derive(Debug, Clone)]
pub struct Captioner {
    checkpoint: Checkpoint,
    device: Device,
    config: CaptionConfig,
}

impl Captioner {
    /// Opens a model on the best device there is: a GPU through wgpu, else the CPU. `model` is what
    /// `--model` takes, without the network: a folder of ours or of transformers, the file of an original
    /// BLIP, or `flickr8k`, the captioner that ships (Cargo feature `shipped`).
    ///
    /// # Errors
    /// The file, key or tensor at fault.
    pub fn open(model: impl AsRef<Path>) -> Result<Self, CaptionerError> {
        Self::open_on(model, &DeviceRequest::Auto)
    }

    /// Opens a model on the device named: `"flex".parse()?`, `"wgpu:0".parse()?`.
    ///
    /// # Errors
    /// The file, key or tensor at fault, or why the device does not open.
    pub fn open_on(
        model: impl AsRef<Path>,
        device: &DeviceRequest,
    ) -> Result<Self, CaptionerError> {
        let device = resolve(device)?.device;
        let checkpoint = checkpoint::load(model.as_ref(), &device)?;
        let config = CaptionConfig::new(checkpoint.generate.clone(), &device);
        Ok(Self { checkpoint, device, config })
    }

    /// The same with other settings of decoding than the model's own.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn with_generate(mut self, generate: GenerateConfig) -> Result<Self, CaptionerError> {
        generate.validate(self.checkpoint.model.config().decoder.vocab_size)?;
        self.config.generate = generate;
        Ok(self)
    }

    /// How it decodes.
    pub fn generate(&self) -> &GenerateConfig {
        &self.config.generate
    }

    /// Its model, tokenizer and preprocessing.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What it says of a photo; of several captions the best.
    ///
    /// # Errors
    /// A failing device.
    pub fn caption(&self, photo: &RgbImage) -> Result<Caption, CaptionerError> {
        let captions = self.captions(std::slice::from_ref(photo))?;
        captions.into_iter().flatten().next().ok_or(CaptionerError::NoCaption)
    }

    /// What it says of photos, decoded together: `num_captions` for each, of beams the best first.
    ///
    /// # Errors
    /// A failing device.
    pub fn captions(&self, photos: &[RgbImage]) -> Result<Vec<Vec<Caption>>, CaptionerError> {
        let preprocess = &self.checkpoint.preprocess;
        let inputs: Vec<ModelInput> =
            photos.iter().map(|photo| ModelInput::new(preprocess, photo)).collect();
        Ok(caption_inputs(&self.checkpoint, &self.device, &inputs, &self.config)?)
    }

    /// What it says of a photo, and where its attention was for each word; [`Inspection::maps`] holds the map
    /// that the model's folder names as its best, else raw attention.
    ///
    /// # Errors
    /// A failing device.
    pub fn inspect(&self, photo: &RgbImage) -> Result<Inspection, CaptionerError> {
        Ok(inspect(&self.checkpoint, &self.device, photo, None, &self.config)?)
    }

    /// The same with chosen maps, and if asked for with what changes each word's probability.
    ///
    /// ```
    /// # #[cfg(feature = "shipped")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use patchword::inspect::{InspectConfig, Method, RelevanceConfig};
    /// use patchword::{Captioner, read_photo};
    ///
    /// let captioner = Captioner::open("flickr8k")?;
    /// let photo = read_photo("datasets/photos/dog.jpg")?;
    /// let what = InspectConfig {
    ///     text: Some("a dog runs on grass".into()),
    ///     maps: vec![RelevanceConfig::new(Method::Gradient)],
    ///     ..InspectConfig::default()
    /// };
    /// let inspection = captioner.inspect_with(&photo, &what)?;
    ///
    /// // One map a word over the grid of patches, which covers `region` of the photo.
    /// let dog = &inspection.maps[0].words[1];
    /// assert_eq!(inspection.words[1].word, "dog");
    /// assert_eq!(dog.map.len(), inspection.rows * inspection.cols);
    /// // Words that rely on the upper left quarter, by their share there.
    /// let quarter = [0, 0, inspection.rows / 2, inspection.cols / 2];
    /// let shares = inspection.maps[0].words_of_box(quarter);
    /// assert_eq!(shares.len(), inspection.words.len());
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "shipped"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`Self::inspect_text`]; a layer or head that the decoder does not have.
    pub fn inspect_with(
        &self,
        photo: &RgbImage,
        what: &InspectConfig,
    ) -> Result<Inspection, CaptionerError> {
        Ok(inspect_with(&self.checkpoint, &self.device, photo, what, &self.config, &mut |_| ())?)
    }

    /// Where its attention is when it reads `text` as the photo's caption, and how likely it finds it.
    ///
    /// # Errors
    /// A text without words or of more tokens than the model has positions; a failing device.
    pub fn inspect_text(&self, photo: &RgbImage, text: &str) -> Result<Inspection, CaptionerError> {
        Ok(inspect(&self.checkpoint, &self.device, photo, Some(text), &self.config)?)
    }
}

/// Reads a photo of any format that patchword reads, upright, in sRGB, transparency laid over white.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn read_photo(path: impl AsRef<Path>) -> Result<RgbImage, ImageError> {
    decode_file(path.as_ref(), &DecodeLimits::default())
}
