//! What follows, precedes or accompanies the items of the history.

use super::Column;
use crate::served::catalogue::UNKNOWN;
use crate::served::context::{Query, ScoreScratch};
use crate::served::generators::core::Core;
use crate::served::generators::weights::ItemWeights;
use crate::served::generators::{Generators, next_item};
use crate::transitions::{Distance, KERNELS, Kernel};

/// Decayed events that a row of transitions is smoothed by.
const PRIOR: f32 = 5.0;
/// Fold-in weight lost per step back: the recent taste.
const RECENT_DECAY: f32 = 0.9;
/// The same for the long-run taste.
const LONG_DECAY: f32 = 0.985;
/// Newest entries folded in.
const FOLDED: usize = 150;

pub(super) fn transitions(query: &Query<'_>, columns: &mut [Vec<f32>]) {
    let Some(last) = query.context.history.last() else {
        return;
    };
    let transitions = query.live.transitions();
    let window = query.live.params().transitions.window;
    let decay = query.live.params().transitions.window_decay;
    let Some([a, b, c, d]) = columns.get_disjoint_mut([0, 1, 2, 3]).ok() else {
        return;
    };
    let mut out: [&mut [f32]; KERNELS] = [a, b, c, d];
    let mut distance = Distance::from(last.time_ms);
    for entry in query.context.history.iter().rev().take(window) {
        let steps = distance.of(entry.time_ms);
        let wide = decay.powi(steps);
        let near = if steps < 4 { 1.0 / (steps + 1) as f32 } else { 0.0 };
        let liked = if entry.is_like() { wide } else { 0.0 };
        transitions.accumulate(
            entry.item,
            query.now_ms,
            PRIOR,
            [wide, near, wide, liked],
            &mut out,
        );
    }
    let recent = [Column::LastAfter, Column::SecondAfter, Column::ThirdAfter];
    for (entry, column) in query.context.history.iter().rev().zip(recent) {
        let out = &mut columns[column as usize];
        transitions.accumulate_one(entry.item, query.now_ms, PRIOR, Kernel::Next, out);
    }
    let out = &mut columns[Column::LastBefore as usize];
    transitions.accumulate_one(last.item, query.now_ms, PRIOR, Kernel::Before, out);
}

pub(super) fn ease(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) {
    let folds = [
        (Column::Ease, &generators.ease, RECENT_DECAY, false),
        (Column::EaseLong, &generators.ease, LONG_DECAY, false),
        (Column::EaseLikes, &generators.ease_likes, RECENT_DECAY, true),
    ];
    for (column, model, decay, only_likes) in folds {
        scratch.past.clear();
        let mut weight = 1.0;
        for entry in query.context.history.iter().rev().take(FOLDED) {
            if only_likes && !entry.is_like() {
                continue;
            }
            scratch.past.push((entry.item, weight));
            weight *= decay;
            if weight < 0.01 {
                break;
            }
        }
        score(&generators.core, model.as_ref(), query, scratch, column);
    }
}

pub(super) fn next_item(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) {
    next_item::weigh(query.context.history, &mut scratch.past);
    let model = generators.next_item.as_ref();
    score(&generators.core, model, query, scratch, Column::NextItem);
}

/// Scores `scratch.past`, weighted live items, and moves the scores to the live order.
fn score(
    core: &Core,
    model: Option<&ItemWeights>,
    query: &Query<'_>,
    scratch: &mut ScoreScratch,
    column: Column,
) {
    let Some(model) = model else { return };
    let row = |item| query.binding.model_index(item).and_then(|item| core.row(item));
    scratch.core_scores.clear();
    scratch.core_scores.resize(model.items(), 0.0);
    let past = scratch
        .past
        .iter()
        .filter_map(|&(item, weight)| Some((row(item)?, weight)));
    model.score_into(past, &mut scratch.core_scores);
    let out = &mut scratch.columns[column as usize];
    let live = query.binding.live_of_model();
    for (&item, &score) in core.items().iter().zip(&scratch.core_scores) {
        let place = live.get(item as usize).copied().unwrap_or(UNKNOWN);
        if let Some(place) = out.get_mut(place as usize) {
            *place = score;
        }
    }
}
