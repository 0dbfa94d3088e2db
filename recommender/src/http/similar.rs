//! `POST /similar`

use axum::extract::State;
use axum::{Extension, Json};
use marquee_schemas::{Endpoint, Filters, MovieId};
use schemars::JsonSchema;
use serde::Deserialize;

use super::extract::{JsonBody, object};
use super::list::{Asked, ListAnswer};
use super::{AppState, Problem, RequestMeta, Work};
use crate::engine::SimilarAsk;
use crate::traffic::Assignment;

/// The request: one movie or several, not both forms.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(default)]
pub struct SimilarBody {
    /// Like this movie.
    pub movie_id: Option<MovieId>,
    /// Like all these movies together.
    pub movie_ids: Vec<MovieId>,
    /// Entries wanted.
    pub k: Option<u32>,
    /// Restrictions.
    #[serde(deserialize_with = "object")]
    pub filters: Filters,
}

pub(super) async fn similar(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    JsonBody(body): JsonBody<SimilarBody>,
) -> Result<Json<ListAnswer>, Problem> {
    let k = state.check_k(body.k)?;
    state.check_filters(&body.filters)?;
    state.check_seeds("movie_ids", &body.movie_ids)?;
    let one = body.movie_id.is_some();
    let movies = match (body.movie_id, body.movie_ids) {
        (Some(movie), movies) if movies.is_empty() => vec![movie],
        (None, movies) if !movies.is_empty() => movies,
        _ => {
            return Err(Problem::invalid_parameter(
                "movie_id",
                "exactly one of movie_id and movie_ids must name a movie".into(),
            ));
        }
    };
    let ask = SimilarAsk {
        movies,
        k: k as usize,
        filters: body.filters,
    };
    let (ask, answer) = state
        .compute(Work::Short, move |app| {
            let answer = app.engine.similar(&ask);
            (ask, answer)
        })
        .await?;
    let asked = Asked {
        endpoint: Endpoint::Similar,
        user_id: None,
        surface: None,
        k,
        seeds: ask.movies,
        filters: ask.filters,
    };
    let answer = answer.map_err(|refused| {
        state.refusal(refused.renamed(|field| match field {
            "movie_ids" if one => "movie_id",
            field => field,
        }))
    })?;
    Ok(Json(state.answer(&meta, &asked, &Assignment::default(), answer)))
}
