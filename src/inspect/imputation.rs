//! Parts of a photo filled from what surrounds them. Knows pixels only.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Standard deviation of the noise, in units of normalised pixels.
const NOISE: f32 = 0.01;
/// What a pixel takes from each of the four beside it, and from each of the four at its corners.
const BESIDE: f32 = 1.0 / 6.0;
const AT_CORNER: f32 = 1.0 / 12.0;

/// A grid of square patches over an image of normalised pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PatchGrid {
    pub rows: usize,
    pub cols: usize,
    /// Pixels on a side of a patch.
    pub side: usize,
}

/// Noisy linear imputation (Rong et al. 2022, <https://arxiv.org/abs/2202.00449>): each pixel of the patches
/// that are `gone` becomes the weighted mean of its eight neighbours, all at once, and a little noise. Unlike
/// a mean colour, what is left does not tell by its outline what was there.
///
/// The linear system is solved from coarse to fine, to about a thousandth of the range of values.
pub(super) fn impute(pixels: &mut [f32], grid: PatchGrid, gone: &[bool], seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let size = grid.rows * grid.cols * grid.side * grid.side;
    for plane in pixels.chunks_mut(size) {
        solve(plane, grid, gone);
        for row in 0..grid.rows * grid.side {
            for col in 0..grid.cols * grid.side {
                if gone[row / grid.side * grid.cols + col / grid.side] {
                    plane[row * grid.cols * grid.side + col] += NOISE * normal(&mut random);
                }
            }
        }
    }
}

/// A draw from the standard normal distribution (Box & Muller 1958).
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let (radius, angle): (f32, f32) = (random.random(), random.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}

/// Solves the system for one plane, with the solution of half its size to start from.
fn solve(plane: &mut [f32], grid: PatchGrid, gone: &[bool]) {
    if grid.side > 1 && grid.side.is_multiple_of(2) {
        let half = PatchGrid { side: grid.side / 2, ..grid };
        let mut small = halved(plane, grid);
        solve(&mut small, half, gone);
        let (width, half_width) = (grid.cols * grid.side, half.cols * half.side);
        for (row, line) in plane.chunks_mut(width).enumerate() {
            for (col, value) in line.iter_mut().enumerate() {
                if gone[row / grid.side * grid.cols + col / grid.side] {
                    *value = small[row / 2 * half_width + col / 2];
                }
            }
        }
        relax(plane, grid, gone, 20, 1.7);
        return;
    }
    // The coarsest: from the mean of what is left, with the factor that is best for a square (Young 1954).
    let length = (grid.rows.max(grid.cols) * grid.side) as f32;
    let (mut sum, mut count) = (0.0f64, 0usize);
    let width = grid.cols * grid.side;
    let is_gone = |at: usize| gone[at / width / grid.side * grid.cols + at % width / grid.side];
    for (_, value) in plane.iter().enumerate().filter(|(at, _)| !is_gone(*at)) {
        sum += f64::from(*value);
        count += 1;
    }
    let mean = if count > 0 { (sum / count as f64) as f32 } else { 0.0 };
    for (_, value) in plane.iter_mut().enumerate().filter(|(at, _)| is_gone(*at)) {
        *value = mean;
    }
    if count > 0 {
        let factor = 2.0 / (1.0 + (std::f32::consts::PI / (length + 1.0)).sin());
        relax(plane, grid, gone, 3 * length as usize, factor);
    }
}

/// The mean of each square of four pixels.
fn halved(plane: &[f32], grid: PatchGrid) -> Vec<f32> {
    let width = grid.cols * grid.side;
    let rows = plane.chunks(2 * width);
    let each = rows.flat_map(|two| {
        let (upper, lower) = two.split_at(width);
        (0..width / 2).map(move |col| {
            (upper[2 * col] + upper[2 * col + 1] + lower[2 * col] + lower[2 * col + 1]) / 4.0
        })
    });
    each.collect()
}

