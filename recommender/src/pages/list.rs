//! The lists on pages.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use marquee_schemas::{Endpoint, Filters, MovieId};
use maud::{Markup, html};

use super::cards::{card, nothing};
use super::layout::fragment;
use super::query::{PageQuery, Which};
use crate::engine::{Explain, Explore, PopularAsk, RecommendAsk, Refused, Shape, SimilarAsk};
use crate::http::{AppState, Asked, ListAnswer, Owed, Prepared, Problem, Query, RequestMeta, Work};
use crate::traffic::{Assignment, Unit};

/// Entries of a list on a page.
const LEN: u32 = 12;

pub(super) async fn list(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    Ok(fragment(entries(&state, &meta, &query).await?))
}

/// A list with its frame, which fetches it anew after an act.
pub(super) async fn framed(
    state: &AppState,
    meta: &RequestMeta,
    query: &PageQuery,
) -> Result<Markup, Problem> {
    Ok(html! {
        div #list.list hx-get=(query.at("/ui/list")) hx-trigger="acted from:body" aria-live="polite" {
            (entries(state, meta, query).await?)
        }
    })
}

async fn entries(state: &AppState, meta: &RequestMeta, query: &PageQuery) -> Result<Markup, Problem> {
    let answer = answer(state, meta, query).await?;
    let note = answer.fallback_reason.map(|reason| note(reason.as_str()));
    Ok(html! {
        @if let Some(Some(note)) = note { p.note { (note) } }
        ul.facts {
            @if let Some(version) = &answer.model_version { li { "model " b { (version) } } }
            @if let Some(version) = answer.feature_version { li { "rests on " b { (version) } " events of yours" } }
            @if answer.policy.as_str() != "ranked" { li { "an " b { "exploration" } " list: drawn at random" } }
            @for part in &answer.left_out { li { "left out for lateness: " b { (part.as_str().replace('_', " ")) } } }
            li.htmx-indicator { "refreshing…" }
        }
        @if answer.items.is_empty() {
            (nothing("No movie passes."))
        } @else {
            ol.cards { @for entry in &answer.items { (card(entry, query, &answer.request_id)) } }
        }
    })
}

/// What a fallback means to the one who reads the page.
fn note(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "unknown_user" => "New here: this is what is popular. Like one movie and the list becomes yours.",
        "no_history" => "Nothing watched yet: this is what is popular.",
        "preferred_genres" => "Nothing watched yet: the genres you chose come first.",
        "no_model" => "No model has been trained yet: this is what is popular.",
        "no_evidence" => "Nobody's behaviour connects this movie to others yet: these share its genres.",
        "late" => "Busy: this is what is popular, a personal list would have been late.",
        _ => return None,
    })
}

async fn answer(state: &AppState, meta: &RequestMeta, query: &PageQuery) -> Result<ListAnswer, Problem> {
    let filters = Filters {
        genres_any: query.genre.iter().cloned().collect(),
        ..Filters::default()
    };
    let seeds = match query.list {
        Which::Similar => query.movie.map(MovieId).into_iter().collect(),
        Which::Recommend | Which::Popular => query.seeds().to_vec(),
    };
    state.check_seeds("seeds", &seeds)?;
    let endpoint = match query.list {
        Which::Recommend => Endpoint::Recommend,
        Which::Similar => Endpoint::Similar,
        Which::Popular => Endpoint::Popular,
    };
    let asked = Asked {
        endpoint,
        user_id: query.user(),
        surface: Some(format!("page/{}", query.list.as_str())),
        k: LEN,
        seeds: seeds.clone(),
        filters: filters.clone(),
    };
    let (query, meta) = (query.clone(), *meta);
    let k = LEN as usize;
    let list = state
        .compute(Work::Long, move |app| -> Result<_, Refused> {
            let answer = match query.list {
                Which::Recommend => {
                    let unit = Unit {
                        user: query.user(),
                        session: None,
                        request: meta.id.as_bytes(),
                    };
                    // No arm is asked for, so there is none that could be unknown.
                    let assigned = app
                        .traffic
                        .assign(app.engine.champion(), unit, None)
                        .unwrap_or_default();
                    let ask = RecommendAsk {
                        user: query.user(),
                        k,
                        filters,
                        seeds,
                        explain: Explain::Words,
                        shape: Shape {
                            diversity: query.diversity.unwrap_or(assigned.diversity).clamp(0.0, 1.0),
                            recency: query.recency.unwrap_or(assigned.recency).clamp(0.0, 1.0),
                        },
                        explore: Explore::Slice(meta.id.into_bytes()),
                        arrived: Some(meta.started),
                        ..RecommendAsk::default()
                    };
                    let owed = Owed::new(app, meta, asked, assigned);
                    return app.serve(Prepared { ask, owed });
                }
                Which::Similar => app.engine.similar(&SimilarAsk {
                    movies: seeds,
                    k,
                    filters,
                }),
                Which::Popular => app.engine.popular(&PopularAsk {
                    k,
                    filters,
                    window: query.window,
                }),
            };
            Ok(app.answer(&meta, &asked, &Assignment::default(), answer?))
        })
        .await?;
    // As the address names them.
    let list = list.map_err(|refused| {
        refused.renamed(|field| match field {
            "filters.genres_any" => "genre",
            "movie_ids" => "movie",
            "context.seeds" => "seeds",
            field => field,
        })
    });
    Ok(list?)
}
