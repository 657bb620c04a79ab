//! Products and attention of a few rows, on slices: in vector instructions and on threads.
//!
//! Decoding is bound by reading weights and memory once a token; a matrix product made for many rows
//! reads them in an order, or after a copy, that halves that rate or worse. Knows no tensors.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::elementwise::softmax;
use super::instructions::arch;
use super::product::{Order, Rows};

/// Columns of a product that one task sums, so that its sums stay in the first-level cache.
const TILE: usize = 384;

/// Parts that the sum over inputs is made of, however many threads there are.
const PARTS: usize = 4;

/// Multiplications below which threads cost more than they bring.
const WORTH_THREADS: usize = 1 << 17;

/// Rows of a matrix whose elements lie side by side; the rows need not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads<'a> {
    /// What holds the elements.
    pub data: &'a [f32],
    /// Where the first element lies.
    pub offset: usize,
    /// Distances of `[batch, heads, length]`.
    pub strides: [usize; 3],
    /// `[batch, heads, length, head_dim]`.
    pub dims: [usize; 4],
}

impl<'a> Heads<'a> {
    /// The rows of one head.
    pub(super) fn rows(&self, batch: usize, head: usize) -> Rows<'a> {
        let [by_batch, by_head, stride] = self.strides;
        let at = self.offset + batch * by_batch + head * by_head;
        Rows { data: &self.data[at..], stride }
    }

    fn row(&self, batch: usize, head: usize, index: usize) -> &'a [f32] {
        let [by_batch, by_head, by_row] = self.strides;
        let at = self.offset + batch * by_batch + head * by_head + index * by_row;
        &self.data[at..at + self.dims[3]]
    }
}

/// `x · weight + bias`: `x` is `[rows, inputs]`, the result `[rows, outputs]`, the same bits on any
/// number of threads.
pub(super) fn product(
    x: &[f32],
    inputs: usize,
    weight: &[f32],
    order: Order,
    bias: Option<&[f32]>,
    outputs: usize,
) -> Vec<f32> {
    let rows = x.len().checked_div(inputs).unwrap_or(0);
    let mut out = match bias {
        Some(bias) => bias.repeat(rows),
        None => vec![0.0; rows * outputs],
    };
    if out.is_empty() {
        return out;
    }
    let threads = rows * inputs * outputs >= WORTH_THREADS;
    let arch = arch();
    match order {
        Order::ByOutput => {
            let tiles = tiles(&mut out, outputs, TILE);
            each(threads, tiles, |(start, rows)| {
                arch.dispatch(Dots { x, inputs, weight, start, rows });
            });
        }
        Order::ByInput => {
            // Each task reads lines side by side, which is what memory is fastest at.
            let part = inputs.div_ceil(if threads { PARTS } else { 1 });
            let width = if rows <= 4 { 4 * TILE } else { TILE };
            let mut sums = vec![0.0; inputs.div_ceil(part) * out.len()];
            let tasks = sums.chunks_mut(out.len()).enumerate().flat_map(|(index, sums)| {
                let inputs = index * part..inputs.min((index + 1) * part);
                tiles(sums, outputs, width).into_iter().map(move |tile| (inputs.clone(), tile))
            });
            each(threads, tasks.collect(), |(part, (start, rows))| {
                arch.dispatch(Columns { x, inputs, part, weight, outputs, start, rows });
            });
            for sums in sums.chunks(out.len()) {
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            }
        }
    }
    out
}

/// Row `i`, of so many lines, becomes what row `rows[i]` was, as far as lines of some length are used.
pub(super) fn reorder(values: &mut [f32], rows: &[usize], [lines, length, used]: [usize; 3]) {
    let of_row = lines * length;
    let moved = || rows.iter().enumerate().filter(|&(to, &from)| to != from);
    let mut parts = Vec::with_capacity(moved().count() * lines * used);
    for (_, from) in moved() {
        let row = &values[from * of_row..][..of_row];
        row.chunks_exact(length.max(1)).for_each(|line| parts.extend_from_slice(&line[..used]));
    }
    let mut parts = parts.chunks_exact(used.max(1));
    for (to, _) in moved() {
        let row = &mut values[to * of_row..][..of_row];
        for (line, part) in row.chunks_exact_mut(length.max(1)).zip(&mut parts) {
            line[..used].copy_from_slice(part);
        }
    }
}

