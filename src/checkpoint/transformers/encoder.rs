//! Hugging Face folders of a vision encoder alone, or with a head or a text model that is left aside:
//! ViT, DeiT, DINOv2 and CLIP as configs and key maps of the one encoder.

use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value};

use super::super::encoder::{Alone, EncoderPart, IMAGENET_MEAN, IMAGENET_STD, PretrainedEncoder};
use super::super::tensors::{apply, parameters};
use super::super::weight_file::WeightFile;
use super::super::{CheckpointError, read_json};
use super::config::{EncoderFamily, Section, vision_encoder};
use super::weights::{Import, KeyMap, attention_and_feed_forward, vit_encoder};
use crate::image::{PreprocessConfig, ResizeFilter, ResizeMode};
use crate::model::{Activation, EncoderConfig, VisionEncoder};

/// The encoders that can be read, for errors.
const KNOWN: &str =
    "ViT, DeiT, DINOv2 and CLIP, torchvision's MobileNetV2, and the encoders of captioners";

/// How OpenAI's CLIP wants its pixels.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Vit,
    Deit,
    Dinov2,
    Clip,
}

impl Family {
    /// What may stand before the encoder's names: nothing, or the model that it is a part of.
    fn prefixes(self) -> [&'static str; 2] {
        match self {
            Self::Vit => ["", "vit."],
            Self::Deit => ["", "deit."],
            Self::Dinov2 => ["", "dinov2."],
            Self::Clip => ["", "vision_model."],
        }
    }

    /// A tensor that every such encoder has.
    fn anchor(self) -> &'static str {
        match self {
            Self::Clip => "embeddings.patch_embedding.weight",
            _ => "embeddings.patch_embeddings.projection.weight",
        }
    }

    /// Whether a tensor has no part in the features of patches: pooling, masking, position ids.
    fn passes_over(self, name: &str) -> bool {
        let pools = match self {
            // CLIP normalises what it pools, and nothing else.
            Self::Clip => name.starts_with("post_layernorm."),
            _ => name.starts_with("pooler."),
        };
        pools || ["embeddings.mask_token", "embeddings.position_ids"].contains(&name)
    }
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
    let (family, vision) = match root.text("model_type")?.unwrap_or_default() {
        "vit" => (Family::Vit, root),
        "deit" => (Family::Deit, root),
        "dinov2" => (Family::Dinov2, root),
        "clip_vision_model" => (Family::Clip, root),
        "clip" => (Family::Clip, root.section("vision_config")?),
        other => {
            let problem = format!("`model_type` is \"{other}\"; patchword reads {KNOWN}");
            return Err(root.invalid(problem));
        }
    };
    let config = describe(&vision, family)?;
    let preprocess = preprocess(folder, &config, family)?;
    let weights = WeightFile::find(folder)?;
    let import = import(&weights, family, &config)?;
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

fn describe(vision: &Section, family: Family) -> Result<EncoderConfig, CheckpointError> {
    let size = |key, usual| Ok::<usize, CheckpointError>(vision.count(key)?.unwrap_or(usual));
    let names = if family == Family::Deit { EncoderFamily::Deit } else { EncoderFamily::Vit };
    let config = vision_encoder(vision, names)?;
    Ok(match family {
        Family::Vit | Family::Deit => config,
        Family::Dinov2 => {
            if vision.flag("use_swiglu_ffn")?.unwrap_or(false) {
                let problem = "`use_swiglu_ffn` is true (DINOv2 giant); expected false";
                return Err(vision.invalid(problem.into()));
            }
            let ratio = vision.number("mlp_ratio")?.unwrap_or(4.0);
            EncoderConfig {
                patch_size: size("patch_size", 14)?,
                d_ff: (config.d_model as f64 * ratio) as usize,
                layer_scale: true,
                layer_norm_epsilon: vision.number("layer_norm_eps")?.unwrap_or(1e-6),
                ..config
            }
        }
        Family::Clip => EncoderConfig {
            patch_size: size("patch_size", 32)?,
            patch_bias: false,
            embedding_norm: true,
            // What cross-attention reads has none: `post_layernorm` is for the pooled class token.
            final_norm: false,
            qkv_bias: true,
            activation: vision.activation("hidden_act", Activation::QuickGelu)?,
            layer_norm_epsilon: vision.number("layer_norm_eps")?.unwrap_or(1e-5),
            ..config
        },
    })
}

