//! What is popular, and at what point of a visit it is usually met.

use super::Column;
use crate::live::position_bucket;
use crate::served::context::Query;

/// Half-lives at which interactions of any kind are shown.
const ACTS: [(Column, usize); 3] = [(Column::Acts1h, 0), (Column::Acts1d, 2), (Column::Acts30d, 4)];

pub(super) fn fill(query: &Query<'_>, columns: &mut [Vec<f32>]) {
    let live = query.live.item_columns();
    let factors = query.live.popularity_factors(query.now_ms);
    let items = query.binding.len();
    let mut set = |column: usize, sums: &[f64], factor: f64| {
        let values = &mut columns[column];
        values.extend(sums.iter().take(items).map(|&sum| (sum * factor) as f32));
        values.resize(items, 0.0);
    };
    for (slot, factor) in factors.into_iter().enumerate() {
        set(Column::Likes1h as usize + slot, live.likes(slot), factor);
    }
    for (column, slot) in ACTS {
        set(column as usize, live.interactions(slot), factors[slot]);
    }
    let here = live.positions(position_bucket(query.context.length));
    let factor = query.live.position_factor(query.now_ms);
    set(Column::Position as usize, here, factor);
}
