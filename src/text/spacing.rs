//! The spaces that only tokenised captions have ("a man 's dog ."): taken out of decoded text, and put
//! back into text to encode.
//!
//! Two regular expressions stand in a tokenizer's JSON, so that every program that reads it does the
//! same. The one in the decoder matches the spaces that no one writes; the one in the normalizer
//! matches the places where they belong. Decoded text is therefore encoded as the ids that it came
//! from, and a caption as people write it as the captions that the model was trained on.

use serde_json::{Value, json};

/// A contraction's second half.
const CLITIC: &str = r"(?:'(?:s|re|ve|m|ll|d)|n't)";

/// Where a full stop ends no sentence: behind an initial or a title. Classes of letters in place of
/// `(?i)`: its folding ("st" to "ﬆ") leaves look-behinds without a length in Oniguruma, with which other
/// programs read the file.
const NO_ABBREVIATION: &str = concat!(
    r"(?<!\s\p{L})(?<!\b(?:[Mm]r|[Mm]s|[Dd]r|[Ss]t|[Jj]r|[Ss]r|[Vv]s|[Mm]t|[Ff]t))",
    r"(?<!\b[Mm]rs)"
);

/// What stood in the decoder when nothing stood in the normalizer.
const FIRST_DECODER: &str = r" (?=(?:[.,]+|'(?:s|re|ve|m|ll|d)|n't)(?:\s|$))";

/// The merges among which that of a space and a full stop is where captions were tokenised: it is as
/// frequent as captions are. Of captions that write "grass." it is rare, or not there.
const FREQUENT_MERGES: usize = 50;

/// The places of loose spaces: full stops and commas behind a word, and contractions. `space` is what is
/// there now, `clitics` what follows a contraction's place, `end` what follows a full stop or a comma.
fn places(space: &str, clitics: &str, end: &str) -> String {
    let word = r"(?<=[^\s.,])";
    // "U.S." and "R.V." keep their last stop wherever they stand.
    let no_letters = r"(?<!\.\p{L})";
    [
        format!("{word}{space}(?=,{end})"),
        format!(r"{word}{no_letters}{space}(?=\.[.,]*\s*\z)"),
        format!(r"{word}{no_letters}{NO_ABBREVIATION}{space}(?=\.{end})"),
        format!(r"(?<=[\p{{L}}\p{{M}}\p{{N}}]){space}(?={clitics})"),
    ]
    .join("|")
}

/// The spaces to take out of decoded text. Not those before `!` and `?`, where French has them.
fn loose_spaces() -> String {
    places(" ", &format!(r"{CLITIC}(?:\s|\z)"), r"[.,]*(?:\s|\z)")
}

/// Where text to encode lacks a space. With `tokenised`, other punctuation stands apart too, as it does
/// in tokenised captions; decoded text keeps those spaces.
fn missing_spaces(tokenised: bool) -> String {
    if !tokenised {
        let end = r"[.,]*(?:\s|\z)";
        return places("", &format!("{CLITIC}+{end}"), end);
    }
    let end = r#"[.,!?;:]*(?:\s|\z|["()\[\]{}])"#;
    [
        places("", &format!("{CLITIC}+{end}"), end).as_str(),
        &format!("(?<=[^\\s!?;:])(?=[!?;:]{end})"),
        r#"(?<=\S)(?=["()\[\]{}])"#,
        r#"(?<=["()\[\]{}])(?=\S)"#,
    ]
    .join("|")
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
}

/// The part of a decoder that takes loose spaces out.
pub(super) fn decoder() -> Value {
    replace(&loose_spaces(), "")
}

/// The part of a normalizer that puts them in.
pub(super) fn normalizer(tokenised: bool) -> Value {
    replace(&missing_spaces(tokenised), " ")
}

/// For tokenizers that cut every mark from its word (WordPiece): what draws a contraction together in
/// decoded text, and what writes "do n't" as "don't" in text to encode, since the cut is elsewhere then.
pub(super) fn contractions() -> [Value; 2] {
    let end = r"(?:\s|\z|[.,!?])";
    let apostrophe = format!(r"(?<=[\p{{L}}\p{{M}}\p{{N}}]) ' (?=(?:s|t|re|ve|m|ll|d){end})");
    let negation = r"(?<=\p{L})\s+(?=n ?' ?t(?![\p{L}\p{M}\p{N}]))";
    [replace(&apostrophe, "'"), replace(negation, "")]
}

