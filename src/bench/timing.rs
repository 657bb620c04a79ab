//! Several measurements as three numbers.

use serde::Serialize;

/// Durations in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
}

impl Timing {
    /// Sums up durations; zeros if there are none.
    pub fn of(seconds: &[f64]) -> Self {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        };
        let half = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[half],
            _ => f64::midpoint(sorted[half - 1], sorted[half]),
        };
        Self { median, min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let odd = Timing::of(&[3.0, 1.0, 10.0]);
        assert_eq!(odd, Timing { median: 3.0, min: 1.0, max: 10.0 });
        assert_eq!(Timing::of(&[4.0, 1.0, 2.0, 9.0]).median, 3.0);
        assert_eq!(Timing::of(&[]).max, 0.0);
    }
}
