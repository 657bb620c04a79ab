//! How varied captions are, whatever their images.

use std::collections::{HashMap, HashSet};

use super::ngrams::{MAX_ORDER, Vocabulary, count, order};

/// Measures over all captions.
#[derive(Debug, Clone, PartialEq)]
pub struct Diversity {
    /// Different n-grams as a share of all, by length: distinct-1 to distinct-4.
    pub distinct: [f64; MAX_ORDER],
    /// Different words.
    pub vocabulary: usize,
    /// Words a caption, on average.
    pub mean_length: f64,
    /// Different captions as a share of all.
    pub unique: f64,
    /// Captions that are none of the training captions, as a share of all; where those are known.
    pub novel: Option<f64>,
}

/// Measures tokenised captions; `training` are the tokenised training captions.
pub fn diversity(captions: &[&str], training: Option<&HashSet<String>>) -> Diversity {
    let mut vocabulary = Vocabulary::default();
    let mut seen = HashMap::new();
    let mut all = [0u64; MAX_ORDER];
    let mut num_words = 0;
    for caption in captions {
        let words: Vec<u32> = caption.split_whitespace().map(|word| vocabulary.add(word)).collect();
        num_words += words.len();
        for (n, all) in all.iter_mut().enumerate() {
            *all += words.len().saturating_sub(n) as u64;
        }
        seen.extend(count(&words));
    }
    let mut different = [0u64; MAX_ORDER];
    for ngram in seen.keys() {
        if let Some(different) = different.get_mut(order(*ngram).wrapping_sub(1)) {
            *different += 1;
        }
    }
    let share = |part: usize| part as f64 / captions.len().max(1) as f64;
    Diversity {
        distinct: std::array::from_fn(|n| different[n] as f64 / all[n].max(1) as f64),
        vocabulary: vocabulary.len(),
        mean_length: share(num_words),
        unique: share(captions.iter().collect::<HashSet<_>>().len()),
        novel: training.map(|training| {
            share(captions.iter().filter(|caption| !training.contains(**caption)).count())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let training = HashSet::from(["a dog".to_owned()]);
        let found = diversity(&["a dog", "a dog", "a big dog", ""], Some(&training));
        // a, dog, big of 7 words; "a dog", "a big", "big dog" of 4 bigrams; "a big dog".
        assert_eq!(found.distinct, [3.0 / 7.0, 3.0 / 4.0, 1.0, 0.0]);
        assert_eq!(found.vocabulary, 3);
        assert_eq!(found.mean_length, 7.0 / 4.0);
        assert_eq!(found.unique, 0.75);
        assert_eq!(found.novel, Some(0.5));
        assert_eq!(diversity(&[], None).mean_length, 0.0);
    }
}