/// Runs a task on each of `items`.
fn each<T: Send>(threads: bool, items: Vec<T>, task: impl Fn(T) + Send + Sync) {
    if threads {
        items.into_par_iter().for_each(task);
    } else {
        items.into_iter().for_each(task);
    }
}

/// Columns side by side of a matrix with lines of `outputs`: the first, and its part of every line.
type Tile<'a> = (usize, Vec<&'a mut [f32]>);

fn tiles(matrix: &mut [f32], outputs: usize, width: usize) -> Vec<Tile<'_>> {
    let mut tiles: Vec<Tile> =
        (0..outputs.div_ceil(width)).map(|tile| (tile * width, Vec::new())).collect();
    for line in matrix.chunks_mut(outputs) {
        for ((_, lines), part) in tiles.iter_mut().zip(line.chunks_mut(width)) {
            lines.push(part);
        }
    }
    tiles
}

/// `softmax(query · keyᵀ · scale) · value`, `[batch, heads, queries, head_dim]`; every query sees
/// every key.
pub(super) fn attention(query: Heads, key: Heads, value: Heads, scale: f32) -> Vec<f32> {
    let [batch, heads, queries, head_dim] = query.dims;
    let mut out = vec![0.0; batch * heads * queries * head_dim];
    if out.is_empty() {
        return out;
    }
    let arch = arch();
    let attend = |(index, out): (usize, &mut [f32])| {
        let (batch, head) = (index / heads, index % heads);
        arch.dispatch(OneHead { query, key, value, scale, batch, head, out });
    };
    let chunk = queries * head_dim;
    if out.len() * key.dims[2] < WORTH_THREADS {
        out.chunks_mut(chunk).enumerate().for_each(attend);
    } else {
        out.par_chunks_mut(chunk).enumerate().for_each(attend);
    }
    out
}

/// Adds to each row's columns from `start` on their products with a matrix that lies by input. A
/// struct with a method, because that is what is compiled for each set of vector instructions.
struct Columns<'a> {
    x: &'a [f32],
    inputs: usize,
    /// The inputs to sum over.
    part: Range<usize>,
    weight: &'a [f32],
    outputs: usize,
    start: usize,
    rows: Vec<&'a mut [f32]>,
}

impl WithSimd for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, inputs, part, weight, outputs, start, mut rows } = self;
        let width = rows.first().map_or(0, |row| row.len());
        let line = |input: usize| &weight[input * outputs + start..][..width];
        let mut input = part.start;
        // Four at once, so that a sum is fetched and put back for every fourth product only.
        while input + 4 <= part.end {
            let lines = [line(input), line(input + 1), line(input + 2), line(input + 3)];
            for (x, row) in x.chunks_exact(inputs).zip(&mut rows) {
                add_four(simd, row, lines, &x[input..input + 4]);
            }
            input += 4;
        }
        for input in input..part.end {
            for (x, row) in x.chunks_exact(inputs).zip(&mut rows) {
                add_scaled(simd, row, line(input), x[input]);
            }
        }
    }
}

/// `row += x₀·line₀ + x₁·line₁ + x₂·line₂ + x₃·line₃`.
#[inline(always)]
fn add_four<S: Simd>(simd: S, row: &mut [f32], lines: [&[f32]; 4], x: &[f32]) {
    let [x0, x1, x2, x3] = [x[0], x[1], x[2], x[3]];
    let (sums, rest) = S::as_mut_simd_f32s(row);
    let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = lines.map(S::as_simd_f32s);
    let [y0, y1, y2, y3] = [x0, x1, x2, x3].map(|x| simd.splat_f32s(x));
    for ((((sum, &a), &b), &c), &d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        let first = simd.mul_add_e_f32s(y0, a, simd.mul_add_e_f32s(y1, b, *sum));
        *sum = simd.mul_add_e_f32s(y2, c, simd.mul_add_e_f32s(y3, d, first));
    }
    for ((((sum, a), b), c), d) in rest.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest).zip(d_rest) {
        *sum += x0 * a + x1 * b + x2 * c + x3 * d;
    }
}

