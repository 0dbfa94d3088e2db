//! `GET /movies/{id}` and `GET /movies?query=`

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use marquee_schemas::{Movie, MovieId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::{Query, id_of};
use super::{AppState, Problem, Work};

/// The longest query, in bytes.
const LONGEST_QUERY: usize = 128;

/// One movie, with what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MovieAnswer {
    /// Its id.
    pub movie_id: MovieId,
    /// Its title.
    pub title: String,
    /// Its year of release, where known.
    pub year: Option<u16>,
    /// Its genres.
    pub genres: Vec<String>,
    /// Digits of the IMDb id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imdb_id: Option<String>,
    /// The Movie Database's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmdb_id: Option<u32>,
    /// Interactions ever.
    pub interactions: u32,
    /// Likes ever.
    pub likes: u32,
    /// Mean stars; null without a rating.
    pub mean_rating: Option<f32>,
    /// Event time of the newest interaction, ms.
    pub last_event_ms: Option<i64>,
    /// Newest event that this rests on, event time, ms.
    pub as_of_ms: Option<i64>,
}

/// Which movies are looked for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchQuery {
    /// Words of the title, in any order, with typing errors if need be; the last one may be unfinished.
    #[schemars(length(min = 1, max = 128))]
    pub query: String,
    /// Entries wanted.
    #[serde(default)]
    pub k: Option<u32>,
}

/// Movies found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SearchAnswer {
    /// Best first.
    pub items: Vec<FoundMovie>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FoundMovie {
    /// Its id.
    pub movie_id: MovieId,
    /// Its title.
    pub title: String,
    /// Its year of release, where known.
    pub year: Option<u16>,
    /// Its genres.
    pub genres: Vec<String>,
    /// How well it matches; comparable within one search.
    pub score: f32,
}

impl AppState {
    /// Genres of the catalogue, sorted.
    pub(crate) fn genres(&self) -> Vec<String> {
        let view = self.engine.view().read();
        view.movies.genre_names().into_iter().map(str::to_owned).collect()
    }

    /// A movie of the catalogue with its statistics.
    pub(crate) fn describe(&self, id: MovieId) -> Option<MovieAnswer> {
        let view = self.engine.view().read();
        let (index, movie) = view.movies.find(id)?;
        let Movie {
            title,
            year,
            genres,
            imdb_id,
            tmdb_id,
            ..
        } = movie.as_ref();
        let stats = view.live.item_stats(index, view.as_of_ms().unwrap_or(0));
        Some(MovieAnswer {
            movie_id: id,
            title: title.clone(),
            year: *year,
            genres: genres.clone(),
            imdb_id: imdb_id.clone(),
            tmdb_id: *tmdb_id,
            interactions: stats.count,
            likes: stats.like_count,
            mean_rating: stats.mean_rating,
            last_event_ms: stats.last_ms,
            as_of_ms: view.as_of_ms(),
        })
    }
}

pub(super) async fn movie(
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<MovieAnswer>, Problem> {
    let id = id_of(path, "movie").map(MovieId)?;
    state.describe(id).map(Json).ok_or_else(|| {
        state.note_unknown(id);
        Problem::unknown_movie(
            "id",
            format!(
                "movie {id} is not in the catalogue; it is as soon as its record is published to the `movies` topic"
            ),
        )
    })
}

pub(super) async fn search(
    State(state): State<AppState>,
    Query(query): Query<SearchQuery>,
) -> Result<Json<SearchAnswer>, Problem> {
    let k = state.check_k(query.k)? as usize;
    let text = query.query;
    if text.trim().is_empty() || text.len() > LONGEST_QUERY {
        return Err(Problem::invalid_parameter(
            "query",
            format!(
                "{} bytes, allowed are 1 to {LONGEST_QUERY} that are not blank",
                text.len()
            ),
        ));
    }
    // The index may have to be made anew first.
    let found = state
        .compute(Work::Long, move |app| app.engine.search(&text, k))
        .await?;
    let items = found
        .into_iter()
        .map(|found| FoundMovie {
            movie_id: found.movie.movie_id,
            title: found.movie.title.clone(),
            year: found.movie.year,
            genres: found.movie.genres.clone(),
            score: found.score,
        })
        .collect();
    Ok(Json(SearchAnswer { items }))
}
