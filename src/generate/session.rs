//! A [`Captioner`] as a [`StepModel`]: cached decoding of one batch of images.

use burn::tensor::{Device, Tensor, TensorData};

use super::{GenerateConfig, GenerateError, Generated, StepModel, generate};
use crate::model::{Captioner, DecoderCache};

/// Cached decoding of one batch.
pub struct Session<'a> {
    model: &'a Captioner,
    cache: DecoderCache,
    rows: usize,
    bucket: usize,
    device: Device,
}

impl<'a> Session<'a> {
    /// Starts decoding at most `capacity` tokens (prompt included) for each of `rows_per_image` rows
    /// an image. `bucket` rounds lengths up where new shapes are dear (GPUs); 1 = exactly.
    ///
    /// # Shapes
    /// `memory`: `[images, patches, memory_width]`, from [`Captioner::encode`].
    pub fn new(
        model: &'a Captioner,
        memory: &Tensor<3>,
        rows_per_image: usize,
        capacity: usize,
        bucket: usize,
    ) -> Self {
        let [images, _, _] = memory.dims();
        Self {
            model,
            cache: model.start(memory, rows_per_image, capacity, bucket),
            rows: images * rows_per_image,
            bucket,
            device: memory.device(),
        }
    }
}

impl StepModel for Session<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config().decoder.vocab_size
    }

    fn step(&mut self, ids: &[u32], seq: usize) -> Result<Vec<f32>, GenerateError> {
        let room = self.cache.capacity() - self.cache.len();
        if seq > room {
            return Err(GenerateError::Config {
                key: "max_new_tokens",
                problem: format!(
                    "no room for {seq} more tokens: the model has positions for {}",
                    self.cache.capacity()
                ),
            });
        }
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [self.rows, seq]), &self.device);
        let logits = self.model.step(ids, &mut self.cache);
        logits.try_into_vec_as::<f32>().map_err(|error| GenerateError::Device(error.to_string()))
    }

    fn reorder(&mut self, rows: &[usize]) {
        self.cache.reorder(rows);
    }

    fn keep_images(&mut self, images: &[usize]) -> bool {
        // A device that wants lengths in steps wants few numbers of rows too.
        if self.bucket > 1 {
            return false;
        }
        self.rows = self.cache.keep_images(images);
        true
    }
}

/// Captions encoded images after `prompt`: `config.num_captions` sequences an image, side by side.
/// Sampling numbers the images from 0: another batch wants another `config.seed`, or
/// [`generate_images`].
///
/// # Shapes
/// `memory`: `[images, patches, memory_width]`, from [`Captioner::encode`].
///
/// # Errors
/// A configuration out of range (more tokens than the model has positions among them), a failing
/// device, logits that are not finite.
pub fn generate_from_memory(
    model: &Captioner,
    memory: &Tensor<3>,
    prompt: &[u32],
    end: u32,
    config: &GenerateConfig,
    bucket: usize,
) -> Result<Vec<Generated>, GenerateError> {
    generate_images(model, memory, 0.., prompt, end, config, bucket)
}

/// [`generate_from_memory`] for images with numbers of their own, which sampling seeds its draws with:
/// as many of `numbers` are taken as there are images.
///
/// # Errors
/// As there.
pub fn generate_images(
    model: &Captioner,
    memory: &Tensor<3>,
    numbers: impl IntoIterator<Item = u64>,
    prompt: &[u32],
    end: u32,
    config: &GenerateConfig,
    bucket: usize,
) -> Result<Vec<Generated>, GenerateError> {
    config.validate(model.config().decoder.vocab_size)?;
    let [images, _, _] = memory.dims();
    let new_tokens = config.after_prompt(prompt.len())?.max_new_tokens;
    // The last token decoded is never fed back.
    let capacity = prompt.len() + new_tokens - 1;
    let positions = model.config().decoder.max_positions;
    if capacity > positions {
        return Err(GenerateError::Config {
            key: "max_new_tokens",
            problem: format!(
                "{new_tokens} after a prompt of {}: the model has {positions} positions, so at most \
                 {}",
                prompt.len(),
                (positions + 1).saturating_sub(prompt.len())
            ),
        });
    }
    let capacity = capacity.next_multiple_of(bucket.max(1)).min(positions);
    let mut session = Session::new(model, memory, config.rows_per_image(), capacity, bucket);
    generate(&mut session, numbers.into_iter().take(images), prompt, end, config)
}
