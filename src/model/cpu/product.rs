//! Products of many rows with a matrix, on slices: blocks of the matrix are put in order once and stay in
//! the cache while all rows pass; what follows a product (bias, GELU, a residual) is done to sums on their
//! way out. Knows no tensors.
//!
//! | name    | meaning                                                              |
//! |---------|----------------------------------------------------------------------|
//! | panel   | columns of the matrix as wide as two vectors, input by input         |
//! | strip   | rows that are multiplied with a panel at once, sums in registers     |
//! | block   | inputs whose panels fit into the caches; sums go out after each      |

use pulp::{Simd, WithSimd, as_arrays, as_arrays_mut};
use rayon::prelude::*;

use super::elementwise::gelu_of;
use super::instructions::arch;

/// Inputs of a block: a panel of that many takes most of the first-level cache.
const BLOCK: usize = 384;

/// Columns that one task takes, so that its panels stay in the second-level cache.
const COLUMNS: usize = 192;

/// Rows that pass by the panels of a task before the next panel is fetched.
const ROWS: usize = 96;

/// A matrix of rows whose elements lie side by side; the rows need not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn part(&self, row: usize, from: usize, length: usize) -> &'a [f32] {
        &self.data[row * self.stride + from..][..length]
    }
}

/// How the matrix of `inputs` × `outputs` lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `[inputs, outputs]`, row by row.
    ByInput,
    /// `[outputs, inputs]`, row by row.
    ByOutput,
}

/// What is multiplied with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    pub data: &'a [f32],
    pub order: Order,
    pub inputs: usize,
    pub outputs: usize,
    pub bias: Option<&'a [f32]>,
    /// The same in order, where it is there.
    pub panels: Option<&'a Panels>,
}

/// A matrix in the order in which a product reads it, block by block of inputs.
#[derive(Debug)]
pub(in crate::model) struct Panels {
    data: Vec<f32>,
    /// Columns with those that fill up the last panel.
    padded: usize,
}

impl Panels {
    pub(super) fn new(matrix: &Matrix) -> Self {
        arch().dispatch(Pack { matrix })
    }

    /// Panels of columns from `start` on, for `length` inputs from `from` on.
    fn part(&self, start: usize, columns: usize, from: usize, length: usize) -> &[f32] {
        &self.data[self.padded * from + start * length..][..columns * length]
    }
}

struct Pack<'a> {
    matrix: &'a Matrix<'a>,
}

impl WithSimd for Pack<'_> {
    type Output = Panels;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Panels {
        let Matrix { inputs, outputs, .. } = *self.matrix;
        let padded = outputs.next_multiple_of(2 * S::F32_LANES);
        let mut data = vec![0.0; padded * inputs];
        for from in (0..inputs).step_by(BLOCK) {
            let length = BLOCK.min(inputs - from);
            let panels = &mut data[padded * from..][..padded * length];
            pack(simd, self.matrix, 0, outputs, from, length, panels);
        }
        Panels { data, padded }
    }
}

/// What is done to each sum.
#[derive(Clone, Copy, Debug)]
pub(super) enum Finish<'a> {
    Keep,
    /// GELU with the error function.
    Gelu,
    /// Plus these, `[rows, outputs]` as they lie.
    Add(&'a [f32]),
}

/// `finish(x · matrix + bias)` for `rows` rows of `x`, `[rows, outputs]`; the same bits on any number of
/// threads, and for a row whatever rows stand beside it.
pub(super) fn product(x: Rows, rows: usize, matrix: &Matrix, finish: Finish) -> Vec<f32> {
    let outputs = matrix.outputs;
    let mut out = vec![0.0; rows * outputs];
    if out.is_empty() {
        return out;
    }
    // As many parts of the rows as threads would wait for columns.
    let threads = rayon::current_num_threads();
    let columns = outputs.div_ceil(COLUMNS);
    let parts = if columns >= threads { 1 } else { threads.div_ceil(columns) };
    let of_part = rows.div_ceil(parts).max(ROWS);
    let arch = arch();
    out.par_chunks_mut(of_part * outputs).enumerate().for_each(|(part, out)| {
        let first = part * of_part;
        tiles(out, outputs).into_par_iter().for_each_init(
            Default::default,
            |(panels, strips), (start, lines)| {
                arch.dispatch(Task { x, first, matrix, finish, start, panels, strips, lines });
            },
        );
    });
    out
}

/// Columns side by side of rows of `outputs`: the first, and its part of every row.
type Tile<'a> = (usize, Vec<&'a mut [f32]>);

