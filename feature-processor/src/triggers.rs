//! When to ask for a training, over all partitions of this process.
//!
//! The counts that decide are cumulative and durable in each partition's file. This file, `triggers.redb`, holds only
//! what has been *decided*: up to which total the interactions have been answered for, and the event still to be
//! sent. A decision and its event are one transaction. If a crash comes between a partition's commit and the decision
//! that it makes due, the totals are still there at the next start and the decision falls then; if it comes after
//! the decision, the total answered for says so. So each decision falls once.
//!
//! Decisions lie on a grid of totals (`bootstrap_min_interactions` + k × `volume_interactions`), so that their ids do
//! not depend on how the log was cut into batches: event `volume-p0.1.2.3-12000` is the request that became due when
//! these partitions together held 12,000 interactions. Several grid points passed between two looks make one
//! request, for the newest. The totals of partitions that were given back are remembered, so that the sum never falls.
//!
//! Processes that share the group decide each about its own partitions; the ids name the partitions, so that
//! requests of different processes are not taken for one another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{Offset, PartitionOffset, Record, RetrainEvent, SchemaVersion, Topic, Trigger, encode};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::store::begin;
use crate::wire::{Reader, Writer, corrupt};
use crate::{Counters, CrashPoint, Error, Faults, TriggerConfig};

/// `""` → the [`Ledger`].
const LEDGER: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("ledger");
/// Number → key and value of a retrain event not yet acknowledged.
const OUTBOX: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("outbox");

const VERSION: u8 = 1;

/// What one partition contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// What has been decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ledger {
    /// The total up to which requests have been made; `None` before the first.
    answered: Option<u64>,
    /// Every partition this process ever had, as last seen.
    known: BTreeMap<i32, PartitionTotals>,
}

/// A decision to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    trigger: Trigger,
    /// The new [`Ledger::answered`].
    answered: u64,
    since_last: u64,
}

/// Decides from totals alone.
fn decide(config: &TriggerConfig, answered: Option<u64>, total: u64, users: u64) -> Option<Decision> {
    let on_grid = |from: u64| from + (total - from) / config.volume_interactions * config.volume_interactions;
    match answered {
        None => {
            (total >= config.bootstrap_min_interactions && users >= config.bootstrap_min_users).then(|| {
                Decision {
                    trigger: Trigger::Bootstrap,
                    answered: on_grid(config.bootstrap_min_interactions),
                    since_last: total,
                }
            })
        }
        Some(answered) => {
            let since_last = total.saturating_sub(answered);
            (since_last >= config.volume_interactions).then(|| Decision {
                trigger: Trigger::Volume,
                answered: on_grid(answered),
                since_last,
            })
        }
    }
}

/// The coordinator of retrain requests.
pub struct Triggers {
    path: PathBuf,
    config: TriggerConfig,
    db: Database,
    ledger: Ledger,
    waiting: BTreeMap<u64, Outgoing>,
}

impl std::fmt::Debug for Triggers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Triggers")
            .field("path", &self.path)
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}

impl Triggers {
    /// Opens or creates `triggers.redb` in `folder`, which must exist.
    ///
    /// # Errors
    /// [`Error::Store`] if the file cannot be opened or read.
    pub fn open(folder: &Path, config: TriggerConfig) -> Result<Self, Error> {
        let path = folder.join("triggers.redb");
        Self::load(&path, config).map_err(Error::store(&path))
    }

    fn load(path: &Path, config: TriggerConfig) -> Result<Self, redb::Error> {
        let db = Database::create(path)?;
        let txn = begin(&db)?;
        txn.open_table(LEDGER)?;
        txn.open_table(OUTBOX)?;
        txn.commit()?;
        let txn = db.begin_read()?;
        let ledger = match txn.open_table(LEDGER)?.get("")? {
            Some(bytes) => Ledger::decode(bytes.value())?,
            None => Ledger::default(),
        };
        let mut waiting = BTreeMap::new();
        for row in txn.open_table(OUTBOX)?.iter()? {
            let (number, bytes) = row?;
            waiting.insert(number.value(), outgoing_of(bytes.value())?);
        }
        drop(txn);
        Ok(Self {
            path: path.to_owned(),
            config,
            db,
            ledger,
            waiting,
        })
    }

