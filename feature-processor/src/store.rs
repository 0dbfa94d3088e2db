//! The durable state of one partition.

mod batch;
mod copy;
mod dedupe;
mod history;
mod observations;
mod outbox;
mod progress;
pub(crate) mod restore;
mod rows;
mod snapshot;
mod tables;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{HistoryEntry, UserId};
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

use self::batch::{Batch, GenreBook};
use self::copy::Copied;
pub use self::copy::RowCopy;
use self::dedupe::Window;
pub(crate) use self::observations::SEGMENT;
pub use self::observations::Segment;
use self::observations::Tail;
pub use self::progress::Counters;
pub(crate) use self::progress::{reason_code, reason_of};
use self::rows::Rows;
pub use self::snapshot::Snapshot;
use self::tables::{EVENT_IDS, OBSERVATIONS, OUTBOX};
use crate::shelf::Volume;
use crate::wire::corrupt;
use crate::{Catalogue, Config, CrashPoint, Error, Faults, Judged};

/// Settings of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// How many applied event ids to remember; at least 1.
    pub dedupe_window_events: u64,
    /// How many observations to keep for drift and data quality.
    pub observations: u64,
    /// Memory for cached pages, bytes.
    pub cache_bytes: usize,
    /// How late an event may be whose effect depends on the order, ms.
    pub max_lateness_ms: i64,
    /// Whether rows are copied for the next owner of the partition ([`Store::copy`]).
    pub copies_rows: bool,
}

impl StoreOptions {
    /// As the service's settings have it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            dedupe_window_events: config.dedupe_window_events,
            observations: config.observations_per_partition,
            cache_bytes: config.cache_bytes_per_partition,
            max_lateness_ms: config.max_lateness_ms,
            copies_rows: config.copy_rows_every_ms > 0,
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::of(&Config::default())
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
    /// Offsets passed over that hold no record.
    pub absent: u64,
}

/// The state of one partition of `interactions` in one redb file (layout: `store/tables.rs`). Usable without a bus.
pub struct Store {
    path: PathBuf,
    partition: i32,
    options: StoreOptions,
    db: Arc<Database>,
    state: Remembered,
    /// Rows of the outbox below this have been published, except for their movies ...
    published: u64,
    /// ... and with them those below this ...
    movies_published: u64,
    /// ... and what they touched has been copied below this. Rows from `kept` on are still in the file.
    copied_below: u64,
    kept: u64,
    next_row: u64,
    /// What the topic of rows holds, and whether the file says so already.
    copied: Option<Copied>,
    copied_is_noted: bool,
}

/// What a store keeps in memory of its last commit.
#[derive(Debug)]
struct Remembered {
    counters: Counters,
    book: GenreBook,
    rows: Rows,
    window: Window,
    tail: Tail,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .field("counters", &self.state.counters)
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
        let mut builder = Builder::new();
        builder.set_cache_size(options.cache_bytes);
        Self::load(builder.create(&path), path, partition, options)
    }

    /// A state that goes with the process: for a fold that only answers a question.
    ///
    /// # Errors
    /// [`Error::Store`] if there is no memory for it.
    pub fn in_memory(partition: i32, options: StoreOptions) -> Result<Self, Error> {
        let db = Builder::new().create_with_backend(InMemoryBackend::new());
        Self::load(db, file_of(Path::new("memory"), partition), partition, options)
    }

    fn load(
        db: Result<Database, redb::DatabaseError>,
        path: PathBuf,
        partition: i32,
        options: StoreOptions,
    ) -> Result<Self, Error> {
        let read = || Self::read(db?, &path, partition, options);
        match read() {
            Ok(Ok(store)) => Ok(store),
            Ok(Err(detail)) => Err(Error::Format { path, detail }),
            Err(error) => Err(Error::store(&path)(error)),
        }
    }

    fn read(
        db: Database,
        path: &Path,
        partition: i32,
        options: StoreOptions,
    ) -> Result<Result<Self, String>, redb::Error> {
        let txn = begin(&db)?;
        if let Err(detail) = tables::migrate(&txn, partition)? {
            return Ok(Err(detail));
        }
        tables::count_rows(&txn)?;
        txn.commit()?;
        let txn = db.begin_read()?;
        let window = Window::load(&txn.open_table(EVENT_IDS)?, options.dedupe_window_events)?;
        let tail = Tail::load(&txn.open_table(OBSERVATIONS)?)?;
        let outbox = txn.open_table(OUTBOX)?;
        let kept = outbox.first()?.map_or(0, |(row, _)| row.value());
        let next_row = outbox.last()?.map_or(0, |(row, _)| row.value() + 1);
        let book = GenreBook::load(&txn.open_table(tables::GENRES)?)?;
        let progress = txn.open_table(tables::PROGRESS)?;
        let counters = match progress.get(tables::COUNTERS)? {
            Some(bytes) => Counters::decode(bytes.value())?,
            None => Counters::default(),
        };
        let rows = progress
            .get(tables::ROWS)?
            .and_then(|bytes| Rows::decode(bytes.value()))
            .ok_or_else(|| corrupt("number of rows"))?;
        let copied = match progress.get(tables::COPIED)? {
            Some(bytes) => Some(Copied::decode(bytes.value())?),
            None => None,
        };
        drop((outbox, progress, txn));
        Ok(Ok(Self {
            path: path.to_owned(),
            partition,
            options,
            db: Arc::new(db),
            state: Remembered {
                counters,
                book,
                rows,
                window,
                tail,
            },
            published: kept,
            movies_published: kept,
            copied_below: kept,
            kept,
            next_row,
            copied,
            copied_is_noted: true,
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
        self.state.counters.next_offset()
    }

    /// Offsets and counts as of the last commit.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.state.counters
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
        let fail = || Error::store(&self.path);
        let mut batch = Batch::new(now_ms, self.options, &self.state);
        let txn = begin(&self.db).map_err(fail())?;
        batch.fold(&txn, records, catalogue).map_err(fail())?;
        let redelivered = batch.redelivered;
        if batch.counters == self.state.counters {
            txn.abort().map_err(|e| fail()(e.into()))?;
            return Ok(Applied {
                redelivered,
                ..Applied::default()
            });
        }
        let done = batch.write(&txn, self.next_row).map_err(fail())?;
        let told = self.told();
        remove_rows(&txn, self.kept, told).map_err(fail())?;
        if !self.copied_is_noted {
            self.note_copied(&txn).map_err(fail())?;
        }
        faults.pass(CrashPoint::BeforeCommit)?;
        txn.commit().map_err(|e| fail()(e.into()))?;
        self.kept = told;
        self.copied_is_noted = true;
        self.next_row += u64::from(done.outbox);
        let before = std::mem::replace(&mut self.state.counters, done.counters);
        self.state.book = done.book;
        self.state.rows = done.rows;
        self.state.window.accept(done.written);
        self.state.tail = done.tail;
        faults.pass(CrashPoint::AfterCommit)?;
        let now = &self.state.counters;
        Ok(Applied {
            applied: now.applied - before.applied,
            duplicate: now.duplicate - before.duplicate,
            dead_lettered: now.refused() - before.refused(),
            redelivered,
            absent: now.absent - before.absent,
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
        self.state.tail.observed
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
        let told = self.published.min(self.movies_published);
        if self.options.copies_rows {
            told.min(self.copied_below)
        } else {
            told
        }
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
                self.note_copied(&txn)?;
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
