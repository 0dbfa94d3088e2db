//! What is kept of items.

use serde::{Deserialize, Serialize};

use super::decay::EventWeight;
use super::sums::Sums;
use super::{HALF_LIVES, Interaction, POSITION_BUCKETS};

/// Statistics of one item at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ItemStats {
    /// Decayed number of likes, one per half-life.
    pub likes: [f32; HALF_LIVES],
    /// Decayed number of interactions of any kind, one per half-life.
    pub interactions: [f32; HALF_LIVES],
    /// Interactions ever.
    pub count: u32,
    /// Likes ever.
    pub like_count: u32,
    /// Mean stars over rated interactions; `None` without one.
    pub mean_rating: Option<f32>,
    /// Event time of the oldest interaction, milliseconds.
    pub first_ms: Option<i64>,
    /// Event time of the newest interaction, milliseconds.
    pub last_ms: Option<i64>,
}

/// What does not decay, of one item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ItemState {
    pub(crate) count: u32,
    pub(crate) like_count: u32,
    rated: u32,
    stars: f64,
    pub(crate) first_ms: Option<i64>,
    pub(crate) last_ms: Option<i64>,
}

impl ItemState {
    fn count(&mut self, event: &Interaction, like: bool) {
        self.count = self.count.saturating_add(1);
        self.like_count = self.like_count.saturating_add(u32::from(like));
        if let Some(stars) = event.rating.filter(|stars| stars.is_finite()) {
            self.rated = self.rated.saturating_add(1);
            self.stars += f64::from(stars);
        }
        self.first_ms = Some(
            self.first_ms
                .map_or(event.time_ms, |first| first.min(event.time_ms)),
        );
        self.last_ms = Some(self.last_ms.map_or(event.time_ms, |last| last.max(event.time_ms)));
    }

    pub(crate) fn mean_rating(&self) -> Option<f32> {
        (self.rated > 0).then(|| (self.stars / f64::from(self.rated)) as f32)
    }
}

/// All items. Decayed sums lie one column per half-life: a request reads whole columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Items {
    states: Vec<ItemState>,
    likes: [Sums; HALF_LIVES],
    interactions: [Sums; HALF_LIVES],
    positions: [Sums; POSITION_BUCKETS],
}

impl Items {
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    pub(super) fn grow(&mut self, items: usize) {
        if self.states.len() >= items {
            return;
        }
        self.states.resize_with(items, ItemState::default);
        let decayed = self.likes.iter_mut().chain(&mut self.interactions);
        for column in decayed.chain(&mut self.positions) {
            column.grow(items);
        }
    }

    pub(crate) fn get(&self, item: u32) -> Option<&ItemState> {
        self.states.get(item as usize)
    }

    pub(super) fn count(&mut self, event: &Interaction, like: bool) {
        self.states[event.item as usize].count(event, like);
    }

    pub(super) fn add_popularity(&mut self, slot: usize, item: u32, weight: EventWeight, like: bool) {
        self.interactions[slot].add(item, weight, true);
        self.likes[slot].add(item, weight, like);
    }

    pub(super) fn add_position(&mut self, bucket: usize, item: u32, weight: EventWeight) {
        for (place, column) in self.positions.iter_mut().enumerate() {
            column.add(item, weight, place == bucket);
        }
    }

    /// Likes at a half-life.
    pub(crate) fn likes(&self, slot: usize) -> &Sums {
        &self.likes[slot]
    }

    /// Interactions of any kind at a half-life.
    pub(crate) fn interactions(&self, slot: usize) -> &Sums {
        &self.interactions[slot]
    }

    /// Interactions of people with so long a history.
    pub(crate) fn positions(&self, bucket: usize) -> &Sums {
        &self.positions[bucket]
    }

    /// Forward-decayed interactions of an item, whatever the length of the history.
    pub(crate) fn all_positions(&self, item: u32) -> f64 {
        let of = |column: &Sums| column.values().get(item as usize).copied().unwrap_or(0.0);
        self.positions.iter().map(of).sum()
    }

    /// Forward-decayed interactions of people with so long a history, and of all, over all items.
    pub(crate) fn position_totals(&self, bucket: usize) -> (f64, f64) {
        (
            self.positions[bucket].total(),
            self.positions.iter().map(Sums::total).sum(),
        )
    }

    pub(super) fn stats(&self, item: u32, factors: &[f64; HALF_LIVES]) -> Option<ItemStats> {
        let state = self.get(item)?;
        let index = item as usize;
        let at = |sums: &Sums, slot: usize| (sums.values()[index] * factors[slot]) as f32;
        Some(ItemStats {
            likes: std::array::from_fn(|slot| at(&self.likes[slot], slot)),
            interactions: std::array::from_fn(|slot| at(&self.interactions[slot], slot)),
            count: state.count,
            like_count: state.like_count,
            mean_rating: state.mean_rating(),
            first_ms: state.first_ms,
            last_ms: state.last_ms,
        })
    }
}
