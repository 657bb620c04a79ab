//! A captioner as a folder that transformers' `from_pretrained` loads.

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::tensors::{self, HostTensor, HostTensors};
use super::super::{Architecture, Checkpoint, CheckpointError, write_json};
use super::config::{DecoderFamily, Description, EncoderFamily};
use super::recipe::transposed;
use super::weights::{KeyMap, map_all};
use crate::generate::{EarlyStopping, GenerateConfig};
use crate::image::{PreprocessConfig, ResizeFilter, ResizeMode};
use crate::model::{
    Activation, CaptionerConfig, DecoderConfig, EncoderConfig, HeadKind, NormPlacement,
    PatchPositions,
};
use crate::text::{SpecialTokens, Tokenizer};

/// Fills an empty folder.
///
/// # Errors
/// What transformers' classes cannot express, by the key of the config, or a file that cannot be
/// written.
pub(in super::super) fn write(
    checkpoint: &Checkpoint,
    folder: &Path,
) -> Result<(), CheckpointError> {
    let unlike = |problem: String| CheckpointError::NotForTransformers {
        model: checkpoint.folder.clone(),
        problem,
    };
    let description = describe(
        checkpoint.model.config(),
        checkpoint.architecture,
        checkpoint.tokenizer.special_tokens(),
        &checkpoint.generate,
    )
    .map_err(unlike)?;
    let mut export =
        Export { ours: tensors::parameters(&checkpoint.model), theirs: HostTensors::new() };
    map_all(&mut export, &description)?;
    if let Some(name) = export.ours.keys().next() {
        return Err(unlike(format!("the model's `{name}` has no place in transformers' classes")));
    }
    write_json(&folder.join("config.json"), &config(&description))?;
    write_json(&folder.join("generation_config.json"), &generation(&description))?;
    let pixels = preprocessor(&checkpoint.preprocess, description.encoder).map_err(unlike)?;
    write_json(&folder.join("preprocessor_config.json"), &pixels)?;
    checkpoint.tokenizer.save(&folder.join("tokenizer.json"))?;
    write_json(&folder.join("tokenizer_config.json"), &tokenizer_config(&checkpoint.tokenizer))?;
    // Its licence holds for this form of it too.
    let card = folder.join("README.md");
    let mut text = fs::read(checkpoint.folder.join("README.md")).unwrap_or_default();
    if description.encoder == EncoderFamily::Blip {
        text.extend(BLIP_NOTE.as_bytes());
    }
    if !text.is_empty() {
        fs::write(&card, text).map_err(|source| CheckpointError::io(&card, source))?;
    }
    let metadata = [("format".to_string(), "pt".to_string())].into();
    tensors::write(&folder.join("model.safetensors"), &export.theirs, metadata)
}

/// What the card of a BLIP model says besides.
const BLIP_NOTE: &str = "\n## In transformers\n\n`BlipForConditionalGeneration.generate` ignores \
                         `generation_config.json` and decodes greedily unless told otherwise: pass what that file says, \
                         `model.generate(**inputs, num_beams=…, max_new_tokens=…)`.\n";

/// `tokenizer_config.json`: the names of the special tokens that the vocabulary has, and whether text is
/// cleaned up.
fn tokenizer_config(tokenizer: &Tokenizer) -> Value {
    let special = tokenizer.special_tokens();
    let token = |id: u32| tokenizer.token(id);
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": tokenizer.cleans_up(),
        "bos_token": token(special.bos),
        "eos_token": token(special.eos),
        "pad_token": token(special.pad),
    });
    for (key, usual) in [
        ("unk_token", &["[UNK]", "<unk>"][..]),
        ("cls_token", &["[CLS]"]),
        ("sep_token", &["[SEP]"]),
        ("mask_token", &["[MASK]", "<mask>"]),
    ] {
        if let Some(name) = usual.iter().find(|name| tokenizer.id(name).is_some()) {
            config[key] = json!(name);
        }
    }
    config
}

