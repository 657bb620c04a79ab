//! The pointing game (Zhang et al. 2016): does the maximum of a word's map lie in its object's box?

/// The centre of the strongest cell of a `rows × cols` map, in photo pixels. The first of equals.
pub fn peak(map: &[f32], rows: usize, cols: usize, region: [f32; 4]) -> (f32, f32) {
    let best = map
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (at, &x)| if x > best.1 { (at, x) } else { best })
        .0;
    centre(best, rows, cols, region)
}

/// Share of cells whose centre lies in the box: what a random cell would hit.
pub fn chance(rows: usize, cols: usize, region: [f32; 4], bbox: [f32; 4]) -> f64 {
    let hits =
        (0..rows * cols).filter(|&cell| inside(centre(cell, rows, cols, region), bbox)).count();
    hits as f64 / (rows * cols) as f64
}

/// Whether a point lies in a box `[x0, y0, x1, y1]` (end exclusive).
pub fn inside((x, y): (f32, f32), [x0, y0, x1, y1]: [f32; 4]) -> bool {
    x >= x0 && x < x1 && y >= y0 && y < y1
}

fn centre(cell: usize, rows: usize, cols: usize, [x0, y0, x1, y1]: [f32; 4]) -> (f32, f32) {
    let (row, col) = (cell / cols, cell % cols);
    let x = x0 + (x1 - x0) * (col as f32 + 0.5) / cols as f32;
    let y = y0 + (y1 - y0) * (row as f32 + 0.5) / rows as f32;
    (x, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_centre_of_the_strongest_cell() {
        let map = [0.0, 0.1, 0.0, 0.0, 0.0, 0.9];
        assert_eq!(peak(&map, 2, 3, [0.0, 0.0, 60.0, 40.0]), (50.0, 30.0));
        assert_eq!(peak(&[0.5; 6], 2, 3, [0.0, 0.0, 60.0, 40.0]), (10.0, 10.0));
    }

    #[test]
    fn chance_is_the_share_of_cells_in_the_box() {
        let share = chance(4, 4, [0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 32.0, 32.0]);
        assert!((share - 0.25).abs() < 1e-12);
        assert_eq!(chance(4, 4, [0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 4.0, 4.0]), 0.0);
    }

    #[test]
    fn a_box_ends_before_its_end() {
        assert!(inside((1.0, 1.0), [1.0, 1.0, 2.0, 2.0]));
        assert!(!inside((2.0, 1.0), [1.0, 1.0, 2.0, 2.0]));
    }
}
