//! MobileNetV2 without gradients, on slices whose channels lie side by side: block after block, each
//! for few enough pixels at a time that what it expands them to stays in the cache. Knows no tensors.
#![allow(
    clippy::needless_range_loop,
    reason = "a closure of an iterator would hold vector instructions apart from the function that has them"
)]

use std::array::from_fn;
use std::mem::swap;
use std::ops::Range;
use std::sync::Arc;

use pulp::{Simd, WithSimd, as_arrays, as_arrays_mut};
use rayon::prelude::*;

use super::filter::{Convolve, Filter};
use super::instructions::arch;
use super::product::strip;

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

pub(super) fn zero_padded(values: &[f32], length: usize) -> Vec<f32> {
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
                let made = rows * cols * layer.last().outputs;
                if index + 1 == layers.len() {
                    apply(layer, x, size, scratch, out);
                } else {
                    apply(layer, x, size, scratch, room(next, made));
                    swap(grid, next);
                }
                size = [rows, cols];
            }
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

/// Room for so many elements, which holds what was there before; a buffer that does not shrink is cleared
/// once only.
fn room(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
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
                    let lines = room(&mut scratch.hidden, 9 * padded(cols));
                    neighbours(x, size, row, lines);
                    arch().dispatch(Begin { mix, lines, out });
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
        // Rows that are seen at once. A row's place among them is what remains of its number, so that the
        // next ones see it where it is.
        let seen = (at_once - 1) * filter.stride + 3;
        let zeros = vec![0.0; filter.channels];
        // Up to where rows are expanded already.
        let mut expanded = 0;
        let starts = (first..).step_by(at_once);
        for (start, out) in starts.zip(out.chunks_mut(at_once * of_out)) {
            let rows = out.len() / of_out;
            // What these rows see: from `above` up to but without `below`.
            let above = (start * filter.stride).saturating_sub(1);
            let below = size[0].min((start + rows - 1) * filter.stride + 2);
            let (hidden, ring) = match expand {
                Some(expand) => {
                    let hidden = room(&mut scratch.hidden, seen * of_hidden);
                    expanded = expanded.max(above);
                    while expanded < below {
                        let place = expanded % seen;
                        let count = (below - expanded).min(seen - place);
                        let of_row = size[1] * expand.inputs;
                        let x = &x[expanded * of_row..][..count * of_row];
                        let hidden = &mut hidden[place * of_hidden..][..count * of_hidden];
                        multiply(expand, x, Finish::Clamp, hidden);
                        expanded += count;
                    }
                    (&*hidden, seen)
                }
                None => (x, size[0]),
            };
            let filtered = room(&mut scratch.filtered, rows * of_filtered);
            for (row, out) in (start..).zip(filtered.chunks_exact_mut(of_filtered)) {
                let lines = from_fn(|tap| match (row * filter.stride + tap).checked_sub(1) {
                    Some(row) if row < size[0] => &hidden[row % ring * of_hidden..][..of_hidden],
                    _ => Default::default(),
                });
                arch().dispatch(Convolve { filter, lines, zeros: &zeros, out });
            }
            let finish = match residual {
                true => Finish::Add(&x[start * of_out..][..out.len()]),
                false => Finish::Keep,
            };
            multiply(project, filtered, finish, out);
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

/// A struct with a method, because that is what is compiled for each set of vector instructions. What it
/// calls must be `inline(always)`, and no closure that a method of an array calls may hold such
/// instructions: it would be compiled without them.
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
                (true, true) => multiply_panel::<S, 12, 2>(simd, mix, start, x, finish, out),
                (true, false) => multiply_panel::<S, 6, 2>(simd, mix, start, x, finish, out),
                (false, _) => multiply_panel::<S, 12, 1>(simd, mix, start, x, finish, out),
            }
        }
    }
}

/// The outputs from `start` on that fit into so many vectors, for so many pixels at a time.
#[inline(always)]
fn multiply_panel<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    mix: &Mix,
    start: usize,
    x: &[f32],
    finish: Finish,
    out: &mut [f32],
) {
    let Mix { inputs, outputs, .. } = *mix;
    let (weights, bias) = mix.panel::<S, VECTORS>(start);
    let width = (outputs - start).min(VECTORS * S::F32_LANES);
    let last = x.len() / inputs - 1;
    let mut lines = [x; ROWS];
    let mut edge = [0.0; EDGE];
    for first in (0..=last).step_by(ROWS) {
        for (row, line) in lines.iter_mut().enumerate() {
            // Where pixels run out, the last one comes again.
            *line = &x[last.min(first + row) * inputs..][..inputs];
        }
        let sums = strip(simd, lines, weights, bias);
        let place = Place { first, columns: start..start + width, outputs, edge: &mut edge };
        put(simd, sums, finish, place, out);
    }
}

impl Mix {
    /// Weights and bias of the outputs from `start` on that so many vectors hold.
    #[inline(always)]
    fn panel<S: Simd, const VECTORS: usize>(
        &self,
        start: usize,
    ) -> (&[[S::f32s; VECTORS]], [S::f32s; VECTORS]) {
        let width = VECTORS * S::F32_LANES;
        let weights = S::as_simd_f32s(&self.panels[start * self.inputs..][..width * self.inputs]).0;
        let bias = S::as_simd_f32s(&self.bias[start..start + width]).0;
        (as_arrays(weights).0, as_arrays(bias).0[0])
    }
}

