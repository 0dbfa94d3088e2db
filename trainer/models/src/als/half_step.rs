//! One half of an iteration: all vectors of one side, with the other side held fixed.

use ndarray::Array2;
use rayon::prelude::*;

use super::{AlsParams, AlsSolver, penalty};
use crate::Error;
use crate::kernels::{axpy, dot, gram, row, solve_positive_definite};
use crate::matrix::SparseRows;

/// Everything that the systems of one side share.
pub(super) struct HalfStep<'a> {
    events: &'a SparseRows,
    fixed: &'a Array2<f32>,
    params: &'a AlsParams,
    /// `YᵀY` of the fixed side, row-major `[factors, factors]`: the part of every system that all items contribute
    /// to (Hu et al., section 4, the speed-up `YᵀCY = YᵀY + Yᵀ(C − I)Y`).
    gram: Vec<f32>,
}

#[derive(Default)]
struct Buffers {
    matrix: Vec<f32>,
    residual: Vec<f32>,
    direction: Vec<f32>,
    product: Vec<f32>,
}

impl<'a> HalfStep<'a> {
    pub(super) fn new(events: &'a SparseRows, fixed: &'a Array2<f32>, params: &'a AlsParams) -> Self {
        Self {
            events,
            fixed,
            params,
            gram: gram(fixed),
        }
    }

    /// Overwrites `solved` `[rows of events, factors]`, whose values are the conjugate gradient's starting points.
    pub(super) fn solve(&self, solved: &mut Array2<f32>) -> Result<(), Error> {
        let factors = self.params.factors;
        let Some(solved) = solved.as_slice_mut() else {
            return Err(Error::Data("factors are not in row-major order".into()));
        };
        solved
            .par_chunks_exact_mut(factors)
            .enumerate()
            .try_for_each_init(Buffers::default, |buffers, (index, vector)| {
                let Some(events) = self.events.outer_view(index) else {
                    return Ok(());
                };
                if events.nnz() == 0 {
                    vector.fill(0.0);
                    return Ok(());
                }
                let (indices, weights) = (events.indices(), events.data());
                let solvable = match self.params.solver {
                    AlsSolver::ConjugateGradient { steps } => {
                        self.approximate(indices, weights, steps, buffers, vector);
                        true
                    }
                    AlsSolver::Cholesky => self.exact(indices, weights, buffers, vector),
                };
                if solvable && vector.iter().all(|value| value.is_finite()) {
                    Ok(())
                } else {
                    Err(Error::Data(format!(
                        "the least-squares system of row {index} is singular or overflows; a greater regularization helps"
                    )))
                }
            })
    }

    fn rows<'b>(&'b self, indices: &'b [u32], weights: &'b [f32]) -> impl Iterator<Item = (f32, &'b [f32])> {
        indices
            .iter()
            .zip(weights)
            .filter_map(|(&index, &weight)| Some((self.params.alpha * weight, row(self.fixed, index)?)))
    }

    /// `x = (YᵀCY + λI)⁻¹ YᵀC p` (Hu et al., equation 4).
    fn exact(&self, indices: &[u32], weights: &[f32], buffers: &mut Buffers, vector: &mut [f32]) -> bool {
        let factors = self.params.factors;
        buffers.matrix.clear();
        buffers.matrix.extend_from_slice(&self.gram);
        let penalty = penalty(self.params, indices.len(), self.fixed.nrows());
        buffers
            .matrix
            .iter_mut()
            .step_by(factors + 1)
            .for_each(|value| *value += penalty);
        vector.fill(0.0);
        for (confidence, row) in self.rows(indices, weights) {
            axpy(1.0 + confidence, row, vector);
            for (index, line) in buffers.matrix.chunks_exact_mut(factors).enumerate() {
                axpy(confidence * row[index], &row[index..], &mut line[index..]);
            }
        }
        solve_positive_definite(&mut buffers.matrix, factors, vector)
    }

    /// Conjugate gradient on the same system without forming it (Takács et al., section 3.2).
    fn approximate(
        &self,
        indices: &[u32],
        weights: &[f32],
        steps: usize,
        buffers: &mut Buffers,
        vector: &mut [f32],
    ) {
        let factors = self.params.factors;
        let penalty = penalty(self.params, indices.len(), self.fixed.nrows());
        let Buffers {
            residual,
            direction,
            product,
            ..
        } = buffers;
        residual.clear();
        residual.resize(factors, 0.0);
        product.clear();
        product.resize(factors, 0.0);
        self.multiply(indices, weights, penalty, vector, product);
        for (confidence, row) in self.rows(indices, weights) {
            axpy(1.0 + confidence, row, residual);
        }
        axpy(-1.0, product, residual);
        direction.clear();
        direction.extend_from_slice(residual);
        let mut square = dot(residual, residual);
        for _ in 0..steps {
            if square < 1e-20 {
                break;
            }
            self.multiply(indices, weights, penalty, direction, product);
            let length = square / dot(direction, product);
            axpy(length, direction, vector);
            axpy(-length, product, residual);
            let next = dot(residual, residual);
            let turn = next / square;
            for (direction, &residual) in direction.iter_mut().zip(residual.iter()) {
                *direction = residual + turn * *direction;
            }
            square = next;
        }
    }

    /// `out = (YᵀCY + λI) x`.
    fn multiply(&self, indices: &[u32], weights: &[f32], penalty: f32, x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = penalty * x;
        }
        for (line, &x) in self.gram.chunks_exact(x.len()).zip(x) {
            axpy(x, line, out);
        }
        for (confidence, row) in self.rows(indices, weights) {
            axpy(confidence * dot(row, x), row, out);
        }
    }
}
