//! The start, and what is recommended to a user.

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use marquee_schemas::UserId;
use maud::{Markup, html};

use super::cards::movie_link;
use super::layout::{PageProblem, page};
use super::list::framed;
use super::query::{PageQuery, Which};
use crate::http::{App, AppState, Query, RequestMeta, UserAnswer, id_of};

/// Acts of a user that the page shows.
const RECENT: usize = 6;

pub(super) async fn home(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    Query(query): Query<PageQuery>,
) -> Result<Response, PageProblem> {
    let popular = PageQuery {
        list: Which::Popular,
        ..query.clone()
    };
    // Somebody nobody knows yet; ids of data sets are far smaller.
    let stranger = (meta.id.as_u128() as u64) % (1 << 52) + (1 << 40);
    Ok(page(
        "Start",
        query.user(),
        &html! {
            h1 { "What to watch next" }
            p.muted { "Every like and rating changes your list at once." }
            form.bar action="/ui/users" method="get" {
                label { "Your user id" input name="user" type="number" min="0" max=(UserId::MAX.0) required autofocus value=[query.user]; }
                button.primary type="submit" { "Show my list" }
                a.button href={ "/ui/users/" (stranger) } { "I am new here" }
                a.button href="/ui/discover" { "Start from movies I like" }
            }
            h2 { "Popular now" }
            (framed(&state, &meta, &popular).await?)
        },
    ))
}

pub(super) async fn choose(Query(query): Query<PageQuery>) -> Response {
    let place = query
        .user()
        .map_or_else(|| "/".to_owned(), |user| format!("/ui/users/{user}"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

pub(super) async fn user(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    path: Result<Path<String>, PathRejection>,
    Query(query): Query<PageQuery>,
) -> Result<Response, PageProblem> {
    let user = UserId(id_of(path, "user")?);
    App::check_user("id", Some(user))?;
    let query = PageQuery {
        user: Some(user.0),
        list: Which::Recommend,
        ..query
    };
    let known = state.user(user);
    let all_genres = state.genres();
    let is_new = known.as_ref().is_none_or(|known| known.history.is_empty());
    Ok(page(
        "For you",
        Some(user),
        &html! {
            h1 { "For user " (user) }
            @if let Some(known) = &known { (history(known)) }
            @if is_new { (onboarding(user, &all_genres, known.as_ref())) }
            (controls(user, &query, &all_genres))
            (framed(&state, &meta, &query).await?)
        },
    ))
}

fn history(known: &UserAnswer) -> Markup {
    html! {
        @if !known.recent.is_empty() {
            p.muted {
                "Lately: "
                @for (place, act) in known.recent.iter().take(RECENT).enumerate() {
                    @if place > 0 { " · " }
                    @if let Some(title) = &act.title { (movie_link(act.movie_id, title, None, Some(known.user_id))) } @else { "movie " (act.movie_id) }
                    @if let Some(stars) = act.rating { " " (stars) "★" } @else { " (" (act.kind.as_str().replace('_', " ")) ")" }
                }
            }
        }
    }
}

fn onboarding(user: UserId, genres: &[String], known: Option<&UserAnswer>) -> Markup {
    let chosen = known.map_or(&[][..], |known| &known.preferred_genres);
    html! {
        form.card method="post" action={ "/ui/users/" (user) "/preferences" } {
            b { "What do you like to watch?" }
            ul.chips {
                @for genre in genres { li { label { input type="checkbox" name="genre" value=(genre) checked[chosen.contains(genre)]; (genre) } } }
            }
            button.primary type="submit" { "Use these genres" }
        }
    }
}

/// Restrictions of the list; they take effect on change, or on submission where there is no script.
fn controls(user: UserId, query: &PageQuery, genres: &[String]) -> Markup {
    let action = format!("/ui/users/{user}");
    let strength = |name: &str, text: &str, value: Option<f32>| {
        html! {
            label { (text)
                select name=(name) {
                    @for (strength, word) in [("", "as ranked"), ("0.3", "some"), ("0.6", "much")] {
                        option value=(strength) selected[value.map(|value| value.to_string()).unwrap_or_default() == strength] { (word) }
                    }
                }
            }
        }
    };
    html! {
        form.bar action=(action) method="get" hx-get=(action) hx-trigger="change" hx-select="#list" hx-target="#list" hx-swap="outerHTML" hx-push-url="true" {
            (genre_select(query.genre.as_deref(), genres))
            (strength("diversity", "Variety", query.diversity))
            (strength("recency", "Newer movies first", query.recency))
            noscript { button type="submit" { "Apply" } }
        }
    }
}

pub(super) fn genre_select(chosen: Option<&str>, genres: &[String]) -> Markup {
    html! {
        label { "Genre"
            select name="genre" {
                option value="" { "all" }
                @for genre in genres { option value=(genre) selected[chosen == Some(genre)] { (genre) } }
            }
        }
    }
}
