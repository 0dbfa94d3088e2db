//! The exact vector of one user from a short history.

use ndarray::Array2;

use super::{AlsParams, penalty};
use crate::kernels::{axpy, gram, row, solve_positive_definite};
use crate::{HistoryItem, Scratch};

/// What all fold-ins share.
#[derive(Debug, Clone)]
pub(super) struct FoldIn {
    /// `YᵀY`, row-major `[factors, factors]`.
    gram: Vec<f32>,
}

impl FoldIn {
    pub(super) fn new(items: &Array2<f32>, _params: &AlsParams) -> Self {
        Self { gram: gram(items) }
    }

    /// Writes the user's vector; see [`super::Als::fold_in_into`].
    pub(super) fn solve(
        &self,
        items: &Array2<f32>,
        params: &AlsParams,
        history: &[HistoryItem],
        scratch: &mut Scratch,
        user: &mut [f32],
    ) {
        let factors = items.ncols();
        user.fill(0.0);
        let matrix = &mut scratch.floats;
        matrix.clear();
        matrix.extend_from_slice(&self.gram);
        let mut events = 0;
        for entry in history {
            let confidence = params.alpha * entry.weight.abs();
            let Some(row) = row(items, entry.item).filter(|_| confidence > 0.0) else {
                continue;
            };
            events += 1;
            if entry.weight > 0.0 {
                axpy(1.0 + confidence, row, user);
            }
            for (index, line) in matrix.chunks_exact_mut(factors).enumerate() {
                axpy(confidence * row[index], &row[index..], &mut line[index..]);
            }
        }
        if events == 0 {
            return;
        }
        let penalty = penalty(params, events, items.nrows());
        matrix
            .iter_mut()
            .step_by(factors + 1)
            .for_each(|value| *value += penalty);
        // Without a penalty the system of a short history may be singular; no evidence is the honest answer then.
        if !solve_positive_definite(matrix, factors, user) || user.iter().any(|value| !value.is_finite()) {
            user.fill(0.0);
        }
    }
}
