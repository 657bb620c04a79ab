//! What is done to elements one by one or row by row, on slices: GELU, exponentials, softmax. In vector
//! instructions and on threads. Knows no tensors.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::instructions::arch;

/// Elements that one task takes.
const CHUNK: usize = 1 << 14;

/// GELU with the error function (Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>), in
/// place.
pub(super) fn gelu(values: &mut [f32]) {
    let arch = arch();
    values.par_chunks_mut(CHUNK).for_each(|values| arch.dispatch(Gelu { values }));
}

/// The tangents of GELU at `values`: what stands in `values` becomes their slopes, the result is where
/// they meet the axis, so that `slope · x + offset` is GELU at `x` and its gradient there.
pub(super) fn gelu_tangents(values: &mut [f32]) -> Vec<f32> {
    let arch = arch();
    let mut offsets = vec![0.0; values.len()];
    let parts = values.par_chunks_mut(CHUNK).zip(offsets.par_chunks_mut(CHUNK));
    parts.for_each(|(slopes, offsets)| arch.dispatch(GeluTangents { slopes, offsets }));
    offsets
}

/// Softmax of one row, in place.
#[inline(always)]
pub(super) fn softmax<S: Simd>(simd: S, scores: &mut [f32]) {
    let most = greatest(simd, scores);
    let sum = exponentials(simd, scores, most);
    scale(simd, scores, 1.0 / sum);
}

/// Elements whose exponentials are summed in single precision.
const SUMMED: usize = 1024;

/// Turns logits into logarithms of their softmax, in place; what was taken from each, which is not finite
/// where one of the logits is not a number, or none is finite.
pub(crate) fn log_softmax(logits: &mut [f32]) -> f32 {
    arch().dispatch(LogSoftmax { logits })
}

struct LogSoftmax<'a> {
    logits: &'a mut [f32],
}

impl WithSimd for LogSoftmax<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let logits = self.logits;
        let most = greatest(simd, logits);
        let mut sum = 0.0;
        for part in logits.chunks(SUMMED) {
            sum += f64::from(sum_of_exponentials(simd, part, most));
        }
        let taken = most + sum.ln() as f32;
        let (vectors, rest) = S::as_mut_simd_f32s(logits);
        let all = simd.splat_f32s(taken);
        vectors.iter_mut().for_each(|value| *value = simd.sub_f32s(*value, all));
        rest.iter_mut().for_each(|value| *value -= taken);
        taken
    }
}

/// The sum of `exp(values − most)`.
#[inline(always)]
fn sum_of_exponentials<S: Simd>(simd: S, values: &[f32], most: f32) -> f32 {
    let shift = simd.splat_f32s(most);
    let (vectors, rest) = S::as_simd_f32s(values);
    let mut sums = [simd.splat_f32s(0.0); 2];
    for (index, &value) in vectors.iter().enumerate() {
        let term = exp(simd, simd.sub_f32s(value, shift));
        sums[index % 2] = simd.add_f32s(sums[index % 2], term);
    }
    let mut last = [0.0; 16];
    let last = &mut last[..rest.len()];
    let terms = exp(simd, simd.sub_f32s(simd.partial_load_f32s(rest), shift));
    simd.partial_store_f32s(last, terms);
    simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1])) + last.iter().sum::<f32>()
}

/// The greatest of `values`.
#[inline(always)]
pub(super) fn greatest<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(values);
    let lowest = simd.splat_f32s(f32::NEG_INFINITY);
    let most = vectors.iter().fold(lowest, |most, &value| simd.max_f32s(most, value));
    rest.iter().copied().fold(simd.reduce_max_f32s(most), f32::max)
}

/// Turns `values` into `exp(values − most)`, none of which is above 1; their sum.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(simd: S, values: &mut [f32], most: f32) -> f32 {
    let shift = simd.splat_f32s(most);
    let (vectors, rest) = S::as_mut_simd_f32s(values);
    let mut sum = simd.splat_f32s(0.0);
    for value in vectors {
        *value = exp(simd, simd.sub_f32s(*value, shift));
        sum = simd.add_f32s(sum, *value);
    }
    let last = exp(simd, simd.sub_f32s(simd.partial_load_f32s(rest), shift));
    simd.partial_store_f32s(rest, last);
    simd.reduce_sum_f32s(sum) + rest.iter().sum::<f32>()
}

