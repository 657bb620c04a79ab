//! Training a tokenizer from captions.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizers::tokenizer::{
    Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::merges::{Learned, Start, learn};
use super::tokenizer::{BOS, EOS, PAD, read};
use super::{SpecialTokens, TextError, Tokenizer, spacing};

const UNKNOWN: &str = "<unk>";

/// How a caption is cut before merging: contractions, words (letters with the marks and joiners that
/// belong to them, as Indic scripts need), numbers, everything else, each with the space before it.
const WORD_PATTERN: &str = concat!(
    r"'(?:s|t|re|ve|m|ll|d)(?!\p{L})",
    r"| ?\p{L}[\p{L}\p{M}\x{200C}\x{200D}]*",
    r"| ?\p{N}+",
    r"| ?[^\s\p{L}\p{N}]+",
    r"|\s+(?!\S)|\s+"
);

/// The algorithm of a tokenizer to train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// Byte-pair encoding over bytes: any text in any script comes back as it was.
    #[default]
    Bpe,
    /// Pieces of words over characters, as BERT does: a character never seen becomes `<unk>`.
    WordPiece,
}

/// How to train a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerConfig {
    /// The algorithm.
    pub kind: TokenizerKind,
    /// Largest number of tokens, special ones included; few captions may fill fewer. At least 259
    /// for byte-pair encoding.
    pub vocab_size: usize,
    /// Whether captions are put in lower case first. What is decoded is then lower case too.
    pub lowercase: bool,
    /// How often a pair must occur to become a token.
    pub min_frequency: u64,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self { kind: TokenizerKind::Bpe, vocab_size: 8000, lowercase: false, min_frequency: 2 }
    }
}

impl Tokenizer {
    /// Trains a tokenizer. The same captions in any order give the same tokenizer, to the byte.
    ///
    /// Ids 0, 1 and 2 are `<pad>`, `<bos>` and `<eos>` (WordPiece has `<unk>` at 3).
    ///
    /// # Errors
    /// When there is no text to learn from, or `vocab_size` cannot hold the alphabet.
    pub fn train(
        captions: impl Iterator<Item = String>,
        config: &TokenizerConfig,
    ) -> Result<Self, TextError> {
        let captions: Vec<String> = captions.collect();
        let tokenised = spacing::are_tokenised(captions.iter().map(String::as_str));
        let cutter =
            read(&skeleton(config, tokenised, &[]).to_string()).map_err(TextError::assemble)?;
        let words = count_words(&cutter, captions)?;
        if words.is_empty() {
            return Err(TextError::NoCaptions);
        }
        let (special_tokens, start, alphabet): (&[&str], _, _) = match config.kind {
            TokenizerKind::Bpe => {
                let special_tokens = &[PAD, BOS, EOS];
                let start =
                    Start { special_tokens, alphabet: byte_alphabet(), continuing_prefix: None };
                (special_tokens, start, "256 bytes")
            }
            TokenizerKind::WordPiece => {
                let special_tokens = &[PAD, BOS, EOS, UNKNOWN];
                let characters: BTreeSet<char> =
                    words.iter().flat_map(|(word, _)| word.chars()).collect();
                let alphabet = (characters.iter().map(char::to_string))
                    .chain(characters.iter().map(|character| format!("##{character}")))
                    .collect();
                let start = Start { special_tokens, alphabet, continuing_prefix: Some("##") };
                (special_tokens, start, "characters of the captions (each twice)")
            }
        };
        let needed = special_tokens.len() + start.alphabet.len();
        if config.vocab_size < needed {
            let asked = config.vocab_size;
            return Err(TextError::VocabularyTooSmall { asked, needed, alphabet });
        }
        let learned = learn(&words, start, config.vocab_size, config.min_frequency);
        let inner =
            read(&complete(skeleton(config, tokenised, special_tokens), learned).to_string())
                .map_err(TextError::assemble)?;
        Ok(Self::wrap(inner, SpecialTokens { pad: 0, bos: 1, eos: 2 }))
    }
}

/// A tokenizer's JSON with everything but the vocabulary; `tokenised` says what captions it is for.
fn skeleton(config: &TokenizerConfig, tokenised: bool, special_tokens: &[&str]) -> Value {
    let added_tokens: Vec<Value> = special_tokens
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let Parts { normalizers, pre_tokenizer, decoders, model } = match config.kind {
        TokenizerKind::Bpe => byte_pair_parts(config, tokenised),
        TokenizerKind::WordPiece => word_piece_parts(config),
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders}, "model": model,
    })
}

/// What differs between the kinds.
struct Parts {
    normalizers: Vec<Value>,
    pre_tokenizer: Value,
    decoders: Vec<Value>,
    model: Value,
}

