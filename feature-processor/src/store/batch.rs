//! Folding one batch in memory: every key is read once, however often the batch touches it, and written once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use marquee_schemas::{FeatureKey, HISTORY_CHUNK_LEN, Interaction, MovieId, Reason, Record, UserId, encode};
use redb::{ReadableTable, Table, WriteTransaction};

use super::dedupe::{Fresh, Window, Written, hashed};
use super::history::{ChunkBytes, chunk_of};
use super::observations::{FORGOTTEN, Tail};
use super::outbox::Row;
use super::progress::Counters;
use super::tables::{EVENT_IDS, GENRES, HISTORY, MOVIES, OBSERVATIONS, OUTBOX, PROGRESS, USERS};
use crate::drift::{Fate, Observation, half_stars};
use crate::{Catalogue, Genre, Judged, MovieState, Refusal, UserState, Verdict};

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

#[derive(Debug)]
struct MovieWork {
    state: MovieState,
    genres: Vec<Genre>,
}

/// A batch being folded.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    now_ms: i64,
    window: &'a Window,
    tail: &'a Tail,
    observations: Vec<(i64, Observation)>,
    pub(super) counters: Counters,
    book: GenreBook,
    genres_before: usize,
    applied_before: u64,
    fresh: Fresh,
    users: HashMap<UserId, UserWork>,
    /// Users to forget; what this batch holds of them came after.
    forgotten: BTreeSet<UserId>,
    movies: HashMap<MovieId, MovieWork>,
    letters: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) redelivered: u64,
}

