//! Retrain events: making one by hand, joining several.

use std::collections::BTreeMap;

use marquee_runtime::Clock;
use marquee_schemas::{Offset, PartitionOffset, RetrainEvent, SchemaVersion, Trigger};

/// A request to train by a person, with a written reason, on all data there is when the run starts.
///
/// Its id is a function of reason and time: the same request sent twice within a millisecond is one request.
#[must_use]
pub fn manual_retrain_event(reason: &str, clock: &dyn Clock) -> RetrainEvent {
    let decided_at_ms = clock.now_ms();
    let digest = crate::durable::sha256_hex(reason.as_bytes());
    RetrainEvent {
        schema_version: SchemaVersion,
        event_id: format!("manual/{decided_at_ms}/{}", &digest[..12]),
        trigger: Trigger::Manual,
        reason: reason.to_owned(),
        numbers: BTreeMap::new(),
        offsets: Vec::new(),
        champion: None,
        decided_at_ms,
    }
}

/// The data that serves every one of `events`: a partition is bounded only if all of them bound it, at the furthest
/// of their offsets; one that asks for everything gets everything.
pub(crate) fn joined_offsets(events: &[RetrainEvent]) -> Vec<PartitionOffset> {
    let mut bounds: BTreeMap<(&str, i32), (usize, i64)> = BTreeMap::new();
    for event in events {
        let mut named: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        for at in &event.offsets {
            let end = named.entry((&at.topic, at.partition)).or_insert(at.offset.0);
            *end = (*end).max(at.offset.0);
        }
        for (partition, end) in named {
            let (count, furthest) = bounds.entry(partition).or_insert((0, end));
            *count += 1;
            *furthest = (*furthest).max(end);
        }
    }
    bounds
        .into_iter()
        .filter(|(_, (count, _))| *count == events.len())
        .map(|((topic, partition), (_, offset))| PartitionOffset {
            topic: topic.to_owned(),
            partition,
            offset: Offset(offset),
        })
        .collect()
}

/// All reasons in one sentence, each trigger once named with its own.
pub(crate) fn joined_reason(events: &[RetrainEvent]) -> String {
    let mut reasons: Vec<String> = Vec::new();
    for event in events {
        let trigger = serde_json::to_value(event.trigger)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default();
        let reason = format!("{trigger}: {}", event.reason);
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use marquee_runtime::ManualClock;

    fn event(offsets: &[(i32, i64)]) -> RetrainEvent {
        RetrainEvent {
            offsets: offsets
                .iter()
                .map(|&(partition, offset)| PartitionOffset {
                    topic: "interactions".into(),
                    partition,
                    offset: Offset(offset),
                })
                .collect(),
            ..manual_retrain_event("because", &ManualClock::at(7))
        }
    }

    #[test]
    fn joined_events_read_to_the_furthest_bound_that_all_of_them_set() {
        let joined = joined_offsets(&[event(&[(0, 5), (1, 9)]), event(&[(0, 7)])]);
        assert_eq!(joined.len(), 1);
        assert_eq!((joined[0].partition, joined[0].offset), (0, Offset(7)));
        assert!(joined_offsets(&[event(&[(0, 5)]), event(&[])]).is_empty());
    }

    #[test]
    fn a_manual_event_is_identified_by_its_reason_and_time() {
        let clock = ManualClock::at(7);
        let one = manual_retrain_event("new genre", &clock);
        assert_eq!(one, manual_retrain_event("new genre", &clock));
        assert_ne!(one.event_id, manual_retrain_event("old genre", &clock).event_id);
        assert_eq!(joined_reason(&[one.clone(), one]), "manual: new genre");
    }
}
