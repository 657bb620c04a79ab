//! How to decode.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::GenerateError;

/// When beam search stops: `false`, `true` or `"never"` in files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// `false`: when the best beam, were it to end now, would be worse than `num_beams` finished
    /// hypotheses.
    #[default]
    Heuristic,
    /// `true`: as soon as `num_beams` hypotheses are finished.
    AtOnce,
    /// `"never"`: only when no beam can become better than the finished hypotheses at any length.
    Never,
}

impl EarlyStopping {
    /// What [`FromStr`] takes.
    pub const NAMES: [&'static str; 3] = ["false", "true", "never"];
}

impl fmt::Display for EarlyStopping {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Heuristic => "false",
            Self::AtOnce => "true",
            Self::Never => "never",
        })
    }
}

impl FromStr for EarlyStopping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "false" => Ok(Self::Heuristic),
            "true" => Ok(Self::AtOnce),
            "never" => Ok(Self::Never),
            _ => Err("expected true, false or never".into()),
        }
    }
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Heuristic => serializer.serialize_bool(false),
            Self::AtOnce => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = EarlyStopping;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("true, false or \"never\"")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<EarlyStopping, E> {
                Ok(if value { EarlyStopping::AtOnce } else { EarlyStopping::Heuristic })
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<EarlyStopping, E> {
                match value {
                    "never" => Ok(EarlyStopping::Never),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// How to decode. Names and meanings are transformers', apart from `num_captions`, `seed` and the
/// plural in lists of tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// Beams an image; 1 = greedy, or plain sampling.
    pub num_beams: usize,
    /// Captions an image (`num_return_sequences`): the best so many of the beams, or independent
    /// samples.
    pub num_captions: usize,
    /// Most tokens to decode after the begin token (and the prompt), the end token included.
    pub max_new_tokens: usize,
    /// Most tokens in all, begin token and prompt included, where that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Exponent of the length by which a hypothesis' log-probability is divided.
    pub length_penalty: f32,
    /// When beam search stops.
    pub early_stopping: EarlyStopping,
    /// Fewest tokens to decode before the end token may come.
    pub min_new_tokens: usize,
    /// Fewest tokens in all, begin token and prompt included, where that is more.
    #[serde(skip_serializing_if = "is_zero")]
    pub min_length: usize,
    /// No sequence of so many tokens twice; 0 = they may repeat.
    pub no_repeat_ngram_size: usize,
    /// Scores of tokens that were there before are divided by this (multiplied, where negative); 1 =
    /// no penalty.
    pub repetition_penalty: f32,
    /// Draw tokens by their probabilities instead of taking the likeliest.
    pub do_sample: bool,
    /// Sampling: logits are divided by this; below 1 likely tokens become likelier.
    pub temperature: f32,
    /// Sampling: from the so many likeliest tokens; 0 = from all.
    pub top_k: usize,
    /// Sampling: from the fewest likeliest tokens that have this probability together; 1 = from all.
    pub top_p: f32,
    /// Sampling: what the draws follow from, with the image's number and the sample's.
    pub seed: u64,
    /// Tokens that end a caption beside the end token itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub eos_token_ids: Vec<u32>,
    /// Tokens that never come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suppress_tokens: Vec<u32>,
    /// Tokens that do not come first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub begin_suppress_tokens: Vec<u32>,
    /// Sequences of tokens that never come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bad_words_ids: Vec<Vec<u32>>,
    /// The token that comes first, after the begin token alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_bos_token_id: Option<u32>,
    /// The tokens of which one comes last, where a caption is as long as it may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forced_eos_token_ids: Vec<u32>,
}

/// Most sequences that are decoded at a time for an image: a config must not fill the memory.
const MOST_ROWS: usize = 1024;

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            num_beams: 3,
            num_captions: 1,
            max_new_tokens: 30,
            max_length: None,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            min_new_tokens: 0,
            min_length: 0,
            no_repeat_ngram_size: 0,
            repetition_penalty: 1.0,
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
            eos_token_ids: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            bad_words_ids: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_ids: Vec::new(),
        }
    }
}

