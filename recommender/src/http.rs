//! The HTTP interface: one file per resource, one error type ([`Problem`], RFC 9457).
//!
//! [`openapi`] describes every call; `GET /openapi.json` serves the description, `GET /docs` shows it.

mod admin;
mod admit;
mod docs;
mod drain;
mod extract;
mod health;
mod list;
mod metrics;
mod movies;
pub mod openapi;
mod owed;
mod popular;
mod problem;
mod publish;
mod recommend;
mod similar;
mod users;

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
pub(crate) use extract::{Body, Query, id_of};
pub(crate) use list::Asked;
pub use list::{ContextBody, ListAnswer, ListEntry};
pub use movies::{FoundMovie, MovieAnswer, SearchAnswer, SearchQuery};
pub(crate) use owed::Owed;
pub use popular::PopularQuery;
pub use problem::Problem;
pub(crate) use recommend::Prepared;
pub use recommend::{BatchAnswer, BatchBody, BatchResult, RecommendBody};
pub use similar::SimilarBody;
pub use users::{Act, UserAnswer};

use crate::alerts::Alerts;
use crate::config::Config;
use crate::engine::Engine;
use crate::logs::LogQueue;
use crate::metrics::HttpMetrics;
use crate::overload::{Overloaded, Queue, turn};
use crate::shadow::ShadowQueue;
use crate::sink::Sink;
use crate::traffic::Traffic;
use crate::unknown::UnknownMovies;

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
    /// Chooses who is served by which model.
    pub traffic: Traffic,
    /// Takes lists to be made on the side.
    pub shadow: ShadowQueue,
    /// Takes events published on clients' behalf.
    pub events: Arc<dyn Sink>,
    /// Makes request ids.
    pub ids: IdSource,
    /// Counts answers.
    pub metrics: HttpMetrics,
    /// Lists that wait for their turn.
    pub queue: Queue,
    /// The same for what is computed aside.
    queue_aside: Queue,
    /// The same for batches, which last so long that nobody else should stand behind one.
    queue_batches: Queue,
    /// Counts requests for movies that the catalogue does not hold.
    pub unknown: UnknownMovies,
    slots: Semaphore,
}

impl App {
    /// Puts the parts together; `seed` decides the random part of request ids.
    #[expect(
        clippy::too_many_arguments,
        reason = "each part is made elsewhere and named here once"
    )]
    #[must_use]
    pub fn new(
        config: Config,
        engine: Engine,
        logs: LogQueue,
        alerts: Alerts,
        clock: Arc<dyn Clock>,
        events: Arc<dyn Sink>,
        shadow: ShadowQueue,
        seed: u64,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            slots: Semaphore::new(config.max_concurrent_requests),
            queue: Queue::new(cores, config.shed_delay_ms),
            queue_aside: Queue::new(cores, config.shed_delay_ms),
            // A core is left to those who wait for one list.
            queue_batches: Queue::new(cores.saturating_sub(1).max(1), config.shed_batch_delay_ms),
            unknown: UnknownMovies::default(),
            traffic: Traffic::new(&config.experiment),
            shadow,
            config,
            engine,
            logs,
            alerts,
            clock,
            events,
            ids: IdSource::seeded(seed),
            metrics: HttpMetrics::default(),
        }
    }
}

/// How long CPU work takes, which decides where it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// About a millisecond, unless the catalogue is large.
    Short,
    /// Some milliseconds.
    Long,
    /// That of many lists.
    Batch,
}

impl AppState {
    /// The state of a server.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self(Arc::new(app))
    }

    /// Runs CPU work: here when it is short, on a thread aside when it is not or the catalogue is large. Either way as many
    /// at once as there are cores; the others wait, and are refused when that takes too long.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        length: Work,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let short =
            length == Work::Short && self.engine.view().progress.movies() <= self.config.inline_movies;
        let queue = match length {
            Work::Batch => &self.queue_batches,
            Work::Short if short => &self.queue,
            Work::Short | Work::Long => &self.queue_aside,
        };
        let place = queue.place().await.map_err(|Overloaded| {
            self.metrics.shed();
            Problem::overloaded()
        })?;
        if short {
            turn().await;
            return Ok(work(self));
        }
        let app = self.clone();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&app)
        })
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
        .route("/recommend/batch", post(recommend::batch))
        .route("/similar", post(similar::similar))
        .route("/popular", get(popular::popular))
        .route("/movies", get(movies::search))
        .route("/movies/{id}", get(movies::movie))
        .route("/users/{id}", get(users::user).delete(users::erase))
        .route("/admin/models", get(admin::models))
        .route("/admin/models/promote", post(admin::promote))
        .route("/admin/models/rollback", post(admin::rollback))
        .route("/admin/models/advance", post(admin::advance))
        .route("/admin/unknown-movies", get(admin::unknown_movies))
        .route("/admin/retrain", post(admin::retrain))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .route("/docs", get(docs::docs))
        .merge(crate::pages::router())
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
