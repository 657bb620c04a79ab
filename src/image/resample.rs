//! Pillow's resampling, bit for bit: antialiased convolution, along the rows and then down the
//! columns, rounded and clipped to 8 bits in between, with weights of 22 fractional bits
//! (`Resample.c` of Pillow 12, <https://github.com/python-pillow/Pillow>).

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::resize::ResizeFilter;

/// A part of one axis of a scaled image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Pixels of the source along this axis, at least 1.
    pub source: u32,
    /// Pixels to which all of them are scaled, at least 1.
    pub scaled: u64,
    /// The first of those that is wanted.
    pub start: u64,
    /// How many are wanted; none lies outside.
    pub length: u32,
}

impl Window {
    /// Pillow leaves out a pass that would change nothing.
    fn is_identity(&self) -> bool {
        u64::from(self.source) == self.scaled
    }
}

/// Fractional bits of a weight: 32 without 8 for the pixel and 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Rows that the horizontal pass takes side by side, so that weights are fetched once for all.
const ROWS: usize = 4;
/// Bytes that are multiplied at once along a row: 5 pixels and a byte that counts nothing.
const LANES: usize = 16;
const PIXELS: usize = LANES / 3;
/// Products below which threads cost more than they save.
const WORTH_THREADS: usize = 1 << 21;

/// Three interleaved channels, `source` of `horizontal.source × vertical.source` pixels, as
/// `horizontal.length × vertical.length`.
pub(super) fn resample(
    source: &[u8],
    horizontal: Window,
    vertical: Window,
    filter: ResizeFilter,
) -> Vec<u8> {
    let stride = horizontal.source as usize * 3;
    let down = Weights::new(&vertical, filter);
    let (first, last) = down.used();
    let rows = &source[first * stride..last * stride];
    let half = if horizontal.is_identity() {
        let columns = horizontal.start as usize * 3..;
        let length = horizontal.length as usize * 3;
        let cut = rows.chunks_exact(stride);
        cut.flat_map(|row| &row[columns.clone()][..length]).copied().collect()
    } else {
        along_rows(rows, stride, &Weights::new(&horizontal, filter))
    };
    if vertical.is_identity() {
        return half;
    }
    down_columns(&half, horizontal.length as usize * 3, first, &down)
}

/// For each pixel of a window, the source pixels that it is made of and their weights.
struct Weights {
    /// First source pixel and number of weights.
    spans: Vec<(usize, usize)>,
    /// `taps` places a pixel, the rest of which is empty.
    values: Vec<i32>,
    taps: usize,
}

impl Weights {
    /// In f64 and in Pillow's order of operations, so that every weight rounds the same way.
    fn new(window: &Window, filter: ResizeFilter) -> Self {
        let length = window.length as usize;
        if window.is_identity() {
            let first = window.start as usize;
            let spans = (first..first + length).map(|at| (at, 1)).collect();
            return Self { spans, values: vec![1 << PRECISION_BITS; length], taps: 1 };
        }
        if filter == ResizeFilter::Nearest {
            return Self::nearest(window);
        }
        let (size, scale) =
            (f64::from(window.source), f64::from(window.source) / window.scaled as f64);
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let shrink = 1.0 / filter_scale;
        let taps = support.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(length);
        let mut values = vec![0; length * taps];
        let mut exact = Vec::with_capacity(taps);
        for (index, values) in values.chunks_exact_mut(taps).enumerate() {
            let center = ((window.start + index as u64) as f64 + 0.5) * scale;
            // Casts cut the fraction off.
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = (center + support + 0.5).min(size) as usize;
            exact.clear();
            exact.extend((first..end).map(|at| filter.at((at as f64 - center + 0.5) * shrink)));
            let sum: f64 = exact.iter().sum();
            for (value, &weight) in values.iter_mut().zip(&exact) {
                let weight = if sum == 0.0 { weight } else { weight / sum };
                let fixed = weight * f64::from(1u32 << PRECISION_BITS);
                *value = (if fixed < 0.0 { fixed - 0.5 } else { fixed + 0.5 }) as i32;
            }
            spans.push((first, end - first));
        }
        Self { spans, values, taps }
    }

