//! Floating-point operations counted from shapes.
//!
//! A product of `[m, k]` and `[k, n]` counts `2·m·k·n`; nothing else counts (norms, activations and
//! softmax are a few per cent of it). With `N` positions of the memory, `S` tokens a caption, `d`,
//! `f` the widths of the stream and of the feed-forward block, `e` the memory's width, and patches of
//! `side × side` pixels or outputs of the stem, one forward pass is twice
//!
//! ```text
//! stem, an image               rows·cols·4·4·from·to of each convolution's output
//! backbone, an image           as MobileNetV2Shape::multiplications counts: 299.5 M at 224 × 224
//! encoder, an image            patches·channels·side²·d + layers·(N·(4·d² + 2·d·f) + 2·N²·d)
//! decoder, an image            layers·N·2·e·d                        (keys and values of the memory)
//! decoder, a caption           layers·(S·(6·d² + 2·d·f) + 2·S²·d + 2·S·N·d)
//! head, a target               d·vocab                               (+ d² with a transform)
//! ```
//!
//! and a training step is three forward passes: each product has two of its size in the backward
//! pass. An encoder that is frozen has a forward pass only. Attention counts in full, as it is
//! computed: a causal mask saves nothing.

use crate::model::{CaptionerConfig, EncoderConfig, HeadKind};

/// How much goes through a model in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape {
    /// Images.
    pub images: usize,
    /// Captions, of all images together.
    pub captions: usize,
    /// Tokens a caption, padding included.
    pub seq: usize,
    /// Positions whose next token is predicted, of all captions together.
    pub targets: usize,
}

/// FLOPs of encoding one image.
pub fn forward_encoder(config: &EncoderConfig) -> f64 {
    let [channels, side] = config.patch_input().map(|size| size as f64);
    let patches = config.num_patches() as f64;
    let inputs = std::iter::once(3).chain(config.patches.stem().iter().copied());
    let (mut height, mut width, mut stem) = (config.image_height, config.image_width, 0.0);
    for (from, &to) in inputs.zip(config.patches.stem()) {
        (height, width) = (height / 2, width / 2);
        stem += (height * width * 4 * 4 * from * to) as f64;
    }
    if let Some(shape) = config.patches.mobilenet() {
        stem = shape.multiplications(config.image_height, config.image_width);
    }
    let positions = patches + config.num_prefix() as f64;
    let (d, f) = (config.d_model as f64, config.d_ff as f64);
    let layer = positions * (4.0 * d * d + 2.0 * d * f) + 2.0 * positions * positions * d;
    2.0 * (stem + patches * channels * side * side * d + config.num_layers as f64 * layer)
}

/// FLOPs of decoding whole captions, the memory's projection among them.
pub fn forward_decoder(config: &CaptionerConfig, shape: &StepShape) -> f64 {
    let (encoder, decoder) = (&config.encoder, &config.decoder);
    let positions = config.memory_layout().positions() as f64;
    let (d, f) = (decoder.d_model as f64, decoder.d_ff as f64);
    let memory = config.memory_width() as f64;
    let (layers, seq) = (decoder.num_layers as f64, shape.seq as f64);
    let mut image = layers * positions * 2.0 * memory * d;
    if decoder.memory_projection {
        image += positions * encoder.d_model as f64 * d;
    }
    let caption = layers
        * (seq * (6.0 * d * d + 2.0 * d * f) + 2.0 * seq * seq * d + 2.0 * seq * positions * d);
    let mut target = d * decoder.vocab_size as f64;
    if matches!(decoder.head, HeadKind::TransformTied | HeadKind::TransformUntied) {
        target += d * d;
    }
    2.0 * (shape.images as f64 * image
        + shape.captions as f64 * caption
        + shape.targets as f64 * target)
}

/// FLOPs of decoding one token for each of `rows` rows of `images` images after `length` tokens, with keys
/// and values kept, and bytes of f32 that it reads: every weight once, keys and values of every row and image.
pub fn decoding_step(
    config: &CaptionerConfig,
    images: usize,
    rows: usize,
    length: usize,
) -> (f64, f64) {
    let decoder = &config.decoder;
    let (d, f) = (decoder.d_model as f64, decoder.d_ff as f64);
    let (layers, rows) = (decoder.num_layers as f64, rows as f64);
    let mut weights = layers * (6.0 * d * d + 2.0 * d * f) + d * decoder.vocab_size as f64;
    if matches!(decoder.head, HeadKind::TransformTied | HeadKind::TransformUntied) {
        weights += d * d;
    }
    let (own, cross) = (length as f64, config.memory_layout().positions() as f64);
    let attention = 2.0 * layers * d * rows * (own + cross);
    let kept = 2.0 * layers * d * (rows * own + images as f64 * cross);
    (2.0 * (rows * weights + attention), 4.0 * (weights + kept))
}