fn tiles(out: &mut [f32], outputs: usize) -> Vec<Tile<'_>> {
    let rows = out.len() / outputs;
    let mut tiles: Vec<Tile> = (0..outputs.div_ceil(COLUMNS))
        .map(|tile| (tile * COLUMNS, Vec::with_capacity(rows)))
        .collect();
    for line in out.chunks_mut(outputs) {
        for ((_, lines), part) in tiles.iter_mut().zip(line.chunks_mut(COLUMNS)) {
            lines.push(part);
        }
    }
    tiles
}

/// The columns from `start` on, for the rows of `x` from `first` on.
struct Task<'a, 'b> {
    x: Rows<'a>,
    first: usize,
    matrix: &'a Matrix<'a>,
    finish: Finish<'a>,
    start: usize,
    /// Scratch.
    panels: &'b mut Vec<f32>,
    strips: &'b mut Vec<f32>,
    lines: Vec<&'b mut [f32]>,
}

impl WithSimd for Task<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums as there are registers for, with two for the panel and one for the row.
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, 12>(simd);
        } else {
            self.run::<S, 6>(simd);
        }
    }
}

impl Task<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const STRIP: usize>(mut self, simd: S) {
        let Matrix { inputs, .. } = *self.matrix;
        let width = 2 * S::F32_LANES;
        let columns = self.lines.first().map_or(0, |line| line.len());
        for from in (0..inputs.max(1)).step_by(BLOCK) {
            let length = BLOCK.min(inputs - from);
            let padded = columns.next_multiple_of(width);
            let panels = match self.matrix.panels {
                Some(panels) => panels.part(self.start, padded, from, length),
                None => {
                    self.panels.resize(padded * length, 0.0);
                    pack(simd, self.matrix, self.start, columns, from, length, self.panels);
                    &*self.panels
                }
            };
            let last = from + length == inputs;
            for block in (0..self.lines.len()).step_by(ROWS) {
                let lines = &mut self.lines[block..];
                let rows = lines.len().min(ROWS);
                let first = self.first + block;
                let (x, matrix, finish, start) = (self.x, self.matrix, self.finish, self.start);
                // What lies side by side already needs no copy.
                let strips = if x.stride == length {
                    &x.data[first * length..]
                } else {
                    self.strips.resize(rows * length, 0.0);
                    for (row, strip) in self.strips.chunks_exact_mut(length.max(1)).enumerate() {
                        strip.copy_from_slice(x.part(first + row, from, length));
                    }
                    &*self.strips
                };
                let row = |row: usize| &strips[row * length..][..length];
                with_panels::<S, STRIP>(simd, rows, length, panels, row, |row, at, sums| {
                    for (row, sums) in (row..rows).zip(&sums) {
                        let ending = Ending {
                            matrix,
                            finish,
                            column: start + at,
                            row: first + row,
                            is_first: from == 0,
                            is_last: last,
                        };
                        let line = &mut lines[row][at..columns.min(at + width)];
                        if line.len() == width {
                            ending.whole(simd, line, *sums);
                        } else {
                            ending.partial(simd, line, *sums);
                        }
                    }
                });
            }
        }
    }
}

/// How sums leave the registers.
struct Ending<'a> {
    matrix: &'a Matrix<'a>,
    finish: Finish<'a>,
    column: usize,
    row: usize,
    is_first: bool,
    is_last: bool,
}

impl Ending<'_> {
    #[inline(always)]
    fn whole<S: Simd>(&self, simd: S, line: &mut [f32], sums: [S::f32s; 2]) {
        let width = line.len();
        let (line, _) = S::as_mut_simd_f32s(line);
        let (line, _) = as_arrays_mut::<2, _>(line);
        let pair = |values: &[f32]| -> [S::f32s; 2] {
            let (vectors, _) = S::as_simd_f32s(&values[..width]);
            [vectors[0], vectors[1]]
        };
        // Closures that array methods call would be compiled without vector instructions.
        let add = |a: [S::f32s; 2], b: [S::f32s; 2]| {
            [simd.add_f32s(a[0], b[0]), simd.add_f32s(a[1], b[1])]
        };
        let mut sums = sums;
        if !self.is_first {
            sums = add(line[0], sums);
        } else if let Some(bias) = self.matrix.bias {
            sums = add(pair(&bias[self.column..]), sums);
        }
        if self.is_last {
            sums = match self.finish {
                Finish::Keep => sums,
                Finish::Gelu => [gelu_of(simd, sums[0]), gelu_of(simd, sums[1])],
                Finish::Add(other) => {
                    add(pair(&other[self.row * self.matrix.outputs + self.column..]), sums)
                }
            };
        }
        line[0] = sums;
    }

    #[inline(always)]
    fn partial<S: Simd>(&self, simd: S, line: &mut [f32], sums: [S::f32s; 2]) {
        let width = line.len();
        let mut at = 0;
        for mut sum in sums {
            let part = S::F32_LANES.min(width - at);
            let load = |values: &[f32]| simd.partial_load_f32s(&values[at..at + part]);
            if !self.is_first {
                sum = simd.add_f32s(load(line), sum);
            } else if let Some(bias) = self.matrix.bias {
                sum = simd.add_f32s(load(&bias[self.column..]), sum);
            }
            if self.is_last {
                sum = match self.finish {
                    Finish::Keep => sum,
                    Finish::Gelu => gelu_of(simd, sum),
                    Finish::Add(other) => {
                        let other = &other[self.row * self.matrix.outputs + self.column..];
                        simd.add_f32s(load(other), sum)
                    }
                };
            }
            simd.partial_store_f32s(&mut line[at..at + part], sum);
            at += part;
        }
    }
}

