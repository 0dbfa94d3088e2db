//! The durable state of one partition.

mod batch;
mod dedupe;
mod history;
mod observations;
mod outbox;
mod progress;
mod snapshot;
mod tables;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{HistoryEntry, UserId};
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

use self::batch::{Batch, GenreBook};
use self::dedupe::Window;
pub(crate) use self::observations::SEGMENT;
pub use self::observations::Segment;
use self::observations::Tail;
pub use self::progress::Counters;
pub(crate) use self::progress::{reason_code, reason_of};
pub use self::snapshot::Snapshot;
use self::tables::{EVENT_IDS, OBSERVATIONS, OUTBOX};
use crate::shelf::Volume;
use crate::{Catalogue, CrashPoint, Error, Faults, Judged};

/// Settings of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// How many applied event ids to remember; at least 1.
    pub dedupe_window_events: u64,
    /// How many observations to keep for drift and data quality.
    pub observations: u64,
    /// Memory for cached pages, bytes.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let config = crate::Config::default();
        Self {
            dedupe_window_events: config.dedupe_window_events,
            observations: config.observations_per_partition,
            cache_bytes: config.cache_bytes_per_partition,
        }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Folded into the state.
    pub applied: u64,
    /// Repetitions of an event id.
    pub duplicate: u64,
    /// Refused.
    pub dead_lettered: u64,
    /// Offsets that had been taken in before; not counted again.
    pub redelivered: u64,
}

/// The state of one partition of `interactions` in one redb file (layout: `store/tables.rs`). Usable without a bus.
pub struct Store {
    path: PathBuf,
    partition: i32,
    options: StoreOptions,
    db: Arc<Database>,
    counters: Counters,
    book: GenreBook,
    window: Window,
    tail: Tail,
    /// Rows of the outbox below this have been published, except for their movies ...
    published: u64,
    /// ... and with them those below this. Rows from `kept` on are still in the file.
    movies_published: u64,
    kept: u64,
    next_row: u64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// `features-<partition>.redb` in `folder`.
#[must_use]
pub(crate) fn file_of(folder: &Path, partition: i32) -> PathBuf {
    folder.join(format!("features-{partition}.redb"))
}

impl Store {
    /// Opens or creates the file of `partition` in `folder`, which must exist.
    ///
    /// # Errors
    /// [`Error::Store`] if the file cannot be opened (another process has it open, it is damaged), [`Error::Format`]
    /// if it is of another format or partition.
    pub fn open(folder: &Path, partition: i32, options: StoreOptions) -> Result<Self, Error> {
        let path = file_of(folder, partition);
        match Self::load(&path, partition, options) {
            Ok(Ok(store)) => Ok(store),
            Ok(Err(detail)) => Err(Error::Format { path, detail }),
            Err(error) => Err(Error::store(&path)(error)),
        }
    }

    fn load(path: &Path, partition: i32, options: StoreOptions) -> Result<Result<Self, String>, redb::Error> {
        let db = Builder::new().set_cache_size(options.cache_bytes).create(path)?;
        let txn = begin(&db)?;
        if let Err(detail) = tables::migrate(&txn, partition)? {
            return Ok(Err(detail));
        }
        txn.commit()?;
        let txn = db.begin_read()?;
        let window = Window::load(&txn.open_table(EVENT_IDS)?, options.dedupe_window_events)?;
        let tail = Tail::load(&txn.open_table(OBSERVATIONS)?)?;
        let outbox = txn.open_table(OUTBOX)?;
        let kept = outbox.first()?.map_or(0, |(row, _)| row.value());
        let next_row = outbox.last()?.map_or(0, |(row, _)| row.value() + 1);
        let book = GenreBook::load(&txn.open_table(tables::GENRES)?)?;
        let counters = match txn.open_table(tables::PROGRESS)?.get("")? {
            Some(bytes) => Counters::decode(bytes.value())?,
            None => Counters::default(),
        };
        drop((outbox, txn));
        Ok(Ok(Self {
            path: path.to_owned(),
            partition,
            options,
            db: Arc::new(db),
            counters,
            book,
            window,
            tail,
            published: kept,
            movies_published: kept,
            kept,
            next_row,
        }))
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Next offset to read; `None` before the first record.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        self.counters.next_offset()
    }

