//! Forming and solving the dense symmetric systems: `A += Σ w y yᵀ`, and `A x = b` by Cholesky.
//!
//! Only the upper triangle of a system is formed and read. A system is row-major with the stride of [`Padded`] rows.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::{axpy_in, combine_in, dot_in, four_rows};
use crate::padded::Padded;

/// How many vectors of a padded length are gathered before they are multiplied: two such panels stay in the first-level
/// cache, and each is long enough to pay for reading and writing the system.
pub(super) fn panel_rows(stride: usize) -> usize {
    (4096 / stride).max(8)
}

/// `YᵀY` of all rows, both triangles.
///
/// Partial sums are formed over blocks that depend on the shape alone, and added in order, so the result does not
/// depend on the number of threads.
pub(super) fn gram(matrix: &Padded) -> Vec<f32> {
    let stride = matrix.stride();
    let block = (matrix.rows().div_ceil(64).max(256)) * stride;
    let partial: Vec<Vec<f32>> = (matrix.values().par_chunks(block))
        .map(|rows| {
            let mut sum = vec![0.0; stride * stride];
            for panel in rows.chunks(panel_rows(stride) * stride) {
                Arch::new().dispatch(RankUpdate {
                    left: panel,
                    right: panel,
                    stride,
                    out: &mut sum,
                });
            }
            sum
        })
        .collect();
    let mut total = vec![0.0_f32; stride * stride];
    for sum in &partial {
        total
            .iter_mut()
            .zip(sum)
            .for_each(|(total, &value)| *total += value);
    }
    for row in 0..stride {
        for column in 0..row {
            total[row * stride + column] = total[column * stride + row];
        }
    }
    total
}

/// `out += Σ_k left_k right_kᵀ`, at least in the upper triangle, over two panels of vectors of one length.
pub(super) struct RankUpdate<'a> {
    pub(super) left: &'a [f32],
    pub(super) right: &'a [f32],
    pub(super) stride: usize,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for RankUpdate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            left,
            right,
            stride,
            out,
        } = self;
        for (tile, rows) in out.chunks_exact_mut(ROWS * stride).enumerate() {
            let row = tile * ROWS;
            let mut column = row / S::F32_LANES * S::F32_LANES;
            while column < stride {
                let width =
                    ((stride - column) / S::F32_LANES).min(if S::F32_LANES < LANES_OF_MANY { 2 } else { 4 });
                match width {
                    4 => update_tile::<S, 4>(simd, left, right, stride, row, column, rows),
                    3 => update_tile::<S, 3>(simd, left, right, stride, row, column, rows),
                    2 => update_tile::<S, 2>(simd, left, right, stride, row, column, rows),
                    _ => update_tile::<S, 1>(simd, left, right, stride, row, column, rows),
                }
                column += width.max(1) * S::F32_LANES;
            }
        }
    }
}

/// Rows of a register tile.
const ROWS: usize = 4;

/// Machines with registers this wide have 32 of them, others 16: a tile must fit.
const LANES_OF_MANY: usize = 16;

/// One tile of `ROWS` × `WIDTH` registers, held in registers over the whole panel.
#[inline(always)]
fn update_tile<S: Simd, const WIDTH: usize>(
    simd: S,
    left: &[f32],
    right: &[f32],
    stride: usize,
    row: usize,
    column: usize,
    out: &mut [f32],
) {
    let mut tile = [[simd.splat_f32s(0.0); WIDTH]; ROWS];
    for (left, right) in left.chunks_exact(stride).zip(right.chunks_exact(stride)) {
        let Some(left) = left[row..].first_chunk::<ROWS>() else {
            continue;
        };
        let Some(right) = S::as_simd_f32s(&right[column..]).0.first_chunk::<WIDTH>() else {
            continue;
        };
        for (sums, &left) in tile.iter_mut().zip(left) {
            let left = simd.splat_f32s(left);
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_e_f32s(left, right, *sum);
            }
        }
    }
    for (sums, out) in tile.iter().zip(out.chunks_exact_mut(stride)) {
        for (out, &sum) in S::as_mut_simd_f32s(&mut out[column..]).0.iter_mut().zip(sums) {
            *out = simd.add_f32s(*out, sum);
        }
    }
}

/// Solves `A x = b` in place of `b` for a symmetric positive definite `A`, whose upper triangle is overwritten with
/// `U`, `A = UᵀU`. The answer is `false` if a pivot is not positive.
pub(super) struct Solve<'a> {
    pub(super) matrix: &'a mut [f32],
    pub(super) stride: usize,
    /// Order of the system; what lies beyond is padding.
    pub(super) side: usize,
    pub(super) b: &'a mut [f32],
}

