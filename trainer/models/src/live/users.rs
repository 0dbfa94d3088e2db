//! What is kept of one user.

use serde::{Deserialize, Serialize};

use super::time_log::{TimeLog, Timed};

/// One act in a user's history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

/// As much of a [`HistoryEntry`] as others look at, in a third of its memory: searches for people alike read the
/// histories of a hundred others, and wait for little else.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Seconds since the epoch; what lies before is its beginning.
    time_s: u32,
    /// Twice the item's index, and one more for a like.
    item_and_like: u32,
}

impl Step {
    fn of(entry: &HistoryEntry) -> Self {
        Self {
            time_s: Self::second(entry.time_ms),
            item_and_like: entry.item << 1 | u32::from(entry.is_like()),
        }
    }

    /// How [`Self::time_s`] tells a time, milliseconds.
    pub(crate) fn second(time_ms: i64) -> u32 {
        u32::try_from(time_ms.max(0) / 1000).unwrap_or(u32::MAX)
    }

    pub(crate) fn time_s(self) -> u32 {
        self.time_s
    }

    pub(crate) fn item(self) -> u32 {
        self.item_and_like >> 1
    }

    pub(crate) fn is_like(self) -> bool {
        self.item_and_like & 1 == 1
    }
}

impl Timed for Step {
    fn time_ms(&self) -> i64 {
        i64::from(self.time_s) * 1000
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct UserState {
    history: TimeLog<HistoryEntry>,
    /// The same, briefly. Of one second in order of arrival.
    steps: TimeLog<Step>,
    /// Ascending, complete.
    seen: Vec<u32>,
    length: usize,
}

impl UserState {
    pub(super) fn history(&self) -> &[HistoryEntry] {
        self.history.entries()
    }

    pub(super) fn steps(&self) -> &[Step] {
        self.steps.entries()
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
        self.steps.insert(Step::of(&entry), limit);
        self.history.insert(entry, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_tells_item_like_and_second() {
        let entry = HistoryEntry::like(7, 1_700_000_000_999);
        let step = Step::of(&entry);
        assert_eq!(
            (step.item(), step.is_like(), step.time_s()),
            (7, true, 1_700_000_000)
        );
        let poor = Step::of(&HistoryEntry {
            rating: Some(2.0),
            time_ms: -5,
            ..entry
        });
        assert_eq!((poor.item(), poor.is_like(), poor.time_s()), (7, false, 0));
    }

    #[test]
    fn steps_follow_the_history_late_entries_and_limit_included() {
        let mut user = UserState::default();
        for (item, second) in [(1, 10), (2, 30), (3, 20), (4, 40), (5, 5), (6, 50)] {
            user.insert(HistoryEntry::like(item, second * 1000), 4);
        }
        let steps: Vec<u32> = user.steps().iter().map(|step| step.item()).collect();
        let history: Vec<u32> = user.history().iter().map(|entry| entry.item).collect();
        assert_eq!(steps, history);
        assert_eq!(steps, [3, 2, 4, 6]);
    }
}
