//! The heat of a panel: a grid of values, and what lies between them.

use super::{HeatFilter, Region, Sheet};

/// A grid of values that can be asked anywhere on the photo.
pub(super) struct Heat<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    region: Region,
    filter: HeatFilter,
    pub maximum: f32,
    /// What each cell would have if all were alike.
    pub even: f32,
    /// What the hottest colour stands for: the maximum of all panels, but at least [`LEAST_CEILING`] times
    /// what each cell would have if all were alike. Attention that is spread evenly looks cold.
    ceiling: f32,
}

/// The largest value, and what each cell would have if all had the same; what is negative or not finite is 0.
fn extent(values: &[f32]) -> (f32, f32) {
    let heat = values.iter().map(|value| if value.is_finite() { value.max(0.0) } else { 0.0 });
    (heat.clone().fold(0.0, f32::max), heat.sum::<f32>() / values.len().max(1) as f32)
}

/// Times the even share that the hottest colour stands for at least.
pub const LEAST_CEILING: f32 = 3.0;

impl<'a> Heat<'a> {
    pub fn new(sheet: &Sheet<'_>, values: &'a [f32], filter: HeatFilter) -> Self {
        let Sheet { region, rows, cols, .. } = *sheet;
        let (maximum, even) = extent(values);
        let all = sheet.panels.iter().map(|panel| extent(&panel.heat));
        let ceiling = all.fold(0.0, |ceiling: f32, (maximum, even)| {
            ceiling.max(maximum).max(LEAST_CEILING * even)
        });
        Self { values, rows, cols, region, filter, maximum, even, ceiling }
    }

    /// Heat at a point of the photo, 0 to 1 of the ceiling; `None` outside the grid.
    pub fn at(&self, x: f32, y: f32) -> Option<f32> {
        let Region { x0, y0, x1, y1 } = self.region;
        let across = (x - x0) / (x1 - x0);
        let down = (y - y0) / (y1 - y0);
        if !((0.0..1.0).contains(&across) && (0.0..1.0).contains(&down)) {
            return None;
        }
        let (column, row) = (across * self.cols as f32, down * self.rows as f32);
        if self.filter == HeatFilter::Nearest {
            return Some(self.cell(row as isize, column as isize));
        }
        let (column, row) = (column - 0.5, row - 0.5);
        let (first_column, first_row) = (column.floor(), row.floor());
        let column_weights = catmull_rom(column - first_column);
        let row_weights = catmull_rom(row - first_row);
        let mut sum = 0.0;
        for (row_offset, row_weight) in (-1..).zip(row_weights) {
            for (column_offset, column_weight) in (-1..).zip(column_weights) {
                let cell = self
                    .cell(first_row as isize + row_offset, first_column as isize + column_offset);
                sum += row_weight * column_weight * cell;
            }
        }
        Some(sum.clamp(0.0, 1.0))
    }

    /// The value of a cell as a share of the ceiling; beyond the edge the outermost cell goes on.
    fn cell(&self, row: isize, column: isize) -> f32 {
        let row = row.clamp(0, self.rows.max(1) as isize - 1) as usize;
        let column = column.clamp(0, self.cols.max(1) as isize - 1) as usize;
        match self.values.get(row * self.cols + column) {
            Some(value) if value.is_finite() && self.maximum > 0.0 => {
                (value / self.ceiling).max(0.0)
            }
            _ => 0.0,
        }
    }
}

/// Weights of the four cells around a point `share` of the way from the second to the third.
fn catmull_rom(share: f32) -> [f32; 4] {
    let (square, cube) = (share * share, share * share * share);
    [
        -0.5 * cube + square - 0.5 * share,
        1.5 * cube - 2.5 * square + 1.0,
        -1.5 * cube + 2.0 * square + 0.5 * share,
        0.5 * cube - 0.5 * square,
    ]
}