/// Sweeps of successive over-relaxation over the pixels that are gone.
fn relax(plane: &mut [f32], grid: PatchGrid, gone: &[bool], sweeps: usize, factor: f32) {
    let (height, width) = (grid.rows * grid.side, grid.cols * grid.side);
    for _ in 0..sweeps {
        for row in 0..height {
            for patch in 0..grid.cols {
                if !gone[row / grid.side * grid.cols + patch] {
                    continue;
                }
                for col in patch * grid.side..(patch + 1) * grid.side {
                    let at = row * width + col;
                    let mean = neighbourhood(plane, row, col, height, width);
                    plane[at] += factor * (mean - plane[at]);
                }
            }
        }
    }
}

/// The weighted mean of the neighbours within the image.
fn neighbourhood(plane: &[f32], row: usize, col: usize, height: usize, width: usize) -> f32 {
    let at = row * width + col;
    if row > 0 && row + 1 < height && col > 0 && col + 1 < width {
        let beside = plane[at - 1] + plane[at + 1] + plane[at - width] + plane[at + width];
        let corners = plane[at - width - 1]
            + plane[at - width + 1]
            + plane[at + width - 1]
            + plane[at + width + 1];
        return BESIDE * beside + AT_CORNER * corners;
    }
    let (mut sum, mut weights) = (0.0, 0.0);
    for other_row in row.saturating_sub(1)..(row + 2).min(height) {
        for other_col in col.saturating_sub(1)..(col + 2).min(width) {
            let weight = match (other_row == row, other_col == col) {
                (true, true) => continue,
                (false, false) => AT_CORNER,
                _ => BESIDE,
            };
            sum += weight * plane[other_row * width + other_col];
            weights += weight;
        }
    }
    if weights > 0.0 { sum / weights } else { plane[at] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: PatchGrid = PatchGrid { rows: 5, cols: 4, side: 8 };

    fn picture(grid: PatchGrid) -> Vec<f32> {
        let width = grid.cols * grid.side;
        let size = grid.rows * grid.side * width;
        (0..size)
            .map(|at| ((at / width) as f32 * 0.11).sin() + (at % width) as f32 / 40.0)
            .collect()
    }

    #[test]
    fn what_is_left_is_left_alone_and_the_rest_is_the_mean_of_its_neighbours() {
        let mut gone = vec![false; 20];
        for patch in [0, 1, 5, 6, 9, 10, 14, 19] {
            gone[patch] = true;
        }
        let before = picture(GRID);
        let mut exact = before.clone();
        relax(&mut exact, GRID, &gone, 600, 1.7);
        let mut found = before.clone();
        solve(&mut found, GRID, &gone);
        for at in 0..before.len() {
            let (row, col) = (at / 32, at % 32);
            match gone[row / 8 * 4 + col / 8] {
                true => {
                    let apart = (found[at] - exact[at]).abs();
                    assert!(apart < 0.004, "{row}, {col}: {} {}", found[at], exact[at]);
                    let mean = neighbourhood(&exact, row, col, 40, 32);
                    assert!((exact[at] - mean).abs() < 1e-4, "{row}, {col}");
                }
                false => assert_eq!(found[at], before[at]),
            }
        }
    }

    #[test]
    fn a_slope_goes_on_through_a_hole() {
        let grid = PatchGrid { rows: 3, cols: 3, side: 4 };
        let slope: Vec<f32> = (0..144).map(|at| (at % 12) as f32 / 12.0).collect();
        let mut gone = vec![false; 9];
        gone[4] = true;
        let mut found = slope.clone();
        impute(&mut found, grid, &gone, 1);
        for (found, expected) in found.iter().zip(&slope) {
            assert!((found - expected).abs() < 0.06, "{found} {expected}");
        }
        assert_ne!(found, slope);
        let mut again = slope.clone();
        impute(&mut again, grid, &gone, 1);
        assert_eq!(again, found);
    }

    #[test]
    fn nothing_left_is_the_mean_colour() {
        let mut found = picture(PatchGrid { rows: 2, cols: 2, side: 3 });
        impute(&mut found, PatchGrid { rows: 2, cols: 2, side: 3 }, &[true; 4], 0);
        assert!(found.iter().all(|value| value.abs() < 0.1), "{found:?}");
    }
}
