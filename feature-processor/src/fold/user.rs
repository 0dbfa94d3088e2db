//! What is known of a user.

use std::sync::Arc;

use marquee_schemas::{Interaction, Kind, MovieId, SchemaVersion, UserFeatures, UserId};

use super::{SESSION_GAP_MS, decay};
use crate::wire::{Reader, Writer, corrupt, kind_code};

/// A genre's number in the dictionary of its partition's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Genre(pub u32);

/// Half-life of the genre affinity, days of event time.
const AFFINITY_HALF_LIFE_DAYS: f64 = 30.0;

/// The longest watchlist kept, so that a user's record stays far below the largest message. Further additions are
/// counted but not listed.
const MAX_WATCHLIST: usize = 10_000;

/// Version of the stored bytes. A new layout gets a new number and [`UserState::decode`] an arm that reads the old.
const VERSION: u8 = 2;

/// How much an event says about its movie's genres: a rating `(stars - 2.5) / 2.5`, so that 5 stars weigh as much as
/// a like; a view half of one, a click a quarter; a dislike the opposite of a like; other kinds nothing.
#[must_use]
pub fn genre_strength(kind: Kind, rating: Option<f32>) -> f64 {
    match (kind, rating) {
        (Kind::Rating, Some(stars)) => (f64::from(stars) - 2.5) / 2.5,
        (Kind::Like, _) => 1.0,
        (Kind::Dislike, _) => -1.0,
        (Kind::View, _) => 0.5,
        (Kind::Click, _) => 0.25,
        _ => 0.0,
    }
}

/// Aggregates of a user, in event time. The history itself is stored beside it, in chunks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UserState {
    pub(crate) seq: u64,
    pub(crate) history_len: u64,
    /// By [`kind_code`].
    counts: [u64; Kind::ALL.len()],
    rating_sum: f64,
    rating_count: u64,
    /// Ascending.
    watchlist: Vec<MovieId>,
    /// By genre, ascending; as of `last_seen_ms`.
    affinity: Vec<(Genre, f64)>,
    preferred: Vec<String>,
    sessions: u64,
    first_seen_ms: i64,
    pub(crate) last_seen_ms: i64,
    source_offset: i64,
    /// The movie of the newest history entry that was not late, and its time; not in the changelog.
    latest: Option<(MovieId, i64)>,
}

impl UserState {
    /// Whether an event of this time would be late.
    #[must_use]
    pub fn is_late(&self, timestamp_ms: i64) -> bool {
        self.is_behind(timestamp_ms, 0)
    }

    /// Whether an event of this time would be late by more than `allowed_ms`.
    #[must_use]
    pub fn is_behind(&self, timestamp_ms: i64, allowed_ms: i64) -> bool {
        self.seq > 0 && timestamp_ms < self.last_seen_ms.saturating_sub(allowed_ms)
    }

    /// The movie from which an event about `movie` at this time, not yet applied, would be a transition.
    #[must_use]
    pub fn comes_from(&self, movie: MovieId, timestamp_ms: i64) -> Option<MovieId> {
        let (from, at_ms) = self.latest.filter(|_| !self.is_late(timestamp_ms))?;
        let within = timestamp_ms.saturating_sub(at_ms) <= SESSION_GAP_MS;
        (from != movie && within).then_some(from)
    }

    /// Event time since the first event, ms; zero for the first and for those before it.
    #[must_use]
    pub fn tenure_ms(&self, timestamp_ms: i64) -> i64 {
        if self.seq == 0 {
            0
        } else {
            timestamp_ms.saturating_sub(self.first_seen_ms).max(0)
        }
    }

    /// Folds one event, read at `offset`, about a movie of these genres.
    pub fn apply(&mut self, event: &Interaction, offset: i64, genres: &[Genre]) {
        let now = event.timestamp;
        if event.kind.is_history()
            && !self.is_late(now)
            && let Some(movie) = event.movie_id
        {
            self.latest = Some((movie, now));
        }
        if self.seq == 0 {
            self.first_seen_ms = now;
            self.last_seen_ms = now;
            self.sessions = 1;
        }
        let gap_ms = now - self.last_seen_ms;
        if gap_ms > SESSION_GAP_MS {
            self.sessions += 1;
        }
        self.seq += 1;
        self.counts[usize::from(kind_code(event.kind))] += 1;
        if let Some(stars) = event.rating {
            self.rating_sum += f64::from(stars);
            self.rating_count += 1;
        }
        self.decay_affinity(gap_ms);
        if event.kind.is_history() {
            self.history_len += 1;
            let strength = genre_strength(event.kind, event.rating);
            self.add_affinity(
                genres,
                strength * decay((-gap_ms).max(0), AFFINITY_HALF_LIFE_DAYS),
            );
        }
        match (event.kind, event.movie_id) {
            (Kind::WatchlistAdd, Some(movie)) => {
                if let Err(at) = self.watchlist.binary_search(&movie)
                    && self.watchlist.len() < MAX_WATCHLIST
                {
                    self.watchlist.insert(at, movie);
                }
            }
            (Kind::WatchlistRemove, Some(movie)) => {
                if let Ok(at) = self.watchlist.binary_search(&movie) {
                    self.watchlist.remove(at);
                }
            }
            (Kind::Preference, _) => self.preferred.clone_from(&event.genres),
            _ => {}
        }
        self.first_seen_ms = self.first_seen_ms.min(now);
        self.last_seen_ms = self.last_seen_ms.max(now);
        self.source_offset = offset;
    }

