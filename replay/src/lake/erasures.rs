//! Users who were erased, and the rows that this concerns.
//!
//! A tombstone in `interactions` takes away the user's interactions at smaller offsets of its partition, and the user's
//! name from requests that were answered before it. The manifest of its shard keeps it for ever. From then on SQL does
//! not show what it concerns, and [`Shard::purge`] rewrites the files that hold it: within the hour nothing of it is
//! left on disk.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::compute::{filter_record_batch, not, nullif};
use datafusion::arrow::datatypes::{Int32Type, Int64Type, Schema, TimestampMillisecondType, UInt64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::Interaction;
use serde::{Deserialize, Serialize};

use super::{FileEntry, Manifest, NewFile, Shard, manifests, read_file, write_file};
use crate::error::Error;
use crate::table::Table;

/// A user's last erasure in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Erasure {
    /// The user.
    pub(crate) user_id: u64,
    /// The tombstone's offset.
    pub(crate) offset: i64,
    /// When the broker got it, ms.
    pub(crate) at_ms: i64,
}

impl Erasure {
    /// What a record of `interactions` asks for, if it asks for an erasure.
    pub(crate) fn of(record: &RawRecord) -> Option<Self> {
        let user = Interaction::erased(record.key.as_deref(), record.value.as_deref())?;
        Some(Self {
            user_id: user.0,
            offset: record.offset,
            at_ms: record.timestamp_ms,
        })
    }
}

/// The erasures of several partitions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Erasures {
    /// By partition and user: the last tombstone's offset.
    offsets: HashMap<(i32, u64), i64>,
    /// By user: when the last tombstone came, ms.
    times: HashMap<u64, i64>,
    /// By partition: the largest of the offsets.
    last: HashMap<i32, i64>,
}

impl Erasures {
    pub(crate) fn of<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Self {
        let mut erasures = Self::default();
        for manifest in manifests {
            for erasure in &manifest.erasures {
                erasures.add(manifest.partition, erasure);
            }
        }
        erasures
    }

    pub(crate) fn add(&mut self, partition: i32, erasure: &Erasure) {
        let raise = |known: &mut i64, value: i64| *known = value.max(*known);
        let Erasure {
            user_id,
            offset,
            at_ms,
        } = *erasure;
        raise(self.offsets.entry((partition, user_id)).or_insert(offset), offset);
        raise(self.times.entry(user_id).or_insert(at_ms), at_ms);
        raise(self.last.entry(partition).or_insert(offset), offset);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The columns that [`Self::concerned`] judges rows of a table by; `None` for a table without users.
    pub(crate) fn columns(table: Table) -> Option<&'static [&'static str]> {
        match table {
            Table::Interactions => Some(&["kafka_partition", "kafka_offset", "user_id"]),
            Table::RequestLogs => Some(&["user_id", "timestamp"]),
            Table::ModelEvents | Table::QualityMetrics | Table::Movies => None,
        }
    }

    /// The columns that are emptied where an erasure concerns a row. A table without any loses the row.
    pub(crate) fn emptied(table: Table) -> &'static [&'static str] {
        match table {
            // The hash is made of the user's id.
            Table::RequestLogs => &["user_id", "assignment_hash"],
            _ => &[],
        }
    }

    /// Which rows an erasure concerns, by their [`Self::columns`].
    pub(crate) fn concerned(&self, table: Table, columns: &[ArrayRef]) -> Result<BooleanArray, ArrowError> {
        let misshapen = || ArrowError::SchemaError("a column of the lake has an unexpected type".into());
        match (table, columns) {
            (Table::Interactions, [partitions, offsets, users]) => {
                let partitions = partitions.as_primitive_opt::<Int32Type>().ok_or_else(misshapen)?;
                let offsets = offsets.as_primitive_opt::<Int64Type>().ok_or_else(misshapen)?;
                let users = users.as_primitive_opt::<UInt64Type>().ok_or_else(misshapen)?;
                let rows = partitions
                    .values()
                    .iter()
                    .zip(offsets.values())
                    .zip(users.values());
                Ok(rows
                    .map(|((&partition, &offset), &user)| {
                        let erased = self.offsets.get(&(partition, user));
                        Some(erased.is_some_and(|&erased| offset < erased))
                    })
                    .collect())
            }
            (Table::RequestLogs, [users, times]) => {
                let users = users.as_primitive_opt::<UInt64Type>().ok_or_else(misshapen)?;
                let times = times
                    .as_primitive_opt::<TimestampMillisecondType>()
                    .ok_or_else(misshapen)?;
                let rows = users.iter().zip(times.values());
                Ok(rows
                    .map(|(user, &time_ms)| {
                        let erased = user.and_then(|user| self.times.get(&user));
                        Some(erased.is_some_and(|&erased_ms| time_ms <= erased_ms))
                    })
                    .collect())
            }
            _ => Err(misshapen()),
        }
    }

    /// What a file has to be purged up to; grows with every erasure that may concern it.
    fn stamp(&self, table: Table, partition: i32) -> i64 {
        match table {
            Table::Interactions => self.last.get(&partition).map_or(0, |last| last + 1),
            _ => self.last.values().map(|last| last + 1).sum(),
        }
    }

    /// Whether rows of the file may be concerned.
    pub(crate) fn may_concern(&self, table: Table, partition: i32, file: &FileEntry) -> bool {
        let reaches = match table {
            Table::Interactions => self
                .last
                .get(&partition)
                .is_some_and(|&last| file.first_offset < last),
            _ => self
                .times
                .values()
                .any(|&at_ms| file.min_ms.is_some_and(|min_ms| min_ms <= at_ms)),
        };
        reaches && file.purged_to < self.stamp(table, partition)
    }

    fn concerned_of(&self, table: Table, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let columns = Self::columns(table).unwrap_or_default();
        let columns: Vec<ArrayRef> = columns
            .iter()
            .filter_map(|name| batch.column_by_name(name).map(Arc::clone))
            .collect();
        self.concerned(table, &columns)
    }

    /// The batch without what the erasures concern.
    fn purged(&self, table: Table, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let concerned = self.concerned_of(table, batch)?;
        let emptied = Self::emptied(table);
        if emptied.is_empty() {
            return filter_record_batch(batch, &not(&concerned)?);
        }
        let columns: Result<Vec<ArrayRef>, ArrowError> = batch
            .schema()
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| {
                if emptied.contains(&field.name().as_str()) {
                    nullif(column, &concerned)
                } else {
                    Ok(Arc::clone(column))
                }
            })
            .collect();
        RecordBatch::try_new(batch.schema(), columns?)
    }
}

