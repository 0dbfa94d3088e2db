//! One half of an iteration: all vectors of one side, with the other side held fixed.

use pulp::Arch;
use rayon::prelude::*;

use super::conjugate_gradient::ConjugateGradient;
use super::normal_equations::{RankUpdate, Solve, gram, panel_rows};
use super::{AlsParams, AlsSolver, excess, penalty};
use crate::Error;
use crate::matrix::SparseRows;
use crate::padded::Padded;

/// Everything that the systems of one side share.
pub(super) struct HalfStep<'a> {
    events: &'a SparseRows,
    fixed: &'a Padded,
    params: &'a AlsParams,
    /// `YᵀY` of the fixed side: the part of every system that all rows contribute to (Hu et al., section 4, the
    /// speed-up `YᵀCY = YᵀY + Yᵀ(C − I)Y`).
    gram: Vec<f32>,
    arch: Arch,
}

/// One thread's workspaces.
#[derive(Default)]
struct Buffers {
    /// The row's opposite vectors, gathered so that every further pass reads memory in order.
    panel: Vec<f32>,
    scaled: Vec<f32>,
    excess: Vec<f32>,
    matrix: Vec<f32>,
}

impl<'a> HalfStep<'a> {
    pub(super) fn new(events: &'a SparseRows, fixed: &'a Padded, params: &'a AlsParams) -> Self {
        Self {
            events,
            fixed,
            params,
            gram: gram(fixed),
            arch: Arch::new(),
        }
    }

    /// Overwrites `solved`, one row per row of events, whose values are the conjugate gradient's starting points.
    ///
    /// # Errors
    /// [`Error::Data`] if a system is singular or a vector is not finite.
    pub(super) fn solve(&self, solved: &mut Padded) -> Result<(), Error> {
        let stride = solved.stride();
        solved
            .values_mut()
            .par_chunks_exact_mut(stride)
            .enumerate()
            .with_min_len(16)
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
                    return Ok(());
                }
                Err(Error::Data(format!(
                    "the least-squares system of row {index} is singular or overflows; a greater regularization helps"
                )))
            })
    }

    fn penalty(&self, events: usize) -> f32 {
        penalty(self.params, events, self.fixed.rows())
    }

    /// `x = (YᵀCY + λI)⁻¹ YᵀC p` (Hu et al., equation 4).
    fn exact(&self, indices: &[u32], weights: &[f32], buffers: &mut Buffers, vector: &mut [f32]) -> bool {
        let (stride, side) = (self.fixed.stride(), self.fixed.factors());
        let matrix = &mut buffers.matrix;
        matrix.clear();
        matrix.extend_from_slice(&self.gram);
        let penalty = self.penalty(indices.len());
        matrix
            .iter_mut()
            .step_by(stride + 1)
            .for_each(|value| *value += penalty);
        vector.fill(0.0);
        let rows = panel_rows(stride);
        for (indices, weights) in indices.chunks(rows).zip(weights.chunks(rows)) {
            buffers.panel.clear();
            buffers.scaled.clear();
            for (&index, &weight) in indices.iter().zip(weights) {
                let row = self.fixed.row(index);
                let excess = excess(self.params, weight);
                buffers.panel.extend_from_slice(row);
                buffers.scaled.extend(row.iter().map(|value| excess * value));
                let whole = 1.0 + excess;
                vector
                    .iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += whole * value);
            }
            self.arch.dispatch(RankUpdate {
                left: &buffers.scaled,
                right: &buffers.panel,
                stride,
                out: matrix,
            });
        }
        self.arch.dispatch(Solve {
            matrix,
            stride,
            side,
            b: vector,
        })
    }

    fn approximate(
        &self,
        indices: &[u32],
        weights: &[f32],
        steps: usize,
        buffers: &mut Buffers,
        vector: &mut [f32],
    ) {
        let stride = self.fixed.stride();
        let filled = indices.len().next_multiple_of(4);
        buffers.panel.clear();
        for &index in indices {
            buffers.panel.extend_from_slice(self.fixed.row(index));
        }
        buffers.panel.resize(filled * stride, 0.0);
        buffers.excess.clear();
        buffers
            .excess
            .extend(weights.iter().map(|&weight| excess(self.params, weight)));
        buffers.excess.resize(filled, 0.0);
        buffers.matrix.resize(3 * stride, 0.0);
        self.arch.dispatch(ConjugateGradient {
            panel: &buffers.panel,
            excess: &buffers.excess,
            gram: &self.gram,
            penalty: self.penalty(indices.len()),
            steps,
            x: vector,
            workspace: &mut buffers.matrix,
        });
    }
}
