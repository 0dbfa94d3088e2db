//! Small dense kernels over slices.
//!
//! Each sums in a fixed order, so a result depends on the input and on the register width of the machine, never on
//! timing. The functions generic over [`Simd`] are to be inlined into an operation that [`pulp`] dispatches to the widest
//! instruction set at hand; the plain ones dispatch themselves.

use ndarray::Array2;
use pulp::{Arch, Simd, WithSimd};

/// Numbers in the widest register in use: rows padded to a multiple need no tail on any machine.
pub(crate) const LANES: usize = 16;

/// Runs `work`, into which everything is inlined, by the widest instructions at hand. Its results do not depend on them:
/// the compiler neither reorders sums nor fuses a product with one.
#[inline(always)]
pub(crate) fn widest<R>(work: impl FnOnce() -> R) -> R {
    struct Work<F>(F);
    impl<R, F: FnOnce() -> R> WithSimd for Work<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    Arch::new().dispatch(Work(work))
}

/// Mean and variance of some numbers, over [`LANES`]-wise sums; zero of none.
pub(crate) fn moments(values: &[f32]) -> (f32, f32) {
    moments_among(values, values.len())
}

/// Mean and variance of `count` numbers, all zero but `values`.
pub(crate) fn moments_among(values: &[f32], count: usize) -> (f32, f32) {
    let zeros = count.saturating_sub(values.len()) as f32;
    let count = count.max(values.len()).max(1) as f32;
    widest(
        #[inline(always)]
        || {
            let mean = sum_of(values, |value| value) / count;
            let squares = sum_of(values, |value| (value - mean) * (value - mean));
            (mean, (squares + zeros * mean * mean) / count)
        },
    )
}

/// `Σ f(x_i)`. Several sums side by side: one alone would wait for each addition to end.
#[inline(always)]
fn sum_of(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; 2 * LANES];
    let (blocks, rest) = values.as_chunks::<{ 2 * LANES }>();
    for block in blocks {
        for (sum, &value) in sums.iter_mut().zip(block) {
            *sum += of(value);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&value| of(value)).sum::<f32>()
}

/// `Σ a_i b_i`.
#[inline(always)]
pub(crate) fn dot_in<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = S::as_simd_f32s(a);
    let (b, b_rest) = S::as_simd_f32s(b);
    let mut sum = simd.splat_f32s(0.0);
    for (&a, &b) in a.iter().zip(b) {
        sum = simd.mul_add_e_f32s(a, b, sum);
    }
    let mut rest = 0.0;
    for (a, b) in a_rest.iter().zip(b_rest) {
        rest += a * b;
    }
    simd.reduce_sum_f32s(sum) + rest
}

/// `y += scale · x`.
#[inline(always)]
pub(crate) fn axpy_in<S: Simd>(simd: S, scale: f32, x: &[f32], y: &mut [f32]) {
    let (x, x_rest) = S::as_simd_f32s(x);
    let (y, y_rest) = S::as_mut_simd_f32s(y);
    let factor = simd.splat_f32s(scale);
    for (y, &x) in y.iter_mut().zip(x) {
        *y = simd.mul_add_e_f32s(factor, x, *y);
    }
    for (y, &x) in y_rest.iter_mut().zip(x_rest) {
        *y += scale * x;
    }
}

/// `y += Σ scales_i · row_i` over four rows, over the shortest of the lengths, which are whole registers.
#[inline(always)]
pub(crate) fn combine_in<S: Simd>(simd: S, scales: [f32; 4], rows: [&[f32]; 4], y: &mut [f32]) {
    let [a, b, c, d] = rows;
    let (a, _) = S::as_simd_f32s(a);
    let (b, _) = S::as_simd_f32s(b);
    let (c, _) = S::as_simd_f32s(c);
    let (d, _) = S::as_simd_f32s(d);
    let (y, _) = S::as_mut_simd_f32s(y);
    let [scale_a, scale_b, scale_c, scale_d] = scales;
    let (scale_a, scale_b) = (simd.splat_f32s(scale_a), simd.splat_f32s(scale_b));
    let (scale_c, scale_d) = (simd.splat_f32s(scale_c), simd.splat_f32s(scale_d));
    for ((((y, &a), &b), &c), &d) in y.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        let left = simd.mul_add_e_f32s(scale_b, b, simd.mul_add_e_f32s(scale_a, a, *y));
        *y = simd.mul_add_e_f32s(scale_d, d, simd.mul_add_e_f32s(scale_c, c, left));
    }
}

