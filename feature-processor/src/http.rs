//! Features over HTTP, as the fold has them: for people, dashboards, and services that keep no view of their own.
//!
//! | call | answer |
//! |---|---|
//! | `GET /features` | how far each partition is, what became of its records, and what all users together do |
//! | `GET /features/users/{id}` | everything known of a user, and what follows from it |
//! | `GET /features/movies/{id}` | everything known of a movie, over all partitions of this process |
//!
//! All times are event times. `as_of_ms` is the newest event time folded in the partitions that answer, and `age_ms`
//! how far it lies behind the clock: what was published since is not in the answer. Errors are RFC 9457 problem
//! documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use marquee_runtime::Clock;
use marquee_schemas::{HistoryEntry, MovieId, Reason, UserFeatures, UserId};
use serde::Serialize;

use crate::fold::{MovieSummary, ROLLING_SPANS_MS, summarise};
use crate::{Counters, Error, Shelf};

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
}

/// How far one partition is, and what became of its records.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionAnswer {
    /// Next offset to read; null before the first record.
    pub next_offset: Option<i64>,
    /// Newest event time folded, ms.
    pub as_of_ms: i64,
    /// Records read.
    pub records: u64,
    /// Of those: folded.
    pub applied: u64,
    /// Repetitions of an event id.
    pub duplicate: u64,
    /// Refused, by reason.
    pub dead_lettered: BTreeMap<Reason, u64>,
    /// Requests to forget a user.
    pub erasures: u64,
    /// Of those folded: older than the newest event their user had.
    pub late: u64,
}

/// The answer about the whole store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoreAnswer {
    /// Newest event time folded, ms.
    pub as_of_ms: i64,
    /// How far that lies behind the clock, ms.
    pub age_ms: i64,
    /// Records read, over all partitions.
    pub records: u64,
    /// The partitions of this process.
    pub partitions: BTreeMap<i32, PartitionAnswer>,
}

#[derive(Debug, Clone)]
struct App {
    shelf: Shelf,
    clock: Arc<dyn Clock>,
}

/// The calls above.
pub fn router(shelf: Shelf, clock: Arc<dyn Clock>) -> Router {
    Router::new()
        .route("/features", get(store))
        .route("/features/users/{id}", get(user))
        .route("/features/movies/{id}", get(movie))
        .with_state(App { shelf, clock })
}

/// What went wrong, as RFC 9457 has it.
#[derive(Debug)]
struct Problem(StatusCode, String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        let body = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, kind, body.to_string()).into_response()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        tracing::error!(%error, "reading features for an answer");
        let detail = "the state cannot be read; see the log".into();
        Self(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

fn id_of<T: std::str::FromStr>(text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|_| Problem(StatusCode::BAD_REQUEST, format!("{text:?} is not an id")))
}

/// Reads off the async threads: a partition that is being handed over makes readers wait.
async fn read<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Shelf) -> Result<T, Error> + Send + 'static,
) -> Result<T, Problem> {
    let shelf = app.shelf.clone();
    match tokio::task::spawn_blocking(move || work(&shelf)).await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => {
            tracing::error!(%error, "an answer was not finished");
            Err(Problem(StatusCode::INTERNAL_SERVER_ERROR, "see the log".into()))
        }
    }
}

async fn store(State(app): State<App>) -> Result<Json<StoreAnswer>, Problem> {
    let partitions: BTreeMap<i32, PartitionAnswer> = read(&app, |shelf| {
        shelf.read(|partition, snapshot| Ok(Some((partition, PartitionAnswer::of(snapshot.counters())))))
    })
    .await?
    .into_iter()
    .collect();
    let as_of_ms = partitions.values().map(|part| part.as_of_ms).max().unwrap_or(0);
    Ok(Json(StoreAnswer {
        as_of_ms,
        age_ms: app.clock.now_ms().saturating_sub(as_of_ms).max(0),
        records: partitions.values().map(|part| part.records).sum(),
        partitions,
    }))
}

impl PartitionAnswer {
    fn of(counters: &Counters) -> Self {
        Self {
            next_offset: counters.next_offset(),
            as_of_ms: counters.newest_ms,
            records: counters.records(),
            applied: counters.applied,
            duplicate: counters.duplicate,
            dead_lettered: counters.dead_lettered.clone(),
            erasures: counters.erasures,
            late: counters.late,
        }
    }
}

async fn user(State(app): State<App>, Path(id): Path<String>) -> Result<Json<UserAnswer>, Problem> {
    let user = UserId(id_of(&id)?);
    let parts = read(&app, move |shelf| {
        shelf.read(|partition, snapshot| {
            let Some(features) = snapshot.user(user)? else {
                return Ok(None);
            };
            let history = snapshot.user_history(user)?;
            Ok(Some((
                partition,
                snapshot.counters().newest_ms,
                features,
                history,
            )))
        })
    })
    .await?;
    if parts.is_empty() {
        let detail = format!("nothing is known of user {user}");
        return Err(Problem(StatusCode::NOT_FOUND, detail));
    }
    Ok(Json(describe(user, parts, app.clock.now_ms())))
}

type Part = (i32, i64, UserFeatures, Vec<HistoryEntry>);

fn describe(user_id: UserId, parts: Vec<Part>, now_ms: i64) -> UserAnswer {
    let as_of_ms = parts.iter().map(|part| part.1).max().unwrap_or(0);
    let sum = |of: fn(&UserFeatures) -> u64| parts.iter().map(|part| of(&part.2)).sum::<u64>();
    let history = sum(|features| features.history_len);
    let ratings = sum(|features| features.rating_count);
    let stars: f64 = parts.iter().map(|part| part.2.rating_sum).sum();
    let last_seen_ms = parts.iter().map(|part| part.2.last_seen_ms).max().unwrap_or(0);
    UserAnswer {
        user_id,
        as_of_ms,
        age_ms: now_ms.saturating_sub(as_of_ms).max(0),
        cold_start: match history {
            0 => ColdStart::Cold,
            1..WARM => ColdStart::Warming,
            _ => ColdStart::Warm,
        },
        onboarding_completed: parts.iter().any(|part| !part.2.preferred_genres.is_empty()),
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
                let entries = parts.iter().flat_map(|part| &part.3);
                (name, entries.filter(within).count() as u64)
            })
            .collect(),
        parts: parts
            .into_iter()
            .map(|(partition, _, features, _)| (partition, features))
            .collect(),
    }
}

async fn movie(State(app): State<App>, Path(id): Path<String>) -> Result<Json<MovieAnswer>, Problem> {
    let movie_id = MovieId(id_of(&id)?);
    let parts = read(&app, move |shelf| {
        shelf.read(|_, snapshot| {
            let state = snapshot.movie_state(movie_id)?;
            Ok(state.map(|state| (snapshot.counters().newest_ms, state)))
        })
    })
    .await?;
    let Some(as_of_ms) = parts.iter().map(|part| part.0).max() else {
        let detail = format!("nobody has done anything about movie {movie_id}");
        return Err(Problem(StatusCode::NOT_FOUND, detail));
    };
    Ok(Json(MovieAnswer {
        movie_id,
        as_of_ms,
        age_ms: app.clock.now_ms().saturating_sub(as_of_ms).max(0),
        summary: summarise(parts.iter().map(|(_, state)| state), as_of_ms),
    }))
}
