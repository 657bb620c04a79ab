//! Token ids as the words a reader sees.
//!
//! Works on decoded text alone, so that it holds for every kind of tokenizer (byte-level `Ġ`,
//! WordPiece `##`, SentencePiece `▁`): growing prefixes of the ids are decoded, a token owns the
//! text that it adds, tokens that only together make a character are kept together, and the pieces
//! are then joined where no reader would see a gap.

use std::ops::Range;

use super::Tokenizer;

/// A word of a caption and the tokens that it was written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word without white space around it.
    pub text: String,
    /// Positions of its tokens in the ids, special tokens never among them.
    pub tokens: Range<usize>,
}

impl Tokenizer {
    /// Words of `ids` in order.
    ///
    /// White space separates words. Punctuation at the edge of a word is a word of its own, inside
    /// it (`t-shirt`, `man's`) a part of it. Scripts that write no spaces (Chinese, Japanese, Thai,
    /// Lao, Khmer, Burmese) and emoji have one word a token; no character is ever cut, nor is a mark
    /// parted from its letter. A token that holds several words stays one word; one of white space
    /// alone belongs to the word behind it, at the end of a text to the one before.
    ///
    /// Joined together, the words are [`Tokenizer::decode`] of the ids, white space aside.
    pub fn words(&self, ids: &[u32]) -> Vec<Word> {
        let pieces = self.pieces(ids);
        let mut words: Vec<Word> = Vec::new();
        let mut gap = true;
        // Tokens of white space alone, which belong to the word behind them.
        let mut blank: Option<Range<usize>> = None;
        for (index, piece) in pieces.iter().enumerate() {
            let text = piece.text.trim();
            if text.is_empty() {
                gap = true;
                blank = Some(match blank.take() {
                    Some(before) if before.end == piece.tokens.start => {
                        before.start..piece.tokens.end
                    }
                    _ => piece.tokens.clone(),
                });
                continue;
            }
            let blank = blank.take().filter(|blank| blank.end == piece.tokens.start);
            let start = blank.map_or(piece.tokens.start, |blank| blank.start);
            let spaced = gap || piece.text.starts_with(char::is_whitespace);
            gap = piece.text.ends_with(char::is_whitespace);
            let closes = pieces[index..]
                .iter()
                .enumerate()
                .take_while(|(ahead, piece)| {
                    *ahead == 0 || !piece.text.starts_with(char::is_whitespace)
                })
                .all(|(_, piece)| piece.text.trim().chars().all(is_punctuation));
            match words.last_mut() {
                Some(word)
                    if !spaced
                        && word.tokens.end == piece.tokens.start
                        && joins(&word.text, text, closes) =>
                {
                    word.text.push_str(text);
                    word.tokens.end = piece.tokens.end;
                }
                _ => words.push(Word { text: text.to_owned(), tokens: start..piece.tokens.end }),
            }
        }
        // White space that ends a text belongs to the word before it.
        if let (Some(word), Some(blank)) = (words.last_mut(), blank)
            && word.tokens.end == blank.start
        {
            word.tokens.end = blank.end;
        }
        words
    }

    /// The decoded text, cut wherever a token ends together with a character.
    fn pieces(&self, ids: &[u32]) -> Vec<Word> {
        let positions: Vec<usize> = (0..ids.len()).filter(|at| self.has_text(ids[*at])).collect();
        let kept: Vec<u32> = positions.iter().map(|at| ids[*at]).collect();
        let full = self.decode(&kept);
        let mut pieces: Vec<Word> = Vec::new();
        let (mut done, mut first) = (0, 0);
        for end in 1..=kept.len() {
            let last = end == kept.len();
            let prefix = if last { full.clone() } else { self.decode(&kept[..end]) };
            // Anything else ends within a character, or in bytes that a later token makes sense of.
            if !full.starts_with(&prefix) || prefix.len() < done {
                continue;
            }
            if prefix.len() == done && !last {
                continue;
            }
            // Where a special token stands between the tokens of one character, the later ones own
            // it: the positions of a word have no hole.
            let hole = (first + 1..end).rev().find(|at| positions[*at] != positions[*at - 1] + 1);
            let tokens = positions[hole.unwrap_or(first)]..positions[end - 1] + 1;
            if prefix.len() > done {
                pieces.push(Word { text: full[done..prefix.len()].to_owned(), tokens });
            } else if let Some(piece) = pieces.last_mut() {
                // Tokens at the end that add no text belong to what they stand behind.
                if piece.tokens.end == tokens.start {
                    piece.tokens.end = tokens.end;
                }
            }
            (done, first) = (prefix.len(), end);
        }
        pieces
    }
}

