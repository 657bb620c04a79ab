//! Tokenizers from the files that came before `tokenizer.json`: BERT's `vocab.txt`, and GPT-2's and
//! RoBERTa's `vocab.json` with `merges.txt`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::tokenizer::read;
use super::{SpecialTokens, TextError, Tokenizer};

/// A token that is looked for in a text before anything else is done with it, or that only the
/// structure of a text uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// The token as it is written.
    pub content: String,
    /// Its id; `None` = the vocabulary has it.
    pub id: Option<u32>,
    /// Whether it has no text: it is left out of captions, and never found in one.
    pub special: bool,
    /// Whether it is found in a normalised text only.
    pub normalized: bool,
    /// Whether it takes the white space on its left.
    pub left_strip: bool,
    /// Whether it takes the white space on its right.
    pub right_strip: bool,
    /// Whether it is no part of a longer word.
    pub single_word: bool,
}

impl AddedToken {
    /// A token without text that the vocabulary has.
    pub fn special(content: &str) -> Self {
        Self {
            content: content.into(),
            id: None,
            special: true,
            normalized: false,
            left_strip: false,
            right_strip: false,
            single_word: false,
        }
    }
}

/// What `vocab.txt` does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordPieceOptions {
    /// Whether texts are put in lower case.
    pub lowercase: bool,
    /// Whether Chinese characters stand each for itself.
    pub chinese_characters: bool,
    /// Whether accents are taken off; `None` = where texts are put in lower case.
    pub strip_accents: Option<bool>,
    /// What is written for a word that the vocabulary cannot write.
    pub unknown: String,
}

impl Default for WordPieceOptions {
    fn default() -> Self {
        Self {
            lowercase: true,
            chinese_characters: true,
            strip_accents: None,
            unknown: "[UNK]".into(),
        }
    }
}

impl Tokenizer {
    /// BERT's tokenizer from the text of a `vocab.txt`, a token a line; `path` only names it in
    /// errors.
    ///
    /// # Errors
    /// A vocabulary without tokens, or added tokens that contradict it.
    pub fn from_word_pieces(
        path: &Path,
        vocabulary: &str,
        options: &WordPieceOptions,
        added: &[AddedToken],
        special: SpecialTokens,
    ) -> Result<Self, TextError> {
        let lines = vocabulary.strip_suffix('\n').unwrap_or(vocabulary).split('\n');
        // Of a token that is there twice the later id counts.
        let mut vocab: BTreeMap<String, u32> = BTreeMap::new();
        for (id, line) in (0..).zip(lines) {
            vocab.insert(line.strip_suffix('\r').unwrap_or(line).to_owned(), id);
        }
        let model = json!({
            "type": "WordPiece", "unk_token": options.unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        });
        let parts = Parts {
            normalizer: json!({
                "type": "BertNormalizer", "clean_text": true, "lowercase": options.lowercase,
                "handle_chinese_chars": options.chinese_characters,
                "strip_accents": options.strip_accents,
            }),
            pre_tokenizer: json!({"type": "BertPreTokenizer"}),
            decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            model,
        };
        assemble(path, vocab, parts, added, special)
    }

    /// The byte-level tokenizer of GPT-2 and RoBERTa from the texts of a `vocab.json` and of a
    /// `merges.txt`; the paths only name them in errors. `prefix_space` puts a space before a text,
    /// so that its first word is written like any other.
    ///
    /// # Errors
    /// The file, the line or the token at fault.
    pub fn from_merges(
        (path, vocabulary): (&Path, &str),
        (merges_path, merges): (&Path, &str),
        prefix_space: bool,
        added: &[AddedToken],
        special: SpecialTokens,
    ) -> Result<Self, TextError> {
        let vocab: BTreeMap<String, u32> =
            serde_json::from_str(vocabulary).map_err(|error| TextError::Vocabulary {
                path: path.into(),
                problem: format!("expected tokens with their ids: {error}"),
            })?;
        let mut pairs = Vec::new();
        for (number, line) in merges.lines().enumerate() {
            if line.is_empty() || line.starts_with("#version") {
                continue;
            }
            let wrong = |problem: String| TextError::Vocabulary {
                path: merges_path.into(),
                problem: format!("line {}: {problem}", number + 1),
            };
            let pair = line.split_once(' ').filter(|(_, right)| !right.contains(' '));
            let Some((left, right)) = pair else {
                return Err(wrong(format!("expected two pieces with a space between: {line:?}")));
            };
            for piece in [left, right, &format!("{left}{right}")] {
                if !vocab.contains_key(piece) {
                    let vocabulary = path.display();
                    return Err(wrong(format!("`{piece}` is not in `{vocabulary}`")));
                }
            }
            pairs.push(json!([left, right]));
        }
        let byte_level = |prefix_space: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true,
                "use_regex": true,
            })
        };
        let parts = Parts {
            normalizer: Value::Null,
            pre_tokenizer: byte_level(prefix_space),
            decoder: byte_level(true),
            model: json!({
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": false, "merges": pairs,
            }),
        };
        assemble(path, vocab, parts, added, special)
    }
}

/// A tokenizer's JSON without vocabulary and added tokens.
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
}

fn assemble(
    path: &Path,
    mut vocab: BTreeMap<String, u32>,
    mut parts: Parts,
    added: &[AddedToken],
    special: SpecialTokens,
) -> Result<Tokenizer, TextError> {
    let wrong = |problem: String| TextError::Vocabulary { path: path.into(), problem };
    // The vocabulary takes the added tokens too: no text becomes one by its pieces, and each has the
    // id that it was given, wherever that lies.
    for token in added {
        let Some(id) = token.id else { continue };
        match vocab.insert(token.content.clone(), id) {
            Some(other) if other != id => {
                return Err(wrong(format!(
                    "`{}` has id {other}, but as an added token {id}",
                    token.content
                )));
            }
            _ => {}
        }
    }
    if vocab.is_empty() || vocab.keys().all(String::is_empty) {
        return Err(wrong("no tokens".into()));
    }
    let mut by_id: BTreeMap<u32, &str> = BTreeMap::new();
    for (token, &id) in &vocab {
        if let Some(other) = by_id.insert(id, token) {
            return Err(wrong(format!("`{other}` and `{token}` both have id {id}")));
        }
    }
    let mut tokens: Vec<(u32, Value)> = Vec::new();
    for token in added {
        let Some(&id) = vocab.get(&token.content) else { continue };
        if tokens.iter().any(|(known, _)| *known == id) {
            continue;
        }
        let entry = json!({
            "id": id, "content": token.content, "special": token.special,
            "normalized": token.normalized, "lstrip": token.left_strip,
            "rstrip": token.right_strip, "single_word": token.single_word,
        });
        tokens.push((id, entry));
    }
    tokens.sort_by_key(|(id, _)| *id);
    let tokens: Vec<Value> = tokens.into_iter().map(|(_, token)| token).collect();
    let vocab: Map<String, Value> =
        by_id.into_iter().map(|(id, token)| (token.to_owned(), id.into())).collect();
    parts.model["vocab"] = Value::Object(vocab);
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens,
        "normalizer": parts.normalizer, "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": null, "decoder": parts.decoder, "model": parts.model,
    });
    Ok(Tokenizer::wrap(
        read(&whole.to_string()).map_err(|fault| wrong(fault.to_string()))?,
        special,
    ))
}

#[cfg(test)]
mod tests;