/// FLOPs of one training step.
pub fn training_step(config: &CaptionerConfig, shape: &StepShape, frozen_encoder: bool) -> f64 {
    let encoder_passes = if frozen_encoder { 1.0 } else { 3.0 };
    encoder_passes * shape.images as f64 * forward_encoder(&config.encoder)
        + 3.0 * forward_decoder(config, shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DecoderConfig, MobileNetV2Shape, PatchSource};

    #[test]
    fn a_step_of_decoding_reads_weights_and_what_is_kept_once() {
        let config = CaptionerConfig {
            encoder: EncoderConfig {
                image_height: 32,
                image_width: 32,
                ..EncoderConfig::default()
            },
            decoder: DecoderConfig {
                vocab_size: 10,
                d_model: 4,
                num_layers: 2,
                num_heads: 2,
                d_ff: 8,
                ..DecoderConfig::default()
            },
        };
        let weights = 2.0 * (6.0 * 16.0 + 2.0 * 4.0 * 8.0) + 40.0;
        let (flops, bytes) = decoding_step(&config, 3, 6, 5);
        assert_eq!(flops, 2.0 * (6.0 * weights + 2.0 * 2.0 * 4.0 * 6.0 * 9.0));
        assert_eq!(bytes, 4.0 * (weights + 2.0 * 2.0 * 4.0 * (6.0 * 5.0 + 3.0 * 4.0)));
    }

    /// Every parameter of a matrix is used once a position: without attention's own products, twice
    /// the matrices' parameters times the positions they see.
    #[test]
    fn linear_maps_cost_two_a_parameter_and_position() {
        let config = CaptionerConfig {
            encoder: EncoderConfig {
                image_height: 32,
                image_width: 48,
                patch_size: 16,
                d_model: 8,
                num_layers: 1,
                num_heads: 2,
                d_ff: 16,
                ..EncoderConfig::default()
            },
            decoder: DecoderConfig {
                vocab_size: 50,
                d_model: 4,
                num_layers: 1,
                num_heads: 2,
                d_ff: 12,
                ..DecoderConfig::default()
            },
        };
        let patches = 6.0;
        let matrices = 3.0 * 256.0 * 8.0 + 4.0 * 64.0 + 2.0 * 8.0 * 16.0;
        let attention = 2.0 * patches * patches * 8.0;
        assert_eq!(forward_encoder(&config.encoder), 2.0 * (patches * matrices + attention));

        let mut stemmed = config.encoder.clone();
        stemmed.patches = PatchSource::Stem(vec![4, 8]);
        let stem = 16.0 * (16.0 * 24.0 * 3.0 * 4.0 + 8.0 * 12.0 * 4.0 * 8.0);
        let embedding = patches * 8.0 * (3.0 * 256.0 - 8.0 * 16.0);
        let difference = forward_encoder(&stemmed) - forward_encoder(&config.encoder);
        assert_eq!(difference, 2.0 * (stem - embedding));

        let mut hybrid = config.encoder.clone();
        hybrid.patches = PatchSource::MobileNetV2 { width: 1.0 };
        (hybrid.patch_size, hybrid.image_height, hybrid.image_width) = (32, 64, 96);
        let patch = 1280.0 * 8.0 + 4.0 * 64.0 + 2.0 * 8.0 * 16.0;
        let backbone = MobileNetV2Shape::new(1.0).multiplications(64, 96);
        assert_eq!(forward_encoder(&hybrid), 2.0 * (backbone + patches * patch + attention));

        let shape = StepShape { images: 1, captions: 2, seq: 5, targets: 7 };
        let memory = patches * 2.0 * 8.0 * 4.0;
        let tokens = 10.0 * (6.0 * 16.0 + 2.0 * 4.0 * 12.0);
        let attention = 2.0 * (2.0 * 25.0 * 4.0 + 2.0 * 5.0 * patches * 4.0);
        let decoder = 2.0 * (memory + tokens + attention + 7.0 * 4.0 * 50.0);
        assert_eq!(forward_decoder(&config, &shape), decoder);
        let encoder = forward_encoder(&config.encoder);
        assert_eq!(training_step(&config, &shape, false), 3.0 * (encoder + decoder));
        assert_eq!(training_step(&config, &shape, true), encoder + 3.0 * decoder);
    }
}
