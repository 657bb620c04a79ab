//! METEOR's aligner: which words of a caption stand for which words of a reference.
//!
//! All possible matches are collected, then a beam search over the reference's words picks a set in
//! which every word is used at most once: most matched words (weighted) first, then fewest chunks,
//! then shortest distances. Of paths that are equal in all three the one found first wins, so the
//! order of the matches and of the paths counts; both are METEOR's.

use std::cmp::Reverse;

/// How two stretches of words were found to be alike; the order of METEOR's stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Exact,
    Stem,
    Synonym,
    Paraphrase,
}

impl Stage {
    pub(super) const ALL: [Self; 4] = [Self::Exact, Self::Stem, Self::Synonym, Self::Paraphrase];

    /// What a matched word of this stage is worth in the score.
    pub(super) fn weight(self) -> f64 {
        match self {
            Self::Exact => 1.0,
            Self::Synonym => 0.8,
            Self::Stem | Self::Paraphrase => 0.6,
        }
    }

    /// What `words` matched words of this stage are worth in the search. METEOR takes half a word for
    /// each that is not equal here, and rounds each match down: a single such word is worth nothing.
    fn matched(self, words: usize) -> usize {
        match self {
            Self::Exact => words,
            _ => words / 2,
        }
    }
}

/// A stretch of the reference that stands for a stretch of the caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) stage: Stage,
    /// First word in the reference, and how many.
    pub(super) reference: (usize, usize),
    /// First word in the caption, and how many.
    pub(super) caption: (usize, usize),
}

impl Match {
    fn distance(&self) -> usize {
        self.reference.0.abs_diff(self.caption.0)
    }
}

/// The chosen matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alignment {
    pub(super) matches: Vec<Match>,
    /// Runs of matches that are adjacent and in order on both sides.
    pub(super) chunks: usize,
}

/// Partial alignments that are followed at once, as METEOR has it.
const BEAM: usize = 40;

/// Where a path stands.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// Matched words on both sides, weighted by stage.
    matched: usize,
    /// Closed runs of matches.
    chunks: usize,
    /// Places passed over: METEOR charges a match's distance to the paths that do not take it.
    distance: usize,
    /// The first reference word after the last match.
    next: usize,
    /// The first caption word after the last match, where the word before `next` is matched.
    chunk_end: Option<usize>,
}

impl Standing {
    fn take(&mut self, found: &Match) {
        if self.chunk_end.is_some_and(|end| end != found.caption.0) {
            self.chunks += 1;
        }
        self.next = found.reference.0 + found.reference.1;
        self.chunk_end = Some(found.caption.0 + found.caption.1);
        self.matched +=
            found.stage.matched(found.reference.1) + found.stage.matched(found.caption.1);
    }

    fn skip(&mut self) {
        self.close_chunk();
        self.next += 1;
    }

    fn close_chunk(&mut self) {
        if self.chunk_end.take().is_some() {
            self.chunks += 1;
        }
    }

    fn rank(&self) -> (Reverse<usize>, usize, usize) {
        (Reverse(self.matched), self.chunks, self.distance)
    }
}

/// A path that stays in the beam.
#[derive(Debug, Clone, Default)]
struct Path {
    standing: Standing,
    /// The taken matches, but for those that nothing competes with, of all paths; the last of this one.
    last: Option<usize>,
    /// One bit for each word of the caption.
    caption_used: Vec<u64>,
}

impl Path {
    fn is_free(&self, found: &Match) -> bool {
        let (start, length) = found.caption;
        (start..start + length).all(|word| {
            self.caption_used.get(word / 64).is_none_or(|bits| bits >> (word % 64) & 1 == 0)
        })
    }

    fn use_words(&mut self, found: &Match) {
        let (start, length) = found.caption;
        for word in start..start + length {
            if let Some(bits) = self.caption_used.get_mut(word / 64) {
                *bits |= 1 << (word % 64);
            }
        }
    }
}

/// A path one word longer, before it is known whether the beam has room for it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    standing: Standing,
    /// The path it continues, and the match that it takes.
    path: usize,
    taken: Option<Match>,
}