fn byte_pair_parts(config: &TokenizerConfig, tokenised: bool) -> Parts {
    let mut normalizers = vec![json!({"type": "NFC"})];
    if config.lowercase {
        normalizers.push(json!({"type": "Lowercase"}));
    }
    normalizers.push(spacing::normalizer(tokenised));
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    let split = json!({
        "type": "Split", "pattern": {"Regex": WORD_PATTERN}, "behavior": "Isolated",
        "invert": false,
    });
    Parts {
        normalizers,
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": [split, byte_level.clone()]}),
        decoders: vec![byte_level, spacing::decoder()],
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": {}, "merges": [],
        }),
    }
}

fn word_piece_parts(config: &TokenizerConfig) -> Parts {
    // Accents stay: stripping them takes the vowels out of Devanagari.
    let bert = json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": false, "lowercase": config.lowercase,
    });
    let [apostrophes, negations] = spacing::contractions();
    Parts {
        normalizers: vec![json!({"type": "NFC"}), bert, negations],
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        decoders: vec![
            json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            json!({"type": "Fuse"}),
            apostrophes,
        ],
        model: json!({
            "type": "WordPiece", "unk_token": UNKNOWN, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {},
        }),
    }
}

/// Puts what was learned into a skeleton.
fn complete(mut skeleton: Value, learned: Learned) -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        (0_u32..).zip(learned.vocabulary).map(|(id, token)| (token, json!(id))).collect();
    skeleton["model"]["vocab"] = Value::Object(vocabulary);
    if skeleton["model"]["type"] == "BPE" {
        skeleton["model"]["merges"] = json!(learned.merges);
    }
    skeleton
}

/// Words of the captions, as the skeleton's pre-tokenizer cuts them, sorted, with their counts.
fn count_words(
    skeleton: &tokenizers::Tokenizer,
    captions: Vec<String>,
) -> Result<Vec<(String, u64)>, TextError> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for caption in captions {
        let refuse = |error: tokenizers::Error| TextError::Encode {
            caption: caption.clone(),
            reason: error.to_string(),
        };
        let mut normalized = tokenizers::NormalizedString::from(caption.as_str());
        if let Some(normalizer) = skeleton.get_normalizer() {
            normalizer.normalize(&mut normalized).map_err(refuse)?;
        }
        let mut cut = PreTokenizedString::from(normalized);
        if let Some(pre_tokenizer) = skeleton.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut cut).map_err(refuse)?;
        }
        for (word, _, _) in cut.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_owned(), 1)),
            }
        }
    }
    let mut words: Vec<(String, u64)> = counts.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

/// The characters that stand for the 256 bytes in byte-level tokenizers, in order of code point.
fn byte_alphabet() -> Vec<String> {
    let characters: BTreeSet<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    characters.iter().map(char::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::shared;

    #[test]
    fn real_captions_need_little_more_than_a_token_a_word() {
        let Some(path) = shared("flickr8k/Flickr8k.token.txt") else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let captions: Vec<&str> =
            text.lines().filter_map(|line| line.split_once('\t')).map(|(_, text)| text).collect();
        assert!(captions.len() > 20_000);
        let config = TokenizerConfig { vocab_size: 4000, lowercase: true, ..Default::default() };
        let owned = captions.iter().map(|caption| (*caption).to_owned());
        let tokenizer = Tokenizer::train(owned, &config).unwrap();
        assert_eq!(tokenizer.vocab_size(), 4000);
        let (mut tokens, mut words) = (0, 0);
        for caption in captions.iter().step_by(10) {
            let ids = tokenizer.encode(caption).unwrap();
            let decoded = tokenizer.decode(&ids);
            let without_spaces = |text: &str| text.replace(' ', "");
            assert_eq!(without_spaces(&decoded), without_spaces(&caption.to_lowercase()));
            assert!(!decoded.contains(" .\n") && !decoded.ends_with(" ."), "{decoded}");
            words += tokenizer.words(&ids).len();
            tokens += ids.len();
        }
        let ratio = tokens as f64 / words as f64;
        assert!((1.0..1.15).contains(&ratio), "{ratio} tokens a word");
    }

    #[test]
    fn captions_of_tokenised_data_read_as_sentences() {
        let tokenised =
            "a man 's dog , which is n't big , runs .5 km ... wait ! d 'artagnan 'sees' it .";
        let train = |kind| {
            let config = TokenizerConfig { kind, vocab_size: 400, ..Default::default() };
            Tokenizer::train([tokenised.to_owned()].into_iter(), &config).unwrap()
        };
        let tokenizer = train(TokenizerKind::Bpe);
        let ids = tokenizer.encode(tokenised).unwrap();
        let tidy = "a man's dog, which isn't big, runs .5 km... wait ! d 'artagnan 'sees' it.";
        assert_eq!(tokenizer.decode(&ids), tidy);
        // A word keeps the tokens of what was drawn to it.
        let words = tokenizer.words(&ids);
        assert_eq!(words[1].text, "man's");
        assert_eq!(words.last().unwrap().text, ".");
        let joined: String = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(joined, tidy.replace(' ', ""));
    }
}