/// What the store takes over once the batch is committed.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) counters: Counters,
    pub(super) book: GenreBook,
    pub(super) written: Written,
    pub(super) tail: Tail,
    /// Whether the batch left a row in the outbox.
    pub(super) outbox: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        now_ms: i64,
        window: &'a Window,
        tail: &'a Tail,
        counters: &Counters,
        book: &GenreBook,
    ) -> Self {
        Self {
            now_ms,
            window,
            tail,
            observations: Vec::new(),
            counters: counters.clone(),
            book: book.clone(),
            genres_before: book.names.len(),
            applied_before: counters.applied,
            fresh: Fresh::default(),
            users: HashMap::new(),
            forgotten: BTreeSet::new(),
            movies: HashMap::new(),
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
        let users = txn.open_table(USERS)?;
        let history = txn.open_table(HISTORY)?;
        let movies = txn.open_table(MOVIES)?;
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
                    self.forget(*user, judged, &users)?;
                    continue;
                }
                Verdict::Refused(refusal) => {
                    self.refuse(judged, refusal);
                    continue;
                }
            };
            let id = hashed(&event.event_id);
            if self.window.is_repeat(&self.fresh, id, self.counters.applied) {
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
            self.fresh.insert(id, self.counters.applied);
            self.counters.applied += 1;
            self.apply(event, offset, about, &users, &history, &movies)?;
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

    fn forget(
        &mut self,
        user: UserId,
        judged: &Judged,
        users: &Table<'_, u64, &'static [u8]>,
    ) -> Result<(), redb::Error> {
        let history = match self.users.remove(&user) {
            Some(work) => work.state.history_len,
            None if self.forgotten.contains(&user) => 0,
            None => match users.get(user.0)? {
                Some(bytes) => UserState::decode(bytes.value())?.history_len,
                None => 0,
            },
        };
        self.counters.erasures += 1;
        self.counters.history_users -= u64::from(history > 0);
        self.forgotten.insert(user);
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

    fn apply(
        &mut self,
        event: &Interaction,
        offset: i64,
        about: Option<(MovieId, &[Arc<str>])>,
        users: &Table<'_, u64, &'static [u8]>,
        history: &Table<'_, (u64, u32), &'static [u8]>,
        movies: &Table<'_, u32, &'static [u8]>,
    ) -> Result<(), redb::Error> {
        let user = match self.users.entry(event.user_id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(UserWork {
                state: match users.get(event.user_id.0)? {
                    Some(bytes) if !self.forgotten.contains(&event.user_id) => {
                        UserState::decode(bytes.value())?
                    }
                    _ => UserState::default(),
                },
                chunks: Vec::new(),
            }),
        };
        self.counters.newest_ms = self.counters.newest_ms.max(event.timestamp);
        let observation = observe(event, &user.state);
        self.counters.late += u64::from(observation.late);
        self.observations.push((offset, observation));
        let Some((movie, genres)) = about.filter(|_| event.kind.is_history()) else {
            user.state.apply(event, offset, &[]);
            return Ok(());
        };
        let work = match self.movies.entry(movie) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(MovieWork {
                state: match movies.get(movie.0)? {
                    Some(bytes) => MovieState::decode(bytes.value())?,
                    None => MovieState::default(),
                },
                genres: genres.iter().map(|name| self.book.number(name)).collect(),
            }),
        };
        work.state.apply(event);
        user.state.apply(event, offset, &work.genres);
        self.counters.history += 1;
        self.counters.history_users += u64::from(user.state.history_len == 1);
        user.append(event, movie, history)
    }

    /// Writes everything into `txn`, which is not yet committed.
    pub(super) fn write(
        self,
        txn: &WriteTransaction,
        outbox_row: u64,
        keep_observations: u64,
    ) -> Result<Done, redb::Error> {
        let mut keys = Vec::with_capacity(2 * self.users.len() + self.movies.len());
        // Sorted, so that neighbours in the tree are written together.
        let mut users: Vec<_> = self.users.into_iter().collect();
        users.sort_unstable_by_key(|&(user, _)| user);
        let mut movies: Vec<_> = self.movies.into_iter().collect();
        movies.sort_unstable_by_key(|&(movie, _)| movie);

        let mut tail = self.tail.clone();
        for &user in &self.forgotten {
            txn.open_table(USERS)?.remove(user.0)?;
            keys.push(FeatureKey::User(user));
            let mut chunks = txn.open_table(HISTORY)?;
            for row in chunks.extract_from_if((user.0, 0)..=(user.0, u32::MAX), |_, _| true)? {
                keys.push(FeatureKey::History(user, row?.0.value().1));
            }
            tail.forget(&mut txn.open_table(OBSERVATIONS)?, user.0)?;
        }
        let mut table = txn.open_table(USERS)?;
        for (user, work) in &users {
            table.insert(user.0, work.state.encode().as_slice())?;
            keys.push(FeatureKey::User(*user));
        }
        let mut table = txn.open_table(HISTORY)?;
        for (user, work) in &users {
            for (chunk, bytes) in &work.chunks {
                table.insert((user.0, *chunk), bytes.as_bytes())?;
                keys.push(FeatureKey::History(*user, *chunk));
            }
        }
        let mut table = txn.open_table(MOVIES)?;
        for (movie, work) in &movies {
            table.insert(movie.0, work.state.encode().as_slice())?;
            keys.push(FeatureKey::Movie(*movie));
        }
        let mut table = txn.open_table(GENRES)?;
        for (number, name) in (0..).zip(&self.book.names).skip(self.genres_before) {
            table.insert(number, &**name)?;
        }
        let written = self
            .window
            .write(&mut txn.open_table(EVENT_IDS)?, self.fresh, self.applied_before)?;
        let tail = tail.write(
            &mut txn.open_table(OBSERVATIONS)?,
            &self.observations,
            keep_observations,
        )?;
        let row = Row {
            keys,
            letters: self.letters,
        };
        let outbox = row != Row::default();
        if outbox {
            txn.open_table(OUTBOX)?
                .insert(outbox_row, row.encode().as_slice())?;
        }
        txn.open_table(PROGRESS)?
            .insert("", self.counters.encode().as_slice())?;
        Ok(Done {
            counters: self.counters,
            book: self.book,
            written,
            tail,
            outbox,
        })
    }
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

fn unknown_movie(movie: MovieId) -> Refusal {
    Refusal {
        reason: Reason::UnknownMovie,
        detail: format!("movie {movie} is not in the catalogue"),
    }
}
