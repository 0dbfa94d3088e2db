//! What is kept of one user.

use super::time_log::{TimeLog, Timed};

/// One act in a user's history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistoryEntry {
    /// Dense item index.
    pub item: u32,
    /// Stars, when the act was a rating.
    pub rating: Option<f32>,
    /// Strength of the act by its kind.
    pub weight: f32,
    /// Event time, milliseconds.
    pub time_ms: i64,
}

impl HistoryEntry {
    /// A plain like of `item` at `time_ms`: how seed items enter an explicit history.
    #[must_use]
    pub fn like(item: u32, time_ms: i64) -> Self {
        Self {
            item,
            rating: None,
            weight: 1.0,
            time_ms,
        }
    }

    /// Same rule as [`super::Interaction::is_like`].
    #[must_use]
    pub fn is_like(&self) -> bool {
        super::is_like(self.rating, self.weight)
    }
}

impl Timed for HistoryEntry {
    fn time_ms(&self) -> i64 {
        self.time_ms
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct UserState {
    history: TimeLog<HistoryEntry>,
    /// Ascending, complete.
    seen: Vec<u32>,
    length: usize,
}

impl UserState {
    pub(super) fn history(&self) -> &[HistoryEntry] {
        self.history.entries()
    }

    pub(super) fn seen(&self) -> &[u32] {
        &self.seen
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn last_ms(&self) -> Option<i64> {
        self.history().last().map(|entry| entry.time_ms)
    }

    pub(super) fn insert(&mut self, entry: HistoryEntry, limit: usize) {
        self.length += 1;
        if let Err(place) = self.seen.binary_search(&entry.item) {
            self.seen.insert(place, entry.item);
        }
        self.history.insert(entry, limit);
    }
}
