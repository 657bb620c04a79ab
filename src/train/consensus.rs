//! How far captions agree with those of an image: CIDEr-D with document frequencies of the training
//! captions. It is the reward of training on the score, and what training captions are weighted by (the
//! WXE of Phan et al. 2017, <https://arxiv.org/abs/1712.09532>).
//!
//! That a caption ends counts as its last word, in references too. Otherwise captions that break off
//! ("a dog runs through a") score better than whole ones, by up to 4 points of CIDEr, and are what is
//! learned (Hu et al. 2023, <https://arxiv.org/abs/2305.12254>).

use rayon::prelude::*;

use crate::data::Example;
use crate::metrics::CiderDOfWords;
use crate::metrics::ptb::tokenize;
use crate::text::{TextError, Tokenizer};

/// The last word of a caption that ends: in capitals, which no token of a caption has.
const END: &str = "END";

/// What is added to each score before it is a weight, in means of the image's scores: a caption that
/// agrees with none still counts a little, and its weight is a matter of the power alone.
const SMALL: f64 = 1.0 / 20.0;

/// The least weight: of a batch whose captions weigh nothing there is no mean.
const LEAST: f64 = 1e-6;

/// Document frequencies, and the captions of each image to compare with.
pub(super) struct Consensus {
    cider: CiderDOfWords,
    /// Tokenised captions of each image.
    references: Vec<Vec<String>>,
}

impl Consensus {
    /// Counts the n-grams of the captions of each image.
    pub fn new<Caption: AsRef<str> + Sync>(images: &[Vec<Caption>]) -> Self {
        let references: Vec<Vec<String>> = images
            .par_iter()
            .map(|captions| captions.iter().map(|caption| words(caption.as_ref(), true)).collect())
            .collect();
        Self { cider: CiderDOfWords::from_references(&references), references }
    }

    /// The score of a caption of an image, mostly from 0 to 10; 0 if there is no such image. `ends` says
    /// whether the caption was ended or broke off.
    pub fn score(&self, caption: &str, ends: bool, image: usize) -> f64 {
        let score = |references| self.cider.score(&words(caption, ends), references);
        self.references.get(image).map_or(0.0, |references| score(references))
    }

    /// The score of each caption of each image against the image's others; 0 for one that is alone.
    fn scores_against_others(&self) -> Vec<Vec<f64>> {
        let of_image = |captions: &Vec<String>| {
            let score = |(own, caption): (usize, &String)| {
                let others = captions.iter().enumerate().filter(|(other, _)| *other != own);
                let others: Vec<&String> = others.map(|(_, caption)| caption).collect();
                self.cider.score(caption, &others)
            };
            captions.iter().enumerate().map(score).collect()
        };
        self.references.par_iter().map(of_image).collect()
    }
}

/// Weighs each caption of `examples` by its score against the image's other captions, to the given power.
/// `written` are the captions of each example as they were written, also those that are not in it because
/// they have no tokens.
///
/// # Errors
/// A caption that the tokenizer refuses.
pub(super) fn weigh(
    examples: &mut [Example],
    written: &[Vec<String>],
    tokenizer: &Tokenizer,
    power: f64,
) -> Result<(), TextError> {
    let mut learned: Vec<Vec<&str>> = Vec::with_capacity(examples.len());
    for (example, written) in examples.iter().zip(written) {
        let whole = written.len() == example.captions.len();
        let mut captions = Vec::with_capacity(example.captions.len());
        for caption in written {
            if whole || !tokenizer.encode(caption)?.is_empty() {
                captions.push(caption.as_str());
            }
        }
        learned.push(captions);
    }
    let scores = Consensus::new(&learned).scores_against_others();
    for (example, scores) in examples.iter_mut().zip(scores) {
        example.weights = weights(&scores, power);
    }
    Ok(())
}

/// `(score + small)^power`, scaled so that their mean is 1.
fn weights(scores: &[f64], power: f64) -> Vec<f32> {
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count;
    if scores.len() < 2 || mean <= 0.0 {
        return vec![1.0; scores.len()];
    }
    // Shares of the greatest, which no power makes infinite.
    let most = scores.iter().copied().fold(0.0, f64::max) + SMALL * mean;
    let raised = scores.iter().map(|score| ((score + SMALL * mean) / most).powf(power));
    let raised: Vec<f64> = raised.collect();
    let scale = count / raised.iter().sum::<f64>();
    raised.iter().map(|share| (share * scale).max(LEAST) as f32).collect()
}