/// Where sums go: pixels from `first` on, and some columns of `outputs`.
struct Place<'a> {
    first: usize,
    columns: Range<usize>,
    outputs: usize,
    /// Scratch for what is not whole.
    edge: &'a mut [f32; EDGE],
}

/// Sums of pixels on their way out. Every loop over them is as long as the compiler knows, or they would
/// not stay in registers.
#[inline(always)]
fn put<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    sums: [[S::f32s; VECTORS]; ROWS],
    finish: Finish,
    place: Place,
    out: &mut [f32],
) {
    let Place { first, columns, outputs, edge } = place;
    let mut sums = sums;
    let width = VECTORS * S::F32_LANES;
    let at = first * outputs + columns.start;
    let whole = columns.len() == width && (first + ROWS) * outputs <= out.len();
    if let Finish::Clamp = finish {
        for row in 0..ROWS {
            for vector in 0..VECTORS {
                sums[row][vector] = relu6(simd, sums[row][vector]);
            }
        }
    }
    if let Finish::Add(x) = finish
        && whole
    {
        for row in 0..ROWS {
            let line = as_arrays(S::as_simd_f32s(&x[at + row * outputs..][..width]).0).0;
            let line: [S::f32s; VECTORS] = line[0];
            for vector in 0..VECTORS {
                sums[row][vector] = simd.add_f32s(sums[row][vector], line[vector]);
            }
        }
    }
    let (target, stride) = if whole { (&mut out[at..], outputs) } else { (&mut edge[..], width) };
    for row in 0..ROWS {
        let line = S::as_mut_simd_f32s(&mut target[row * stride..][..width]).0;
        as_arrays_mut(line).0[0] = sums[row];
    }
    if whole {
        return;
    }
    let lines = out[first * outputs..].chunks_exact_mut(outputs).zip(edge.chunks_exact(width));
    for (row, (line, sums)) in lines.take(ROWS).enumerate() {
        let line = &mut line[columns.clone()];
        line.copy_from_slice(&sums[..columns.len()]);
        if let Finish::Add(x) = finish {
            let x = &x[at + row * outputs..];
            line.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
    }
}

/// Pixels that are taken at once, at most.
const MOST_ROWS: usize = 12;

/// Elements of two vectors for each of so many pixels.
const EDGE: usize = MOST_ROWS * 2 * 16;

/// Elements of a row of the image with what lies beside it, for as many pixels as the stem takes.
fn padded(cols: usize) -> usize {
    2 * cols.next_multiple_of(MOST_ROWS) + 1
}

/// The rows of each channel that a row of the stem sees, `[3, 3, padded]`, with zeros around the image.
fn neighbours(x: &[f32], [rows, cols]: Size, row: usize, lines: &mut [f32]) {
    let length = lines.len() / 9;
    for (index, line) in lines.chunks_exact_mut(length).enumerate() {
        line.fill(0.0);
        let (channel, row) = (index / 3, (2 * row + index % 3).wrapping_sub(1));
        if row < rows {
            line[1..=cols].copy_from_slice(&x[(channel * rows + row) * cols..][..cols]);
        }
    }
}

/// The stem and ReLU6 for one row.
struct Begin<'a> {
    mix: &'a Mix,
    /// What [`neighbours`] made.
    lines: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Begin<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mix, lines, out } = self;
        for start in (0..mix.outputs).step_by(2 * S::F32_LANES) {
            match (mix.outputs - start > S::F32_LANES, S::REGISTER_COUNT >= 32) {
                (true, true) => begin_panel::<S, MOST_ROWS, 2>(simd, mix, start, lines, out),
                (true, false) => begin_panel::<S, 6, 2>(simd, mix, start, lines, out),
                (false, _) => begin_panel::<S, MOST_ROWS, 1>(simd, mix, start, lines, out),
            }
        }
    }
}

/// The outputs of the stem from `start` on that fit into so many vectors, for so many pixels at a time.
#[inline(always)]
fn begin_panel<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    mix: &Mix,
    start: usize,
    lines: &[f32],
    out: &mut [f32],
) {
    let outputs = mix.outputs;
    let (weights, bias) = mix.panel::<S, VECTORS>(start);
    let (weights, _) = as_arrays::<3, _>(weights);
    let width = (outputs - start).min(VECTORS * S::F32_LANES);
    let (length, pixels) = (lines.len() / 9, out.len() / outputs);
    let mut edge = [0.0; EDGE];
    for first in (0..pixels).step_by(ROWS) {
        let mut sums = [bias; ROWS];
        for (weights, line) in weights.iter().zip(lines.chunks_exact(length)) {
            let line = &line[2 * first..][..2 * ROWS + 1];
            for tap in 0..3 {
                for row in 0..ROWS {
                    let value = simd.splat_f32s(line[2 * row + tap]);
                    for vector in 0..VECTORS {
                        let weight = weights[tap][vector];
                        sums[row][vector] = simd.mul_add_e_f32s(value, weight, sums[row][vector]);
                    }
                }
            }
        }
        let place = Place { first, columns: start..start + width, outputs, edge: &mut edge };
        put(simd, sums, Finish::Clamp, place, out);
    }
}

/// Clamps from 0 to 6. The constants come first, for of two operands one of which is not a number x86
/// takes the second.
#[inline(always)]
pub(super) fn relu6<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.min_f32s(simd.splat_f32s(6.0), simd.max_f32s(simd.splat_f32s(0.0), x))
}

/// Elements of a vector.
pub(super) fn lanes() -> usize {
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
