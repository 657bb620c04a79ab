//! The tokenizer of a Hugging Face folder: `tokenizer.json`, or the vocabulary files that came
//! before it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::{CheckpointError, read_json, read_whole};
use super::config::Section;
use crate::text::{AddedToken, SpecialTokens, Tokenizer, WordPieceOptions};

/// Vocabulary and merges of byte-level tokenizers; GPT-2's first files were named otherwise.
const MERGES: [(&str, &str); 2] = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")];

/// Special tokens of BERT's, GPT-2's and RoBERTa's vocabularies, where no file says which.
const USUAL: [&str; 11] = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<|endoftext|>",
];

/// Keys of `special_tokens_map.json` and `tokenizer_config.json` that name one token.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Reads the tokenizer of `folder`; the file with its vocabulary comes with it.
pub(super) fn read(
    folder: &Path,
    special: SpecialTokens,
) -> Result<(PathBuf, Tokenizer), CheckpointError> {
    let (file, tokenizer) = read_vocabulary(folder, special)?;
    let settings = Settings::read(folder)?;
    let flag = |key: &str| Ok::<_, CheckpointError>(settings.config().flag(key)?.unwrap_or(false));
    if !flag("clean_up_tokenization_spaces")? {
        return Ok((file, tokenizer));
    }
    let even_byte_pairs =
        flag("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")?;
    Ok((file, tokenizer.with_clean_up(even_byte_pairs)?))
}

fn read_vocabulary(
    folder: &Path,
    special: SpecialTokens,
) -> Result<(PathBuf, Tokenizer), CheckpointError> {
    let whole = folder.join("tokenizer.json");
    if whole.is_file() {
        read_whole(&whole)?;
        let tokenizer = Tokenizer::from_file_with(&whole, special)?;
        return Ok((whole, tokenizer));
    }
    let settings = Settings::read(folder)?;
    let pieces = folder.join("vocab.txt");
    if pieces.is_file() {
        let options = settings.word_pieces()?;
        let text = read_text(&pieces)?;
        let added = settings.added()?;
        let tokenizer = Tokenizer::from_word_pieces(&pieces, &text, &options, &added, special)?;
        return Ok((pieces, tokenizer));
    }
    for (vocabulary, merges) in MERGES.map(|(v, m)| (folder.join(v), folder.join(m))) {
        if !vocabulary.is_file() {
            continue;
        }
        let (text, pairs) = (read_text(&vocabulary)?, read_text(&merges)?);
        let space = settings.config().flag("add_prefix_space")?.unwrap_or(false);
        let added = settings.added()?;
        let tokenizer = Tokenizer::from_merges(
            (&vocabulary, &text),
            (&merges, &pairs),
            space,
            &added,
            special,
        )?;
        return Ok((vocabulary, tokenizer));
    }
    Err(CheckpointError::Invalid {
        file: whole,
        problem: "is not here, nor vocab.txt, nor vocab.json with merges.txt".into(),
    })
}

fn read_text(file: &Path) -> Result<String, CheckpointError> {
    String::from_utf8(read_whole(file)?).map_err(|error| CheckpointError::Invalid {
        file: file.into(),
        problem: error.utf8_error().to_string(),
    })
}

/// What stands beside a vocabulary; a file that is not there is empty.
struct Settings {
    config: (PathBuf, Map<String, Value>),
    names: (PathBuf, Map<String, Value>),
    added: (PathBuf, Map<String, Value>),
}

impl Settings {
    fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let file = |name: &str| {
            let file = folder.join(name);
            let fields = if file.is_file() { read_json(&file)? } else { Map::new() };
            Ok::<_, CheckpointError>((file, fields))
        };
        Ok(Self {
            config: file("tokenizer_config.json")?,
            names: file("special_tokens_map.json")?,
            added: file("added_tokens.json")?,
        })
    }

    fn config(&self) -> Section<'_> {
        section(&self.config)
    }

    fn word_pieces(&self) -> Result<WordPieceOptions, CheckpointError> {
        let (config, usual) = (self.config(), WordPieceOptions::default());
        let chinese_characters = config.flag("tokenize_chinese_chars")?;
        Ok(WordPieceOptions {
            lowercase: config.flag("do_lower_case")?.unwrap_or(usual.lowercase),
            chinese_characters: chinese_characters.unwrap_or(usual.chinese_characters),
            strip_accents: config.flag("strip_accents")?,
            unknown: match self.role("unk_token")? {
                Some(token) => token.content,
                None => usual.unknown,
            },
        })
    }

    /// The token of a role.
    fn role(&self, key: &str) -> Result<Option<AddedToken>, CheckpointError> {
        for section in [section(&self.names), self.config()] {
            if let Some(value) = section.get(key) {
                return special(&section, key, value).map(Some);
            }
        }
        Ok(None)
    }

    /// Every added token, those with ids first; of several that are the same the first one counts.
    fn added(&self) -> Result<Vec<AddedToken>, CheckpointError> {
        let mut tokens = Vec::new();
        let config = self.config();
        if config.get("added_tokens_decoder").is_some() {
            let decoder = config.section("added_tokens_decoder")?;
            for (id, value) in decoder.fields {
                let id: u32 = id.parse().map_err(|_| {
                    config.invalid(format!("`added_tokens_decoder`: \"{id}\" is no token id"))
                })?;
                let token = special(&decoder, &id.to_string(), value)?;
                let fields = Section { path: format!("{}{id}.", decoder.path), ..decoder };
                let said = match value {
                    Value::Object(object) => {
                        Section { fields: object, ..fields }.flag("special")?
                    }
                    _ => None,
                };
                tokens.push(AddedToken { id: Some(id), special: said.unwrap_or(false), ..token });
            }
        }
        let mut named: Vec<AddedToken> = Vec::new();
        for key in ROLES {
            named.extend(self.role(key)?);
        }
        for section in [section(&self.names), self.config()] {
            // The second name is the one of newer versions.
            for key in ["additional_special_tokens", "extra_special_tokens"] {
                for value in section.get(key).and_then(Value::as_array).into_iter().flatten() {
                    named.push(special(&section, key, value)?);
                }
            }
        }
        let added = section(&self.added);
        for content in added.fields.keys() {
            let Some(id) = added.id(content)? else { continue };
            let is_special = named.iter().any(|token| token.content == *content);
            let token = AddedToken::special(content);
            tokens.push(AddedToken {
                id: Some(id),
                special: is_special,
                normalized: !is_special,
                ..token
            });
        }
        tokens.extend(named);
        tokens.extend(USUAL.map(AddedToken::special));
        Ok(tokens)
    }
}

fn section((file, fields): &(PathBuf, Map<String, Value>)) -> Section<'_> {
    Section { file, path: String::new(), fields }
}

/// A special token as a string, or as an object with `content`.
fn special(section: &Section, key: &str, value: &Value) -> Result<AddedToken, CheckpointError> {
    match value {
        Value::String(content) => Ok(AddedToken::special(content)),
        Value::Object(fields) => {
            let token =
                Section { file: section.file, path: format!("{}{key}.", section.path), fields };
            let flag = |key| Ok::<bool, CheckpointError>(token.flag(key)?.unwrap_or(false));
            Ok(AddedToken {
                content: match token.text("content")? {
                    Some(content) => content.to_owned(),
                    None => return Err(token.wrong("content", "the token")),
                },
                normalized: flag("normalized")?,
                left_strip: flag("lstrip")?,
                right_strip: flag("rstrip")?,
                single_word: flag("single_word")?,
                ..AddedToken::special("")
            })
        }
        _ => Err(section.wrong(key, "a token, as a string or an object with `content`")),
    }
}
