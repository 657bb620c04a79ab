//! MobileNetV2 without gradients, on slices whose channels lie side by side: block after block, each
//! for few enough pixels at a time that what it expands them to stays in the cache. Knows no tensors.

use std::array::from_fn;
use std::mem::swap;
use std::ops::Range;
use std::sync::Arc;

use pulp::{Simd, WithSimd, as_arrays};
use rayon::prelude::*;

use super::instructions::arch;

/// Pixels that are expanded at once: enough to make reading the weights worth it.
const PIXELS: usize = 128;

/// Rows and columns of a grid of pixels.
pub(super) type Size = [usize; 2];

/// A convolution of 1×1 and its bias.
pub(in crate::model) struct Mix {
    inputs: usize,
    outputs: usize,
    /// Weights of as many outputs as two vectors hold, input by input, then those of the next; one
    /// vector is enough for the last outputs if they fit into it.
    panels: Vec<f32>,
    /// As many as there are outputs in `panels`.
    bias: Vec<f32>,
}

impl Mix {
    /// `weight` is `[outputs, inputs]`, row by row.
    pub(super) fn new(weight: &[f32], bias: &[f32]) -> Self {
        let (lanes, outputs) = (lanes(), bias.len());
        let inputs = weight.len() / outputs;
        let padded = outputs.next_multiple_of(lanes);
        let mut panels = vec![0.0; padded * inputs];
        let of_panel = 2 * lanes * inputs;
        panels.par_chunks_mut(of_panel).zip(weight.par_chunks(of_panel)).for_each(
            |(panel, weight)| {
                let width = panel.len() / inputs;
                // In squares, which are read and written a line of the cache at a time.
                for square in (0..inputs).step_by(16) {
                    for (output, weight) in weight.chunks_exact(inputs).enumerate() {
                        for input in square..inputs.min(square + 16) {
                            panel[input * width + output] = weight[input];
                        }
                    }
                }
            },
        );
        Self { inputs, outputs, panels, bias: zero_padded(bias, padded) }
    }
}

/// A depthwise convolution of 3×3 with padding 1, and its bias.
pub(in crate::model) struct Filter {
    channels: usize,
    stride: usize,
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

fn zero_padded(values: &[f32], length: usize) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(length, 0.0);
    padded
}

/// A part of the network that leaves few channels.
pub(in crate::model) enum Layer {
    /// Convolution of 3×3 with stride 2, as a mix of the 27 values below it, and ReLU6. Reads
    /// `[3, rows, cols]`; everything else `[rows, cols, channels]`.
    Stem(Mix),
    /// An inverted residual.
    Block(Block),
    /// Mix and ReLU6.
    Head(Mix),
}

/// Expansion and ReLU6, filter and ReLU6, projection.
pub(in crate::model) struct Block {
    pub expand: Option<Mix>,
    pub filter: Filter,
    pub project: Mix,
    /// Whether its input is added.
    pub residual: bool,
}

impl Layer {
    fn last(&self) -> &Mix {
        match self {
            Self::Stem(mix) | Self::Head(mix) | Self::Block(Block { project: mix, .. }) => mix,
        }
    }

    /// The grid that it makes of such a one.
    fn size(&self, [rows, cols]: Size) -> Size {
        let stride = match self {
            Self::Stem(_) => 2,
            Self::Block(block) => block.filter.stride,
            Self::Head(_) => 1,
        };
        [rows.div_ceil(stride), cols.div_ceil(stride)]
    }
}

