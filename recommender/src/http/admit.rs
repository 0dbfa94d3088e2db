//! What every request passes: an id, a place among those worked on, a time limit, a count.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::{AppState, Problem};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What handlers know of their request.
#[derive(Debug, Clone, Copy)]
pub struct RequestMeta {
    /// UUIDv7; also in the `x-request-id` header of the answer.
    pub id: Uuid,
    /// Wall time of arrival, ms.
    pub received_ms: i64,
    /// The same on the monotonic clock.
    pub started: Instant,
}

/// Paths that answer however busy the server is.
const ALWAYS: [&str; 3] = ["/health", "/ready", "/metrics"];

pub(super) async fn admit(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let received_ms = state.clock.now_ms();
    let meta = RequestMeta {
        id: state.ids.next(received_ms),
        received_ms,
        started: Instant::now(),
    };
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", |path| known(path.as_str()));
    let started = meta.started;
    let header = HeaderValue::from_str(&meta.id.to_string());
    request.extensions_mut().insert(meta);

    let slot = state.slots.try_acquire();
    let mut response = if slot.is_err() && !ALWAYS.contains(&path) {
        state.metrics.shed();
        Problem::overloaded().into_response()
    } else {
        tokio::time::timeout(state.config.request_timeout(), next.run(request))
            .await
            .unwrap_or_else(|_| Problem::timeout().into_response())
    };
    drop(slot);
    if let Ok(id) = header {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    state
        .metrics
        .observe(path, response.status().as_u16(), started.elapsed());
    response
}

/// The label of a path: those this server is made of, so that labels stay few whatever is merged in.
fn known(path: &str) -> &'static str {
    const KNOWN: [&str; 19] = [
        "/recommend",
        "/recommend/batch",
        "/similar",
        "/popular",
        "/movies",
        "/movies/{id}",
        "/users/{id}",
        "/events",
        "/admin/models",
        "/admin/models/promote",
        "/admin/models/rollback",
        "/admin/models/advance",
        "/admin/retrain",
        "/admin/unknown-movies",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/docs",
    ];
    if path == "/" || path.starts_with("/ui/") {
        return "page";
    }
    KNOWN.into_iter().find(|&known| known == path).unwrap_or("other")
}
