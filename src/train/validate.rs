//! Loss on held-out images.

use burn::tensor::{Device, Tensor, TensorData};

use super::TrainError;
use super::gradients::{Regularization, forward_loss};
use crate::data::{Batch, Example, LoaderConfig, SkippedImages, for_each_batch};
use crate::model::{Captioner, EncoderStage};

/// Loss over a set of images.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// Mean cross-entropy in nats a token, without smoothing.
    pub loss: f64,
    /// Tokens it is the mean of, end tokens included.
    pub tokens: usize,
    /// Images that could not be read.
    pub skipped: SkippedImages,
}

impl Validation {
    /// `exp(loss)`.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// Measures the loss of a model, on a device without autodiff, over every caption of `examples`.
/// `frozen_until` is where `loader`'s features come from, if it has any.
///
/// # Errors
/// A failing device.
pub fn validate(
    model: &Captioner,
    examples: &[Example],
    loader: &LoaderConfig,
    frozen_until: EncoderStage,
    device: &Device,
) -> Result<Validation, TrainError> {
    let loader = LoaderConfig { augment: None, ..loader.clone() };
    let device = device.clone().inner();
    let none = Regularization::default();
    let mut total = Validation { loss: 0.0, tokens: 0, skipped: SkippedImages::default() };
    for_each_batch(examples, &loader, |mut batch: Batch| {
        for image in batch.skipped.drain(..) {
            total.skipped.add(image);
        }
        if batch.tokens > 0 {
            let tokens = batch.tokens;
            let loss = forward_loss(model, batch, &loader, none, frozen_until, &device);
            total.loss += read_scalar(loss)? * tokens as f64;
            total.tokens += tokens;
        }
        Ok::<(), TrainError>(())
    })?;
    total.loss /= total.tokens.max(1) as f64;
    Ok(total)
}

/// Waits for one number.
pub(super) fn read_scalar(tensor: Tensor<1>) -> Result<f64, TrainError> {
    let value: Result<f32, _> = tensor.try_into_scalar();
    value.map(f64::from).map_err(|error| TrainError::Device(error.to_string()))
}

/// Host pixels as a tensor.
///
/// # Shapes
/// `[images, 3, height, width]`.
pub(super) fn pixels(batch: &mut Batch, loader: &LoaderConfig, device: &Device) -> Tensor<4> {
    let shape = [batch.images, 3, loader.preprocess.height, loader.preprocess.width];
    Tensor::from_data(TensorData::new(std::mem::take(&mut batch.encoder_inputs), shape), device)
}
