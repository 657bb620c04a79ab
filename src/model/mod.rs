//! The one vision encoder and the one text decoder. Knows Burn only: no paths, no strings, no
//! images.
//!
//! Dimension legend, used in every `# Shapes` section:
//!
//! | name       | meaning                                                         |
//! |------------|-----------------------------------------------------------------|
//! | `batch`    | images (or image × beam)                                        |
//! | `patches`  | positions of the memory: patches, prefix tokens first if there  |
//! | `seq`      | text positions                                                  |
//! | `d_model`  | width of the stream at hand                                     |
//! | `heads`    | attention heads                                                 |
//! | `head_dim` | `d_model / heads`                                               |
//! | `vocab`    | token ids                                                       |
//!
//! Masks follow Burn's polarity: `true` = hidden.

mod attention;
mod cache;
mod captioner;
mod config;
mod cpu;
mod decoder;
mod encoder;
mod encoder_config;
mod feed_forward;
mod half;
mod init;
mod mobilenet;
mod noise;
mod parameters;
mod positions;
mod trace;

pub use attention::{Attention, AttentionConfig, AttentionMask, KeyValue};
pub use cache::DecoderCache;
pub use captioner::Captioner;
pub use config::{
    Activation, CaptionerConfig, ConfigError, DecoderConfig, HeadKind, MemoryLayout, NormPlacement,
};
pub use cpu::{INSTRUCTIONS_VARIABLE, vector_instructions};
pub(crate) use cpu::{log_softmax, multiply};
pub use decoder::TextDecoder;
pub use encoder::VisionEncoder;
pub use encoder_config::{EncoderConfig, EncoderStage, PatchPositions, PatchSource};
pub use init::initialize;
pub use mobilenet::{BlockShape, MobileNetV2, MobileNetV2Shape};
pub use noise::{HeldNoise, hold_noise, seed_noise, silence_noise};
pub use parameters::{
    MapParameters, ParameterPath, ParameterRole, VisitParameters, map_parameters, visit_parameters,
};
pub use trace::{AttentionTrace, LayerAttention};

#[cfg(test)]
pub(crate) mod tests;
