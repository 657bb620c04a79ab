//! The BLIP repository's own files of weights (`model_base_caption_capfilt_large.pth`, …). There is no
//! config beside them: the sizes are those of the tensors, the rest is the same for all of them.

use std::path::Path;

use super::super::CheckpointError;
use super::super::weight_file::WeightFile;
use super::config::{DecoderFamily, Description, EncoderFamily};
use crate::generate::GenerateConfig;
use crate::image::{PreprocessConfig, ResizeFilter, ResizeMode};
use crate::model::{
    Activation, CaptionerConfig, DecoderConfig, EncoderConfig, HeadKind, NormPlacement,
};
use crate::text::{SpecialTokenNames, SpecialTokens, Tokenizer};

/// Channels of a head, in BLIP's encoders as in its decoders.
const HEAD: usize = 64;

/// Whether these are such weights at all.
pub(super) fn check(weights: &WeightFile) -> Result<(), CheckpointError> {
    if weights.contains("visual_encoder.cls_token") {
        return Ok(());
    }
    Err(CheckpointError::Invalid {
        file: weights.origin().into(),
        problem: "of files, only the original captioners of the BLIP repository \
                  (`visual_encoder.…`, `text_decoder.…`) are read; name the folder that holds the \
                  model"
            .into(),
    })
}

/// The tokenizer that must lie beside the weights.
pub(super) fn tokenizer(weights: &Path) -> Result<Tokenizer, CheckpointError> {
    let file = weights.with_file_name("tokenizer.json");
    if !file.is_file() {
        return Err(CheckpointError::Invalid {
            file,
            problem: "is not here; put the tokenizer.json of bert-base-uncased beside the weights"
                .into(),
        });
    }
    Ok(Tokenizer::from_file(&file, &SpecialTokenNames::default())?)
}

/// The model that the tensors make. The ends of `tokenizer` are BERT's; captions begin with a token
/// that was added behind its vocabulary, followed by one that captioning does not use.
pub(super) fn describe(
    weights: &WeightFile,
    tokenizer: &Tokenizer,
) -> Result<Description, CheckpointError> {
    let family = DecoderFamily::Blip;
    let model = CaptionerConfig { encoder: encoder(weights)?, decoder: decoder(weights, family)? };
    model.validate().map_err(|error| invalid(weights, error.to_string()))?;
    let ends = tokenizer.special_tokens();
    let special = SpecialTokens {
        bos: u32::try_from(model.decoder.vocab_size.saturating_sub(2)).unwrap_or_default(),
        ..ends
    };
    // As the repository evaluates its captions of COCO.
    let generate = GenerateConfig {
        num_beams: 3,
        max_new_tokens: 20.min(model.decoder.max_positions),
        ..GenerateConfig::default()
    };
    Ok(Description {
        encoder: EncoderFamily::BlipOriginal,
        decoder: family,
        model,
        special,
        generate,
    })
}

fn invalid(weights: &WeightFile, problem: String) -> CheckpointError {
    CheckpointError::Invalid { file: weights.origin().into(), problem }
}

fn size(weights: &WeightFile, tensor: &str, dimension: usize) -> Result<usize, CheckpointError> {
    let shape = weights.shape(tensor).ok_or_else(|| CheckpointError::MissingTensor {
        file: weights.origin().into(),
        tensor: tensor.into(),
        shape: Vec::new(),
    })?;
    let size = shape.get(dimension).copied();
    size.ok_or_else(|| invalid(weights, format!("tensor `{tensor}` has shape {shape:?}")))
}

fn layers(weights: &WeightFile, before: &str, behind: &str) -> usize {
    (0..).take_while(|layer| weights.contains(&format!("{before}.{layer}.{behind}"))).count()
}

fn encoder(weights: &WeightFile) -> Result<EncoderConfig, CheckpointError> {
    let d_model = size(weights, "visual_encoder.cls_token", 2)?;
    let patch_size = size(weights, "visual_encoder.patch_embed.proj.weight", 3)?;
    let positions = size(weights, "visual_encoder.pos_embed", 1)?;
    let side = positions.saturating_sub(1).isqrt();
    if side * side + 1 != positions {
        return Err(invalid(
            weights,
            format!(
                "tensor `visual_encoder.pos_embed` has {positions} positions; expected those of a \
                 square and its class token"
            ),
        ));
    }
    let image_side = side.saturating_mul(patch_size);
    Ok(EncoderConfig {
        image_height: image_side,
        image_width: image_side,
        patch_size,
        d_model,
        num_layers: layers(weights, "visual_encoder.blocks", "norm1.weight"),
        num_heads: (d_model / HEAD).max(1),
        d_ff: size(weights, "visual_encoder.blocks.0.mlp.fc1.weight", 0)?,
        prefix_tokens: 1,
        final_norm: true,
        qkv_bias: true,
        activation: Activation::Gelu,
        layer_norm_epsilon: 1e-6,
        dropout: 0.0,
        ..EncoderConfig::default()
    })
}

fn decoder(weights: &WeightFile, family: DecoderFamily) -> Result<DecoderConfig, CheckpointError> {
    let (tokens, body) = (family.tokens(), family.body());
    let d_model = size(weights, &tokens, 1)?;
    let is_untied = weights.contains(family.output()) && !weights.same(family.output(), &tokens)?;
    let head = if is_untied { HeadKind::TransformUntied } else { HeadKind::TransformTied };
    let positions = format!("{body}.embeddings.position_embeddings.weight");
    let wide = format!("{body}.encoder.layer.0.intermediate.dense.weight");
    Ok(DecoderConfig {
        vocab_size: size(weights, &tokens, 0)?,
        max_positions: size(weights, &positions, 0)?,
        d_model,
        num_layers: layers(
            weights,
            &format!("{body}.encoder.layer"),
            "attention.self.query.weight",
        ),
        num_heads: (d_model / HEAD).max(1),
        d_ff: size(weights, &wide, 0)?,
        norm: NormPlacement::Post,
        embedding_norm: true,
        final_norm: false,
        activation: Activation::Gelu,
        layer_norm_epsilon: 1e-12,
        position_offset: 0,
        memory_projection: false,
        head,
        head_bias: true,
        dropout: 0.0,
    })
}

/// How BLIP sees photos.
pub(super) fn preprocess(model: &CaptionerConfig) -> PreprocessConfig {
    PreprocessConfig {
        height: model.encoder.image_height,
        width: model.encoder.image_width,
        resize: ResizeMode::Squash,
        crop_from: None,
        filter: ResizeFilter::Bicubic,
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    }
}
