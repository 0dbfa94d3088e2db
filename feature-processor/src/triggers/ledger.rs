//! What the coordinator remembers.

use std::collections::{BTreeMap, BTreeSet};

use marquee_schemas::{ModelEvent, ModelVersion, PartitionOffset, RetrainEvent, Topic, Trigger};
use serde::{Deserialize, Serialize};

use super::metrics::Metrics;
use super::quality::QualityHistory;
use crate::Counters;
use crate::wire::{Reader, corrupt};

/// What one partition contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartitionTotals {
    /// Next offset to read.
    pub next_offset: i64,
    /// History interactions applied.
    pub history: u64,
    /// Users with history.
    pub users: u64,
}

impl PartitionTotals {
    /// The totals of a store with these counters.
    #[must_use]
    pub fn of(counters: &Counters) -> Self {
        Self {
            next_offset: counters.next_offset().unwrap_or(0),
            history: counters.history,
            users: counters.history_users,
        }
    }
}

/// A request that has not been answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) event_id: String,
    pub(super) offsets: BTreeMap<i32, i64>,
    pub(super) at_ms: i64,
    /// Totals when it was made, or heard of.
    pub(super) interactions: u64,
    pub(super) users: u64,
}

impl Request {
    pub(super) fn of(event: &RetrainEvent, interactions: u64, users: u64) -> Self {
        Self {
            event_id: event.event_id.clone(),
            offsets: named_offsets(&event.offsets),
            at_ms: event.decided_at_ms,
            interactions,
            users,
        }
    }
}

/// The end of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TrainingEnd {
    /// The request that it names; one training may answer several.
    pub(super) event_id: Option<String>,
    pub(super) offsets: BTreeMap<i32, i64>,
    pub(super) at_ms: i64,
}

impl TrainingEnd {
    pub(super) fn of(event: &ModelEvent) -> Self {
        Self {
            event_id: event.retrain_event_id.clone(),
            offsets: named_offsets(&event.offsets),
            at_ms: event.at_ms,
        }
    }

    /// Whether this training answers the request: it names it, or it saw all data that was asked for and ended later.
    pub(super) fn answers(&self, request: &Request) -> bool {
        self.event_id.as_ref() == Some(&request.event_id)
            || (self.at_ms > request.at_ms
                && !self.offsets.is_empty()
                && request.offsets.iter().all(|(partition, wanted)| {
                    self.offsets.get(partition).is_some_and(|seen| seen >= wanted)
                }))
    }
}

/// Totals at the end of the last training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    pub(super) interactions: u64,
    pub(super) users: u64,
    pub(super) at_ms: i64,
}

/// A training that saw more than this process has folded: its own state is being made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ahead {
    pub(super) offsets: BTreeMap<i32, i64>,
    pub(super) at_ms: i64,
}

/// A change that has been found and not yet been answered by a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Alarm {
    /// What it was found in: a window's number or a metric's window.
    pub(super) id: String,
    pub(super) what: Vec<String>,
    pub(super) numbers: BTreeMap<String, f64>,
}

/// A challenger on its way to everybody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollout {
    pub(super) version: ModelVersion,
    /// Its newest step, ms.
    pub(super) at_ms: i64,
    /// The training that made it; `None` in a ledger from before this was remembered.
    #[serde(default)]
    pub(super) training: Option<TrainingEnd>,
}

/// Everything durable but the monitor's histograms.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    /// The total up to which requests for volume have been made; `None` before the first.
    pub(super) answered: Option<u64>,
    /// Every partition this process ever had, as last seen.
    pub(super) known: BTreeMap<i32, PartitionTotals>,
    pub(super) base: Option<Base>,
    /// What the base will be once it has been folded: with totals of less, all of it would look new.
    pub(super) ahead: Option<Ahead>,
    pub(super) request: Option<Request>,
    pub(super) last_training: Option<TrainingEnd>,
    /// Until it ends, a further training would have nobody to be compared with.
    pub(super) rollout: Option<Rollout>,
    pub(super) champion: Option<ModelVersion>,
    /// Where to go on reading the topics that tell of models and metrics.
    pub(super) positions: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Windows cut so far, and the first segment of each partition that is in none of them.
    pub(super) windows: u64,
    pub(super) consumed: BTreeMap<i32, u64>,
    pub(super) drift: Option<Alarm>,
    pub(super) watchlist: Option<Alarm>,
    pub(super) quality: QualityHistory,
    pub(super) metrics: Metrics,
    pub(super) decisions: u64,
    pub(super) decided_total: u64,
    pub(super) decided_at_ms: i64,
    /// Triggers that were due at the last decision and had to wait.
    pub(super) held: BTreeSet<Trigger>,
}

impl Ledger {
    pub(super) fn total(&self) -> u64 {
        self.known.values().map(|totals| totals.history).sum()
    }

    pub(super) fn users(&self) -> u64 {
        self.known.values().map(|totals| totals.users).sum()
    }

    /// Whether everything before these offsets has been folded, as far as it is this process's.
    fn has_folded(&self, offsets: &BTreeMap<i32, i64>) -> bool {
        !self.known.is_empty()
            && self.known.iter().all(|(partition, totals)| {
                offsets
                    .get(partition)
                    .is_none_or(|&end| totals.next_offset >= end)
            })
    }

