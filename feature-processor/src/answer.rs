//! What is told of a user or a movie: over HTTP as the fold has it, and from the log as it was.

use std::collections::BTreeMap;

use marquee_schemas::{HistoryEntry, MovieId, UserFeatures, UserId};
use serde::Serialize;

use crate::fold::{MovieSummary, ROLLING_SPANS_MS, Transition, TransitionRow, follow, summarise};
use crate::{Error, MovieState, Snapshot};

/// History from which a user counts as warm, and below which as cold only without any.
const WARM: u64 = 5;

/// How much is known of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColdStart {
    /// No history at all.
    Cold,
    /// Fewer than five acts.
    Warming,
    /// Five or more.
    Warm,
}

/// The answer about a user. A user whose events came by a foreign partitioner may have several parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UserAnswer {
    /// The user.
    pub user_id: UserId,
    /// Newest event time folded, ms.
    pub as_of_ms: i64,
    /// How far that lies behind the clock, ms.
    pub age_ms: i64,
    /// How much is known.
    pub cold_start: ColdStart,
    /// Whether genres were chosen while signing up.
    pub onboarding_completed: bool,
    /// Mean stars; null without a rating.
    pub mean_rating: Option<f64>,
    /// Engagement: interactions per session.
    pub interactions_per_session: f64,
    /// Time since the user's newest event, ms before `as_of_ms`.
    pub idle_ms: i64,
    /// Acts of the history in the last hour, day, 7 and 30 days before `as_of_ms`.
    pub windows: BTreeMap<&'static str, u64>,
    /// As in the changelog, by partition.
    pub parts: BTreeMap<i32, UserFeatures>,
}

/// The answer about a movie.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MovieAnswer {
    /// The movie.
    pub movie_id: MovieId,
    /// Newest event time folded, ms.
    pub as_of_ms: i64,
    /// How far that lies behind the clock, ms.
    pub age_ms: i64,
    /// Counts, popularity as of `as_of_ms`, and rolling windows.
    #[serde(flatten)]
    pub summary: MovieSummary,
    /// What users turn to after it within the same session, heaviest first.
    pub next: Vec<Transition>,
}

/// What one partition knows of a user.
#[derive(Debug)]
pub(crate) struct UserPart {
    partition: i32,
    newest_ms: i64,
    features: UserFeatures,
    history: Vec<HistoryEntry>,
}

impl UserPart {
    pub(crate) fn read(snapshot: &Snapshot, user: UserId) -> Result<Option<Self>, Error> {
        let Some(features) = snapshot.user(user)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            partition: snapshot.partition(),
            newest_ms: snapshot.counters().newest_ms,
            features,
            history: snapshot.user_history(user)?,
        }))
    }
}

impl UserAnswer {
    /// Adds up what the partitions know; `None` if none knows anything.
    pub(crate) fn of(user_id: UserId, parts: Vec<UserPart>, now_ms: i64) -> Option<Self> {
        let as_of_ms = parts.iter().map(|part| part.newest_ms).max()?;
        let sum = |of: fn(&UserFeatures) -> u64| parts.iter().map(|part| of(&part.features)).sum::<u64>();
        let history = sum(|features| features.history_len);
        let ratings = sum(|features| features.rating_count);
        let stars: f64 = parts.iter().map(|part| part.features.rating_sum).sum();
        let last_seen_ms = parts.iter().map(|part| part.features.last_seen_ms).max()?;
        Some(Self {
            user_id,
            as_of_ms,
            age_ms: now_ms.saturating_sub(as_of_ms).max(0),
            cold_start: match history {
                0 => ColdStart::Cold,
                1..WARM => ColdStart::Warming,
                _ => ColdStart::Warm,
            },
            onboarding_completed: parts
                .iter()
                .any(|part| !part.features.preferred_genres.is_empty()),
            mean_rating: (ratings > 0).then(|| stars / ratings as f64),
            interactions_per_session: sum(|features| features.seq) as f64
                / sum(|features| features.sessions).max(1) as f64,
            idle_ms: as_of_ms.saturating_sub(last_seen_ms),
            windows: ROLLING_SPANS_MS
                .into_iter()
                .map(|(name, span_ms)| {
                    let within = |entry: &&HistoryEntry| {
                        entry.timestamp <= as_of_ms && as_of_ms - entry.timestamp < span_ms
                    };
                    let entries = parts.iter().flat_map(|part| &part.history);
                    (name, entries.filter(within).count() as u64)
                })
                .collect(),
            parts: parts
                .into_iter()
                .map(|part| (part.partition, part.features))
                .collect(),
        })
    }
}

/// What one partition knows of a movie.
#[derive(Debug)]
pub(crate) struct MoviePart {
    newest_ms: i64,
    state: MovieState,
    transitions: TransitionRow,
}

impl MoviePart {
    pub(crate) fn read(snapshot: &Snapshot, movie: MovieId) -> Result<Option<Self>, Error> {
        let newest_ms = snapshot.counters().newest_ms;
        let Some(state) = snapshot.movie_state(movie)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            newest_ms,
            state,
            transitions: snapshot.transitions(movie)?,
        }))
    }
}

impl MovieAnswer {
    /// Adds up what the partitions know; `None` if none knows anything.
    pub(crate) fn of(movie_id: MovieId, parts: &[MoviePart], now_ms: i64) -> Option<Self> {
        let as_of_ms = parts.iter().map(|part| part.newest_ms).max()?;
        Some(Self {
            movie_id,
            as_of_ms,
            age_ms: now_ms.saturating_sub(as_of_ms).max(0),
            summary: summarise(parts.iter().map(|part| &part.state), as_of_ms),
            next: follow(parts.iter().map(|part| &part.transitions), as_of_ms),
        })
    }
}
