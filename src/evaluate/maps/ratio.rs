//! A mean over words that knows which image each word came from, for intervals.

use crate::metrics::bootstrap::{BootstrapConfig, Interval, interval, resample};

/// A mean over words: their sum and their number for each image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ratio {
    images: Vec<(f64, f64)>,
}

impl Ratio {
    /// Adds the words of another image.
    pub(super) fn push(&mut self, sum: f64, words: usize) {
        self.images.push((sum, words as f64));
    }

    /// How many words there are.
    pub fn words(&self) -> usize {
        self.images.iter().map(|(_, words)| *words).sum::<f64>() as usize
    }

    /// The mean over all words; none without words.
    pub fn value(&self) -> Option<f64> {
        let all: Vec<u32> = (0..self.images.len() as u32).collect();
        self.of(&all)
    }

    fn of(&self, drawn: &[u32]) -> Option<f64> {
        let (sum, words) = drawn.iter().fold((0.0, 0.0), |(sum, words), &at| {
            let (more, count) = self.images[at as usize];
            (sum + more, words + count)
        });
        (words > 0.0).then(|| sum / words)
    }

    /// Its 95 % interval over images drawn again.
    pub fn interval(&self, config: BootstrapConfig) -> Option<Interval> {
        let draws = resample(config, self.images.len(), |drawn| self.of(drawn));
        interval(draws.into_iter().flatten().collect())
    }

    /// The interval of its difference to another mean over the same images, in the same draws.
    pub fn difference(&self, other: &Self, config: BootstrapConfig) -> Option<Interval> {
        if self.images.len() != other.images.len() {
            return None;
        }
        let draws =
            resample(config, self.images.len(), |drawn| Some(self.of(drawn)? - other.of(drawn)?));
        interval(draws.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_alike_whatever_their_image() {
        let mut one = Ratio::default();
        one.push(1.0, 1);
        one.push(0.0, 3);
        one.push(0.0, 0);
        assert_eq!((one.value(), one.words()), (Some(0.25), 4));
        assert_eq!(Ratio::default().value(), None);
        assert_eq!(Ratio::default().interval(BootstrapConfig::default()), None);
    }

    #[test]
    fn what_is_better_everywhere_is_better_in_every_draw() {
        let (mut one, mut other) = (Ratio::default(), Ratio::default());
        for image in 0..30 {
            let base = f64::from(image % 7) / 10.0;
            one.push(2.0 * base + 0.2, 2);
            other.push(2.0 * base, 2);
        }
        let config = BootstrapConfig { resamples: 200, seed: 1 };
        let Interval { low, high } = one.difference(&other, config).unwrap();
        assert!((low - 0.1).abs() < 1e-9 && (high - 0.1).abs() < 1e-9, "{low} {high}");
        let wide = one.interval(config).unwrap();
        assert!(wide.low < one.value().unwrap() && one.value().unwrap() < wide.high);
    }
}
