//! Acts on pages: published as events, then waited for.

use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use marquee_runtime::bus::Outgoing;
use marquee_schemas::{Interaction, Kind, MovieId, Record as _, SchemaVersion, UserId};
use serde::Deserialize;

use super::layout::PageProblem;
use super::origin::OwnPage;
use crate::http::{App, AppState, Body, Problem, Query, RequestMeta, id_of};

/// How long an answer waits for the view to rest on the act; then it comes without.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);
const HX_TRIGGER: HeaderName = HeaderName::from_static("hx-trigger");

/// One act, in the address.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Act {
    user: u64,
    movie: u32,
    kind: Kind,
    #[serde(default)]
    rating: Option<f32>,
    /// The list it answers.
    #[serde(default)]
    request_id: Option<String>,
}

pub(super) async fn act(
    _: OwnPage,
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    Query(act): Query<Act>,
) -> Result<Response, Problem> {
    let movie = state.describe(MovieId(act.movie)).ok_or_else(|| {
        Problem::unknown_movie("movie", format!("movie {} is not in the catalogue", act.movie))
    })?;
    let event = Interaction {
        movie_id: Some(MovieId(act.movie)),
        kind: act.kind,
        rating: act.rating,
        request_id: act.request_id,
        ..event(UserId(act.user), &meta)
    };
    let shown = publish(&state, event).await?;
    let done = match act.kind {
        Kind::Like => "Liked",
        Kind::Dislike => "Disliked",
        Kind::Rating => "Rated",
        Kind::WatchlistAdd => "Put on the watchlist:",
        Kind::WatchlistRemove => "Taken off the watchlist:",
        Kind::View | Kind::Click | Kind::Impression | Kind::Preference => "Noted:",
    };
    let notice = if shown {
        format!("{done} {}", movie.title)
    } else {
        format!("{done} {}. The list follows in a moment.", movie.title)
    };
    // A header holds ASCII only; JSON can say everything with it.
    let notice: String = serde_json::Value::from(notice)
        .to_string()
        .chars()
        .flat_map(|letter| {
            let mut units = [0; 2];
            let escaped = (!letter.is_ascii()).then(|| {
                letter
                    .encode_utf16(&mut units)
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect::<String>()
            });
            escaped.unwrap_or_else(|| letter.to_string()).into_bytes()
        })
        .map(char::from)
        .collect();
    let trigger = HeaderValue::from_str(&format!(r#"{{"acted":"","notice":{notice}}}"#))
        .map_err(|error| Problem::internal(&error))?;
    Ok((StatusCode::NO_CONTENT, [(HX_TRIGGER, trigger)]).into_response())
}

/// Genres chosen while signing up, from a form.
pub(super) async fn preferences(
    own: Result<OwnPage, Problem>,
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Body, Problem>,
) -> Result<Response, PageProblem> {
    own?;
    let Body(body) = body?;
    let user = UserId(id_of(path, "user")?);
    let genres: Vec<String> = form_urlencoded::parse(&body)
        .filter(|(name, _)| name == "genre")
        .map(|(_, value)| value.into_owned())
        .collect();
    if !genres.is_empty() {
        let event = Interaction {
            kind: Kind::Preference,
            genres,
            ..event(user, &meta)
        };
        publish(&state, event).await?;
    }
    Ok((
        StatusCode::SEE_OTHER,
        [(header::LOCATION, format!("/ui/users/{user}"))],
    )
        .into_response())
}

/// An event of now without its act. Its id is that of the request that brought it.
fn event(user: UserId, meta: &RequestMeta) -> Interaction {
    Interaction {
        schema_version: SchemaVersion,
        event_id: meta.id.to_string(),
        user_id: user,
        movie_id: None,
        kind: Kind::View,
        rating: None,
        genres: Vec::new(),
        timestamp: meta.received_ms,
        session_id: None,
        request_id: None,
        source: Some("page".to_owned()),
    }
}

/// Publishes an event and waits until the view rests on it; `false` when that takes too long.
async fn publish(state: &AppState, event: Interaction) -> Result<bool, Problem> {
    App::check_user("user", Some(event.user_id))?;
    event
        .check()
        .map_err(|error| Problem::invalid_parameter("act", error.to_string()))?;
    let version = || {
        let view = state.engine.view().read();
        view.users
            .find(event.user_id)
            .map_or(0, |(_, row)| row.feature_version())
    };
    let before = version();
    state.publish(Outgoing::of(&event)).await?;
    let deadline = Instant::now() + PATIENCE;
    while version() == before {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(true)
}
