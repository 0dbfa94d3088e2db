//! The materialised view: catalogue, histories and the live state, kept up to date from the topics.
//!
//! # Concurrency
//! One `RwLock` guards the whole [`ViewState`], so that a request sees catalogue and histories of one moment. There is
//! one writer (the subscriber's thread). It holds the lock for a bounded slice of work, `apply_slice` history entries
//! of some microseconds each, so that readers wait less than a millisecond. The standard library's lock lets a
//! waiting writer pass ahead of new readers, so neither side starves; as that makes everybody wait for the slowest
//! reader, the writer first looks for a moment in which nobody reads.
//! Whatever takes longer (the first fold, a refold) is done aside and swapped in. Guards are never held across an
//! `.await`.
//!
//! # Freshness
//! Events show before the feature store has committed and published them, see `view/ahead.rs`.
//!
//! # Order
//! A first load sees each history chunk once, not the events in their order: all entries are folded sorted by
//! (event time, partition, user, position). Later entries are folded as they come. A restart therefore gives the
//! state of a run in which nothing came late.
//!
//! # Restart
//! Most of a first load is spared where a snapshot lies in the state directory, see `view/snapshot.rs`.
//!
//! # Erasure
//! A tombstone removes the user's entries of that partition: history and seen set are those of the remaining ones at
//! once. What the entries added to sums over all users is anonymous and stays until the next fold. Whoever acts again
//! before the changelog's tombstone was published has none there: then the first record of a larger epoch removes the
//! entries, and what is left of a smaller epoch counts for nothing (`marquee_schemas::HistoryChunk`).

mod ahead;
mod change;
mod follow;
mod movies;
mod snapshot;
mod users;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use marquee_models::Error as ModelsError;
use marquee_models::live::{LiveParams, LiveState};
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{Interaction, Limits, Topic, UserId};

pub use ahead::Ahead;
pub use change::{Change, RecordError};
pub(crate) use follow::{Follow, follow};
pub use movies::{Generation, MovieRow, Movies};
pub(crate) use snapshot::Snapshots;
use users::Gone;
pub use users::{Entry, Part, UserRow, Users};

/// For how long the writer looks for a moment without readers, and how often. A list takes a fraction of a millisecond.
const WRITER_PATIENCE: Duration = Duration::from_millis(4);
const WRITER_PAUSE: Duration = Duration::from_micros(50);

/// Catalogue, histories and live state of one moment.
#[derive(Debug)]
pub struct ViewState {
    /// The catalogue.
    pub movies: Movies,
    /// Histories as the feature store publishes them.
    pub users: Users,
    /// The streaming state that models read.
    pub live: LiveState,
    recent: ahead::RecentIds,
    refold: bool,
}

/// What a batch of changes did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// History entries folded in.
    pub entries: usize,
    /// Whether the catalogue changed.
    pub movies_changed: bool,
}

impl ViewState {
    /// Nothing known yet.
    ///
    /// # Errors
    /// Settings of the live state out of their domain.
    pub fn empty(params: LiveParams) -> Result<Self, ModelsError> {
        Ok(Self {
            movies: Movies::default(),
            users: Users::default(),
            live: LiveState::new(params)?,
            recent: ahead::RecentIds::default(),
            refold: false,
        })
    }

    /// Folds a whole compacted log at once: all movies and users first, then all history entries in time order.
    ///
    /// # Errors
    /// As [`ViewState::empty`].
    pub fn fold(params: LiveParams, changes: Vec<Change>) -> Result<Self, ModelsError> {
        let mut state = Self::empty(params)?;
        for change in changes {
            state.store(change);
        }
        state.live = state.refolded(state.live.params().clone())?;
        state.refold = false;
        Ok(state)
    }

    /// Event time as of which lists are made, ms: the newest event folded in. Decays are read at this moment and not
    /// at the wall clock, so that a replayed past looks as it looked then.
    #[must_use]
    pub fn as_of_ms(&self) -> Option<i64> {
        self.live.last_event_ms()
    }

