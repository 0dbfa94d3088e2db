//! The changelog of the feature store: a compacted topic from which any consumer materialises the live state.
//!
//! A user's history is cut into chunks of [`HISTORY_CHUNK_LEN`] entries under keys of their own, so that one more
//! event rewrites one bounded record, however long the history is, and compaction keeps every chunk.
//!
//! # Erasure
//! A key goes out with the value it has when it is sent. Where a user is erased and acts again before that, the new
//! values take the place of the tombstones, and only chunks that the new history does not reach yet get one. Records
//! therefore carry an *epoch*, the offset of the user's last erasure. Whoever meets a larger one begins the user anew,
//! and passes over records of a smaller one, as well as tombstones of chunks that the new history never had.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Kind, MovieId, Record, SchemaVersion, Topic, UserId};

/// Entries per [`HistoryChunk`]. Part of the wire contract: entry `seq` of a user lies in chunk
/// `seq / HISTORY_CHUNK_LEN`.
pub const HISTORY_CHUNK_LEN: u64 = 64;

/// The key of a changelog record: `u/<user>`, `h/<user>/<chunk>` or `m/<movie>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeatureKey {
    /// Aggregates of a user.
    User(UserId),
    /// One chunk of a user's history.
    History(UserId, u32),
    /// Aggregates of a movie over the interactions of *one partition*; consumers add the partitions up.
    Movie(MovieId),
}

impl fmt::Display for FeatureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "u/{user}"),
            Self::History(user, chunk) => write!(f, "h/{user}/{chunk}"),
            Self::Movie(movie) => write!(f, "m/{movie}"),
        }
    }
}

/// A key that is none of the documented forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a feature key: {0:?}")]
pub struct KeyError(String);

impl FromStr for FeatureKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let error = || KeyError(text.to_owned());
        let mut parts = text.split('/');
        let key = match (parts.next(), parts.next(), parts.next()) {
            (Some("u"), Some(user), None) => Self::User(UserId(user.parse().map_err(|_| error())?)),
            (Some("h"), Some(user), Some(chunk)) => Self::History(
                UserId(user.parse().map_err(|_| error())?),
                chunk.parse().map_err(|_| error())?,
            ),
            (Some("m"), Some(movie), None) => Self::Movie(MovieId(movie.parse().map_err(|_| error())?)),
            _ => return Err(error()),
        };
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(key)
    }
}

/// One changelog record. An empty value under its key (a tombstone) removes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FeatureRecord {
    /// Aggregates of a user.
    User(UserFeatures),
    /// One chunk of a user's history.
    History(HistoryChunk),
    /// One partition's aggregates of a movie.
    Movie(MovieFeatures),
}

impl FeatureRecord {
    /// The key it travels under.
    #[must_use]
    pub fn feature_key(&self) -> FeatureKey {
        match self {
            Self::User(user) => FeatureKey::User(user.user_id),
            Self::History(chunk) => FeatureKey::History(chunk.user_id, chunk.chunk),
            Self::Movie(movie) => FeatureKey::Movie(movie.movie_id),
        }
    }
}

impl Record for FeatureRecord {
    const TOPIC: Topic = Topic::Features;

    fn key(&self) -> Vec<u8> {
        self.feature_key().to_string().into_bytes()
    }
}

/// What is known of a user, all in event time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserFeatures {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// The user.
    pub user_id: UserId,
    /// Number of interactions applied so far: the user's feature version.
    pub seq: u64,
    /// Entries in the history so far (a subset of `seq`: impressions and watchlist changes are none).
    pub history_len: u64,
    /// Applied interactions by kind.
    pub counts: BTreeMap<Kind, u64>,
    /// Sum of the stars given.
    pub rating_sum: f64,
    /// Number of ratings given.
    pub rating_count: u64,
    /// Movies on the watchlist, ascending.
    pub watchlist: Vec<MovieId>,
    /// Decayed affinity per genre: each history event adds its strength to the movie's genres; the sums halve every
    /// 30 days of event time and are as of `last_seen_ms`.
    pub genre_affinity: BTreeMap<String, f64>,
    /// Genres chosen while signing up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_genres: Vec<String>,
    /// Sessions so far; a gap of 30 minutes begins a new one.
    pub sessions: u64,
    /// Event time of the first interaction, ms.
    pub first_seen_ms: i64,
    /// Newest event time seen, ms.
    pub last_seen_ms: i64,
    /// Offset of the newest interaction applied, in the partition of `interactions` with this record's number.
    pub source_offset: i64,
    /// Offset of the user's last erasure in the partition of `interactions` with this record's number; absent where
    /// there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// One event of a user's history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// The movie.
    pub movie_id: MovieId,
    /// What was done.
    pub kind: Kind,
    /// Stars, for ratings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<f32>,
    /// Event time, ms.
    pub timestamp: i64,
}

/// Up to [`HISTORY_CHUNK_LEN`] consecutive history entries of one user, in the order they were applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryChunk {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// The user.
    pub user_id: UserId,
    /// Which chunk; its first entry is number `chunk * HISTORY_CHUNK_LEN` of the history.
    pub chunk: u32,
    /// The user's feature version after the newest entry.
    pub seq: u64,
    /// The entries.
    pub entries: Vec<HistoryEntry>,
    /// As in [`UserFeatures`]: entries of different epochs do not belong together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// What one partition knows of a movie, all in event time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MovieFeatures {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// The movie.
    pub movie_id: MovieId,
    /// Interactions that are history.
    pub count: u64,
    /// Sum of the stars given.
    pub rating_sum: f64,
    /// Number of ratings.
    pub rating_count: u64,
    /// Decayed popularity as of `last_seen_ms`, by half-life in days (`"1"`, `"7"`, `"30"`).
    pub popularity: BTreeMap<String, f64>,
    /// First event time, ms.
    pub first_seen_ms: i64,
    /// Newest event time, ms.
    pub last_seen_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_keys_read_back_and_refuse_anything_else() {
        for key in [
            FeatureKey::User(UserId(7)),
            FeatureKey::History(UserId(7), 3),
            FeatureKey::Movie(MovieId(9)),
        ] {
            assert_eq!(key.to_string().parse::<FeatureKey>().unwrap(), key);
        }
        for bad in ["", "u", "u/", "u/x", "h/1", "h/1/2/3", "m/1/2", "q/1"] {
            assert!(bad.parse::<FeatureKey>().is_err(), "{bad}");
        }
    }
}
