//! Captioning, timed stage by stage.

use std::path::Path;
use std::time::Instant;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::{Rgb, RgbImage};
use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use super::{BenchError, Machine, decoding_step, forward_encoder, peak_memory};
use crate::generate::{GenerateConfig, generate_from_memory};
use crate::image::{DecodeLimits, PreprocessConfig, decode_bytes};
use crate::model::Captioner;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionBench {
    /// Images, at least 1.
    pub images: usize,
    /// Images encoded and decoded together, at least 1.
    pub batch_size: usize,
    /// Beams an image; 1 is greedy.
    pub num_beams: usize,
    /// Tokens decoded for every image: no caption ends before.
    pub new_tokens: usize,
    /// Lengths are rounded up to a multiple of this (GPUs); 1 = exactly.
    pub bucket: usize,
}

/// What was measured, in seconds, after one batch that does not count.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaptionReport {
    /// Images captioned.
    pub images: usize,
    /// Images of a batch.
    pub batch_size: usize,
    /// Beams an image.
    pub num_beams: usize,
    /// Tokens decoded an image.
    pub new_tokens: usize,
    /// Reading the model and putting it on the device.
    pub load_seconds: f64,
    /// Decoding a JPEG of 640 × 480 on one thread, an image.
    pub read_seconds: f64,
    /// Resizing and normalising on one thread, an image.
    pub preprocess_seconds: f64,
    /// The vision encoder, an image.
    pub encode_seconds: f64,
    /// The decoder, a token of one batch: all images and beams take it together.
    pub token_seconds: f64,
    /// Images a second, one stage after the other. (`patchword caption` reads ahead on threads.)
    pub images_per_second: f64,
    /// Share that the encoder reaches of the fastest product.
    pub encode_share: f64,
    /// Share that the decoder reaches of what reading, at the rate of a copy, and multiplying, at that of
    /// the fastest product, allow: the slower of the two is the bound.
    pub decode_share: f64,
    /// The machine.
    pub machine: Machine,
    /// Most memory resident, in bytes; none where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
}

/// Times captioning with a model that took `load_seconds` to load; `begin` starts every caption.
///
/// # Errors
/// A count of 0, more tokens than the model has positions, a failing device.
pub fn bench_caption(
    model: &Captioner,
    preprocess: &PreprocessConfig,
    begin: u32,
    load_seconds: f64,
    device: &Device,
    bench: &CaptionBench,
) -> Result<CaptionReport, BenchError> {
    for (key, value) in [("images", bench.images), ("batch-size", bench.batch_size)] {
        if value == 0 {
            return Err(BenchError::Value { key, problem: "0; expected at least 1".into() });
        }
    }
    let photo = photo()?;
    // What does not fill a batch would be slower an image than the rest.
    let batch_size = bench.batch_size.min(bench.images);
    let batches = bench.images.div_ceil(batch_size);
    let mut stages = Stages::default();
    for batch in 0..=batches {
        if batch == 1 {
            stages = Stages::default();
        }
        stages.batch(model, preprocess, begin, &photo, batch_size, device, bench)?;
    }
    let images = (batches * batch_size) as f64;
    let peak_memory_bytes = peak_memory();
    let machine = Machine::measure(device)?;
    let encode_seconds = stages.encode / images;
    let token_seconds = stages.decode / (batches * bench.new_tokens) as f64;
    let rows = batch_size * bench.num_beams;
    let (flops, bytes) = decoding_step(model.config(), batch_size, rows, bench.new_tokens / 2);
    let bound = (flops / machine.best_product()).max(bytes / machine.copy_bytes_per_second);
    let total = stages.read + stages.preprocess + stages.encode + stages.decode;
    Ok(CaptionReport {
        images: batches * batch_size,
        batch_size,
        num_beams: bench.num_beams,
        new_tokens: bench.new_tokens,
        load_seconds,
        read_seconds: stages.read / images,
        preprocess_seconds: stages.preprocess / images,
        encode_seconds,
        token_seconds,
        images_per_second: images / total.max(1e-9),
        encode_share: forward_encoder(&model.config().encoder)
            / encode_seconds.max(1e-9)
            / machine.best_product(),
        decode_share: bound / token_seconds.max(1e-9),
        machine,
        peak_memory_bytes,
    })
}

/// Seconds of each stage, summed.
#[derive(Default)]
struct Stages {
    read: f64,
    preprocess: f64,
    encode: f64,
    decode: f64,
}

impl Stages {
    #[allow(clippy::too_many_arguments)]
    fn batch(
        &mut self,
        model: &Captioner,
        preprocess: &PreprocessConfig,
        begin: u32,
        photo: &[u8],
        count: usize,
        device: &Device,
        bench: &CaptionBench,
    ) -> Result<(), BenchError> {
        let mut pixels = Vec::with_capacity(count * 3 * preprocess.height * preprocess.width);
        for _ in 0..count {
            let start = Instant::now();
            let image = decode_bytes(photo, Path::new("the test photo"), &DecodeLimits::default())?;
            self.read += start.elapsed().as_secs_f64();
            let start = Instant::now();
            pixels.extend(preprocess.apply(&image));
            self.preprocess += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        let shape = [count, 3, preprocess.height, preprocess.width];
        let pixels = Tensor::from_data(TensorData::new(pixels, shape), device);
        let memory = model.encode(pixels);
        device.sync().map_err(BenchError::device)?;
        self.encode += start.elapsed().as_secs_f64();
        let start = Instant::now();
        let config = GenerateConfig {
            num_beams: bench.num_beams,
            max_new_tokens: bench.new_tokens,
            ..GenerateConfig::default()
        };
        // No token has this id: every caption runs to its full length.
        let never = u32::MAX;
        generate_from_memory(model, &memory, &[begin], never, &config, bench.bucket)?;
        self.decode += start.elapsed().as_secs_f64();
        Ok(())
    }
}

/// A photo of common size as a JPEG file: smooth shades and texture, so that it takes about as many
/// bytes as a photo does.
fn photo() -> Result<Vec<u8>, BenchError> {
    let image = RgbImage::from_fn(640, 480, |x, y| {
        let texture = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(2_246_822_519)) >> 27;
        Rgb([(x / 3) as u8, (y / 2) as u8, ((x + y) / 5) as u8]
            .map(|c| c.saturating_add(texture as u8)))
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode_image(&image)
        .map_err(|error| BenchError::Encode(error.to_string()))?;
    Ok(bytes)
}
