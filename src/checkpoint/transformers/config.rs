//! The JSON files of a Hugging Face folder, as configs of our one encoder and one decoder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::{CheckpointError, read_json};
use super::decoding::{Source, decoding};
use crate::generate::GenerateConfig;
use crate::model::{
    Activation, CaptionerConfig, DecoderConfig, EncoderConfig, HeadKind, NormPlacement,
};
use crate::text::SpecialTokens;

/// How the vision encoder's tensors are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EncoderFamily {
    /// `vision_model.…` with queries, keys and values in one matrix.
    Blip,
    /// `visual_encoder.…`, as in the BLIP repository's own files.
    BlipOriginal,
    /// `encoder.…`.
    Vit,
    /// As ViT, with a distillation token behind the class token.
    Deit,
}

/// How the text decoder's tensors are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecoderFamily {
    /// BERT below `text_decoder`.
    Blip,
    /// BERT below `decoder`.
    Bert,
    /// RoBERTa below `decoder`.
    Roberta,
    /// GPT-2 below `decoder`.
    Gpt2,
}

impl DecoderFamily {
    /// What stands before the names of the decoder's body.
    pub(super) fn body(self) -> &'static str {
        match self {
            Self::Blip => "text_decoder.bert",
            Self::Bert => "decoder.bert",
            Self::Roberta => "decoder.roberta",
            Self::Gpt2 => "decoder.transformer",
        }
    }

    /// The matrix that makes logits where it is not the token embedding.
    pub(super) fn output(self) -> &'static str {
        match self {
            Self::Blip => "text_decoder.cls.predictions.decoder.weight",
            Self::Bert => "decoder.cls.predictions.decoder.weight",
            Self::Roberta => "decoder.lm_head.decoder.weight",
            Self::Gpt2 => "decoder.lm_head.weight",
        }
    }

    /// The token embedding.
    pub(super) fn tokens(self) -> String {
        match self {
            Self::Gpt2 => format!("{}.wte.weight", self.body()),
            _ => format!("{}.embeddings.word_embeddings.weight", self.body()),
        }
    }
}

/// What the folder holds.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub encoder: EncoderFamily,
    pub decoder: DecoderFamily,
    pub model: CaptionerConfig,
    pub special: SpecialTokens,
    pub generate: GenerateConfig,
}

/// What only the weights tell.
pub(super) struct Evidence {
    /// Whether there is an `enc_to_dec_proj`.
    pub memory_projection: bool,
    /// Whether the output matrix differs from the token embedding.
    pub untied: bool,
}

/// The architectures that can be read, for errors.
const KNOWN: &str = "BlipForConditionalGeneration, and VisionEncoderDecoderModel with a `vit` \
                     or `deit` encoder and a `gpt2`, `bert` or `roberta` decoder";

/// Which tensors `config.json` promises, before any is read.
pub(super) fn families(
    file: &Path,
    config: &Map<String, Value>,
) -> Result<(EncoderFamily, DecoderFamily), CheckpointError> {
    let root = Section { file, path: String::new(), fields: config };
    let unknown = |what: &str| {
        root.invalid(format!("{}; patchword reads {KNOWN}", shortened(what.to_string())))
    };
    match root.text("model_type")?.unwrap_or_default() {
        "blip" => Ok((EncoderFamily::Blip, DecoderFamily::Blip)),
        "vision-encoder-decoder" => {
            let (encoder, decoder) = (root.section("encoder")?, root.section("decoder")?);
            let encoder = match encoder.text("model_type")?.unwrap_or_default() {
                "vit" => EncoderFamily::Vit,
                "deit" => EncoderFamily::Deit,
                other => return Err(unknown(&format!("`encoder.model_type` is \"{other}\""))),
            };
            match decoder.text("model_type")?.unwrap_or_default() {
                "gpt2" => Ok((encoder, DecoderFamily::Gpt2)),
                "bert" => Ok((encoder, DecoderFamily::Bert)),
                "roberta" => Ok((encoder, DecoderFamily::Roberta)),
                other => Err(unknown(&format!("`decoder.model_type` is \"{other}\""))),
            }
        }
        "" => Err(unknown("`model_type` is missing")),
        other => Err(unknown(&format!("`model_type` is \"{other}\""))),
    }
}

