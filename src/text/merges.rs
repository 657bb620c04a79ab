//! Learning which pieces to merge (byte-pair encoding).
//!
//! The tokenizers crate has a trainer too, but it walks hash maps with random seeds: WordPiece ids
//! and rare ties differ from run to run. This one is ordered throughout, so that the same captions
//! always give the same file.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

type Pair = (u32, u32);

/// What [`learn`] starts from.
pub(super) struct Start<'a> {
    /// Tokens that no text may ever become; they take the first ids.
    pub special_tokens: &'a [&'a str],
    /// Every single-character piece, in the order of their ids.
    pub alphabet: Vec<String>,
    /// What marks a piece that continues a word ("##"), if anything does.
    pub continuing_prefix: Option<&'a str>,
}

/// A vocabulary and the merges that lead to it.
pub(super) struct Learned {
    /// Tokens, at the index of their id.
    pub vocabulary: Vec<String>,
    /// Pairs to merge, most important first.
    pub merges: Vec<(String, String)>,
}

/// Merges the most frequent pair until the vocabulary holds `vocab_size` tokens or no pair occurs
/// `min_frequency` times. Ties go to the pair with the smaller ids.
///
/// `words` must be in a fixed order without repeats; characters outside the alphabet are ignored.
pub(super) fn learn(
    words: &[(String, u64)],
    start: Start<'_>,
    vocab_size: usize,
    min_frequency: u64,
) -> Learned {
    let prefix = start.continuing_prefix.unwrap_or_default();
    let mut vocabulary: Vec<String> =
        start.special_tokens.iter().map(|token| (*token).to_owned()).collect();
    vocabulary.extend(start.alphabet);
    let mut ids: HashMap<String, u32> =
        vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();

    let mut corpus = Corpus::default();
    for (word, count) in words {
        let pieces = word.chars().enumerate().filter_map(|(position, character)| {
            let piece = match position {
                0 => character.to_string(),
                _ => format!("{prefix}{character}"),
            };
            ids.get(&piece).copied()
        });
        corpus.push(pieces.collect(), *count);
    }

    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> =
        corpus.counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
    let mut merges = Vec::new();
    let mut merged = HashSet::new();
    while vocabulary.len() < vocab_size {
        let Some((count, Reverse(pair))) = queue.pop() else { break };
        let current = corpus.counts.get(&pair).copied().unwrap_or(0);
        if count != current {
            // Counts fall without the queue being told: put the pair back where it now belongs.
            if current > 0 {
                queue.push((current, Reverse(pair)));
            }
            continue;
        }
        if count < min_frequency.max(1) {
            break;
        }
        let (left, right) = (&vocabulary[pair.0 as usize], &vocabulary[pair.1 as usize]);
        let token = format!("{left}{}", right.strip_prefix(prefix).unwrap_or(right));
        if start.special_tokens.contains(&token.as_str()) {
            continue;
        }
        // Two splits of one string ("ab" + "c", "a" + "bc") share a token, and then a pair that was
        // merged before can come back: one entry in the list serves both.
        if merged.insert(pair) {
            merges.push((left.clone(), right.clone()));
        }
        let id = *ids.entry(token).or_insert_with_key(|token| {
            vocabulary.push(token.clone());
            (vocabulary.len() - 1) as u32
        });
        for pair in corpus.merge(pair, id) {
            queue.push((corpus.counts.get(&pair).copied().unwrap_or(0), Reverse(pair)));
        }
    }
    Learned { vocabulary, merges }
}

/// Words as sequences of piece ids, with how often each pair of neighbours occurs and where.
#[derive(Default)]
struct Corpus {
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    /// Words that hold the pair, and perhaps some that no longer do.
    places: HashMap<Pair, Vec<usize>>,
}

