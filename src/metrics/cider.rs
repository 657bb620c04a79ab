//! CIDEr (Vedantam et al. 2015): n-grams weighted by how rare they are over the images, compared by
//! cosine.
//!
//! What coco-caption calls CIDEr is the paper's CIDEr-D: counts clipped at the reference's, and a
//! penalty for another length (in bigrams, as there). [`CiderD`] computes it, on word ids of any kind:
//! words of a [`Vocabulary`] or tokens of a model. The document frequencies are fixed when it is made:
//! from the references being scored (coco-caption) or from a training set (a reward).

use std::collections::HashMap;

use super::ngrams::{MAX_ORDER, NGram, Vocabulary, count, for_common, order};

/// The width of the length penalty, in words.
const SIGMA: f64 = 6.0;
/// What scores are multiplied by.
const SCALE: f64 = 10.0;

/// Document frequencies, and CIDEr-D by them.
#[derive(Debug, Clone)]
pub struct CiderD {
    /// Images whose references hold the n-gram.
    frequencies: HashMap<NGram, u32>,
    /// The logarithm of the number of images.
    log_images: f64,
}

/// A caption as weighted n-grams. Make it once for a reference that is scored against many times.
#[derive(Debug, Clone)]
pub struct CiderVector {
    /// By n-gram.
    weights: Vec<(NGram, f64)>,
    /// Euclidean, by length of n-gram.
    norms: [f64; MAX_ORDER],
    /// Its number of bigrams.
    length: f64,
}

/// Which of the paper's two measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Clipped,
    Plain,
}

impl CiderD {
    /// Fixes the document frequencies: over images, each with the ids of its references' words.
    pub fn from_references<Image, Caption>(images: impl IntoIterator<Item = Image>) -> Self
    where
        Image: IntoIterator<Item = Caption>,
        Caption: AsRef<[u32]>,
    {
        Self::from_counted(images.into_iter().map(|image| {
            image.into_iter().map(|caption| count(caption.as_ref())).collect::<Vec<_>>()
        }))
    }

    /// The same from counted n-grams.
    pub(super) fn from_counted<Image, Caption>(images: impl Iterator<Item = Image>) -> Self
    where
        Image: IntoIterator<Item = Caption>,
        Caption: AsRef<[(NGram, u32)]>,
    {
        let mut frequencies = HashMap::new();
        let mut num_images = 0usize;
        let mut of_image: Vec<NGram> = Vec::new();
        for image in images {
            num_images += 1;
            of_image.clear();
            for caption in image {
                of_image.extend(caption.as_ref().iter().map(|(ngram, _)| *ngram));
            }
            of_image.sort_unstable();
            of_image.dedup();
            for ngram in &of_image {
                *frequencies.entry(*ngram).or_insert(0) += 1;
            }
        }
        Self { frequencies, log_images: (num_images.max(1) as f64).ln() }
    }

    /// A caption as the scores need it.
    pub fn vector(&self, words: &[u32]) -> CiderVector {
        self.vector_of(words.len(), &count(words))
    }

    pub(super) fn vector_of(&self, num_words: usize, counted: &[(NGram, u32)]) -> CiderVector {
        let mut norms = [0.0; MAX_ORDER];
        let weights = counted
            .iter()
            .map(|(ngram, count)| {
                let images = self.frequencies.get(ngram).copied().unwrap_or(1).max(1);
                let weight = f64::from(*count) * (self.log_images - f64::from(images).ln());
                if let Some(norm) = norms.get_mut(order(*ngram).wrapping_sub(1)) {
                    *norm += weight * weight;
                }
                (*ngram, weight)
            })
            .collect();
        CiderVector {
            weights,
            norms: norms.map(f64::sqrt),
            length: num_words.saturating_sub(1) as f64,
        }
    }

    /// CIDEr-D of a caption against its references, mostly from 0 to 10; 0 without references.
    pub fn score<Caption: AsRef<[u32]>>(&self, candidate: &[u32], references: &[Caption]) -> f64 {
        let references: Vec<CiderVector> =
            references.iter().map(|reference| self.vector(reference.as_ref())).collect();
        self.vector(candidate).cider_d(&references)
    }
}

impl CiderVector {
    /// CIDEr-D of this caption against its references.
    pub fn cider_d(&self, references: &[CiderVector]) -> f64 {
        self.mean_similarity(references, Variant::Clipped)
    }

    /// The paper's first measure: neither clipped nor penalised for length.
    pub fn cider_plain(&self, references: &[CiderVector]) -> f64 {
        self.mean_similarity(references, Variant::Plain)
    }

    fn mean_similarity(&self, references: &[CiderVector], variant: Variant) -> f64 {
        if references.is_empty() {
            return 0.0;
        }
        let sum: f64 = references.iter().map(|reference| self.similarity(reference, variant)).sum();
        SCALE * sum / references.len() as f64
    }

