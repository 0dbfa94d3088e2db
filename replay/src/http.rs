//! SQL over HTTP: `POST /sql`, read-only, within limits, cancellable.
//!
//! | call | answer |
//! |---|---|
//! | `POST /sql` with `{"query": "SELECT ..."}`, or the query itself as `text/plain` | rows as JSON, or CSV for `Accept: text/csv` |
//! | `DELETE /sql/{query_id}` | 204 once the running query of that id is stopped |
//! | `GET /sql/tables` | tables, columns and functions with their meaning |
//!
//! A client that goes away stops its query. There is no authentication: listen on a loopback address, or put a proxy
//! in front.

mod problem;
mod query;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;
use crate::sql::SqlEngine;
use running::Running;

/// The largest request, bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// What the handlers share.
#[derive(Debug)]
struct Shared {
    engine: SqlEngine,
    running: Running,
    stopping: CancellationToken,
}

/// The routes; queries still running when `stopping` is cancelled are stopped.
pub(crate) fn router(engine: SqlEngine, config: &HttpConfig, stopping: CancellationToken) -> Router {
    routes(Arc::new(Shared {
        engine,
        running: Running::new(config.max_concurrent),
        stopping,
    }))
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/sql", post(query::answer))
        .route("/sql/tables", get(query::tables))
        .route("/sql/{query_id}", delete(query::cancel))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(shared)
}
