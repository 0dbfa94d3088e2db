//! Factor matrices whose rows fill whole registers.

use std::ops::Range;

use ndarray::{Array2, ArrayBase, Data, Ix2};

use crate::kernels::{LANES, score_rows};

/// Row-major `[rows, factors]` with rows padded by zeros to whole lanes, so that kernels need no tails. The padding
/// stays zero through training: no system couples it to anything.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Padded {
    factors: usize,
    stride: usize,
    values: Vec<f32>,
}

impl Padded {
    pub(crate) fn zeros(rows: usize, factors: usize) -> Self {
        let stride = factors.div_ceil(LANES) * LANES;
        Self {
            factors,
            stride,
            values: vec![0.0; rows * stride],
        }
    }

    pub(crate) fn from_array<S: Data<Elem = f32>>(array: &ArrayBase<S, Ix2>) -> Self {
        let mut padded = Self::zeros(array.nrows(), array.ncols());
        for (to, from) in padded.rows_mut().zip(array.rows()) {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
        }
        padded
    }

    pub(crate) fn into_array(self) -> Array2<f32> {
        let (rows, factors) = (self.rows(), self.factors);
        let values = if factors == self.stride {
            self.values
        } else {
            self.values
                .chunks_exact(self.stride)
                .flat_map(|row| &row[..factors])
                .copied()
                .collect()
        };
        // The shape is an invariant; were it ever broken, the empty matrix would be refused downstream.
        Array2::from_shape_vec((rows, factors), values).unwrap_or_default()
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.stride
    }

    pub(crate) fn factors(&self) -> usize {
        self.factors
    }

    /// Length of a padded row: a multiple of [`LANES`].
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn row(&self, index: u32) -> &[f32] {
        let begin = index as usize * self.stride;
        &self.values[begin..begin + self.stride]
    }

    /// Some rows, one after the other.
    pub(crate) fn range(&self, rows: Range<usize>) -> &[f32] {
        &self.values[rows.start * self.stride..rows.end * self.stride]
    }

    /// Adds the rows of `more`, of as many factors.
    pub(crate) fn append(&mut self, more: Self) {
        self.values.extend(more.values);
    }

    /// Tells `each` the inner product of every row with `query` (padded), row by row.
    pub(crate) fn score_each(&self, query: &[f32], mut each: impl FnMut(usize, f32)) {
        let mut scores = [0.0; 64];
        for begin in (0..self.rows()).step_by(scores.len()) {
            let end = (begin + scores.len()).min(self.rows());
            let scores = &mut scores[..end - begin];
            score_rows(self.range(begin..end), query, scores);
            for (row, &score) in (begin..).zip(&*scores) {
                each(row, score);
            }
        }
    }

    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.stride)
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_comes_and_goes_without_a_trace() {
        for factors in [3, 16, 17] {
            let array = Array2::from_shape_fn((4, factors), |(row, column)| (row * 100 + column) as f32);
            let padded = Padded::from_array(&array);
            assert_eq!(padded.stride() % LANES, 0);
            assert_eq!(padded.rows(), 4);
            assert_eq!(padded.into_array(), array);
        }
    }
}
