//! What is kept of one item.

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

/// Sums in forward-decayed units; see [`super::decay`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ItemState {
    pub(crate) likes: [f64; HALF_LIVES],
    pub(crate) interactions: [f64; HALF_LIVES],
    pub(crate) positions: [f64; POSITION_BUCKETS],
    pub(crate) count: u32,
    pub(crate) like_count: u32,
    rated: u32,
    stars: f64,
    pub(crate) first_ms: Option<i64>,
    pub(crate) last_ms: Option<i64>,
}

impl ItemState {
    pub(super) fn scale_popularity(&mut self, slot: usize, scale: f64) {
        self.likes[slot] *= scale;
        self.interactions[slot] *= scale;
    }

    pub(super) fn add_popularity(&mut self, slot: usize, weight: f64, like: bool) {
        self.interactions[slot] += weight;
        if like {
            self.likes[slot] += weight;
        }
    }

    pub(super) fn scale_positions(&mut self, scale: f64) {
        for position in &mut self.positions {
            *position *= scale;
        }
    }

    pub(super) fn add_position(&mut self, bucket: usize, weight: f64) {
        self.positions[bucket] += weight;
    }

    pub(super) fn count(&mut self, event: &Interaction, like: bool) {
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

    pub(super) fn stats(&self, factors: &[f64; HALF_LIVES]) -> ItemStats {
        ItemStats {
            likes: std::array::from_fn(|slot| (self.likes[slot] * factors[slot]) as f32),
            interactions: std::array::from_fn(|slot| (self.interactions[slot] * factors[slot]) as f32),
            count: self.count,
            like_count: self.like_count,
            mean_rating: self.mean_rating(),
            first_ms: self.first_ms,
            last_ms: self.last_ms,
        }
    }
}
