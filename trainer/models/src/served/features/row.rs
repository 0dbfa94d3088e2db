//! From columns to what the ranker sees of one candidate: scores relative to their list, facts as they are, and the
//! circumstances.

use super::facts::Facts;
use super::{ALL, COLUMNS, Column, SCORES};
use crate::live::{HistoryEntry, ItemState};
use crate::metrics::{rank_key, ranked_index};
use crate::served::blend::NO_VARIANCE;
use crate::served::context::{Query, ScoreScratch};

/// Circumstances, equal for every candidate of a list.
pub(crate) const CIRCUMSTANCES: usize = 11;
/// Sources by which candidates are also ranked among themselves: an order says what a score of unknown shape cannot.
const RANKED: [Column; 8] = [
    Column::After,
    Column::Next,
    Column::LastAfter,
    Column::Ease,
    Column::EaseLikes,
    Column::NextItem,
    Column::AlikeNext,
    Column::AlikeNear,
];
/// Numbers per candidate: every column, blend score, blend rank, ranks by source, circumstances.
pub(crate) const WIDTH: usize = COLUMNS + 2 + RANKED.len() + CIRCUMSTANCES;

/// What makes a list's scores comparable: mean and spread of each column and of the blend, over all items, and the
/// ranks of its candidates.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListStats {
    mean: Vec<f32>,
    inverse_spread: Vec<f32>,
    /// By candidate, for each source in [`RANKED`].
    ranks: [Vec<f32>; RANKED.len()],
    keys: Vec<u64>,
    circumstances: [f32; CIRCUMSTANCES],
}

impl ListStats {
    /// Measures the list whose candidates, `scratch.order`, the blend has put in order.
    pub(crate) fn measure(&mut self, query: &Query<'_>, scratch: &ScoreScratch) {
        let (columns, candidates) = (&scratch.columns, &scratch.order);
        self.mean.clear();
        self.inverse_spread.clear();
        for (mean, variance) in scratch.moments[..SCORES]
            .iter()
            .copied()
            .chain([scratch.score_moments()])
        {
            self.mean.push(mean);
            self.inverse_spread.push(if variance > NO_VARIANCE {
                1.0 / variance.sqrt()
            } else {
                0.0
            });
        }
        for (ranks, source) in self.ranks.iter_mut().zip(RANKED) {
            let column = &columns[source as usize];
            self.keys.clear();
            self.keys.extend(
                (0_u32..)
                    .zip(candidates)
                    .map(|(place, &item)| rank_key(column[scratch.place(item)], place)),
            );
            self.keys.sort_unstable();
            ranks.clear();
            ranks.resize(candidates.len(), 0.0);
            for (rank, &key) in self.keys.iter().enumerate() {
                ranks[ranked_index(key) as usize] = rank as f32;
            }
        }
        self.circumstances = circumstances(query);
    }

    /// Writes the row of `item`, which the blend put on `rank`, into `out` (length [`WIDTH`]).
    pub(crate) fn row(
        &self,
        scratch: &ScoreScratch,
        facts: &Facts<'_>,
        item: u32,
        rank: usize,
        out: &mut [f32],
    ) {
        let index = scratch.place(item);
        let (scores, rest) = out.split_at_mut(SCORES);
        for (place, out) in scores.iter_mut().enumerate() {
            *out = (scratch.columns[place][index] - self.mean[place]) * self.inverse_spread[place];
        }
        for (out, &column) in rest.iter_mut().zip(&ALL[SCORES..]) {
            *out = facts.value(column, item);
        }
        out[COLUMNS] = (scratch.scores[index] - self.mean[SCORES]) * self.inverse_spread[SCORES];
        out[COLUMNS + 1] = rank as f32;
        let (ranks, circumstances) = out[COLUMNS + 2..].split_at_mut(RANKED.len());
        for (out, ranks) in ranks.iter_mut().zip(&self.ranks) {
            *out = ranks[rank];
        }
        circumstances.copy_from_slice(&self.circumstances);
    }
}

fn circumstances(query: &Query<'_>) -> [f32; CIRCUMSTANCES] {
    let history = query.context.history;
    let Some(last) = history.last() else {
        return [0.0; CIRCUMSTANCES];
    };
    let gap_ms = query.live.params().session_gap_ms;
    let mut session = 1;
    for pair in history.windows(2).rev() {
        if pair[1].time_ms - pair[0].time_ms > gap_ms {
            break;
        }
        session += 1;
    }
    let recent = &history[history.len().saturating_sub(10)..];
    let known = recent
        .iter()
        .map(|entry| level(query, entry, |item| (1.0 + item.count as f32).ln()))
        .sum::<f32>();
    let stars = recent
        .iter()
        .map(|entry| level(query, entry, |item| item.mean_rating().unwrap_or(0.0)))
        .sum::<f32>();
    let likes = recent.iter().filter(|entry| entry.is_like()).count() as f32 / recent.len() as f32;
    let together = history
        .iter()
        .rev()
        .take_while(|entry| entry.time_ms == last.time_ms)
        .count();
    let span_ms = last.time_ms - recent[0].time_ms;
    [
        (1.0 + query.context.length as f32).ln(),
        (1.0 + session as f32).ln(),
        seconds(query.now_ms - last.time_ms),
        seconds(span_ms) - (recent.len() as f32).ln(),
        likes,
        mean_rating(recent),
        mean_rating(history),
        last.rating.unwrap_or(0.0),
        together as f32,
        known / recent.len() as f32,
        stars / recent.len() as f32,
    ]
}

fn level(query: &Query<'_>, entry: &HistoryEntry, of: impl Fn(&ItemState) -> f32) -> f32 {
    query.live.item_columns().get(entry.item).map_or(0.0, of)
}

fn mean_rating(entries: &[HistoryEntry]) -> f32 {
    let (sum, count) = entries
        .iter()
        .filter_map(|entry| entry.rating)
        .fold((0.0, 0.0), |(sum, count), stars| (sum + stars, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

fn seconds(ms: i64) -> f32 {
    (1.0 + ms.max(0) as f32 / 1000.0).ln()
}