    /// Pillow's affine transformation: places are summed up, with the error that this brings.
    fn nearest(window: &Window) -> Self {
        let length = window.length as usize;
        let step = f64::from(window.source) / window.scaled as f64;
        let mut at = step * 0.5;
        let mut spans = Vec::with_capacity(length);
        for index in 0..window.start + u64::from(window.length) {
            if index >= window.start {
                spans.push(((at as usize).min(window.source as usize - 1), 1));
            }
            at += step;
        }
        Self { spans, values: vec![1 << PRECISION_BITS; length], taps: 1 }
    }

    /// The source pixels that are used at all: the first, and the one behind the last.
    fn used(&self) -> (usize, usize) {
        let first = self.spans.iter().map(|&(first, _)| first).min().unwrap_or(0);
        let end = self.spans.iter().map(|&(first, count)| first + count).max().unwrap_or(0);
        (first, end)
    }

    /// First source pixel and weights of every pixel.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let values = self.values.chunks_exact(self.taps);
        self.spans.iter().zip(values).map(|(&(first, count), values)| (first, &values[..count]))
    }
}

impl ResizeFilter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
            Self::Box | Self::Nearest => 0.5,
            Self::Hamming => 1.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
            Self::Box | Self::Nearest => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Hamming => match x.abs() {
                0.0 => 1.0,
                x if x >= 1.0 => 0.0,
                x => {
                    let x = x * std::f64::consts::PI;
                    // Pillow's number is a single-precision one.
                    x.sin() / x * (f64::from(0.54f32) + f64::from(0.46f32) * x.cos())
                }
            },
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Scales every row.
fn along_rows(rows: &[u8], stride: usize, weights: &Weights) -> Vec<u8> {
    let out_stride = weights.spans.len() * 3;
    let mut out = vec![0; rows.len() / stride * out_stride];
    // A weight once for each of a pixel's channels.
    let groups = weights.taps.div_ceil(PIXELS);
    let mut lanes = vec![[0; LANES]; weights.spans.len() * groups];
    for (lanes, (_, weights)) in lanes.chunks_exact_mut(groups).zip(weights.iter()) {
        for (lanes, weights) in lanes.iter_mut().zip(weights.chunks(PIXELS)) {
            for (lanes, weight) in lanes.chunks_exact_mut(3).zip(weights) {
                lanes.fill(*weight);
            }
        }
    }
    let places: Vec<(usize, usize)> =
        weights.spans.iter().map(|&(first, count)| (first * 3, count.div_ceil(PIXELS))).collect();
    let arch = Arch::new();
    let block = |(index, out): (usize, &mut [u8])| {
        let start = index * ROWS * stride;
        let end = start + out.len() / out_stride * stride;
        // The last group of a row reaches beyond it, where its weights are 0.
        let padded: Vec<u8>;
        let rows = if end + LANES <= rows.len() {
            &rows[start..]
        } else {
            padded = [&rows[start..end], &[0; LANES]].concat();
            &padded
        };
        let (lanes, places) = (&lanes, &places);
        arch.dispatch(AlongRows { rows, stride, out, out_stride, places, lanes, groups });
    };
    if rows.len() / stride * lanes.len() * LANES < WORTH_THREADS {
        out.chunks_mut(out_stride * ROWS).enumerate().for_each(block);
    } else {
        out.par_chunks_mut(out_stride * ROWS).enumerate().for_each(block);
    }
    out
}

/// Scales at most [`ROWS`] rows. A struct with a method, because that is what is compiled for each
/// set of vector instructions.
struct AlongRows<'a> {
    rows: &'a [u8],
    stride: usize,
    out: &'a mut [u8],
    out_stride: usize,
    /// Of each pixel the first byte and the groups that it is made of.
    places: &'a [(usize, usize)],
    /// `groups` places a pixel.
    lanes: &'a [[i32; LANES]],
    groups: usize,
}

