//! The tokenizer: captions to token ids and back, trained or read from any `tokenizer.json`.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TextError, TokenizerFault, parts, spacing};

pub(super) const PAD: &str = "<pad>";
pub(super) const BOS: &str = "<bos>";
pub(super) const EOS: &str = "<eos>";

/// transformers' `clean_up_tokenization`, in its order.
const CLEAN_UP: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// The ids that structure a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// Begins every text.
    pub bos: u32,
    /// Ends every text.
    pub eos: u32,
    /// Fills a batch up; may be the same as `eos`.
    pub pad: u32,
}

/// Names of special tokens where they are known; `None` looks for the usual names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpecialTokenNames {
    /// Begins every text: usually `<bos>`, `[DEC]`, `[CLS]`, `<s>` or `<|endoftext|>`.
    pub bos: Option<String>,
    /// Ends every text: usually `<eos>`, `[SEP]`, `</s>` or `<|endoftext|>`.
    pub eos: Option<String>,
    /// Fills a batch up: usually `<pad>` or `[PAD]`; the end-of-text token where there is none.
    pub pad: Option<String>,
}

/// Turns captions into token ids and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special_tokens: SpecialTokens,
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`: ours, BERT's, GPT-2's or any other in this format. Truncation and
    /// padding that it asks for are ignored.
    ///
    /// # Errors
    /// When the file cannot be read, is not a tokenizer, or lacks a special token.
    pub fn from_file(path: &Path, names: &SpecialTokenNames) -> Result<Self, TextError> {
        let bytes =
            fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(path, &bytes, names)
    }

    /// As [`Tokenizer::from_file`], where the ids of the special tokens are known.
    ///
    /// # Errors
    /// When the file cannot be read or is not a tokenizer.
    pub fn from_file_with(path: &Path, special_tokens: SpecialTokens) -> Result<Self, TextError> {
        let text = fs::read_to_string(path)
            .map_err(|source| TextError::Read { path: path.to_owned(), source })?;
        let inner =
            read(&text).map_err(|source| TextError::Parse { path: path.to_owned(), source })?;
        Ok(Self::wrap(inner, special_tokens))
    }

    /// As [`Tokenizer::from_file`], from the bytes of a file; `path` only names it in errors.
    ///
    /// # Errors
    /// When the bytes are not a tokenizer, or it lacks a special token.
    pub fn from_bytes(
        path: &Path,
        bytes: &[u8],
        names: &SpecialTokenNames,
    ) -> Result<Self, TextError> {
        let parse = |source| TextError::Parse { path: path.to_owned(), source };
        let text = std::str::from_utf8(bytes).map_err(|error| parse(error.into()))?;
        let inner = read(text).map_err(parse)?;
        let find = |role, name: &Option<String>, usual: &[&str]| match name {
            Some(name) => inner.token_to_id(name).ok_or_else(|| TextError::UnknownSpecialToken {
                path: path.to_owned(),
                role,
                token: name.clone(),
            }),
            None => usual.iter().find_map(|name| inner.token_to_id(name)).ok_or_else(|| {
                let tried: Vec<String> = usual.iter().map(|name| format!("`{name}`")).collect();
                TextError::NoSpecialToken { path: path.to_owned(), role, tried: tried.join(", ") }
            }),
        };
        // [DEC] before [CLS]: BLIP's vocabulary is BERT's with a begin-of-caption token of its own.
        let bos = find(
            "begin-of-text",
            &names.bos,
            &[BOS, "[DEC]", "[CLS]", "<s>", "<|startoftext|>", "<|endoftext|>"],
        )?;
        let eos = find("end-of-text", &names.eos, &[EOS, "[SEP]", "</s>", "<|endoftext|>"])?;
        let pad = match find("padding", &names.pad, &[PAD, "[PAD]"]) {
            Err(TextError::NoSpecialToken { .. }) => eos,
            found => found?,
        };
        Ok(Self::wrap(inner, SpecialTokens { bos, eos, pad }))
    }

    pub(super) fn wrap(inner: tokenizers::Tokenizer, special_tokens: SpecialTokens) -> Self {
        let largest = inner.get_vocab(true).values().copied().max();
        let vocab_size = largest.map_or(0, |id| id as usize + 1);
        Self { inner, special_tokens, vocab_size }
    }

    /// The tokenizer as the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// When the tokenizers crate cannot write it.
    pub fn to_json(&self) -> Result<String, TextError> {
        self.inner.to_string(true).map_err(TextError::assemble)
    }

    /// Writes the tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TextError> {
        let json = self.to_json()?;
        fs::write(path, json).map_err(|source| TextError::Write { path: path.to_owned(), source })
    }

    /// The ids that structure a text.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special_tokens
    }

    /// The same tokenizer with other special tokens, for checkpoints whose config names them by id.
    #[must_use]
    pub fn with_special_tokens(mut self, special_tokens: SpecialTokens) -> Self {
        self.special_tokens = special_tokens;
        self
    }

    /// The same tokenizer whose decoded text is then cleaned up as transformers does it where a
    /// checkpoint asks for that (`clean_up_tokenization_spaces`): "a man ' s dog ." becomes "a man's dog."
    /// Byte-pair encoding is left as it is unless `even_byte_pairs`: its spaces are the text's own.
    ///
    /// # Errors
    /// When the tokenizers crate cannot be given such a decoder.
    pub fn with_clean_up(mut self, even_byte_pairs: bool) -> Result<Self, TextError> {
        use tokenizers::decoders::{fuse::Fuse, sequence::Sequence};
        if matches!(self.inner.get_model(), tokenizers::ModelWrapper::BPE(_)) && !even_byte_pairs {
            return Ok(self);
        }
        let mut decoders: Vec<tokenizers::DecoderWrapper> = Vec::new();
        match self.inner.get_decoder() {
            Some(decoder) => decoders.push(decoder.clone()),
            // What is done without a decoder: spaces between the tokens, none of which continues a word.
            None => decoders
                .push(tokenizers::decoders::wordpiece::WordPiece::new("\0".into(), false).into()),
        }
        decoders.push(Fuse::new().into());
        for (loose, tidy) in CLEAN_UP {
            let replace =
                tokenizers::normalizers::Replace::new(loose, tidy).map_err(TextError::assemble)?;
            decoders.push(replace.into());
        }
        self.inner.with_decoder(Some(Sequence::new(decoders)));
        Ok(self)
    }

    /// Whether decoded text is cleaned up so ([`Tokenizer::with_clean_up`]).
    pub fn cleans_up(&self) -> bool {
        let decoder = self.inner.get_decoder().and_then(|part| serde_json::to_value(part).ok());
        let parts = decoder.as_ref().and_then(|part| part["decoders"].as_array());
        let replaced = parts.into_iter().flatten().filter_map(|part| {
            Some((part["pattern"]["String"].as_str()?, part["content"].as_str()?))
        });
        let replaced: Vec<_> = replaced.collect();
        replaced.ends_with(&CLEAN_UP)
    }

    /// Ids of a caption, without special tokens: `<eos>` in a caption is five characters of text.
    ///
    /// # Errors
    /// When the tokenizer has no way to write the caption (WordPiece without an unknown token).
    pub fn encode(&self, caption: &str) -> Result<Vec<u32>, TextError> {
        match self.inner.encode_fast(caption, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => {
                Err(TextError::Encode { caption: caption.to_owned(), reason: error.to_string() })
            }
        }
    }

    /// Text of `ids`; special tokens and ids outside the vocabulary are skipped, and bytes that are
    /// no character become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let kept: Vec<u32> = ids.iter().copied().filter(|id| self.has_text(*id)).collect();
        // A decoder can only refuse tokens that it was not made for; they are then shown as they are.
        self.inner.decode(&kept, true).unwrap_or_else(|_| {
            kept.iter().filter_map(|id| self.token(*id)).collect::<Vec<_>>().join(" ")
        })
    }

    /// Whether `id` stands for text: neither a special token nor outside the vocabulary.
    pub(super) fn has_text(&self, id: u32) -> bool {
        let SpecialTokens { bos, eos, pad } = self.special_tokens;
        let added = self.inner.get_added_vocabulary();
        ![bos, eos, pad].contains(&id)
            && self.token(id).is_some_and(|token| !added.is_special_token(&token))
    }

    /// Number of ids: the largest one and one, so that an embedding of this many rows fits.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token, written as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id as the vocabulary writes it (`Ġdog`, `##ing`, `[SEP]`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// Reads a tokenizer's JSON and sets it up for captions.
