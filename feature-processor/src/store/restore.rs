//! Putting a partition's state together from the rows that its owners have copied.
//!
//! Two processes may have written at the same time for a moment (one that was given up for lost and is not), a copy may
//! have been cut short by the end of its process, and compaction may have removed what a newer row replaced, even where
//! the newer one belongs to such a copy. The fold is deterministic, so a row as of an offset has the same bytes whoever
//! wrote it; so the state at the newest mark is, for every row, the newest bytes that are not newer than the mark. If
//! compaction has taken those, number and checksum of the rows do not agree with the mark, and the state is folded from
//! the log instead: slower, and always right.

use std::collections::HashMap;
use std::path::Path;

use marquee_runtime::bus::RawRecord;
use marquee_schemas::{FeatureRow, decode};
use redb::{Builder, WriteTransaction};

use super::copy::{Copied, Mark};
use super::observations::{self, SEGMENT as OBSERVATION_SEGMENT};
use super::rows::{RowKey, Rows};
use super::tables::{
    COPIED, COUNTERS, ERASED, EVENT_IDS, GENRES, GLOBAL, HISTORY, MOVIES, OBSERVATIONS, PROGRESS, ROWS,
    TRANSITIONS, USERS, migrate,
};
use super::{begin, dedupe, file_of};
use crate::Error;
use crate::wire::corrupt;

/// The rows of one partition, as they are read.
#[derive(Debug, Default)]
pub(crate) struct Restoring {
    /// By row: the newest bytes that are not newer than the mark, and all that are.
    rows: HashMap<RowKey, Vec<RowAt>>,
    mark: Option<(i64, Mark)>,
}

/// A row's bytes and the next offset that they stand for.
type RowAt = (i64, Vec<u8>);

/// What a record of the topic says, if it is a row; a tombstone has no bytes.
fn read(record: &RawRecord) -> Option<(RowKey, Option<RowAt>)> {
    let key = std::str::from_utf8(record.key.as_deref()?).ok()?.parse().ok()?;
    match record.value.as_deref() {
        None | Some([]) => Some((key, None)),
        Some(value) => {
            let row = decode::<FeatureRow>(value).ok()?;
            Some((key, Some((row.next_offset.0, row.bytes.0))))
        }
    }
}

/// The next offset that the mark in this record names, if it is one.
pub(crate) fn marked(record: &RawRecord) -> Option<i64> {
    match read(record)? {
        (RowKey::Mark, Some((next_offset, _))) => Some(next_offset),
        _ => None,
    }
}

impl Restoring {
    /// Takes the next record of the topic's partition; what is no row is passed over.
    pub(crate) fn take(&mut self, record: &RawRecord) {
        let Some((key, found)) = read(record) else {
            tracing::warn!(
                kafka.topic = %record.topic,
                kafka.partition = record.partition,
                kafka.offset = record.offset,
                "not a row of the feature store"
            );
            return;
        };
        let Some((next_offset, bytes)) = found else {
            self.rows.remove(&key);
            return;
        };
        if key == RowKey::Mark {
            let newer = self.mark.as_ref().is_none_or(|(known, _)| next_offset >= *known);
            if let Some(mark) = Mark::decode(&bytes).filter(|_| newer) {
                self.mark = Some((next_offset, mark));
            }
            return;
        }
        let marked = self.reached().unwrap_or(i64::MIN);
        let versions = self.rows.entry(key).or_default();
        versions.push((next_offset, bytes));
        // Of what is not newer than the mark, the newest is enough.
        if let Some(best) = versions
            .iter()
            .map(|version| version.0)
            .filter(|&at| at <= marked)
            .max()
        {
            versions.retain(|&(at, _)| at >= best);
        }
    }

    /// The offset from which the log is to be read after restoring; `None` before any mark.
    pub(crate) fn reached(&self) -> Option<i64> {
        self.mark.as_ref().map(|&(next_offset, _)| next_offset)
    }

    /// Writes the state at the newest mark as the partition's file, in place of any that is there. `false` if the rows
    /// do not make it up; nothing is changed then.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(self, folder: &Path, partition: i32) -> Result<bool, Error> {
        let Some((next_offset, mark)) = self.mark else {
            return Ok(false);
        };
        let rows: HashMap<RowKey, Vec<u8>> = self
            .rows
            .into_iter()
            .filter_map(|(key, versions)| {
                let newest = versions
                    .into_iter()
                    .filter(|&(at, _)| at <= next_offset)
                    // Of equals the last.
                    .max_by_key(|&(at, _)| at)?;
                Some((key, newest.1))
            })
            .collect();
        if !is_complete(&mark, &rows) {
            return Ok(false);
        }
        let path = file_of(folder, partition);
        let fresh = path.with_extension("restoring");
        let failed = |source| Error::Folder {
            path: fresh.clone(),
            source,
        };
        if fresh.exists() {
            std::fs::remove_file(&fresh).map_err(failed)?;
        }
        let fill = || -> Result<(), redb::Error> {
            let db = Builder::new().create(&fresh)?;
            let txn = begin(&db)?;
            if migrate(&txn, partition)?.is_err() {
                return Err(corrupt("a fresh file"));
            }
            insert(&txn, next_offset, &mark, rows)?;
            txn.commit()?;
            Ok(())
        };
        fill().map_err(Error::store(&fresh))?;
        std::fs::rename(&fresh, &path).map_err(failed)?;
        // The name is durable with its folder.
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        Ok(true)
    }
}