/// A caption as it is scored.
fn words(caption: &str, ends: bool) -> String {
    let mut words = tokenize(caption);
    if ends {
        words.push(' ');
        words.push_str(END);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{TokenizerConfig, TokenizerKind};

    #[test]
    fn a_caption_that_breaks_off_scores_less_than_the_whole_one() {
        let images = ["a dog runs through grass", "a cat sleeps", "two men talk"];
        let consensus = Consensus::new(&images.map(|caption| vec![caption]));
        let score = |caption: &str, ends| consensus.score(caption, ends, 0);
        let whole = score("A dog runs through grass.", true);
        assert!((whole - 10.0).abs() < 1e-9, "{whole}");
        // Cut by the greatest length, and a sentence that the model itself left unfinished.
        assert!(score("A dog runs through grass", false) < 0.95 * whole);
        assert!(score("a dog runs through", true) < score("a dog runs through grass", true));
        // A caption's own word is another.
        assert!(score("a dog runs through grass END", false) < whole);
        assert_eq!(consensus.score("a dog", true, 3), 0.0);
    }

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{found:?} is not {expected:?}");
    }

    fn example(captions: &[&str], tokenizer: &Tokenizer) -> Example {
        let ids = captions.iter().map(|caption| tokenizer.encode(caption).unwrap());
        Example {
            path: "photo.jpg".into(),
            captions: ids.filter(|ids| !ids.is_empty()).collect(),
            weights: Vec::new(),
            has_direction: false,
        }
    }

    /// The weights of the captions of each image.
    fn weighed(images: &[&[&str]], power: f64) -> Vec<Vec<f32>> {
        let config = TokenizerConfig {
            kind: TokenizerKind::WordPiece,
            vocab_size: 300,
            ..TokenizerConfig::default()
        };
        let texts = images.iter().flat_map(|captions| captions.iter());
        let tokenizer = Tokenizer::train(texts.map(ToString::to_string), &config).unwrap();
        let mut examples: Vec<Example> =
            images.iter().map(|captions| example(captions, &tokenizer)).collect();
        let written: Vec<Vec<String>> = images
            .iter()
            .map(|captions| captions.iter().map(ToString::to_string).collect())
            .collect();
        weigh(&mut examples, &written, &tokenizer, power).unwrap();
        for example in &examples {
            assert_eq!(example.weights.len(), example.captions.len());
        }
        examples.into_iter().map(|example| example.weights).collect()
    }

    #[test]
    fn captions_that_agree_with_the_others_weigh_more() {
        let images: [&[&str]; 3] = [&["a b", "c d", "A b."], &["e f"], &["g h", "i j"]];
        // Two like captions agree in all n-grams up to "a b END": 10 · 3/4, of which the mean with the 0
        // against the third is 3.75. The image's mean is 2.5, a twentieth of it 0.125.
        let found = weighed(&images, 1.0);
        close(&found[0], &[3.875 / 2.625, 0.125 / 2.625, 3.875 / 2.625]);
        // Alone; and with another that shares nothing.
        assert_eq!(found[1..], [vec![1.0], vec![1.0, 1.0]]);
        let found = weighed(&images, 2.0);
        let sum = 2.0 * 3.875f32.powi(2) + 0.125f32.powi(2);
        let [high, low] = [3.875f32, 0.125].map(|score| 3.0 * score.powi(2) / sum);
        close(&found[0], &[high, low, high]);
    }

    #[test]
    fn a_caption_without_tokens_takes_no_others_weight() {
        let whole: [&[&str]; 2] = [&["c d", "a b", "a b"], &["e f"]];
        for at in 0..4 {
            let mut captions = whole[0].to_vec();
            // A control character, which is not text.
            captions.insert(at, "\u{1}");
            assert_eq!(weighed(&[&captions, whole[1]], 1.0), weighed(&whole, 1.0), "at {at}");
        }
        assert!(weighed(&whole, 1.0)[0][0] < 0.1);
    }

    #[test]
    fn weights_are_finite_and_have_the_mean_1_whatever_the_power() {
        let scores: [&[f64]; 4] = [&[1.0, 0.0, 0.3, 2.5, 0.7], &[0.0, 0.0, 10.0], &[0.0; 3], &[]];
        for scores in scores {
            for power in [1e-9, 0.5, 1.0, 3.0, 1e4, f64::MAX] {
                let weights = weights(scores, power);
                assert_eq!(weights.len(), scores.len());
                assert!(weights.iter().all(|weight| weight.is_finite() && *weight > 0.0));
                let sum: f32 = weights.iter().sum();
                assert!(
                    (sum - scores.len() as f32).abs() < 1e-4,
                    "{scores:?}, {power}: {weights:?}"
                );
            }
        }
    }
}