pub(super) fn read(text: &str) -> Result<tokenizers::Tokenizer, TokenizerFault> {
    // The tokenizers crate panics on some damaged files: broken syntax and parts that do not fit are
    // found before it looks, and what is then left is caught.
    let mut value: Value = serde_json::from_str(text)?;
    parts::check(&value)?;
    let completed = spacing::complete(&mut value).then(|| value.to_string());
    let text = completed.as_deref().unwrap_or(text);
    let parsed =
        catch_unwind(|| text.parse::<tokenizers::Tokenizer>()).map_err(|_| TokenizerFault::Form)?;
    let mut inner = parsed?;
    inner.with_truncation(None)?;
    inner.with_padding(None);
    inner.set_encode_special_tokens(true);
    Ok(inner)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{TokenizerConfig, TokenizerKind};
    use super::*;
    use crate::shared::shared;

    pub(in super::super) const CAPTIONS: &[&str] = &[
        "A small red circle above a large blue square.",
        "a small green triangle left of a large red circle",
        "two dogs are running across the green grass",
        "a man's dog is running on the grass, and a child laughs",
        "घास पर एक लाल गेंद के साथ दो कुत्ते दौड़ रहे हैं",
        "एक लाल गेंद और एक नीला वर्ग",
        "赤いボールを持った犬が草の上を走っている",
        "草の上で犬が走っている。",
        "a dog 🐕 with a ball ⚽ and a family 👨‍👩‍👧",
    ];

    pub(in super::super) fn trained(kind: TokenizerKind, vocab_size: usize) -> Tokenizer {
        let config = TokenizerConfig { kind, vocab_size, lowercase: false, min_frequency: 1 };
        let captions = CAPTIONS.iter().cycle().take(CAPTIONS.len() * 3);
        Tokenizer::train(captions.map(|caption| (*caption).to_owned()), &config).unwrap()
    }

    #[test]
    fn any_text_comes_back_byte_for_byte() {
        let tokenizer = trained(TokenizerKind::Bpe, 400);
        let unseen = [
            "Ελληνικά, русский и العربية",
            "  two  spaces,\ttabs\nand lines \u{0} ",
            "a new word: zyzzyva's #1 🦕🏽",
            "<bos> <eos> <pad>",
            "क्‍ष थाई ภาษาไทย 한국어",
            "",
        ];
        for text in CAPTIONS.iter().chain(&unseen) {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids), *text);
            assert!(ids.iter().all(|id| *id > 2), "{text:?} holds a special token");
        }
        // NFC is the one change made to a text.
        let ids = tokenizer.encode("cafe\u{301}").unwrap();
        assert_eq!(tokenizer.decode(&ids), "caf\u{e9}");
    }

    #[test]
    fn lowercase_is_an_option() {
        let config = TokenizerConfig { lowercase: true, vocab_size: 300, ..Default::default() };
        let tokenizer = Tokenizer::train(["A Dog".to_owned()].into_iter(), &config).unwrap();
        assert_eq!(tokenizer.decode(&tokenizer.encode("A DOG ÉTÉ").unwrap()), "a dog été");
    }

    #[test]
    fn special_tokens_have_fixed_ids_and_are_skipped() {
        for kind in [TokenizerKind::Bpe, TokenizerKind::WordPiece] {
            let tokenizer = trained(kind, 500);
            assert_eq!(tokenizer.special_tokens(), SpecialTokens { pad: 0, bos: 1, eos: 2 });
            let mut ids = vec![1];
            ids.extend(tokenizer.encode("two dogs").unwrap());
            ids.extend([2, 0, 0, 99_999]);
            assert_eq!(tokenizer.decode(&ids), "two dogs");
            assert_eq!(tokenizer.token(0).as_deref(), Some("<pad>"));
            assert_eq!(tokenizer.token(99_999), None);
        }
    }

    #[test]
    fn training_learns_and_respects_the_size() {
        let tokenizer = trained(TokenizerKind::Bpe, 400);
        assert_eq!(tokenizer.vocab_size(), 400);
        assert!(tokenizer.encode("a dog running").unwrap().len() <= 5);
        let larger = trained(TokenizerKind::Bpe, 100_000);
        assert!(larger.vocab_size() < 2000, "{} tokens from nine captions", larger.vocab_size());
        // A Devanagari word with its marks is one word, so it can become one token.
        assert_eq!(larger.encode(" गेंद").unwrap().len(), 1);
    }

    #[test]
    fn training_is_deterministic_to_the_byte() {
        for kind in [TokenizerKind::Bpe, TokenizerKind::WordPiece] {
            let expected = trained(kind, 450).to_json().unwrap();
            for threads in [1, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| trained(kind, 450).to_json().unwrap()), expected);
            }
            // The order of captions says nothing.
            let config = TokenizerConfig { kind, vocab_size: 450, ..Default::default() };
            let forward = CAPTIONS.iter().map(|caption| (*caption).to_owned());
            let one = Tokenizer::train(forward.clone(), &config).unwrap().to_json().unwrap();
            let two = Tokenizer::train(forward.rev(), &config).unwrap().to_json().unwrap();
            assert_eq!(one, two);
        }
    }

    #[test]
    fn word_pieces_come_back_and_unseen_characters_do_not() {
        let tokenizer = trained(TokenizerKind::WordPiece, 600);
        for text in ["two dogs are running", "एक लाल गेंद", "a small red square."]
        {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()), text);
        }
        let ids = tokenizer.encode("two Ж dogs").unwrap();
        assert!(ids.contains(&3));
        assert_eq!(tokenizer.decode(&ids), "two dogs");
    }

    #[test]
    fn a_saved_tokenizer_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        for kind in [TokenizerKind::Bpe, TokenizerKind::WordPiece] {
            let tokenizer = trained(kind, 500);
            tokenizer.save(&path).unwrap();
            let again = Tokenizer::from_file(&path, &SpecialTokenNames::default()).unwrap();
            assert_eq!(again.special_tokens(), tokenizer.special_tokens());
            assert_eq!(again.to_json().unwrap(), tokenizer.to_json().unwrap());
            for text in CAPTIONS {
                assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let train = |text: &str, kind, vocab_size| {
            let config = TokenizerConfig { kind, vocab_size, ..Default::default() };
            Tokenizer::train([text.to_owned()].into_iter(), &config).unwrap_err().to_string()
        };
        assert!(train("", TokenizerKind::Bpe, 300).contains("no caption"));
        assert!(train("a", TokenizerKind::Bpe, 100).contains("259"));
        assert!(train("ab", TokenizerKind::WordPiece, 5).contains("set it to 8"));

        let names = SpecialTokenNames::default();
        let missing = Tokenizer::from_file(Path::new("no/such.json"), &names).unwrap_err();
        assert!(missing.to_string().contains("no/such.json"));

        let json = trained(TokenizerKind::Bpe, 300).to_json().unwrap();
        let named = SpecialTokenNames { bos: Some("[CLS]".into()), ..Default::default() };
        let error = Tokenizer::from_bytes(Path::new("t.json"), json.as_bytes(), &named);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("t.json") && error.contains("[CLS]"), "{error}");

        let nameless = json.replace("<eos>", "<over>");
        let error = Tokenizer::from_bytes(Path::new("t.json"), nameless.as_bytes(), &names);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("t.json") && error.contains("`</s>`"), "{error}");
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_it_is_cut() {
        let json = trained(TokenizerKind::Bpe, 300).to_json().unwrap();
        for end in (0..json.len()).step_by(json.len() / 60) {
            let cut = &json.as_bytes()[..end];
            let names = SpecialTokenNames::default();
            let error = Tokenizer::from_bytes(Path::new("cut.json"), cut, &names).unwrap_err();
            assert!(error.to_string().contains("cut.json"), "{error}");
        }
    }

    #[test]
    fn config_refuses_unknown_keys() {
        let config: TokenizerConfig = toml::from_str("kind = \"wordpiece\"").unwrap();
        assert_eq!(config.kind, TokenizerKind::WordPiece);
        assert_eq!(config.vocab_size, TokenizerConfig::default().vocab_size);
        assert!(toml::from_str::<TokenizerConfig>("vocabsize = 3").is_err());
    }

    #[test]
    fn bert_is_read_with_its_special_tokens() {
        let Some(path) = shared("tokenizers/bert-uncased/tokenizer.json") else { return };
        let tokenizer = Tokenizer::from_file(&path, &SpecialTokenNames::default()).unwrap();
        assert_eq!(tokenizer.special_tokens(), SpecialTokens { bos: 101, eos: 102, pad: 0 });
        assert_eq!(tokenizer.vocab_size(), 30_522);
        let ids = tokenizer.encode("A dog is snowboarding, happily.").unwrap();
        assert_eq!(tokenizer.decode(&ids), "a dog is snowboarding, happily.");
        assert_eq!(tokenizer.encode("a dog").unwrap(), [1037, 3899]);
    }

    #[test]
    fn text_is_cleaned_up_as_transformers_does_it() {
        let tokenizer = trained(TokenizerKind::WordPiece, 600);
        let mut json: Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
        json["decoder"] =
            serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": false});
        let read = |json: &Value| {
            let names = SpecialTokenNames::default();
            Tokenizer::from_bytes(Path::new("t.json"), json.to_string().as_bytes(), &names).unwrap()
        };
        let plain = read(&json);
        let ids = plain.encode("a man's dog, and a child laughs").unwrap();
        assert_eq!(plain.decode(&ids), "a man ' s dog , and a child laughs");
        assert!(!plain.cleans_up());
        let clean = plain.with_clean_up(false).unwrap();
        assert_eq!(clean.decode(&ids), "a man's dog, and a child laughs");
        assert_eq!(clean.words(&ids)[1].text, "man's");
        assert_eq!(
            clean.words(&ids).iter().map(|word| word.tokens.len()).sum::<usize>(),
            ids.len()
        );
        assert!(clean.cleans_up());
        // A copy has it too.
        let again = read(&serde_json::from_str(&clean.to_json().unwrap()).unwrap());
        assert_eq!(again.decode(&ids), "a man's dog, and a child laughs");
        assert!(again.cleans_up());

        let bytes = trained(TokenizerKind::Bpe, 400);
        let ids = bytes.encode("well ! a ' b").unwrap();
        assert_eq!(bytes.clone().with_clean_up(false).unwrap().decode(&ids), "well ! a ' b");
        assert_eq!(bytes.with_clean_up(true).unwrap().decode(&ids), "well! a'b");
    }

    /// What transformers 5.24 decodes with bert-base-uncased's `tokenizer.json`, with
    /// `clean_up_tokenization_spaces` and without.
    #[test]
    fn berts_texts_are_cleaned_up_as_transformers_does_it() {
        let Some(path) = shared("tokenizers/bert-uncased/tokenizer.json") else { return };
        let plain = Tokenizer::from_file(&path, &SpecialTokenNames::default()).unwrap();
        let clean = plain.clone().with_clean_up(false).unwrap();
        for (text, cleaned, loose) in [
            (
                "A man's dog doesn't run, is it?",
                "a man's dog doesn't run, is it?",
                "a man ' s dog doesn ' t run, is it?",
            ),
            (
                "We're here! They've gone; I'm not.",
                "we're here! they've gone ; i'm not.",
                "we ' re here! they ' ve gone ; i ' m not.",
            ),
            (
                "the 'quoted' word, isn't it (so)?",
                "the'quoted'word, isn't it ( so )?",
                "the ' quoted ' word, isn ' t it ( so )?",
            ),
            (
                "do not go... it's 5 o'clock",
                "do not go... it's 5 o'clock",
                "do not go... it ' s 5 o ' clock",
            ),
            (
                "t-shirt and rock 'n' roll",
                "t - shirt and rock'n'roll",
                "t - shirt and rock ' n ' roll",
            ),
        ] {
            let ids = plain.encode(text).unwrap();
            assert_eq!(
                (plain.decode(&ids).as_str(), clean.decode(&ids).as_str()),
                (loose, cleaned)
            );
            let tokens: usize = clean.words(&ids).iter().map(|word| word.tokens.len()).sum();
            assert_eq!(tokens, ids.len(), "{text}");
        }
    }

    #[test]
    fn parity_texts_are_what_transformers_decodes() {
        for (model, bos, eos, pad) in
            [("blip", 600, 3, 0), ("vit-bert", 2, 3, 0), ("vit-gpt2", 0, 0, 0)]
        {
            let Some(folder) = shared(&format!("parity/{model}")) else { continue };
            let path = folder.join("tokenizer.json");
            let tokenizer = Tokenizer::from_file(&path, &SpecialTokenNames::default()).unwrap();
            assert_eq!(tokenizer.special_tokens(), SpecialTokens { bos, eos, pad }, "{model}");
            let expected = fs::read_to_string(folder.join("expected.json")).unwrap();
            let expected: Value = serde_json::from_str(&expected).unwrap();
            let mut checked = 0;
            for (name, run) in expected.as_object().unwrap() {
                let (Some(ids), Some(texts)) = (run.get("ids"), run.get("text")) else { continue };
                let ids: Vec<Vec<u32>> = serde_json::from_value(ids.clone()).unwrap();
                let texts: Vec<String> = serde_json::from_value(texts.clone()).unwrap();
                for (ids, text) in ids.iter().zip(&texts) {
                    assert_eq!(tokenizer.decode(ids).trim(), text.trim(), "{model} {name}");
                    checked += 1;
                }
            }
            assert!(checked >= 8, "{model}: {checked} texts");
        }
    }
}