    /// Applies one change; returns how many history entries it brought, and whether it touched the catalogue.
    fn apply(&mut self, change: Change) -> Applied {
        let Stored { user, fresh, movies } = self.store(change);
        let entries = fresh.len();
        if let Some(user) = user {
            for entry in fresh {
                self.live.observe(&entry.interaction(user));
            }
        }
        self.live.ensure_items(self.movies.len());
        Applied {
            entries,
            movies_changed: movies,
        }
    }

    /// Keeps the change in catalogue and histories, without the live state except for what must be forgotten.
    fn store(&mut self, change: Change) -> Stored {
        let known = self.movies.len();
        let mut stored = Stored::default();
        match change {
            Change::Movie(movie) => {
                self.movies.upsert(movie);
                stored.movies = true;
            }
            Change::MovieGone(id) => {
                stored.movies = self.movies.remove(id);
            }
            Change::Chunk { partition, chunk } => {
                let Some(ahead) = self.enter(partition, chunk.user_id, chunk.epoch) else {
                    return stored;
                };
                let movies = &mut self.movies;
                let (user, fresh) = self.users.append(partition, &chunk, |id| movies.index_of(id));
                stored.user = Some(user);
                stored.fresh = ahead;
                stored.fresh.extend(fresh);
            }
            Change::Event {
                partition,
                offset,
                event,
            } => {
                if let Some((user, entry)) = self.anticipate(partition, offset, &event) {
                    stored.user = Some(user);
                    stored.fresh.extend(entry);
                }
            }
            Change::User { partition, features } => {
                let Some(ahead) = self.enter(partition, features.user_id, features.epoch) else {
                    return stored;
                };
                stored.user = Some(self.users.describe(partition, &features));
                stored.fresh = ahead;
            }
            Change::Erasure {
                partition,
                offset,
                user,
            } => {
                let Some(entered) = self.users.erase(partition, user, offset) else {
                    return stored;
                };
                self.forget(entered.gone);
                stored.user = self.users.find(user).map(|(index, _)| index);
                stored.fresh = entered.ahead;
            }
            Change::UserGone { partition, user } => {
                let gone = self.users.remove_published(partition, user);
                self.forget(gone);
            }
            Change::ChunkGone {
                partition,
                user,
                chunk,
            } => {
                let gone = self.users.remove_chunk(partition, user, chunk);
                self.forget(gone);
            }
        }
        // A movie first met in a history needs a place in the model's binding too.
        stored.movies |= self.movies.len() != known;
        stored
    }

    /// Makes way for a record of this epoch; returns the entries that the live state has to see again, and `None` if
    /// the record was erased since.
    fn enter(&mut self, partition: i32, user: UserId, epoch: Option<i64>) -> Option<Vec<Entry>> {
        let entered = self.users.enter(partition, user, epoch)?;
        self.forget(entered.gone);
        Some(entered.ahead)
    }

    fn forget(&mut self, gone: Option<Gone>) {
        if let Some(gone) = gone {
            self.live.forget(gone.index);
            // The live state cannot forget one partition's share alone.
            self.refold |= gone.others_remain;
        }
    }

    /// Puts an event ahead of what the feature store says; see [`ahead`]. `None` if it does not count.
    fn anticipate(
        &mut self,
        partition: i32,
        offset: i64,
        event: &Interaction,
    ) -> Option<(u32, Option<Entry>)> {
        let entry = match event.movie_id {
            // Not in the catalogue: refused by the feature processor, too, unless it learns of the movie before.
            Some(movie) => {
                let (item, _) = self.movies.find(movie)?;
                event.kind.is_history().then_some(Entry {
                    item,
                    kind: event.kind,
                    rating: event.rating,
                    time_ms: event.timestamp,
                })
            }
            None => None,
        };
        if !self.recent.admit(partition, &event.event_id) {
            return None;
        }
        let user = self.users.anticipate(partition, event.user_id, offset, entry)?;
        Some((user, entry))
    }

