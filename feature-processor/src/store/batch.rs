//! Folding one batch in memory: every key is read once, however often the batch touches it, and written once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use marquee_schemas::{
    FeatureKey, HISTORY_CHUNK_LEN, Interaction, Kind, MovieId, Reason, Record, UserId, encode,
};
use redb::{ReadableTable, Table, WriteTransaction};

use super::dedupe::{Fresh, Written, hashed};
use super::history::{ChunkBytes, chunk_of};
use super::observations::{FORGOTTEN, Tail};
use super::outbox::Row;
use super::progress::Counters;
use super::rows::{RowKey, Rows};
use super::tables::{
    COUNTERS, ERASED, EVENT_IDS, GENRES, GLOBAL, HISTORY, MOVIES, OBSERVATIONS, OUTBOX, PROGRESS, ROWS,
    TRANSITIONS, USERS,
};
use super::{Remembered, StoreOptions};
use crate::drift::{Fate, Observation, half_stars};
use crate::{Catalogue, Genre, GlobalState, Judged, MovieState, Refusal, TransitionRow, UserState, Verdict};

/// The names of genres by number. Numbers are given in the order of first use, so they follow from the log.
#[derive(Debug, Clone, Default)]
pub(super) struct GenreBook {
    pub(super) names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, Genre>,
}

impl GenreBook {
    pub(super) fn load(table: &impl ReadableTable<u32, &'static str>) -> Result<Self, redb::Error> {
        let mut book = Self::default();
        for row in table.iter()? {
            let (_, name) = row?;
            book.number(&Arc::from(name.value()));
        }
        Ok(book)
    }

    fn number(&mut self, name: &Arc<str>) -> Genre {
        if let Some(&known) = self.numbers.get(name) {
            return known;
        }
        let genre = Genre(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(Arc::clone(name));
        self.numbers.insert(Arc::clone(name), genre);
        genre
    }
}

#[derive(Debug)]
struct UserWork {
    state: UserState,
    /// The chunks that this batch touches, oldest first.
    chunks: Vec<(u32, ChunkBytes)>,
}

/// What a batch reads from.
struct Tables<'t> {
    users: Table<'t, u64, &'static [u8]>,
    history: Table<'t, (u64, u32), &'static [u8]>,
    movies: Table<'t, u32, &'static [u8]>,
    transitions: Table<'t, u32, &'static [u8]>,
}

#[derive(Debug)]
struct MovieWork {
    state: MovieState,
    genres: Vec<Genre>,
}

/// A batch being folded.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    now_ms: i64,
    options: StoreOptions,
    before: &'a Remembered,
    observations: Vec<(i64, Observation)>,
    pub(super) counters: Counters,
    book: GenreBook,
    rows: Rows,
    fresh: Fresh,
    users: HashMap<UserId, UserWork>,
    /// Users to forget, and the offset of the last erasure; what this batch holds of them came after.
    forgotten: BTreeMap<UserId, i64>,
    movies: HashMap<MovieId, MovieWork>,
    transitions: HashMap<MovieId, TransitionRow>,
    global: GlobalState,
    letters: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) redelivered: u64,
}