/// Reads `config.json`, and `generation_config.json` where there is one.
pub(super) fn describe(
    folder: &Path,
    config: &Map<String, Value>,
    (encoder, decoder): (EncoderFamily, DecoderFamily),
    evidence: &Evidence,
) -> Result<Description, CheckpointError> {
    let file = folder.join("config.json");
    let root = Section { file: &file, path: String::new(), fields: config };
    let own_file = folder.join("generation_config.json");
    let own: Option<Map<String, Value>> =
        own_file.is_file().then(|| read_json(&own_file)).transpose()?;
    let generation = match &own {
        Some(fields) => Section { file: &own_file, path: String::new(), fields },
        None => Section { file: &file, path: String::new(), fields: config },
    };
    let (vision, text) = match encoder {
        EncoderFamily::Blip | EncoderFamily::BlipOriginal => {
            (root.section("vision_config")?, root.section("text_config")?)
        }
        EncoderFamily::Vit | EncoderFamily::Deit => {
            (root.section("encoder")?, root.section("decoder")?)
        }
    };
    let model = CaptionerConfig {
        encoder: vision_encoder(&vision, encoder)?,
        decoder: text_decoder(&text, decoder, evidence)?,
    };
    model.validate().map_err(|error| root.invalid(error.to_string()))?;
    let id = |key: &str, places: &[&Section], otherwise: Option<u32>| {
        for place in places {
            if let Some(id) = place.id(key)? {
                return Ok(id);
            }
        }
        otherwise.ok_or_else(|| root.invalid(format!("no `{key}` in any of the configs")))
    };
    let special = match decoder {
        DecoderFamily::Blip => {
            // The end is [SEP]; the config's `eos_token_id` (2) is a word.
            let eos = id("sep_token_id", &[&text], Some(102))?;
            let bos = id("bos_token_id", &[&text], Some(30522))?;
            SpecialTokens { bos, eos, pad: id("pad_token_id", &[&text], Some(0))? }
        }
        _ => {
            let places = [&generation, &root, &text];
            let eos = id("eos_token_id", &places, None)?;
            let begin = id("bos_token_id", &places, None).ok();
            let bos = id("decoder_start_token_id", &places, begin)?;
            SpecialTokens { bos, eos, pad: id("pad_token_id", &places, Some(eos))? }
        }
    };
    let special = in_vocabulary(special, &[&generation, &root, &text], model.decoder.vocab_size)?;
    // BLIP's own config says nothing of decoding, and its only end is [SEP].
    let (source, ends) = match (&own, decoder) {
        (Some(_), DecoderFamily::Blip) => (Source::Own(&generation), Vec::new()),
        (Some(_), _) => (Source::Own(&generation), further_ends(&[&generation, &root, &text])?),
        (None, DecoderFamily::Blip) => (Source::Model(&[]), Vec::new()),
        (None, _) => (Source::Model(&[&root, &text]), further_ends(&[&root, &text])?),
    };
    let generate = decoding(&source, ends, &model)?;
    Ok(Description { encoder, decoder, model, special, generate })
}

/// Checks that the decoder has the tokens, which were found in one of `places`. One that only fills
/// batches up may be beyond them, as where it was added to a tokenizer and never to the model; the end
/// token then does as well.
fn in_vocabulary(
    special: SpecialTokens,
    places: &[&Section],
    vocab_size: usize,
) -> Result<SpecialTokens, CheckpointError> {
    let known = |id: u32| (id as usize) < vocab_size;
    let [.., last] = places else { return Ok(special) };
    let roles = [
        (special.bos, ["decoder_start_token_id", "bos_token_id"]),
        (special.eos, ["eos_token_id", "sep_token_id"]),
    ];
    for (id, keys) in roles {
        if known(id) {
            continue;
        }
        for (place, key) in places.iter().flat_map(|place| keys.map(|key| (place, key))) {
            if place.id(key)? == Some(id) {
                return Err(place.wrong(key, &format!("a token below {vocab_size}")));
            }
        }
        let [key, _] = keys;
        let problem = format!("`{key}`: {id} is usual; the model has {vocab_size} tokens");
        return Err(last.invalid(problem));
    }
    Ok(SpecialTokens { pad: if known(special.pad) { special.pad } else { special.eos }, ..special })
}

