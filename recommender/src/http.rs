//! The HTTP interface: one file per resource, one error type ([`Problem`], RFC 9457).
//!
//! | call | answer |
//! |---|---|
//! | `GET /health` | alive, version, serving model |
//! | `GET /ready` | 200, or 503 with what is missing |
//! | `POST /recommend` | a list for a user |
//! | `POST /similar` | movies like others |
//! | `GET /popular` | what is popular |
//! | `GET /movies/{id}` | one movie |
//! | `GET /metrics` | Prometheus text |

mod admit;
mod drain;
mod extract;
mod health;
mod list;
mod metrics;
mod movies;
mod popular;
mod problem;
mod recommend;
mod similar;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use marquee_runtime::Clock;
use marquee_runtime::ids::IdSource;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

pub use admit::RequestMeta;
pub use list::{ContextBody, ListAnswer, ListEntry};
pub use popular::PopularQuery;
pub use problem::Problem;
pub use recommend::RecommendBody;
pub use similar::SimilarBody;

use crate::alerts::Alerts;
use crate::config::Config;
use crate::engine::Engine;
use crate::logs::LogQueue;
use crate::metrics::HttpMetrics;

/// Everything that handlers need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState(Arc<App>);

/// The fields of [`AppState`].
#[derive(Debug)]
pub struct App {
    /// Limits.
    pub config: Config,
    /// Makes lists.
    pub engine: Engine,
    /// Takes request logs.
    pub logs: LogQueue,
    /// Raises alerts.
    pub alerts: Alerts,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Makes request ids.
    pub ids: IdSource,
    /// Counts answers.
    pub metrics: HttpMetrics,
    slots: Semaphore,
}

impl AppState {
    /// Puts the parts together; `seed` decides the random part of request ids.
    #[must_use]
    pub fn new(
        config: Config,
        engine: Engine,
        logs: LogQueue,
        alerts: Alerts,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Self {
        Self(Arc::new(App {
            slots: Semaphore::new(config.max_concurrent_requests),
            config,
            engine,
            logs,
            alerts,
            clock,
            ids: IdSource::seeded(seed),
            metrics: HttpMetrics::default(),
        }))
    }

    /// Runs CPU work: here when it is short, on the blocking pool when the catalogue is large or `long` says so.
    async fn compute<T: Send + 'static>(
        &self,
        long: bool,
        work: impl FnOnce(&App) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let movies = self.engine.view().read().movies.len();
        if !long && movies <= self.config.inline_movies {
            return Ok(work(self));
        }
        let app = self.clone();
        tokio::task::spawn_blocking(move || work(&app))
            .await
            .map_err(|error| Problem::internal(&error))
    }
}

impl std::ops::Deref for AppState {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

/// All calls of the recommender.
pub fn router(state: AppState) -> Router {
    router_with(state, Router::new())
}

/// All calls of the recommender and those of `extra`, which share admission, request ids, metrics, and the answers to
/// unknown paths and methods. `extra` must not have a fallback of its own.
pub fn router_with(state: AppState, extra: Router) -> Router {
    Router::new()
        .route("/recommend", post(recommend::recommend))
        .route("/similar", post(similar::similar))
        .route("/popular", get(popular::popular))
        .route("/movies/{id}", get(movies::movie))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .layer(DefaultBodyLimit::max(state.config.max_body_bytes))
        .with_state(state.clone())
        .merge(extra)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::unknown_path)
        .layer(middleware::from_fn(drain::drain))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(state, admit::admit))
}

#[cfg(test)]
mod tests;