/// How the pixels are normalised. Photos are squashed, not cropped: a captioner must see all of them.
fn preprocess(
    folder: &Path,
    config: &EncoderConfig,
    family: Family,
) -> Result<PreprocessConfig, CheckpointError> {
    let (mean, std, filter) = match family {
        Family::Vit => ([0.5; 3], [0.5; 3], ResizeFilter::Bilinear),
        Family::Deit | Family::Dinov2 => (IMAGENET_MEAN, IMAGENET_STD, ResizeFilter::Bicubic),
        Family::Clip => (CLIP_MEAN, CLIP_STD, ResizeFilter::Bicubic),
    };
    let mut file = folder.join("preprocessor_config.json");
    let newer = folder.join("processor_config.json");
    let mut fields: Map<String, Value> = Map::new();
    if file.is_file() {
        fields = read_json(&file)?;
    } else if newer.is_file() {
        file = newer;
        fields = read_json(&file)?;
    }
    let all = Section { file: &file, path: String::new(), fields: &fields };
    let section = match fields.contains_key("image_processor") {
        true => all.section("image_processor")?,
        false => all,
    };
    // Pillow's numbers.
    let filter = match section.count("resample")? {
        None => filter,
        Some(1) => ResizeFilter::Lanczos,
        Some(2) => ResizeFilter::Bilinear,
        Some(3) => ResizeFilter::Bicubic,
        Some(_) => {
            return Err(section.wrong("resample", "1 (Lanczos), 2 (bilinear) or 3 (bicubic)"));
        }
    };
    let preprocess = PreprocessConfig {
        height: config.image_height,
        width: config.image_width,
        resize: ResizeMode::Squash,
        crop_from: None,
        filter,
        mean: section.triple("image_mean")?.unwrap_or(mean),
        std: section.triple("image_std")?.unwrap_or(std),
    };
    preprocess.validate().map_err(|error| section.invalid(error.to_string()))?;
    Ok(preprocess)
}

/// Recipes for the encoder's parameters. What stands outside of the encoder is left aside.
fn import<'a>(
    weights: &'a WeightFile,
    family: Family,
    config: &EncoderConfig,
) -> Result<Import<'a>, CheckpointError> {
    let [bare, part] = family.prefixes();
    let prefix = match weights.contains(&format!("{part}{}", family.anchor())) {
        true => part,
        false => bare,
    };
    let mut import = Import::new(weights);
    match family {
        Family::Vit | Family::Deit => vit_encoder(&mut import, prefix, config)?,
        Family::Dinov2 => dinov2(&mut import, prefix, config.num_layers)?,
        Family::Clip => clip(&mut import, prefix, config.num_layers)?,
    }
    import.finish(|name| match name.strip_prefix(prefix) {
        Some(name) => family.passes_over(name),
        None => true,
    })
}

fn dinov2(import: &mut Import, prefix: &str, num_layers: usize) -> Result<(), CheckpointError> {
    let embeddings = format!("{prefix}embeddings");
    import.patches(&format!("{embeddings}.patch_embeddings.projection"))?;
    import.flat("encoder.prefix_tokens", &format!("{embeddings}.cls_token"))?;
    import.flat("encoder.position_embedding", &format!("{embeddings}.position_embeddings"))?;
    for layer in 0..num_layers {
        let (ours, theirs) =
            (format!("encoder.layers.{layer}"), format!("{prefix}encoder.layer.{layer}"));
        import.norm(&format!("{ours}.attention_norm"), &format!("{theirs}.norm1"))?;
        import.norm(&format!("{ours}.feed_forward_norm"), &format!("{theirs}.norm2"))?;
        import
            .copy(&format!("{ours}.attention_scale"), &format!("{theirs}.layer_scale1.lambda1"))?;
        import.copy(
            &format!("{ours}.feed_forward_scale"),
            &format!("{theirs}.layer_scale2.lambda1"),
        )?;
        attention_and_feed_forward(
            import,
            &ours,
            ["query", "key", "value"].map(|part| format!("{theirs}.attention.attention.{part}")),
            [
                format!("{theirs}.attention.output.dense"),
                format!("{theirs}.mlp.fc1"),
                format!("{theirs}.mlp.fc2"),
            ],
        )?;
    }
    import.norm("encoder.final_norm", &format!("{prefix}layernorm"))
}

fn clip(import: &mut Import, prefix: &str, num_layers: usize) -> Result<(), CheckpointError> {
    let embeddings = format!("{prefix}embeddings");
    import.patches(&format!("{embeddings}.patch_embedding"))?;
    import.flat("encoder.prefix_tokens", &format!("{embeddings}.class_embedding"))?;
    import
        .flat("encoder.position_embedding", &format!("{embeddings}.position_embedding.weight"))?;
    // Spelt so.
    import.norm("encoder.embedding_norm", &format!("{prefix}pre_layrnorm"))?;
    for layer in 0..num_layers {
        let (ours, theirs) =
            (format!("encoder.layers.{layer}"), format!("{prefix}encoder.layers.{layer}"));
        import.norm(&format!("{ours}.attention_norm"), &format!("{theirs}.layer_norm1"))?;
        import.norm(&format!("{ours}.feed_forward_norm"), &format!("{theirs}.layer_norm2"))?;
        attention_and_feed_forward(
            import,
            &ours,
            ["q", "k", "v"].map(|part| format!("{theirs}.self_attn.{part}_proj")),
            [
                format!("{theirs}.self_attn.out_proj"),
                format!("{theirs}.mlp.fc1"),
                format!("{theirs}.mlp.fc2"),
            ],
        )?;
    }
    Ok(())
}