/// The inner products of `x` with each of four rows of its length, which `rows` holds one after the other. All lengths
/// are whole registers.
#[inline(always)]
pub(crate) fn dots_in<S: Simd>(simd: S, rows: &[f32], x: &[f32]) -> [f32; 4] {
    let [a, b, c, d] = four_rows(rows);
    let (a, _) = S::as_simd_f32s(a);
    let (b, _) = S::as_simd_f32s(b);
    let (c, _) = S::as_simd_f32s(c);
    let (d, _) = S::as_simd_f32s(d);
    let (x, _) = S::as_simd_f32s(x);
    // Named, not mapped: a closure around a vector operation may not be inlined across instruction sets.
    let zero = simd.splat_f32s(0.0);
    let (mut sum_a, mut sum_b, mut sum_c, mut sum_d) = (zero, zero, zero, zero);
    for ((((&x, &a), &b), &c), &d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
        sum_a = simd.mul_add_e_f32s(a, x, sum_a);
        sum_b = simd.mul_add_e_f32s(b, x, sum_b);
        sum_c = simd.mul_add_e_f32s(c, x, sum_c);
        sum_d = simd.mul_add_e_f32s(d, x, sum_d);
    }
    [
        simd.reduce_sum_f32s(sum_a),
        simd.reduce_sum_f32s(sum_b),
        simd.reduce_sum_f32s(sum_c),
        simd.reduce_sum_f32s(sum_d),
    ]
}

/// Four rows of equal length, which `rows` holds one after the other.
#[inline(always)]
pub(crate) fn four_rows(rows: &[f32]) -> [&[f32]; 4] {
    let (left, right) = rows.split_at(rows.len() / 2);
    let (a, b) = left.split_at(left.len() / 2);
    let (c, d) = right.split_at(right.len() / 2);
    [a, b, c, d]
}

/// [`dot_in`] on its own.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    Arch::new().dispatch(Dot { a, b })
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        dot_in(simd, self.a, self.b)
    }
}

/// [`axpy_in`] on its own.
pub(crate) fn axpy(scale: f32, x: &[f32], y: &mut [f32]) {
    Arch::new().dispatch(Axpy { scale, x, y });
}

struct Axpy<'a> {
    scale: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Axpy<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        axpy_in(simd, self.scale, self.x, self.y);
    }
}

/// `out_i = rows_i · x`, for the rows of a row-major matrix.
pub(crate) fn score_rows(rows: &[f32], x: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(ScoreRows { rows, x, out });
}

struct ScoreRows<'a> {
    rows: &'a [f32],
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for ScoreRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let length = self.x.len().max(1);
        if !length.is_multiple_of(LANES) {
            for (out, row) in self.out.iter_mut().zip(self.rows.chunks_exact(length)) {
                *out = dot_in(simd, row, self.x);
            }
            return;
        }
        let (fours, rest) = self.out.as_chunks_mut::<4>();
        let mut rows = self.rows.chunks_exact(4 * length);
        for (out, rows) in fours.iter_mut().zip(&mut rows) {
            *out = dots_in(simd, rows, self.x);
        }
        for (out, row) in rest.iter_mut().zip(rows.remainder().chunks_exact(length)) {
            *out = dot_in(simd, row, self.x);
        }
    }
}

/// A row of a matrix in standard layout; `None` if there is no such row.
#[inline]
pub(crate) fn row(matrix: &Array2<f32>, index: u32) -> Option<&[f32]> {
    let columns = matrix.ncols();
    let begin = (index as usize).checked_mul(columns)?;
    matrix.as_slice()?.get(begin..begin.checked_add(columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_cover_whole_blocks_and_the_rest() {
        let values: Vec<f32> = (0..101_u8).map(f32::from).collect();
        let (mean, variance) = moments(&values);
        // Of 0 to n - 1: (n - 1) / 2 and (n² - 1) / 12.
        assert_eq!((mean, variance), (50.0, 850.0));
        assert_eq!(moments(&[]), (0.0, 0.0));
    }

    #[test]
    fn axpy_covers_whole_registers_and_the_rest() {
        let x: Vec<f32> = (0_u8..37).map(f32::from).collect();
        let mut y = vec![2.0; 37];
        axpy(0.5, &x, &mut y);
        assert!(y.iter().zip(&x).all(|(&y, &x)| y == 2.0 + 0.5 * x));
    }

    #[test]
    fn rows_are_scored_whatever_their_number_and_length() {
        for length in [1, 7, 16, 19, 32] {
            for count in [1, 4, 6] {
                let rows: Vec<f32> = (0..length * count).map(|value| (value % 5) as f32).collect();
                let x: Vec<f32> = (0..length).map(|value| (value % 3) as f32).collect();
                let mut out = vec![f32::NAN; count];
                score_rows(&rows, &x, &mut out);
                for (row, &score) in rows.chunks(length).zip(&out) {
                    assert_eq!(row.iter().zip(&x).map(|(a, b)| a * b).sum::<f32>(), score);
                }
            }
        }
    }
}