/// Which of transformers' classes compute what the model computes; the message says what does not fit.
pub(super) fn describe(
    model: &CaptionerConfig,
    architecture: Option<Architecture>,
    special: SpecialTokens,
    generate: &GenerateConfig,
) -> Result<Description, String> {
    let (encoder, decoder) = (&model.encoder, &model.decoder);
    let require = |holds: bool, problem: &str| match holds {
        true => Ok(()),
        false => Err(format!("{problem}; it has no class for that")),
    };
    require(
        encoder.patches.mobilenet().is_none(),
        "the patches are a convolutional network's features (`encoder.backbone`)",
    )?;
    require(
        encoder.patches.stem().is_empty(),
        "convolutions stand before the patches (`encoder.stem`)",
    )?;
    require(
        encoder.positions == PatchPositions::Learned,
        "`encoder.positions` is not \"learned\"",
    )?;
    require(encoder.final_norm, "`encoder.final_norm` is false")?;
    require(!encoder.embedding_norm, "`encoder.embedding_norm` is true")?;
    require(!encoder.layer_scale, "`encoder.layer_scale` is true")?;
    require(encoder.patch_bias, "`encoder.patch_bias` is false")?;
    let encoder_family = match (encoder.prefix_tokens, architecture) {
        (1, Some(Architecture::Blip)) => EncoderFamily::Blip,
        (1, _) => EncoderFamily::Vit,
        (2, _) => EncoderFamily::Deit,
        _ => {
            return Err("`encoder.prefix_tokens` is 0, but its ViT always has a class token".into());
        }
    };
    let decoder_family = if decoder.norm == NormPlacement::Pre {
        require(decoder.final_norm, "`decoder.final_norm` is false")?;
        require(!decoder.embedding_norm, "`decoder.embedding_norm` is true")?;
        require(!decoder.head_bias, "`decoder.head_bias` is true")?;
        require(decoder.position_offset == 0, "`decoder.position_offset` is not 0")?;
        let plain = matches!(decoder.head, HeadKind::Tied | HeadKind::Untied);
        require(plain, "`decoder.head` has a transform, with norms before each block")?;
        DecoderFamily::Gpt2
    } else {
        require(!decoder.final_norm, "`decoder.final_norm` is true, with norms after each block")?;
        require(decoder.embedding_norm, "`decoder.embedding_norm` is false")?;
        require(decoder.head_bias, "`decoder.head_bias` is false")?;
        let plain = matches!(decoder.head, HeadKind::Tied | HeadKind::Untied);
        require(!plain, "`decoder.head` has no transform")?;
        match (encoder_family, decoder.position_offset) {
            (EncoderFamily::Blip, 0) => DecoderFamily::Blip,
            (_, 0) => DecoderFamily::Bert,
            _ => DecoderFamily::Roberta,
        }
    };
    if encoder_family != EncoderFamily::Blip {
        let projects = encoder.d_model != decoder.d_model;
        let problem =
            "`decoder.memory_projection` is for encoders of another width, and only for them";
        require(decoder.memory_projection == projects, problem)?;
    }
    Ok(Description {
        encoder: encoder_family,
        decoder: decoder_family,
        special,
        generate: generate.clone(),
        model: model.clone(),
    })
}

fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::QuickGelu => "quick_gelu",
        Activation::Relu => "relu",
    }
}

fn config(description: &Description) -> Value {
    let special = description.special;
    let decoder = &description.model.decoder;
    let tied = matches!(decoder.head, HeadKind::Tied | HeadKind::TransformTied);
    let mut vision = vision(description.encoder, &description.model.encoder);
    let mut text = text(description.decoder, decoder, tied);
    let own = |fields: Value| match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    if description.encoder == EncoderFamily::Blip {
        vision.insert("model_type".into(), "blip_vision_model".into());
        text.extend(own(json!({
            "model_type": "blip_text_model",
            "encoder_hidden_size": description.model.encoder.d_model,
            "bos_token_id": special.bos,
            "eos_token_id": special.eos,
            "sep_token_id": special.eos,
            "pad_token_id": special.pad,
        })));
        return json!({
            "architectures": ["BlipForConditionalGeneration"],
            "model_type": "blip",
            "dtype": "float32",
            "tie_word_embeddings": tied,
            "vision_config": vision,
            "text_config": text,
        });
    }
    text.extend(own(json!({ "bos_token_id": special.bos, "eos_token_id": special.eos })));
    json!({
        "architectures": ["VisionEncoderDecoderModel"],
        "model_type": "vision-encoder-decoder",
        "dtype": "float32",
        "is_encoder_decoder": true,
        "tie_word_embeddings": tied,
        "decoder_start_token_id": special.bos,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "pad_token_id": special.pad,
        "encoder": vision,
        "decoder": text,
    })
}

