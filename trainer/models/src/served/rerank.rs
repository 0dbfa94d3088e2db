//! Re-ordering the blend's best candidates by the ranker.

use super::context::{Query, ScoreScratch};
use super::features::row::WIDTH;
use crate::ranker::Ranker;

/// Replaces the blend scores of the best `candidates` unseen items by the ranker's, lifted above all others; the
/// others keep the blend's order among themselves.
pub(super) fn rerank(ranker: &Ranker, candidates: usize, query: &Query<'_>, scratch: &mut ScoreScratch) {
    scratch.select(candidates, |item| query.context.is_seen(item));
    let mut stats = std::mem::take(&mut scratch.stats);
    stats.measure(query, &scratch.columns, &scratch.scores);
    let order = std::mem::take(&mut scratch.order);
    let mut row = std::mem::take(&mut scratch.row);
    let mut ranked = std::mem::take(&mut scratch.ranked);
    row.resize(WIDTH, 0.0);
    ranked.clear();
    for (rank, &item) in order.iter().enumerate() {
        stats.row(scratch, item as usize, rank, &mut row);
        ranked.push(ranker.score(&row));
    }
    let floor = ranked.iter().copied().fold(f32::INFINITY, f32::min);
    let highest = scratch.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if floor.is_finite() && highest.is_finite() {
        for score in &mut scratch.scores {
            *score -= highest + 1.0;
        }
        for (&item, score) in order.iter().zip(&ranked) {
            scratch.scores[item as usize] = score - floor;
        }
    }
    scratch.stats = stats;
    scratch.order = order;
    scratch.row = row;
    scratch.ranked = ranked;
}