/// `start + x · weights` of a strip of rows and a panel.
#[inline(always)]
pub(super) fn strip<S: Simd, const STRIP: usize, const VECTORS: usize>(
    simd: S,
    x: [&[f32]; STRIP],
    weights: &[[S::f32s; VECTORS]],
    start: [S::f32s; VECTORS],
) -> [[S::f32s; VECTORS]; STRIP] {
    let mut sums = [start; STRIP];
    // What is known of lengths here is not asked in the loop.
    let mut x = x;
    x.iter_mut().for_each(|x| *x = &x[..weights.len()]);
    for (input, weights) in weights.iter().enumerate() {
        for row in 0..STRIP {
            let value = simd.splat_f32s(x[row][input]);
            for vector in 0..VECTORS {
                sums[row][vector] = simd.mul_add_e_f32s(value, weights[vector], sums[row][vector]);
            }
        }
    }
    sums
}

/// Products of `rows` rows of `inputs` elements, which `row` gives, with panels: `put` takes those of a strip
/// of rows from one on with the columns of two vectors from a column on; where rows run out, those of the
/// last one come again.
#[inline(always)]
pub(super) fn with_panels<'x, S: Simd, const STRIP: usize>(
    simd: S,
    rows: usize,
    inputs: usize,
    panels: &[f32],
    row: impl Fn(usize) -> &'x [f32],
    mut put: impl FnMut(usize, usize, [[S::f32s; 2]; STRIP]),
) {
    let width = 2 * S::F32_LANES;
    let zeros = [simd.splat_f32s(0.0); 2];
    for (index, panel) in panels.chunks_exact(width * inputs.max(1)).enumerate() {
        let (weights, _) = S::as_simd_f32s(panel);
        let (weights, _) = as_arrays::<2, _>(weights);
        for first in (0..rows).step_by(STRIP) {
            // Where rows run out, the last one comes again.
            let mut x = [row(first); STRIP];
            for (line, x) in x.iter_mut().enumerate() {
                *x = row((rows - 1).min(first + line));
            }
            let sums = strip(simd, x, weights, zeros);
            put(first, index * width, sums);
        }
    }
}

/// Puts `columns` columns from `start` on and `length` inputs from `from` on in panels of `width`; zeros
/// fill the last.
#[inline(always)]
fn pack<S: Simd>(
    simd: S,
    matrix: &Matrix,
    start: usize,
    columns: usize,
    from: usize,
    length: usize,
    panels: &mut [f32],
) {
    let Matrix { data, order, inputs, outputs, .. } = *matrix;
    match order {
        Order::ByInput => {
            let part = Rows { data: &data[from * outputs + start..], stride: outputs };
            pack_by_input(simd, part, columns, length, panels);
        }
        Order::ByOutput => {
            let part = Rows { data: &data[start * inputs + from..], stride: inputs };
            pack_by_output(part, columns, length, 2 * S::F32_LANES, panels);
        }
    }
}