    /// Offsets and counts as of the last commit.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Folds records of this partition, in offset order, in one durable transaction: state, event ids, counts, next
    /// offset and outbox. Records below the next offset are passed over.
    ///
    /// # Errors
    /// [`Error::Store`]: the batch had no effect, or (a failed commit) its effect is in doubt and the file must be
    /// opened anew. [`Error::Injected`] where `faults` says so.
    pub fn apply(
        &mut self,
        records: &[Judged],
        catalogue: &dyn Catalogue,
        now_ms: i64,
        faults: &dyn Faults,
    ) -> Result<Applied, Error> {
        let before = self.counters.clone();
        let mut batch = Batch::new(now_ms, &self.window, &self.tail, &self.counters, &self.book);
        let fail = || Error::store(&self.path);
        let txn = begin(&self.db).map_err(fail())?;
        batch.fold(&txn, records, catalogue).map_err(fail())?;
        let redelivered = batch.redelivered;
        if batch.counters == before {
            txn.abort().map_err(|e| fail()(e.into()))?;
            return Ok(Applied {
                redelivered,
                ..Applied::default()
            });
        }
        let done = batch
            .write(&txn, self.next_row, self.options.observations)
            .map_err(fail())?;
        let told = self.told();
        remove_rows(&txn, self.kept, told).map_err(fail())?;
        faults.pass(CrashPoint::BeforeCommit)?;
        txn.commit().map_err(|e| fail()(e.into()))?;
        self.kept = told;
        self.next_row += u64::from(done.outbox);
        self.counters = done.counters;
        self.book = done.book;
        self.window.accept(done.written);
        self.tail = done.tail;
        faults.pass(CrashPoint::AfterCommit)?;
        Ok(Applied {
            applied: self.counters.applied - before.applied,
            duplicate: self.counters.duplicate - before.duplicate,
            dead_lettered: self.counters.refused() - before.refused(),
            redelivered,
        })
    }

    /// The file, for readers beside this store.
    pub(crate) fn volume(&self) -> Volume {
        Volume {
            db: Arc::clone(&self.db),
            path: self.path.clone(),
        }
    }

    /// Observations ever made: one per record taken in.
    #[must_use]
    pub fn observed(&self) -> u64 {
        self.tail.observed
    }

    /// The observations in these segments, as far as they are kept.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn observations(&self, segments: Range<u64>) -> Result<Vec<Segment>, Error> {
        self.snapshot()?.observations(segments)
    }

    /// Rows of the outbox below this have nothing left to say.
    fn told(&self) -> u64 {
        self.published.min(self.movies_published)
    }

    /// Whether something is still to be published; `movies` says whether movies' records count, too.
    #[must_use]
    pub fn has_outgoing(&self, movies: bool) -> bool {
        self.published < self.next_row || (movies && self.movies_published < self.next_row)
    }

    /// What is still to be published: the changelog records of all touched keys, each key once with its present
    /// value, then dead letters. Includes what a crash kept from being published. Without `movies` their records wait:
    /// a popular movie is touched by every batch, and nobody who waits for a user's news reads it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn outgoing(&self, movies: bool) -> Result<Vec<Outgoing>, Error> {
        if !self.has_outgoing(movies) {
            return Ok(Vec::new());
        }
        self.snapshot()?
            .outgoing(self.published, movies.then_some(self.movies_published))
            .map_err(Error::store(&self.path))
    }

    /// Notes that everything [`Store::outgoing`] returned has been acknowledged. The next transaction removes it from
    /// the file; a crash before that repeats it.
    pub fn published(&mut self, movies: bool) {
        self.published = self.next_row;
        if movies {
            self.movies_published = self.next_row;
        }
    }

    /// Removes what has been published from the file and closes it.
    ///
    /// # Errors
    /// The file cannot be written; the state is safe all the same.
    pub fn close(self) -> Result<(), Error> {
        let clear = || -> Result<(), redb::Error> {
            if self.kept < self.told() {
                let txn = begin(&self.db)?;
                remove_rows(&txn, self.kept, self.told())?;
                txn.commit()?;
            }
            Ok(())
        };
        clear().map_err(Error::store(&self.path))
    }

    /// The state as of the last commit.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        Snapshot::of(&*self.db, &self.path, self.partition)
    }

    /// A user's whole history, in the order it was applied; empty for an unknown user.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn user_history(&self, user: UserId) -> Result<Vec<HistoryEntry>, Error> {
        self.snapshot()?.user_history(user)
    }

    /// [`Snapshot::state_hash`] of the last commit.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn state_hash(&self) -> Result<String, Error> {
        self.snapshot()?.state_hash(self.options.dedupe_window_events)
    }
}

/// Opens a file that no process has open, without changing its state.
pub(crate) fn read_only(path: &Path, partition: i32) -> Result<Snapshot, Error> {
    Snapshot::read_only(path, partition)
}

/// A durable transaction from which a crash recovers without reading the whole file.
pub(crate) fn begin(db: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    txn.set_quick_repair(true);
    Ok(txn)
}

fn remove_rows(txn: &WriteTransaction, from: u64, to: u64) -> Result<(), redb::Error> {
    if from < to {
        let mut table = txn.open_table(OUTBOX)?;
        for row in from..to {
            table.remove(row)?;
        }
    }
    Ok(())
}