    /// Looks at the totals of the partitions that this process has now, and records a request if one is due.
    ///
    /// # Errors
    /// [`Error::Store`] if the decision cannot be recorded: it falls again at the next look.
    pub fn evaluate(
        &mut self,
        live: &BTreeMap<i32, PartitionTotals>,
        now_ms: i64,
        faults: &dyn Faults,
    ) -> Result<(), Error> {
        let mut known = self.ledger.known.clone();
        known.extend(live);
        let total = known.values().map(|totals| totals.history).sum();
        let users = known.values().map(|totals| totals.users).sum();
        let Some(decision) = decide(&self.config, self.ledger.answered, total, users) else {
            return Ok(());
        };
        faults.pass(CrashPoint::BeforeDecision)?;
        let event = self.event(&decision, &known, live, total, users, now_ms);
        tracing::info!(
            event_id = event.event_id,
            reason = event.reason,
            "asking for a training"
        );
        let ledger = Ledger {
            answered: Some(decision.answered),
            known,
        };
        let number = self.waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        let outgoing = Outgoing {
            topic: Topic::RetrainEvents,
            partition: None,
            key: event.key(),
            value: Some(encode(&event)),
        };
        self.record(&ledger, Some((number, &outgoing)))
            .map_err(Error::store(&self.path))?;
        self.ledger = ledger;
        self.waiting.insert(number, outgoing);
        Ok(())
    }

    fn event(
        &self,
        decision: &Decision,
        known: &BTreeMap<i32, PartitionTotals>,
        live: &BTreeMap<i32, PartitionTotals>,
        total: u64,
        users: u64,
        now_ms: i64,
    ) -> RetrainEvent {
        let scope: Vec<String> = known.keys().map(i32::to_string).collect();
        let scope = scope.join(".");
        let (event_id, reason, threshold) = match decision.trigger {
            Trigger::Bootstrap => (
                format!("bootstrap-p{scope}"),
                format!(
                    "enough data for a first model: {total} interactions of {users} users, wanted were {} of {}",
                    self.config.bootstrap_min_interactions, self.config.bootstrap_min_users
                ),
                self.config.bootstrap_min_interactions,
            ),
            _ => (
                format!("volume-p{scope}-{}", decision.answered),
                format!(
                    "{} interactions since the last request, one is made per {}",
                    decision.since_last, self.config.volume_interactions
                ),
                self.config.volume_interactions,
            ),
        };
        let numbers = [
            ("interactions", total),
            ("interactions_since_last", decision.since_last),
            ("users", users),
            ("threshold", threshold),
        ];
        RetrainEvent {
            schema_version: SchemaVersion,
            event_id,
            trigger: decision.trigger,
            reason,
            numbers: numbers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value as f64))
                .collect(),
            offsets: live
                .iter()
                .map(|(&partition, totals)| PartitionOffset {
                    topic: Topic::Interactions.to_string(),
                    partition,
                    offset: Offset(totals.next_offset),
                })
                .collect(),
            champion: None,
            decided_at_ms: now_ms,
        }
    }

    /// Remembers the totals of a partition that is given back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&mut self, partition: i32, totals: PartitionTotals) -> Result<(), Error> {
        let mut ledger = self.ledger.clone();
        ledger.known.insert(partition, totals);
        self.record(&ledger, None).map_err(Error::store(&self.path))?;
        self.ledger = ledger;
        Ok(())
    }

    /// Requests not yet acknowledged, oldest first.
    #[must_use]
    pub fn outgoing(&self) -> Vec<Outgoing> {
        self.waiting.values().cloned().collect()
    }

    /// Notes that everything [`Triggers::outgoing`] returned has been acknowledged.
    ///
    /// # Errors
    /// The file cannot be written: the requests will be sent again, under the same ids.
    pub fn published(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let clear = || -> Result<(), redb::Error> {
            let txn = begin(&self.db)?;
            let mut outbox = txn.open_table(OUTBOX)?;
            for &number in self.waiting.keys() {
                outbox.remove(number)?;
            }
            drop(outbox);
            txn.commit()?;
            Ok(())
        };
        clear().map_err(Error::store(&self.path))?;
        self.waiting.clear();
        Ok(())
    }

    fn record(&self, ledger: &Ledger, request: Option<(u64, &Outgoing)>) -> Result<(), redb::Error> {
        let txn = begin(&self.db)?;
        txn.open_table(LEDGER)?.insert("", ledger.encode().as_slice())?;
        if let Some((number, outgoing)) = request {
            let mut writer = Writer::new(VERSION);
            writer.bytes(&outgoing.key);
            writer.bytes(outgoing.value.as_deref().unwrap_or_default());
            txn.open_table(OUTBOX)?.insert(number, writer.0.as_slice())?;
        }
        txn.commit()?;
        Ok(())
    }
}

fn outgoing_of(bytes: &[u8]) -> Result<Outgoing, redb::Error> {
    let read = || {
        let (version, mut reader) = Reader::new(bytes)?;
        let outgoing = Outgoing {
            topic: Topic::RetrainEvents,
            partition: None,
            key: reader.bytes()?.to_vec(),
            value: Some(reader.bytes()?.to_vec()),
        };
        reader.end()?;
        (version == VERSION).then_some(outgoing)
    };
    read().ok_or_else(|| corrupt("retrain request"))
}

