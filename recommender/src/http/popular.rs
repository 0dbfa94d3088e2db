//! `GET /popular`

use axum::extract::State;
use axum::{Extension, Json};
use marquee_schemas::{Endpoint, Filters};
use schemars::JsonSchema;
use serde::Deserialize;

use super::extract::Query;
use super::list::{Asked, ListAnswer};
use super::{AppState, Problem, RequestMeta, Work};
use crate::engine::{PopularAsk, Window};
use crate::traffic::Assignment;

/// The query.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(default)]
pub struct PopularQuery {
    /// Entries wanted.
    pub k: Option<u32>,
    /// Of this genre only.
    pub genre: Option<String>,
    /// How quickly the past is forgotten.
    pub window: Window,
}

pub(super) async fn popular(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    Query(query): Query<PopularQuery>,
) -> Result<Json<ListAnswer>, Problem> {
    let k = state.check_k(query.k)?;
    let ask = PopularAsk {
        k: k as usize,
        filters: Filters {
            genres_any: query.genre.into_iter().collect(),
            ..Filters::default()
        },
        window: query.window,
    };
    let (ask, answer) = state
        .compute(Work::Short, move |app| {
            let answer = app.engine.popular(&ask);
            (ask, answer)
        })
        .await?;
    let asked = Asked {
        endpoint: Endpoint::Popular,
        user_id: None,
        surface: None,
        k,
        seeds: Vec::new(),
        filters: ask.filters,
    };
    // The genre is the only restriction.
    let answer = answer.map_err(|refused| refused.renamed(|_| "genre"))?;
    Ok(Json(state.answer(&meta, &asked, &Assignment::default(), answer)))
}
