//! Hugging Face folders of a vision encoder alone, or with a head or a text model that is left aside, as
//! configs and key maps of the one encoder. An architecture is a value of [`VisionArchitecture`].

use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value};

use super::super::CheckpointError;
use super::super::encoder::{Alone, EncoderPart, IMAGENET_MEAN, IMAGENET_STD, PretrainedEncoder};
use super::super::tensors::{apply, parameters};
use super::super::weight_file::WeightFile;
use super::config::{EncoderFamily, Section, vision_encoder};
use super::encoder_keys::{self, EncoderKeys, map_encoder};
use super::preprocess::{Colours, colours};
use super::weights::Import;
use crate::image::{PreprocessConfig, ResizeFilter, ResizeMode};
use crate::model::{Activation, EncoderConfig, VisionEncoder};

/// The encoders that can be read, for errors.
const KNOWN: &str = "ViT, DeiT, DINOv2 (with registers too), CLIP and SigLIP (1 and 2), torchvision's \
                     MobileNetV2, and the encoders of captioners";

/// How OpenAI's CLIP wants its pixels.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A vision encoder of transformers.
struct VisionArchitecture {
    /// Values of `model_type`, each with the section that describes the encoder, if it is not all.
    model_types: &'static [(&'static str, Option<&'static str>)],
    /// What may stand before the encoder's names: nothing, or the model that it is a part of.
    before: &'static str,
    /// The ways to name its tensors.
    keys: &'static [EncoderKeys],
    /// What tensors without a part in the features of patches begin with: pooling, masking, position ids.
    passed_over: &'static [&'static str],
    /// Reads its config.
    config: fn(&Section) -> Result<EncoderConfig, CheckpointError>,
    /// How it wants its pixels where no file says it.
    mean: [f32; 3],
    std: [f32; 3],
    filter: ResizeFilter,
}

static ARCHITECTURES: [VisionArchitecture; 7] = [
    VisionArchitecture {
        model_types: &[("vit", None)],
        before: "vit.",
        keys: &encoder_keys::VIT,
        passed_over: &["pooler.", "embeddings.mask_token"],
        config: |vision| vision_encoder(vision, EncoderFamily::Vit),
        mean: [0.5; 3],
        std: [0.5; 3],
        filter: ResizeFilter::Bilinear,
    },
    VisionArchitecture {
        model_types: &[("deit", None)],
        before: "deit.",
        keys: &encoder_keys::VIT,
        passed_over: &["pooler.", "embeddings.mask_token"],
        config: |vision| vision_encoder(vision, EncoderFamily::Deit),
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        filter: ResizeFilter::Bicubic,
    },
    VisionArchitecture {
        model_types: &[("dinov2", None)],
        before: "dinov2.",
        keys: &encoder_keys::DINOV2,
        passed_over: &["pooler.", "embeddings.mask_token"],
        config: dinov2,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        filter: ResizeFilter::Bicubic,
    },
    VisionArchitecture {
        model_types: &[("dinov2_with_registers", None)],
        before: "dinov2_with_registers.",
        keys: &encoder_keys::DINOV2_WITH_REGISTERS,
        passed_over: &["pooler.", "embeddings.mask_token"],
        config: |vision| {
            let registers = vision.count("num_register_tokens")?.unwrap_or(4);
            Ok(EncoderConfig { prefix_tokens: 1 + registers, ..dinov2(vision)? })
        },
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        filter: ResizeFilter::Bicubic,
    },
    VisionArchitecture {
        model_types: &[("clip_vision_model", None), ("clip", Some("vision_config"))],
        before: "vision_model.",
        keys: &encoder_keys::CLIP,
        // CLIP normalises what it pools, and nothing else.
        passed_over: &["post_layernorm.", "embeddings.position_ids"],
        config: |vision| {
            Ok(EncoderConfig {
                patch_size: vision.count("patch_size")?.unwrap_or(32),
                patch_bias: false,
                embedding_norm: true,
                // What cross-attention reads has none: `post_layernorm` is for the pooled class token.
                final_norm: false,
                qkv_bias: true,
                activation: vision.activation("hidden_act", Activation::QuickGelu)?,
                layer_norm_epsilon: vision.number("layer_norm_eps")?.unwrap_or(1e-5),
                ..vision_encoder(vision, EncoderFamily::Vit)?
            })
        },
        mean: CLIP_MEAN,
        std: CLIP_STD,
        filter: ResizeFilter::Bicubic,
    },
    VisionArchitecture {
        model_types: &[("siglip_vision_model", None), ("siglip", Some("vision_config"))],
        before: "vision_model.",
        keys: &encoder_keys::SIGLIP,
        passed_over: &["head.", "embeddings.position_ids"],
        config: siglip,
        mean: [0.5; 3],
        std: [0.5; 3],
        filter: ResizeFilter::Bicubic,
    },
    VisionArchitecture {
        model_types: &[("siglip2_vision_model", None), ("siglip2", Some("vision_config"))],
        before: "vision_model.",
        keys: &encoder_keys::SIGLIP2,
        passed_over: &["head.", "embeddings.position_ids"],
        config: |vision| {
            // Its table of positions is a square, from which those of other shapes are made.
            let positions = vision.count("num_patches")?.unwrap_or(256);
            let config = siglip(vision)?;
            let side = positions.isqrt() * config.patch_size;
            if positions.isqrt().pow(2) != positions {
                return Err(vision.wrong("num_patches", "the square of a whole number"));
            }
            Ok(EncoderConfig { image_height: side, image_width: side, ..config })
        },
        mean: [0.5; 3],
        std: [0.5; 3],
        filter: ResizeFilter::Bilinear,
    },
];

