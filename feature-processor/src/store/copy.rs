//! Copying rows to a topic, for whoever owns the partition next.
//!
//! A copy is a set of rows as of one commit, which differ from the copy before, and a [`Mark`] after them that says
//! what the state is then: its next offset, its counts, how many rows it has and their checksum. The topic is
//! compacted, so it holds the newest bytes of every row. [`super::restore`] puts them together again, or finds out that
//! it cannot.

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{Bytes64, FeatureKey, FeatureRow, Offset, Record, SchemaVersion, encode};
use redb::{ReadableTable, WriteTransaction};

use super::observations::SEGMENT as OBSERVATION_SEGMENT;
use super::progress::Counters;
use super::rows::{RowKey, Rows};
use super::snapshot::Snapshot;
use super::tables::{
    COPIED, ERASED, EVENT_IDS, GENRES, GLOBAL, HISTORY, MOVIES, OBSERVATIONS, PROGRESS, TRANSITIONS, USERS,
};
use super::{Store, dedupe};
use crate::Error;
use crate::wire::{Reader, Writer, corrupt};

const VERSION: u8 = 1;

/// Up to where the topic holds the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Copied {
    pub(super) next_offset: i64,
    pub(super) applied: u64,
    pub(super) observed: u64,
    pub(super) erasures: u64,
    pub(super) genres: u64,
    /// The oldest segments that were in the file, and those below which the topic has been cleared.
    pub(super) oldest: [u64; 2],
    pub(super) cleared: [u64; 2],
}

impl Copied {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.i64(self.next_offset);
        for count in [self.applied, self.observed, self.erasures, self.genres] {
            writer.count(count);
        }
        for segment in self.oldest.into_iter().chain(self.cleared) {
            writer.count(segment);
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        let read = || {
            let (version, mut reader) = Reader::new(bytes)?;
            let copied = Self {
                next_offset: reader.i64()?,
                applied: reader.count()?,
                observed: reader.count()?,
                erasures: reader.count()?,
                genres: reader.count()?,
                oldest: [reader.count()?, reader.count()?],
                cleared: [reader.count()?, reader.count()?],
            };
            reader.end()?;
            (version == VERSION).then_some(copied)
        };
        read().ok_or_else(|| corrupt("what was copied"))
    }
}

/// The state that the rows before it make up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) counters: Counters,
    pub(super) rows: Rows,
    /// Observations ever made.
    pub(super) observed: u64,
    /// Oldest segments of event ids and of observations.
    pub(super) oldest: [u64; 2],
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.bytes(&self.counters.encode());
        writer.bytes(&self.rows.encode());
        writer.count(self.observed);
        writer.count(self.oldest[0]);
        writer.count(self.oldest[1]);
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut reader) = Reader::new(bytes)?;
        let mark = Self {
            counters: Counters::decode(reader.bytes()?).ok()?,
            rows: Rows::decode(reader.bytes()?)?,
            observed: reader.count()?,
            oldest: [reader.count()?, reader.count()?],
        };
        reader.end()?;
        (version == VERSION).then_some(mark)
    }
}

/// A copy on its way.
#[derive(Debug)]
pub struct RowCopy {
    /// To be sent in this order; the mark is the last.
    pub records: Vec<Outgoing>,
    copied: Copied,
    /// Rows of the outbox below this are in it.
    below: u64,
}

impl Store {
    /// Whether the topic lacks something, and is meant to have it.
    #[must_use]
    pub fn has_rows_to_copy(&self) -> bool {
        let copied = self.copied.map(|copied| copied.next_offset);
        self.options.copies_rows && self.next_offset() > copied
    }

    /// The rows that have changed since the last copy, if any, for the topic [`marquee_schemas::Topic::FeatureRows`]. Everything before
    /// must have been published: whoever restores the copy publishes only what comes after it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn copy(&self) -> Result<Option<RowCopy>, Error> {
        let Some(next_offset) = self.next_offset() else {
            return Ok(None);
        };
        if self.has_outgoing(true) || !self.has_rows_to_copy() {
            return Ok(None);
        }
        let read = || -> Result<RowCopy, redb::Error> {
            let snapshot = Snapshot::read(&*self.db, &self.path, self.partition)?;
            let mut copier = Copier {
                partition: self.partition,
                next_offset,
                records: Vec::new(),
            };
            let copied = copier.collect(&snapshot, self.copied, self.copied_below, self.state.rows)?;
            Ok(RowCopy {
                records: copier.records,
                copied,
                below: self.next_row,
            })
        };
        read().map(Some).map_err(Error::store(&self.path))
    }

    /// Notes that the copy has been acknowledged; the next transaction makes that durable.
    pub fn copied(&mut self, copy: &RowCopy) {
        self.copied = Some(copy.copied);
        self.copied_below = copy.below;
        self.copied_is_noted = false;
    }

    pub(super) fn note_copied(&self, txn: &WriteTransaction) -> Result<(), redb::Error> {
        if let Some(copied) = &self.copied {
            txn.open_table(PROGRESS)?
                .insert(COPIED, copied.encode().as_slice())?;
        }
        Ok(())
    }
}

struct Copier {
    partition: i32,
    next_offset: i64,
    records: Vec<Outgoing>,
}

impl Copier {
    /// Without bytes: the row is gone.
    fn row(&mut self, key: RowKey, bytes: Option<&[u8]>) {
        let row = bytes.map(|bytes| FeatureRow {
            schema_version: SchemaVersion,
            row: key.to_string(),
            next_offset: Offset(self.next_offset),
            bytes: Bytes64(bytes.to_vec()),
        });
        self.records.push(Outgoing {
            topic: FeatureRow::TOPIC,
            partition: Some(self.partition),
            key: key.to_string().into_bytes(),
            value: row.as_ref().map(encode),
        });
    }

