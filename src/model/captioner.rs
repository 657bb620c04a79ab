//! Encoder and decoder together.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};

use super::cache::DecoderCache;
use super::config::{CaptionerConfig, ConfigError};
use super::cpu;
use super::decoder::TextDecoder;
use super::encoder::VisionEncoder;
use super::encoder_config::EncoderStage;
use super::half;
use super::trace::AttentionTrace;

/// An image captioner: a vision encoder and a text decoder that reads it by cross-attention.
#[derive(Module, Debug)]
pub struct Captioner {
    encoder: VisionEncoder,
    memory_projection: Option<Linear>,
    decoder: TextDecoder,
    #[module(skip)]
    config: CaptionerConfig,
}

impl Captioner {
    /// A captioner whose weights are placeholders: fill them with [`super::initialize`] or from a
    /// checkpoint.
    ///
    /// # Errors
    /// The key of `config` that cannot be built.
    pub fn new(config: &CaptionerConfig, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let (from, to) = (config.encoder.d_model, config.decoder.d_model);
        Ok(Self {
            encoder: VisionEncoder::new(&config.encoder, device)?,
            memory_projection: config
                .decoder
                .memory_projection
                .then(|| LinearConfig::new(from, to).init(device)),
            decoder: TextDecoder::new(&config.decoder, config.memory_width(), device),
            config: config.clone(),
        })
    }

    /// The shape of this model.
    pub fn config(&self) -> &CaptionerConfig {
        &self.config
    }

    /// The same captioner for images of another size. Learned patch positions are resized as
    /// transformers does (bicubic), computed ones are computed anew; the rest is as it was.
    ///
    /// # Errors
    /// A side that is not a positive multiple of the patch size.
    pub fn with_image_size(self, height: usize, width: usize) -> Result<Self, ConfigError> {
        let mut config = self.config;
        config.encoder.image_height = height;
        config.encoder.image_width = width;
        config.validate()?;
        Ok(Self { encoder: self.encoder.with_image_size(&config.encoder), config, ..self })
    }

    /// The same with weights in f16, for inference on a device that computes in it: half the memory,
    /// and about 3 digits. Layer norms stay in f32.
    #[must_use]
    pub fn into_f16(self) -> Self {
        half::narrowed(self)
    }

    /// Encodes images into the memory that cross-attention reads.
    ///
    /// # Shapes
    /// `pixels`: `[batch, 3, image_height, image_width]`, normalised; result:
    /// `[batch, patches, memory_width]`.
    pub fn encode(&self, pixels: Tensor<4>) -> Tensor<3> {
        let dtype = self.decoder.dtype();
        let pixels = if pixels.dtype() == dtype { pixels } else { pixels.cast(dtype) };
        let at_once = cpu::images_at_once(&pixels.device(), self.config.encoder.num_patches());
        let [batch, _, _, _] = pixels.dims();
        if batch <= at_once {
            return self.project(self.encoder.forward(pixels));
        }
        let parts = pixels.split(at_once, 0).into_iter();
        Tensor::cat(parts.map(|part| self.project(self.encoder.forward(part))).collect(), 0)
    }

    /// The part of the encoder before `stage`, with no gradient: [`Self::encode_from`] does the rest. What
    /// is frozen costs a forward pass, or nothing where its output was kept.
    ///
    /// # Shapes
    /// `pixels`: `[batch, 3, image_height, image_width]`, normalised; result:
    /// as [`VisionEncoder::forward_until`], on a device without autodiff.
    pub fn encode_until(&self, pixels: Tensor<4>, stage: EncoderStage) -> Tensor<3> {
        self.encoder.valid().forward_until(pixels.without_autodiff(), stage)
    }

    /// Makes the memory of what [`Self::encode_until`] gave; on a device with autodiff, pass it on
    /// with `.autodiff()`.
    ///
    /// # Shapes
    /// Result: `[batch, patches, memory_width]`.
    pub fn encode_from(&self, features: Tensor<3>, stage: EncoderStage) -> Tensor<3> {
        self.project(self.encoder.forward_from(features, stage))
    }

