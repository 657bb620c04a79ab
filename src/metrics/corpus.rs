//! All scores of a set of captions, per image and together.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;

use super::bleu::BleuCounts;
use super::bootstrap::{BootstrapConfig, Interval, interval, least_p_value, p_value, resample};
use super::cider::{CiderD, CiderVector};
use super::diversity::{Diversity, diversity};
use super::meteor::{Meteor, MeteorCounts, MeteorDataError};
use super::ngrams::{NGram, Vocabulary, count};
use super::ptb::tokenize;
use super::rouge::rouge_l;

/// How many scores there are of an image or a corpus.
pub const NUM_SCORES: usize = 8;

/// The names of the scores, as coco-caption has them; `CIDEr` and `ROUGE_L` are what it calls so.
pub const SCORE_NAMES: [&str; NUM_SCORES] =
    ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr", "CIDEr_plain"];

/// The place of `CIDEr` among the scores.
pub const CIDER: usize = 6;
const _: () = assert!(matches!(SCORE_NAMES[CIDER].as_bytes(), b"CIDEr"));

/// One image to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoredImage {
    /// Its name.
    pub id: String,
    /// The caption to be judged.
    pub caption: String,
    /// What people wrote; at least one.
    pub references: Vec<String>,
}

/// How to score.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScoreConfig<'a> {
    /// Captions are tokens separated by spaces already.
    pub tokenized: bool,
    /// METEOR's data; without them it matches exactly and by stem.
    pub meteor_data: Option<&'a Path>,
    /// The captions of the training set, to tell which captions are new.
    pub training: Option<&'a [String]>,
}

/// What the scores of any selection of images are made of.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    images: f64,
    bleu: BleuCounts,
    meteor: MeteorCounts,
    /// ROUGE-L, CIDEr(-D), plain CIDEr.
    means: [f64; 3],
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.images += other.images;
        self.bleu += other.bleu;
        self.meteor += other.meteor;
        for (own, other) in self.means.iter_mut().zip(other.means) {
            *own += other;
        }
    }

    /// In the order of [`SCORE_NAMES`].
    fn scores(&self) -> [f64; NUM_SCORES] {
        let [b1, b2, b3, b4] = self.bleu.scores();
        let [rouge, cider, plain] = self.means.map(|sum| sum / self.images.max(1.0));
        [b1, b2, b3, b4, self.meteor.score(), rouge, cider, plain]
    }
}

/// The scores of a set of captions.
#[derive(Debug, Clone)]
pub struct CorpusScores {
    /// The images' names, in the order given.
    pub ids: Vec<String>,
    /// The captions, tokenised.
    pub captions: Vec<String>,
    /// How varied the captions are.
    pub diversity: Diversity,
    /// Whether METEOR had its data.
    pub complete_meteor: bool,
    images: Vec<Sums>,
}

/// Scores `images`.
///
/// # Errors
///
/// METEOR's data cannot be read.
pub fn score(
    images: &[ScoredImage],
    config: ScoreConfig<'_>,
) -> Result<CorpusScores, MeteorDataError> {
    let tokens = |text: &String| if config.tokenized { text.clone() } else { tokenize(text) };
    let tokenized: Vec<(String, Vec<String>)> = images
        .par_iter()
        .map(|image| (tokens(&image.caption), image.references.iter().map(tokens).collect()))
        .collect();
    let mut vocabulary = Vocabulary::default();
    let words: Vec<(Words, Vec<Words>)> = tokenized
        .iter()
        .map(|(caption, references)| {
            let caption = Words::of(caption, &mut vocabulary);
            let references = references.iter().map(|text| Words::of(text, &mut vocabulary));
            (caption, references.collect())
        })
        .collect();
    let counted: Vec<(Counted, Vec<Counted>)> = words
        .par_iter()
        .map(|(caption, references)| {
            (Counted::of(caption), references.iter().map(Counted::of).collect())
        })
        .collect();
    let cider = CiderD::from_counted(
        counted.iter().map(|(_, references)| references.iter().map(|counted| &counted.ngrams)),
    );
    let texts = tokenized.iter().flat_map(|(caption, references)| {
        std::iter::once(caption.as_str()).chain(references.iter().map(String::as_str))
    });
    let meteor = Meteor::new(texts, config.meteor_data)?;
    let sums = (tokenized.par_iter(), &words, &counted)
        .into_par_iter()
        .map(|(texts, words, counted)| sums_of(texts, words, counted, &cider, &meteor))
        .collect();
    let captions: Vec<String> = tokenized.into_iter().map(|(caption, _)| caption).collect();
    let training: Option<HashSet<String>> =
        config.training.map(|training| training.par_iter().map(tokens).collect());
    let for_diversity: Vec<&str> = captions.iter().map(String::as_str).collect();
    Ok(CorpusScores {
        ids: images.iter().map(|image| image.id.clone()).collect(),
        diversity: diversity(&for_diversity, training.as_ref()),
        complete_meteor: meteor.is_complete(),
        images: sums,
        captions,
    })
}