impl GenerateConfig {
    /// Greedy decoding of at most `max_new_tokens`.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { num_beams: 1, max_new_tokens, ..Self::default() }
    }

    /// `num_captions` samples an image of at most `max_new_tokens`, from the model's own distribution.
    pub fn sampling(num_captions: usize, max_new_tokens: usize, seed: u64) -> Self {
        Self { do_sample: true, num_captions, seed, ..Self::greedy(max_new_tokens) }
    }

    /// How captions are found, in two or three words.
    pub fn search(&self) -> String {
        match (self.do_sample, self.num_beams) {
            (true, _) => format!("sampled, seed {}", self.seed),
            (false, 0 | 1) => "greedy".into(),
            (false, beams) => format!("{beams} beams"),
        }
    }

    /// Sequences that are decoded at a time for each image.
    pub fn rows_per_image(&self) -> usize {
        if self.num_beams > 1 { self.num_beams } else { self.num_captions }
    }

    /// The same with the lengths in all turned into numbers of new tokens after a prompt (begin token
    /// included) of `prompt` tokens.
    ///
    /// # Errors
    /// There is no begin token, or the prompt is as long as a caption may be.
    pub fn after_prompt(&self, prompt: usize) -> Result<Self, GenerateError> {
        if prompt == 0 {
            return Err(GenerateError::Config {
                key: "prompt",
                problem: "empty; expected at least the begin token".into(),
            });
        }
        let mut most = self.max_new_tokens;
        if let Some(max_length) = self.max_length {
            if max_length <= prompt {
                return Err(GenerateError::Config {
                    key: "max_length",
                    problem: format!(
                        "{max_length}; expected more than the begin token and the prompt, {prompt}"
                    ),
                });
            }
            most = most.min(max_length - prompt);
        }
        let least = self.min_new_tokens.max(self.min_length.saturating_sub(prompt));
        let (max_length, min_length) = (None, 0);
        Ok(Self {
            max_new_tokens: most,
            min_new_tokens: least,
            max_length,
            min_length,
            ..self.clone()
        })
    }

    /// Checks ranges against a vocabulary.
    ///
    /// # Errors
    /// The key at fault.
    pub fn validate(&self, vocab_size: usize) -> Result<(), GenerateError> {
        let error = |key, problem| Err(GenerateError::Config { key, problem });
        let most = MOST_ROWS.min(vocab_size / 2);
        if self.num_beams == 0 || self.num_beams > most {
            let half = if most < MOST_ROWS { " (half the vocabulary)" } else { "" };
            return error("num_beams", format!("{}; expected 1 to {most}{half}", self.num_beams));
        }
        self.validate_captions()?;
        if self.max_new_tokens == 0 {
            return error("max_new_tokens", "0; expected at least 1".into());
        }
        if let Some(length @ 0..2) = self.max_length {
            return error("max_length", format!("{length}; expected at least 2"));
        }
        if !self.length_penalty.is_finite() {
            return error(
                "length_penalty",
                format!("{}; expected a finite number", self.length_penalty),
            );
        }
        if self.min_new_tokens > self.max_new_tokens {
            return error(
                "min_new_tokens",
                format!(
                    "{}; expected at most max_new_tokens = {}",
                    self.min_new_tokens, self.max_new_tokens
                ),
            );
        }
        let positive =
            [("repetition_penalty", self.repetition_penalty), ("temperature", self.temperature)];
        for (key, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return error(key, format!("{value}; expected a positive number"));
            }
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return error("top_p", format!("{}; expected more than 0, at most 1", self.top_p));
        }
        let bad = self.bad_words_ids.iter().flatten();
        let tokens = [
            ("forced_bos_token_id", self.forced_bos_token_id.iter().max()),
            ("forced_eos_token_ids", self.forced_eos_token_ids.iter().max()),
            ("bad_words_ids", bad.max()),
        ];
        for (key, largest) in tokens {
            if let Some(&id) = largest
                && id as usize >= vocab_size
            {
                return error(key, format!("{id}; expected tokens below {vocab_size}"));
            }
        }
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return error("bad_words_ids", "an empty sequence; expected at least a token".into());
        }
        Ok(())
    }

    fn validate_captions(&self) -> Result<(), GenerateError> {
        let problem = match (self.num_captions, self.num_beams) {
            (0, _) => "0; expected at least 1".into(),
            (several @ 2.., 1) if !self.do_sample => format!(
                "{several} (num_return_sequences); greedy decoding has one caption an image: raise \
                 num_beams, or set do_sample"
            ),
            (several, beams @ 2..) if several > beams => {
                format!("{several} (num_return_sequences); expected at most num_beams = {beams}")
            }
            (several, _) if several > MOST_ROWS => {
                format!("{several} (num_return_sequences); expected at most {MOST_ROWS}")
            }
            _ => return Ok(()),
        };
        Err(GenerateError::Config { key: "num_captions", problem })
    }
}
