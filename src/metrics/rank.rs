//! Whether two ways to measure put things in the same order.

/// Kendall's τ-b (Kendall 1945) of two lists of the same things: 1 where every pair stands in the same
/// order, -1 where every pair is reversed; ties count for neither. `None` where one list is all ties or
/// shorter than two.
pub fn kendall_tau(left: &[f64], right: &[f64]) -> Option<f64> {
    let (mut agree, mut left_pairs, mut right_pairs) = (0i64, 0i64, 0i64);
    let sign = |a: f64, b: f64| i64::from(a > b) - i64::from(a < b);
    for (at, (left_one, right_one)) in left.iter().zip(right).enumerate() {
        for (left_other, right_other) in left.iter().zip(right).take(at) {
            let (one, other) = (sign(*left_one, *left_other), sign(*right_one, *right_other));
            agree += one * other;
            left_pairs += one.abs();
            right_pairs += other.abs();
        }
    }
    let size = (left_pairs as f64 * right_pairs as f64).sqrt();
    (size > 0.0).then(|| agree as f64 / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of tied lists is the example in the documentation of `scipy.stats.kendalltau`.
    #[test]
    fn tau_is_that_of_scipy() {
        let close = |left: &[f64], right: &[f64], expected: f64| {
            let found = kendall_tau(left, right).unwrap();
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        };
        close(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 2.0, 3.0, 4.0, 5.0], 1.0);
        close(&[1.0, 2.0, 3.0], &[9.0, 5.0, 1.0], -1.0);
        close(&[12.0, 2.0, 1.0, 12.0, 2.0], &[1.0, 4.0, 7.0, 1.0, 0.0], -0.471_404_520_791_031_7);
        close(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2.0, 1.0, 4.0, 3.0, 6.0, 5.0], 0.6);
        assert_eq!(kendall_tau(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(kendall_tau(&[1.0], &[1.0]), None);
    }
}
