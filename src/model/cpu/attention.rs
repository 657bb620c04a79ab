//! Attention of many queries on slices: a block of queries meets all keys while its scores stay in the
//! cache, so that no matrix of `[heads, queries, keys]` is ever made; queries, keys and values are read where
//! the projections wrote them, and results stand where the next projection reads them. Knows no tensors.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::elementwise::{exponentials, greatest, scale};
use super::few_rows::Heads;
use super::instructions::arch;
use super::product::{Rows, pack_by_input, pack_by_output, with_panels};

/// Queries of a block: a multiple of the rows of a strip (6 or 12).
const BLOCK: usize = 48;

/// Keys whose values pass at once: a panel of them stays in the first-level cache.
const KEYS: usize = 384;

/// `softmax(query · keyᵀ · scale) · value`, `[batch, queries, heads × head_dim]`. Where it is causal, query
/// `i` sees keys up to `keys − queries + i`. Beside it, for gradients, the logarithm of the sum of each
/// query's exponentials, `[batch, heads, queries]`. The same bits on any number of threads.
pub(super) fn attention(
    query: Heads,
    key: Heads,
    value: Heads,
    scale: f32,
    causal: bool,
) -> (Vec<f32>, Vec<f32>) {
    let [batch, heads, queries, head_dim] = query.dims;
    let mut out = vec![0.0; batch * heads * queries * head_dim];
    let mut logarithms = vec![0.0; batch * heads * queries];
    if out.is_empty() {
        return (out, logarithms);
    }
    let arch = arch();
    // A head's queries are shared out only where threads would have none.
    let parts = rayon::current_num_threads().div_ceil(batch * heads);
    let of_part = queries.div_ceil(parts).next_multiple_of(BLOCK);
    let parts = queries.div_ceil(of_part);
    let mut tasks: Vec<Vec<&mut [f32]>> =
        (0..batch * heads * parts).map(|_| Vec::with_capacity(of_part)).collect();
    for (index, line) in out.chunks_mut(head_dim).enumerate() {
        let (row, head) = (index / heads, index % heads);
        let (batch, part) = (row / queries, row % queries / of_part);
        tasks[(batch * heads + head) * parts + part].push(line);
    }
    let sums: Vec<_> =
        logarithms.chunks_mut(queries).flat_map(|sums| sums.chunks_mut(of_part)).collect();
    let tasks = tasks.into_par_iter().zip(sums).enumerate();
    tasks.for_each_init(Scratch::default, |scratch, (task, (lines, logarithms))| {
        let (head, first) = (task / parts, task % parts * of_part);
        let (batch, head) = (head / heads, head % heads);
        let part = Part {
            query,
            key,
            value,
            scale,
            causal,
            batch,
            head,
            first,
            scratch,
            lines,
            logarithms,
        };
        arch.dispatch(part);
    });
    (out, logarithms)
}

/// What a thread fills and empties again.
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[BLOCK, keys]`, rows padded to whole panels.
    scores: Vec<f32>,
}

/// Queries of one head of one image, from `first` on.
struct Part<'a, 'b> {
    query: Heads<'a>,
    key: Heads<'a>,
    value: Heads<'a>,
    scale: f32,
    causal: bool,
    batch: usize,
    head: usize,
    first: usize,
    scratch: &'b mut Scratch,
    /// A query's result each.
    lines: Vec<&'b mut [f32]>,
    logarithms: &'b mut [f32],
}

impl WithSimd for Part<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, 12>(simd);
        } else {
            self.run::<S, 6>(simd);
        }
    }
}

impl Part<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const STRIP: usize>(mut self, simd: S) {
        let [_, _, total, head_dim] = self.query.dims;
        let [_, _, length, _] = self.key.dims;
        let width = 2 * S::F32_LANES;
        let (padded, panels) = (length.next_multiple_of(width), head_dim.next_multiple_of(width));
        let Scratch { keys, values, scores } = &mut *self.scratch;
        keys.resize(padded * head_dim, 0.0);
        pack_by_output(self.key.rows(self.batch, self.head), length, head_dim, width, keys);
        // Values of so many keys at a time, panel by panel.
        values.resize(panels * length, 0.0);
        let of_values = self.value.rows(self.batch, self.head);
        for from in (0..length).step_by(KEYS) {
            let count = KEYS.min(length - from);
            let rows = Rows { data: &of_values.data[from * of_values.stride..], ..of_values };
            let part = &mut values[from * panels..(from + count) * panels];
            pack_by_input(simd, rows, head_dim, count, part);
        }
        scores.resize(BLOCK * padded, 0.0);
        let queries = self.query.rows(self.batch, self.head);
        let blocks = self.lines.chunks_mut(BLOCK).zip(self.logarithms.chunks_mut(BLOCK));
        for (block, (lines, logarithms)) in blocks.enumerate() {
            let first = self.first + block * BLOCK;
            let rows = lines.len();
            let row = |row: usize| queries.part(first + row, 0, head_dim);
            with_panels::<S, STRIP>(simd, rows, head_dim, keys, row, |first, at, sums| {
                let lines = scores[first * padded..].chunks_exact_mut(padded);
                for (line, sums) in lines.zip(&sums) {
                    let (line, _) = S::as_mut_simd_f32s(&mut line[at..at + width]);
                    line.copy_from_slice(sums);
                }
            });
            let mut shares = [0.0; BLOCK];
            for (row, scores) in scores.chunks_exact_mut(padded).take(rows).enumerate() {
                let seen = if self.causal { length - total + first + row + 1 } else { length };
                let (seen, hidden) = scores.split_at_mut(seen);
                let (most, sum) = weigh(simd, seen, self.scale);
                (shares[row], logarithms[row]) = (1.0 / sum, most + sum.ln());
                hidden.fill(0.0);
            }
            lines.iter_mut().for_each(|line| line.fill(0.0));
            for from in (0..length).step_by(KEYS) {
                let count = KEYS.min(length - from);
                let values = &values[from * panels..(from + count) * panels];
                let row = |row: usize| &scores[row * padded + from..][..count];
                with_panels::<S, STRIP>(simd, rows, count, values, row, |first, at, sums| {
                    for (line, sums) in lines[first..].iter_mut().zip(&sums) {
                        add_pair(simd, &mut line[at..], *sums);
                    }
                });
            }
            for (line, share) in lines.iter_mut().zip(shares) {
                scale(simd, line, share);
            }
        }
    }
}

/// Turns scores into `exp(scale · (scores − greatest))`; the greatest after scaling, and the sum.
#[inline(always)]
fn weigh<S: Simd>(simd: S, scores: &mut [f32], factor: f32) -> (f32, f32) {
    scale(simd, scores, factor);
    let most = greatest(simd, scores);
    (most, exponentials(simd, scores, most))
}

/// Adds two vectors, or what of them there is room for.
#[inline(always)]
pub(super) fn add_pair<S: Simd>(simd: S, line: &mut [f32], sums: [S::f32s; 2]) {
    let mut line = line;
    for sum in sums {
        let part = S::F32_LANES.min(line.len());
        let (now, rest) = line.split_at_mut(part);
        match S::as_mut_simd_f32s(now) {
            ([whole], _) => *whole = simd.add_f32s(*whole, sum),
            (_, now) => {
                let before = simd.partial_load_f32s(now);
                simd.partial_store_f32s(now, simd.add_f32s(before, sum));
            }
        }
        line = rest;
    }
}
