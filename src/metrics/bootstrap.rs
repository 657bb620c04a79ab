//! How sure a score is: images drawn again with replacement, many times, and the score of each draw.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootstrapConfig {
    /// Draws; 0 for none.
    pub resamples: usize,
    /// The seed of the random numbers.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0 }
    }
}

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// 2.5 % of the draws lie below.
    pub low: f64,
    /// 2.5 % of the draws lie above.
    pub high: f64,
}

/// Calls `score` with the images of each draw, as indices below `num_images`. The result does not
/// depend on the number of threads.
pub fn resample<T: Send>(
    config: BootstrapConfig,
    num_images: usize,
    score: impl Fn(&[u32]) -> T + Sync,
) -> Vec<T> {
    let bound = u32::try_from(num_images).unwrap_or(u32::MAX);
    if bound == 0 {
        return Vec::new();
    }
    (0..config.resamples as u64)
        .into_par_iter()
        .map_init(Vec::new, |drawn: &mut Vec<u32>, stream| {
            let mut random = ChaCha8Rng::seed_from_u64(config.seed);
            random.set_stream(stream);
            drawn.clear();
            drawn.extend((0..bound).map(|_| random.random_range(0..bound)));
            score(drawn)
        })
        .collect()
}

/// The interval that holds the middle 95 % of the draws; `None` without draws.
pub fn interval(mut scores: Vec<f64>) -> Option<Interval> {
    scores.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (scores.len().checked_sub(1)?) as f64;
        let (below, above) =
            (scores.get(place.floor() as usize)?, scores.get(place.ceil() as usize)?);
        Some(below + (above - below) * place.fract())
    };
    Some(Interval { low: at(0.025)?, high: at(0.975)? })
}

/// The two-sided p-value of a difference, from the differences in the same draws: twice the share
/// of draws on the rarer side of zero, at least one draw's worth. `None` without draws.
pub fn p_value(differences: &[f64]) -> Option<f64> {
    let below = differences.iter().filter(|difference| **difference <= 0.0).count();
    let above = differences.iter().filter(|difference| **difference >= 0.0).count();
    let draws = (below.min(above) + 1) as f64;
    (!differences.is_empty()).then_some((draws * least_p_value(differences.len())).min(1.0))
}

/// The least p-value that so many draws can tell.
pub fn least_p_value(draws: usize) -> f64 {
    2.0 / (draws + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_the_seed_only() {
        let config = BootstrapConfig { resamples: 20, seed: 3 };
        let draw = |config| resample(config, 7, <[u32]>::to_vec);
        assert_eq!(draw(config), draw(config));
        assert_ne!(draw(config), draw(BootstrapConfig { seed: 4, ..config }));
        assert!(draw(config).iter().all(|drawn| drawn.len() == 7 && drawn.iter().all(|i| *i < 7)));
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one_thread.install(|| draw(config)), draw(config));
        assert!(resample(config, 0, <[u32]>::to_vec).is_empty());
    }

    #[test]
    fn the_interval_of_a_mean_is_the_known_one() {
        // The mean of 400 coin tosses: standard error 0.025, so 0.5 ± 0.049.
        let config = BootstrapConfig { resamples: 2000, seed: 0 };
        let means = resample(config, 400, |drawn| {
            drawn.iter().filter(|i| **i % 2 == 0).count() as f64 / 400.0
        });
        let found = interval(means).unwrap();
        assert!((found.low - 0.451).abs() < 0.006, "{found:?}");
        assert!((found.high - 0.549).abs() < 0.006, "{found:?}");
        assert_eq!(interval(Vec::new()), None);
        assert_eq!(interval(vec![2.0]), Some(Interval { low: 2.0, high: 2.0 }));
    }

    #[test]
    fn p_values_are_two_sided() {
        assert_eq!(p_value(&[]), None);
        assert_eq!(p_value(&[0.0; 9]), Some(1.0));
        assert_eq!(p_value(&[1.0; 99]), Some(0.02));
        assert_eq!(least_p_value(99), 0.02);
        assert_eq!(p_value(&[1.0, -1.0, 1.0]), Some(1.0));
    }
}