    fn collect(
        &mut self,
        snapshot: &Snapshot,
        since: Option<Copied>,
        outbox_from: u64,
        rows: Rows,
    ) -> Result<Copied, redb::Error> {
        match since {
            Some(_) => self.touched(snapshot, outbox_from)?,
            None => self.all(snapshot)?,
        }
        if let Some(bytes) = snapshot.txn.open_table(GLOBAL)?.get("")? {
            self.row(RowKey::Global, Some(bytes.value()));
        }
        let genres = snapshot.txn.open_table(GENRES)?;
        let known = since.map_or(0, |copied| copied.genres);
        for row in genres.iter()?.skip(usize::try_from(known).unwrap_or(usize::MAX)) {
            let (number, name) = row?;
            self.row(RowKey::Genre(number.value()), Some(name.value().as_bytes()));
        }
        let genres = redb::ReadableTableMetadata::len(&genres)?;

        let counters = snapshot.counters();
        let ids = snapshot.txn.open_table(EVENT_IDS)?;
        let observations = snapshot.txn.open_table(OBSERVATIONS)?;
        let first_of = |oldest: Option<u64>, next: u64| oldest.unwrap_or(next);
        let oldest = [
            first_of(
                ids.first()?.map(|(key, _)| key.value()),
                counters.applied / dedupe::SEGMENT,
            ),
            first_of(
                observations.first()?.map(|(key, _)| key.value()),
                snapshot.observed()? / OBSERVATION_SEGMENT,
            ),
        ];
        let since_segment = since.map_or(0, |copied| copied.applied / dedupe::SEGMENT);
        for row in ids.range(since_segment..)? {
            let (segment, bytes) = row?;
            self.row(RowKey::EventIds(segment.value()), Some(bytes.value()));
        }
        // An erasure changes old segments, too.
        let since_segment = since
            .filter(|copied| copied.erasures == counters.erasures)
            .map_or(0, |copied| copied.observed / OBSERVATION_SEGMENT);
        for row in observations.range(since_segment..)? {
            let (segment, bytes) = row?;
            self.row(RowKey::Observations(segment.value()), Some(bytes.value()));
        }
        // Segments that left the file since are cleared with the next copy, so that the mark before this one can still
        // be restored if the present copy is not completed.
        let cleared = since.map_or(oldest, |copied| copied.oldest);
        if let Some(since) = since {
            for segment in since.cleared[0]..cleared[0] {
                self.row(RowKey::EventIds(segment), None);
            }
            for segment in since.cleared[1]..cleared[1] {
                self.row(RowKey::Observations(segment), None);
            }
        }
        let observed = snapshot.observed()?;
        let mark = Mark {
            counters: counters.clone(),
            rows,
            observed,
            oldest,
        };
        self.row(RowKey::Mark, Some(&mark.encode()));
        Ok(Copied {
            next_offset: self.next_offset,
            applied: counters.applied,
            observed,
            erasures: counters.erasures,
            genres,
            oldest,
            cleared,
        })
    }

    fn all(&mut self, snapshot: &Snapshot) -> Result<(), redb::Error> {
        for row in snapshot.txn.open_table(USERS)?.iter()? {
            let (user, bytes) = row?;
            self.row(RowKey::User(user.value()), Some(bytes.value()));
        }
        for row in snapshot.txn.open_table(HISTORY)?.iter()? {
            let (key, bytes) = row?;
            let (user, chunk) = key.value();
            self.row(RowKey::History(user, chunk), Some(bytes.value()));
        }
        for row in snapshot.txn.open_table(MOVIES)?.iter()? {
            let (movie, bytes) = row?;
            self.row(RowKey::Movie(movie.value()), Some(bytes.value()));
        }
        for row in snapshot.txn.open_table(TRANSITIONS)?.iter()? {
            let (movie, bytes) = row?;
            self.row(RowKey::Transitions(movie.value()), Some(bytes.value()));
        }
        for row in snapshot.txn.open_table(ERASED)?.iter()? {
            let (user, offset) = row?;
            self.row(RowKey::Erased(user.value()), Some(&offset.value().to_le_bytes()));
        }
        Ok(())
    }

    /// The rows that the outbox names, from its row `from` on.
    fn touched(&mut self, snapshot: &Snapshot, from: u64) -> Result<(), redb::Error> {
        let (keys, movies) = snapshot.touched(from)?;
        let users = snapshot.txn.open_table(USERS)?;
        let history = snapshot.txn.open_table(HISTORY)?;
        let states = snapshot.txn.open_table(MOVIES)?;
        let erased = snapshot.txn.open_table(ERASED)?;
        for key in keys {
            if let FeatureKey::User(user) = key
                && let Some(offset) = erased.get(user.0)?
            {
                self.row(RowKey::Erased(user.0), Some(&offset.value().to_le_bytes()));
            }
            let (name, found) = match key {
                FeatureKey::User(user) => (RowKey::User(user.0), users.get(user.0)?),
                FeatureKey::History(user, chunk) => {
                    (RowKey::History(user.0, chunk), history.get((user.0, chunk))?)
                }
                FeatureKey::Movie(movie) => (RowKey::Movie(movie.0), states.get(movie.0)?),
            };
            self.row(name, found.as_ref().map(redb::AccessGuard::value));
        }
        let transitions = snapshot.txn.open_table(TRANSITIONS)?;
        for movie in movies {
            let found = transitions.get(movie.0)?;
            self.row(
                RowKey::Transitions(movie.0),
                found.as_ref().map(redb::AccessGuard::value),
            );
        }
        Ok(())
    }
}
