//! Penn Treebank tokens as coco-caption makes them: CoreNLP 3.4.1's tokenizer, lowercased, without
//! punctuation.
//!
//! The tokenizer is a lexer: at each place the rule that matches most text wins, and of rules that
//! match equally much the first. `rules` holds the rules, found by running the original on single
//! characters, on hand-made strings and on millions of random ones; this file applies them.

use std::cell::RefCell;
use std::sync::LazyLock;

use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::{Anchored, Input, MatchKind};

use super::ptb_rules::{Rule, rules};

/// Tokens that coco-caption drops.
const PUNCTUATION: [&str; 17] = [
    "''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--",
    "...", ";",
];

/// The rules, compiled.
struct Lexer {
    rules: Vec<Rule>,
    automaton: DFA,
}

/// Memory for the automaton's states that were met so far, a million bytes or so.
const CACHE_BYTES: usize = 16 << 20;

static LEXER: LazyLock<Lexer> = LazyLock::new(|| {
    let rules = rules();
    let patterns: Vec<&str> = rules.iter().map(|rule| rule.pattern.as_str()).collect();
    let config = Config::new().match_kind(MatchKind::All).cache_capacity(CACHE_BYTES);
    #[expect(clippy::expect_used, reason = "the patterns are constants of this program")]
    let automaton =
        DFA::builder().configure(config).build_many(&patterns).expect("the rules are well formed");
    Lexer { rules, automaton }
});

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(LEXER.automaton.create_cache());
}

/// The tokens of one caption, lowercased and without punctuation, joined by single spaces: what
/// coco-caption scores.
///
/// The end of the text counts as the end of a line. A line break within it counts as a space.
pub fn tokenize(caption: &str) -> String {
    let mut joined = String::with_capacity(caption.len());
    for token in ptb_tokens(caption) {
        let token = token.to_lowercase();
        // A token can hold punctuation's bracket names only in capitals, and those were lowered.
        if PUNCTUATION.contains(&token.as_str()) {
            continue;
        }
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(&token);
    }
    joined
}

/// The Penn Treebank tokens of `text`, in their case and with punctuation.
pub fn ptb_tokens(text: &str) -> Vec<String> {
    // The lexer looks ahead for the end of the line.
    let mut line: String = text.chars().map(|c| if is_line_break(c) { ' ' } else { c }).collect();
    line.push('\n');
    let lexer = &*LEXER;
    CACHE.with_borrow_mut(|cache| {
        let mut tokens = Vec::new();
        let mut start = 0;
        while start < line.len() - 1 {
            let rest = &line[start..];
            let Some((rule, matched)) = lexer.longest(cache, &line, start) else {
                // A character that no rule knows is left out.
                start += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let matched = &rest[..matched];
            let length = rule.end.of(matched);
            if let Some(token) = rule.text.of(&matched[..length]) {
                tokens.push(token.into_owned());
            }
            start += length;
        }
        tokens
    })
}

impl Lexer {
    /// The rule that wins at `start`, and how many bytes it matches there.
    fn longest(&self, cache: &mut Cache, line: &str, start: usize) -> Option<(&Rule, usize)> {
        let input = Input::new(line).range(start..).anchored(Anchored::Yes);
        let found = self.automaton.try_search_fwd(cache, &input).ok().flatten()?;
        let rule = self.rules.get(found.pattern().as_usize())?;
        Some((rule, found.offset() - start)).filter(|(_, length)| *length > 0)
    }
}

fn is_line_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        for (caption, tokens) in [
            ("A man's dog can't run.", "a man 's dog ca n't run"),
            ("\"Hello,\" he said (twice)...", "hello he said -lrb- twice -rrb-"),
            ("Mr. Smith of the U.S. isn't gonna go..", "mr. smith of the u.s. is n't gon na go"),
            (
                "a T-shirt for $5.50, 3-D and/or 1/2 off!!",
                "a t-shirt for $ 5.50 3-d and/or 1/2 off !!",
            ),
            ("  \u{1F600} \t", ""),
            ("two\nlines", "two lines"),
        ] {
            assert_eq!(tokenize(caption), tokens, "{caption}");
        }
    }

    /// Made by `testdata/make_ptb_pairs.py`.
    #[test]
    fn nasty_strings_are_tokenised_as_the_original_does_it() {
        let pairs = include_str!("testdata/ptb_pairs.tsv");
        let pairs: Vec<(&str, &str)> =
            pairs.lines().filter_map(|line| line.rsplit_once('\t')).collect();
        assert!(pairs.len() > 1000);
        let wrong: Vec<_> = pairs
            .iter()
            .map(|(text, tokens)| (*text, *tokens, tokenize(&format!("zq {text}"))))
            .filter(|(_, tokens, own)| {
                *tokens != own.trim_start_matches("zq").trim_start_matches(' ')
            })
            .collect();
        assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), pairs.len());
    }

    #[test]
    fn every_character_can_be_tokenised() {
        for code in 0..0x11_0000 {
            if let Some(c) = char::from_u32(code) {
                ptb_tokens(&format!("a{c}"));
            }
        }
        assert_eq!(tokenize(""), "");
    }
}