    fn similarity(&self, reference: &CiderVector, variant: Variant) -> f64 {
        let mut products = [0.0; MAX_ORDER];
        for_common(&self.weights, &reference.weights, |ngram, own, other| {
            if let Some(product) = products.get_mut(order(ngram).wrapping_sub(1)) {
                let own = if variant == Variant::Clipped { own.min(other) } else { own };
                *product += own * other;
            }
        });
        let norms = self.norms.iter().zip(reference.norms).map(|(own, other)| own * other);
        let cosines = products
            .iter()
            .zip(norms)
            .map(|(product, norm)| if norm == 0.0 { *product } else { product / norm });
        let sum: f64 = cosines.sum();
        let mean = sum / MAX_ORDER as f64;
        if variant == Variant::Plain {
            return mean;
        }
        let difference = self.length - reference.length;
        mean * (-difference * difference / (2.0 * SIGMA * SIGMA)).exp()
    }
}

/// [`CiderD`] on captions of words separated by white space.
#[derive(Debug, Clone)]
pub struct CiderDOfWords {
    vocabulary: Vocabulary,
    cider: CiderD,
}

impl CiderDOfWords {
    /// Fixes the document frequencies: over images, each with its tokenised references.
    pub fn from_references<Image, Caption>(images: impl IntoIterator<Item = Image>) -> Self
    where
        Image: IntoIterator<Item = Caption>,
        Caption: AsRef<str>,
    {
        let mut vocabulary = Vocabulary::default();
        let images: Vec<Vec<Vec<u32>>> = images
            .into_iter()
            .map(|image| {
                let ids = |caption: Caption| {
                    let words = caption.as_ref().split_whitespace();
                    words.map(|word| vocabulary.add(word)).collect()
                };
                image.into_iter().map(ids).collect()
            })
            .collect();
        let cider = CiderD::from_references(images);
        Self { vocabulary, cider }
    }

    /// CIDEr-D of a tokenised caption against its tokenised references.
    pub fn score<Caption: AsRef<str>>(&self, candidate: &str, references: &[Caption]) -> f64 {
        // Words that the training set does not have are numbered from the other end.
        let mut others = Vocabulary::default();
        let mut ids = |caption: &str| -> Vec<u32> {
            let words = caption.split_whitespace();
            words
                .map(|word| {
                    self.vocabulary.get(word).unwrap_or_else(|| u32::MAX - 1 - others.add(word))
                })
                .collect()
        };
        let candidate = ids(candidate);
        let references: Vec<Vec<u32>> =
            references.iter().map(|reference| ids(reference.as_ref())).collect();
        self.cider.score(&candidate, &references)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three images, one reference each: "a b", "a c", "d".
    fn cider() -> CiderD {
        CiderD::from_references([[vec![0, 1]], [vec![0, 2]], [vec![3]]])
    }

    #[test]
    fn by_hand() {
        let cider = cider();
        // "a b" against itself: unigrams and bigrams agree, there are no longer ones: 10 · 2/4.
        assert!((cider.score(&[0, 1], &[[0, 1]]) - 5.0).abs() < 1e-12);
        // "a" against "a b": weights a = ln 3 - ln 2 and b = ln 3; one bigram fewer.
        let (a, b) = (1.5f64.ln(), 3.0f64.ln());
        let cosine = a * a / (a * (a * a + b * b).sqrt());
        let expected = 10.0 * cosine / 4.0 * (-1.0f64 / 72.0).exp();
        assert!((cider.score(&[0], &[[0, 1]]) - expected).abs() < 1e-12);
    }

    #[test]
    fn a_repeated_word_counts_no_more_often_than_in_the_reference() {
        let cider = cider();
        let (caption, reference) = (cider.vector(&[1, 1]), [cider.vector(&[1, 9])]);
        assert!(caption.cider_d(&reference) < caption.cider_plain(&reference));
    }

    #[test]
    fn one_image_makes_every_word_worthless() {
        let cider = CiderD::from_references([[vec![0, 1]]]);
        assert_eq!(cider.score(&[0, 1], &[[0, 1]]), 0.0);
        assert_eq!(cider.score(&[0, 1], &Vec::<Vec<u32>>::new()), 0.0);
    }

    #[test]
    fn words_and_ids_agree_and_unknown_words_differ() {
        let words = CiderDOfWords::from_references([["a b"], ["a c"], ["d"]]);
        assert_eq!(words.score("a b", &["a b"]), cider().score(&[0, 1], &[[0, 1]]));
        assert_eq!(words.score("x", &["y"]), 0.0);
        assert!(words.score("x", &["x"]) > 0.0);
    }
}
