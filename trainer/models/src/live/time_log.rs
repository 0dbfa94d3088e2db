//! A bounded list of what happened, in order of event time.

use serde::{Deserialize, Serialize};

/// Anything that happened at a time.
pub(super) trait Timed {
    fn time_ms(&self) -> i64;
}

/// The newest entries up to a limit, ascending in time; entries of equal time stay in order of arrival.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TimeLog<T> {
    entries: Vec<T>,
    /// Leading entries that the limit has already dropped (removed in bulk, so that a drop costs O(1)).
    dropped: usize,
}

impl<T> Default for TimeLog<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            dropped: 0,
        }
    }
}

impl<T: Timed> TimeLog<T> {
    pub(super) fn entries(&self) -> &[T] {
        &self.entries[self.dropped..]
    }

    /// Takes `entry` in at its place in time, and lets the oldest go when there are more than `limit`.
    pub(super) fn insert(&mut self, entry: T, limit: usize) {
        let place = self
            .entries
            .partition_point(|other| other.time_ms() <= entry.time_ms());
        // Older than everything that a full log still keeps.
        if place < self.dropped || (place == self.dropped && self.entries.len() - self.dropped >= limit) {
            return;
        }
        self.entries.insert(place, entry);
        if self.entries.len() - self.dropped > limit {
            self.dropped += 1;
        }
        if self.dropped >= limit {
            self.entries.drain(..self.dropped);
            self.dropped = 0;
        }
    }
}