    /// The live state that folding all kept entries gives.
    fn refolded(&self, params: LiveParams) -> Result<LiveState, ModelsError> {
        let mut live = LiveState::new(params)?;
        live.ensure_items(self.movies.len());
        for (user, entry) in self.users.in_time_order() {
            live.observe(&entry.interaction(user));
        }
        Ok(live)
    }
}

#[derive(Debug, Default)]
struct Stored {
    user: Option<u32>,
    fresh: Vec<Entry>,
    movies: bool,
}

/// How far the view has come.
#[derive(Debug, Default)]
pub struct Progress {
    loaded: AtomicBool,
    movies: AtomicUsize,
    applied_records: AtomicU64,
    applied_entries: AtomicU64,
    refused_records: AtomicU64,
    lag_ms: AtomicI64,
    polled_at_ms: AtomicI64,
}

impl Progress {
    /// Whether everything that the log held at the start has been applied.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Movies ever seen in the catalogue, withdrawn ones among them; needs no lock of the view.
    #[must_use]
    pub fn movies(&self) -> usize {
        self.movies.load(Ordering::Relaxed)
    }

    /// Records applied since the start.
    #[must_use]
    pub fn applied_records(&self) -> u64 {
        self.applied_records.load(Ordering::Relaxed)
    }

    /// History entries applied since the start.
    #[must_use]
    pub fn applied_entries(&self) -> u64 {
        self.applied_entries.load(Ordering::Relaxed)
    }

    /// Records that could not be read.
    #[must_use]
    pub fn refused_records(&self) -> u64 {
        self.refused_records.load(Ordering::Relaxed)
    }

    /// Age of the newest applied record when it was applied, ms: the view's lag while records come in.
    #[must_use]
    pub fn lag_ms(&self) -> i64 {
        self.lag_ms.load(Ordering::Relaxed)
    }

    /// When the view last heard from its subscriber, ms; grows old when the subscriber hangs.
    #[must_use]
    pub fn polled_at_ms(&self) -> i64 {
        self.polled_at_ms.load(Ordering::Relaxed)
    }
}

/// The view. Readers take [`View::read`]; one subscriber writes.
#[derive(Debug)]
pub struct View {
    state: RwLock<ViewState>,
    wanted: Mutex<Option<LiveParams>>,
    slice: usize,
    limits: Limits,
    /// How far it has come.
    pub progress: Progress,
}

impl View {
    /// An empty view that folds at most `slice` entries per write lock.
    ///
    /// # Errors
    /// Settings of the live state out of their domain.
    pub fn new(params: LiveParams, slice: usize) -> Result<Self, ModelsError> {
        Ok(Self {
            state: RwLock::new(ViewState::empty(params)?),
            wanted: Mutex::default(),
            slice: slice.max(1),
            limits: Limits::default(),
            progress: Progress::default(),
        })
    }

    /// The same with the limits that the feature processor has.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The state of now. Do not hold the guard for longer than one scoring pass, nor across an `.await`.
    pub fn read(&self) -> RwLockReadGuard<'_, ViewState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock for writing. While somebody waits for it, it lets no further reader in, so that one list that lost its
    /// core would keep all others waiting; therefore it is asked for until nobody reads, and waited for only after a
    /// while without such a moment.
    fn write(&self) -> RwLockWriteGuard<'_, ViewState> {
        let patience = Instant::now() + WRITER_PATIENCE;
        while Instant::now() < patience {
            match self.state.try_write() {
                Ok(state) => return state,
                Err(TryLockError::Poisoned(error)) => return error.into_inner(),
                Err(TryLockError::WouldBlock) => std::thread::sleep(WRITER_PAUSE),
            }
        }
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces everything by a fold of the whole log, and counts as loaded from then on.
    pub fn replace(&self, state: ViewState) {
        self.progress.movies.store(state.movies.len(), Ordering::Relaxed);
        let old = std::mem::replace(&mut *self.write(), state);
        self.progress.loaded.store(true, Ordering::Release);
        // Outside the lock: freeing a large state takes its time.
        drop(old);
    }