fn vision(family: EncoderFamily, encoder: &EncoderConfig) -> Map<String, Value> {
    let (height, width) = (encoder.image_height, encoder.image_width);
    let side = if height == width { json!(height) } else { json!([height, width]) };
    let fields = json!({
        "model_type": if family == EncoderFamily::Deit { "deit" } else { "vit" },
        "image_size": side,
        "patch_size": encoder.patch_size,
        "num_channels": 3,
        "hidden_size": encoder.d_model,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": encoder.d_ff,
        "hidden_act": activation(encoder.activation),
        "layer_norm_eps": encoder.layer_norm_epsilon,
        "qkv_bias": encoder.qkv_bias,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

fn text(family: DecoderFamily, decoder: &DecoderConfig, tied: bool) -> Map<String, Value> {
    let fields = match family {
        DecoderFamily::Gpt2 => json!({
            "model_type": "gpt2",
            "vocab_size": decoder.vocab_size,
            "n_positions": decoder.max_positions,
            "n_embd": decoder.d_model,
            "n_layer": decoder.num_layers,
            "n_head": decoder.num_heads,
            "n_inner": decoder.d_ff,
            "activation_function": activation(decoder.activation),
            "layer_norm_epsilon": decoder.layer_norm_epsilon,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "add_cross_attention": true,
            "is_decoder": true,
            "tie_word_embeddings": tied,
        }),
        _ => json!({
            "model_type": if family == DecoderFamily::Roberta { "roberta" } else { "bert" },
            "vocab_size": decoder.vocab_size,
            "max_position_embeddings": decoder.position_offset + decoder.max_positions,
            "type_vocab_size": TOKEN_TYPES,
            "hidden_size": decoder.d_model,
            "num_hidden_layers": decoder.num_layers,
            "num_attention_heads": decoder.num_heads,
            "intermediate_size": decoder.d_ff,
            "hidden_act": activation(decoder.activation),
            "layer_norm_eps": decoder.layer_norm_epsilon,
            // RoBERTa's first position is the one after the padding id.
            "pad_token_id": decoder.position_offset.saturating_sub(1),
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "add_cross_attention": true,
            "is_decoder": true,
            "tie_word_embeddings": tied,
        }),
    };
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

/// Rows of the table of token types, which are all zero: ours lie in the positions.
const TOKEN_TYPES: usize = 2;

fn generation(description: &Description) -> Value {
    let (special, generate) = (description.special, &description.generate);
    let mut fields = json!({
        "num_beams": generate.num_beams,
        "max_new_tokens": generate.max_new_tokens,
        "min_new_tokens": generate.min_new_tokens,
        "length_penalty": generate.length_penalty,
        "early_stopping": match generate.early_stopping {
            EarlyStopping::Heuristic => json!(false),
            EarlyStopping::AtOnce => json!(true),
            EarlyStopping::Never => json!("never"),
        },
        "no_repeat_ngram_size": generate.no_repeat_ngram_size,
        "repetition_penalty": generate.repetition_penalty,
        "num_return_sequences": generate.num_captions,
        "do_sample": generate.do_sample,
        "bos_token_id": special.bos,
        "decoder_start_token_id": special.bos,
        "eos_token_id": special.eos,
        "pad_token_id": special.pad,
    });
    if let Value::Object(fields) = &mut fields {
        let mut put = |key: &str, value: Value, is_set: bool| {
            if is_set {
                fields.insert(key.into(), value);
            }
        };
        if !generate.eos_token_ids.is_empty() {
            let ends: Vec<u32> =
                [special.eos].into_iter().chain(generate.eos_token_ids.clone()).collect();
            put("eos_token_id", json!(ends), true);
        }
        put("temperature", json!(generate.temperature), generate.do_sample);
        put("top_k", json!(generate.top_k), generate.do_sample);
        put("top_p", json!(generate.top_p), generate.do_sample);
        put("min_length", json!(generate.min_length), generate.min_length > 0);
        put("max_length", json!(generate.max_length), generate.max_length.is_some());
        put(
            "suppress_tokens",
            json!(generate.suppress_tokens),
            !generate.suppress_tokens.is_empty(),
        );
        let begin = &generate.begin_suppress_tokens;
        put("begin_suppress_tokens", json!(begin), !begin.is_empty());
        put("bad_words_ids", json!(generate.bad_words_ids), !generate.bad_words_ids.is_empty());
        let forced = generate.forced_bos_token_id;
        put("forced_bos_token_id", json!(forced), forced.is_some());
        let forced = &generate.forced_eos_token_ids;
        put("forced_eos_token_id", json!(forced), !forced.is_empty());
    }
    fields
}

fn preprocessor(preprocess: &PreprocessConfig, family: EncoderFamily) -> Result<Value, String> {
    let PreprocessConfig { height, width, resize, crop_from, .. } = *preprocess;
    let size = match (resize, crop_from) {
        (ResizeMode::Squash, from) => {
            let [height, width] = from.unwrap_or([height, width]);
            json!({ "height": height, "width": width })
        }
        (ResizeMode::Crop, Some([edge, other])) if edge == other => {
            json!({ "shortest_edge": edge })
        }
        _ => {
            return Err(
                "photos are cropped or padded to the model's shape: transformers' processor \
                        of these models squashes them; train with image.resize = \"squash\""
                    .into(),
            );
        }
    };
    let kind = match (family, crop_from) {
        (EncoderFamily::Blip, None) => "BlipImageProcessor",
        (_, None) => "ViTImageProcessor",
        // The one of them that crops.
        (_, Some(_)) => "DeiTImageProcessor",
    };
    let mut fields = json!({
        "image_processor_type": kind,
        "do_convert_rgb": true,
        "do_resize": true,
        "size": size,
        // Pillow's numbers.
        "resample": match preprocess.filter {
            ResizeFilter::Lanczos => 1,
            ResizeFilter::Bilinear => 2,
            ResizeFilter::Bicubic => 3,
            ResizeFilter::Nearest => 0,
            ResizeFilter::Box => 4,
            ResizeFilter::Hamming => 5,
        },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
    });
    if let (Some(_), Value::Object(fields)) = (crop_from, &mut fields) {
        fields.insert("do_center_crop".into(), json!(true));
        fields.insert("crop_size".into(), json!({ "height": height, "width": width }));
    }
    Ok(fields)
}

/// Follows the key maps from our tensors to theirs.
struct Export {
    ours: HostTensors,
    theirs: HostTensors,
}

impl Export {
    /// A tensor of ours; all of those that a description promises are there.
    fn take(&mut self, name: &str) -> HostTensor {
        self.ours.remove(name).unwrap_or(HostTensor { shape: vec![0, 0], values: Vec::new() })
    }

    fn put(&mut self, name: &str, shape: Vec<usize>, values: Vec<f32>) {
        self.theirs.insert(name.into(), HostTensor { shape, values });
    }

    /// `[in, out]` as rows of `[out, in]`.
    fn turned(&mut self, ours: &str) -> (usize, usize, Vec<f32>) {
        let HostTensor { shape, values } = self.take(ours);
        let (input, out) =
            (shape.first().copied().unwrap_or(0), shape.last().copied().unwrap_or(0));
        (out, input, transposed(input, out, &values))
    }
}

impl KeyMap for Export {
    fn has(&self, _: &str) -> bool {
        true
    }

    fn patches_channels_last(&mut self, theirs: &str) -> Result<(), CheckpointError> {
        let (out, input, mut values) = self.turned("encoder.patch_embedding.weight");
        for row in values.chunks_exact_mut(input.max(1)) {
            let last = transposed(3, input / 3, row);
            row.copy_from_slice(&last);
        }
        self.put(&format!("{theirs}.weight"), vec![out, input], values);
        self.bias("encoder.patch_embedding", theirs)
    }

    fn gapped(
        &mut self,
        ours: &str,
        theirs: &str,
        rows: Range<usize>,
    ) -> Result<(), CheckpointError> {
        let HostTensor { shape, mut values } = self.take(ours);
        let width = shape.last().copied().unwrap_or(1).max(1);
        let end = (rows.end * width).min(values.len());
        values.drain((rows.start * width).min(end)..end);
        self.put(theirs, vec![1, values.len() / width, width], values);
        Ok(())
    }

    fn copy(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let HostTensor { shape, values } = self.take(ours);
        self.put(theirs, shape, values);
        Ok(())
    }

    fn flat(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let HostTensor { shape, values } = self.take(ours);
        self.put(theirs, [vec![1], shape].concat(), values);
        Ok(())
    }

    fn stacked(&mut self, ours: &str, theirs: &[&str]) -> Result<(), CheckpointError> {
        let HostTensor { shape, values } = self.take(ours);
        let width = shape.last().copied().unwrap_or(1).max(1);
        for (name, row) in theirs.iter().zip(values.chunks(width)) {
            self.put(name, vec![1, 1, width], row.to_vec());
        }
        Ok(())
    }

    fn add_first_row(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        // Of BLIP, which has no token types, the key map does not ask.
        let _ = ours;
        if theirs.starts_with("text_decoder.") {
            return Ok(());
        }
        let body = theirs.trim_end_matches("token_type_embeddings.weight");
        let positions = self.theirs.get(&format!("{body}position_embeddings.weight"));
        let width = positions.and_then(|table| table.shape.last().copied()).unwrap_or(0);
        self.put(theirs, vec![TOKEN_TYPES, width], vec![0.0; TOKEN_TYPES * width]);
        Ok(())
    }

    fn transposed(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let (out, input, values) = self.turned(ours);
        self.put(theirs, vec![out, input], values);
        Ok(())
    }

    fn bias(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{ours}.bias");
        if self.ours.contains_key(&name) {
            self.copy(&name, &format!("{theirs}.bias"))?;
        }
        Ok(())
    }

    fn patches(&mut self, theirs: &str) -> Result<(), CheckpointError> {
        let (out, input, values) = self.turned("encoder.patch_embedding.weight");
        let side = (input / 3).isqrt();
        self.put(&format!("{theirs}.weight"), vec![out, 3, side, side], values);
        self.bias("encoder.patch_embedding", theirs)
    }

    fn three(&mut self, ours: &str, theirs: [String; 3]) -> Result<(), CheckpointError> {
        let [query, key, value] = theirs;
        self.linear(&format!("{ours}.query"), &query)?;
        let (out, input, mut first) = self.turned(&format!("{ours}.key_value.weight"));
        let second = first.split_off(first.len() / 2);
        self.put(&format!("{key}.weight"), vec![out / 2, input], first);
        self.put(&format!("{value}.weight"), vec![out / 2, input], second);
        let bias = format!("{ours}.key_value.bias");
        if self.ours.contains_key(&bias) {
            let mut first = self.take(&bias).values;
            let second = first.split_off(first.len() / 2);
            self.put(&format!("{key}.bias"), vec![first.len()], first);
            self.put(&format!("{value}.bias"), vec![second.len()], second);
        }
        Ok(())
    }

    fn joint(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let (out, input, mut values) = self.turned(&format!("{ours}.query.weight"));
        let (more, _, rest) = self.turned(&format!("{ours}.key_value.weight"));
        values.extend(rest);
        self.put(&format!("{theirs}.weight"), vec![out + more, input], values);
        self.joint_bias(ours, theirs)
    }

    fn joint_conv1d(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let query = self.take(&format!("{ours}.query.weight"));
        let rest = self.take(&format!("{ours}.key_value.weight"));
        let width = |tensor: &HostTensor| tensor.shape.last().copied().unwrap_or(1).max(1);
        let (out, more) = (width(&query), width(&rest));
        let rows = query.values.chunks(out).zip(rest.values.chunks(more));
        let values = rows.flat_map(|(query, rest)| query.iter().chain(rest).copied()).collect();
        let input = query.shape.first().copied().unwrap_or(0);
        self.put(&format!("{theirs}.weight"), vec![input, out + more], values);
        self.joint_bias(ours, theirs)
    }

    fn head(
        &mut self,
        description: &Description,
        family: DecoderFamily,
    ) -> Result<(), CheckpointError> {
        match description.model.decoder.head {
            HeadKind::Untied | HeadKind::TransformUntied => {
                self.transposed("decoder.head.output.weight", family.output())
            }
            HeadKind::Tied | HeadKind::TransformTied => Ok(()),
        }
    }

    fn head_bias(
        &mut self,
        _: &Description,
        family: DecoderFamily,
        theirs: &str,
    ) -> Result<(), CheckpointError> {
        let HostTensor { shape, values } = self.take("decoder.head.bias");
        let own = format!("{}.bias", family.output().trim_end_matches(".weight"));
        self.put(&own, shape.clone(), values.clone());
        self.put(theirs, shape, values);
        Ok(())
    }
}

impl Export {
    fn joint_bias(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{ours}.query.bias");
        if self.ours.contains_key(&name) {
            let mut values = self.take(&name).values;
            values.extend(self.take(&format!("{ours}.key_value.bias")).values);
            self.put(&format!("{theirs}.bias"), vec![values.len()], values);
        }
        Ok(())
    }
}
