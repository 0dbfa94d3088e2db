//! What is asked of the engine, and what it answers.

use std::sync::Arc;
use std::time::Instant;

use marquee_schemas::{Filters, ModelVersion, Movie, MovieId, StageLatency, UserId};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Explore, LeftOut, Shape, Window};

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
    /// Genres that come first; without any, a user without a history gets those chosen while signing up.
    pub genres: Vec<String>,
    /// Whether movies the user has seen may be listed.
    pub include_seen: bool,
    /// What to say of the reasons.
    pub explain: Explain,
    /// Diversity and recency.
    pub shape: Shape,
    /// Whether the list may be drawn at random.
    pub explore: Explore,
    /// When the request arrived, for deadlines; `None` where there are none.
    pub arrived: Option<Instant>,
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

/// What to say of the reasons for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Explain {
    /// Nothing.
    #[default]
    No,
    /// In words.
    Words,
    /// In words, and the numbers behind them.
    Numbers,
}

/// Why a list is not personal (or, for similar movies, not learned from behaviour).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
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
    /// The user has no history; the genres asked for, or chosen while signing up, come first.
    PreferredGenres,
    /// Nobody's behaviour connects these movies to others yet.
    NoEvidence,
    /// A personal ranking would have been late.
    Late,
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
            Self::Late => "late",
        }
    }
}

/// How the order of a list came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// By rank: the same request gets the same list.
    #[default]
    Ranked,
    /// Drawn at random with known probabilities, the best-ranked most likely first.
    PlackettLuce,
}

impl Policy {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ranked => "ranked",
            Self::PlackettLuce => "plackett_luce",
        }
    }
}

/// Why an entry is on the list; with the numbers behind it where they were asked for.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// A movie of the history (or a seed) speaks for it.
    Because {
        /// That movie.
        movie_id: MovieId,
        /// Its title.
        title: String,
        /// In words.
        text: String,
        /// Its share of what the history says for the entry, 0 to 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        share: Option<f32>,
    },
    /// Its genres speak for it.
    Genre {
        /// The genres that do.
        genres: Vec<String>,
        /// In words.
        text: String,
        /// What they add to the blended score.
        #[serde(skip_serializing_if = "Option::is_none")]
        contribution: Option<f32>,
    },
    /// How liked it is by everybody.
    Popular {
        /// In words.
        text: String,
        /// Likes ever.
        #[serde(skip_serializing_if = "Option::is_none")]
        likes: Option<u32>,
        /// Interactions ever.
        #[serde(skip_serializing_if = "Option::is_none")]
        interactions: Option<u32>,
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
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct ListItem {
    /// The movie.
    pub movie: Arc<Movie>,
    /// What it was ranked by before diversity, recency and exploration; comparable within one list.
    pub score: f32,
    /// Where it comes from: `blend`, `popularity`, `item_item`, `genre`.
    pub source: &'static str,
    /// Probability of this movie at this position, given the positions above; 1 where nothing was drawn.
    pub propensity: f64,
    /// Why, if asked.
    pub reasons: Option<Vec<Reason>>,
}

impl ListItem {
    /// An entry that nobody drew.
    pub(super) fn ranked(movie: &Arc<Movie>, score: f32, source: &'static str) -> Self {
        Self {
            movie: Arc::clone(movie),
            score,
            source,
            propensity: 1.0,
            reasons: None,
        }
    }
}

/// A list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The model that made it; absent where none serves.
    pub model_version: Option<ModelVersion>,
    /// How its order came about.
    pub policy: Policy,
    /// Why it is not personal; absent when it is.
    pub fallback: Option<Fallback>,
    /// What would have been late.
    pub left_out: Vec<LeftOut>,
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
    #[error(
        "movie {movie_id} is not in the catalogue; it can be recommended as soon as its record is published to the `movies` topic"
    )]
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

impl Refused {
    /// The same under the name that a call has for the field.
    #[must_use]
    pub fn renamed(mut self, name: impl Fn(&'static str) -> &'static str) -> Self {
        let (Self::UnknownMovie { field, .. } | Self::InvalidFilter { field, .. }) = &mut self;
        *field = name(field);
        self
    }
}