/// What the layers make of each of the images, whose grids are of `size`: `[images, rows, cols,
/// channels]` and its rows and columns; the same bits on any number of threads.
pub(super) fn run(layers: &[Arc<Layer>], x: &[f32], images: usize, size: Size) -> (Vec<f32>, Size) {
    let channels = layers.last().map_or(0, |layer| layer.last().outputs);
    let [rows, cols] = layers.iter().fold(size, |size, layer| layer.size(size));
    let (read, made) = (x.len() / images, rows * cols * channels);
    // An image is cut only where threads would have none, since parts share work at their edges.
    let threads = rayon::current_num_threads();
    let parts = if images >= 2 * threads { 1 } else { threads };
    let mut out = vec![0.0; images * made];
    out.par_chunks_mut(made).zip(x.par_chunks(read)).for_each_init(
        || (Vec::new(), Vec::new(), vec![Scratch::default(); parts]),
        |(grid, next, scratch), (out, x)| {
            let mut size = size;
            for (index, layer) in layers.iter().enumerate() {
                let x = if index == 0 { x } else { &grid[..] };
                let [rows, cols] = layer.size(size);
                next.resize(rows * cols * layer.last().outputs, 0.0);
                apply(layer, x, size, scratch, next);
                swap(grid, next);
                size = [rows, cols];
            }
            out.copy_from_slice(grid);
        },
    );
    (out, [rows, cols])
}

/// What a thread fills and empties again.
#[derive(Clone, Default)]
struct Scratch {
    hidden: Vec<f32>,
    filtered: Vec<f32>,
}

/// One layer of one image, in as many parts as there are `scratch`es.
fn apply(layer: &Layer, x: &[f32], size: Size, scratch: &mut [Scratch], out: &mut [f32]) {
    let [rows, cols] = layer.size(size);
    let of_row = cols * layer.last().outputs;
    let of_part = rows.div_ceil(scratch.len());
    let parts = out.par_chunks_mut(of_part * of_row).zip(scratch).enumerate();
    parts.for_each(|(part, (out, scratch))| {
        let first = part * of_part;
        match layer {
            Layer::Stem(mix) => {
                for (row, out) in (first..).zip(out.chunks_exact_mut(of_row)) {
                    scratch.hidden.resize(cols * mix.inputs, 0.0);
                    patches(x, size, row, &mut scratch.hidden);
                    multiply(mix, &scratch.hidden, Finish::Clamp, out);
                }
            }
            Layer::Head(mix) => {
                let pixels = out.len() / mix.outputs;
                let x = &x[first * cols * mix.inputs..][..pixels * mix.inputs];
                multiply(mix, x, Finish::Clamp, out);
            }
            Layer::Block(block) => block.apply(x, size, first, scratch, out),
        }
    });
}

impl Block {
    /// Makes the rows of its output from `first` on.
    fn apply(&self, x: &[f32], size: Size, first: usize, scratch: &mut Scratch, out: &mut [f32]) {
        let Self { expand, filter, project, residual } = self;
        let cols = size[1].div_ceil(filter.stride);
        let of_hidden = size[1] * filter.channels;
        let of_filtered = cols * filter.channels;
        let of_out = cols * project.outputs;
        let at_once = (PIXELS / (size[1] * filter.stride)).max(1);
        // Rows that are expanded already.
        let mut there: Range<usize> = 0..0;
        let starts = (first..).step_by(at_once);
        for (start, out) in starts.zip(out.chunks_mut(at_once * of_out)) {
            let rows = out.len() / of_out;
            // What these rows see: from `above` up to but without `below`.
            let above = (start * filter.stride).saturating_sub(1);
            let below = size[0].min((start + rows - 1) * filter.stride + 2);
            let hidden = match expand {
                Some(expand) => {
                    // The last ones are used again.
                    let kept = there.end.saturating_sub(above);
                    let last = (there.len() - kept) * of_hidden..there.len() * of_hidden;
                    scratch.hidden.copy_within(last, 0);
                    scratch.hidden.resize((below - above) * of_hidden, 0.0);
                    let of_row = size[1] * expand.inputs;
                    let x = &x[(above + kept) * of_row..below * of_row];
                    let new = &mut scratch.hidden[kept * of_hidden..];
                    multiply(expand, x, Finish::Clamp, new);
                    there = above..below;
                    &scratch.hidden[..]
                }
                None => &x[above * of_hidden..below * of_hidden],
            };
            scratch.filtered.resize(rows * of_filtered, 0.0);
            for (row, out) in (start..).zip(scratch.filtered.chunks_exact_mut(of_filtered)) {
                let lines = from_fn(|tap| {
                    let row = (row * filter.stride + tap).wrapping_sub(above + 1);
                    hidden.chunks_exact(of_hidden).nth(row).unwrap_or_default()
                });
                arch().dispatch(Convolve { filter, lines, out });
            }
            let finish = match residual {
                true => Finish::Add(&x[start * of_out..][..out.len()]),
                false => Finish::Keep,
            };
            multiply(project, &scratch.filtered, finish, out);
        }
    }
}

