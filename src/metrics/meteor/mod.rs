//! METEOR 1.5 (Denkowski and Lavie 2014) with its English ranking task's parameters, as coco-caption
//! runs it (`-l en -norm`).
//!
//! Words match exactly, by stem, by a synonym or as part of a paraphrase. The last two and the list
//! of function words need METEOR's data, which have a licence of their own and are not part of this
//! program; without them [`Meteor`] matches exactly and by stem and takes its own list of function words.

mod align;
mod data;
mod normalize;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::AddAssign;
use std::path::Path;

use rust_stemmers::{Algorithm, Stemmer};

pub use data::{MeteorData, MeteorDataError};

use align::{Match, Stage, align};

const ALPHA: f64 = 0.85;
const BETA: f64 = 0.2;
const GAMMA: f64 = 0.6;
const DELTA: f64 = 0.75;
const NUM_STAGES: usize = Stage::ALL.len();

/// English function words, where METEOR's own list is not given: articles, conjunctions,
/// prepositions, pronouns, auxiliaries, and punctuation.
const FUNCTION_WORDS: &str = "a about after all an and are as at be been but by can could for from had has have he her \
    his i if in into is it its more no not of on one or other out over s she so some t than that the their there \
    they this to two up was we were what when which who will with would you ' \" - , . : ; ( ) $ ? -lrb- -rrb-";

/// Matched words of one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct StageCounts {
    caption_content: f64,
    reference_content: f64,
    caption_function: f64,
    reference_function: f64,
}

/// What METEOR needs of one caption, or of many, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MeteorCounts {
    caption_words: f64,
    reference_words: f64,
    caption_function_words: f64,
    reference_function_words: f64,
    stages: [StageCounts; NUM_STAGES],
    chunks: f64,
    caption_matched: f64,
    reference_matched: f64,
}

impl AddAssign for MeteorCounts {
    /// A caption that is its reference adds no chunk, as METEOR has it.
    fn add_assign(&mut self, other: Self) {
        self.caption_words += other.caption_words;
        self.reference_words += other.reference_words;
        self.caption_function_words += other.caption_function_words;
        self.reference_function_words += other.reference_function_words;
        for (own, other) in self.stages.iter_mut().zip(other.stages) {
            own.caption_content += other.caption_content;
            own.reference_content += other.reference_content;
            own.caption_function += other.caption_function;
            own.reference_function += other.reference_function;
        }
        if !other.is_identical() {
            self.chunks += other.chunks;
        }
        self.caption_matched += other.caption_matched;
        self.reference_matched += other.reference_matched;
    }
}

impl MeteorCounts {
    /// METEOR, from 0 to 1.
    pub fn score(&self) -> f64 {
        let weigh = |content: f64, function: f64| DELTA * content + (1.0 - DELTA) * function;
        let weights = Stage::ALL.map(Stage::weight);
        let sum = |of_word: fn(&StageCounts) -> f64, of_kind: f64, sum: &mut f64| {
            for (stage, weight) in self.stages.iter().zip(weights) {
                *sum += of_word(stage) * weight * of_kind;
            }
        };
        // In METEOR's order, for its last digits.
        let (mut caption, mut reference) = (0.0, 0.0);
        sum(|stage| stage.caption_content, DELTA, &mut caption);
        sum(|stage| stage.reference_content, DELTA, &mut reference);
        sum(|stage| stage.caption_function, 1.0 - DELTA, &mut caption);
        sum(|stage| stage.reference_function, 1.0 - DELTA, &mut reference);
        let of = |words: f64, function: f64| weigh(words - function, function);
        let precision = caption / of(self.caption_words, self.caption_function_words);
        let recall = reference / of(self.reference_words, self.reference_function_words);
        if !(precision > 0.0 && recall > 0.0) {
            return 0.0;
        }
        let mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall);
        let fragmentation = if self.is_identical() {
            0.0
        } else {
            self.chunks / ((self.caption_matched + self.reference_matched) / 2.0)
        };
        mean * (1.0 - GAMMA * fragmentation.powf(BETA))
    }

    /// Whether every word is matched, in one chunk.
    fn is_identical(&self) -> bool {
        self.chunks == 1.0
            && self.caption_matched == self.caption_words
            && self.reference_matched == self.reference_words
    }
}

