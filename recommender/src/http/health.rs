//! `GET /health` and `GET /ready`

use axum::Json;
use axum::extract::State;
use marquee_schemas::ModelVersion;
use schemars::JsonSchema;
use serde::Serialize;

use super::{AppState, Problem};

/// The process is alive.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Health {
    /// Always `alive`.
    status: &'static str,
    /// Of this program.
    version: &'static str,
    /// The model that serves; null before the first one.
    model_version: Option<ModelVersion>,
}

pub(super) async fn health(State(state): State<AppState>) -> Json<Health> {
    Json(Health {
        status: "alive",
        version: env!("CARGO_PKG_VERSION"),
        model_version: serving(&state),
    })
}

/// Answers rest on complete data.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    /// Always `ready`.
    status: &'static str,
    /// What ranks: the champion, or popularity while there is none.
    serving: &'static str,
    /// The model that serves; null before the first one.
    model_version: Option<ModelVersion>,
    /// Movies in the catalogue.
    movies: usize,
    /// Users known.
    users: usize,
    /// Newest event that answers rest on, event time, ms.
    as_of_ms: Option<i64>,
}

pub(super) async fn ready(State(state): State<AppState>) -> Result<Json<Ready>, Problem> {
    let missing = state.engine.view().missing();
    if !missing.is_empty() {
        return Err(Problem::not_ready(missing));
    }
    let model_version = serving(&state);
    let view = state.engine.view().read();
    Ok(Json(Ready {
        status: "ready",
        serving: if model_version.is_some() {
            "model"
        } else {
            "popularity, no model was promoted yet"
        },
        model_version,
        movies: view.movies.present(),
        users: view.users.len(),
        as_of_ms: view.as_of_ms(),
    }))
}

fn serving(state: &AppState) -> Option<ModelVersion> {
    state
        .engine
        .champion()
        .serving()
        .map(|serving| serving.version.clone())
}
