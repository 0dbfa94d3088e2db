//! Reading the state as of one commit.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{
    FeatureKey, FeatureRecord, HistoryChunk, HistoryEntry, MovieFeatures, MovieId, Topic, UserFeatures,
    UserId, encode,
};
use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, TableError,
};
use sha2::{Digest, Sha256};

use super::batch::GenreBook;
use super::observations::{self, Segment};
use super::outbox::{Row, letter};
use super::progress::Counters;
use super::tables::{
    COUNTERS, ERASED, EVENT_IDS, GENRES, GLOBAL, HISTORY, MOVIES, OBSERVATIONS, OUTBOX, PROGRESS,
    TRANSITIONS, USERS,
};
use super::{dedupe, history};
use crate::{Error, GlobalState, MovieState, TransitionRow, UserState};

/// One partition's state as of one commit; later commits do not change it.
pub struct Snapshot {
    path: PathBuf,
    partition: i32,
    counters: Counters,
    book: GenreBook,
    users: ReadOnlyTable<u64, &'static [u8]>,
    history: ReadOnlyTable<(u64, u32), &'static [u8]>,
    movies: ReadOnlyTable<u32, &'static [u8]>,
    erased: Option<ReadOnlyTable<u64, i64>>,
    pub(super) txn: ReadTransaction,
    /// Dropped last: a transaction ends with its database.
    keep: Option<ReadOnlyDatabase>,
}

