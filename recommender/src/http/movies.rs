//! `GET /movies/{id}`

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use marquee_schemas::MovieId;
use serde::Serialize;

use super::{AppState, Problem};

/// One movie, with what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MovieAnswer {
    movie_id: MovieId,
    title: String,
    year: Option<u16>,
    genres: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imdb_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tmdb_id: Option<u32>,
    interactions: u32,
    likes: u32,
    mean_rating: Option<f32>,
    last_event_ms: Option<i64>,
}

pub(super) async fn movie(
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<MovieAnswer>, Problem> {
    let Path(text) = path.map_err(|rejection| Problem::unreadable(rejection.body_text()))?;
    let id: MovieId = text.parse().map(MovieId).map_err(|_| {
        Problem::invalid_parameter(
            "id",
            format!(
                "{:?} is not a movie id",
                text.chars().take(64).collect::<String>()
            ),
        )
    })?;
    let view = state.engine.view().read();
    let Some((index, movie)) = view.movies.find(id) else {
        return Err(Problem::unknown_movie(
            "id",
            format!("movie {id} is not in the catalogue"),
        ));
    };
    let stats = view.live.item_stats(index, view.as_of_ms().unwrap_or(0));
    Ok(Json(MovieAnswer {
        movie_id: id,
        title: movie.title.clone(),
        year: movie.year,
        genres: movie.genres.clone(),
        imdb_id: movie.imdb_id.clone(),
        tmdb_id: movie.tmdb_id,
        interactions: stats.count,
        likes: stats.like_count,
        mean_rating: stats.mean_rating,
        last_event_ms: stats.last_ms,
    }))
}