/// End tokens after the first, where `eos_token_id` is a list.
fn further_ends(places: &[&Section]) -> Result<Vec<u32>, CheckpointError> {
    for place in places {
        if let Some(ids) = place.ids("eos_token_id")? {
            return Ok(ids.into_iter().skip(1).collect());
        }
    }
    Ok(Vec::new())
}

pub(super) fn vision_encoder(
    vision: &Section,
    family: EncoderFamily,
) -> Result<EncoderConfig, CheckpointError> {
    let size = |key, usual| Ok::<usize, CheckpointError>(vision.count(key)?.unwrap_or(usual));
    let [image_height, image_width] = match vision.fields.get("image_size") {
        Some(Value::Array(_)) => vision.pair("image_size")?,
        _ => [size("image_size", if family == EncoderFamily::Blip { 384 } else { 224 })?; 2],
    };
    if size("num_channels", 3)? != 3 {
        return Err(vision.invalid("`num_channels`: expected 3".into()));
    }
    let epsilon = if family == EncoderFamily::Blip { 1e-5 } else { 1e-12 };
    Ok(EncoderConfig {
        image_height,
        image_width,
        patch_size: size("patch_size", 16)?,
        d_model: size("hidden_size", 768)?,
        num_layers: size("num_hidden_layers", 12)?,
        num_heads: size("num_attention_heads", 12)?,
        d_ff: size("intermediate_size", 3072)?,
        prefix_tokens: if family == EncoderFamily::Deit { 2 } else { 1 },
        final_norm: true,
        qkv_bias: vision.flag("qkv_bias")?.unwrap_or(true),
        activation: vision.activation("hidden_act", Activation::Gelu)?,
        layer_norm_epsilon: vision.number("layer_norm_eps")?.unwrap_or(epsilon),
        dropout: 0.0,
        ..EncoderConfig::default()
    })
}

fn text_decoder(
    text: &Section,
    family: DecoderFamily,
    evidence: &Evidence,
) -> Result<DecoderConfig, CheckpointError> {
    let size = |key, usual| Ok::<usize, CheckpointError>(text.count(key)?.unwrap_or(usual));
    // Without them transformers itself looks ahead, or away from the image.
    if matches!(family, DecoderFamily::Bert | DecoderFamily::Roberta)
        && text.flag("is_decoder")? == Some(false)
    {
        return Err(text.wrong("is_decoder", "true"));
    }
    if family != DecoderFamily::Blip && text.flag("add_cross_attention")? == Some(false) {
        return Err(text.wrong("add_cross_attention", "true"));
    }
    if family == DecoderFamily::Gpt2 {
        let usual = [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)];
        for (key, expected) in usual {
            if text.flag(key)?.unwrap_or(expected) != expected {
                return Err(text.invalid(format!("`{key}`: expected {expected}")));
            }
        }
        let d_model = size("n_embd", 768)?;
        return Ok(DecoderConfig {
            vocab_size: size("vocab_size", 50257)?,
            max_positions: size("n_positions", 1024)?,
            d_model,
            num_layers: size("n_layer", 12)?,
            num_heads: size("n_head", 12)?,
            d_ff: size("n_inner", 4 * d_model)?,
            norm: NormPlacement::Pre,
            embedding_norm: false,
            final_norm: true,
            activation: text.activation("activation_function", Activation::GeluTanh)?,
            layer_norm_epsilon: text.number("layer_norm_epsilon")?.unwrap_or(1e-5),
            position_offset: 0,
            memory_projection: evidence.memory_projection,
            head: if evidence.untied { HeadKind::Untied } else { HeadKind::Tied },
            head_bias: false,
            dropout: 0.0,
        });
    }
    let positions = text.text("position_embedding_type")?.unwrap_or("absolute");
    if positions != "absolute" {
        let problem =
            format!("`position_embedding_type` is \"{positions}\"; expected \"absolute\"");
        return Err(text.invalid(problem));
    }
    let roberta = family == DecoderFamily::Roberta;
    // RoBERTa's first position is the one after the padding id.
    let position_offset = if roberta { size("pad_token_id", 1)? + 1 } else { 0 };
    let rows = size("max_position_embeddings", 512)?;
    let d_model = size("hidden_size", 768)?;
    let num_heads = match size("num_attention_heads", 12)? {
        // Early configs of BLIP say 8, a default that its weights were not trained with.
        8 if family == DecoderFamily::Blip && d_model == 768 => 12,
        heads => heads,
    };
    Ok(DecoderConfig {
        vocab_size: size("vocab_size", 30522)?,
        max_positions: rows.saturating_sub(position_offset),
        d_model,
        num_layers: size("num_hidden_layers", 12)?,
        num_heads,
        d_ff: size("intermediate_size", 3072)?,
        norm: NormPlacement::Post,
        embedding_norm: true,
        final_norm: false,
        activation: text.activation("hidden_act", Activation::Gelu)?,
        layer_norm_epsilon: text.number("layer_norm_eps")?.unwrap_or(1e-12),
        position_offset,
        memory_projection: evidence.memory_projection,
        head: if evidence.untied { HeadKind::TransformUntied } else { HeadKind::TransformTied },
        head_bias: true,
        dropout: 0.0,
    })
}

