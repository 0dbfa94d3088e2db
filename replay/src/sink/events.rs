//! One partition of a table of events: rows gather, and leave as files by date.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::record_batch::RecordBatch;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::DeadLetter;

use super::Context;
use crate::date;
use crate::error::Error;
use crate::lake::{Erasure, FileEntry, Gap, NewFile, Shard, UNDATED, write_file};
use crate::rows::Rows;
use crate::table::Table;

/// One partition of a table of events.
pub(super) struct EventShard {
    shard: Shard,
    rows: Box<dyn Rows>,
    /// Offset and event time of each buffered row.
    origins: Vec<(i64, i64)>,
    /// Refused records since the last commit.
    refused: Vec<DeadLetter>,
    /// Bytes of JSON since the last commit.
    bytes: usize,
    /// One past the last record taken; `None` before the first.
    next_offset: Option<i64>,
    /// When the first record after the last commit came, ms.
    since_ms: Option<i64>,
    /// When old rows, and those of users who were erased, were last looked for, ms.
    expired_ms: Option<i64>,
    /// Whether some of the latter may be left.
    purges: bool,
}

/// How often rows that have to go are looked for.
const EXPIRE_EVERY_MS: i64 = 60 * 60 * 1000;

impl std::fmt::Debug for EventShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventShard")
            .field("shard", &self.shard)
            .field("buffered", &self.origins.len())
            .finish_non_exhaustive()
    }
}

impl EventShard {
    pub(super) fn new(shard: Shard, rows: Box<dyn Rows>) -> Self {
        let next_offset = shard.next_offset();
        Self {
            shard,
            rows,
            origins: Vec::new(),
            refused: Vec::new(),
            bytes: 0,
            next_offset,
            since_ms: None,
            expired_ms: None,
            purges: false,
        }
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    pub(super) fn shard_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }

    pub(super) fn skip(&mut self, gap: Gap) -> Result<(), Error> {
        self.next_offset = Some(gap.to);
        self.shard.skip(gap)
    }

    pub(super) fn take(&mut self, record: &RawRecord, context: &Context) -> Result<(), Error> {
        if self.next_offset.is_some_and(|next| record.offset < next) {
            context.counts.repeat();
            return Ok(());
        }
        context.counts.take();
        let of_users = self.shard.table() == Table::Interactions;
        if let Some(erasure) = Erasure::of(record).filter(|_| of_users) {
            self.shard.erase(erasure);
            context.counts.erase();
        } else {
            match self.rows.push(record) {
                Ok(time) => self.origins.push((record.offset, time)),
                Err(poison) => self.refused.push(context.refusal(record, &poison)),
            }
        }
        self.next_offset = Some(record.next_offset());
        self.bytes += record.value.as_ref().map_or(0, Vec::len);
        self.since_ms.get_or_insert_with(|| context.clock.now_ms());
        let taken = self.origins.len() + self.refused.len();
        if taken >= context.flush.max_rows || self.bytes >= context.flush.max_bytes {
            self.flush(context)?;
        }
        Ok(())
    }

    pub(super) fn flush_if_due(&mut self, context: &Context) -> Result<(), Error> {
        if context.is_due(&self.shard, self.since_ms) {
            self.flush(context)?;
        }
        self.expire_if_due(context)
    }

    /// Lets go of old rows and of those of users who were erased, at the start and every hour, also where nothing new
    /// arrives.
    fn expire_if_due(&mut self, context: &Context) -> Result<(), Error> {
        let now = context.clock.now_ms();
        let is_due = self
            .expired_ms
            .is_none_or(|last| now.saturating_sub(last) >= EXPIRE_EVERY_MS);
        if is_due {
            self.expired_ms = Some(now);
            self.shard.expire(&context.retention, now)?;
            self.purges = true;
        }
        // A file at a time: what is to be flushed waits meanwhile.
        if self.purges {
            self.purges = self.shard.purge()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, context: &Context) -> Result<(), Error> {
        let Some(next_offset) = self.next_offset.filter(|_| self.since_ms.is_some()) else {
            return Ok(());
        };
        let started = std::time::Instant::now();
        let batch = self.rows.finish()?;
        let origins = std::mem::take(&mut self.origins);
        let refused = std::mem::take(&mut self.refused);
        let files = self.files(&batch, &origins, context)?;
        if !refused.is_empty() {
            tracing::warn!(
                kafka.topic = %self.shard.table().topic(), kafka.partition = self.shard.partition(),
                kafka.offset = refused[0].offset, records = refused.len(), reason = %refused[0].reason,
                "refused records"
            );
            context.publish_refused(&refused)?;
        }
        let (rows, poison) = (origins.len() as u64, refused.len() as u64);
        let count = files.len();
        self.shard.commit(files, &BTreeSet::new(), next_offset, poison)?;
        context.counts.committed(rows, poison);
        self.bytes = 0;
        self.since_ms = None;
        self.shard.compact(&context.compaction)?;
        tracing::debug!(
            table = %self.shard.table(), kafka.partition = self.shard.partition(), kafka.offset = next_offset,
            rows, files = count, duration_ms = started.elapsed().as_millis() as u64, "committed"
        );
        Ok(())
    }

    fn files(
        &self,
        batch: &RecordBatch,
        origins: &[(i64, i64)],
        context: &Context,
    ) -> Result<Vec<NewFile>, Error> {
        if origins.is_empty() {
            return Ok(Vec::new());
        }
        let mut days: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        for (row, &(_, time)) in (0_u32..).zip(origins) {
            // Every row has a date: the builders refuse times without one.
            days.entry(date::day_of(time).unwrap_or_default())
                .or_default()
                .push(row);
        }
        let groups: Vec<(String, Vec<u32>)> = if days.len() > context.flush.max_dates {
            vec![(UNDATED.to_owned(), days.into_values().flatten().collect())]
        } else {
            days.into_iter()
                .map(|(day, rows)| (format!("date={}", date::name_of(day)), rows))
                .collect()
        };
        groups
            .into_iter()
            .map(|(folder, mut rows)| {
                rows.sort_unstable();
                let of = |row: &u32| origins.get(*row as usize).copied().unwrap_or_default();
                let first_offset = rows.first().map_or(0, |row| of(row).0);
                let next_offset = rows.last().map_or(0, |row| of(row).0 + 1);
                let min_ms = rows.iter().map(|row| of(row).1).min();
                let max_ms = rows.iter().map(|row| of(row).1).max();
                let count = rows.len() as u64;
                let part = if rows.len() == batch.num_rows() {
                    batch.clone()
                } else {
                    take_record_batch(batch, &UInt32Array::from(rows))?
                };
                let bytes = write_file(&[part])?;
                Ok(NewFile {
                    entry: FileEntry {
                        path: self.shard.file_path(&folder, first_offset, next_offset),
                        first_offset,
                        next_offset,
                        rows: count,
                        bytes: bytes.len() as u64,
                        min_ms,
                        max_ms,
                        purged_to: 0,
                    },
                    bytes,
                })
            })
            .collect()
    }
}
