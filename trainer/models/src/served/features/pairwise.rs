//! What follows, precedes or accompanies the items of the history.

use super::Column;
use crate::served::catalogue::UNKNOWN;
use crate::served::context::{Query, ScoreScratch};
use crate::served::generators::core::Core;
use crate::served::generators::weights::ItemWeights;
use crate::served::generators::{Generators, next_item};
use crate::served::places::{Places, Pool};
use crate::transitions::{Distance, Kernel};

/// Decayed events that a row of transitions is smoothed by.
const PRIOR: f32 = 5.0;
/// Fold-in weight lost per step back: the recent taste.
const RECENT_DECAY: f32 = 0.9;
/// The same for the long-run taste.
const LONG_DECAY: f32 = 0.985;
/// A weight below it is none.
const LEAST: f32 = 0.01;
/// Newest entries folded in.
const FOLDED: usize = 150;

/// Lets into `pool` what the columns of this module speak of.
pub(super) fn gather(generators: &Generators, query: &Query<'_>, pool: &mut Pool) {
    if query.context.history.is_empty() {
        return;
    }
    let transitions = query.live.transitions();
    let window = query.live.params().transitions.window;
    for entry in query.context.history.iter().rev().take(window) {
        for &partner in transitions.partners(entry.item) {
            pool.add(partner);
        }
    }
    let live = query.binding.live_of_model();
    for &item in generators.core.items() {
        pool.add(live.get(item as usize).copied().unwrap_or(UNKNOWN));
    }
}

pub(super) fn transitions(query: &Query<'_>, places: impl Places, scratch: &mut ScoreScratch) {
    let Some(last) = query.context.history.last() else {
        return;
    };
    let place = |item| places.place(item);
    let transitions = query.live.transitions();
    let window = query.live.params().transitions.window;
    let decay = query.live.params().transitions.window_decay;
    scratch.begin_fours();
    let mut distance = Distance::from(last.time_ms);
    for entry in query.context.history.iter().rev().take(window) {
        let steps = distance.of(entry.time_ms);
        let wide = decay.powi(steps);
        let near = if steps < 4 { 1.0 / (steps + 1) as f32 } else { 0.0 };
        let liked = if entry.is_like() { wide } else { 0.0 };
        let scale = [wide, near, wide, liked];
        transitions.accumulate(entry.item, query.now_ms, PRIOR, scale, place, &mut scratch.fours);
    }
    scratch.end_fours(Column::After as usize);
    let recent = [Column::LastAfter, Column::SecondAfter, Column::ThirdAfter];
    for (entry, column) in query.context.history.iter().rev().zip(recent) {
        let out = &mut scratch.columns[column as usize];
        transitions.accumulate_one(entry.item, query.now_ms, PRIOR, Kernel::Next, place, out);
    }
    let out = &mut scratch.columns[Column::LastBefore as usize];
    transitions.accumulate_one(last.item, query.now_ms, PRIOR, Kernel::Before, place, out);
}

pub(super) fn ease(
    generators: &Generators,
    query: &Query<'_>,
    places: impl Places,
    scratch: &mut ScoreScratch,
) {
    let history = || query.context.history.iter().rev().take(FOLDED);
    // Two folds of one model in one pass: reading its rows is most of the work.
    let both = history().scan((1.0, 1.0), |(recent, long), entry| {
        let weights = [if *recent < LEAST { 0.0 } else { *recent }, *long];
        *recent *= RECENT_DECAY;
        *long *= LONG_DECAY;
        Some((entry.item, weights))
    });
    let columns = [Column::Ease, Column::EaseLong];
    score(
        &generators.core,
        generators.ease.as_ref(),
        query,
        both,
        places,
        scratch,
        columns,
    );

    let likes = history()
        .filter(|entry| entry.is_like())
        .scan(1.0, |weight, entry| {
            let now = *weight;
            *weight *= RECENT_DECAY;
            (now >= LEAST).then_some((entry.item, [now]))
        });
    let columns = [Column::EaseLikes];
    score(
        &generators.core,
        generators.ease_likes.as_ref(),
        query,
        likes,
        places,
        scratch,
        columns,
    );
}

pub(super) fn next_item(
    generators: &Generators,
    query: &Query<'_>,
    places: impl Places,
    scratch: &mut ScoreScratch,
) {
    let mut past = std::mem::take(&mut scratch.past);
    next_item::weigh(query.context.history, &mut past);
    let weighed = past.iter().map(|&(item, weight)| (item, [weight]));
    let columns = [Column::NextItem];
    score(
        &generators.core,
        generators.next_item.as_ref(),
        query,
        weighed,
        places,
        scratch,
        columns,
    );
    scratch.past = past;
}

/// Scores `past`, weighted live items, once per weight, and moves the scores to their places.
fn score<const N: usize>(
    core: &Core,
    model: Option<&ItemWeights>,
    query: &Query<'_>,
    past: impl Iterator<Item = (u32, [f32; N])>,
    places: impl Places,
    scratch: &mut ScoreScratch,
    columns: [Column; N],
) {
    let Some(model) = model else { return };
    let row = |item| query.binding.model_index(item).and_then(|item| core.row(item));
    let past = past.filter_map(|(item, weights)| Some((row(item)?, weights)));
    let scores = model.score_into(past, &mut scratch.core_scores);
    let live = query.binding.live_of_model();
    for (place, column) in columns.into_iter().enumerate() {
        let out = &mut scratch.columns[column as usize];
        for (&item, scores) in core.items().iter().zip(scores) {
            let index = live.get(item as usize).copied().unwrap_or(UNKNOWN);
            if let Some(out) = out.get_mut(places.place(index)) {
                *out = scores[place];
            }
        }
    }
}
