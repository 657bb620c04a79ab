//! `generation_config.json`: how a model decodes unless told otherwise.

use serde_json::Value;

use super::super::CheckpointError;
use super::config::Section;
use crate::generate::{EarlyStopping, GenerateConfig};
use crate::model::CaptionerConfig;

/// Where settings of decoding stand.
pub(super) enum Source<'a> {
    /// In `generation_config.json`, which holds nothing else.
    Own(&'a Section<'a>),
    /// In old files among those of the model: what the first does not say, the next may.
    Model(&'a [&'a Section<'a>]),
}

/// What we know how to decode by, with the special tokens.
const USED: [&str; 26] = [
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "do_sample",
    "early_stopping",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    // Of text that is encoded, which a photo is not: transformers passes over them too.
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "remove_invalid_values",
];

/// What says how to compute or what to return, and changes no token.
const WITHOUT_EFFECT: [&str; 32] = [
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "return_dict",
    "return_dict_in_generate",
    "return_legacy_cache",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_mtp",
    "trust_remote_code",
    "torch_dtype",
    "dtype",
];

/// What would change tokens in a way that we don't have, unless it has this value (or is empty).
const UNSUPPORTED: [(&str, f64); 22] = [
    ("constraints", 0.0),
    ("custom_generate", 0.0),
    ("diversity_penalty", 0.0),
    ("dola_layers", 0.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("exponential_decay_length_penalty", 0.0),
    ("force_words_ids", 0.0),
    ("forced_decoder_ids", 0.0),
    ("guidance_scale", 1.0),
    ("max_time", 0.0),
    ("min_p", 0.0),
    ("num_beam_groups", 1.0),
    ("penalty_alpha", 0.0),
    ("prefix_allowed_tokens_fn", 0.0),
    ("renormalize_logits", 0.0),
    ("sequence_bias", 0.0),
    ("stop_strings", 0.0),
    ("token_healing", 0.0),
    ("top_h", 0.0),
    ("typical_p", 1.0),
    ("watermarking_config", 0.0),
];

/// The decoding defaults, transformers' own where nothing is said; `ends` are further end tokens.
pub(super) fn decoding(
    source: &Source,
    ends: Vec<u32>,
    model: &CaptionerConfig,
) -> Result<GenerateConfig, CheckpointError> {
    let places = match source {
        Source::Own(section) => {
            refuse_unknown(section)?;
            std::slice::from_ref(section)
        }
        Source::Model(sections) => sections,
    };
    for section in places {
        refuse_unsupported(section)?;
    }
    let settings = Settings(places);
    let (max_new_tokens, max_length) =
        match (settings.count("max_new_tokens")?, settings.count("max_length")?) {
            (Some(tokens), _) => (tokens, None),
            // All tokens count, the begin token among them.
            (None, Some(length)) => (length.saturating_sub(1), Some(length)),
            (None, None) => (20, None),
        };
    let (min_new_tokens, min_length) =
        match (settings.count("min_new_tokens")?, settings.count("min_length")?) {
            (Some(tokens), _) => (tokens, 0),
            (None, length) => (0, length.unwrap_or(0)),
        };
    let do_sample = settings.flag("do_sample")?.unwrap_or(false);
    let temperature = settings.number("temperature")?.unwrap_or(1.0);
    let first = settings.ids("forced_bos_token_id")?.and_then(|ids| ids.first().copied());
    let decodes = GenerateConfig {
        num_beams: settings.count("num_beams")?.unwrap_or(1),
        num_captions: settings.count("num_return_sequences")?.unwrap_or(1),
        max_new_tokens: max_new_tokens.clamp(1, model.decoder.max_positions),
        max_length,
        length_penalty: settings.number("length_penalty")?.unwrap_or(1.0),
        early_stopping: settings.early_stopping()?,
        min_new_tokens,
        min_length,
        no_repeat_ngram_size: settings.count("no_repeat_ngram_size")?.unwrap_or(0),
        repetition_penalty: settings.number("repetition_penalty")?.unwrap_or(1.0),
        do_sample,
        // 0 is how some say that they do not sample.
        temperature: if temperature == 0.0 && !do_sample { 1.0 } else { temperature },
        top_k: settings.count("top_k")?.unwrap_or(50),
        top_p: settings.number("top_p")?.unwrap_or(1.0),
        seed: 0,
        eos_token_ids: ends,
        suppress_tokens: settings.ids("suppress_tokens")?.unwrap_or_default(),
        begin_suppress_tokens: settings.ids("begin_suppress_tokens")?.unwrap_or_default(),
        bad_words_ids: settings.words("bad_words_ids")?,
        forced_bos_token_id: first,
        forced_eos_token_ids: settings.ids("forced_eos_token_id")?.unwrap_or_default(),
    };
    let valid = decodes.validate(model.decoder.vocab_size);
    match (valid, places.first()) {
        (Err(error), Some(section)) => Err(section.invalid(error.to_string())),
        _ => Ok(decodes),
    }
}

fn refuse_unknown(section: &Section) -> Result<(), CheckpointError> {
    for (key, value) in section.fields {
        let known = USED.contains(&key.as_str())
            || WITHOUT_EFFECT.contains(&key.as_str())
            || UNSUPPORTED.iter().any(|(unsupported, _)| key == unsupported)
            || key.starts_with('_');
        if !known && !value.is_null() {
            return Err(section.invalid(format!(
                "`{key}` is not known, and may change what is decoded; if it does not, remove it"
            )));
        }
    }
    Ok(())
}

fn refuse_unsupported(section: &Section) -> Result<(), CheckpointError> {
    for (key, neutral) in UNSUPPORTED {
        let unchanged = match section.get(key) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Number(number)) => number.as_f64() == Some(neutral),
            Some(Value::Array(values)) => values.is_empty(),
            Some(Value::Object(values)) => values.is_empty(),
            Some(Value::Bool(true) | Value::String(_) | Value::Null) => false,
        };
        if !unchanged {
            return Err(section.wrong(key, "nothing: patchword does not decode by it"));
        }
    }
    Ok(())
}