impl Shard {
    /// Notes an erasure. It is durable with the next commit; noted again, it changes nothing.
    pub(crate) fn erase(&mut self, erasure: Erasure) {
        let known = &mut self.manifest_mut().erasures;
        match known.binary_search_by_key(&erasure.user_id, |known| known.user_id) {
            Ok(place) => known[place] = erasure,
            Err(place) => known.insert(place, erasure),
        }
    }

    /// Rewrites the first file that holds what an erasure concerns, if there is one; whether another look is due.
    pub(crate) fn purge(&mut self) -> Result<bool, Error> {
        let table = self.table();
        let erasures = match table {
            Table::Interactions => Erasures::of([self.manifest()]),
            Table::RequestLogs => Erasures::of(&manifests(self.lake_dir(), Table::Interactions)?),
            Table::ModelEvents | Table::QualityMetrics | Table::Movies => return Ok(false),
        };
        let (partition, position) = (self.partition(), self.manifest().next_offset);
        let stamp = erasures.stamp(table, partition);
        let schema = table.schema();
        let judged = Erasures::columns(table).unwrap_or_default();
        let fields = schema.fields().iter().cloned();
        let fields = fields.filter(|field| judged.contains(&field.name().as_str()));
        let judged = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut looked_at = BTreeSet::new();
        for entry in &self.manifest().files {
            if !erasures.may_concern(table, partition, entry) {
                continue;
            }
            let path = self.path_of(entry);
            let mut is_concerned = false;
            for batch in read_file(&path, &judged)? {
                is_concerned |= erasures.concerned_of(table, &batch)?.true_count() > 0;
            }
            if is_concerned {
                let entry = entry.clone();
                self.rewrite(&entry, &erasures, stamp)?;
                return Ok(true);
            }
            looked_at.insert(entry.path.clone());
        }
        if looked_at.is_empty() {
            return Ok(false);
        }
        for entry in &mut self.manifest_mut().files {
            if looked_at.contains(&entry.path) {
                entry.purged_to = stamp;
            }
        }
        self.commit(Vec::new(), &BTreeSet::new(), position, 0)?;
        Ok(false)
    }

    fn rewrite(&mut self, entry: &FileEntry, erasures: &Erasures, stamp: i64) -> Result<(), Error> {
        let table = self.table();
        let batches: Result<Vec<RecordBatch>, ArrowError> = read_file(&self.path_of(entry), &table.schema())?
            .iter()
            .map(|batch| erasures.purged(table, batch))
            .collect();
        let batches = batches?;
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let mut new = Vec::new();
        if rows > 0 {
            let bytes = write_file(&batches)?;
            new.push(NewFile {
                entry: FileEntry {
                    path: self.purged_path(entry, stamp),
                    rows,
                    bytes: bytes.len() as u64,
                    purged_to: stamp,
                    ..entry.clone()
                },
                bytes,
            });
        }
        tracing::info!(
            table = %table, kafka.partition = self.partition(), path = %entry.path, rows = entry.rows,
            "purging a file of users who were erased"
        );
        let position = self.manifest().next_offset;
        self.manifest_mut().erased += entry.rows.saturating_sub(rows);
        self.commit(new, &BTreeSet::from([entry.path.clone()]), position, 0)
    }
}
