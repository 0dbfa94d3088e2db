//! Conjugate gradient on one row's system without forming it (Takács et al., section 3.2).

use pulp::{Simd, WithSimd};

use crate::kernels::{axpy_in, combine_in, dot_in, dots_in, four_rows};

/// Below this squared residual a step would only add noise.
const CONVERGED: f32 = 1e-20;

/// `(YᵀY + Σ w y yᵀ + λI) x = Σ (1 + w) y`, improved from the `x` given. All vectors have one padded length.
pub(super) struct ConjugateGradient<'a> {
    /// The row's opposite vectors `y`, one after the other; a multiple of four of them, filled up with zeros.
    pub(super) panel: &'a [f32],
    /// `w = c − 1` of each.
    pub(super) excess: &'a [f32],
    /// `YᵀY`, both triangles.
    pub(super) gram: &'a [f32],
    pub(super) penalty: f32,
    pub(super) steps: usize,
    pub(super) x: &'a mut [f32],
    /// At least three times the length of `x`; contents do not matter.
    pub(super) workspace: &'a mut [f32],
}

impl WithSimd for ConjugateGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let length = self.x.len();
        let (residual, rest) = self.workspace.split_at_mut(length);
        let (direction, rest) = rest.split_at_mut(length);
        let product = &mut rest[..length];
        let x = self.x;

        // The residual at x: both sides of the system go over the panel at once.
        dense_part(simd, self.gram, self.penalty, x, product);
        for (residual, product) in residual.iter_mut().zip(product.iter()) {
            *residual = -product;
        }
        for_fours(simd, self.panel, self.excess, x, residual, |excess, dot| {
            1.0 + excess - excess * dot
        });
        direction.copy_from_slice(residual);
        let mut square = dot_in(simd, residual, residual);
        for _ in 0..self.steps {
            if square < CONVERGED {
                break;
            }
            dense_part(simd, self.gram, self.penalty, direction, product);
            for_fours(
                simd,
                self.panel,
                self.excess,
                direction,
                product,
                |excess, dot| excess * dot,
            );
            let length = square / dot_in(simd, direction, product);
            axpy_in(simd, length, direction, x);
            axpy_in(simd, -length, product, residual);
            let next = dot_in(simd, residual, residual);
            let turn = simd.splat_f32s(next / square);
            let (directions, _) = S::as_mut_simd_f32s(direction);
            for (direction, &residual) in directions.iter_mut().zip(S::as_simd_f32s(residual).0) {
                *direction = simd.mul_add_e_f32s(turn, *direction, residual);
            }
            square = next;
        }
    }
}

/// `out = (YᵀY + λI) x`.
#[inline(always)]
fn dense_part<S: Simd>(simd: S, gram: &[f32], penalty: f32, x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = penalty * x;
    }
    for (rows, &scales) in gram.chunks_exact(4 * x.len()).zip(x.as_chunks::<4>().0) {
        combine_in(simd, scales, four_rows(rows), out);
    }
}

/// `out += Σ coefficient(w, y·x) y`, four vectors at a time, each read from memory once.
#[inline(always)]
fn for_fours<S: Simd>(
    simd: S,
    panel: &[f32],
    excess: &[f32],
    x: &[f32],
    out: &mut [f32],
    coefficient: impl Fn(f32, f32) -> f32,
) {
    for (rows, excess) in panel.chunks_exact(4 * x.len()).zip(excess.as_chunks::<4>().0) {
        let dots = dots_in(simd, rows, x);
        let mut scales = [0.0; 4];
        for ((scale, &excess), dot) in scales.iter_mut().zip(excess).zip(dots) {
            *scale = coefficient(excess, dot);
        }
        combine_in(simd, scales, four_rows(rows), out);
    }
}