    /// Reads and applies records in slices; those that cannot be read are counted and given to `refused`. Events that
    /// claim to come from after `now_ms` are left to the feature processor.
    pub fn apply(
        &self,
        records: &[RawRecord],
        now_ms: i64,
        mut refused: impl FnMut(&RawRecord, RecordError),
    ) -> Applied {
        let mut changes = Vec::with_capacity(records.len());
        for record in records {
            match Change::read(record) {
                Ok(Some(Change::Event { event, .. })) if event.check_time(now_ms, self.limits).is_err() => {}
                Ok(Some(change)) => changes.push(change),
                Ok(None) => {}
                Err(error) => {
                    self.progress.refused_records.fetch_add(1, Ordering::Relaxed);
                    refused(record, error);
                }
            }
        }
        let total = self.apply_changes(changes);
        self.progress
            .applied_records
            .fetch_add(records.len() as u64, Ordering::Relaxed);
        self.progress
            .applied_entries
            .fetch_add(total.entries as u64, Ordering::Relaxed);
        total
    }

    /// Applies changes in slices, see the [module](self).
    pub fn apply_changes(&self, changes: Vec<Change>) -> Applied {
        let mut total = Applied::default();
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let mut left = self.slice;
            let mut state = self.write();
            while left > 0
                && let Some(change) = changes.next()
            {
                let done = state.apply(change);
                left = left.saturating_sub(done.entries.max(1));
                total.entries += done.entries;
                total.movies_changed |= done.movies_changed;
            }
            self.progress.movies.store(state.movies.len(), Ordering::Relaxed);
            drop(state);
            if changes.peek().is_some() {
                std::thread::yield_now();
            }
        }
        total
    }

    /// Asks the writer to fold the live state anew with these settings, those that a new champion was trained with.
    pub fn want_params(&self, params: &LiveParams) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(params.clone());
    }

    /// Folds anew where settings changed or an erasure requires it. For the writer alone: it must not write between
    /// the fold and the swap.
    ///
    /// # Errors
    /// Settings of the live state out of their domain.
    pub fn refold_if_due(&self) -> Result<bool, ModelsError> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let fresh = {
            let state = self.read();
            let params = wanted.unwrap_or_else(|| state.live.params().clone());
            if !state.refold && &params == state.live.params() {
                return Ok(false);
            }
            state.refolded(params)?
        };
        let mut state = self.write();
        let old = std::mem::replace(&mut state.live, fresh);
        state.refold = false;
        drop(state);
        drop(old);
        Ok(true)
    }

    pub(crate) fn note_poll(&self, now_ms: i64, newest_record_ms: Option<i64>) {
        self.progress.polled_at_ms.store(now_ms, Ordering::Relaxed);
        let lag = newest_record_ms.map_or(0, |time| now_ms.saturating_sub(time).max(0));
        self.progress.lag_ms.store(lag, Ordering::Relaxed);
    }

    /// What is still missing before answers rest on complete data; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if !self.progress.is_loaded() {
            missing.push("the features have not caught up with the log");
        }
        if self.read().movies.present() == 0 {
            missing.push("the catalogue is empty");
        }
        missing
    }

    /// The topics that hold what a view is made of.
    pub const TOPICS: [Topic; 2] = [Topic::Movies, Topic::Features];
    /// The topics a view follows: also events that the feature store has yet to publish.
    pub const FOLLOWED: [Topic; 3] = [Topic::Movies, Topic::Features, Topic::Interactions];
}

#[cfg(test)]
mod tests;