impl WithSimd for AlongRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { rows, stride, out, out_stride, places, lanes, groups } = self;
        let count = out.len() / out_stride;
        // A row that is not there is the last one once more.
        let row = |row: usize| &rows[row.min(count - 1) * stride..];
        let (row0, row1, row2, row3) = (row(0), row(1), row(2), row(3));
        let lanes = lanes.chunks_exact(groups);
        for (x, (&(at, groups), lanes)) in places.iter().zip(lanes).enumerate() {
            // Four names and not an array, which the compiler would keep in memory.
            let mut sums0 = [0; LANES];
            let (mut sums1, mut sums2, mut sums3) = (sums0, sums0, sums0);
            for (group, weights) in lanes[..groups].iter().enumerate() {
                let at = at + group * PIXELS * 3;
                add_products(&mut sums0, &row0[at..], weights);
                add_products(&mut sums1, &row1[at..], weights);
                add_products(&mut sums2, &row2[at..], weights);
                add_products(&mut sums3, &row3[at..], weights);
            }
            let pixels = [pixel(&sums0), pixel(&sums1), pixel(&sums2), pixel(&sums3)];
            for (row, pixel) in out.chunks_exact_mut(out_stride).zip(pixels) {
                row[x * 3..x * 3 + 3].copy_from_slice(&pixel);
            }
        }
    }
}

#[inline(always)]
fn add_products(sums: &mut [i32; LANES], bytes: &[u8], weights: &[i32; LANES]) {
    let bytes = &bytes[..LANES];
    for lane in 0..LANES {
        sums[lane] = sums[lane].wrapping_add(i32::from(bytes[lane]).wrapping_mul(weights[lane]));
    }
}

/// Not inlined, and by reference: the compiler otherwise takes the sums apart, and then keeps them in
/// memory while they are summed.
#[inline(never)]
fn pixel(sums: &[i32; LANES]) -> [u8; 3] {
    let mut pixel = [0; 3];
    for (channel, byte) in pixel.iter_mut().enumerate() {
        let sum = (0..PIXELS).fold(HALF, |sum, at| sum.wrapping_add(sums[at * 3 + channel]));
        *byte = clip(sum);
    }
    pixel
}

/// Scales every column; `rows` begins with source row `first`.
fn down_columns(rows: &[u8], stride: usize, first: usize, weights: &Weights) -> Vec<u8> {
    let mut out = vec![0; weights.spans.len() * stride];
    let arch = Arch::new();
    let row = |((at, weights), out): ((usize, &[i32]), &mut [u8])| {
        let rows = &rows[(at - first) * stride..];
        arch.dispatch(DownColumns { rows, stride, weights, out });
    };
    let weighted: Vec<(usize, &[i32])> = weights.iter().collect();
    if stride * weights.values.len() < WORTH_THREADS {
        weighted.into_iter().zip(out.chunks_exact_mut(stride)).for_each(row);
    } else {
        weighted.into_par_iter().zip(out.par_chunks_exact_mut(stride)).for_each(row);
    }
    out
}

/// Makes one row of several.
struct DownColumns<'a> {
    rows: &'a [u8],
    stride: usize,
    weights: &'a [i32],
    out: &'a mut [u8],
}

impl WithSimd for DownColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { rows, stride, weights, out } = self;
        let (chunks, rest) = out.as_chunks_mut::<LANES>();
        let done = chunks.len() * LANES;
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let mut sums = [HALF; LANES];
            for (row, &weight) in rows.chunks_exact(stride).zip(weights) {
                add_products(&mut sums, &row[index * LANES..], &[weight; LANES]);
            }
            for lane in 0..LANES {
                chunk[lane] = clip(sums[lane]);
            }
        }
        for (index, byte) in rest.iter_mut().enumerate() {
            let mut sum = HALF;
            for (row, &weight) in rows.chunks_exact(stride).zip(weights) {
                sum = sum.wrapping_add(i32::from(row[done + index]).wrapping_mul(weight));
            }
            *byte = clip(sum);
        }
    }
}
