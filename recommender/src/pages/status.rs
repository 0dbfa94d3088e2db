//! Whether the recommender answers, in one line.

use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::layout::fragment;
use crate::http::AppState;

pub(super) async fn status(State(state): State<AppState>) -> Response {
    let missing = state.engine.view().missing();
    let model = state.engine.champion().serving();
    let lag_ms = state.engine.view().progress.lag_ms();
    let view = state.engine.view().read();
    let (movies, users) = (view.movies.present(), view.users.len());
    drop(view);
    fragment(html! {
        @if missing.is_empty() {
            span.dot {} "live"
            @if let Some(model) = model { " · model " (model.version) } @else { " · no model yet" }
            " · " (movies) " movies · " (users) " users"
            @if lag_ms > 0 { " · " (lag_ms) " ms behind" }
        } @else {
            span.dot.bad {} (missing.join("; "))
        }
    })
}