/// What the store takes over once the batch is committed.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) counters: Counters,
    pub(super) book: GenreBook,
    pub(super) rows: Rows,
    pub(super) written: Written,
    pub(super) tail: Tail,
    /// Whether the batch left a row in the outbox.
    pub(super) outbox: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn new(now_ms: i64, options: StoreOptions, before: &'a Remembered) -> Self {
        Self {
            now_ms,
            options,
            before,
            observations: Vec::new(),
            counters: before.counters.clone(),
            book: before.book.clone(),
            rows: before.rows,
            fresh: Fresh::default(),
            users: HashMap::new(),
            forgotten: BTreeMap::new(),
            movies: HashMap::new(),
            transitions: HashMap::new(),
            global: GlobalState::default(),
            letters: Vec::new(),
            redelivered: 0,
        }
    }

    /// Folds records in offset order.
    pub(super) fn fold(
        &mut self,
        txn: &WriteTransaction,
        records: &[Judged],
        catalogue: &dyn Catalogue,
    ) -> Result<(), redb::Error> {
        let tables = Tables {
            users: txn.open_table(USERS)?,
            history: txn.open_table(HISTORY)?,
            movies: txn.open_table(MOVIES)?,
            transitions: txn.open_table(TRANSITIONS)?,
        };
        if let Some(bytes) = txn.open_table(GLOBAL)?.get("")? {
            self.global = GlobalState::decode(bytes.value())?;
        }
        for judged in records {
            let offset = judged.record.offset;
            if self.counters.next_offset().is_some_and(|next| offset < next) {
                self.redelivered += 1;
                continue;
            }
            self.counters.advance(offset);
            let event = match &judged.verdict {
                Verdict::Valid(event) => event,
                Verdict::Erasure(user) => {
                    self.forget(*user, judged, &tables)?;
                    continue;
                }
                Verdict::Refused(refusal) => {
                    self.refuse(judged, refusal);
                    continue;
                }
            };
            let id = hashed(&event.event_id);
            if self
                .before
                .window
                .is_repeat(&self.fresh, id, self.counters.applied)
            {
                self.counters.duplicate += 1;
                self.observe(judged, Fate::Duplicate);
                continue;
            }
            let about = match event.movie_id {
                None => None,
                Some(movie) => match catalogue.genres(movie) {
                    Some(genres) => Some((movie, genres)),
                    None => {
                        self.refuse(judged, &unknown_movie(movie));
                        continue;
                    }
                },
            };
            if is_ordered(event.kind) {
                let allowed_ms = self.options.max_lateness_ms;
                let known = &self.user(event.user_id, &tables)?.state;
                if known.is_behind(event.timestamp, allowed_ms) {
                    let refusal = too_late(event, known.last_seen_ms);
                    self.refuse(judged, &refusal);
                    continue;
                }
            }
            self.fresh.insert(id, self.counters.applied);
            self.counters.applied += 1;
            self.apply(event, offset, about, &tables)?;
        }
        Ok(())
    }

    fn observe(&mut self, judged: &Judged, fate: Fate) {
        let mut observation = Observation::not_applied(fate, judged.record.key.as_deref());
        if let Verdict::Valid(event) = &judged.verdict {
            observation.user = event.user_id.0;
            observation.movie = event.movie_id.map_or(0, |movie| movie.0);
            observation.timestamp_ms = event.timestamp;
        }
        self.observations.push((judged.record.offset, observation));
    }

    fn forget(&mut self, user: UserId, judged: &Judged, tables: &Tables<'_>) -> Result<(), redb::Error> {
        let history = match self.users.remove(&user) {
            Some(work) => work.state.history_len,
            None if self.forgotten.contains_key(&user) => 0,
            None => match tables.users.get(user.0)? {
                Some(bytes) => UserState::decode(bytes.value())?.history_len,
                None => 0,
            },
        };
        self.counters.erasures += 1;
        self.counters.history_users -= u64::from(history > 0);
        self.forgotten.insert(user, judged.record.offset);
        for (_, observation) in &mut self.observations {
            if observation.user == user.0 {
                observation.user = FORGOTTEN;
            }
        }
        let mut erasure = Observation::not_applied(Fate::Erasure, None);
        erasure.user = FORGOTTEN;
        self.observations.push((judged.record.offset, erasure));
        Ok(())
    }

    fn refuse(&mut self, judged: &Judged, refusal: &Refusal) {
        self.observe(judged, Fate::Refused(refusal.reason));
        *self.counters.dead_lettered.entry(refusal.reason).or_default() += 1;
        let letter = refusal.dead_letter(&judged.record, self.now_ms);
        self.letters.push((letter.key(), encode(&letter)));
    }

    fn user(&mut self, user: UserId, tables: &Tables<'_>) -> Result<&mut UserWork, redb::Error> {
        Ok(match self.users.entry(user) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(UserWork {
                state: match tables.users.get(user.0)? {
                    Some(bytes) if !self.forgotten.contains_key(&user) => UserState::decode(bytes.value())?,
                    _ => UserState::default(),
                },
                chunks: Vec::new(),
            }),
        })
    }

    fn apply(
        &mut self,
        event: &Interaction,
        offset: i64,
        about: Option<(MovieId, &[Arc<str>])>,
        tables: &Tables<'_>,
    ) -> Result<(), redb::Error> {
        self.counters.newest_ms = self.counters.newest_ms.max(event.timestamp);
        self.global.apply(event);
        let user = self.user(event.user_id, tables)?;
        let observation = observe(event, &user.state);
        let Some((movie, genres)) = about.filter(|_| event.kind.is_history()) else {
            user.state.apply(event, offset, &[]);
            self.note(offset, observation);
            return Ok(());
        };
        let from = user.state.comes_from(movie, event.timestamp);
        self.note(offset, observation);
        let work = match self.movies.entry(movie) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(MovieWork {
                state: match tables.movies.get(movie.0)? {
                    Some(bytes) => MovieState::decode(bytes.value())?,
                    None => MovieState::default(),
                },
                genres: genres.iter().map(|name| self.book.number(name)).collect(),
            }),
        };
        work.state.apply(event);
        if let Some(from) = from {
            let row = match self.transitions.entry(from) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(match tables.transitions.get(from.0)? {
                    Some(bytes) => TransitionRow::decode(bytes.value())?,
                    None => TransitionRow::default(),
                }),
            };
            row.add(movie, event.timestamp);
        }
        if let Some(user) = self.users.get_mut(&event.user_id) {
            user.state.apply(event, offset, &work.genres);
            self.counters.history += 1;
            self.counters.history_users += u64::from(user.state.history_len == 1);
            user.append(event, movie, &tables.history)?;
        }
        Ok(())
    }

    fn note(&mut self, offset: i64, observation: Observation) {
        self.counters.late += u64::from(observation.late);
        self.observations.push((offset, observation));
    }

    /// Writes everything into `txn`, which is not yet committed.
    pub(super) fn write(self, txn: &WriteTransaction, outbox_row: u64) -> Result<Done, redb::Error> {
        let mut rows = self.rows;
        let mut keys = Vec::with_capacity(2 * self.users.len() + self.movies.len());
        // Sorted, so that neighbours in the tree are written together.
        let users = sorted(self.users);
        let movies = sorted(self.movies);
        let transitions = sorted(self.transitions);

        let mut tail = self.before.tail.clone();
        for (&user, offset) in &self.forgotten {
            if let Some(bytes) = txn.open_table(USERS)?.remove(user.0)? {
                rows.remove(RowKey::User(user.0), bytes.value());
            }
            keys.push(FeatureKey::User(user));
            let mut chunks = txn.open_table(HISTORY)?;
            for row in chunks.extract_from_if((user.0, 0)..=(user.0, u32::MAX), |_, _| true)? {
                let (key, bytes) = row?;
                let chunk = key.value().1;
                rows.remove(RowKey::History(user.0, chunk), bytes.value());
                keys.push(FeatureKey::History(user, chunk));
            }
            tail.forget(&mut txn.open_table(OBSERVATIONS)?, user.0)?;
            let mut erased = txn.open_table(ERASED)?;
            if let Some(old) = erased.insert(user.0, offset)? {
                rows.remove(RowKey::Erased(user.0), &old.value().to_le_bytes());
            }
            rows.add(RowKey::Erased(user.0), &offset.to_le_bytes());
        }
        let mut table = txn.open_table(USERS)?;
        for (user, work) in &users {
            // Only looked at, and unknown before.
            if work.state.seq > 0 {
                put(
                    &mut rows,
                    &mut table,
                    RowKey::User(user.0),
                    user.0,
                    &work.state.encode(),
                )?;
                keys.push(FeatureKey::User(*user));
            }
        }
        let mut table = txn.open_table(HISTORY)?;
        for (user, work) in &users {
            for (chunk, bytes) in &work.chunks {
                let key = RowKey::History(user.0, *chunk);
                put(&mut rows, &mut table, key, (user.0, *chunk), bytes.as_bytes())?;
                keys.push(FeatureKey::History(*user, *chunk));
            }
        }
        let mut table = txn.open_table(MOVIES)?;
        for (movie, work) in &movies {
            put(
                &mut rows,
                &mut table,
                RowKey::Movie(movie.0),
                movie.0,
                &work.state.encode(),
            )?;
            keys.push(FeatureKey::Movie(*movie));
        }
        let mut table = txn.open_table(TRANSITIONS)?;
        for (movie, row) in &transitions {
            put(
                &mut rows,
                &mut table,
                RowKey::Transitions(movie.0),
                movie.0,
                &row.encode(),
            )?;
        }
        put(
            &mut rows,
            &mut txn.open_table(GLOBAL)?,
            RowKey::Global,
            "",
            &self.global.encode(),
        )?;
        let mut table = txn.open_table(GENRES)?;
        for (number, name) in (0..).zip(&self.book.names).skip(self.before.book.names.len()) {
            table.insert(number, &**name)?;
            rows.add(RowKey::Genre(number), name.as_bytes());
        }
        let written = self.before.window.write(
            &mut txn.open_table(EVENT_IDS)?,
            self.fresh,
            self.before.counters.applied,
        )?;
        let tail = tail.write(
            &mut txn.open_table(OBSERVATIONS)?,
            &self.observations,
            self.options.observations,
        )?;
        let row = Row {
            keys,
            letters: self.letters,
            transitions: if self.options.copies_rows {
                transitions.iter().map(|&(movie, _)| movie).collect()
            } else {
                Vec::new()
            },
        };
        let outbox = row != Row::default();
        if outbox {
            txn.open_table(OUTBOX)?
                .insert(outbox_row, row.encode().as_slice())?;
        }
        let mut progress = txn.open_table(PROGRESS)?;
        progress.insert(COUNTERS, self.counters.encode().as_slice())?;
        progress.insert(ROWS, rows.encode().as_slice())?;
        Ok(Done {
            counters: self.counters,
            book: self.book,
            rows,
            written,
            tail,
            outbox,
        })
    }
}