impl WithSimd for Solve<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        let Self {
            matrix,
            stride,
            side,
            b,
        } = self;
        if !factorise(simd, matrix, stride, side) {
            return false;
        }
        // Uᵀ z = b, forwards; then U x = z, backwards.
        for (index, row) in matrix.chunks_exact(stride).enumerate().take(side) {
            let (done, rest) = b.split_at_mut(index + 1);
            let value = done[index] / row[index];
            done[index] = value;
            axpy_in(simd, -value, &row[index + 1..], rest);
        }
        for (index, row) in matrix.chunks_exact(stride).enumerate().take(side).rev() {
            let (head, solved) = b.split_at_mut(index + 1);
            let count = side - index - 1;
            head[index] =
                (head[index] - dot_in(simd, &row[index + 1..][..count], &solved[..count])) / row[index];
        }
        true
    }
}

/// `A = UᵀU` in the upper triangle; `false` if a pivot is not positive.
///
/// Four pivot rows are finished at a time, and the rows below are read and written once for all four.
#[inline(always)]
fn factorise<S: Simd>(simd: S, matrix: &mut [f32], stride: usize, side: usize) -> bool {
    // From the start of the register that holds the diagonal: what lies left of it is never read.
    let register = |index: usize| index / S::F32_LANES * S::F32_LANES;
    for first in (0..side).step_by(PIVOTS) {
        let count = PIVOTS.min(side - first);
        let (head, below) = matrix.split_at_mut((first + count) * stride);
        let pivots = &mut head[first * stride..];
        for local in 0..count {
            let (row, later) = pivots[local * stride..].split_at_mut(stride);
            let pivot = first + local;
            let square = row[pivot];
            if square.is_nan() || square <= 0.0 {
                return false;
            }
            let scale = simd.splat_f32s(1.0 / square.sqrt());
            for value in S::as_mut_simd_f32s(&mut row[register(pivot)..]).0 {
                *value = simd.mul_f32s(*value, scale);
            }
            for (index, later) in (pivot + 1..).zip(later.chunks_exact_mut(stride)) {
                axpy_in(
                    simd,
                    -row[index],
                    &row[register(index)..],
                    &mut later[register(index)..],
                );
            }
        }
        // Fewer than four pivots are the last, with nothing below.
        if count == PIVOTS {
            let [a, b, c, d] = four_rows(pivots);
            for (index, below) in (first + PIVOTS..side).zip(below.chunks_exact_mut(stride)) {
                let begin = register(index);
                let scales = [-a[index], -b[index], -c[index], -d[index]];
                let rows = [&a[begin..], &b[begin..], &c[begin..], &d[begin..]];
                combine_in(simd, scales, rows, &mut below[begin..]);
            }
        }
    }
    true
}

/// Pivot rows per step of a factorisation.
const PIVOTS: usize = 4;

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn solve(matrix: &Array2<f32>, b: &[f32]) -> Option<Vec<f32>> {
        let side = b.len();
        let mut padded = Padded::from_array(matrix);
        let stride = padded.stride();
        let mut x = b.to_vec();
        x.resize(stride, 0.0);
        let solvable = Arch::new().dispatch(Solve {
            matrix: padded.values_mut(),
            stride,
            side,
            b: &mut x,
        });
        x.truncate(side);
        solvable.then_some(x)
    }

    #[test]
    fn a_two_by_two_system_is_solved_as_by_hand() {
        // [[4, 2], [2, 3]] x = [2, 5] has the solution [-1/2, 2]; the lower triangle is not read.
        let matrix = ndarray::array![[4.0, 2.0], [99.0, 3.0]];
        let x = solve(&matrix, &[2.0, 5.0]).unwrap();
        assert!((x[0] + 0.5).abs() < 1e-6 && (x[1] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        assert_eq!(solve(&ndarray::array![[1.0, 2.0], [2.0, 1.0]], &[1.0, 1.0]), None);
    }

    #[test]
    fn larger_systems_are_solved_whatever_their_padding() {
        for side in [1, 5, 16, 33, 64, 90] {
            let points = Array2::from_shape_fn((200, side), |(row, column)| {
                ((row * 31 + column * 17) % 23) as f32 / 23.0
            });
            let padded = Padded::from_array(&points);
            let stride = padded.stride();
            let gram = gram(&padded);
            let expected = points.t().dot(&points);
            let matrix = Array2::from_shape_fn((side, side), |(row, column)| {
                let value = gram[row * stride + column];
                assert!(
                    (value - expected[(row, column)]).abs() < 1e-3,
                    "{side}: {row}, {column}"
                );
                value + if row == column { 1.0 } else { 0.0 }
            });
            let truth: Vec<f32> = (0..side).map(|index| (index % 7) as f32 - 3.0).collect();
            let b = matrix.dot(&ndarray::aview1(&truth)).to_vec();
            for (found, truth) in solve(&matrix, &b).unwrap().iter().zip(&truth) {
                assert!((found - truth).abs() < 5e-3, "{side}: {found} {truth}");
            }
        }
    }
}
