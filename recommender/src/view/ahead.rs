//! Events that the feature store has not published yet.
//!
//! An event reaches the view twice: at once from `interactions`, and again, after the feature processor's durable
//! commit, in a chunk of `features`. The first makes lists fresh without waiting for the second; the second is the
//! truth. Until it comes, the event stands *ahead* of the user's history. A chunk that brings the same entry confirms
//! it. What the processor has passed without bringing it (say, a repetition from before the last [`KEPT_IDS`] events)
//! is taken back from the history; what it added to the live state stays there until the next fold. Events that are no
//! part of a history (preferences, the watchlist, impressions) stand ahead too, as places in the order of the user's
//! events, but show with their publication only.
//!
//! Erasures come twice as well. The first time takes away everything older at once, also events that reach the view
//! later than the changelog's tombstone; what the changelog still says of that time is of a smaller epoch.
//!
//! Nothing rests on the first path: a view that misses it is only later.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::Entry;

/// Ids of this many events are remembered per partition, to pass over repetitions as the processor does.
const KEPT_IDS: usize = 1 << 16;

/// Events of one user that stand ahead at most; more wait for the feature store.
pub(super) const MAX_AHEAD: usize = 256;

/// An event that the feature store has not published yet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ahead {
    /// Its offset in the partition of `interactions`.
    pub offset: i64,
    /// What it adds to the history, if it does.
    pub entry: Option<Entry>,
}

/// Ids of the events that came last, by partition.
#[derive(Debug, Default)]
pub(super) struct RecentIds(BTreeMap<i32, (HashSet<u64>, VecDeque<u64>)>);

impl RecentIds {
    /// Remembers an id; `false` if it is a repetition.
    pub(super) fn admit(&mut self, partition: i32, event_id: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        event_id.hash(&mut hasher);
        let id = hasher.finish();
        let (known, order) = self.0.entry(partition).or_default();
        if !known.insert(id) {
            return false;
        }
        order.push_back(id);
        if order.len() > KEPT_IDS
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_known_while_they_are_recent_and_memory_is_bounded() {
        let mut ids = RecentIds::default();
        assert!(ids.admit(0, "a"));
        assert!(!ids.admit(0, "a"));
        assert!(
            ids.admit(1, "a"),
            "partitions are judged apart, as the processor does"
        );
        for n in 0..KEPT_IDS {
            assert!(ids.admit(0, &n.to_string()));
        }
        assert!(ids.admit(0, "a"));
        assert_eq!(ids.0[&0].0.len(), KEPT_IDS);
        assert_eq!(ids.0[&0].1.len(), KEPT_IDS);
    }
}