impl Corpus {
    fn push(&mut self, pieces: Vec<u32>, count: u64) {
        let word = self.words.len();
        for pair in pairs(&pieces) {
            *self.counts.entry(pair).or_default() += count;
            self.places.entry(pair).or_default().push(word);
        }
        self.words.push((pieces, count));
    }

    /// Replaces `pair` by `id` everywhere; returns the pairs that became more frequent, in order.
    fn merge(&mut self, pair: Pair, id: u32) -> Vec<Pair> {
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        let mut grown = Vec::new();
        for word in places {
            let (pieces, count) = &mut self.words[word];
            let merged = replace(pieces, pair, id);
            for old in pairs(pieces) {
                if let Some(total) = self.counts.get_mut(&old) {
                    *total -= *count;
                }
            }
            for new in pairs(&merged) {
                *self.counts.entry(new).or_default() += *count;
                if new.0 == id || new.1 == id {
                    self.places.entry(new).or_default().push(word);
                    grown.push(new);
                }
            }
            *pieces = merged;
        }
        grown.sort_unstable();
        grown.dedup();
        grown
    }
}

fn pairs(pieces: &[u32]) -> impl Iterator<Item = Pair> + '_ {
    pieces.windows(2).map(|window| (window[0], window[1]))
}

fn replace(pieces: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut merged = Vec::with_capacity(pieces.len());
    let mut position = 0;
    while position < pieces.len() {
        if position + 1 < pieces.len() && (pieces[position], pieces[position + 1]) == pair {
            merged.push(id);
            position += 2;
        } else {
            merged.push(pieces[position]);
            position += 1;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(prefix: Option<&'static str>, alphabet: &[&str]) -> Start<'static> {
        Start {
            special_tokens: &["<pad>"],
            alphabet: alphabet.iter().map(|piece| (*piece).to_owned()).collect(),
            continuing_prefix: prefix,
        }
    }

    fn words(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
    }

    #[test]
    fn merges_by_frequency_then_by_id() {
        // "ab" 5 times, "bc" 5 times (a tie, the smaller ids win), then "abc" is what is left.
        let learned =
            learn(&words(&[("abc", 5), ("d", 9)]), start(None, &["a", "b", "c", "d"]), 100, 1);
        assert_eq!(learned.merges, [("a".into(), "b".into()), ("ab".into(), "c".into())]);
        assert_eq!(learned.vocabulary, ["<pad>", "a", "b", "c", "d", "ab", "abc"]);
    }

    #[test]
    fn frequency_and_size_stop_the_merging() {
        let list = words(&[("ab", 3), ("cd", 2)]);
        let alphabet = ["a", "b", "c", "d"];
        assert_eq!(learn(&list, start(None, &alphabet), 100, 3).vocabulary.len(), 6);
        assert_eq!(learn(&list, start(None, &alphabet), 100, 0).vocabulary.len(), 7);
        assert_eq!(learn(&list, start(None, &alphabet), 6, 0).vocabulary.len(), 6);
    }

    #[test]
    fn repeated_pieces_are_counted_as_they_are_merged() {
        let learned = learn(&words(&[("aaaa", 1)]), start(None, &["a"]), 100, 1);
        assert_eq!(learned.vocabulary, ["<pad>", "a", "aa", "aaaa"]);
    }

    #[test]
    fn continuing_pieces_keep_their_mark() {
        let learned =
            learn(&words(&[("dog", 2)]), start(Some("##"), &["d", "o", "g", "##o", "##g"]), 100, 1);
        assert_eq!(learned.vocabulary[6..], ["do".to_owned(), "dog".to_owned()]);
    }

    #[test]
    fn no_merge_makes_a_special_token() {
        let learned =
            learn(&words(&[("<pad>", 50)]), start(None, &["<", "p", "a", "d", ">"]), 100, 1);
        assert_eq!(learned.vocabulary.iter().filter(|token| *token == "<pad>").count(), 1);
        assert!(!learned.merges.iter().any(|(left, right)| format!("{left}{right}") == "<pad>"));
    }
}