/// Whether `next`, right behind `word` without white space, belongs to it; `closes` says that from
/// there to the next white space all is punctuation.
fn joins(word: &str, next: &str, closes: bool) -> bool {
    let (Some(before), Some(after)) = (word.chars().next_back(), next.chars().next()) else {
        return true;
    };
    if is_mark(after) || before == ZERO_WIDTH_JOINER {
        return true;
    }
    if writes_no_spaces(before) || writes_no_spaces(after) {
        return false;
    }
    // A word's opening and closing punctuation stands apart, punctuation within it does not; a run
    // of punctuation is one word.
    if word.chars().all(is_punctuation) {
        return next.chars().all(is_punctuation);
    }
    !closes
}

const ZERO_WIDTH_JOINER: char = '\u{200D}';

/// Characters that change the one before them and mean nothing alone.
fn is_mark(character: char) -> bool {
    matches!(character,
        ZERO_WIDTH_JOINER | '\u{200C}'
        | '\u{300}'..='\u{36F}' | '\u{20D0}'..='\u{20FF}' | '\u{FE00}'..='\u{FE0F}'
        // Indic vowel signs and viramas: the same places in each block from Devanagari to Malayalam.
        | '\u{900}'..='\u{903}' | '\u{93A}'..='\u{93C}' | '\u{93E}'..='\u{94F}'
        // Thai, Lao, Burmese, Khmer.
        | '\u{E31}' | '\u{E33}'..='\u{E3A}' | '\u{E47}'..='\u{E4E}'
        | '\u{EB1}' | '\u{EB3}'..='\u{EBC}' | '\u{EC8}'..='\u{ECE}'
        | '\u{102B}'..='\u{103E}' | '\u{17B4}'..='\u{17D3}'
        // Kana voicing, skin tones, emoji tags.
        | '\u{3099}' | '\u{309A}' | '\u{1F3FB}'..='\u{1F3FF}' | '\u{E0020}'..='\u{E007F}')
}