    /// A training has ended that saw what lies before `offsets`; `answered` is the request that it was for. With a
    /// champion, no first model need be asked for.
    pub(super) fn trained(&mut self, offsets: &BTreeMap<i32, i64>, at_ms: i64, answered: Option<&Request>) {
        if !self.has_folded(offsets) {
            self.ahead = Some(Ahead {
                offsets: offsets.clone(),
                at_ms,
            });
            return;
        }
        self.ahead = None;
        let (interactions, users) = answered.map_or((self.total(), self.users()), |request| {
            (request.interactions, request.users)
        });
        self.base = Some(Base {
            interactions,
            users,
            at_ms,
        });
        if self.champion.is_some() && self.answered.is_none() {
            self.answered = Some(self.total());
        }
    }

    /// Takes the totals for those of the last training as soon as what it saw has been folded. `false` if nothing changes.
    pub(super) fn catch_up(&mut self) -> bool {
        let Some(ahead) = self.ahead.clone().filter(|ahead| self.has_folded(&ahead.offsets)) else {
            return false;
        };
        // A training that failed since has begun a pause of its own.
        let at_ms = self.base.map_or(ahead.at_ms, |base| base.at_ms.max(ahead.at_ms));
        self.trained(&ahead.offsets, at_ms, None);
        true
    }

    /// The partitions it speaks for, as part of an id.
    pub(super) fn scope(&self) -> String {
        let scope: Vec<String> = self.known.keys().map(i32::to_string).collect();
        scope.join(".")
    }

    pub(super) fn position(&self, topic: Topic, partition: i32) -> Option<i64> {
        self.positions.get(topic.name())?.get(&partition).copied()
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, redb::Error> {
        serde_json::to_vec(self).map_err(|error| corrupt(&format!("trigger ledger: {error}")))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        match Reader::new(bytes) {
            // Before the ledger was JSON, it began with this version.
            Some((1, mut reader)) => Self::decode_v1(&mut reader).ok_or_else(|| corrupt("trigger ledger")),
            _ => serde_json::from_slice(bytes).map_err(|error| corrupt(&format!("trigger ledger: {error}"))),
        }
    }

    fn decode_v1(reader: &mut Reader<'_>) -> Option<Self> {
        let asked = reader.u8()? != 0;
        let answered = reader.count()?;
        let mut ledger = Self {
            answered: asked.then_some(answered),
            ..Self::default()
        };
        for _ in 0..reader.len(18)? {
            let partition = i32::try_from(reader.i64()?).ok()?;
            let totals = PartitionTotals {
                next_offset: reader.i64()?,
                history: reader.count()?,
                users: reader.count()?,
            };
            ledger.known.insert(partition, totals);
        }
        reader.end()?;
        Some(ledger)
    }
}

/// The offsets of `interactions` by partition.
pub(super) fn named_offsets(offsets: &[PartitionOffset]) -> BTreeMap<i32, i64> {
    offsets
        .iter()
        .filter(|at| at.topic == Topic::Interactions.name())
        .map(|at| (at.partition, at.offset.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_back_and_damaged_bytes_are_refused() {
        let ledger = Ledger {
            answered: Some(5),
            known: [(
                3,
                PartitionTotals {
                    next_offset: 9,
                    history: 1,
                    users: 1,
                },
            )]
            .into(),
            request: Some(Request {
                event_id: "e".into(),
                offsets: [(3, 9)].into(),
                at_ms: 4,
                interactions: 1,
                users: 1,
            }),
            held: [Trigger::Drift].into(),
            ..Ledger::default()
        };
        let bytes = ledger.encode().unwrap();
        assert_eq!(Ledger::decode(&bytes).unwrap(), ledger);
        for end in 0..bytes.len() {
            assert!(Ledger::decode(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_ledger_of_the_first_format_is_read() {
        let mut writer = crate::wire::Writer::new(1);
        writer.u8(1);
        writer.count(12_000);
        writer.len(1);
        writer.i64(2);
        writer.i64(77);
        writer.count(60);
        writer.count(6);
        let ledger = Ledger::decode(&writer.0).unwrap();
        assert_eq!(
            (ledger.answered, ledger.total(), ledger.users()),
            (Some(12_000), 60, 6)
        );
        assert_eq!(ledger.scope(), "2");
    }

    #[test]
    fn a_training_answers_the_request_it_names_and_those_whose_data_it_saw() {
        let request = |id: &str, offset, at_ms| Request {
            event_id: id.into(),
            offsets: [(0, offset)].into(),
            at_ms,
            interactions: 0,
            users: 0,
        };
        let end = TrainingEnd {
            event_id: Some("a".into()),
            offsets: [(0, 100), (1, 5)].into(),
            at_ms: 50,
        };
        assert!(end.answers(&request("a", 999, 60)));
        assert!(end.answers(&request("b", 100, 49)));
        assert!(!end.answers(&request("b", 101, 40)));
        assert!(!end.answers(&request("b", 10, 50)));
        let failed = TrainingEnd {
            offsets: BTreeMap::new(),
            ..end
        };
        assert!(!failed.answers(&request("b", 0, 0)));
    }
}
