//! Re-ordering the blend's best candidates by the ranker.

use super::context::{Query, ScoreScratch};
use super::features::facts::Facts;
use super::features::row::WIDTH;
use crate::ranker::Ranker;

/// Replaces the blend scores of the candidates, `scratch.order`, by the ranker's, lifted above all others; the others
/// keep the blend's order among themselves.
pub(super) fn rerank(ranker: &Ranker, query: &Query<'_>, scratch: &mut ScoreScratch) {
    let mut stats = std::mem::take(&mut scratch.stats);
    stats.measure(query, scratch);
    let facts = Facts::new(query);
    let order = std::mem::take(&mut scratch.order);
    let mut rows = std::mem::take(&mut scratch.rows);
    let mut ranked = std::mem::take(&mut scratch.ranked);
    rows.clear();
    rows.resize(order.len() * WIDTH, 0.0);
    for ((rank, &item), row) in order.iter().enumerate().zip(rows.chunks_exact_mut(WIDTH)) {
        stats.row(scratch, &facts, item, rank, row);
    }
    ranker.rank_rows(&mut rows, &mut scratch.keys, &mut ranked);
    let floor = ranked.iter().copied().fold(f32::INFINITY, f32::min);
    let highest = scratch.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if floor.is_finite() && highest.is_finite() {
        for score in &mut scratch.scores {
            *score -= highest + 1.0;
        }
        for (&item, score) in order.iter().zip(&ranked) {
            let place = scratch.place(item);
            scratch.scores[place] = score - floor;
        }
    }
    scratch.stats = stats;
    scratch.order = order;
    scratch.rows = rows;
    scratch.ranked = ranked;
}