fn writes_no_spaces(character: char) -> bool {
    matches!(character,
        '\u{E00}'..='\u{EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}'
        | '\u{2E80}'..='\u{312F}' | '\u{31A0}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{FF00}'..='\u{FFEF}' | '\u{20000}'..='\u{3FFFF}'
        // Emoji: each says a thing of its own.
        | '\u{2600}'..='\u{27BF}' | '\u{1F000}'..='\u{1FAFF}')
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation()
        || matches!(character,
            '\u{A1}' | '\u{A7}' | '\u{AB}' | '\u{B6}' | '\u{B7}' | '\u{BB}' | '\u{BF}'
            | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205E}' | '\u{964}' | '\u{965}'
            | '\u{60C}' | '\u{61B}' | '\u{61F}' | '\u{6D4}')
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::{CAPTIONS, trained};
    use super::super::{SpecialTokenNames, TokenizerKind};
    use super::*;
    use crate::shared::shared;
    use std::path::Path;

    fn bare(text: &str) -> String {
        text.chars().filter(|character| !character.is_whitespace()).collect()
    }

    /// Checks what must hold for any ids, and returns the words.
    fn checked(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
        let words = tokenizer.words(ids);
        let joined: String = words.iter().map(|word| bare(&word.text)).collect();
        assert_eq!(joined, bare(&tokenizer.decode(ids)));
        let mut end = 0;
        for word in &words {
            assert!(end <= word.tokens.start && word.tokens.start < word.tokens.end, "{words:?}");
            assert!(!word.text.trim().is_empty());
            end = word.tokens.end;
            for at in word.tokens.clone() {
                assert!(tokenizer.has_text(ids[at]), "a special token in {word:?}");
            }
        }
        assert!(end <= ids.len());
        words.into_iter().map(|word| word.text).collect()
    }

    fn words_of(tokenizer: &Tokenizer, caption: &str) -> Vec<String> {
        checked(tokenizer, &tokenizer.encode(caption).unwrap())
    }

    fn both() -> [Tokenizer; 3] {
        // 300 tokens: hardly a merge, nearly every byte alone.
        [
            trained(TokenizerKind::Bpe, 300),
            trained(TokenizerKind::Bpe, 500),
            trained(TokenizerKind::WordPiece, 600),
        ]
    }

    #[test]
    fn english_splits_at_spaces_and_edge_punctuation() {
        for tokenizer in both() {
            assert_eq!(words_of(&tokenizer, "a small red circle"), ["a", "small", "red", "circle"]);
            assert_eq!(
                words_of(&tokenizer, "running, and a square."),
                ["running", ",", "and", "a", "square", "."]
            );
        }
        let [bytes, _, _] = both();
        assert_eq!(
            words_of(&bytes, "a man's t-shirt (\"red\")..."),
            ["a", "man's", "t-shirt", "(\"", "red", "\")..."]
        );
    }

    #[test]
    fn hindi_words_stay_whole() {
        for tokenizer in both() {
            assert_eq!(words_of(&tokenizer, "एक लाल गेंद है"), ["एक", "लाल", "गेंद", "है"]);
        }
        let [bytes, _, _] = both();
        assert_eq!(words_of(&bytes, "दो कुत्ते दौड़।"), ["दो", "कुत्ते", "दौड़", "।"]);
    }

    #[test]
    fn japanese_has_a_word_a_token_and_no_cut_character() {
        let [bytes, merged, _] = both();
        let caption = "赤い犬。";
        assert_eq!(words_of(&bytes, caption), ["赤", "い", "犬", "。"]);
        let long = "草の上で犬が走っている。";
        let words = words_of(&trained(TokenizerKind::Bpe, 2000), long);
        assert!(words.len() < long.chars().count(), "{words:?}");
        for word in words_of(&merged, long) {
            assert!(!word.contains('\u{FFFD}'));
        }
    }

    #[test]
    fn emoji_are_words_and_their_sequences_are_whole() {
        let [bytes, _, _] = both();
        assert_eq!(
            words_of(&bytes, "a dog 🐕 and 👨‍👩‍👧, 👍🏽🐕"),
            ["a", "dog", "🐕", "and", "👨‍👩‍👧", ",", "👍🏽", "🐕"]
        );
    }

    #[test]
    fn thai_marks_stay_with_their_letters() {
        let [bytes, _, _] = both();
        let words = words_of(&bytes, "ภาษาน้ำ");
        assert!(words.contains(&"น้ำ".to_owned()), "{words:?}");
    }

    #[test]
    fn a_token_of_white_space_alone_belongs_to_its_word() {
        // Without " 3" in the vocabulary a space and the figure are two tokens.
        let [bytes, _, _] = both();
        let ids = bytes.encode("a  3 Ж ").unwrap();
        let words = bytes.words(&ids);
        assert_eq!(
            words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>(),
            ["a", "3", "Ж"]
        );
        assert!(words[1].tokens.len() > 1, "{words:?}");
        // Every token has its word, and no two words share one.
        let mut end = 0;
        for word in &words {
            assert_eq!(word.tokens.start, end, "{words:?}");
            end = word.tokens.end;
        }
        assert_eq!(end, ids.len());
        assert!(bytes.words(&bytes.encode("  ").unwrap()).is_empty());
    }

    #[test]
    fn special_tokens_belong_to_no_word() {
        for tokenizer in both() {
            let body = tokenizer.encode("two dogs").unwrap();
            let mut ids = vec![1];
            ids.extend(&body);
            ids.extend([2, 0, 0]);
            let words = tokenizer.words(&ids);
            assert_eq!(words.len(), 2);
            assert_eq!(words[0].tokens.start, 1);
            assert_eq!(words[0].tokens.end, words[1].tokens.start);
            assert_eq!(words[1].tokens.end, 1 + body.len());
        }
    }

    #[test]
    fn a_special_token_within_a_character_leaves_no_hole() {
        let [bytes, _, _] = both();
        let mut ids = bytes.encode("犬").unwrap();
        assert_eq!(ids.len(), 3, "the test wants a character of three tokens");
        ids.insert(1, 2);
        let words = bytes.words(&ids);
        assert_eq!(words, [Word { text: "犬".into(), tokens: 2..4 }]);
    }

    #[test]
    fn what_must_hold_holds_for_captions_and_for_noise() {
        for tokenizer in both() {
            assert!(tokenizer.words(&[]).is_empty());
            for caption in CAPTIONS {
                checked(&tokenizer, &tokenizer.encode(caption).unwrap());
            }
            // Ids of an untrained model: broken bytes, special tokens, ids outside the vocabulary.
            let mut state = 1_u32;
            for length in 1..60 {
                let ids: Vec<u32> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 8) % (tokenizer.vocab_size() as u32 + 5)
                    })
                    .collect();
                checked(&tokenizer, &ids);
            }
        }
    }

    #[test]
    fn sentencepiece_marks_are_understood() {
        let vocabulary = ["<s>", "</s>", "<pad>", "<unk>", "▁a", "▁do", "g", "▁", "犬", ".", "g▁a"];
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            vocabulary.iter().enumerate().map(|(id, token)| ((*token).into(), id.into())).collect();
        let special = |id: usize, content: &str| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        };
        let metaspace = serde_json::json!({"type": "Metaspace", "replacement": "▁",
            "prepend_scheme": "always", "split": true});
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [special(0, "<s>"), special(1, "</s>"), special(2, "<pad>")],
            "pre_tokenizer": metaspace, "post_processor": null, "decoder": metaspace,
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "vocab": vocabulary, "merges": []},
        });
        let tokenizer = Tokenizer::from_bytes(
            Path::new("metaspace"),
            json.to_string().as_bytes(),
            &SpecialTokenNames::default(),
        )
        .unwrap();
        let ids = [0, 4, 5, 6, 7, 8, 9, 1];
        assert_eq!(tokenizer.decode(&ids), "a dog 犬.");
        assert_eq!(checked(&tokenizer, &ids), ["a", "dog", "犬", "."]);
        assert_eq!(tokenizer.words(&ids)[1].tokens, 2..4);
    }

    #[test]
    fn bert_pieces_are_merged() {
        let Some(path) = shared("tokenizers/bert-uncased/tokenizer.json") else { return };
        let tokenizer = Tokenizer::from_file(&path, &SpecialTokenNames::default()).unwrap();
        let mut ids = vec![101];
        ids.extend(tokenizer.encode("Snowboarders jumping, happily, on a half-pipe.").unwrap());
        ids.push(102);
        assert!(ids.len() > 12, "the test wants words of several pieces: {ids:?}");
        assert_eq!(
            checked(&tokenizer, &ids),
            ["snowboarders", "jumping", ",", "happily", ",", "on", "a", "half", "-", "pipe", "."]
        );
    }

    #[test]
    fn parity_ids_make_words() {
        for model in ["blip", "vit-bert", "vit-gpt2"] {
            let Some(folder) = shared(&format!("parity/{model}")) else { continue };
            let tokenizer =
                Tokenizer::from_file(&folder.join("tokenizer.json"), &SpecialTokenNames::default())
                    .unwrap();
            let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
            let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
            for run in expected.as_object().unwrap().values() {
                let Some(ids) = run.get("ids") else { continue };
                let ids: Vec<Vec<u32>> = serde_json::from_value(ids.clone()).unwrap();
                for ids in &ids {
                    assert!(!checked(&tokenizer, ids).is_empty());
                }
            }
        }
    }
}