impl Ledger {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.u8(u8::from(self.answered.is_some()));
        writer.count(self.answered.unwrap_or(0));
        writer.len(self.known.len());
        for (&partition, totals) in &self.known {
            writer.i64(i64::from(partition));
            writer.i64(totals.next_offset);
            writer.count(totals.history);
            writer.count(totals.users);
        }
        writer.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        match Reader::new(bytes) {
            Some((VERSION, mut reader)) => Self::decode_v1(&mut reader),
            _ => None,
        }
        .ok_or_else(|| corrupt("trigger ledger"))
    }

    fn decode_v1(reader: &mut Reader<'_>) -> Option<Self> {
        let asked = reader.u8()? != 0;
        let answered = reader.count()?;
        let mut ledger = Self {
            answered: asked.then_some(answered),
            known: BTreeMap::new(),
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

#[cfg(test)]
mod tests {
    use marquee_schemas::decode;

    use super::*;
    use crate::NoFaults;

    const CONFIG: TriggerConfig = TriggerConfig {
        bootstrap_min_interactions: 20,
        bootstrap_min_users: 5,
        volume_interactions: 100,
    };

    fn totals(history: u64, users: u64) -> PartitionTotals {
        PartitionTotals {
            next_offset: history.cast_signed() + 3,
            history,
            users,
        }
    }

    fn ids(triggers: &Triggers) -> Vec<String> {
        triggers
            .outgoing()
            .iter()
            .map(|out| {
                decode::<RetrainEvent>(out.value.as_deref().unwrap())
                    .unwrap()
                    .event_id
            })
            .collect()
    }

    #[test]
    fn the_first_request_waits_for_interactions_and_users() {
        assert_eq!(decide(&CONFIG, None, 19, 50), None);
        assert_eq!(decide(&CONFIG, None, 500, 4), None);
        let first = decide(&CONFIG, None, 20, 5).unwrap();
        assert_eq!((first.trigger, first.answered), (Trigger::Bootstrap, 20));
        assert_eq!(decide(&CONFIG, None, 239, 5).unwrap().answered, 220);
    }

    #[test]
    fn volume_is_asked_for_once_per_grid_point() {
        assert_eq!(decide(&CONFIG, Some(20), 119, 5), None);
        let due = decide(&CONFIG, Some(20), 120, 5).unwrap();
        assert_eq!(
            (due.trigger, due.answered, due.since_last),
            (Trigger::Volume, 120, 100)
        );
        assert_eq!(decide(&CONFIG, Some(20), 345, 5).unwrap().answered, 320);
        assert_eq!(decide(&CONFIG, Some(20), 3, 1), None);
    }

    #[test]
    fn a_decision_survives_a_restart_and_is_not_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let live = BTreeMap::from([(0, totals(15, 4)), (2, totals(10, 3))]);
        let mut triggers = Triggers::open(folder.path(), CONFIG).unwrap();
        triggers.evaluate(&live, 77, &NoFaults).unwrap();
        let sent = triggers.outgoing();
        drop(triggers);
        let mut triggers = Triggers::open(folder.path(), CONFIG).unwrap();
        triggers.evaluate(&live, 99, &NoFaults).unwrap();
        assert_eq!(triggers.outgoing(), sent, "the same bytes go out again");
        assert_eq!(ids(&triggers), ["bootstrap-p0.2"]);
        let event: RetrainEvent = decode(sent[0].value.as_deref().unwrap()).unwrap();
        let offsets: Vec<_> = event
            .offsets
            .iter()
            .map(|at| (at.partition, at.offset.0))
            .collect();
        assert_eq!(offsets, [(0, 18), (2, 13)]);
        triggers.published().unwrap();
        drop(triggers);
        let mut triggers = Triggers::open(folder.path(), CONFIG).unwrap();
        triggers.evaluate(&live, 99, &NoFaults).unwrap();
        assert!(triggers.outgoing().is_empty());
    }

    #[test]
    fn a_partition_given_back_still_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut triggers = Triggers::open(folder.path(), CONFIG).unwrap();
        triggers.remember(1, totals(100, 9)).unwrap();
        triggers
            .evaluate(&[(0, totals(10, 2))].into(), 0, &NoFaults)
            .unwrap();
        triggers
            .evaluate(&[(0, totals(20, 2))].into(), 0, &NoFaults)
            .unwrap();
        assert_eq!(ids(&triggers), ["bootstrap-p0.1", "volume-p0.1-120"]);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let ledger = Ledger {
            answered: Some(5),
            known: [(3, totals(1, 1))].into(),
        };
        let bytes = ledger.encode();
        assert_eq!(Ledger::decode(&bytes).unwrap(), ledger);
        for end in 0..bytes.len() {
            assert!(Ledger::decode(&bytes[..end]).is_err());
        }
    }
}
