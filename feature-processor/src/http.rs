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
use marquee_schemas::{MovieId, Reason, UserId};
use serde::Serialize;

use crate::answer::{MoviePart, UserPart};
use crate::{Counters, Error, GlobalSummary, MovieAnswer, Shelf, UserAnswer};

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
    /// Offsets passed that hold no record: marks of transactional producers. Where there are none of these, records were
    /// lost.
    pub absent: u64,
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
    /// What all users together do.
    #[serde(flatten)]
    pub global: GlobalSummary,
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
    let parts = read(&app, |shelf| {
        shelf.read(|partition, snapshot| {
            let answer = PartitionAnswer::of(snapshot.counters());
            Ok(Some((partition, answer, snapshot.global()?)))
        })
    })
    .await?;
    let as_of_ms = parts.iter().map(|part| part.1.as_of_ms).max().unwrap_or(0);
    let mut partitions = BTreeMap::new();
    let mut global = Vec::new();
    for (partition, answer, histograms) in parts {
        partitions.insert(partition, answer);
        global.push(histograms);
    }
    Ok(Json(StoreAnswer {
        as_of_ms,
        age_ms: app.clock.now_ms().saturating_sub(as_of_ms).max(0),
        records: partitions.values().map(|part| part.records).sum(),
        global: GlobalSummary::of(&global, as_of_ms),
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
            absent: counters.absent,
        }
    }
}

async fn user(State(app): State<App>, Path(id): Path<String>) -> Result<Json<UserAnswer>, Problem> {
    let user = UserId(id_of(&id)?);
    let parts = read(&app, move |shelf| {
        shelf.read(|_, snapshot| UserPart::read(snapshot, user))
    })
    .await?;
    match UserAnswer::of(user, parts, app.clock.now_ms()) {
        Some(answer) => Ok(Json(answer)),
        None => Err(Problem(
            StatusCode::NOT_FOUND,
            format!("nothing is known of user {user}"),
        )),
    }
}

async fn movie(State(app): State<App>, Path(id): Path<String>) -> Result<Json<MovieAnswer>, Problem> {
    let movie = MovieId(id_of(&id)?);
    let parts = read(&app, move |shelf| {
        shelf.read(|_, snapshot| MoviePart::read(snapshot, movie))
    })
    .await?;
    match MovieAnswer::of(movie, &parts, app.clock.now_ms()) {
        Some(answer) => Ok(Json(answer)),
        None => Err(Problem(
            StatusCode::NOT_FOUND,
            format!("nobody has done anything about movie {movie}"),
        )),
    }
}