#[inline(always)]
pub(super) fn scale<S: Simd>(simd: S, values: &mut [f32], factor: f32) {
    let (vectors, rest) = S::as_mut_simd_f32s(values);
    let factors = simd.splat_f32s(factor);
    for value in vectors {
        *value = simd.mul_f32s(*value, factors);
    }
    for value in rest {
        *value *= factor;
    }
}

/// Series of `(exp(x) − 1 − x) / x²` around 0, the highest power first (Cephes' `expf`).
const EXP: [f32; 6] =
    [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5];

/// `exp(x)` for `x` of at most 88, to two units in the last place; 0 below -87.3, where results would
/// have no full precision, and not a number where `x` is not.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5·2²³ leaves the nearest integer in the low bits; what stands above them is shifted out.
    let magic = simd.splat_f32s(12_582_912.0);
    let low = simd.splat_f32s(-87.336_54);
    let within = simd.max_f32s(low, x);
    let shifted = simd.mul_add_e_f32s(within, simd.splat_f32s(std::f32::consts::LOG2_E), magic);
    let power = simd.sub_f32s(shifted, magic);
    // ln 2 in two parts, the first of which has few enough bits for an exact product.
    let rest = simd.mul_add_e_f32s(power, simd.splat_f32s(-0.693_359_4), within);
    let rest = simd.mul_add_e_f32s(power, simd.splat_f32s(2.121_944_4e-4), rest);
    let series = EXP.iter().fold(simd.splat_f32s(0.0), |sum, &factor| {
        simd.mul_add_e_f32s(sum, rest, simd.splat_f32s(factor))
    });
    let one = simd.splat_f32s(1.0);
    let root = simd.add_f32s(simd.mul_add_e_f32s(series, simd.mul_f32s(rest, rest), rest), one);
    let bits = simd.transmute_u32s_f32s(shifted);
    let exponent = simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(23));
    let scaled = simd.add_u32s(simd.transmute_u32s_f32s(root), exponent);
    let value = simd.transmute_f32s_u32s(scaled);
    let zero = simd.splat_f32s(0.0);
    simd.select_f32s(simd.less_than_f32s(x, low), zero, value)
}

struct Gelu<'a> {
    values: &'a mut [f32],
}

impl WithSimd for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (values, rest) = S::as_mut_simd_f32s(self.values);
        for value in values {
            *value = gelu_of(simd, *value);
        }
        let last = gelu_of(simd, simd.partial_load_f32s(rest));
        simd.partial_store_f32s(rest, last);
    }
}

struct GeluTangents<'a> {
    slopes: &'a mut [f32],
    offsets: &'a mut [f32],
}

impl WithSimd for GeluTangents<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (slopes, last_slopes) = S::as_mut_simd_f32s(self.slopes);
        let (offsets, last_offsets) = S::as_mut_simd_f32s(self.offsets);
        for (slope, offset) in slopes.iter_mut().zip(offsets) {
            (*slope, *offset) = gelu_tangent_of(simd, *slope);
        }
        let (slope, offset) = gelu_tangent_of(simd, simd.partial_load_f32s(last_slopes));
        simd.partial_store_f32s(last_slopes, slope);
        simd.partial_store_f32s(last_offsets, offset);
    }
}

/// `Φ(x) + x·φ(x)` and `−x²·φ(x)`, with the normal distribution's `Φ` and density `φ`.
#[inline(always)]
fn gelu_tangent_of<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let half = simd.splat_f32s(0.5);
    let erf = erf(simd, simd.mul_f32s(x, simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2)));
    let below = simd.mul_add_e_f32s(half, erf, half);
    // Beyond 6 the density is less than 2e-8, and the slope that of a straight line.
    let near = simd.min_f32s(simd.max_f32s(x, simd.splat_f32s(-6.0)), simd.splat_f32s(6.0));
    // 1 / √(2π)
    let density = simd.mul_f32s(simd.splat_f32s(0.398_942_3), bell(simd, near));
    let x_density = simd.mul_f32s(near, density);
    (simd.add_f32s(below, x_density), simd.neg_f32s(simd.mul_f32s(near, x_density)))
}

