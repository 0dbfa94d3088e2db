//! One column of numbers per source, over all live items.

use super::ServedModel;
use super::context::{Context, Fallback, Query, ScoreScratch};
use crate::live::{LiveState, position_bucket};
use crate::transitions::{Distance, KERNELS};

/// Number of columns.
pub(crate) const COLUMNS: usize = 12;

/// Names of the columns, as explanations show them.
pub(crate) const NAMES: [&str; COLUMNS] = [
    "follows",
    "follows-directly",
    "precedes",
    "liked-together",
    "popular-1h",
    "popular-6h",
    "popular-1d",
    "popular-7d",
    "popular-30d",
    "popular-365d",
    "usual-at-this-point",
    "genre",
];

/// Columns that compare an item with the history.
pub(crate) const PAIRWISE: std::ops::Range<usize> = 0..4;
pub(crate) const POPULARITY: usize = 4;
const POSITION: usize = 10;
const GENRE: usize = 11;

/// Decayed events that a row of transitions is smoothed by.
pub(crate) const TRANSITION_PRIOR: f32 = 5.0;

/// Fills `scratch.columns`, and sets the fallback.
pub(crate) fn compute(_model: &ServedModel, query: &Query<'_>, scratch: &mut ScoreScratch) {
    let Query {
        binding,
        live,
        ref context,
        now_ms,
    } = *query;
    scratch.reset(binding.len());
    scratch.fallback = match (context.history.is_empty(), context.genres) {
        (false, _) => None,
        (true, 0) => Some(Fallback::Popularity),
        (true, _) => Some(Fallback::GenrePopularity),
    };
    transitions(live, context, now_ms, &mut scratch.columns);
    popularity(live, context, now_ms, &mut scratch.columns);
    if context.genres != 0 {
        for (score, item) in scratch.columns[GENRE].iter_mut().zip(binding.items()) {
            *score = (item.genres & context.genres).count_ones() as f32;
        }
    }
}

fn transitions(live: &LiveState, context: &Context<'_>, now_ms: i64, columns: &mut [Vec<f32>]) {
    let Some(last) = context.history.last() else {
        return;
    };
    let params = &live.params().transitions;
    let (head, _) = columns.split_at_mut(KERNELS);
    let [a, b, c, d] = head else { return };
    let mut out: [&mut [f32]; KERNELS] = [a, b, c, d];
    let mut distance = Distance::from(last.time_ms);
    for entry in context.history.iter().rev().take(params.window) {
        let steps = distance.of(entry.time_ms);
        let wide = params.window_decay.powi(steps);
        let near = if steps < 4 { 1.0 / (steps + 1) as f32 } else { 0.0 };
        let liked = if entry.is_like() { wide } else { 0.0 };
        live.transitions().accumulate(
            entry.item,
            now_ms,
            TRANSITION_PRIOR,
            [wide, near, wide, liked],
            &mut out,
        );
    }
}

fn popularity(live: &LiveState, context: &Context<'_>, now_ms: i64, columns: &mut [Vec<f32>]) {
    let factors = live.popularity_factors(now_ms);
    let position_factor = live.position_factor(now_ms);
    let bucket = position_bucket(context.length);
    for (slot, factor) in factors.into_iter().enumerate() {
        for (score, item) in columns[POPULARITY + slot].iter_mut().zip(live.item_states()) {
            *score = (item.likes[slot] * factor) as f32;
        }
    }
    for (score, item) in columns[POSITION].iter_mut().zip(live.item_states()) {
        *score = (item.positions[bucket] * position_factor) as f32;
    }
}
