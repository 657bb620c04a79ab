//! Depthwise convolutions of 3×3 with ReLU6, on slices whose channels lie side by side. Knows no tensors.
#![allow(
    clippy::needless_range_loop,
    reason = "a closure of an iterator would hold vector instructions apart from the function that has them"
)]

use std::array::from_fn;

use pulp::{Simd, WithSimd, as_arrays};

use super::convolution::{lanes, relu6, zero_padded};

/// A depthwise convolution of 3×3 with padding 1, and its bias.
pub(in crate::model) struct Filter {
    pub(super) channels: usize,
    pub(super) stride: usize,
    /// Nine weights each of as many channels as a vector holds, then those of the next.
    taps: Vec<f32>,
    /// As many as there are channels in `taps`.
    bias: Vec<f32>,
}

impl Filter {
    /// `weight` is `[channels, 3, 3]`, row by row.
    pub(super) fn new(weight: &[f32], bias: &[f32], stride: usize) -> Self {
        let (lanes, channels) = (lanes(), bias.len());
        let padded = channels.next_multiple_of(lanes);
        let mut taps = vec![0.0; 9 * padded];
        for (channel, weight) in weight.chunks_exact(9).enumerate() {
            for (tap, &weight) in weight.iter().enumerate() {
                taps[(channel / lanes * 9 + tap) * lanes + channel % lanes] = weight;
            }
        }
        Self { channels, stride, taps, bias: zero_padded(bias, padded) }
    }
}

/// The filter and ReLU6 for one row.
pub(super) struct Convolve<'a> {
    pub(super) filter: &'a Filter,
    /// Above, at and below it; empty where there is none.
    pub(super) lines: [&'a [f32]; 3],
    /// As many as there are channels.
    pub(super) zeros: &'a [f32],
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { filter, lines, zeros, out } = self;
        let channels = filter.channels;
        let pair = 2 * channels;
        let mut rest = out.chunks_exact_mut(pair);
        let mut next = 0;
        for out in &mut rest {
            // Two pixels at once share the weights.
            match filter.stride {
                1 => filter.apply::<S, 2, 4>(simd, columns(channels, lines, zeros, next), out),
                _ => filter.apply::<S, 2, 5>(simd, columns(channels, lines, zeros, next), out),
            }
            next += 2 * filter.stride;
        }
        let out = rest.into_remainder();
        if !out.is_empty() {
            filter.apply::<S, 1, 3>(simd, columns(channels, lines, zeros, next), out);
        }
    }
}

/// So many columns of three pixels, the second of which is `column`; beyond the edges there are zeros.
fn columns<'a, const COLUMNS: usize>(
    channels: usize,
    lines: [&'a [f32]; 3],
    zeros: &'a [f32],
    column: usize,
) -> [[&'a [f32]; COLUMNS]; 3] {
    lines.map(|line| {
        from_fn(|index| {
            let from = (column + index).wrapping_sub(1).wrapping_mul(channels);
            line.get(from..from.wrapping_add(channels)).unwrap_or(zeros)
        })
    })
}

impl Filter {
    /// So many pixels of what the filter makes of so many columns, and ReLU6.
    #[inline(always)]
    fn apply<S: Simd, const PIXELS: usize, const COLUMNS: usize>(
        &self,
        simd: S,
        columns: [[&[f32]; COLUMNS]; 3],
        out: &mut [f32],
    ) {
        let whole = self.channels / S::F32_LANES;
        let taps = as_arrays::<3, _>(as_arrays::<3, _>(S::as_simd_f32s(&self.taps).0).0).0;
        let bias = S::as_simd_f32s(&self.bias).0;
        let mut vectors = [[bias; COLUMNS]; 3];
        for row in 0..3 {
            for column in 0..COLUMNS {
                vectors[row][column] = &S::as_simd_f32s(columns[row][column]).0[..whole];
            }
        }
        for index in 0..whole {
            let mut x = [[bias[index]; COLUMNS]; 3];
            for row in 0..3 {
                for column in 0..COLUMNS {
                    x[row][column] = vectors[row][column][index];
                }
            }
            let sums = self.sums::<S, PIXELS, COLUMNS>(simd, &taps[index], bias[index], x);
            for pixel in 0..PIXELS {
                let at = pixel * self.channels + index * S::F32_LANES;
                let line = S::as_mut_simd_f32s(&mut out[at..at + S::F32_LANES]).0;
                line[0] = sums[pixel];
            }
        }
        let last = whole * S::F32_LANES..self.channels;
        if !last.is_empty() {
            let mut x = [[bias[whole]; COLUMNS]; 3];
            for row in 0..3 {
                for column in 0..COLUMNS {
                    x[row][column] = simd.partial_load_f32s(&columns[row][column][last.clone()]);
                }
            }
            let sums = self.sums::<S, PIXELS, COLUMNS>(simd, &taps[whole], bias[whole], x);
            for pixel in 0..PIXELS {
                let line = &mut out[pixel * self.channels..][last.clone()];
                simd.partial_store_f32s(line, sums[pixel]);
            }
        }
    }

    /// A vector of channels.
    #[inline(always)]
    fn sums<S: Simd, const PIXELS: usize, const COLUMNS: usize>(
        &self,
        simd: S,
        taps: &[[S::f32s; 3]; 3],
        bias: S::f32s,
        x: [[S::f32s; COLUMNS]; 3],
    ) -> [S::f32s; PIXELS] {
        let mut sums = [bias; PIXELS];
        for row in 0..3 {
            for tap in 0..3 {
                for pixel in 0..PIXELS {
                    let x = x[row][pixel * (COLUMNS - 3) + tap];
                    sums[pixel] = simd.mul_add_e_f32s(taps[row][tap], x, sums[pixel]);
                }
            }
        }
        for pixel in 0..PIXELS {
            sums[pixel] = relu6(simd, sums[pixel]);
        }
        sums
    }
}