/// A table, unless the file is older than it.
fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("path", &self.path)
            .field("counters", &self.counters)
            .field("read_only", &self.keep.is_some())
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(crate) fn of(db: &impl ReadableDatabase, path: &Path, partition: i32) -> Result<Self, Error> {
        Self::read(db, path, partition).map_err(Error::store(path))
    }

    pub(super) fn read(db: &impl ReadableDatabase, path: &Path, partition: i32) -> Result<Self, redb::Error> {
        let txn = db.begin_read()?;
        Ok(Self {
            path: path.to_owned(),
            partition,
            counters: match txn.open_table(PROGRESS)?.get(COUNTERS)? {
                Some(bytes) => Counters::decode(bytes.value())?,
                None => Counters::default(),
            },
            book: GenreBook::load(&txn.open_table(GENRES)?)?,
            users: txn.open_table(USERS)?,
            history: txn.open_table(HISTORY)?,
            movies: txn.open_table(MOVIES)?,
            erased: existing(txn.open_table(ERASED))?,
            txn,
            keep: None,
        })
    }

    /// Opens a file that no process has open. The state is not changed; a file whose process was killed is first
    /// closed properly, which redb does only for a writer.
    pub(super) fn read_only(path: &Path, partition: i32) -> Result<Self, Error> {
        let opened = match ReadOnlyDatabase::open(path) {
            Err(DatabaseError::RepairAborted) => Database::open(path).and_then(|writer| {
                drop(writer);
                ReadOnlyDatabase::open(path)
            }),
            outcome => outcome,
        };
        let db = opened.map_err(|e| Error::store(path)(e.into()))?;
        let mut snapshot = Self::of(&db, path, partition)?;
        snapshot.keep = Some(db);
        Ok(snapshot)
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Offsets and counts.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A user's features, if the user is known to this partition.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn user(&self, user: UserId) -> Result<Option<UserFeatures>, Error> {
        self.user_features(user).map_err(Error::store(&self.path))
    }

    /// A user's whole history, in the order it was applied; empty for an unknown user.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn user_history(&self, user: UserId) -> Result<Vec<HistoryEntry>, Error> {
        self.history_of(user).map_err(Error::store(&self.path))
    }

    /// What this partition knows of a movie.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn movie(&self, movie: MovieId) -> Result<Option<MovieFeatures>, Error> {
        self.movie_features(movie).map_err(Error::store(&self.path))
    }

    /// The same, with what is not in the changelog.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn movie_state(&self, movie: MovieId) -> Result<Option<MovieState>, Error> {
        let read = || -> Result<_, redb::Error> {
            match self.movies.get(movie.0)? {
                Some(bytes) => Ok(Some(MovieState::decode(bytes.value())?)),
                None => Ok(None),
            }
        };
        read().map_err(Error::store(&self.path))
    }

    /// What came after a movie; empty for one after which nothing came.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn transitions(&self, movie: MovieId) -> Result<TransitionRow, Error> {
        let read = || -> Result<_, redb::Error> {
            let table = existing(self.txn.open_table(TRANSITIONS))?;
            match table.map(|table| table.get(movie.0)).transpose()?.flatten() {
                Some(bytes) => TransitionRow::decode(bytes.value()),
                None => Ok(TransitionRow::default()),
            }
        };
        read().map_err(Error::store(&self.path))
    }

    /// What all users of the partition together do.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn global(&self) -> Result<GlobalState, Error> {
        let read = || -> Result<_, redb::Error> {
            let table = existing(self.txn.open_table(GLOBAL))?;
            match table.map(|table| table.get("")).transpose()?.flatten() {
                Some(bytes) => GlobalState::decode(bytes.value()),
                None => Ok(GlobalState::default()),
            }
        };
        read().map_err(Error::store(&self.path))
    }

    /// Observations ever made.
    pub(super) fn observed(&self) -> Result<u64, redb::Error> {
        observations::observed(&self.txn.open_table(OBSERVATIONS)?)
    }

    /// What the outbox names from its row `from` on, each once: keys of the changelog, and movies whose transitions
    /// were touched.
    pub(super) fn touched(
        &self,
        from: u64,
    ) -> Result<(BTreeSet<FeatureKey>, BTreeSet<MovieId>), redb::Error> {
        let (mut keys, mut movies) = (BTreeSet::new(), BTreeSet::new());
        for row in self.txn.open_table(OUTBOX)?.range(from..)? {
            let row = Row::decode(row?.1.value())?;
            keys.extend(row.keys);
            movies.extend(row.transitions);
        }
        Ok((keys, movies))
    }

    /// Every user known to this partition, ascending.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn users(&self) -> Result<Vec<UserId>, Error> {
        let all = || -> Result<Vec<UserId>, redb::Error> {
            let mut users = Vec::new();
            for row in self.users.iter()? {
                users.push(UserId(row?.0.value()));
            }
            Ok(users)
        };
        all().map_err(Error::store(&self.path))
    }

    /// The observations in these segments, as far as they are kept.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn observations(&self, segments: Range<u64>) -> Result<Vec<Segment>, Error> {
        let read = || observations::read(&self.txn.open_table(OBSERVATIONS)?, segments);
        read().map_err(Error::store(&self.path))
    }

    /// A SHA-256 over the logical state, in hexadecimal: users, histories and movies as their changelog records and as
    /// they are stored, transitions, histograms, erasures, offsets and counts, the observations kept, and the window of
    /// event ids of the given size. Not covered: the outbox, and how the file happens to be laid out. Two folds of the same log, with the same catalogue and window, have the same hash
    /// however the log was cut into batches and however often it was interrupted.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn state_hash(&self, dedupe_window_events: u64) -> Result<String, Error> {
        self.hash(dedupe_window_events).map_err(Error::store(&self.path))
    }

    fn hash(&self, window: u64) -> Result<String, redb::Error> {
        let mut hasher = Sha256::new();
        let mut section = |name: &str, bytes: &[u8]| {
            hasher.update(name.as_bytes());
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        section("counters", &self.counters.encode());
        for row in self.users.iter()? {
            let (user, bytes) = row?;
            let features = UserState::decode(bytes.value())?.features(UserId(user.value()), &self.book.names);
            section("user", &encode(&FeatureRecord::User(features)));
            section("user state", bytes.value());
        }
        for row in self.history.iter()? {
            let (key, bytes) = row?;
            let (user, chunk) = key.value();
            let chunk = history::decode(UserId(user), chunk, bytes.value())?;
            section("history", &encode(&FeatureRecord::History(chunk)));
        }
        for row in self.movies.iter()? {
            let (movie, bytes) = row?;
            let features = MovieState::decode(bytes.value())?.features(MovieId(movie.value()));
            section("movie", &encode(&FeatureRecord::Movie(features)));
            section("movie state", bytes.value());
        }
        if let Some(table) = existing(self.txn.open_table(TRANSITIONS))? {
            for row in table.iter()? {
                let (movie, bytes) = row?;
                section("transitions", &movie.value().to_le_bytes());
                section("row", bytes.value());
            }
        }
        if let Some(table) = existing(self.txn.open_table(GLOBAL))?
            && let Some(bytes) = table.get("")?
        {
            section("global", bytes.value());
        }
        if let Some(table) = &self.erased {
            for row in table.iter()? {
                let (user, offset) = row?;
                section("erased", &user.value().to_le_bytes());
                section("offset", &offset.value().to_le_bytes());
            }
        }
        let ids = dedupe::stored_ids(&self.txn.open_table(EVENT_IDS)?, self.counters.applied, window)?;
        for id in ids {
            section("id", &id.to_le_bytes());
        }
        for row in self.txn.open_table(OBSERVATIONS)?.iter()? {
            section("observations", row?.1.value());
        }
        Ok(hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    fn user_features(&self, user: UserId) -> Result<Option<UserFeatures>, redb::Error> {
        match self.users.get(user.0)? {
            Some(bytes) => Ok(Some(UserFeatures {
                epoch: self.epoch(user)?,
                ..UserState::decode(bytes.value())?.features(user, &self.book.names)
            })),
            None => Ok(None),
        }
    }

    /// Where the user was last erased.
    fn epoch(&self, user: UserId) -> Result<Option<i64>, redb::Error> {
        match &self.erased {
            Some(erased) => Ok(erased.get(user.0)?.map(|offset| offset.value())),
            None => Ok(None),
        }
    }

    fn movie_features(&self, movie: MovieId) -> Result<Option<MovieFeatures>, redb::Error> {
        match self.movies.get(movie.0)? {
            Some(bytes) => Ok(Some(MovieState::decode(bytes.value())?.features(movie))),
            None => Ok(None),
        }
    }

    fn chunk(&self, user: UserId, chunk: u32) -> Result<Option<HistoryChunk>, redb::Error> {
        match self.history.get((user.0, chunk))? {
            Some(bytes) => Ok(Some(HistoryChunk {
                epoch: self.epoch(user)?,
                ..history::decode(user, chunk, bytes.value())?
            })),
            None => Ok(None),
        }
    }

    fn history_of(&self, user: UserId) -> Result<Vec<HistoryEntry>, redb::Error> {
        let mut entries = Vec::new();
        for row in self.history.range((user.0, 0)..=(user.0, u32::MAX))? {
            let (key, bytes) = row?;
            entries.extend(history::decode(user, key.value().1, bytes.value())?.entries);
        }
        Ok(entries)
    }

    /// What the outbox rows have to say: changelog records of all keys they touch, each key once, then dead letters.
    /// Movies' keys are taken from the rows from `movies_from` on, if they are due at all, everything else from those
    /// from `first` on.
    pub(super) fn outgoing(
        &self,
        first: u64,
        movies_from: Option<u64>,
    ) -> Result<Vec<Outgoing>, redb::Error> {
        let mut keys = Vec::new();
        let mut letters = Vec::new();
        let oldest = movies_from.map_or(first, |movies| movies.min(first));
        for row in self.txn.open_table(OUTBOX)?.range(oldest..)? {
            let (number, row) = row?;
            let number = number.value();
            let row = Row::decode(row.value())?;
            keys.extend(row.keys.into_iter().filter(|key| match key {
                FeatureKey::Movie(_) => movies_from.is_some_and(|from| number >= from),
                FeatureKey::User(_) | FeatureKey::History(..) => number >= first,
            }));
            if number >= first {
                letters.extend(row.letters.into_iter().map(|(key, value)| letter(key, value)));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let mut outgoing = Vec::with_capacity(keys.len() + letters.len());
        for key in keys {
            let record = match key {
                FeatureKey::User(user) => self.user_features(user)?.map(FeatureRecord::User),
                FeatureKey::History(user, chunk) => self.chunk(user, chunk)?.map(FeatureRecord::History),
                FeatureKey::Movie(movie) => self.movie_features(movie)?.map(FeatureRecord::Movie),
            };
            outgoing.push(Outgoing {
                topic: Topic::Features,
                partition: Some(self.partition),
                key: key.to_string().into_bytes(),
                // A key that is no longer there goes out as its tombstone.
                value: record.as_ref().map(encode),
            });
        }
        outgoing.extend(letters);
        Ok(outgoing)
    }
}
