//! What is asked of the engine, and what it answers.

use std::sync::Arc;

use marquee_schemas::{Filters, ModelVersion, Movie, MovieId, StageLatency, UserId};
use serde::Serialize;

use super::Window;

/// A list for somebody.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecommendAsk {
    /// For whom; nobody in particular when absent.
    pub user: Option<UserId>,
    /// Entries wanted.
    pub k: usize,
    /// Restrictions.
    pub filters: Filters,
    /// Movies that count as liked for this request.
    pub seeds: Vec<MovieId>,
    /// Whether movies the user has seen may be listed.
    pub include_seen: bool,
    /// Whether to say why.
    pub explain: bool,
}

/// Movies like other movies.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SimilarAsk {
    /// Like which ones; at least one.
    pub movies: Vec<MovieId>,
    /// Entries wanted.
    pub k: usize,
    /// Restrictions.
    pub filters: Filters,
}

/// What is popular.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PopularAsk {
    /// Entries wanted.
    pub k: usize,
    /// Restrictions.
    pub filters: Filters,
    /// How quickly the past is forgotten.
    pub window: Window,
}

/// Why a list is not personal (or, for similar movies, not learned from behaviour).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// No model serves yet.
    NoModel,
    /// The request names no user and no seed.
    Anonymous,
    /// Nothing was ever heard of this user.
    UnknownUser,
    /// The user is known but has no history yet.
    NoHistory,
    /// The user has no history, the genres chosen while signing up come first.
    PreferredGenres,
    /// Nobody's behaviour connects these movies to others yet.
    NoEvidence,
}

impl Fallback {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoModel => "no_model",
            Self::Anonymous => "anonymous",
            Self::UnknownUser => "unknown_user",
            Self::NoHistory => "no_history",
            Self::PreferredGenres => "preferred_genres",
            Self::NoEvidence => "no_evidence",
        }
    }
}

/// Why an entry is on the list, with the number behind it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// A movie of the history (or a seed) speaks for it.
    Because {
        /// That movie.
        movie_id: MovieId,
        /// Its title.
        title: String,
        /// Its share of what the history says for the entry, 0 to 1.
        share: f32,
        /// In words.
        text: String,
    },
    /// One term of the score.
    Term {
        /// The source of the term.
        source: &'static str,
        /// Its raw value.
        value: f32,
        /// What it adds to the blended score.
        contribution: f32,
    },
    /// How liked it is by everybody.
    Popular {
        /// Likes ever.
        likes: u32,
        /// Interactions ever.
        interactions: u32,
        /// In words.
        text: String,
    },
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct ListItem {
    /// The movie.
    pub movie: Arc<Movie>,
    /// What it is ranked by; comparable within one list.
    pub score: f32,
    /// Where it comes from: `blend`, `popularity`, `item_item`, `genre`.
    pub source: &'static str,
    /// Why, if asked.
    pub reasons: Option<Vec<Reason>>,
}

/// A list.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The model that made it; absent where none serves.
    pub model_version: Option<ModelVersion>,
    /// Why it is not personal; absent when it is.
    pub fallback: Option<Fallback>,
    /// The user's applied interactions that it rests on.
    pub feature_version: Option<u64>,
    /// Newest event folded in, event time, ms.
    pub as_of_ms: Option<i64>,
    /// Movies that passed the restrictions.
    pub candidates: u32,
    /// Best first.
    pub items: Vec<ListItem>,
    /// Time by stage.
    pub stages: Vec<StageLatency>,
}

/// Why a list cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The catalogue does not hold this movie.
    #[error("movie {movie_id} is not in the catalogue")]
    UnknownMovie {
        /// Field that names it.
        field: &'static str,
        /// The movie.
        movie_id: MovieId,
    },
    /// A restriction that no movie could ever meet.
    #[error("{detail}")]
    InvalidFilter {
        /// Field of the restriction.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}