/// The 27 values below each pixel of a row of the stem, `[cols, 3, 3, 3]`.
fn patches(x: &[f32], [rows, cols]: Size, row: usize, out: &mut [f32]) {
    let mut padded = vec![0.0; cols + 2];
    for line in 0..9 {
        let index = (2 * row + line % 3).wrapping_sub(1);
        if index < rows {
            padded[1..=cols].copy_from_slice(&x[(line / 3 * rows + index) * cols..][..cols]);
        } else {
            padded.fill(0.0);
        }
        let values = padded.windows(3).step_by(2);
        for (out, values) in out.chunks_exact_mut(27).zip(values) {
            for (tap, &value) in values.iter().enumerate() {
                out[3 * line + tap] = value;
            }
        }
    }
}

/// What follows a product.
#[derive(Clone, Copy)]
enum Finish<'a> {
    Keep,
    /// ReLU6.
    Clamp,
    /// Plus these.
    Add(&'a [f32]),
}

/// `x · weightᵀ + bias` for the pixels of `x`.
fn multiply(mix: &Mix, x: &[f32], finish: Finish, out: &mut [f32]) {
    if !x.is_empty() {
        arch().dispatch(Multiply { mix, x, finish, out });
    }
}

/// A struct with a method, because that is what is compiled for each set of vector instructions.
struct Multiply<'a> {
    mix: &'a Mix,
    x: &'a [f32],
    finish: Finish<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mix, x, finish, out } = self;
        for start in (0..mix.outputs).step_by(2 * S::F32_LANES) {
            // As many sums as there are registers for.
            match (mix.outputs - start > S::F32_LANES, S::REGISTER_COUNT >= 32) {
                (true, true) => panel::<S, 8, 2>(simd, mix, start, x, finish, out),
                (true, false) => panel::<S, 4, 2>(simd, mix, start, x, finish, out),
                (false, _) => panel::<S, 8, 1>(simd, mix, start, x, finish, out),
            }
        }
    }
}

/// The outputs from `start` on that fit into so many vectors, for so many pixels at a time.
#[inline(always)]
fn panel<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    mix: &Mix,
    start: usize,
    x: &[f32],
    finish: Finish,
    out: &mut [f32],
) {
    let Mix { inputs, outputs, panels, bias } = mix;
    let width = VECTORS * S::F32_LANES;
    let (weights, _) = S::as_simd_f32s(&panels[start * inputs..][..width * inputs]);
    let (weights, _) = as_arrays::<VECTORS, _>(weights);
    let (bias, _) = S::as_simd_f32s(&bias[start..start + width]);
    let bias: [S::f32s; VECTORS] = from_fn(|vector| bias[vector]);
    let last = x.len() / inputs - 1;
    let mut lines = [x; ROWS];
    for first in (0..=last).step_by(ROWS) {
        for (row, line) in lines.iter_mut().enumerate() {
            // Where pixels run out, the last one comes again.
            *line = &x[last.min(first + row) * inputs..][..*inputs];
        }
        let sums = tile(simd, lines, weights, bias);
        for (row, sums) in sums.into_iter().enumerate() {
            let pixel = last.min(first + row) * outputs;
            for (vector, sum) in sums.into_iter().enumerate() {
                let from = start + vector * S::F32_LANES;
                let at = pixel + from..pixel + outputs.min(&(from + S::F32_LANES));
                let value = match finish {
                    Finish::Keep => sum,
                    Finish::Clamp => relu6(simd, sum),
                    Finish::Add(x) => simd.add_f32s(sum, load(simd, &x[at.clone()])),
                };
                store(simd, &mut out[at], value);
            }
        }
    }
}