fn dinov2(vision: &Section) -> Result<EncoderConfig, CheckpointError> {
    if vision.flag("use_swiglu_ffn")?.unwrap_or(false) {
        let problem = "`use_swiglu_ffn` is true (DINOv2 giant); expected false";
        return Err(vision.invalid(problem.into()));
    }
    let config = vision_encoder(vision, EncoderFamily::Vit)?;
    let ratio = vision.number("mlp_ratio")?.unwrap_or(4.0);
    Ok(EncoderConfig {
        patch_size: vision.count("patch_size")?.unwrap_or(14),
        d_ff: (config.d_model as f64 * ratio) as usize,
        layer_scale: true,
        layer_norm_epsilon: vision.number("layer_norm_eps")?.unwrap_or(1e-6),
        ..config
    })
}

fn siglip(vision: &Section) -> Result<EncoderConfig, CheckpointError> {
    Ok(EncoderConfig {
        prefix_tokens: 0,
        qkv_bias: true,
        activation: vision.activation("hidden_act", Activation::GeluTanh)?,
        layer_norm_epsilon: vision.number("layer_norm_eps")?.unwrap_or(1e-6),
        ..vision_encoder(vision, EncoderFamily::Vit)?
    })
}

/// Reads such a folder; `fields` is its `config.json`.
///
/// # Errors
/// The file, key or tensor at fault, tensors under their public names.
pub(in crate::checkpoint) fn load_encoder(
    folder: &Path,
    fields: &Map<String, Value>,
) -> Result<PretrainedEncoder, CheckpointError> {
    let file = folder.join("config.json");
    let root = Section { file: &file, path: String::new(), fields };
    let named = root.text("model_type")?.unwrap_or_default();
    let mut all =
        ARCHITECTURES.iter().flat_map(|one| one.model_types.iter().map(move |t| (one, t)));
    let Some((architecture, (_, section))) = all.find(|(_, (name, _))| *name == named) else {
        let problem = format!("`model_type` is \"{named:.60}\"; patchword reads {KNOWN}");
        return Err(root.invalid(problem));
    };
    let vision = match section {
        Some(section) => root.section(section)?,
        None => root,
    };
    let config = (architecture.config)(&vision)?;
    let preprocess = preprocess(folder, &config, architecture)?;
    let weights = WeightFile::find(folder)?.unwrapped();
    let import = import(&weights, architecture, &config)?;
    let encoder = VisionEncoder::new(&config, &Device::flex())
        .map_err(|error| vision.invalid(error.to_string()))?;
    let alone = apply(Alone { encoder }, import, weights.origin())?;
    Ok(PretrainedEncoder {
        origin: folder.into(),
        config,
        part: EncoderPart::Whole,
        tensors: parameters(&alone),
        preprocess,
    })
}

/// How the pixels are normalised. Photos are squashed, not cropped: a captioner must see all of them.
fn preprocess(
    folder: &Path,
    config: &EncoderConfig,
    architecture: &VisionArchitecture,
) -> Result<PreprocessConfig, CheckpointError> {
    let VisionArchitecture { mean, std, filter, .. } = *architecture;
    let Colours { mean, std, filter } = colours(folder, Colours { mean, std, filter })?;
    let preprocess = PreprocessConfig {
        height: config.image_height,
        width: config.image_width,
        resize: ResizeMode::Squash,
        crop_from: None,
        filter,
        mean,
        std,
    };
    preprocess.validate().map_err(|error| CheckpointError::Invalid {
        file: folder.into(),
        problem: error.to_string(),
    })?;
    Ok(preprocess)
}

/// Recipes for the encoder's parameters. What stands outside of the encoder is left aside.
fn import<'a>(
    weights: &'a WeightFile,
    architecture: &VisionArchitecture,
    config: &EncoderConfig,
) -> Result<Import<'a>, CheckpointError> {
    let part = architecture.before;
    let is_part = |keys: &EncoderKeys| weights.contains(&format!("{part}{}", keys.anchor()));
    let before = if architecture.keys.iter().any(is_part) { part } else { "" };
    let mut import = Import::new(weights);
    map_encoder(&mut import, architecture.keys, before, config)?;
    import.finish(|name| match name.strip_prefix(before) {
        Some(name) => architecture.passed_over.iter().any(|begin| name.starts_with(begin)),
        None => true,
    })
}
