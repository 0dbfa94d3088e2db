//! `POST /events`: the door for producers that have no Kafka client.
//!
//! Takes one JSON interaction, a JSON array of them, or one per line (`application/x-ndjson`). What is well formed is
//! published to `interactions`, and the answer comes when the broker has it; what is not becomes a dead letter with
//! topic `http` and is named in the answer. `schema_version` (1), `event_id` (a UUIDv7) and `timestamp` (now) are
//! filled in where absent; a producer that repeats requests after a failure should set `event_id` itself, so that
//! repetitions are recognised.
//!
//! Two bounds: a request may hold so many bytes and events, and all requests together so many events on their way.
//! Beyond the latter, or when the send queue is full, the answer is 503 with `Retry-After`.

mod answer;
mod body;
mod dispatch;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::post;
use marquee_runtime::Clock;
use marquee_runtime::ids::IdSource;
use marquee_schemas::{Limits, MAX_INTERACTION_BYTES};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::Sink;

pub use answer::{Accepted, Answer, Failed, Rejected};

/// Settings of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// The largest request body, bytes; beyond it 413.
    pub max_body_bytes: usize,
    /// Events in one request; beyond it 413.
    pub max_events_per_request: usize,
    /// Events of all requests that the broker has not acknowledged yet; beyond it 503.
    pub max_in_flight_events: usize,
    /// How long to wait for the broker, ms; after it the answer is 503.
    pub acknowledge_timeout_ms: u64,
    /// What `Retry-After` says, seconds.
    pub retry_after_s: u32,
    /// How far an event's time may lie ahead of the clock, ms.
    pub max_future_ms: i64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            max_events_per_request: 5_000,
            max_in_flight_events: 20_000,
            acknowledge_timeout_ms: 5_000,
            retry_after_s: 1,
            max_future_ms: Limits::default().max_future_ms,
        }
    }
}

/// What went through the gateway since it was made. `received` = `accepted` + `rejected` + `failed` once no request
/// is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct GatewayStats {
    /// Events found in requests.
    pub received: u64,
    /// Events that the broker acknowledged.
    pub accepted: u64,
    /// Events that are no valid interactions.
    pub rejected: u64,
    /// Valid events that the broker did not acknowledge in time; their producers were told so.
    pub failed: u64,
    /// Rejected events whose dead letter could not be written; part of `rejected`.
    pub dead_letters_lost: u64,
}

#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    dead_letters_lost: AtomicU64,
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    ids: Arc<IdSource>,
    config: GatewayConfig,
    room: Semaphore,
    counters: Counters,
    /// Together with `next_letter` this is the origin of a dead letter, which identifies it for ever: a refused
    /// request has no partition and offset of its own.
    instance: i32,
    next_letter: AtomicI64,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("config", &self.inner.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway that publishes to `sink`, usually a [`marquee_runtime::bus::Publisher`].
    #[must_use]
    pub fn new(sink: impl Sink, clock: Arc<dyn Clock>, ids: Arc<IdSource>, config: GatewayConfig) -> Self {
        let now_ms = clock.now_ms();
        let [.., a, b, c, d] = *ids.next(now_ms).as_bytes();
        Self {
            inner: Arc::new(Inner {
                sink: Arc::new(sink),
                clock,
                ids,
                room: Semaphore::new(config.max_in_flight_events.min(Semaphore::MAX_PERMITS)),
                config,
                counters: Counters::default(),
                instance: i32::from_be_bytes([a & 0x7f, b, c, d]),
                // Later than any letter of an earlier process, and exact in every JSON implementation.
                next_letter: AtomicI64::new(now_ms.saturating_mul(1_000)),
            }),
        }
    }

    /// What went through so far.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GatewayStats {
            received: read(&counters.received),
            accepted: read(&counters.accepted),
            rejected: read(&counters.rejected),
            failed: read(&counters.failed),
            dead_letters_lost: read(&counters.dead_letters_lost),
        }
    }
}

/// The routes of the gateway, to be served alone or merged into another application.
pub fn router(gateway: Gateway) -> Router {
    let limit = DefaultBodyLimit::max(gateway.inner.config.max_body_bytes);
    Router::new()
        .route("/events", post(events).layer(limit))
        .with_state(gateway)
}

async fn events(State(gateway): State<Gateway>, request: axum::extract::Request) -> Response {
    let body = match body::read(request).await {
        Ok(body) => body,
        Err(problem) => return problem.respond(&gateway.inner.config),
    };
    // On a task of its own, because a client that hangs up takes this future with it: a request is published and
    // counted whole or not at all.
    let inner = Arc::clone(&gateway.inner);
    let handled = tokio::spawn(async move {
        let raw = body.events(inner.config.max_events_per_request)?;
        inner.dispatch(&raw).await
    });
    let outcome = handled.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request was not handled to its end");
        Err(answer::Problem::internal())
    });
    match outcome {
        Ok(answer) => answer.respond(&gateway.inner.config),
        Err(problem) => problem.respond(&gateway.inner.config),
    }
}

/// One event as it came.
#[derive(Debug, Clone, Copy)]
enum Raw<'a> {
    /// Bytes that may be an event.
    Event(&'a [u8]),
    /// A body that is not even a list of events.
    Malformed(&'a [u8]),
}

impl<'a> Raw<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Event(bytes) | Self::Malformed(bytes) => bytes,
        }
    }

    fn too_large(self) -> bool {
        self.bytes().len() > MAX_INTERACTION_BYTES
    }
}
