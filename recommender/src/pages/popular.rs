//! What is popular.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::layout::{PageProblem, page};
use super::list::framed;
use super::query::{PageQuery, Which};
use super::user::genre_select;
use crate::engine::Window;
use crate::http::{AppState, Query, RequestMeta};

const WINDOWS: [(Window, &str); 5] = [
    (Window::Day, "a day"),
    (Window::Week, "a week"),
    (Window::Month, "a month"),
    (Window::Year, "a year"),
    (Window::All, "all time"),
];

pub(super) async fn popular(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    Query(query): Query<PageQuery>,
) -> Result<Response, PageProblem> {
    let query = PageQuery {
        list: Which::Popular,
        ..query
    };
    let all_genres = state.genres();
    Ok(page(
        "Popular",
        query.user(),
        &html! {
            h1 { "Popular" }
            form.bar action="/ui/popular" method="get" hx-get="/ui/popular" hx-trigger="change" hx-select="#list" hx-target="#list" hx-swap="outerHTML" hx-push-url="true" {
                @if let Some(user) = query.user { input type="hidden" name="user" value=(user); }
                (genre_select(query.genre.as_deref(), &all_genres))
                label { "Over"
                    select name="window" {
                        @for (window, name) in WINDOWS { option value=(window.as_str()) selected[window == query.window] { (name) } }
                    }
                }
                noscript { button type="submit" { "Apply" } }
            }
            (framed(&state, &meta, &query).await?)
        },
    ))
}
