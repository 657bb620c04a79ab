//! What changes a word's probability: hidden parts of the photo, a photo without content.

use super::InspectError;
use super::passes::Passes;
use super::relevance::RelevanceConfig;
use crate::model::EncoderConfig;

/// A rectangle of the grid, `[row, col, row, col]`, ends exclusive.
pub(super) type GridBox = [usize; 4];

/// What is done to a photo to see what a word rests on.
pub(super) enum Change {
    Blank,
    Blurred,
    Hidden(GridBox),
}

/// Replaces the pixels of a part of the grid by the mean colour of the model's training images, which
/// normalises to 0.
pub(super) fn hide(
    pixels: &mut [f32],
    encoder: &EncoderConfig,
    [top, left, bottom, right]: GridBox,
) {
    let (side, width) = (encoder.patch_size, encoder.image_width);
    for plane in pixels.chunks_mut(encoder.image_height * width) {
        for row in plane.chunks_mut(width).skip(top * side).take((bottom - top) * side) {
            row[left * side..right * side].fill(0.0);
        }
    }
}

/// The squares that occlusion hides one after the other. On fine grids they overlap by half.
pub(super) fn windows(rows: usize, cols: usize, side: usize) -> Vec<GridBox> {
    let starts = |length: usize| -> Vec<usize> {
        let side = side.clamp(1, length);
        let stride = if rows * cols > 200 { side.div_ceil(2) } else { 1 };
        let mut starts: Vec<usize> = (0..=length - side).step_by(stride).collect();
        if starts.last() != Some(&(length - side)) {
            starts.push(length - side);
        }
        starts
    };
    let (down, across) = (starts(rows), starts(cols));
    let (tall, wide) = (side.clamp(1, rows), side.clamp(1, cols));
    down.iter()
        .flat_map(|&top| across.iter().map(move |&left| [top, left, top + tall, left + wide]))
        .collect()
}

/// Photos that occlusion encodes.
pub fn occlusion_passes(encoder: &EncoderConfig, config: &RelevanceConfig) -> usize {
    let [rows, cols] = encoder.grid();
    windows(rows, cols, config.window).len()
}

/// For each word, given by its steps, and each cell: the mean fall of the word's log-probability over the
/// squares that hide the cell.
pub(super) fn occlusion(
    passes: &Passes<'_>,
    pixels: &[f32],
    before: &[f32],
    words: &[Vec<usize>],
    side: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f32>>, InspectError> {
    let encoder = &passes.checkpoint.model.config().encoder;
    let [rows, cols] = encoder.grid();
    let squares = windows(rows, cols, side);
    let hidden = passes.with_changes(
        pixels,
        &squares,
        |pixels, square| hide(pixels, encoder, *square),
        progress,
    )?;
    let each = words.iter().map(|steps| {
        let (mut falls, mut counts) = (vec![0.0; rows * cols], vec![0u32; rows * cols]);
        for ([top, left, bottom, right], after) in squares.iter().zip(&hidden) {
            let fall: f32 = steps.iter().map(|&step| before[step] - after[step]).sum();
            for row in *top..*bottom {
                for col in *left..*right {
                    falls[row * cols + col] += fall;
                    counts[row * cols + col] += 1;
                }
            }
        }
        falls.iter().zip(counts).map(|(fall, count)| fall / count as f32).collect()
    });
    Ok(each.collect())
}

/// Normalised pixels without detail: each the mean of the square around it, whose side is a sixth of the
/// image, twice.
pub(super) fn blurred(pixels: &[f32], encoder: &EncoderConfig) -> Vec<f32> {
    let (height, width) = (encoder.image_height, encoder.image_width);
    let mut out = pixels.to_vec();
    for plane in out.chunks_mut(height * width) {
        for _ in 0..2 {
            for row in plane.chunks_mut(width) {
                let line = smoothed(row, width / 12);
                row.copy_from_slice(&line);
            }
            for col in 0..width {
                let line: Vec<f32> = (0..height).map(|row| plane[row * width + col]).collect();
                let line = smoothed(&line, height / 12);
                (0..height).for_each(|row| plane[row * width + col] = line[row]);
            }
        }
    }
    out
}

/// The mean over `reach` values on either side, as far as there are any.
fn smoothed(line: &[f32], reach: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64];
    for value in line {
        sums.push(sums.last().copied().unwrap_or(0.0) + f64::from(*value));
    }
    (0..line.len())
        .map(|at| {
            let (from, to) = (at.saturating_sub(reach), (at + reach + 1).min(line.len()));
            ((sums[to] - sums[from]) / (to - from) as f64) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder() -> EncoderConfig {
        EncoderConfig { image_height: 4, image_width: 6, patch_size: 2, ..EncoderConfig::default() }
    }

    #[test]
    fn hiding_a_part_leaves_the_rest() {
        let mut pixels = vec![1.0; 3 * 24];
        hide(&mut pixels, &encoder(), [0, 1, 1, 3]);
        #[rustfmt::skip]
        let plane = [
            1.0, 1.0, 0.0, 0.0, 0.0, 0.0,
            1.0, 1.0, 0.0, 0.0, 0.0, 0.0,
            1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
            1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
        ];
        assert_eq!(pixels, plane.repeat(3));
    }

    #[test]
    fn squares_cover_every_cell() {
        for (rows, cols, side) in [(9, 9, 3), (24, 24, 3), (2, 5, 3), (1, 1, 4), (14, 15, 2)] {
            let mut counts = vec![0; rows * cols];
            for [top, left, bottom, right] in windows(rows, cols, side) {
                for row in top..bottom {
                    (left..right).for_each(|col| counts[row * cols + col] += 1);
                }
            }
            assert!(counts.iter().all(|count| *count > 0), "{rows}×{cols}, {side}: {counts:?}");
        }
        assert_eq!(windows(9, 9, 3).len(), 49);
        assert_eq!(windows(24, 24, 3).len(), 144);
    }

    #[test]
    fn a_blurred_photo_keeps_its_mean_and_loses_its_edges() {
        let encoder =
            EncoderConfig { image_height: 24, image_width: 24, ..EncoderConfig::default() };
        let checks: Vec<f32> = (0..3 * 576).map(|at| ((at + at / 24) % 2) as f32).collect();
        let out = blurred(&checks, &encoder);
        assert!(out.iter().all(|value| (value - 0.5).abs() < 0.1), "{out:?}");
        assert_eq!(blurred(&[0.25; 3 * 576], &encoder), [0.25; 3 * 576]);
    }
}
