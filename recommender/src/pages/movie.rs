//! One movie.

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use marquee_schemas::MovieId;
use maud::html;

use super::cards::{actions, genres};
use super::layout::{PageProblem, page};
use super::list::framed;
use super::query::{PageQuery, Which};
use crate::http::{AppState, Problem, Query, RequestMeta, id_of};

pub(super) async fn movie(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    path: Result<Path<String>, PathRejection>,
    Query(query): Query<PageQuery>,
) -> Result<Response, PageProblem> {
    let id: MovieId = id_of(path, "movie").map(MovieId)?;
    let movie = state
        .describe(id)
        .ok_or_else(|| Problem::unknown_movie("id", format!("movie {id} is not in the catalogue")))?;
    let query = PageQuery {
        list: Which::Similar,
        movie: Some(id.0),
        ..query
    };
    let seed = PageQuery::default().with_seeds(vec![id]).at("/ui/discover");
    Ok(page(
        "Movie",
        query.user(),
        &html! {
            h1 { (movie.title) @if let Some(year) = movie.year { span.muted { " (" (year) ")" } } }
            (genres(&movie.genres))
            ul.facts {
                @if let Some(mean) = movie.mean_rating { li { "rated " b { (format!("{mean:.1}")) } " of 5" } }
                li { "liked " b { (movie.likes) } " of " b { (movie.interactions) } " times" }
                @if let Some(imdb) = &movie.imdb_id { li { a href={ "https://www.imdb.com/title/tt" (imdb) "/" } rel="noreferrer" { "IMDb" } } }
                @if let Some(tmdb) = movie.tmdb_id { li { a href={ "https://www.themoviedb.org/movie/" (tmdb) } rel="noreferrer" { "TMDb" } } }
                li { a href=(seed) { "Discover from this" } }
            }
            (actions(id, &movie.title, query.user(), None))
            h2 { "Similar" }
            (framed(&state, &meta, &query).await?)
        },
    ))
}
