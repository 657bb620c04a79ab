//! How one of our parameters is made of public tensors: rows joined, columns taken, transposed.

use std::ops::Range;

use super::super::CheckpointError;
use super::super::weight_file::WeightFile;

/// Rows of a public tensor; of a vector, elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub name: String,
    pub rows: Range<usize>,
}

impl Piece {
    /// All of a tensor of this shape.
    pub(super) fn whole(name: &str, shape: &[usize]) -> Self {
        Self { name: name.into(), rows: 0..shape.first().copied().unwrap_or(1) }
    }

    fn read(&self, source: &WeightFile) -> Result<Vec<f32>, CheckpointError> {
        source.read_rows(&self.name, self.rows.clone())
    }
}

/// What becomes of the rows once they are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    None,
    Transposed,
    /// Some columns of rows of `width`.
    Columns {
        width: usize,
        columns: Range<usize>,
    },
    /// Each row, `[place, channel]` of a patch, as `[channel, place]`, and then transposed.
    ChannelsFirst,
    /// Rows of zeros put in.
    Gap(Range<usize>),
}

/// Channels of a pixel.
const CHANNELS: usize = 3;

/// One of our parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    /// Its dimensions.
    pub shape: Vec<usize>,
    pieces: Vec<Piece>,
    change: Change,
    /// One row, added to each.
    pub added: Option<Piece>,
}

impl Recipe {
    /// The rows as they are.
    pub(super) fn of(pieces: Vec<Piece>, shape: Vec<usize>) -> Self {
        Self { shape, pieces, change: Change::None, added: None }
    }

    /// The rows as columns of a matrix of this shape.
    pub(super) fn transposed(pieces: Vec<Piece>, shape: [usize; 2]) -> Self {
        Self { shape: shape.to_vec(), pieces, change: Change::Transposed, added: None }
    }

    /// Some columns of a matrix whose rows are `width` long.
    pub(super) fn columns(piece: Piece, width: usize, columns: Range<usize>) -> Self {
        let shape = vec![piece.rows.len(), columns.len()];
        let change = Change::Columns { width, columns };
        Self { shape, pieces: vec![piece], change, added: None }
    }

    /// A map of patches, `[d, places·channels]`, as a matrix of this shape that has the channels outside.
    pub(super) fn channels_last(piece: Piece, shape: [usize; 2]) -> Self {
        let change = Change::ChannelsFirst;
        Self { shape: shape.to_vec(), pieces: vec![piece], change, added: None }
    }

    /// A table of this shape, whose `rows` are zero.
    pub(super) fn gapped(piece: Piece, shape: [usize; 2], rows: Range<usize>) -> Self {
        Self { shape: shape.to_vec(), pieces: vec![piece], change: Change::Gap(rows), added: None }
    }

    /// The parameter's elements, row by row.
    pub(super) fn follow(&self, source: &WeightFile) -> Result<Vec<f32>, CheckpointError> {
        let mut values = Vec::new();
        for piece in &self.pieces {
            let rows = piece.read(source)?;
            if values.is_empty() { values = rows } else { values.extend(rows) }
        }
        if let Some(added) = &self.added {
            let added = added.read(source)?;
            for row in values.chunks_mut(added.len().max(1)) {
                row.iter_mut().zip(&added).for_each(|(value, more)| *value += more);
            }
        }
        Ok(match &self.change {
            Change::None => values,
            Change::Transposed => match *self.shape.as_slice() {
                [columns, rows] if rows * columns == values.len() => {
                    transposed(rows, columns, &values)
                }
                _ => values,
            },
            Change::ChannelsFirst => match *self.shape.as_slice() {
                [columns, rows] if rows * columns == values.len() => {
                    let places = columns / CHANNELS;
                    for row in values.chunks_exact_mut(columns.max(1)) {
                        let first = transposed(places, CHANNELS, &row[..places * CHANNELS]);
                        row[..places * CHANNELS].copy_from_slice(&first);
                    }
                    transposed(rows, columns, &values)
                }
                _ => values,
            },
            Change::Gap(rows) => {
                let width = self.shape.last().copied().unwrap_or(1);
                let at = (rows.start * width).min(values.len());
                values.splice(at..at, std::iter::repeat_n(0.0, rows.len() * width));
                values
            }
            Change::Columns { width, columns } => values
                .chunks((*width).max(1))
                .flat_map(|row| row.get(columns.clone()).unwrap_or_default().iter().copied())
                .collect(),
        })
    }

    /// For errors: the (first) public tensor, its shape, and the shape it would need for the parameter
    /// to be of shape `expected`.
    pub(super) fn public(
        &self,
        source: &WeightFile,
        found: Vec<usize>,
        expected: Vec<usize>,
    ) -> (String, Vec<usize>, Vec<usize>) {
        let Some(piece) = self.pieces.first() else { return (String::new(), found, expected) };
        let turned = |mut shape: Vec<usize>| {
            if self.change == Change::Transposed {
                shape.reverse();
            }
            shape
        };
        let whole = source.shape(&piece.name).unwrap_or_default().to_vec();
        let is_whole = self.pieces.len() == 1 && turned(found.clone()) == whole;
        match is_whole {
            true => (piece.name.clone(), whole, turned(expected)),
            // A part of it, or more than it, or another view of it.
            false => (piece.name.clone(), turned(found), turned(expected)),
        }
    }
}

/// Rows and columns of the squares that are turned at a time, so that both sides stay in the cache.
const SIDE: usize = 32;

/// `[rows, columns]` to `[columns, rows]`. On one thread: that takes a fifth of a second for all of
/// BLIP-base, less than other threads may keep it waiting on a busy machine.
pub(super) fn transposed(rows: usize, columns: usize, values: &[f32]) -> Vec<f32> {
    let mut turned = vec![0.0; values.len()];
    for (band, turned) in turned.chunks_mut((rows * SIDE).max(1)).enumerate() {
        for first in (0..rows).step_by(SIDE) {
            let side = SIDE.min(rows - first);
            for (column, out) in turned.chunks_mut(rows).enumerate() {
                let column = band * SIDE + column;
                let from = values[first * columns + column..].iter().step_by(columns);
                out[first..first + side].iter_mut().zip(from).for_each(|(out, &x)| *out = x);
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_whatever_the_size() {
        for (rows, columns) in [(1, 1), (3, 5), (32, 32), (33, 100), (70, 31), (0, 4), (4, 0)] {
            let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
            let turned = transposed(rows, columns, &values);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(turned[column * rows + row], values[row * columns + column]);
                }
            }
        }
    }
}
