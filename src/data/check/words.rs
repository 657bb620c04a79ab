//! Words of captions, counted.
use std::collections::HashMap;

use super::super::ImageRecord;
use super::{FREQUENT, Spread};

/// The number of different words, of frequent ones, and the spread of words a caption.
pub(super) fn count_words(records: &[ImageRecord]) -> (usize, usize, Spread) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut lengths = Vec::new();
    for caption in records.iter().flat_map(|record| &record.captions) {
        let lowered = caption.to_lowercase();
        let mut length = 0;
        for word in words(&lowered) {
            length += 1;
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word.to_owned(), 1);
                }
            }
        }
        lengths.push(length);
    }
    let frequent = counts.values().filter(|&&count| count >= FREQUENT).count();
    (counts.len(), frequent, Spread::of(lengths))
}

fn words(lowered: &str) -> impl Iterator<Item = &str> {
    let is_apostrophe = |character| character == '\'' || character == '\u{2019}';
    lowered
        .split(move |character| is_separator(character) && !is_apostrophe(character))
        .map(move |word| word.trim_matches(is_apostrophe))
        .filter(|word| !word.is_empty())
}

/// White space and punctuation. Not "all but letters and digits": the vowel signs and joiners of
/// Indic scripts are neither, yet inside words.
fn is_separator(character: char) -> bool {
    character.is_whitespace()
        || character.is_ascii_punctuation()
        || matches!(character,
            '\u{ab}' | '\u{bb}' | '\u{a1}' | '\u{bf}' | '\u{b7}'   // « » ¡ ¿ ·
            | '\u{964}' | '\u{965}'                                // danda
            | '\u{60c}' | '\u{61b}' | '\u{61f}' | '\u{6d4}'        // Arabic
            | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}'    // general
            | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{301f}' | '\u{30fb}' // CJK
            | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}'    // full width
            | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}
