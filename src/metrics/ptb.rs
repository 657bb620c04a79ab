//! Penn Treebank tokens as coco-caption makes them: CoreNLP 3.4.1's tokenizer, lowercased, without
//! punctuation.
//!
//! The tokenizer is a lexer: at each place the rule that matches most text wins, and of rules that
//! match equally much the first. [`rules`] holds the rules, found by running the original on single
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
