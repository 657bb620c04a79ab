//! Learned patch positions for another grid.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

/// Coefficient of the cubic, as in `torch.nn.functional.interpolate(mode="bicubic")`.
const A: f64 = -0.75;

/// A position table for a grid of other `[rows, columns]`: bicubic, not antialiased, edges
/// repeated, as `interpolate_pos_encoding` of transformers; the first `prefix` rows stay as they
/// are.
///
/// # Shapes
/// `[prefix + from rows × columns, d_model]` to `[prefix + to rows × columns, d_model]`.
pub(super) fn resized(
    table: Param<Tensor<2>>,
    prefix: usize,
    from: [usize; 2],
    to: [usize; 2],
) -> Param<Tensor<2>> {
    if from == to {
        return table;
    }
    let tracked = table.is_require_grad();
    table.map(|table| {
        let ([_, width], device) = (table.dims(), table.device());
        let data = table.into_data();
        let values: Vec<f32> = data.iter::<f32>().collect();
        let (kept, grid) = values.split_at(prefix * width);
        let mut out = kept.to_vec();
        out.extend(bicubic(grid, width, from, to));
        let rows = out.len() / width;
        Tensor::from_data(TensorData::new(out, [rows, width]), &device).set_require_grad(tracked)
    })
}

/// `grid` is `[rows, columns, width]`.
fn bicubic(grid: &[f32], width: usize, from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let [rows, columns] = from;
    let (down, across) = (taps(rows, to[0]), taps(columns, to[1]));
    let mut out = Vec::with_capacity(to[0] * to[1] * width);
    let mut sums = vec![0.0; width];
    for down in &down {
        for across in &across {
            sums.fill(0.0);
            for &(row, weight_down) in down {
                for &(column, weight_across) in across {
                    let at = (row * columns + column) * width;
                    let weight = weight_down * weight_across;
                    let values = &grid[at..at + width];
                    sums.iter_mut().zip(values).for_each(|(sum, &x)| *sum += weight * f64::from(x));
                }
            }
            out.extend(sums.iter().map(|&sum| sum as f32));
        }
    }
    out
}

/// For each place of a new axis the four old ones around it and their weights.
fn taps(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|index| {
            // Pixel centres fall on pixel centres (align_corners=False).
            let place = (index as f64 + 0.5) * scale - 0.5;
            let (floor, t) = (place.floor(), place - place.floor());
            let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            std::array::from_fn(|tap| {
                let at = (floor + tap as f64 - 1.0).clamp(0.0, (from - 1) as f64);
                (at as usize, weights[tap])
            })
        })
        .collect()
}

/// The cubic at a distance of at most 1.
fn near(x: f64) -> f64 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// The cubic at a distance of 1 to 2.
fn far(x: f64) -> f64 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_torch() {
        // torch.nn.functional.interpolate(torch.arange(6.).reshape(1, 1, 2, 3) ** 2, size=SIZE,
        // mode="bicubic", align_corners=False).flatten().tolist() of torch 2.15.0
        let grid: Vec<f32> = (0..6).map(|x| (x * x) as f32).collect();
        for (to, expected) in CASES {
            let ours = bicubic(&grid, 1, [2, 3], *to);
            assert_eq!(ours.len(), expected.len());
            for (ours, expected) in ours.iter().zip(*expected) {
                assert!((ours - expected).abs() < 1e-5, "{to:?}: {ours} {expected}");
            }
        }
        assert_eq!(bicubic(&grid, 1, [2, 3], [2, 3]), grid);
    }

    const CASES: &[([usize; 2], &[f32])] = &[
        ([3, 3], &[-0.7812502, -0.3020835, 2.177084, 4.5, 8.5, 14.5, 9.78125, 17.30208, 26.82292]),
        ([1, 2], &[5.195312, 13.28125]),
        (
            [4, 5],
            &[
                -0.9844688, -0.9771869, -0.5820312, 0.8931251, 2.012407, 1.812563, 2.640626,
                4.398438, 7.23625, 9.176313, 6.419438, 8.599378, 12.60156, 17.68375, 20.97569,
                9.21647, 12.21719, 17.58203, 24.02688, 28.1396,
            ],
        ),
    ];
}