/// Whether most full stops and commas of the captions have a space before them.
pub(super) fn are_tokenised<'a>(captions: impl Iterator<Item = &'a str>) -> bool {
    let (mut apart, mut glued) = (0_u64, 0_u64);
    for caption in captions {
        let mut before = ' ';
        let mut characters = caption.chars().peekable();
        while let Some(character) = characters.next() {
            let ends = characters.peek().is_none_or(|next| next.is_whitespace());
            if matches!(character, '.' | ',') && ends {
                *(if before.is_whitespace() { &mut apart } else { &mut glued }) += 1;
            }
            before = character;
        }
    }
    apart > glued
}

/// Gives a byte-level tokenizer of ours that has only the first decoder what belongs to it: captions are
/// encoded as those that it was trained on, tokenised or not. Says whether it was one.
pub(super) fn complete(tokenizer: &mut Value) -> bool {
    let first = |part: &Value| part["pattern"]["Regex"] == FIRST_DECODER;
    let decoders = tokenizer.pointer_mut("/decoder/decoders").and_then(Value::as_array_mut);
    let Some(part) = decoders.and_then(|decoders| decoders.iter_mut().find(|part| first(part)))
    else {
        return false;
    };
    *part = decoder();
    let frequent = tokenizer["model"]["merges"].as_array().into_iter().flatten();
    let tokenised =
        frequent.take(FREQUENT_MERGES).any(|merge| *merge == json!(["Ġ", "."]) || *merge == "Ġ .");
    let spacing = if tokenised { normalizer(true) } else { replace(&loose_spaces(), "") };
    let normalizers = tokenizer.pointer_mut("/normalizer/normalizers");
    match normalizers.and_then(Value::as_array_mut) {
        Some(normalizers) => normalizers.push(spacing),
        None => tokenizer["normalizer"] = spacing,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::{SpecialTokenNames, Tokenizer, TokenizerConfig, TokenizerKind};
    use super::*;
    use std::path::Path;

    fn tokenizer(captions: &[&str], kind: TokenizerKind) -> Tokenizer {
        let config =
            TokenizerConfig { kind, vocab_size: 700, min_frequency: 1, ..Default::default() };
        Tokenizer::train(captions.iter().map(|caption| (*caption).to_owned()), &config).unwrap()
    }

    const TOKENISED: &[&str] = &[
        "a man 's dog , which is n't big , runs .",
        "a dog runs on the grass .",
        "a sign says \" stop ! \" in S.C.U.B.A. gear .",
        "Mr. Potato Head ( a toy ) stands ; people look .",
        "where is J. Smith ? in Washington D.C.",
        "they 'll see I 'd 've gone , he 's there ... and we 're not",
    ];
    const WRITTEN: &[&str] = &[
        "a man's dog, which isn't big, runs.",
        "a dog runs on the grass.",
        "a sign says \"stop!\" in S.C.U.B.A. gear.",
        "Mr. Potato Head (a toy) stands; people look.",
        "where is J. Smith? in Washington D.C.",
        "they'll see I'd've gone, he's there... and we're not",
    ];

    #[test]
    fn written_captions_are_encoded_as_tokenised_ones() {
        let tokenizer = tokenizer(TOKENISED, TokenizerKind::Bpe);
        for (tokenised, written) in TOKENISED.iter().zip(WRITTEN) {
            let ids = tokenizer.encode(tokenised).unwrap();
            let texts =
                |ids: &[u32]| ids.iter().filter_map(|id| tokenizer.token(*id)).collect::<Vec<_>>();
            let of_written = tokenizer.encode(written).unwrap();
            assert_eq!(texts(&of_written), texts(&ids), "{written}");
        }
    }

    #[test]
    fn captions_come_back_as_they_are_written() {
        let tokenizer = tokenizer(WRITTEN, TokenizerKind::Bpe);
        for written in WRITTEN {
            assert_eq!(tokenizer.decode(&tokenizer.encode(written).unwrap()), *written);
        }
        // What French has apart stays so, what English has together as well.
        for text in ["Attention !", "Wow!", "où est-il ? là : ici", "(yes) \"no\""] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()), text);
        }
    }

    /// Texts of pieces that spacing has rules for, in any order.
    fn noise() -> impl Iterator<Item = String> {
        let pieces = [
            "a", "dog", "Mr", "St", "J", "don", "n't", "'s", "'d", "'ve", "'", "\"", "(", ")", ".",
            ",", "...", "!", "?", ";", ":", " ", " ", " ", "  ", "3", "é", "犬", "U.S.", "\n", "-",
        ];
        let mut state = 7_u32;
        let mut next = move |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % most
        };
        (0..6000).map(move |_| {
            let length = 1 + next(9);
            (0..length).map(|_| pieces[next(pieces.len() as u32) as usize]).collect()
        })
    }

    #[test]
    fn decoded_text_is_encoded_as_its_ids() {
        for kind in [TokenizerKind::Bpe, TokenizerKind::WordPiece] {
            for captions in [TOKENISED, WRITTEN] {
                let tokenizer = tokenizer(captions, kind);
                let texts = TOKENISED.iter().chain(WRITTEN).map(|text| (*text).to_owned());
                for text in texts.chain(noise()) {
                    let ids = tokenizer.encode(&text).unwrap();
                    // What no vocabulary has is lost in WordPiece.
                    if ids.iter().any(|id| tokenizer.token(*id).as_deref() == Some("<unk>")) {
                        continue;
                    }
                    let said = tokenizer.decode(&ids);
                    assert_eq!(tokenizer.encode(&said).unwrap(), ids, "{kind:?} {text:?} {said:?}");
                }
            }
        }
    }

    /// A tokenizer as it was written before the normalizer had a part in spacing.
    fn first_form(captions: &[&str]) -> Tokenizer {
        let json = tokenizer(captions, TokenizerKind::Bpe).to_json().unwrap();
        let mut json: Value = serde_json::from_str(&json).unwrap();
        json["decoder"]["decoders"][1] = replace(FIRST_DECODER, "");
        json["normalizer"]["normalizers"].as_array_mut().unwrap().pop();
        let path = Path::new("tokenizer.json");
        let names = SpecialTokenNames::default();
        Tokenizer::from_bytes(path, json.to_string().as_bytes(), &names).unwrap()
    }

    #[test]
    fn tokenizers_of_before_encode_as_their_captions_were() {
        let spaced = first_form(&["a dog runs on the grass .", "a dog is on the grass ."]);
        let ids = spaced.encode("a dog runs on the grass .").unwrap();
        assert_eq!(spaced.encode("a dog runs on the grass.").unwrap(), ids);
        assert_eq!(spaced.encode(&spaced.decode(&ids)).unwrap(), ids);

        let json = tokenizer(&["a dog on grass"], TokenizerKind::Bpe).to_json().unwrap();
        let mut json: Value = serde_json::from_str(&json).unwrap();
        json["decoder"]["decoders"][1] = replace(FIRST_DECODER, "");
        json["normalizer"]["normalizers"].as_array_mut().unwrap().pop();
        assert!(complete(&mut json));
        assert!(!complete(&mut json), "once is enough");
        let names = SpecialTokenNames::default();
        let glued =
            Tokenizer::from_bytes(Path::new("t"), json.to_string().as_bytes(), &names).unwrap();
        let ids = glued.encode("a dog on grass.").unwrap();
        assert_eq!(glued.token(*ids.last().unwrap()).as_deref(), Some("."));
        assert_eq!(glued.encode("a dog on grass .").unwrap(), ids);
        assert_eq!(glued.encode(&glued.decode(&ids)).unwrap(), ids);
    }

    #[test]
    fn most_captions_say_whether_they_are_tokenised() {
        assert!(are_tokenised(TOKENISED.iter().copied()));
        assert!(!are_tokenised(WRITTEN.iter().copied()));
        assert!(!are_tokenised(std::iter::empty()));
    }
}