/// Whether these are all rows of the state at the mark.
fn is_complete(mark: &Mark, rows: &HashMap<RowKey, Vec<u8>>) -> bool {
    let mut found = Rows::default();
    for (&key, bytes) in rows {
        if !matches!(key, RowKey::EventIds(_) | RowKey::Observations(_)) {
            found.add(key, bytes);
        }
    }
    let lengths = |oldest: u64, segment: u64, total: u64| {
        (oldest..total.div_ceil(segment)).map(move |number| (number, segment.min(total - number * segment)))
    };
    let mut ids = lengths(mark.oldest[0], dedupe::SEGMENT, mark.counters.applied);
    let mut observations = lengths(mark.oldest[1], OBSERVATION_SEGMENT, mark.observed);
    found == mark.rows
        && ids.all(|(number, len)| {
            let bytes = rows.get(&RowKey::EventIds(number));
            bytes.is_some_and(|bytes| dedupe::segment_len(bytes) == Some(len))
        })
        && observations.all(|(number, len)| {
            let bytes = rows.get(&RowKey::Observations(number));
            bytes.is_some_and(|bytes| observations::segment_len(bytes) == Some(len))
        })
}

fn insert(
    txn: &WriteTransaction,
    next_offset: i64,
    mark: &Mark,
    rows: HashMap<RowKey, Vec<u8>>,
) -> Result<(), redb::Error> {
    let mut users = txn.open_table(USERS)?;
    let mut history = txn.open_table(HISTORY)?;
    let mut movies = txn.open_table(MOVIES)?;
    let mut transitions = txn.open_table(TRANSITIONS)?;
    let mut global = txn.open_table(GLOBAL)?;
    let mut genres = txn.open_table(GENRES)?;
    let mut erased = txn.open_table(ERASED)?;
    let mut ids = txn.open_table(EVENT_IDS)?;
    let mut observations = txn.open_table(OBSERVATIONS)?;
    let mut genre_count = 0;
    // In the order of the tables' keys, which is how redb likes it.
    let mut rows: Vec<(RowKey, Vec<u8>)> = rows.into_iter().collect();
    rows.sort_unstable_by_key(|&(key, _)| key);
    for (key, bytes) in rows {
        let bytes = bytes.as_slice();
        match key {
            RowKey::User(user) => drop(users.insert(user, bytes)?),
            RowKey::History(user, chunk) => drop(history.insert((user, chunk), bytes)?),
            RowKey::Movie(movie) => drop(movies.insert(movie, bytes)?),
            RowKey::Transitions(movie) => drop(transitions.insert(movie, bytes)?),
            RowKey::Global => drop(global.insert("", bytes)?),
            RowKey::Genre(number) => {
                let name = std::str::from_utf8(bytes).map_err(|_| corrupt("genre"))?;
                drop(genres.insert(number, name)?);
                genre_count += 1;
            }
            RowKey::Erased(user) => {
                let offset = bytes.try_into().map_err(|_| corrupt("erasure"))?;
                drop(erased.insert(user, i64::from_le_bytes(offset))?);
            }
            // Older ones may still be in the topic.
            RowKey::EventIds(segment) if segment >= mark.oldest[0] => drop(ids.insert(segment, bytes)?),
            RowKey::Observations(segment) if segment >= mark.oldest[1] => {
                drop(observations.insert(segment, bytes)?);
            }
            RowKey::EventIds(_) | RowKey::Observations(_) | RowKey::Mark => {}
        }
    }
    let copied = Copied {
        next_offset,
        applied: mark.counters.applied,
        observed: mark.observed,
        erasures: mark.counters.erasures,
        genres: genre_count,
        oldest: mark.oldest,
        cleared: mark.oldest,
    };
    let mut progress = txn.open_table(PROGRESS)?;
    progress.insert(COUNTERS, mark.counters.encode().as_slice())?;
    progress.insert(ROWS, mark.rows.encode().as_slice())?;
    progress.insert(COPIED, copied.encode().as_slice())?;
    Ok(())
}
