//! METEOR's aligner: which words of a caption stand for which words of a reference.
//!
//! All possible matches are collected, then a beam search over the reference's words picks a set in
//! which every word is used at most once: most matched words (weighted) first, then fewest chunks,
//! then shortest distances.

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

    /// What a matched word of this stage is worth.
    pub(super) fn weight(self) -> f64 {
        match self {
            Self::Exact => 1.0,
            Self::Synonym => 0.8,
            Self::Stem | Self::Paraphrase => 0.6,
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

/// The chosen matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alignment {
    pub(super) matches: Vec<Match>,
    /// Runs of matches that are adjacent and in order on both sides.
    pub(super) chunks: usize,
}

/// Partial alignments that are followed at once, as METEOR has it.
const BEAM: usize = 40;

#[derive(Clone)]
struct Partial {
    /// By first word in the reference.
    matches: Vec<Option<Match>>,
    caption_used: Vec<bool>,
    reference_used: Vec<bool>,
    /// Matched words on both sides, weighted by stage. METEOR adds each match in whole numbers, rounded
    /// down, so that a single word counts nothing here unless it matches exactly.
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

impl Partial {
    fn is_free(&self, found: &Match) -> bool {
        !used(&self.caption_used, found.caption) && !used(&self.reference_used, found.reference)
    }

    fn use_words(&mut self, found: &Match) {
        let mark = |used: &mut [bool], (start, length): (usize, usize)| {
            used.iter_mut().skip(start).take(length).for_each(|used| *used = true);
        };
        mark(&mut self.caption_used, found.caption);
        mark(&mut self.reference_used, found.reference);
    }

    fn advance_over(&mut self, found: &Match) {
        if self.chunk_end.is_some_and(|end| end != found.caption.0) {
            self.chunks += 1;
        }
        self.next = found.reference.0 + found.reference.1;
        self.chunk_end = Some(found.caption.0 + found.caption.1);
        let weigh = |length: usize| (found.stage.weight() * length as f64) as usize;
        self.matched += weigh(found.reference.1) + weigh(found.caption.1);
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

fn used(used: &[bool], (start, length): (usize, usize)) -> bool {
    used.iter().skip(start).take(length).any(|used| *used)
}

/// Picks from `matches`, which are listed by first word in the reference, in order of stage.
pub(super) fn align(
    matches: &[Vec<Match>],
    num_caption_words: usize,
    num_reference_words: usize,
) -> Alignment {
    let mut caption_coverage = vec![0usize; num_caption_words];
    let mut reference_coverage = vec![0usize; num_reference_words];
    for found in matches.iter().flatten() {
        let count = |coverage: &mut [usize], (start, length): (usize, usize)| {
            coverage.iter_mut().skip(start).take(length).for_each(|count| *count += 1);
        };
        count(&mut caption_coverage, found.caption);
        count(&mut reference_coverage, found.reference);
    }
    let mut start = Partial {
        matches: vec![None; num_reference_words],
        caption_used: vec![false; num_caption_words],
        reference_used: vec![false; num_reference_words],
        matched: 0,
        chunks: 0,
        distance: 0,
        next: 0,
        chunk_end: None,
    };
    // What nothing competes with is taken at once.
    for at_word in matches {
        let [found] = at_word.as_slice() else { continue };
        let alone = |coverage: &[usize], (start, length): (usize, usize)| {
            coverage.iter().skip(start).take(length).all(|count| *count == 1)
        };
        if alone(&caption_coverage, found.caption) && alone(&reference_coverage, found.reference) {
            start.use_words(found);
            if let Some(place) = start.matches.get_mut(found.reference.0) {
                *place = Some(*found);
            }
        }
    }
    let mut paths = vec![start];
    for (current, at_word) in matches.iter().enumerate() {
        paths.sort_by_key(Partial::rank);
        paths.truncate(BEAM);
        let mut longer = Vec::with_capacity(paths.len() * 2);
        for mut path in paths {
            if path.reference_used.get(current).copied().unwrap_or(false) {
                if current >= path.next
                    && let Some(found) = path.matches.get(current).copied().flatten()
                {
                    path.advance_over(&found);
                }
                longer.push(path);
                continue;
            }
            for found in at_word {
                if !path.is_free(found) {
                    continue;
                }
                let mut taken = path.clone();
                taken.use_words(found);
                if let Some(place) = taken.matches.get_mut(current) {
                    *place = Some(*found);
                }
                taken.advance_over(found);
                longer.push(taken);
                path.distance += found.reference.0.abs_diff(found.caption.0);
            }
            path.close_chunk();
            path.next = current + 1;
            longer.push(path);
        }
        paths = longer;
    }
    paths.sort_by_key(Partial::rank);
    for path in &mut paths {
        path.close_chunk();
    }
    paths.sort_by_key(Partial::rank);
    paths.into_iter().next().map_or(Alignment { matches: Vec::new(), chunks: 0 }, |best| {
        Alignment { matches: best.matches.into_iter().flatten().collect(), chunks: best.chunks }
    })
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
    fn nothing_to_match_is_no_chunk() {
        assert_eq!(align(&exact(&[], 2), 3, 2), Alignment { matches: Vec::new(), chunks: 0 });
        assert_eq!(align(&[], 0, 0).chunks, 0);
    }
}