/// Each setting stands in the first section that has it.
struct Settings<'a>(&'a [&'a Section<'a>]);

impl<'a> Settings<'a> {
    fn first<T>(
        &self,
        read: impl Fn(&'a Section<'a>) -> Result<Option<T>, CheckpointError>,
    ) -> Result<Option<T>, CheckpointError> {
        for section in self.0 {
            if let Some(value) = read(section)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn count(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.first(|section| section.count(key))
    }

    fn number(&self, key: &str) -> Result<Option<f32>, CheckpointError> {
        Ok(self.first(|section| section.number(key))?.map(|number| number as f32))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.first(|section| section.flag(key))
    }

    fn ids(&self, key: &str) -> Result<Option<Vec<u32>>, CheckpointError> {
        self.first(|section| section.ids(key))
    }

    fn words(&self, key: &str) -> Result<Vec<Vec<u32>>, CheckpointError> {
        let words = self.first(|section| {
            let read = |value: &Value| serde_json::from_value(value.clone()).ok();
            let words = section
                .get(key)
                .map(|value| read(value).ok_or_else(|| section.wrong(key, "lists of token ids")));
            words.transpose()
        });
        Ok(words?.unwrap_or_default())
    }

    fn early_stopping(&self) -> Result<EarlyStopping, CheckpointError> {
        let key = "early_stopping";
        let when = self.first(|section| {
            let read = |value: &Value| serde_json::from_value(value.clone()).ok();
            let when = section.get(key).map(|value| {
                read(value).ok_or_else(|| section.wrong(key, "true, false or \"never\""))
            });
            when.transpose()
        });
        Ok(when?.unwrap_or_default())
    }
}