/// A caption's words as METEOR compares them.
#[derive(Debug, Clone)]
pub struct MeteorText {
    words: Vec<u32>,
}

#[derive(Debug)]
struct Word {
    stem: u32,
    is_function: bool,
    synonym_sets: Vec<u32>,
}

/// METEOR over a fixed set of captions, whose words it has looked up.
#[derive(Debug)]
pub struct Meteor {
    words: Vec<Word>,
    ids: HashMap<String, u32>,
    data: Option<MeteorData>,
}

impl Meteor {
    /// Prepares METEOR for captions (tokenised as coco-caption does) that are `texts`; with the data at
    /// `data`, see [`MeteorDataError`] for what can be wrong with those.
    ///
    /// # Errors
    ///
    /// See [`MeteorDataError`].
    pub fn new<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        data: Option<&Path>,
    ) -> Result<Self, MeteorDataError> {
        let mut known = BTreeSet::new();
        for text in texts {
            known.extend(normalize::normalize(text));
        }
        let ids: HashMap<String, u32> = known.iter().cloned().zip(0..).collect();
        let data = data.map(|path| MeteorData::read(path, &ids)).transpose()?;
        let own_function_words: HashSet<&str> = FUNCTION_WORDS.split_whitespace().collect();
        let stemmer = Stemmer::create(Algorithm::English);
        let mut stems: HashMap<String, u32> = HashMap::new();
        let mut words = Vec::with_capacity(known.len());
        for text in known {
            let next = stems.len() as u32;
            words.push(Word {
                stem: *stems.entry(stemmer.stem(&text).into_owned()).or_insert(next),
                is_function: data.as_ref().map_or_else(
                    || own_function_words.contains(text.as_str()),
                    |data| data.is_function_word(&text),
                ),
                synonym_sets: data
                    .as_ref()
                    .map_or_else(Vec::new, |data| data.synonym_sets_of(&text)),
            });
        }
        Ok(Self { words, ids, data })
    }

    /// Whether synonyms and paraphrases match too.
    pub fn is_complete(&self) -> bool {
        self.data.is_some()
    }

    /// A caption as [`Meteor::counts`] takes it; words that were not among the texts are left out.
    pub fn text(&self, caption: &str) -> MeteorText {
        let words = normalize::normalize(caption);
        MeteorText { words: words.iter().filter_map(|word| self.ids.get(word).copied()).collect() }
    }

    /// The counts of a caption against the reference that it scores best with.
    pub fn counts(&self, caption: &MeteorText, references: &[MeteorText]) -> MeteorCounts {
        let mut best = MeteorCounts::default();
        let mut best_score = f64::NEG_INFINITY;
        for reference in references {
            let counts = self.against(&caption.words, &reference.words);
            let score = counts.score();
            if score > best_score {
                best_score = score;
                best = counts;
            }
        }
        best
    }

    fn against(&self, caption: &[u32], reference: &[u32]) -> MeteorCounts {
        let is_function =
            |word: &u32| self.words.get(*word as usize).is_some_and(|word| word.is_function);
        let count = |words: &[u32]| words.iter().filter(|word| is_function(word)).count() as f64;
        let mut counts = MeteorCounts {
            caption_words: caption.len() as f64,
            reference_words: reference.len() as f64,
            caption_function_words: count(caption),
            reference_function_words: count(reference),
            ..MeteorCounts::default()
        };
        let matches = self.matches(caption, reference);
        let alignment = align(&matches, caption.len(), reference.len());
        counts.chunks = alignment.chunks as f64;
        for found in &alignment.matches {
            let Some(stage) = counts.stages.get_mut(found.stage as usize) else { continue };
            let split = |words: &[u32], (start, length): (usize, usize)| {
                let function =
                    words.iter().skip(start).take(length).filter(|word| is_function(word)).count();
                ((length - function) as f64, function as f64)
            };
            let (content, function) = split(caption, found.caption);
            stage.caption_content += content;
            stage.caption_function += function;
            let (content, function) = split(reference, found.reference);
            stage.reference_content += content;
            stage.reference_function += function;
            counts.caption_matched += found.caption.1 as f64;
            counts.reference_matched += found.reference.1 as f64;
        }
        counts
    }

    /// All possible matches, by first word in the reference. Their order, which decides between equal
    /// alignments, is METEOR's: by stage, then by place in the caption.
    fn matches(&self, caption: &[u32], reference: &[u32]) -> Vec<Vec<Match>> {
        let mut matches = vec![Vec::new(); reference.len()];
        let single = |stage, at_reference, at_caption| Match {
            stage,
            reference: (at_reference, 1),
            caption: (at_caption, 1),
        };
        // Between equal captions METEOR looks for equal words only.
        let stages: &[Stage] = if caption == reference {
            &[Stage::Exact]
        } else {
            &[Stage::Exact, Stage::Stem, Stage::Synonym]
        };
        let word = |id: u32| self.words.get(id as usize);
        for stage in stages {
            for (at_reference, (right, matches)) in reference.iter().zip(&mut matches).enumerate() {
                for (at_caption, left) in caption.iter().enumerate() {
                    let alike = match (stage, word(*left), word(*right)) {
                        (Stage::Exact, ..) => left == right,
                        (_, Some(_), Some(_)) if left == right => false,
                        (Stage::Stem, Some(left), Some(right)) => left.stem == right.stem,
                        (_, Some(left), Some(right)) => {
                            overlap(&left.synonym_sets, &right.synonym_sets)
                        }
                        _ => false,
                    };
                    if alike {
                        matches.push(single(*stage, at_reference, at_caption));
                    }
                }
            }
        }
        if caption != reference
            && let Some(data) = &self.data
        {
            // The table is asked for the reference's phrases and then for the caption's: a pair that
            // it has both ways round is two equal matches.
            for_each_paraphrase(data, reference, caption, |reference, caption| {
                push_paraphrase(&mut matches, reference, caption);
            });
            for_each_paraphrase(data, caption, reference, |caption, reference| {
                push_paraphrase(&mut matches, reference, caption);
            });
        }
        matches
    }
}

fn push_paraphrase(matches: &mut [Vec<Match>], reference: (usize, usize), caption: (usize, usize)) {
    if let Some(matches) = matches.get_mut(reference.0) {
        matches.push(Match { stage: Stage::Paraphrase, reference, caption });
    }
}

/// Calls `found` with the first word and the length of each phrase of `from` that has a paraphrase in
/// `to`, and with those of the paraphrase.
fn for_each_paraphrase(
    data: &MeteorData,
    from: &[u32],
    to: &[u32],
    mut found: impl FnMut((usize, usize), (usize, usize)),
) {
    for start in 0..from.len() {
        for length in 1..=data.longest_phrase().min(from.len() - start) {
            for paraphrase in data.paraphrases_of(&from[start..start + length]) {
                for (at, window) in to.windows(paraphrase.len()).enumerate() {
                    if *window == **paraphrase {
                        found((start, length), (at, paraphrase.len()));
                    }
                }
            }
        }
    }
}

/// Whether two sorted lists share a number.
fn overlap(left: &[u32], right: &[u32]) -> bool {
    let (shorter, longer) = if left.len() < right.len() { (left, right) } else { (right, left) };
    shorter.iter().any(|set| longer.binary_search(set).is_ok())
}
