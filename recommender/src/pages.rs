//! Pages for people: server-rendered, complete without a script, quicker with one (htmx). Nothing is fetched from
//! anywhere else, and the pages forbid it to the browser (Content-Security-Policy).
//!
//! Lists on pages are those of the API, logged like them (surface `page/...`). Acts are published as events like
//! anybody's; the answer waits until the view rests on them, so that the list which is then fetched shows it.

mod act;
mod cards;
mod discover;
pub(crate) mod layout;
mod list;
mod movie;
mod origin;
mod popular;
mod query;
mod status;
mod user;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::http::AppState;

/// The routes of all pages.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(user::home))
        .route("/ui/users", get(user::choose))
        .route("/ui/users/{id}", get(user::user))
        .route("/ui/users/{id}/preferences", post(act::preferences))
        .route("/ui/discover", get(discover::discover))
        .route("/ui/search", get(discover::search))
        .route("/ui/popular", get(popular::popular))
        .route("/ui/movies/{id}", get(movie::movie))
        .route("/ui/list", get(list::list))
        .route("/ui/act", post(act::act))
        .route("/ui/status", get(status::status))
        .route(
            "/ui/assets/style.css",
            get(|| async { asset("text/css", include_bytes!("../assets/style.css")) }),
        )
        .route(
            "/ui/assets/app.js",
            get(|| async { asset("text/javascript", include_bytes!("../assets/app.js")) }),
        )
        // htmx 2.0.11, Zero-Clause BSD: assets/htmx.LICENSE.
        .route(
            "/ui/assets/htmx.min.js",
            get(|| async { asset("text/javascript", include_bytes!("../assets/htmx.min.js")) }),
        )
}

fn asset(media_type: &'static str, bytes: &'static [u8]) -> Response {
    let headers = [(CONTENT_TYPE, media_type), (CACHE_CONTROL, "max-age=300")];
    (headers, Bytes::from_static(bytes)).into_response()
}