/// At most one vector; zeros behind it. The instructions for parts of one are slower.
#[inline(always)]
fn load<S: Simd>(simd: S, values: &[f32]) -> S::f32s {
    match S::as_simd_f32s(values).0 {
        [vector] => *vector,
        _ => simd.partial_load_f32s(values),
    }
}

/// As many elements of a vector as there are `values`.
#[inline(always)]
fn store<S: Simd>(simd: S, values: &mut [f32], vector: S::f32s) {
    match S::as_mut_simd_f32s(values) {
        ([whole], _) => *whole = vector,
        (_, rest) => simd.partial_store_f32s(rest, vector),
    }
}

/// `bias + x · weights`; sums that stay in registers.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    x: [&[f32]; ROWS],
    weights: &[[S::f32s; VECTORS]],
    bias: [S::f32s; VECTORS],
) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [bias; ROWS];
    let mut x = x;
    x.iter_mut().for_each(|x| *x = &x[..weights.len()]);
    for (input, weights) in weights.iter().enumerate() {
        for row in 0..ROWS {
            let value = simd.splat_f32s(x[row][input]);
            for vector in 0..VECTORS {
                sums[row][vector] = simd.mul_add_e_f32s(value, weights[vector], sums[row][vector]);
            }
        }
    }
    sums
}

/// The filter and ReLU6 for one row.
struct Convolve<'a> {
    filter: &'a Filter,
    /// Above, at and below it; empty where there is none.
    lines: [&'a [f32]; 3],
    out: &'a mut [f32],
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { filter, lines, out } = self;
        let whole = filter.channels - filter.channels % S::F32_LANES;
        for start in (0..whole).step_by(S::F32_LANES) {
            convolve(simd, filter, lines, start, S::F32_LANES, out);
        }
        if whole < filter.channels {
            convolve(simd, filter, lines, whole, filter.channels - whole, out);
        }
    }
}

/// So many channels, at most a vector, from `start` on.
#[inline(always)]
fn convolve<S: Simd>(
    simd: S,
    filter: &Filter,
    lines: [&[f32]; 3],
    start: usize,
    width: usize,
    out: &mut [f32],
) {
    let Filter { channels, stride, taps, bias } = filter;
    let (taps, _) = S::as_simd_f32s(&taps[9 * start..][..9 * S::F32_LANES]);
    let (taps, _) = as_arrays::<3, _>(taps);
    let bias = load(simd, &bias[start..start + S::F32_LANES]);
    let zeros = simd.splat_f32s(0.0);
    // Beyond the edges there is nothing to get.
    let column = |from: usize| {
        lines.map(|line| match line.get(from..from.saturating_add(width)) {
            Some(values) => load(simd, values),
            None => zeros,
        })
    };
    let (mut left, mut middle) = ([zeros; 3], column(start));
    let mut next = start + channels;
    for out in out.chunks_exact_mut(*channels) {
        let right = column(next);
        let mut sum = bias;
        for row in 0..3 {
            sum = simd.mul_add_e_f32s(taps[row][0], left[row], sum);
            sum = simd.mul_add_e_f32s(taps[row][1], middle[row], sum);
            sum = simd.mul_add_e_f32s(taps[row][2], right[row], sum);
        }
        store(simd, &mut out[start..start + width], relu6(simd, sum));
        (left, middle) = match stride {
            1 => (middle, right),
            _ => (right, column(next + channels)),
        };
        next += stride * channels;
    }
}

/// Clamps from 0 to 6. The constants come first, for of two operands one of which is not a number x86
/// takes the second.
#[inline(always)]
fn relu6<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.min_f32s(simd.splat_f32s(6.0), simd.max_f32s(simd.splat_f32s(0.0), x))
}

/// Elements of a vector.
fn lanes() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    arch().dispatch(Lanes)
}
