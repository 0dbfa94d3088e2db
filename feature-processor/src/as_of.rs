//! Features as they were at a point of the log, folded anew by the code that folds online.
//!
//! The fold is deterministic and the log keeps everything, so what the store held at an offset need not have been
//! kept: the same records through [`judge`] and [`Store::apply`] give the same state, bit for bit. One thing is not
//! in the log of interactions: the catalogue is the present one. An event about a movie that was published later than
//! the event counts here, while the fold then may have refused it.

use std::collections::BTreeMap;

use marquee_runtime::bus::RawRecord;
use marquee_schemas::{Limits, MovieId, UserId};

use crate::answer::{MoviePart, UserPart};
use crate::{
    Catalogue, Config, Error, Judged, MovieAnswer, NoFaults, Snapshot, Store, StoreOptions, UserAnswer,
    Verdict, judge,
};

/// Records of a partition per transaction.
const BATCH: usize = 10_000;

/// The point at which to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// Partition → next offset, as in the positions of a training set; a partition that is not named counts whole.
    Offsets(BTreeMap<i32, i64>),
    /// What had happened up to this event time, ms: later events are passed over, in whatever order they lie in the
    /// log.
    EventTime(i64),
}

impl Point {
    fn includes(&self, judged: &Judged) -> bool {
        match self {
            Self::Offsets(ends) => {
                let record = &judged.record;
                ends.get(&record.partition).is_none_or(|&end| record.offset < end)
            }
            Self::EventTime(last_ms) => match &judged.verdict {
                Verdict::Valid(event) => event.timestamp <= *last_ms,
                Verdict::Erasure(_) | Verdict::Refused(_) => true,
            },
        }
    }
}

/// Takes the log, in offset order within each partition.
#[derive(Debug)]
pub struct PointInTime<'a, C> {
    config: &'a Config,
    catalogue: &'a C,
    point: Point,
    now_ms: i64,
    stores: BTreeMap<i32, Store>,
    waiting: BTreeMap<i32, Vec<Judged>>,
}

/// The state at that point.
#[derive(Debug)]
pub struct AsOf {
    snapshots: Vec<Snapshot>,
    hashes: BTreeMap<i32, String>,
    now_ms: i64,
}

impl<'a, C: Catalogue> PointInTime<'a, C> {
    /// Nothing taken yet; ages will count from `now_ms`.
    #[must_use]
    pub fn new(config: &'a Config, catalogue: &'a C, point: Point, now_ms: i64) -> Self {
        Self {
            config,
            catalogue,
            point,
            now_ms,
            stores: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Takes the next record of a partition.
    ///
    /// # Errors
    /// The state, which is kept in memory, cannot be written.
    pub fn take(&mut self, record: RawRecord) -> Result<(), Error> {
        let partition = record.partition;
        let limits = Limits {
            max_future_ms: self.config.max_future_ms,
        };
        let judged = judge(record, self.now_ms, limits);
        if !self.point.includes(&judged) {
            return Ok(());
        }
        let waiting = self.waiting.entry(partition).or_default();
        waiting.push(judged);
        if waiting.len() >= BATCH {
            let batch = std::mem::take(waiting);
            self.fold(partition, &batch)?;
        }
        Ok(())
    }

    fn fold(&mut self, partition: i32, batch: &[Judged]) -> Result<(), Error> {
        let store = match self.stores.entry(partition) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Store::in_memory(partition, StoreOptions::of(self.config))?)
            }
        };
        store.apply(batch, self.catalogue, self.now_ms, &NoFaults)?;
        store.published(true);
        Ok(())
    }

    /// The state at the point, once everything before it has been taken.
    ///
    /// # Errors
    /// As [`PointInTime::take`].
    pub fn finish(mut self) -> Result<AsOf, Error> {
        for (partition, batch) in std::mem::take(&mut self.waiting) {
            self.fold(partition, &batch)?;
        }
        let mut as_of = AsOf {
            snapshots: Vec::new(),
            hashes: BTreeMap::new(),
            now_ms: self.now_ms,
        };
        for (&partition, store) in &self.stores {
            as_of.snapshots.push(store.snapshot()?);
            as_of.hashes.insert(partition, store.state_hash()?);
        }
        Ok(as_of)
    }
}

impl AsOf {
    /// What was known of a user; `None` for nothing.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn user(&self, user: UserId) -> Result<Option<UserAnswer>, Error> {
        let mut parts = Vec::new();
        for snapshot in &self.snapshots {
            parts.extend(UserPart::read(snapshot, user)?);
        }
        Ok(UserAnswer::of(user, parts, self.now_ms))
    }

    /// What was known of a movie; `None` for nothing.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn movie(&self, movie: MovieId) -> Result<Option<MovieAnswer>, Error> {
        let mut parts = Vec::new();
        for snapshot in &self.snapshots {
            parts.extend(MoviePart::read(snapshot, movie)?);
        }
        Ok(MovieAnswer::of(movie, &parts, self.now_ms))
    }

    /// The state of each partition that had any.
    #[must_use]
    pub fn partitions(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// [`Snapshot::state_hash`] by partition.
    #[must_use]
    pub fn hashes(&self) -> &BTreeMap<i32, String> {
        &self.hashes
    }
}
