//! What follows, precedes or accompanies the items of the history.

use super::Column;
use crate::HistoryItem;
use crate::Scorer;
use crate::served::catalogue::UNKNOWN;
use crate::served::context::{Query, ScoreScratch};
use crate::served::generators::{Generators, next_item};
use crate::transitions::{Distance, KERNELS};

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
    let mut spare_b = [0.0_f32; 0];
    let mut spare_d = [0.0_f32; 0];
    let Ok([after, before]) =
        columns.get_disjoint_mut([Column::LastAfter as usize, Column::LastBefore as usize])
    else {
        return;
    };
    let mut out: [&mut [f32]; KERNELS] = [&mut spare_b, after, before, &mut spare_d];
    transitions.accumulate(last.item, query.now_ms, PRIOR, [0.0, 1.0, 1.0, 0.0], &mut out);
}

pub(super) fn ease(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) {
    let folds = [
        (Column::Ease, &generators.ease, RECENT_DECAY, false),
        (Column::EaseLong, &generators.ease, LONG_DECAY, false),
        (Column::EaseLikes, &generators.ease_likes, RECENT_DECAY, true),
    ];
    for (column, model, decay, only_likes) in folds {
        let Some(model) = model else { continue };
        scratch.model_history.clear();
        let mut weight = 1.0;
        for entry in query.context.history.iter().rev().take(FOLDED) {
            if only_likes && !entry.is_like() {
                continue;
            }
            if let Some(item) = query.binding.model_index(entry.item) {
                scratch.model_history.push(HistoryItem { item, weight });
            }
            weight *= decay;
            if weight < 0.01 {
                break;
            }
        }
        if scratch.model_history.is_empty() {
            continue;
        }
        scratch.model_scores.clear();
        scratch.model_scores.resize(model.items(), 0.0);
        model.score_into(
            &scratch.model_history,
            &mut scratch.generator,
            &mut scratch.model_scores,
        );
        scatter(
            query,
            &scratch.model_scores,
            &mut scratch.columns[column as usize],
        );
    }
}

pub(super) fn next_item(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) {
    let Some(model) = &generators.next_item else {
        return;
    };
    next_item::weigh(query.context.history, &mut scratch.past);
    for (item, _) in &mut scratch.past {
        *item = query.binding.model_index(*item).unwrap_or(UNKNOWN);
    }
    scratch.model_scores.clear();
    scratch.model_scores.resize(model.items(), 0.0);
    model.score_into(&scratch.past, &mut scratch.model_scores);
    scatter(
        query,
        &scratch.model_scores,
        &mut scratch.columns[Column::NextItem as usize],
    );
}

/// Moves scores from the model's item order to the live one.
fn scatter(query: &Query<'_>, scores: &[f32], out: &mut [f32]) {
    for (&live, &score) in query.binding.live_of_model().iter().zip(scores) {
        if let Some(place) = out.get_mut(live as usize) {
            *place = score;
        }
    }
}