/// Text of a file for an error, which must not fill a reader's screen.
fn shortened(text: String) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// An object of a JSON file; errors name the file and the key.
pub(super) struct Section<'a> {
    pub file: &'a Path,
    /// Keys above this object, with a dot behind each.
    pub path: String,
    pub fields: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    pub fn invalid(&self, problem: String) -> CheckpointError {
        CheckpointError::Invalid { file: PathBuf::from(self.file), problem }
    }

    pub fn wrong(&self, key: &str, expected: &str) -> CheckpointError {
        let found =
            self.fields.get(key).map_or("null".into(), |value| shortened(value.to_string()));
        self.invalid(format!("`{}{key}` is {found}; expected {expected}", self.path))
    }

    /// A value; `null` is as if it were absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    pub fn section(&self, key: &str) -> Result<Section<'a>, CheckpointError> {
        match self.fields.get(key) {
            Some(Value::Object(fields)) => {
                Ok(Section { file: self.file, path: format!("{}{key}.", self.path), fields })
            }
            _ => Err(self.wrong(key, "an object")),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        let value = self.get(key);
        value.map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a string"))).transpose()
    }

    pub fn count(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        let read = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
        let value = self.get(key);
        value.map(|value| read(value).ok_or_else(|| self.wrong(key, "a whole number"))).transpose()
    }

    /// A token id; of a list (several end tokens) the first.
    pub fn id(&self, key: &str) -> Result<Option<u32>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let one = value.as_array().and_then(|ids| ids.first()).unwrap_or(value);
        let id = one.as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(Some).ok_or_else(|| self.wrong(key, "a token id"))
    }

    /// Token ids: one, or a list of them.
    pub fn ids(&self, key: &str) -> Result<Option<Vec<u32>>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: Option<Vec<u32>> = match value {
            Value::Array(values) => values.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        ids.map(Some).ok_or_else(|| self.wrong(key, "token ids"))
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        let value = self.get(key);
        value.map(|value| value.as_f64().ok_or_else(|| self.wrong(key, "a number"))).transpose()
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        let value = self.get(key);
        let read = |value: &Value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false"));
        value.map(read).transpose()
    }

    pub fn pair(&self, key: &str) -> Result<[usize; 2], CheckpointError> {
        let values: Option<Vec<usize>> = self.get(key).and_then(Value::as_array).and_then(|all| {
            all.iter().map(|one| one.as_u64().and_then(|one| usize::try_from(one).ok())).collect()
        });
        let pair = values.and_then(|values| <[usize; 2]>::try_from(values).ok());
        pair.ok_or_else(|| self.wrong(key, "two whole numbers"))
    }

    pub fn triple(&self, key: &str) -> Result<Option<[f32; 3]>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if let Some(one) = value.as_f64() {
            return Ok(Some([one as f32; 3]));
        }
        let values: Option<Vec<f32>> = value
            .as_array()
            .and_then(|all| all.iter().map(|one| one.as_f64().map(|one| one as f32)).collect());
        let triple = values.and_then(|values| <[f32; 3]>::try_from(values).ok());
        triple.map(Some).ok_or_else(|| self.wrong(key, "one number, or three"))
    }

    pub fn activation(&self, key: &str, usual: Activation) -> Result<Activation, CheckpointError> {
        match self.text(key)? {
            None => Ok(usual),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some("quick_gelu") => Ok(Activation::QuickGelu),
            Some("relu") => Ok(Activation::Relu),
            Some(_) => Err(self.wrong(key, "\"gelu\", \"gelu_new\", \"quick_gelu\" or \"relu\"")),
        }
    }
}
