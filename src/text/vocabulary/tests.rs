use std::collections::HashMap;

use super::*;
use crate::shared::shared;
use crate::text::SpecialTokenNames;

const SPECIAL: SpecialTokens = SpecialTokens { bos: 0, eos: 2, pad: 1 };

/// What transformers says: `make_tokenizer_cases.py`.
fn cases() -> (Vec<String>, HashMap<String, Value>) {
    let text = include_str!("../testdata/tokenizer_cases.json");
    let mut cases: HashMap<String, Value> = serde_json::from_str(text).unwrap();
    let captions = cases.remove("captions").unwrap();
    (serde_json::from_value(captions).unwrap(), cases)
}

fn assert_ids(tokenizer: &Tokenizer, name: &str) {
    let (captions, cases) = cases();
    let expected: Vec<Vec<u32>> = serde_json::from_value(cases[name].clone()).unwrap();
    assert_eq!(captions.len(), expected.len());
    for (caption, expected) in captions.iter().zip(expected) {
        assert_eq!(tokenizer.encode(caption).unwrap(), expected, "{name}: {caption:?}");
    }
}

fn assert_texts(tokenizer: &Tokenizer, ids: &str, texts: &str) {
    let (_, cases) = cases();
    let ids: Vec<Vec<u32>> = serde_json::from_value(cases[ids].clone()).unwrap();
    let texts: Vec<String> = serde_json::from_value(cases[texts].clone()).unwrap();
    for (ids, text) in ids.iter().zip(texts) {
        assert_eq!(tokenizer.decode(ids), text);
    }
}

fn usual(names: &[&str]) -> Vec<AddedToken> {
    names.iter().map(|name| AddedToken::special(name)).collect()
}