/// Panels of a matrix whose rows are inputs.
#[inline(always)]
pub(super) fn pack_by_input<S: Simd>(
    simd: S,
    rows: Rows,
    columns: usize,
    length: usize,
    panels: &mut [f32],
) {
    let width = 2 * S::F32_LANES;
    clear_last(columns, length, width, panels);
    let (vectors, _) = S::as_mut_simd_f32s(panels);
    let (vectors, _) = as_arrays_mut::<2, _>(vectors);
    let whole = columns / width;
    for input in 0..length {
        let line = rows.part(input, 0, columns);
        let (line, rest) = line.split_at(whole * width);
        let (line, _) = S::as_simd_f32s(line);
        let (line, _) = as_arrays::<2, _>(line);
        for (panel, pair) in line.iter().enumerate() {
            vectors[panel * length + input] = *pair;
        }
        if !rest.is_empty() {
            let (first, second) = rest.split_at(rest.len().min(S::F32_LANES));
            vectors[whole * length + input] =
                [simd.partial_load_f32s(first), simd.partial_load_f32s(second)];
        }
    }
}

/// Panels of a matrix whose rows are outputs, in squares that are read and written a line of the cache at
/// a time.
pub(super) fn pack_by_output(
    rows: Rows,
    columns: usize,
    length: usize,
    width: usize,
    panels: &mut [f32],
) {
    clear_last(columns, length, width, panels);
    for square in (0..length).step_by(16) {
        let end = length.min(square + 16);
        for column in 0..columns {
            let line = rows.part(column, square, end - square);
            let base = column / width * length * width + column % width;
            for (input, &value) in (square..end).zip(line) {
                panels[base + input * width] = value;
            }
        }
    }
}

fn clear_last(columns: usize, length: usize, width: usize, panels: &mut [f32]) {
    if !columns.is_multiple_of(width) {
        panels[columns / width * width * length..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|index| (index * step % 23) as f32 / 11.0 - 1.0).collect()
    }

    fn expected(x: Rows, rows: usize, matrix: &Matrix) -> Vec<f64> {
        let Matrix { data, order, inputs, outputs, bias, .. } = *matrix;
        let mut out = Vec::new();
        for row in 0..rows {
            for column in 0..outputs {
                let weight = |input: usize| match order {
                    Order::ByInput => data[input * outputs + column],
                    Order::ByOutput => data[column * inputs + input],
                };
                let row = x.part(row, 0, inputs);
                let sum: f64 =
                    (0..inputs).map(|input| f64::from(row[input]) * f64::from(weight(input))).sum();
                out.push(sum + bias.map_or(0.0, |bias| f64::from(bias[column])));
            }
        }
        out
    }

    #[test]
    fn products_of_any_shape_are_right_in_both_orders() {
        for (rows, inputs, outputs) in
            [(1, 1, 1), (7, 5, 3), (13, 400, 97), (100, 769, 33), (205, 64, 256), (6, 384, 96)]
        {
            let stride = inputs + 3;
            let data = values(rows * stride, 7);
            let x = Rows { data: &data, stride };
            let (weight, bias) = (values(inputs * outputs, 5), values(outputs, 3));
            for order in [Order::ByInput, Order::ByOutput] {
                let matrix = Matrix {
                    data: &weight,
                    order,
                    inputs,
                    outputs,
                    bias: Some(&bias),
                    panels: None,
                };
                let exact = expected(x, rows, &matrix);
                let ours = product(x, rows, &matrix, Finish::Keep);
                let other = values(rows * outputs, 2);
                let sums = product(x, rows, &matrix, Finish::Add(&other));
                for (index, exact) in exact.iter().enumerate() {
                    let apart = (f64::from(ours[index]) - exact).abs();
                    assert!(apart < 1e-5 * inputs as f64, "{rows} {inputs} {outputs}: {apart}");
                    assert_eq!(sums[index], other[index] + ours[index]);
                }
                let mut after = ours.clone();
                super::super::elementwise::gelu(&mut after);
                assert_eq!(product(x, rows, &matrix, Finish::Gelu), after);
                let panels = Panels::new(&matrix);
                let matrix = Matrix { panels: Some(&panels), ..matrix };
                assert_eq!(product(x, rows, &matrix, Finish::Keep), ours);
            }
        }
    }

    #[test]
    fn neither_threads_nor_other_rows_change_a_bit() {
        let (rows, inputs, outputs) = (211, 500, 200);
        let (data, weight) = (values(rows * inputs, 7), values(inputs * outputs, 5));
        let matrix = Matrix {
            data: &weight,
            order: Order::ByInput,
            inputs,
            outputs,
            bias: None,
            panels: None,
        };
        let on = |threads: usize, rows: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let x = Rows { data: &data, stride: inputs };
            pool.install(|| product(x, rows, &matrix, Finish::Keep))
        };
        let all = on(1, rows);
        assert_eq!(all, on(7, rows));
        assert_eq!(all[..17 * outputs], on(2, 17));
    }
}