/// `exp(−x² / 2)` for `x` from -6 to 6: the power series at a 32nd of the exponent, squared five times.
#[inline(always)]
fn bell<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let exponent = simd.mul_f32s(simd.mul_f32s(x, x), simd.splat_f32s(-1.0 / 64.0));
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let root = series.iter().fold(simd.splat_f32s(0.0), |sum, &factor| {
        simd.mul_add_e_f32s(sum, exponent, simd.splat_f32s(factor))
    });
    (0..5).fold(root, |power, _| simd.mul_f32s(power, power))
}

/// `x · (1 + erf(x / √2)) / 2`.
#[inline(always)]
pub(super) fn gelu_of<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let half = simd.mul_f32s(x, simd.splat_f32s(0.5));
    let erf = erf(simd, simd.mul_f32s(x, simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2)));
    simd.mul_add_e_f32s(half, erf, half)
}

/// Numerator of the error function over its argument, in even powers, the highest first: the rational
/// function of Eigen (`generic_fast_erf`, <https://gitlab.com/libeigen/eigen>), right to a few units
/// in the last place.
const ERF_NUMERATOR: [f32; 7] = [
    -2.726_142_3e-10,
    2.770_681_4e-8,
    -2.101_024e-6,
    -5.692_506_4e-5,
    -7.349_906_3e-4,
    -2.954_6e-3,
    -1.609_603_3e-2,
];
const ERF_DENOMINATOR: [f32; 5] =
    [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];

#[inline(always)]
fn erf<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Beyond 4 it is 1 in single precision.
    let x = simd.min_f32s(simd.max_f32s(x, simd.splat_f32s(-4.0)), simd.splat_f32s(4.0));
    let square = simd.mul_f32s(x, x);
    let polynomial = |factors: &[f32]| {
        factors.iter().fold(simd.splat_f32s(0.0), |sum, &factor| {
            simd.mul_add_e_f32s(sum, square, simd.splat_f32s(factor))
        })
    };
    let quotient = simd.div_f32s(polynomial(&ERF_NUMERATOR), polynomial(&ERF_DENOMINATOR));
    simd.mul_f32s(x, quotient)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp<'a>(&'a mut [f32]);

    impl WithSimd for Exp<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            exponentials(simd, self.0, 0.0);
        }
    }

    #[test]
    fn exponentials_are_right_to_two_units_in_the_last_place() {
        let x: Vec<f32> = (0..=100_000).map(|index| -(index as f32) * 87.3 / 100_000.0).collect();
        let mut ours = x.clone();
        arch().dispatch(Exp(&mut ours));
        for (x, ours) in x.iter().zip(&ours) {
            let exact = f64::from(*x).exp();
            let apart = (f64::from(*ours) - exact).abs() / exact;
            assert!(apart < 2.4e-7, "exp({x}) is off by {apart:e}");
        }
        let mut edges = [0.0, -0.0, -88.0, -1e30, f32::NEG_INFINITY, f32::NAN];
        arch().dispatch(Exp(&mut edges));
        assert_eq!(edges[..5], [1.0, 1.0, 0.0, 0.0, 0.0]);
        assert!(edges[5].is_nan());
    }

    #[test]
    fn log_softmax_of_any_length_is_that_in_double_precision() {
        for length in [1, 7, 8, 31, 4000, 30_522] {
            let logits: Vec<f32> =
                (0..length).map(|index| (index * 7919 % 1013) as f32 / 40.0 - 9.0).collect();
            let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            let mut ours = logits.clone();
            log_softmax(&mut ours);
            for (ours, x) in ours.iter().zip(&logits) {
                let exact = f64::from(*x) - sum.ln();
                assert!((f64::from(*ours) - exact).abs() < 4e-6, "{length}: {ours} {exact}");
            }
        }
        assert!(!log_softmax(&mut [1.0, f32::NAN, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0]).is_finite());
        assert!(!log_softmax(&mut [f32::NEG_INFINITY; 3]).is_finite());
    }
}
