//! The exact vector of one user from a short history.

use ndarray::Array2;
use pulp::Arch;

use super::normal_equations::{RankUpdate, Solve, gram, panel_rows};
use super::{AlsParams, excess, penalty};
use crate::kernels::row;
use crate::padded::Padded;
use crate::{HistoryItem, Scratch};

/// What all fold-ins share.
#[derive(Debug, Clone)]
pub(super) struct FoldIn {
    /// `YᵀY`, with the stride of [`Padded`] rows.
    gram: Vec<f32>,
    stride: usize,
}

impl FoldIn {
    pub(super) fn new(items: &Array2<f32>) -> Self {
        let items = Padded::from_array(items);
        Self {
            gram: gram(&items),
            stride: items.stride(),
        }
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
        let (stride, side) = (self.stride, items.ncols());
        let known = |entry: &HistoryItem| {
            Some((entry.weight, row(items, entry.item)?)).filter(|_| entry.weight != 0.0)
        };
        let events = history.iter().filter_map(known).count();
        user.fill(0.0);
        if events == 0 {
            return;
        }
        let arch = Arch::new();
        let square = stride * stride;
        scratch.floats.clear();
        scratch.floats.extend_from_slice(&self.gram);
        let rows = events.min(panel_rows(stride));
        scratch.floats.resize(square + stride + 2 * rows * stride, 0.0);
        let (matrix, rest) = scratch.floats.split_at_mut(square);
        let (vector, panels) = rest.split_at_mut(stride);
        let (panel, scaled) = panels.split_at_mut(rows * stride);
        let mut entries = history.iter().filter_map(known).peekable();
        while entries.peek().is_some() {
            let mut count = 0;
            let places = panel
                .chunks_exact_mut(stride)
                .zip(scaled.chunks_exact_mut(stride));
            for ((place, scaled), (weight, row)) in places.zip(&mut entries) {
                let excess = excess(params, weight.abs());
                let whole = if weight > 0.0 { 1.0 + excess } else { 0.0 };
                // What lies beyond the row's end is padding, and zero.
                for ((place, scaled), (sum, &value)) in
                    place.iter_mut().zip(scaled).zip(vector.iter_mut().zip(row))
                {
                    *place = value;
                    *scaled = excess * value;
                    *sum += whole * value;
                }
                count += 1;
            }
            arch.dispatch(RankUpdate {
                left: &scaled[..count * stride],
                right: &panel[..count * stride],
                stride,
                out: matrix,
            });
        }
        let penalty = penalty(params, events, items.nrows());
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