/// A caption's words as numbers, in the two ways in which coco-caption splits one.
struct Words {
    /// At white space, for n-grams.
    words: Vec<u32>,
    /// At single spaces, for ROUGE-L: an empty caption is one empty word.
    spaced: Vec<u32>,
}

impl Words {
    fn of(text: &str, vocabulary: &mut Vocabulary) -> Self {
        Self {
            words: text.split_whitespace().map(|word| vocabulary.add(word)).collect(),
            spaced: text.split(' ').map(|word| vocabulary.add(word)).collect(),
        }
    }
}

struct Counted {
    num_words: usize,
    ngrams: Vec<(NGram, u32)>,
}

impl Counted {
    fn of(words: &Words) -> Self {
        Self { num_words: words.words.len(), ngrams: count(&words.words) }
    }
}

fn sums_of(
    (caption_text, reference_texts): &(String, Vec<String>),
    (caption, references): &(Words, Vec<Words>),
    (caption_counted, references_counted): &(Counted, Vec<Counted>),
    cider: &CiderD,
    meteor: &Meteor,
) -> Sums {
    let for_bleu: Vec<(usize, &[(NGram, u32)])> = references_counted
        .iter()
        .map(|counted| (counted.num_words, counted.ngrams.as_slice()))
        .collect();
    let vector = |counted: &Counted| cider.vector_of(counted.num_words, &counted.ngrams);
    let vectors: Vec<CiderVector> = references_counted.iter().map(vector).collect();
    let own = vector(caption_counted);
    let spaced: Vec<&[u32]> = references.iter().map(|words| words.spaced.as_slice()).collect();
    let for_meteor: Vec<_> = reference_texts.iter().map(|text| meteor.text(text)).collect();
    Sums {
        images: 1.0,
        bleu: BleuCounts::of((caption_counted.num_words, &caption_counted.ngrams), &for_bleu),
        meteor: meteor.counts(&meteor.text(caption_text), &for_meteor),
        means: [
            rouge_l(&caption.spaced, &spaced),
            own.cider_d(&vectors),
            own.cider_plain(&vectors),
        ],
    }
}

/// How two sets of captions of the same images compare in one score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The second's score less the first's.
    pub difference: f64,
    /// The 95 % interval of that, where there were draws.
    pub interval: Option<Interval>,
    /// The two-sided p-value of the paired bootstrap, where there were draws.
    pub p_value: Option<f64>,
    /// Whether that is the least that so few draws can tell.
    pub is_least: bool,
}

impl CorpusScores {
    /// The scores of the whole corpus, in the order of [`SCORE_NAMES`].
    pub fn corpus(&self) -> [f64; NUM_SCORES] {
        let mut sums = Sums::default();
        self.images.iter().for_each(|image| sums.add(image));
        sums.scores()
    }

