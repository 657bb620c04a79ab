//! The backward pass of attention on slices. A block of queries at a time: their weights are computed again
//! from scores and the logarithms that the forward pass kept (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>), so that nothing of `[heads, queries, keys]` is kept or made. Knows no
//! tensors.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::attention::add_pair;
use super::elementwise::exp;
use super::few_rows::Heads;
use super::instructions::arch;
use super::product::{Rows, pack_by_input, pack_by_output, with_panels};

/// Queries of a block.
const BLOCK: usize = 96;

/// What the forward pass read and left.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub query: Heads<'a>,
    pub key: Heads<'a>,
    pub value: Heads<'a>,
    pub scale: f32,
    pub causal: bool,
    /// `[batch, queries, heads × head_dim]`.
    pub out: &'a [f32],
    /// `[batch, heads, queries]`.
    pub logarithms: &'a [f32],
}

/// Gradients of queries, keys and values, `[batch, heads, …, head_dim]` each, from that of the result, which
/// lies as the result. The same bits on any number of threads.
pub(super) fn gradients(forward: Forward, of_out: &[f32]) -> [Vec<f32>; 3] {
    let [batch, heads, queries, head_dim] = forward.query.dims;
    let [_, _, length, _] = forward.key.dims;
    let (of_query, of_key) = (queries * head_dim, length * head_dim);
    let mut query = vec![0.0; batch * heads * of_query];
    let (mut key, mut value) =
        (vec![0.0; batch * heads * of_key], vec![0.0; batch * heads * of_key]);
    let arch = arch();
    let parts = query
        .par_chunks_mut(of_query.max(1))
        .zip(key.par_chunks_mut(of_key.max(1)))
        .zip(value.par_chunks_mut(of_key.max(1)));
    parts.enumerate().for_each_init(Scratch::default, |scratch, (index, ((query, key), value))| {
        let (batch, head) = (index / heads, index % heads);
        arch.dispatch(Head { forward, of_out, batch, head, scratch, query, key, value });
    });
    [query, key, value]
}

/// What a thread fills and empties again.
#[derive(Default)]
struct Scratch {
    packed: [Vec<f32>; 2],
    keys: Vec<f32>,
    /// `[keys, queries of the block]`.
    weights: Vec<f32>,
    slopes: Vec<f32>,
    /// `[queries of the block, keys]`.
    turned: Vec<f32>,
}

/// One head of one image.
struct Head<'a, 'b> {
    forward: Forward<'a>,
    of_out: &'a [f32],
    batch: usize,
    head: usize,
    scratch: &'b mut Scratch,
    query: &'b mut [f32],
    key: &'b mut [f32],
    value: &'b mut [f32],
}

impl WithSimd for Head<'_, '_> {
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

impl Head<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const STRIP: usize>(mut self, simd: S) {
        let [_, heads, total, head_dim] = self.forward.query.dims;
        let [_, _, length, _] = self.forward.key.dims;
        let width = 2 * S::F32_LANES;
        let panels = head_dim.next_multiple_of(width);
        let keys = self.forward.key.rows(self.batch, self.head);
        self.scratch.keys.resize(panels * length, 0.0);
        pack_by_input(simd, keys, head_dim, length, &mut self.scratch.keys);
        for first in (0..total).step_by(BLOCK) {
            let count = BLOCK.min(total - first);
            let padded = count.next_multiple_of(width);
            let queries = self.forward.query.rows(self.batch, self.head);
            let queries = Rows { data: &queries.data[first * queries.stride..], ..queries };
            let stride = heads * head_dim;
            let from = (self.batch * total + first) * stride + self.head * head_dim;
            let grads = Rows { data: &self.of_out[from..], stride };
            let out = Rows { data: &self.forward.out[from..], stride };
            self.slopes::<S, STRIP>(simd, first, count, padded, queries, grads, out);
            let Scratch { packed, keys, weights, slopes, turned } = &mut *self.scratch;
            for ((packed, rows), (of_queries, grad)) in packed
                .iter_mut()
                .zip([grads, queries])
                .zip([(&*weights, &mut *self.value), (&*slopes, &mut *self.key)])
            {
                packed.resize(panels * count, 0.0);
                pack_by_input(simd, rows, head_dim, count, packed);
                let row = |key: usize| &of_queries[key * padded..][..count];
                with_panels::<S, STRIP>(simd, length, count, packed, row, |key, at, sums| {
                    let lines = grad[key * head_dim..].chunks_exact_mut(head_dim);
                    for (line, sums) in lines.zip(&sums) {
                        add_pair(simd, &mut line[at..], *sums);
                    }
                });
            }
            turn(slopes, length, count, padded, turned);
            let grad = &mut self.query[first * head_dim..];
            let row = |query: usize| &turned[query * length..][..length];
            with_panels::<S, STRIP>(simd, count, length, keys, row, |query, at, sums| {
                let lines = grad[query * head_dim..count * head_dim].chunks_exact_mut(head_dim);
                for (line, sums) in lines.zip(&sums) {
                    add_pair(simd, &mut line[at..], *sums);
                }
            });
        }
    }