fn bert(text: &str, options: &WordPieceOptions) -> Tokenizer {
    let added = usual(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    Tokenizer::from_word_pieces(Path::new("vocab.txt"), text, options, &added, SPECIAL).unwrap()
}

fn bert_ways() -> [(&'static str, WordPieceOptions); 5] {
    let usual = WordPieceOptions::default();
    [
        ("uncased", usual.clone()),
        ("cased", WordPieceOptions { lowercase: false, ..usual.clone() }),
        ("accents", WordPieceOptions { strip_accents: Some(false), ..usual.clone() }),
        (
            "cased_bare",
            WordPieceOptions { lowercase: false, strip_accents: Some(true), ..usual.clone() },
        ),
        ("no_chinese", WordPieceOptions { chinese_characters: false, ..usual }),
    ]
}

#[test]
fn word_pieces_are_those_of_transformers() {
    let text = include_str!("../testdata/vocab.txt");
    for (name, options) in bert_ways() {
        assert_ids(&bert(text, &options), &format!("small_bert_{name}"));
        // As an editor on Windows would save it.
        let tokenizer = bert(&text.replace('\n', "\r\n"), &options);
        assert_ids(&tokenizer, &format!("small_bert_{name}"));
    }
    assert_texts(
        &bert(text, &WordPieceOptions::default()),
        "small_bert_uncased",
        "small_bert_text",
    );
}

#[test]
fn bytes_and_merges_are_those_of_transformers() {
    let (vocab, merges) =
        (include_str!("../testdata/vocab.json"), include_str!("../testdata/merges.txt"));
    let added = usual(&["<s>", "</s>", "<unk>", "<pad>", "<mask>"]);
    for (name, space) in [("small_roberta", false), ("small_roberta_space", true)] {
        let files = ((Path::new("vocab.json"), vocab), (Path::new("merges.txt"), merges));
        let tokenizer = Tokenizer::from_merges(files.0, files.1, space, &added, SPECIAL).unwrap();
        assert_ids(&tokenizer, name);
        if !space {
            assert_texts(&tokenizer, "small_roberta", "small_roberta_text");
        }
    }
}

#[test]
fn the_real_vocabularies_give_what_transformers_says() {
    let Some(folder) = shared("tokenizers") else { return };
    let read = |path: &str| std::fs::read_to_string(folder.join(path)).unwrap();
    let whole: Value = serde_json::from_str(&read("bert-uncased/tokenizer.json")).unwrap();
    let vocab = whole["model"]["vocab"].as_object().unwrap();
    let mut lines: Vec<(&String, u64)> =
        vocab.iter().map(|(token, id)| (token, id.as_u64().unwrap())).collect();
    lines.sort_by_key(|(_, id)| *id);
    let text: String = lines.iter().map(|(token, _)| format!("{token}\n")).collect();
    for (name, options) in bert_ways() {
        assert_ids(&bert(&text, &options), &format!("bert_{name}"));
    }
    // And what its own tokenizer.json says, ids and text.
    let names = SpecialTokenNames::default();
    let path = folder.join("bert-uncased/tokenizer.json");
    let theirs = Tokenizer::from_file(&path, &names).unwrap();
    let ours =
        bert(&text, &WordPieceOptions::default()).with_special_tokens(theirs.special_tokens());
    assert_eq!(ours.vocab_size(), theirs.vocab_size());
    for caption in cases().0 {
        let ids = theirs.encode(&caption).unwrap();
        assert_eq!(ours.encode(&caption).unwrap(), ids);
        assert_eq!(ours.decode(&ids), theirs.decode(&ids));
    }

    let (vocab, merges) = (read("gpt2/encoder.json"), read("gpt2/vocab.bpe"));
    let added = usual(&["<|endoftext|>"]);
    for (name, space) in [("gpt2", false), ("gpt2_space", true)] {
        let tokenizer = Tokenizer::from_merges(
            (Path::new("encoder.json"), &vocab),
            (Path::new("vocab.bpe"), &merges),
            space,
            &added,
            SPECIAL,
        );
        let tokenizer = tokenizer.unwrap();
        assert_eq!(tokenizer.vocab_size(), 50_257);
        assert_ids(&tokenizer, name);
    }
}

#[test]
fn added_tokens_have_their_ids_and_no_text() {
    let text = "[PAD]\n[UNK]\na\ndog\n##s\n[\n]\ndec\n";
    let token = |content: &str, id| AddedToken { id, ..AddedToken::special(content) };
    let word = AddedToken { id: Some(12), special: false, ..AddedToken::special("<dog>") };
    let added = [token("[DEC]", Some(9)), token("[PAD]", None), token("[GONE]", None), word];
    let options = WordPieceOptions::default();
    let (path, special) = (Path::new("vocab.txt"), SpecialTokens { bos: 9, eos: 0, pad: 0 });
    let tokenizer = Tokenizer::from_word_pieces(path, text, &options, &added, special).unwrap();
    assert_eq!(tokenizer.vocab_size(), 13);
    assert_eq!(tokenizer.token(9).as_deref(), Some("[DEC]"));
    assert_eq!(tokenizer.encode("A dogs [DEC]").unwrap(), [2, 3, 4, 5, 7, 6]);
    assert_eq!(tokenizer.encode("a <dog>").unwrap(), [2, 12]);
    assert_eq!(tokenizer.decode(&[9, 2, 3, 4]), "a dogs");
    // It is read back as it is written.
    let json = tokenizer.to_json().unwrap();
    let names = SpecialTokenNames {
        bos: Some("[DEC]".into()),
        eos: Some("[PAD]".into()),
        pad: Some("[PAD]".into()),
    };
    let again = Tokenizer::from_bytes(Path::new("t.json"), json.as_bytes(), &names).unwrap();
    assert_eq!(again.encode("A dogs [DEC]").unwrap(), [2, 3, 4, 5, 7, 6]);
    assert_eq!(again.vocab_size(), 13);
}

#[test]
fn errors_name_the_file_and_what_is_wrong_in_it() {
    let pieces = |text: &str, added: &[AddedToken]| {
        let options = WordPieceOptions::default();
        let path = Path::new("vocab.txt");
        let result = Tokenizer::from_word_pieces(path, text, &options, added, SPECIAL);
        result.unwrap_err().to_string()
    };
    assert!(pieces("", &[]).contains("`vocab.txt`"));
    let clash = AddedToken { id: Some(0), ..AddedToken::special("[DEC]") };
    assert!(pieces("a\nb\n", &[clash]).contains("both have id 0"));
    let moved = AddedToken { id: Some(7), ..AddedToken::special("a") };
    assert!(pieces("a\nb\n", &[moved]).contains("`a` has id 0, but as an added token 7"));

    let merged = |vocab: &str, merges: &str| {
        let files = ((Path::new("vocab.json"), vocab), (Path::new("merges.txt"), merges));
        let result = Tokenizer::from_merges(files.0, files.1, false, &[], SPECIAL);
        result.unwrap_err().to_string()
    };
    assert!(merged("[]", "").contains("`vocab.json`"));
    let vocab = r#"{"a": 0, "b": 1}"#;
    let error = merged(vocab, "#version: 0.2\na b\n");
    assert!(error.contains("`merges.txt`") && error.contains("line 2: `ab`"), "{error}");
    assert!(merged(vocab, "ab\n").contains("line 1"));
    assert!(merged(vocab, "a b c\n").contains("line 1"));
}