    /// What METEOR matched words by.
    pub fn meteor_stages(&self) -> &'static str {
        if self.complete_meteor { "exact, stem, synonym, paraphrase" } else { "exact, stem" }
    }

    /// The scores of each image, in the order of [`SCORE_NAMES`].
    pub fn per_image(&self) -> impl Iterator<Item = [f64; NUM_SCORES]> {
        self.images.iter().map(Sums::scores)
    }

    /// The 95 % bootstrap intervals of the corpus scores. CIDEr's document frequencies stay those of
    /// all images.
    pub fn intervals(&self, config: BootstrapConfig) -> [Option<Interval>; NUM_SCORES] {
        let draws = self.draws(config);
        std::array::from_fn(|score| interval(draws.iter().map(|draw| draw[score]).collect()))
    }

    /// Compares with the scores of other captions of the same images in the same order; `None` if
    /// those are others.
    pub fn compare(
        &self,
        other: &Self,
        config: BootstrapConfig,
    ) -> Option<[Comparison; NUM_SCORES]> {
        if self.ids != other.ids {
            return None;
        }
        let (own, others) = (self.draws(config), other.draws(config));
        let (own_scores, other_scores) = (self.corpus(), other.corpus());
        Some(std::array::from_fn(|score| {
            let differences: Vec<f64> =
                own.iter().zip(&others).map(|(own, other)| other[score] - own[score]).collect();
            let p_value = p_value(&differences);
            Comparison {
                difference: other_scores[score] - own_scores[score],
                p_value,
                is_least: p_value == Some(least_p_value(differences.len())),
                interval: interval(differences),
            }
        }))
    }

    fn draws(&self, config: BootstrapConfig) -> Vec<[f64; NUM_SCORES]> {
        resample(config, self.images.len(), |drawn| {
            let mut sums = Sums::default();
            drawn
                .iter()
                .filter_map(|place| self.images.get(*place as usize))
                .for_each(|image| sums.add(image));
            sums.scores()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Vec<ScoredImage> {
        let image = |id: &str, caption: &str, references: &[&str]| ScoredImage {
            id: id.to_owned(),
            caption: caption.to_owned(),
            references: references.iter().map(|text| (*text).to_owned()).collect(),
        };
        vec![
            image("1", "A dog runs.", &["a dog runs", "The dog is running!"]),
            image("2", "Two cats sleep on a bed.", &["two cats sleep on the bed"]),
            image("3", "", &["a man"]),
            image("4", "Nothing like it", &["a red car"]),
        ]
    }

    #[test]
    fn a_right_caption_beats_a_wrong_one_and_punctuation_does_not_count() {
        let scores = score(&images(), ScoreConfig::default()).unwrap();
        let per_image: Vec<_> = scores.per_image().collect();
        // Bleu_1, ROUGE_L of the right one; METEOR of identical words.
        assert!((per_image[0][0] - 1.0).abs() < 1e-6 && (per_image[0][5] - 1.0).abs() < 1e-9);
        assert!((per_image[0][4] - 1.0).abs() < 1e-9, "{:?}", per_image[0]);
        for wrong in [per_image[2], per_image[3]] {
            assert!(wrong.iter().all(|score| *score < 1e-6), "{wrong:?}");
        }
        assert!(!scores.complete_meteor);
        assert_eq!(scores.captions[1], "two cats sleep on a bed");
    }

    #[test]
    fn the_second_of_two_better_captions_wins() {
        let first = score(&images(), ScoreConfig::default()).unwrap();
        let mut better = images();
        better[2].caption = "a man".to_owned();
        let second = score(&better, ScoreConfig::default()).unwrap();
        let config = BootstrapConfig { resamples: 200, seed: 0 };
        let compared = first.compare(&second, config).unwrap();
        assert!(compared[5].difference > 0.2, "{compared:?}");
        assert!(compared[5].interval.unwrap().low >= 0.0);
        assert_eq!(first.compare(&first, config).unwrap()[5].p_value, Some(1.0));
        better.pop();
        assert!(first.compare(&score(&better, ScoreConfig::default()).unwrap(), config).is_none());
    }

    #[test]
    fn intervals_hold_the_score() {
        let scores = score(&images(), ScoreConfig::default()).unwrap();
        let intervals = scores.intervals(BootstrapConfig { resamples: 300, seed: 1 });
        for (score, interval) in scores.corpus().iter().zip(intervals) {
            let interval = interval.unwrap();
            assert!(interval.low <= *score && *score <= interval.high, "{score} {interval:?}");
        }
        assert_eq!(scores.intervals(BootstrapConfig { resamples: 0, seed: 1 })[0], None);
    }
}
