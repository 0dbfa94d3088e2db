//! `GET /users/{id}` and `DELETE /users/{id}`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use marquee_runtime::bus::Outgoing;
use marquee_schemas::{Kind, MovieId, Topic, UserId};
use schemars::JsonSchema;
use serde::Serialize;

use super::extract::id_of;
use super::{App, AppState, Problem};
use crate::view::{Entry, Part};

/// Newest acts told of a user.
const RECENT: usize = 20;

/// What is known of a user, as far as recommendations rest on it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct UserAnswer {
    /// The user.
    pub user_id: UserId,
    /// Interactions that lists rest on.
    pub feature_version: u64,
    /// Acts in the history, by kind.
    pub history: BTreeMap<&'static str, u64>,
    /// Movies that count as seen.
    pub seen: usize,
    /// Mean stars given; null without a rating.
    pub mean_rating: Option<f32>,
    /// Genres chosen while signing up.
    pub preferred_genres: Vec<String>,
    /// Movies on the watchlist, ascending.
    pub watchlist: Vec<MovieId>,
    /// Event time of the newest act, ms.
    pub last_event_ms: Option<i64>,
    /// Newest acts, the last one first.
    pub recent: Vec<Act>,
    /// Newest event that this rests on, event time, ms.
    pub as_of_ms: Option<i64>,
}

/// One act of a user.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Act {
    /// The movie.
    pub movie_id: MovieId,
    /// Its title; null where the catalogue does not hold it.
    pub title: Option<String>,
    /// What was done.
    pub kind: Kind,
    /// Stars, for ratings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<f32>,
    /// Event time, ms.
    pub timestamp: i64,
}

/// An erasure under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct ErasureAnswer {
    /// The user.
    user_id: UserId,
    /// Always `accepted`: the erasure is in the log, and each service follows on its own.
    status: &'static str,
}

impl AppState {
    /// What the view knows of a user.
    pub(crate) fn user(&self, id: UserId) -> Option<UserAnswer> {
        let view = self.engine.view().read();
        let (index, row) = view.users.find(id)?;
        let mut entries: Vec<&Entry> = row.parts.iter().flat_map(Part::acts).collect();
        entries.sort_by_key(|entry| entry.time_ms);
        let mut history = BTreeMap::new();
        for entry in &entries {
            *history.entry(entry.kind.as_str()).or_default() += 1;
        }
        let mut watchlist: Vec<MovieId> = row.watchlist().collect();
        watchlist.sort_unstable();
        let stars: Vec<f32> = entries.iter().filter_map(|entry| entry.rating).collect();
        Some(UserAnswer {
            user_id: id,
            feature_version: row.feature_version(),
            history,
            seen: view.live.seen(index).len(),
            mean_rating: (!stars.is_empty()).then(|| stars.iter().sum::<f32>() / stars.len() as f32),
            preferred_genres: row.preferred().cloned().collect(),
            watchlist,
            last_event_ms: entries.last().map(|entry| entry.time_ms),
            recent: entries
                .iter()
                .rev()
                .take(RECENT)
                .filter_map(|entry| {
                    let movie = view.movies.rows().get(entry.item as usize)?;
                    Some(Act {
                        movie_id: movie.id,
                        title: movie.movie.as_ref().map(|movie| movie.title.clone()),
                        kind: entry.kind,
                        rating: entry.rating,
                        timestamp: entry.time_ms,
                    })
                })
                .collect(),
            as_of_ms: view.as_of_ms(),
        })
    }
}

fn user_of(path: Result<Path<String>, PathRejection>) -> Result<UserId, Problem> {
    let id = id_of(path, "user").map(UserId)?;
    App::check_user("id", Some(id))?;
    Ok(id)
}

pub(super) async fn user(
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<UserAnswer>, Problem> {
    let id = user_of(path)?;
    state.user(id).map(Json).ok_or_else(|| {
        Problem::unknown_user(format!(
            "nothing was ever heard of user {id}; one event is enough"
        ))
    })
}

/// Asks all services, by an event, to forget a user. It is no mistake to erase a user nobody knows: the user's events
/// may be on their way.
pub(super) async fn erase(
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<ErasureAnswer>), Problem> {
    let user = user_of(path)?;
    state
        .publish(Outgoing {
            topic: Topic::Interactions,
            partition: None,
            key: user.to_string().into_bytes(),
            value: None,
        })
        .await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(ErasureAnswer {
            user_id: user,
            status: "accepted",
        }),
    ))
}