fn sorted<K: Ord + Copy, V>(work: HashMap<K, V>) -> Vec<(K, V)> {
    let mut work: Vec<_> = work.into_iter().collect();
    work.sort_unstable_by_key(|&(key, _)| key);
    work
}

/// Writes a row and keeps the checksum up to date.
fn put<'k, K: redb::Key>(
    rows: &mut Rows,
    table: &mut Table<'_, K, &'static [u8]>,
    name: RowKey,
    key: K::SelfType<'k>,
    bytes: &[u8],
) -> Result<(), redb::Error> {
    if let Some(old) = table.insert(key, bytes)? {
        rows.remove(name, old.value());
    }
    rows.add(name, bytes);
    Ok(())
}

impl UserWork {
    /// Appends the event, already applied to the state, to the chunk that its number belongs to.
    fn append(
        &mut self,
        event: &Interaction,
        movie: MovieId,
        history: &Table<'_, (u64, u32), &'static [u8]>,
    ) -> Result<(), redb::Error> {
        let entry = self.state.history_len - 1;
        let chunk = chunk_of(entry);
        if self.chunks.last().is_none_or(|&(last, _)| last != chunk) {
            let bytes = if entry.is_multiple_of(HISTORY_CHUNK_LEN) {
                ChunkBytes::empty()
            } else {
                match history.get((event.user_id.0, chunk))? {
                    Some(stored) => ChunkBytes::stored(stored.value())?,
                    None => return Err(crate::wire::corrupt("history: a chunk is missing")),
                }
            };
            self.chunks.push((chunk, bytes));
        }
        if let Some((_, bytes)) = self.chunks.last_mut() {
            bytes.push(event, movie, self.state.seq);
        }
        Ok(())
    }
}

/// An event as drift sees it, before it is folded into its user's state.
fn observe(event: &Interaction, user: &UserState) -> Observation {
    Observation {
        user: event.user_id.0,
        movie: event.movie_id.map_or(0, |movie| movie.0),
        fate: Fate::Applied(event.kind),
        half_stars: half_stars(event.rating),
        first: user.seq == 0,
        late: user.is_late(event.timestamp),
        tenure_ms: user.tenure_ms(event.timestamp),
        timestamp_ms: event.timestamp,
    }
}

/// Whether an event's effect is to replace what came before it.
fn is_ordered(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::WatchlistAdd | Kind::WatchlistRemove | Kind::Preference
    )
}

fn too_late(event: &Interaction, newest_ms: i64) -> Refusal {
    Refusal {
        reason: Reason::TooLate,
        detail: format!(
            "{} ms older than the newest event of its user, and it would undo what came since",
            newest_ms.saturating_sub(event.timestamp)
        ),
    }
}

fn unknown_movie(movie: MovieId) -> Refusal {
    Refusal {
        reason: Reason::UnknownMovie,
        detail: format!("movie {movie} is not in the catalogue"),
    }
}
