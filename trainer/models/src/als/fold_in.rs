//! The exact vector of one user from a short history.

use ndarray::Array2;
use pulp::Arch;

use super::normal_equations::{PANEL, RankUpdate, Solve, gram};
use super::padded::Padded;
use super::{AlsParams, excess, penalty};
use crate::{HistoryItem, Scratch};

/// What all fold-ins share.
#[derive(Debug, Clone)]
pub(super) struct FoldIn {
    items: Padded,
    /// `YᵀY`.
    gram: Vec<f32>,
}

impl FoldIn {
    pub(super) fn new(items: &Array2<f32>) -> Self {
        let items = Padded::from_array(items);
        Self {
            gram: gram(&items),
            items,
        }
    }

    /// Writes the user's vector; see [`super::Als::fold_in_into`].
    pub(super) fn solve(
        &self,
        params: &AlsParams,
        history: &[HistoryItem],
        scratch: &mut Scratch,
        user: &mut [f32],
    ) {
        let (stride, side) = (self.items.stride(), self.items.factors());
        let known = |entry: &&HistoryItem| (entry.item as usize) < self.items.rows() && entry.weight != 0.0;
        let events = history.iter().filter(known).count();
        user.fill(0.0);
        if events == 0 {
            return;
        }
        let arch = Arch::new();
        let square = stride * stride;
        scratch.floats.clear();
        scratch.floats.extend_from_slice(&self.gram);
        let rows = events.min(PANEL);
        scratch.floats.resize(square + stride + 2 * rows * stride, 0.0);
        let (matrix, rest) = scratch.floats.split_at_mut(square);
        let (vector, panels) = rest.split_at_mut(stride);
        let (panel, scaled) = panels.split_at_mut(rows * stride);
        let mut entries = history.iter().filter(known).peekable();
        while entries.peek().is_some() {
            let mut count = 0;
            let places = panel
                .chunks_exact_mut(stride)
                .zip(scaled.chunks_exact_mut(stride));
            for ((place, scaled), entry) in places.zip(&mut entries) {
                let row = self.items.row(entry.item);
                let excess = excess(params, entry.weight.abs());
                let whole = if entry.weight > 0.0 { 1.0 + excess } else { 0.0 };
                place.copy_from_slice(row);
                scaled
                    .iter_mut()
                    .zip(row)
                    .for_each(|(scaled, value)| *scaled = excess * value);
                vector
                    .iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += whole * value);
                count += 1;
            }
            arch.dispatch(RankUpdate {
                left: &scaled[..count * stride],
                right: &panel[..count * stride],
                stride,
                out: matrix,
            });
        }
        let penalty = penalty(params, events, self.items.rows());
        matrix
            .iter_mut()
            .step_by(stride + 1)
            .for_each(|value| *value += penalty);
        let solvable = arch.dispatch(Solve {
            matrix,
            stride,
            side,
            b: vector,
        });
        // Without a penalty the system may be singular; no evidence is the honest answer then.
        if solvable && vector.iter().all(|value| value.is_finite()) {
            user.iter_mut()
                .zip(vector.iter())
                .for_each(|(to, &from)| *to = from);
        }
    }
}
