//! Finding a list from movies one likes.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use marquee_schemas::MovieId;
use maud::{Markup, html};

use super::cards::{movie_link, nothing};
use super::layout::{PageProblem, fragment, page};
use super::list::framed;
use super::query::PageQuery;
use crate::http::{AppState, Problem, Query, RequestMeta, Work};

/// Movies found that are shown.
const FOUND: usize = 8;
/// The longest query that is looked at, in characters.
const LONGEST: usize = 100;

pub(super) async fn discover(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    Query(query): Query<PageQuery>,
) -> Result<Response, PageProblem> {
    let seeds = query.seeds();
    let chosen: Vec<_> = seeds.iter().filter_map(|&id| state.describe(id)).collect();
    let found = results(&state, &query).await?;
    Ok(page(
        "Discover",
        query.user(),
        &html! {
            h1 { "Start from movies you like" }
            form.bar action="/ui/discover" method="get" {
                @if let Some(user) = query.user { input type="hidden" name="user" value=(user); }
                @if let Some(seeds) = &query.seeds { input type="hidden" name="seeds" value=(seeds); }
                label.grow { "Title"
                    input #query name="query" type="search" autocomplete="off" autofocus placeholder="godfahter, amelie, star w…" value=[query.query.as_deref()]
                        hx-get="/ui/search" hx-trigger="input changed delay:150ms, search" hx-target="#results" hx-include="closest form" hx-sync="this:replace" hx-indicator="#searching";
                }
                span #searching.htmx-indicator { "searching…" }
                noscript { button type="submit" { "Search" } }
            }
            div #results aria-live="polite" { (found) }
            @if !seeds.is_empty() {
                h2 { "Because you chose" }
                ul.chips {
                    @for movie in &chosen {
                        @let rest = seeds.iter().copied().filter(|&id| id != movie.movie_id).collect();
                        li { a href=(query.with_seeds(rest).at("/ui/discover")) title="take it out" { (movie.title) " ×" } }
                    }
                }
                (framed(&state, &meta, &query).await?)
            } @else {
                (nothing("Search for a movie and choose it: the list follows."))
            }
        },
    ))
}

pub(super) async fn search(
    State(state): State<AppState>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    Ok(fragment(results(&state, &query).await?))
}

async fn results(state: &AppState, query: &PageQuery) -> Result<Markup, Problem> {
    let Some(text) = &query.query else {
        return Ok(html! {});
    };
    let text: String = text.chars().take(LONGEST).collect();
    let asked = text.clone();
    let found = state
        .compute(Work::Long, move |app| app.engine.search(&asked, FOUND))
        .await?;
    let with = |id: MovieId| {
        let mut seeds = query.seeds().to_vec();
        if !seeds.contains(&id) {
            seeds.push(id);
        }
        query.with_seeds(seeds).at("/ui/discover")
    };
    Ok(html! {
        @if found.is_empty() {
            (nothing("No title resembles that."))
        } @else {
            ul.results {
                @for found in &found {
                    li {
                        span { (movie_link(found.movie.movie_id, &found.movie.title, found.movie.year, query.user())) }
                        a.button.choose href=(with(found.movie.movie_id)) { "Choose" }
                    }
                }
            }
        }
    })
}
