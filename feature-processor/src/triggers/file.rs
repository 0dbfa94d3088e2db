//! The layout of `triggers.redb`.
//!
//! | table | key | value |
//! |---|---|---|
//! | `ledger` | `""` | the ledger, as JSON |
//! | `monitor` | `""` | reference and recent windows of drift, and the hit rate's adaptive window |
//! | `outbox` | number, `u64` | topic, key and value of a record not yet acknowledged |
//! | `decisions` | number, `u64` | the newest decisions, as they were sent |

use std::collections::BTreeMap;
use std::path::Path;

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{ALL_TOPICS, Topic, TriggerDecision, decode};
use redb::{Database, ReadOnlyDatabase, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::ledger::Ledger;
use crate::drift::{Adwin, Monitor};
use crate::store::begin;
use crate::wire::{Reader, Writer, corrupt};

pub(crate) const NAME: &str = "triggers.redb";

const LEDGER: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("ledger");
const MONITOR: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("monitor");
const OUTBOX: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("outbox");
const DECISIONS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("decisions");

const MONITOR_VERSION: u8 = 1;
/// Before version 2 a row was a retrain event and did not name its topic.
const OUTBOX_VERSION: u8 = 2;

/// Decisions kept.
const KEEP: u64 = 1_000;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) monitor: Monitor,
    pub(super) adwin: Adwin,
    pub(super) waiting: BTreeMap<u64, Outgoing>,
}

/// Opens or creates the file and reads it.
pub(super) fn open(path: &Path) -> Result<(Database, State), redb::Error> {
    let db = Database::create(path)?;
    let txn = begin(&db)?;
    txn.open_table(LEDGER)?;
    txn.open_table(MONITOR)?;
    txn.open_table(OUTBOX)?;
    txn.open_table(DECISIONS)?;
    txn.commit()?;
    let txn = db.begin_read()?;
    let mut state = State::default();
    if let Some(bytes) = txn.open_table(LEDGER)?.get("")? {
        state.ledger = Ledger::decode(bytes.value())?;
    }
    if let Some(bytes) = txn.open_table(MONITOR)?.get("")? {
        (state.monitor, state.adwin) = monitor_of(bytes.value()).ok_or_else(|| corrupt("drift monitor"))?;
    }
    for row in txn.open_table(OUTBOX)?.iter()? {
        let (number, bytes) = row?;
        let outgoing = outgoing_of(bytes.value()).ok_or_else(|| corrupt("outgoing record"))?;
        state.waiting.insert(number.value(), outgoing);
    }
    drop(txn);
    Ok((db, state))
}

/// Makes everything durable that follows from one look.
pub(super) fn write(
    db: &Database,
    ledger: &Ledger,
    monitor: &Monitor,
    adwin: &Adwin,
    fresh: &[(u64, &Outgoing)],
) -> Result<(), redb::Error> {
    let txn = begin(db)?;
    txn.open_table(LEDGER)?.insert("", ledger.encode()?.as_slice())?;
    let mut writer = Writer::new(MONITOR_VERSION);
    monitor.encode(&mut writer);
    adwin.encode(&mut writer);
    txn.open_table(MONITOR)?.insert("", writer.0.as_slice())?;
    let mut outbox = txn.open_table(OUTBOX)?;
    let mut decisions = txn.open_table(DECISIONS)?;
    for (number, outgoing) in fresh {
        let value = outgoing.value.as_deref().unwrap_or_default();
        let mut writer = Writer::new(OUTBOX_VERSION);
        writer.bytes(outgoing.topic.name().as_bytes());
        writer.bytes(&outgoing.key);
        writer.bytes(value);
        outbox.insert(number, writer.0.as_slice())?;
        if outgoing.topic == Topic::TriggerDecisions {
            decisions.insert(ledger.decisions, value)?;
        }
    }
    decisions.retain_in(..ledger.decisions.saturating_sub(KEEP), |_, _| false)?;
    drop((outbox, decisions));
    txn.commit()?;
    Ok(())
}

/// Removes acknowledged records.
pub(super) fn clear(db: &Database, numbers: impl Iterator<Item = u64>) -> Result<(), redb::Error> {
    let txn = begin(db)?;
    let mut outbox = txn.open_table(OUTBOX)?;
    for number in numbers {
        outbox.remove(number)?;
    }
    drop(outbox);
    txn.commit()?;
    Ok(())
}

/// The newest decisions of a file that no process has open, oldest first.
pub(crate) fn decisions(path: &Path, limit: usize) -> Result<Vec<TriggerDecision>, redb::Error> {
    let db = ReadOnlyDatabase::open(path)?;
    let txn = db.begin_read()?;
    let table = match txn.open_table(DECISIONS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut found = Vec::new();
    for row in table.iter()?.rev().take(limit) {
        let decision = decode(row?.1.value()).map_err(|error| corrupt(&format!("decision: {error}")))?;
        found.push(decision);
    }
    found.reverse();
    Ok(found)
}

fn monitor_of(bytes: &[u8]) -> Option<(Monitor, Adwin)> {
    let (version, mut reader) = Reader::new(bytes)?;
    let monitor = Monitor::decode(&mut reader)?;
    let adwin = Adwin::decode(&mut reader)?;
    reader.end()?;
    (version == MONITOR_VERSION).then_some((monitor, adwin))
}

fn outgoing_of(bytes: &[u8]) -> Option<Outgoing> {
    let (version, mut reader) = Reader::new(bytes)?;
    let topic = match version {
        1 => Topic::RetrainEvents,
        OUTBOX_VERSION => {
            let name = reader.bytes()?;
            ALL_TOPICS
                .into_iter()
                .find(|topic| topic.name().as_bytes() == name)?
        }
        _ => return None,
    };
    let outgoing = Outgoing {
        topic,
        partition: None,
        key: reader.bytes()?.to_vec(),
        value: Some(reader.bytes()?.to_vec()),
    };
    reader.end()?;
    Some(outgoing)
}
