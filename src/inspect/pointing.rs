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

/// The share of each cell that lies in the box, in `[0, 1]`, row by row.
pub fn coverage(rows: usize, cols: usize, region: [f32; 4], bbox: [f32; 4]) -> Vec<f32> {
    let [x0, y0, x1, y1] = region;
    let (wide, tall) = ((x1 - x0) / cols as f32, (y1 - y0) / rows as f32);
    let overlap = |from: f32, size: f32, low: f32, high: f32| {
        ((from + size).min(high) - from.max(low)).max(0.0) / size
    };
    let cells = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
    cells
        .map(|(row, col)| {
            overlap(x0 + col as f32 * wide, wide, bbox[0], bbox[2])
                * overlap(y0 + row as f32 * tall, tall, bbox[1], bbox[3])
        })
        .collect()
}

/// The share of what is positive in a map that lies on what `covered` covers, in `[0, 1]`; none where
/// nothing is positive.
pub fn share_inside(map: &[f32], covered: &[f32]) -> Option<f64> {
    let (mut inside, mut all) = (0.0, 0.0);
    for (value, covered) in map.iter().zip(covered) {
        let value = f64::from(value.max(0.0));
        inside += value * f64::from(*covered);
        all += value;
    }
    (all > 0.0).then(|| inside / all)
}

/// Intersection over union of the box, by its [`coverage`], and the cells of at least `share` of the map's
/// maximum; 0 where nothing is positive.
pub fn overlap(map: &[f32], covered: &[f32], share: f32) -> f64 {
    let most = map.iter().copied().fold(0.0f32, f32::max);
    let size: f64 = covered.iter().map(|covered| f64::from(*covered)).sum();
    let (mut both, mut chosen) = (0.0, 0.0);
    for (_, covered) in
        map.iter().zip(covered).filter(|(value, _)| most > 0.0 && **value >= share * most)
    {
        both += f64::from(*covered);
        chosen += 1.0;
    }
    let union = size + chosen - both;
    if union > 0.0 { both / union } else { 0.0 }
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
    fn a_box_covers_cells_in_part() {
        let covered = coverage(2, 2, [0.0, 0.0, 20.0, 20.0], [5.0, 0.0, 15.0, 15.0]);
        assert_eq!(covered, [0.5, 0.5, 0.25, 0.25]);
        // What is padding lies outside of the photo.
        let padded = coverage(1, 2, [-10.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]);
        assert_eq!(padded, [0.0, 1.0]);
        assert_eq!(share_inside(&[2.0, 1.0, 1.0, -4.0], &covered), Some(0.4375));
        assert_eq!(share_inside(&[0.0, -1.0], &[1.0, 1.0]), None);
    }

    #[test]
    fn overlap_is_intersection_over_union() {
        let covered = [1.0, 1.0, 0.0, 0.0];
        assert_eq!(overlap(&[0.9, 1.0, 0.1, 0.0], &covered, 0.5), 1.0);
        assert_eq!(overlap(&[0.1, 1.0, 0.6, 0.0], &covered, 0.5), 1.0 / 3.0);
        assert_eq!(overlap(&[0.0, 0.0, 1.0, 0.0], &covered, 0.5), 0.0);
        assert_eq!(overlap(&[0.0; 4], &covered, 0.5), 0.0);
    }

    #[test]
    fn a_box_ends_before_its_end() {
        assert!(inside((1.0, 1.0), [1.0, 1.0, 2.0, 2.0]));
        assert!(!inside((2.0, 1.0), [1.0, 1.0, 2.0, 2.0]));
    }
}