/// Picks from `matches`, which are listed by first word in the reference, in METEOR's order.
pub(super) fn align(
    matches: &[Vec<Match>],
    num_caption_words: usize,
    num_reference_words: usize,
) -> Alignment {
    let undisputed = undisputed(matches, num_caption_words, num_reference_words);
    let mut taken: Vec<(Match, Option<usize>)> = Vec::new();
    let caption_used = vec![0; num_caption_words.div_ceil(64)];
    let mut paths = vec![Path { caption_used, ..Path::default() }];
    for (current, (at_word, undisputed)) in matches.iter().zip(&undisputed).enumerate() {
        if let Some(found) = undisputed {
            // No path can be within another match here.
            paths.iter_mut().for_each(|path| path.standing.take(found));
            paths.sort_by_key(|path| path.standing.rank());
            continue;
        }
        let mut candidates = Vec::with_capacity(paths.len() * 2);
        for (place, path) in paths.iter().enumerate() {
            let mut skipping = path.standing;
            if current >= skipping.next {
                for found in at_word.iter().filter(|found| path.is_free(found)) {
                    // METEOR charges the distance to `skipping` only after it has copied it.
                    let mut standing = skipping;
                    standing.take(found);
                    candidates.push(Candidate { standing, path: place, taken: Some(*found) });
                    skipping.distance += found.distance();
                }
                skipping.skip();
            }
            candidates.push(Candidate { standing: skipping, path: place, taken: None });
        }
        candidates.sort_by_key(|candidate| candidate.standing.rank());
        candidates.truncate(BEAM);
        paths = candidates
            .iter()
            .filter_map(|candidate| {
                let mut path = paths.get(candidate.path)?.clone();
                path.standing = candidate.standing;
                if let Some(found) = candidate.taken {
                    path.use_words(&found);
                    taken.push((found, path.last));
                    path.last = Some(taken.len() - 1);
                }
                Some(path)
            })
            .collect();
    }
    paths.iter_mut().for_each(|path| path.standing.close_chunk());
    let Some(best) = paths.iter().min_by_key(|path| path.standing.rank()) else {
        return Alignment { matches: Vec::new(), chunks: 0 };
    };
    let mut chosen: Vec<Match> = undisputed.into_iter().flatten().collect();
    let mut last = best.last;
    while let Some((found, before)) = last.and_then(|last| taken.get(last)) {
        chosen.push(*found);
        last = *before;
    }
    chosen.sort_by_key(|found| found.reference.0);
    Alignment { matches: chosen, chunks: best.standing.chunks }
}

/// By first word in the reference, the matches that nothing competes with: they are taken at once.
fn undisputed(
    matches: &[Vec<Match>],
    num_caption_words: usize,
    num_reference_words: usize,
) -> Vec<Option<Match>> {
    let mut caption_coverage = vec![0usize; num_caption_words];
    let mut reference_coverage = vec![0usize; num_reference_words];
    for found in matches.iter().flatten() {
        let count = |coverage: &mut [usize], (start, length): (usize, usize)| {
            coverage.iter_mut().skip(start).take(length).for_each(|count| *count += 1);
        };
        count(&mut caption_coverage, found.caption);
        count(&mut reference_coverage, found.reference);
    }
    let alone = |coverage: &[usize], (start, length): (usize, usize)| {
        coverage.iter().skip(start).take(length).all(|count| *count == 1)
    };
    matches
        .iter()
        .map(|at_word| {
            let [found] = at_word.as_slice() else { return None };
            let undisputed = alone(&caption_coverage, found.caption)
                && alone(&reference_coverage, found.reference);
            undisputed.then_some(*found)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(pairs: &[(usize, usize)], reference_words: usize) -> Vec<Vec<Match>> {
        let mut matches = vec![Vec::new(); reference_words];
        for (reference, caption) in pairs {
            matches[*reference].push(Match {
                stage: Stage::Exact,
                reference: (*reference, 1),
                caption: (*caption, 1),
            });
        }
        matches
    }

    #[test]
    fn fewest_chunks_among_most_matches() {
        // Caption "a b a", reference "b a": the second `a` follows `b`.
        let found = align(&exact(&[(0, 1), (1, 0), (1, 2)], 2), 3, 2);
        let pairs: Vec<_> = found.matches.iter().map(|m| (m.reference.0, m.caption.0)).collect();
        assert_eq!(pairs, [(0, 1), (1, 2)]);
        assert_eq!(found.chunks, 1);
    }

    #[test]
    fn of_equal_alignments_the_one_found_first_counts() {
        // Reference "a", caption "a a".
        for order in [[0, 1], [1, 0]] {
            let found = align(&exact(&order.map(|caption| (0, caption)), 1), 2, 1);
            assert_eq!(found.matches[0].caption, (order[0], 1));
        }
    }

    #[test]
    fn a_match_of_unequal_words_is_worth_half_of_them_rounded_down() {
        assert_eq!([1, 2, 5].map(|words| Stage::Paraphrase.matched(words)), [0, 1, 2]);
        assert_eq!(Stage::Synonym.matched(1), 0);
        assert_eq!(Stage::Exact.matched(3), 3);
    }

    #[test]
    fn nothing_to_match_is_no_chunk() {
        assert_eq!(align(&exact(&[], 2), 3, 2), Alignment { matches: Vec::new(), chunks: 0 });
        assert_eq!(align(&[], 0, 0).chunks, 0);
    }
}