    fn project(&self, features: Tensor<3>) -> Tensor<3> {
        match &self.memory_projection {
            Some(projection) => projection.forward(features),
            None => features,
        }
    }

    /// Teacher forcing: logits of each next token.
    ///
    /// # Shapes
    /// `ids`: `[batch × k, seq]`, the `k` captions of an image side by side; `memory`:
    /// `[batch, patches, memory_width]`; result: `[batch × k, seq, vocab]`.
    pub fn decode(&self, ids: Tensor<2, Int>, memory: Tensor<3>) -> Tensor<3> {
        self.decoder.logits(self.decoder.states(ids, memory))
    }

    /// Teacher forcing for chosen positions only: logits of the next token at `positions` of the
    /// flattened `[batch × seq]`.
    ///
    /// # Shapes
    /// `ids`: `[batch × k, seq]`, the `k` captions of an image side by side; `memory`:
    /// `[batch, patches, memory_width]`; `positions`: `[n]`; result: `[n, vocab]`.
    pub fn decode_at(
        &self,
        ids: Tensor<2, Int>,
        memory: Tensor<3>,
        positions: Tensor<1, Int>,
    ) -> Tensor<2> {
        let states = self.decoder.states(ids, memory);
        let [batch, seq, d_model] = states.dims();
        let [chosen] = positions.dims();
        let states = states.reshape([batch * seq, d_model]).select(0, positions);
        let logits = self.decoder.logits(states.reshape([1, chosen, d_model]));
        let [_, _, vocab] = logits.dims();
        logits.reshape([chosen, vocab])
    }

    /// As [`Self::encode`]; `trace` gets every attention weight of the encoder. What stands before the
    /// patch embedding has no attention, and no gradient is kept of it.
    ///
    /// # Shapes
    /// As [`Self::encode`].
    pub fn encode_with_trace(&self, pixels: Tensor<4>, trace: &mut AttentionTrace) -> Tensor<3> {
        let dtype = self.decoder.dtype();
        let pixels = pixels.without_autodiff().cast(dtype);
        let mut patches = self.encoder.valid().patches(pixels);
        if self.decoder.is_autodiff() {
            patches = patches.autodiff();
        }
        self.project(self.encoder.forward_patches_with_trace(patches, Some(trace)))
    }

    /// Teacher forcing; `trace` gets every attention weight of the decoder.
    ///
    /// # Shapes
    /// As [`Self::decode`].
    pub fn decode_with_trace(
        &self,
        ids: Tensor<2, Int>,
        memory: Tensor<3>,
        trace: &mut AttentionTrace,
    ) -> Tensor<3> {
        self.decoder.logits(self.decoder.states_with_trace(ids, memory, trace))
    }

    /// The same on a device with autodiff, where gradients are kept of gates
    /// ([`AttentionTrace::gated`]) and of no weight.
    #[must_use]
    pub fn with_gated_gradients(&self) -> Self {
        self.clone().train().no_grad()
    }

    /// Starts cached decoding of at most `capacity` tokens a row, `rows_per_image` rows an image
    /// side by side. Lengths are read in multiples of `bucket` (1 = exactly).
    ///
    /// # Shapes
    /// `memory`: `[batch, patches, memory_width]`.
    pub fn start(
        &self,
        memory: &Tensor<3>,
        rows_per_image: usize,
        capacity: usize,
        bucket: usize,
    ) -> DecoderCache {
        self.decoder.start(memory, rows_per_image, capacity, bucket)
    }

    /// Decodes `ids` after what the cache holds; logits of the last position.
    ///
    /// # Shapes
    /// `ids`: `[rows, seq]`; result: `[rows, vocab]`.
    pub fn step(&self, ids: Tensor<2, Int>, cache: &mut DecoderCache) -> Tensor<2> {
        self.decoder.step(ids, cache)
    }
}
