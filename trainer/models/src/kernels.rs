//! Small dense kernels over slices, with a fixed order of summation.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

/// Lanes that a reduction keeps apart: wide enough for the widest registers in use.
pub(crate) const LANES: usize = 16;

fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ a_i b_i`.
#[inline]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sum_lanes(lanes) + rest
}

/// `y += scale · x`.
#[inline]
pub(crate) fn axpy(scale: f32, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// A row of a matrix in standard layout; `None` if there is no such row.
#[inline]
pub(crate) fn row(matrix: &Array2<f32>, index: u32) -> Option<&[f32]> {
    let columns = matrix.ncols();
    let begin = (index as usize).checked_mul(columns)?;
    matrix.as_slice()?.get(begin..begin.checked_add(columns)?)
}

/// `YᵀY` of `[rows, factors]`, row-major `[factors, factors]`.
///
/// The blocks over which partial sums are formed depend on the shape alone, so the result does not depend on the
/// number of threads.
pub(crate) fn gram(matrix: &Array2<f32>) -> Vec<f32> {
    let factors = matrix.ncols();
    let block = matrix.nrows().div_ceil(64).max(256);
    let partial: Vec<Vec<f32>> = (matrix.axis_chunks_iter(Axis(0), block).into_par_iter())
        .map(|rows| {
            let mut sum = vec![0.0; factors * factors];
            for row in rows.as_slice().unwrap_or_default().chunks_exact(factors) {
                for (&value, line) in row.iter().zip(sum.chunks_exact_mut(factors)) {
                    axpy(value, row, line);
                }
            }
            sum
        })
        .collect();
    let mut total = vec![0.0; factors * factors];
    for sum in &partial {
        axpy(1.0, sum, &mut total);
    }
    total
}

/// Overwrites the upper triangle of a symmetric positive definite matrix (row-major, `side × side`) with its
/// Cholesky factor `U`, `A = UᵀU`, and solves `A x = b` in place of `b`. `false` if a pivot is not positive.
pub(crate) fn solve_positive_definite(matrix: &mut [f32], side: usize, b: &mut [f32]) -> bool {
    for pivot in 0..side {
        let (head, tail) = matrix.split_at_mut((pivot + 1) * side);
        let row = &mut head[pivot * side..];
        let square = row[pivot];
        if square.is_nan() || square <= 0.0 {
            return false;
        }
        let scale = 1.0 / square.sqrt();
        for value in &mut row[pivot..] {
            *value *= scale;
        }
        let row = &*row;
        for (index, below) in (pivot + 1..side).zip(tail.chunks_exact_mut(side)) {
            axpy(-row[index], &row[index..], &mut below[index..]);
        }
    }
    // Uᵀ z = b, row by row forwards; then U x = z backwards.
    for (index, row) in matrix.chunks_exact(side).enumerate().take(side) {
        let (done, rest) = b.split_at_mut(index + 1);
        let value = done[index] / row[index];
        done[index] = value;
        axpy(-value, &row[index + 1..], rest);
    }
    for (index, row) in matrix.chunks_exact(side).enumerate().take(side).rev() {
        let (head, solved) = b.split_at_mut(index + 1);
        head[index] = (head[index] - dot(&row[index + 1..], solved)) / row[index];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_and_axpy_cover_whole_lanes_and_the_rest() {
        let a: Vec<f32> = (0_u8..37).map(f32::from).collect();
        let mut b = vec![2.0; 37];
        assert_eq!(dot(&a, &b), 2.0 * 666.0);
        axpy(0.5, &a, &mut b);
        assert_eq!(b[36], 20.0);
    }

    #[test]
    fn a_two_by_two_system_is_solved_as_by_hand() {
        // [[4, 2], [2, 3]] x = [2, 5] has the solution [-1/2, 2].
        let mut b = [2.0, 5.0];
        assert!(solve_positive_definite(&mut [4.0, 2.0, f32::NAN, 3.0], 2, &mut b));
        assert!((b[0] + 0.5).abs() < 1e-6 && (b[1] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        assert!(!solve_positive_definite(
            &mut [1.0, 2.0, 2.0, 1.0],
            2,
            &mut [1.0, 1.0]
        ));
    }
}