/// `row += x · line`.
#[inline(always)]
fn add_scaled<S: Simd>(simd: S, row: &mut [f32], line: &[f32], x: f32) {
    let (sums, rest) = S::as_mut_simd_f32s(row);
    let (line, line_rest) = S::as_simd_f32s(line);
    let factor = simd.splat_f32s(x);
    for (sum, &value) in sums.iter_mut().zip(line) {
        *sum = simd.mul_add_e_f32s(factor, value, *sum);
    }
    for (sum, value) in rest.iter_mut().zip(line_rest) {
        *sum += x * value;
    }
}

/// Adds to each row's columns from `start` on their products with a matrix that lies by output.
struct Dots<'a> {
    x: &'a [f32],
    inputs: usize,
    weight: &'a [f32],
    start: usize,
    rows: Vec<&'a mut [f32]>,
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, inputs, weight, start, mut rows } = self;
        let width = rows.first().map_or(0, |row| row.len());
        for column in 0..width {
            let line = &weight[(start + column) * inputs..][..inputs];
            for (x, row) in x.chunks_exact(inputs).zip(&mut rows) {
                row[column] += dot(simd, x, line);
            }
        }
    }
}

/// The sum of products of two slices of one length.
#[inline(always)]
fn dot<S: Simd>(simd: S, left: &[f32], right: &[f32]) -> f32 {
    let (left, left_rest) = S::as_simd_f32s(left);
    let (right, right_rest) = S::as_simd_f32s(right);
    let zero = simd.splat_f32s(0.0);
    let (mut sum0, mut sum1, mut sum2, mut sum3) = (zero, zero, zero, zero);
    let (left, left_last) = pulp::as_arrays::<4, _>(left);
    let (right, right_last) = pulp::as_arrays::<4, _>(right);
    for (left, right) in left.iter().zip(right) {
        sum0 = simd.mul_add_e_f32s(left[0], right[0], sum0);
        sum1 = simd.mul_add_e_f32s(left[1], right[1], sum1);
        sum2 = simd.mul_add_e_f32s(left[2], right[2], sum2);
        sum3 = simd.mul_add_e_f32s(left[3], right[3], sum3);
    }
    for (&left, &right) in left_last.iter().zip(right_last) {
        sum0 = simd.mul_add_e_f32s(left, right, sum0);
    }
    let sum = simd.add_f32s(simd.add_f32s(sum0, sum1), simd.add_f32s(sum2, sum3));
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    simd.reduce_sum_f32s(sum) + rest
}

/// The queries of one head of one image.
struct OneHead<'a> {
    query: Heads<'a>,
    key: Heads<'a>,
    value: Heads<'a>,
    scale: f32,
    batch: usize,
    head: usize,
    /// `[queries, head_dim]`, zeros.
    out: &'a mut [f32],
}

impl WithSimd for OneHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { query, key, value, scale, batch, head, out } = self;
        let [_, _, queries, head_dim] = query.dims;
        let [_, _, length, _] = key.dims;
        let mut weights = vec![0.0; queries * length];
        for at in 0..length {
            let key = key.row(batch, head, at);
            for (index, weights) in weights.chunks_exact_mut(length).enumerate() {
                weights[at] = scale * dot(simd, query.row(batch, head, index), key);
            }
        }
        for weights in weights.chunks_exact_mut(length) {
            softmax(simd, weights);
        }
        for at in 0..length {
            let value = value.row(batch, head, at);
            for (weights, out) in weights.chunks_exact(length).zip(out.chunks_exact_mut(head_dim)) {
                add_scaled(simd, out, value, weights[at]);
            }
        }
    }
}