    fn decay_affinity(&mut self, gap_ms: i64) {
        if gap_ms > 0 && !self.affinity.is_empty() {
            let left = decay(gap_ms, AFFINITY_HALF_LIFE_DAYS);
            for (_, sum) in &mut self.affinity {
                *sum *= left;
            }
        }
    }

    fn add_affinity(&mut self, genres: &[Genre], weight: f64) {
        for &genre in genres {
            match self.affinity.binary_search_by_key(&genre, |&(known, _)| known) {
                Ok(at) => self.affinity[at].1 += weight,
                Err(at) => self.affinity.insert(at, (genre, weight)),
            }
        }
    }

    /// The record of the changelog; `names` is the store's dictionary of genres.
    #[must_use]
    pub fn features(&self, user_id: UserId, names: &[Arc<str>]) -> UserFeatures {
        UserFeatures {
            schema_version: SchemaVersion,
            user_id,
            seq: self.seq,
            history_len: self.history_len,
            counts: Kind::ALL
                .into_iter()
                .map(|kind| (kind, self.counts[usize::from(kind_code(kind))]))
                .filter(|&(_, count)| count > 0)
                .collect(),
            rating_sum: self.rating_sum,
            rating_count: self.rating_count,
            watchlist: self.watchlist.clone(),
            genre_affinity: self
                .affinity
                .iter()
                .filter_map(|&(Genre(id), sum)| Some((names.get(id as usize)?.to_string(), sum)))
                .collect(),
            preferred_genres: self.preferred.clone(),
            sessions: self.sessions,
            first_seen_ms: self.first_seen_ms,
            last_seen_ms: self.last_seen_ms,
            source_offset: self.source_offset,
            // Not of the fold: the store knows of erasures.
            epoch: None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.count(self.seq);
        writer.count(self.history_len);
        writer.len(self.counts.len());
        for count in self.counts {
            writer.count(count);
        }
        writer.f64(self.rating_sum);
        writer.count(self.rating_count);
        writer.len(self.watchlist.len());
        for movie in &self.watchlist {
            writer.count(u64::from(movie.0));
        }
        writer.len(self.affinity.len());
        for &(Genre(id), sum) in &self.affinity {
            writer.count(u64::from(id));
            writer.f64(sum);
        }
        writer.len(self.preferred.len());
        for genre in &self.preferred {
            writer.bytes(genre.as_bytes());
        }
        writer.count(self.sessions);
        writer.i64(self.first_seen_ms);
        writer.i64(self.last_seen_ms);
        writer.i64(self.source_offset);
        writer.u8(u8::from(self.latest.is_some()));
        if let Some((movie, at_ms)) = self.latest {
            writer.count(u64::from(movie.0));
            writer.i64(at_ms);
        }
        writer.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        match Reader::new(bytes) {
            // Version 1 did not know the latest movie.
            Some((version @ 1..=VERSION, mut reader)) => Self::read(&mut reader, version > 1),
            _ => None,
        }
        .ok_or_else(|| corrupt("user"))
    }

    fn read(reader: &mut Reader<'_>, since_v2: bool) -> Option<Self> {
        let seq = reader.count()?;
        let history_len = reader.count()?;
        let mut counts = [0; Kind::ALL.len()];
        let stored = reader.len(1)?;
        // A file written before a kind was added simply has fewer counts.
        for count in counts.get_mut(..stored)? {
            *count = reader.count()?;
        }
        let rating_sum = reader.f64()?;
        let rating_count = reader.count()?;
        let watchlist = (0..reader.len(1)?)
            .map(|_| u32::try_from(reader.count()?).ok().map(MovieId))
            .collect::<Option<_>>()?;
        let affinity = (0..reader.len(9)?)
            .map(|_| Some((Genre(u32::try_from(reader.count()?).ok()?), reader.f64()?)))
            .collect::<Option<_>>()?;
        let preferred = (0..reader.len(1)?)
            .map(|_| reader.string())
            .collect::<Option<_>>()?;
        let state = Self {
            seq,
            history_len,
            counts,
            rating_sum,
            rating_count,
            watchlist,
            affinity,
            preferred,
            sessions: reader.count()?,
            first_seen_ms: reader.i64()?,
            last_seen_ms: reader.i64()?,
            source_offset: reader.i64()?,
            latest: if since_v2 && reader.u8()? != 0 {
                Some((MovieId(u32::try_from(reader.count()?).ok()?), reader.i64()?))
            } else {
                None
            },
        };
        reader.end()?;
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const DAY: i64 = 24 * 60 * MINUTE;

    fn event(kind: Kind, movie: u32, rating: Option<f32>, timestamp: i64) -> Interaction {
        Interaction {
            schema_version: SchemaVersion,
            event_id: "e".into(),
            user_id: UserId(1),
            movie_id: Some(MovieId(movie)),
            kind,
            rating,
            genres: vec![],
            timestamp,
            session_id: None,
            request_id: None,
            source: None,
        }
    }

    fn fold(events: &[Interaction]) -> UserFeatures {
        let mut state = UserState::default();
        for (offset, event) in (0..).zip(events) {
            state.apply(event, offset, &[Genre(0), Genre(1)]);
        }
        assert_eq!(UserState::decode(&state.encode()).unwrap(), state);
        state.features(UserId(1), &["Drama".into(), "Horror".into()])
    }

    #[test]
    fn a_gap_of_more_than_thirty_minutes_begins_a_session_and_a_late_event_none() {
        let at = |timestamp| event(Kind::View, 1, None, timestamp);
        assert_eq!(fold(&[at(1), at(1 + 30 * MINUTE)]).sessions, 1);
        assert_eq!(fold(&[at(1), at(2 + 30 * MINUTE)]).sessions, 2);
        assert_eq!(fold(&[at(DAY), at(1)]).sessions, 1);
    }

    #[test]
    fn affinity_halves_in_thirty_days_and_a_late_event_counts_as_if_in_time() {
        let (first, second) = (
            event(Kind::Rating, 1, Some(5.0), DAY),
            event(Kind::Dislike, 2, None, 31 * DAY),
        );
        let in_order = fold(&[first.clone(), second.clone()]);
        assert_eq!(in_order.genre_affinity["Drama"], 0.5 - 1.0);
        assert_eq!(in_order.genre_affinity["Horror"], -0.5);
        let late = fold(&[second, first]);
        assert_eq!(late.genre_affinity, in_order.genre_affinity);
        assert_eq!((late.first_seen_ms, late.last_seen_ms), (DAY, 31 * DAY));
        assert_eq!(late.source_offset, 1);
    }

    #[test]
    fn the_watchlist_is_an_ordered_set_that_follows_the_log() {
        let features = fold(&[
            event(Kind::WatchlistAdd, 9, None, 5),
            event(Kind::WatchlistAdd, 3, None, 6),
            event(Kind::WatchlistAdd, 9, None, 7),
            event(Kind::WatchlistAdd, 4, None, 8),
            event(Kind::WatchlistRemove, 3, None, 1),
            event(Kind::WatchlistRemove, 77, None, 9),
        ]);
        assert_eq!(features.watchlist, [MovieId(4), MovieId(9)]);
        assert_eq!(features.history_len, 0);
        assert!(features.genre_affinity.is_empty());
        assert_eq!(features.counts[&Kind::WatchlistAdd], 4);
        assert_eq!(features.seq, 6);
    }

    #[test]
    fn preferences_are_those_of_the_last_record() {
        let mut chosen = event(Kind::Preference, 0, None, 5);
        chosen.movie_id = None;
        chosen.genres = vec!["Film-Noir".into()];
        let features = fold(&[chosen.clone(), event(Kind::Impression, 1, None, 6), chosen]);
        assert_eq!(features.preferred_genres, ["Film-Noir"]);
        assert_eq!(features.history_len, 0);
    }

    #[test]
    fn a_transition_leads_from_the_movie_before_within_a_session_and_not_to_or_from_a_late_event() {
        let at = |movie, timestamp| event(Kind::View, movie, None, timestamp);
        let mut state = UserState::default();
        assert_eq!(state.comes_from(MovieId(1), DAY), None);
        state.apply(&at(1, DAY), 0, &[]);
        assert_eq!(state.comes_from(MovieId(1), DAY), None, "the same movie");
        assert_eq!(state.comes_from(MovieId(2), DAY + 30 * MINUTE), Some(MovieId(1)));
        assert_eq!(state.comes_from(MovieId(2), DAY + 31 * MINUTE), None);
        assert_eq!(state.comes_from(MovieId(2), DAY - 1), None);
        state.apply(&at(2, DAY - 1), 1, &[]);
        let mut shown = at(3, DAY + 1);
        shown.kind = Kind::Impression;
        state.apply(&shown, 2, &[]);
        assert_eq!(state.comes_from(MovieId(4), DAY + 2), Some(MovieId(1)));
        assert_eq!(UserState::decode(&state.encode()).unwrap(), state);
    }

    #[test]
    fn a_state_of_the_first_version_is_read() {
        let mut state = UserState::default();
        state.apply(&event(Kind::Rating, 1, Some(4.0), 5), 0, &[Genre(3)]);
        let bytes = state.encode();
        state.latest = None;
        // A flag, the movie in one byte, and its time.
        let old = [&[1], &bytes[1..bytes.len() - 10]].concat();
        assert_eq!(UserState::decode(&old).unwrap(), state);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut state = UserState::default();
        state.apply(&event(Kind::Rating, 1, Some(4.0), 5), 0, &[Genre(3)]);
        let bytes = state.encode();
        for end in 0..bytes.len() {
            assert!(UserState::decode(&bytes[..end]).is_err(), "{end}");
        }
        assert!(UserState::decode(&[&[9], &bytes[1..]].concat()).is_err());
    }
}