    /// Weights and gradients of scores of `count` queries from `first` on, `[keys, queries]`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "places and views of one block")]
    fn slopes<S: Simd, const STRIP: usize>(
        &mut self,
        simd: S,
        first: usize,
        count: usize,
        padded: usize,
        queries: Rows,
        grads: Rows,
        out: Rows,
    ) {
        let [_, heads, total, head_dim] = self.forward.query.dims;
        let [_, _, length, _] = self.forward.key.dims;
        let width = 2 * S::F32_LANES;
        let Scratch { packed, weights, slopes, .. } = &mut *self.scratch;
        let sides =
            [(queries, self.forward.key, &mut *weights), (grads, self.forward.value, slopes)];
        for (packed, (columns, rows, sums)) in packed.iter_mut().zip(sides) {
            packed.resize(padded * head_dim, 0.0);
            pack_by_output(columns, count, head_dim, width, packed);
            sums.resize(length * padded, 0.0);
            let rows = rows.rows(self.batch, self.head);
            let row = |key: usize| rows.part(key, 0, head_dim);
            with_panels::<S, STRIP>(simd, length, head_dim, packed, row, |key, at, strip| {
                for (line, pair) in sums[key * padded..].chunks_exact_mut(padded).zip(&strip) {
                    let (line, _) = S::as_mut_simd_f32s(&mut line[at..at + width]);
                    line.copy_from_slice(pair);
                }
            });
        }
        // Columns that fill up the last panel have no weight.
        let (mut logarithms, mut means) = ([f32::INFINITY; BLOCK + 64], [0.0; BLOCK + 64]);
        let from = (self.batch * heads + self.head) * total + first;
        logarithms[..count].copy_from_slice(&self.forward.logarithms[from..from + count]);
        for (query, mean) in means[..count].iter_mut().enumerate() {
            let (grad, out) = (grads.part(query, 0, head_dim), out.part(query, 0, head_dim));
            *mean = grad.iter().zip(out).map(|(grad, out)| grad * out).sum();
        }
        let (logarithms, means) = (&logarithms[..padded], &means[..padded]);
        let Scratch { weights, slopes, .. } = &mut *self.scratch;
        let lines = weights.chunks_exact_mut(padded).zip(slopes.chunks_exact_mut(padded));
        for (key, (weights, slopes)) in lines.take(length).enumerate() {
            differentiate(simd, self.forward.scale, logarithms, means, weights, slopes);
            if self.forward.causal {
                // Hidden from queries before its own place, which is counted from the end.
                let hidden = (key + total).saturating_sub(length + first).min(padded);
                weights[..hidden].fill(0.0);
                slopes[..hidden].fill(0.0);
            }
        }
    }
}

/// Turns scores into weights, and gradients of weights into those of scores.
#[inline(always)]
fn differentiate<S: Simd>(
    simd: S,
    scale: f32,
    logarithms: &[f32],
    means: &[f32],
    weights: &mut [f32],
    slopes: &mut [f32],
) {
    let (logarithms, _) = S::as_simd_f32s(logarithms);
    let (means, _) = S::as_simd_f32s(means);
    let (weights, _) = S::as_mut_simd_f32s(weights);
    let (slopes, _) = S::as_mut_simd_f32s(slopes);
    let scale = simd.splat_f32s(scale);
    let lines = weights.iter_mut().zip(slopes).zip(logarithms.iter().zip(means));
    for ((weight, slope), (&logarithm, &mean)) in lines {
        *weight = exp(simd, simd.sub_f32s(simd.mul_f32s(*weight, scale), logarithm));
        let beyond = simd.sub_f32s(*slope, mean);
        *slope = simd.mul_f32s(simd.mul_f32s(*weight, scale), beyond);
    }
}

/// `[rows, padded]` to `[columns, rows]`, in squares that stay in the cache.
fn turn(from: &[f32], rows: usize, columns: usize, padded: usize, to: &mut Vec<f32>) {
    to.resize(columns * rows, 0.0);
    for square in (0..rows).step_by(16) {
        let end = rows.min(square + 16);
        for column in 0..columns {
            for row in square..end {
                to[column * rows + row] = from[row * padded + column];
            }
        }
    }
}
